"""What raw sources are read by: the tables, the inputs' folders, Kafka and Cassandra, each opened at first use."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigdata_assets import runtime
from bigdata_assets.resources.cassandra import CassandraResource
from bigdata_assets.resources.kafka import KafkaResource, KafkaUnreachableError, OffsetsExpiredError
from bigdata_assets.settings import Settings
from bigdata_assets.sources import Source
from bigdata_assets.streams.batches import parse
from bigdata_assets.tables import Table
from bigdata_assets.tracing.history import History, Made
from bigdata_assets.tracing.lineage import Raw, Row
from bigdata_assets.tracing.rows import Tables

if TYPE_CHECKING:
    from bigdata_assets.resources.kafka import Reader
    from bigdata_assets.resources.keyspaces import Keyspace


class Places(contextlib.ExitStack):
    """Where things are; what was opened is closed at its end."""

    def __init__(self, settings: Settings, tables: Tables, history: History) -> None:
        super().__init__()
        self.settings, self.tables, self.history = settings, tables, history
        self._connections: dict[str, Any] = {}

    @property
    def storage(self) -> str:
        return self.settings.storage

    def folder(self, source: Source) -> Path:
        """The folder of a branch's inputs, nothing being made or downloaded for it.

        Raises:
            SourceUnavailableError: there is none.
        """
        return runtime.sources(self.settings).folder(source, download=False)

    @property
    def kafka(self) -> "Reader":
        """Reads Kafka.

        Raises:
            KafkaUnreachableError: no broker answers.
        """
        return self._opened("kafka", lambda: KafkaResource.of(self.settings).reader())

    @property
    def keyspace(self) -> "Keyspace":
        """Reads Cassandra.

        Raises:
            CassandraError: it cannot be asked.
        """
        return self._opened("cassandra", lambda: CassandraResource.of(self.settings).keyspace_session())

    def _opened(self, name: str, connect: Callable[[], contextlib.AbstractContextManager[Any]]) -> Any:
        """A connection; one that could not be made is not tried again, for each row anew."""
        if name not in self._connections:
            try:
                self._connections[name] = self.enter_context(connect())
            except ConnectionError as error:
                self._connections[name] = error
        if isinstance(found := self._connections[name], ConnectionError):
            raise found
        return found

    def made(self, table: Table, row: Row) -> Made | None:
        """The materialisation that a row is of."""
        partition = row.get(table.partition_column) if table.partition_column else None
        return self.history.newest(table.path, partition)


def kafka_message(row: Row, places: Places) -> Raw:
    """The message of a row of a `messages_table`: the broker's bytes; where it has none any more, those stored."""
    batch = parse(row["batch"])
    place: Mapping[str, Any] = {
        "topic": batch.topic,
        "partition": row["kafka_partition"],
        "offset": row["kafka_offset"],
    }
    told = {"key": row["key"], "length_bytes": row["length_bytes"], "broker_timestamp": row["broker_timestamp"]}
    try:
        found = places.kafka.read(batch.topic, row["kafka_partition"], row["kafka_offset"], row["kafka_offset"] + 1)
    except (KafkaUnreachableError, OffsetsExpiredError) as error:
        note = f"from the stored messages, not from the broker: {error}"
        return Raw({**place, "from": "the table of messages"}, row["value"], told, notes=(note,))
    if not found.num_rows:
        note = "from the stored messages: the broker has no message at that offset any more"
        return Raw({**place, "from": "the table of messages"}, row["value"], told, notes=(note,))
    (message,) = found.to_pylist()
    same = message["value"] == row["value"]
    notes = () if same else ("the broker has other bytes there than were stored: was the topic made anew?",)
    told = {name: message[name] for name in told}
    return Raw({**place, "from": "the broker"}, message["value"], told, notes=notes)
