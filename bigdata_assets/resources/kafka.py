"""Kafka: offsets of topics, exact offset ranges as Arrow tables, and producers.

No group and no committed offsets: what was read is known from the tables that hold it.
"""

import socket
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
from pydantic import Field

from bigdata_assets import settings as settings_module
from bigdata_assets.streams.tables import MESSAGE
from bigdata_assets.tables import row_schema, to_arrow

MAX_MESSAGE_BYTES = 1_048_576
"""Kafka's own default limit. Of a larger message only the beginning is kept: nobody's report is that long."""
KEPT_BYTES = 65_536
EARLIEST_MS, LATEST_MS = -2_208_988_800_000, 7_258_118_399_999
"""1900 to 2199: a producer's clock may say anything, and what is beyond has no place in a table."""
POLL_MS = 1_000
STALLED_S = 60
"""A broker that gives nothing of a range that it has for so long is taken for broken."""

MESSAGES = to_arrow(row_schema(*MESSAGE))
"""Messages as received: a null value is a tombstone; of a value over MAX_MESSAGE_BYTES there are KEPT_BYTES, and its
length is that of the whole."""


class KafkaUnreachableError(ConnectionError):
    """No broker answers."""


class OffsetsExpiredError(RuntimeError):
    """Messages that were asked for are not in the topic any more."""


@dataclass(frozen=True)
class Offsets:
    """What a topic's partition holds: [begin, end)."""

    begin: int
    end: int


class KafkaResource(dg.ConfigurableResource):
    """A Kafka cluster; how to log in comes from the environment at the moment of use and is in no configuration."""

    servers: str = Field(description="Brokers, host:port with commas between.")

    @classmethod
    def of(cls, settings: settings_module.Settings) -> "KafkaResource":
        """The cluster that the settings name."""
        return cls(servers=settings.kafka_servers)

    def offsets(self, topic: str) -> dict[int, Offsets]:
        """What each partition of a topic holds; empty where there is no such topic.

        Raises:
            KafkaUnreachableError: no broker answers.
        """
        with self._consumer() as consumer:
            from kafka import TopicPartition

            wanted = [TopicPartition(topic, partition) for partition in _partitions(consumer, topic)]
            begins, ends = (consumer.beginning_offsets(wanted), consumer.end_offsets(wanted)) if wanted else ({}, {})
            return {tp.partition: Offsets(begins[tp], ends[tp]) for tp in wanted}

    def read(self, topic: str, partition: int, first: int, end: int) -> pa.Table:
        """The messages of one range, as `reader` gives them."""
        with self.reader() as reader:
            return reader.read(topic, partition, first, end)

    @contextmanager
    def reader(self) -> Generator["Reader", None, None]:
        """Reads ranges over one connection; those that follow each other in a partition without asking again.

        Raises:
            KafkaUnreachableError: no broker answers.
        """
        with self._consumer() as consumer:
            yield Reader(consumer, self.servers)

    @contextmanager
    def producer(self, **options: Any) -> Generator[Any, None, None]:
        """A producer (`kafka.KafkaProducer`) that writes each message once, in order, to all replicas.

        Raises:
            KafkaUnreachableError: no broker answers.
        """
        from kafka import KafkaProducer

        with self._connected():
            producer = KafkaProducer(
                **self._connection(), enable_idempotence=True, acks="all", max_block_ms=30_000, **options
            )
        try:
            yield producer
        finally:
            producer.close(timeout=30)

    def cluster_id(self) -> str:
        """The cluster's own name for itself, which no other cluster has.

        Raises:
            KafkaUnreachableError: no broker answers.
        """
        from kafka import KafkaAdminClient

        with self._connected():
            client = KafkaAdminClient(**self._connection())
            try:
                return str(client.describe_cluster()["cluster_id"])
            finally:
                client.close()

    def topic_id(self, topic: str) -> str:
        """What tells a topic from another one of the same name; empty where the broker has no such ids, or no topic.

        Raises:
            KafkaUnreachableError: no broker answers.
        """
        from kafka import KafkaAdminClient
        from kafka.errors import UnknownTopicOrPartitionError

        with self._connected():
            client = KafkaAdminClient(**self._connection())
            try:
                described = client.describe_topics([topic])
            except UnknownTopicOrPartitionError:
                return ""
            finally:
                client.close()
        return next((str(about.get("topic_id") or "") for about in described if not about["error_code"]), "")

    def create_topic(self, topic: str, partitions: int, configuration: Mapping[str, str] | None = None) -> None:
        """Create a topic if there is none of that name."""
        from kafka import KafkaAdminClient
        from kafka.admin import NewTopic
        from kafka.errors import TopicAlreadyExistsError

        with self._connected():
            client = KafkaAdminClient(**self._connection())
        try:
            client.create_topics(
                [NewTopic(topic, num_partitions=partitions, topic_configs=dict(configuration or {}))],
                wait_for_metadata=True,
            )
        except TopicAlreadyExistsError:
            pass
        finally:
            client.close()

    def tail(self, topic: str, count: int) -> dict[int, list[Any]]:
        """The last messages of each partition as kafka-python's records, newest last, at most `count` of each."""
        from kafka import TopicPartition

        found: dict[int, list[Any]] = {}
        for partition, held in self.offsets(topic).items():
            source, first = TopicPartition(topic, partition), max(held.begin, held.end - count)
            found[partition] = []
            with self._consumer() as consumer:
                consumer.assign([source])
                consumer.seek(source, first)
                while first < held.end and consumer.position(source) < held.end:
                    found[partition] += consumer.poll(POLL_MS).get(source, [])
        return found

    @contextmanager
    def _consumer(self) -> Generator[Any, None, None]:
        from kafka import KafkaConsumer
        from kafka.errors import KafkaError

        with self._connected():
            consumer = KafkaConsumer(
                **self._connection(),
                group_id=None,
                enable_auto_commit=False,
                # `earliest` would jump over expired offsets without a word.
                auto_offset_reset="none",
                isolation_level="read_committed",
                allow_auto_create_topics=False,
                max_poll_records=10_000,
            )
        try:
            yield consumer
        except KafkaError as error:
            if not getattr(error, "retriable", False):
                raise
            raise KafkaUnreachableError(f"Kafka at {self.servers} went away: {type(error).__name__} {error}") from error
        finally:
            consumer.close()

    @contextmanager
    def _connected(self) -> Generator[None, None, None]:
        """Probes first: kafka-python backs off for seconds before it says that nobody is there."""
        from kafka.errors import KafkaError

        errors = []
        for server in self.servers.split(","):
            host, _, port = server.rpartition(":")
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
                break
            except OSError as error:
                errors.append(f"{server} ({error})")
        else:
            raise KafkaUnreachableError(
                f"No Kafka broker answers at {', '.join(errors)}. Start the local one with `bigdata-assets services "
                "up`, or set KAFKA_BOOTSTRAP_SERVERS to yours."
            )
        try:
            yield
        except (KafkaError, OSError) as error:
            raise KafkaUnreachableError(
                f"Kafka at {self.servers} does not take the connection: {type(error).__name__} {error}. It may still "
                "be starting; see KAFKA_SECURITY_* if it asks for TLS or a login."
            ) from error

    def _connection(self) -> dict[str, Any]:
        settings = settings_module.load()
        options: dict[str, Any] = {
            "bootstrap_servers": self.servers.split(","),
            "security_protocol": settings.kafka_protocol,
            "bootstrap_timeout_ms": 10_000,
        }
        if settings.kafka_protocol.startswith("SASL"):
            options |= {
                "sasl_mechanism": settings.kafka_mechanism,
                "sasl_plain_username": settings.kafka_username,
                "sasl_plain_password": settings.kafka_password,
            }
        if settings.kafka_ca_file:
            options["ssl_cafile"] = str(settings.kafka_ca_file)
        return options


class Reader:
    """Exact offset ranges from a connected consumer."""

    def __init__(self, consumer: Any, servers: str) -> None:
        self._consumer = consumer
        self._servers = servers
        self._place: tuple[Any, int] | None = None
        self._known: set[Any] = set()

    def read(self, topic: str, partition: int, first: int, end: int) -> pa.Table:
        """The messages of [first, end) in one partition, as MESSAGES; offsets without a message are passed over.

        Raises:
            OffsetsExpiredError: some of the range is not there any more, or not yet; the message names the range.
            KafkaUnreachableError: the broker gives nothing of what it has.
        """
        return pa.Table.from_batches(self._batches(topic, partition, first, end), MESSAGES)

    def _batches(self, topic: str, partition: int, first: int, end: int) -> Iterator[pa.RecordBatch]:
        from kafka import TopicPartition
        from kafka.errors import KafkaError, OffsetOutOfRangeError

        source, consumer = TopicPartition(topic, partition), self._consumer
        try:
            begin, last = self._held(source)
            if begin > first or last < end:
                raise OffsetsExpiredError(_lost(source, first, end, begin, last))
            if self._place != (source, first):
                consumer.assign([source])
                consumer.seek(source, first)
            self._place, heard = None, time.monotonic()
            while (position := consumer.position(source)) < end:
                # Not beyond the end: what was fetched beyond it stays with the consumer, for the range that follows.
                records = consumer.poll(POLL_MS, max_records=end - position).get(source, [])
                if records:
                    yield _record_batch([record for record in records if record.offset < end])
                if consumer.position(source) > position:
                    heard = time.monotonic()
                elif time.monotonic() - heard > STALLED_S:
                    raise KafkaUnreachableError(
                        f"{self._servers} gave nothing of {topic}, partition {partition}, from offset {position} on "
                        f"for {STALLED_S} s; look at the broker's log and run this again."
                    )
            self._place = (source, consumer.position(source))
        except OffsetOutOfRangeError as error:
            begin, last = self._held(source)
            raise OffsetsExpiredError(_lost(source, first, end, begin, last)) from error
        except KafkaError as error:
            raise KafkaUnreachableError(f"reading {topic} from {self._servers} failed: {error}") from error

    def _held(self, source: Any) -> tuple[int, int]:
        if source not in self._known:
            # Once: it asks for the metadata of all topics.
            self._known |= {
                source._replace(partition=partition) for partition in _partitions(self._consumer, source.topic)
            }
        if source not in self._known:
            raise OffsetsExpiredError(
                f"{source.topic}, partition {source.partition}: {self._servers} has no such partition."
            )
        begins, ends = self._consumer.beginning_offsets([source]), self._consumer.end_offsets([source])
        return int(begins[source]), int(ends[source])


def _lost(source: Any, first: int, end: int, begin: int, last: int) -> str:
    where = f"of {source.topic}, partition {source.partition},"
    if begin > first:
        return (
            f"offsets {first} to {min(begin, end) - 1} {where} have expired: the topic begins at {begin} now. "
            "They can only be sent again; until this batch is given up (`bigdata-assets batches --give-up KEY`), "
            "nothing after it is learnt."
        )
    return f"offsets {max(first, last)} to {end - 1} {where} are not there: it ends at {last}. Was it made anew?"


def _partitions(consumer: Any, topic: str) -> list[int]:
    return sorted(consumer.partitions_for_topic(topic) or ()) if topic in consumer.topics() else []


def _record_batch(records: list[Any]) -> pa.RecordBatch:
    values = [record.value for record in records]
    lengths = [0 if value is None else len(value) for value in values]
    if max(lengths, default=0) > MAX_MESSAGE_BYTES:
        values = [
            value if length <= MAX_MESSAGE_BYTES else value[:KEPT_BYTES]
            for value, length in zip(values, lengths, strict=True)
        ]
    columns = [
        [record.partition for record in records],
        [record.offset for record in records],
        np.array([record.timestamp for record in records], np.int64).clip(EARLIEST_MS, LATEST_MS) * 1_000,
        [record.key for record in records],
        values,
        lengths,
    ]
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, MESSAGES, strict=True)], schema=MESSAGES
    )
