"""Exact offset ranges from a real broker, and what it does when they are gone, late or broken."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewPartitions

from bigdata_assets import cli
from bigdata_assets.crimes import producer, sample
from bigdata_assets.resources.kafka import KEPT_BYTES, KafkaResource, KafkaUnreachableError, OffsetsExpiredError
from bigdata_assets.services.supervisor import free_port
from bigdata_assets.streams.assets import batch_sensor
from bigdata_assets.streams.stream import Stream
from bigdata_assets.streams.tables import messages_table
from bigdata_assets_tests.conftest import Engines, wait_for

pytestmark = pytest.mark.integration


def send(kafka: KafkaResource, topic: str, values: list[bytes | None], partition: int = 0) -> None:
    with kafka.producer(max_request_size=6_000_000) as producer:
        for future in [producer.send(topic, value, b"k", partition=partition) for value in values]:
            future.get(30)


def expire(kafka: KafkaResource, topic: str, before: int, partition: int = 0) -> None:
    """Delete the messages before an offset, as retention does."""
    admin = KafkaAdminClient(bootstrap_servers=kafka.servers)
    admin.delete_records({TopicPartition(topic, partition): before})
    admin.close()
    wait_for(lambda: kafka.offsets(topic)[partition].begin == before, 30, "the records are gone")


def test_a_range_is_read_exactly(kafka: KafkaResource, topic: str) -> None:
    send(kafka, topic, [b"%d" % number for number in range(50)])
    send(kafka, topic, [b"other"], partition=1)
    read = kafka.read(topic, 0, 10, 30)
    assert read["kafka_offset"].to_pylist() == list(range(10, 30))
    assert read["value"].to_pylist() == [b"%d" % number for number in range(10, 30)]
    assert read.equals(kafka.read(topic, 0, 10, 30))
    assert {p: (o.begin, o.end) for p, o in kafka.offsets(topic).items()} == {0: (0, 50), 1: (0, 1)}
    assert kafka.offsets("no.such.topic") == {}


def test_offsets_without_a_message_are_passed_over(kafka: KafkaResource, topic: str) -> None:
    """A transaction's markers take offsets, and what was rolled back is nobody's message."""
    producer = KafkaProducer(bootstrap_servers=kafka.servers, transactional_id=uuid.uuid4().hex)
    producer.init_transactions()
    for end in (producer.commit_transaction, producer.abort_transaction, producer.commit_transaction):
        producer.begin_transaction()
        producer.send(topic, end.__name__.encode(), partition=0).get(30)
        end()
    producer.close()
    held = kafka.offsets(topic)[0]
    assert held.end == 6
    assert kafka.read(topic, 0, 0, 6)["value"].to_pylist() == [b"commit_transaction"] * 2
    assert kafka.read(topic, 0, 1, 4).num_rows == 0


def test_expired_offsets_are_named(kafka: KafkaResource, topic: str) -> None:
    send(kafka, topic, [b"x"] * 20)
    expire(kafka, topic, 12)
    with pytest.raises(OffsetsExpiredError, match=rf"offsets 5 to 11 of {topic}, partition 0, have expired"):
        kafka.read(topic, 0, 5, 15)
    with pytest.raises(OffsetsExpiredError, match="offsets 5 to 8 of"):
        kafka.read(topic, 0, 5, 9)
    assert kafka.read(topic, 0, 12, 20).num_rows == 8


def test_offsets_that_are_not_there_are_named(kafka: KafkaResource, topic: str) -> None:
    send(kafka, topic, [b"x"] * 3)
    with pytest.raises(OffsetsExpiredError, match=r"offsets 3 to 4 of .* are not there: it ends at 3"):
        kafka.read(topic, 0, 0, 5)
    with pytest.raises(OffsetsExpiredError, match="has no such partition"):
        kafka.read(topic, 7, 0, 5)


def test_of_a_large_message_the_beginning_is_kept(kafka: KafkaResource, topic: str) -> None:
    send(kafka, topic, [b"a", b"x" * 5_000_000, None, b"b"])
    read = kafka.read(topic, 0, 0, 4)
    assert read["length_bytes"].to_pylist() == [1, 5_000_000, 0, 1]
    assert [v if v is None else len(v) for v in read["value"].to_pylist()] == [1, KEPT_BYTES, None, 1]


def test_a_clock_that_is_wrong_by_a_unit_costs_no_message(kafka: KafkaResource, topic: str) -> None:
    own = f"{topic}.clock"
    kafka.create_topic(own, 1, {"message.timestamp.after.max.ms": str(2**63 - 1)})
    with kafka.producer() as sending:
        for per_second in (1_000, 10**6, 10**9):
            sending.send(own, b"v", b"k", timestamp_ms=1_700_000_000 * per_second).get(30)
    years = [time.year for time in kafka.read(own, 0, 0, 3)["broker_timestamp"].to_pylist()]
    assert years == [2023, 2199, 2199]


def test_an_absent_broker_is_named_at_once() -> None:
    absent = KafkaResource(servers=f"localhost:{free_port()}")
    started = time.monotonic()
    with pytest.raises(KafkaUnreachableError, match="bigdata-assets services up"):
        absent.offsets("t")
    assert time.monotonic() - started < 5


def test_what_was_acknowledged_survives_kill_9_and_the_sensor_waits_for_the_broker(
    engines: Engines, kafka: KafkaResource, topic: str, tmp_path: Path
) -> None:
    send(kafka, topic, [b"%d" % number for number in range(2_000)])
    settings = engines.settings.model_copy(update={"dagster_home": tmp_path})
    asset, partitions = dg.AssetKey("last"), dg.DynamicPartitionsDefinition(name="some_batches")
    sensor = batch_sensor(Stream(topic, partitions, messages_table("toy", "messages"), asset, asset, "job", "some"))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:

        def tick() -> Any:
            resources = {"settings": settings, "kafka": kafka}
            return sensor(dg.build_sensor_context(instance=instance, resources=resources))

        with engines.dead("kafka", settings.kafka_port):
            skipped = tick()
        assert isinstance(skipped, dg.SkipReason)
        assert "No Kafka broker answers" in str(skipped.skip_message)
        # Fewer than a batch, and new to this sensor: they wait BATCH_SECONDS first.
        waiting = tick()
        assert isinstance(waiting, dg.SkipReason)
        assert str(waiting.skip_message).startswith("lag 2000 messages")
    assert kafka.read(topic, 0, 0, 2_000)["value"].to_pylist() == [b"%d" % number for number in range(2_000)]


class TestProducer:
    @staticmethod
    def command(engines: Engines, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return engines.command("produce", "crimes", *arguments, BIGDATA_SOURCES="sample")

    @staticmethod
    def messages(kafka: KafkaResource, topic: str) -> list[Any]:
        consumer = KafkaConsumer(bootstrap_servers=kafka.servers, group_id=None, auto_offset_reset="earliest")
        consumer.assign([TopicPartition(topic, partition) for partition in kafka.offsets(topic)])
        left, found = sum(o.end for o in kafka.offsets(topic).values()), []
        while len(found) < left:
            found += [record for records in consumer.poll(1_000).values() for record in records]
        consumer.close()
        return found

    def test_reports_come_by_time_and_keyed(self, engines: Engines, kafka: KafkaResource) -> None:
        topic = f"produced.{uuid.uuid4().hex[:8]}"
        done = self.command(engines, "--month", "2016-01", "--every", "0", "--topic", topic, "--limit", "500")
        assert done.returncode == 0, done.stderr
        assert f"500 reports sent to {topic}" in done.stdout
        records = self.messages(kafka, topic)
        reports = [json.loads(record.value) for record in records]
        assert [record.key for record in records] == [str(report["report_id"]).encode() for report in reports]
        assert [r["occurred_at"] for r in reports] == sorted(r["occurred_at"] for r in reports)
        assert {report["schema_version"] for report in reports} == {1}

    def test_it_goes_on_where_it_was_stopped_or_killed(self, engines: Engines, kafka: KafkaResource) -> None:
        topic = f"resumed.{uuid.uuid4().hex[:8]}"
        command = [sys.executable, "-m", "bigdata_assets.cli", "produce", "crimes", "--month", "2016-01"]
        command += ["--topic", topic, "--partitions", "3"]
        environment = {**os.environ, **engines.settings.environment(), "BIGDATA_SOURCES": "sample"}
        for number in (signal.SIGINT, signal.SIGKILL, signal.SIGTERM):
            before = sum(offsets.end for offsets in kafka.offsets(topic).values())
            running = subprocess.Popen(
                [*command, "--rows", "40", "--every", "200ms", "--resume"], env=environment, stderr=subprocess.PIPE
            )
            wait_for(lambda n=before: sum(o.end for o in kafka.offsets(topic).values()) > n + 60, 60, "some are sent")
            running.send_signal(number)
            running.communicate(timeout=30)
            assert running.returncode == (-9 if number == signal.SIGKILL else 0)
        done = self.command(
            engines, "--month", "2016-01", "--every", "0", "--rows", "500", "--topic", topic, "--resume"
        )
        assert done.returncode == 0, done.stderr
        ids = [record.key for record in self.messages(kafka, topic)]
        assert len(ids) == len(set(ids)) == 2_400

    @pytest.mark.parametrize("portions", [True, False], ids=["now", "as an earlier version began it"])
    def test_wherever_it_was_cut_off_and_partitions_added_each_report_comes_once(
        self, kafka: KafkaResource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portions: bool
    ) -> None:
        topic = f"repartitioned.{uuid.uuid4().hex[:8]}"
        sample.write_sample(tmp_path)
        monkeypatch.setattr(producer, "LOOKED_AT", 5)

        def send_on(rows: int, portion: int | None = None, lost: Sequence[int] = (), without: str = "") -> None:
            """Go on, and be killed when of a portion all is sent but what some partitions were to get."""
            sent = 0

            def send(self: KafkaProducer, *message: Any, partition: int, headers: list[Any]) -> Any:
                headers = [header for header in headers if header[0] != without]
                lose = sent == portion and partition in lost
                return None if lose else real_send(self, *message, partition=partition, headers=headers)

            def flush(self: KafkaProducer, timeout: float | None = None) -> None:
                nonlocal sent
                real_flush(self, timeout)
                if sent == portion and timeout is None:  # not when it is closed
                    raise InterruptedError
                sent += 1

            real_send, real_flush = KafkaProducer.send, KafkaProducer.flush
            with monkeypatch.context() as patch, pytest.raises(InterruptedError) if lost else nullcontext():
                patch.setattr(KafkaProducer, "send", send)
                patch.setattr(KafkaProducer, "flush", flush)
                months, options = ["2016-01"], {"partitions": 2, "resume": True}
                producer.produce(kafka, tmp_path, months, topic, rows=rows, every_s=0, **options)

        def add_partitions(total: int) -> None:
            admin = KafkaAdminClient(bootstrap_servers=kafka.servers)
            admin.create_partitions({topic: NewPartitions(total)})
            admin.close()
            wait_for(lambda: len(kafka.offsets(topic)) == total, 30, "the partitions are there")

        send_on(300, portion=1, lost=[0], without="" if portions else producer.PORTION)
        add_partitions(3)
        send_on(40, portion=2, lost=[1, 2])
        send_on(30, portion=3, lost=[0])
        add_partitions(5)
        send_on(500, portion=0, lost=[0, 3])
        send_on(500, portion=1, lost=[4])
        ids = [record.key for record in self.messages(kafka, topic)]
        assert 600 < len(ids) < 2_400
        send_on(700)
        ids = [record.key for record in self.messages(kafka, topic)]
        assert len(ids) == len(set(ids)) == 2_400
        send_on(700)
        assert len(self.messages(kafka, topic)) == 2_400

    def test_what_was_sent_twice_on_purpose_is_gone_on_with(self, kafka: KafkaResource, tmp_path: Path) -> None:
        topic = f"twice.{uuid.uuid4().hex[:8]}"
        sample.write_sample(tmp_path)
        months: dict[str, list[bytes]] = {}
        for month, limit, resume in (
            ("2016-01", None, False),
            ("2015-12", None, False),
            ("2016-01", 300, False),
            ("2016-01", None, True),
        ):
            sent = len(self.messages(kafka, topic))
            producer.produce(kafka, tmp_path, [month], topic, rows=250, every_s=0, resume=resume, limit=limit)
            months.setdefault(month, []).extend(record.key for record in self.messages(kafka, topic)[sent:])
        assert months["2016-01"][:2_400] == months["2016-01"][2_400:]

    @staticmethod
    def refusal(engines: Engines, *arguments: str) -> str:
        """What the command says of arguments that it cannot use; in this process, since nothing is to be sent."""
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        environment = engines.settings.environment() | {"BIGDATA_SOURCES": "sample"}
        try:
            done = CliRunner().invoke(cli.group, ["produce", "crimes", *arguments], env=environment)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        assert done.exit_code == 1
        assert isinstance(done.exception, SystemExit), "it would be a traceback"
        return done.stderr

    @pytest.mark.parametrize("topic", ["crímenes", "a b", "..", "", "x" * 200])
    def test_an_illegal_topic_is_named_before_anything_is_sent(self, engines: Engines, topic: str) -> None:
        told = self.refusal(engines, "--month", "2016-01", "--topic", topic)
        assert "a topic's name is 1 to 180 of A-Z a-z 0-9" in told

    def test_a_month_that_is_not_there_is_named(self, engines: Engines) -> None:
        assert "no export of 1999-01" in self.refusal(engines, "--month", "1999-01")
        assert "--month is like 2016-01" in self.refusal(engines, "--month", "January")
