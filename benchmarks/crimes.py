"""Catching up with a topic: reading, storing and scoring 200,000 waiting messages, beside bare kafka-python; and what a
batch costs after 1,000 others.

Both by the assets as Dagster runs them, in this process, each in storage and a topic of its own.
"""

import gc
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import dagster as dg
import pandas as pd
import psutil

from bigdata_assets import definitions
from bigdata_assets import settings as settings_module
from bigdata_assets.crimes.logic import exports, messages
from bigdata_assets.crimes.partitions import ARREST_MODELS, CRIMES
from bigdata_assets.crimes.sample import write_sample
from bigdata_assets.crimes.tables import TABLES
from bigdata_assets.resources.kafka import KafkaResource
from bigdata_assets.runs.ranges import tags_for
from bigdata_assets.settings import Settings
from bigdata_assets.streams.planner import Planner

WAITING = 200_000
STREAM_TABLES = [table for table in TABLES if table.partition_column == "batch"]
BATCHED = [*(table.key for table in STREAM_TABLES), ARREST_MODELS]
ONLINE = {"ops": {"test_then_train": {"config": {"window_models": False, "history_months": 0}}}}


def run() -> dict[str, float]:
    """Rows a second and their ratios; needs a Kafka broker that is up."""
    settings = settings_module.load()
    with tempfile.TemporaryDirectory() as folder:
        encoded = list(_messages(settings, Path(folder), WAITING))
        return _catch_up(settings, Path(folder), encoded) | _later_batches(settings, Path(folder), encoded)


def _catch_up(settings: Settings, folder: Path, encoded: list[tuple[bytes, bytes]]) -> dict[str, float]:
    with _project(settings, folder / "catch-up", settings.batch_rows) as (own, instance, defs):
        _send(own, encoded)
        bare = _bare(own)
        started = time.perf_counter()
        keys = _plan(own, instance)
        planning = time.perf_counter() - started
        memory, seconds = psutil.Process(), dict.fromkeys(("read and stored", "read, stored and scored"), 0.0)
        peak = 0.0
        for first in range(0, len(keys), settings.batches_per_run):
            part = keys[first : first + settings.batches_per_run]
            at = time.perf_counter()
            _execute(defs, instance, [key for key in BATCHED if key.path[-1] == "crime_messages"], part)
            seconds["read and stored"] += time.perf_counter() - at
            _execute(defs, instance, [key for key in BATCHED if key.path[-1] != "crime_messages"], part)
            seconds["read, stored and scored"] += time.perf_counter() - at
            peak = max(peak, memory.memory_info().rss / 2**20)
    return {
        "200,000 waiting messages: planned as batches, s": planning,
        "read and stored, messages/s": WAITING / seconds["read and stored"],
        "read, stored, typed, scored, learnt and measured, messages/s": WAITING / seconds["read, stored and scored"],
        "bare kafka-python, read alone, messages/s": WAITING / bare,
        "read and stored : bare kafka-python": bare / seconds["read and stored"],
        "memory of the whole process, MB": peak,
    }


def _later_batches(settings: Settings, folder: Path, encoded: list[tuple[bytes, bytes]]) -> dict[str, float]:
    """Seconds of a run of one batch of 120 after 10 and after 1,000 batches; files are joined every 100, as hourly."""
    with _project(settings, folder / "later", 120) as (own, instance, defs):
        _send(own, encoded[: 120 * 1_010])
        keys = _plan(own, instance)
        early = [_timed(defs, instance, key) for key in keys[:15]][5:]
        for first in range(15, 1_000, 20):
            _execute(defs, instance, BATCHED, keys[first : min(first + 20, 1_000)])
            if first % 100 == 15:
                _compact(defs)
        late = [_timed(defs, instance, key) for key in keys[1_000:1_010]]
    return {
        "one run of batch 10, s": median(early),
        "one run of batch 1,000, s": median(late),
        "batch 1,000 : batch 10": median(late) / median(early),
    }


@contextmanager
def _project(settings: Settings, folder: Path, batch_rows: int) -> Iterator[tuple[Settings, dg.DagsterInstance, Any]]:
    home = folder / "dagster"
    home.mkdir(parents=True)
    own = settings.model_copy(
        update={
            "storage": str(folder / "storage"),
            "dagster_home": home,
            "topics": {"crimes": f"bench.{uuid.uuid4().hex[:8]}"},
            "batch_rows": batch_rows,
        }
    )
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        yield own, instance, definitions.build(own, executor=dg.in_process_executor)


def _messages(settings: Settings, folder: Path, count: int) -> Iterator[tuple[bytes, bytes]]:
    """Real reports where BIGDATA_SOURCES has them, else the sample's, again under other IDs until there are enough."""
    source = Path(settings.sources) / "crimes"
    if not source.is_dir():
        source = folder / "sample"
        source.mkdir()
        write_sample(source)
    months = exports.months(source, pd.Timestamp("2017-01-01").date())[-10:]
    reports = pd.concat([exports.read_month(source, month).reports for month in months], ignore_index=True)
    copies = -(-count // len(reports))
    many = pd.concat([reports.assign(report_id=reports["report_id"] + 10**8 * copy) for copy in range(copies)])
    yield from messages.encode(many.iloc[:count])


def _send(own: Settings, encoded: list[tuple[bytes, bytes]]) -> None:
    kafka = KafkaResource(servers=own.kafka_servers)
    kafka.create_topic(own.topic("crimes"), 1)
    with kafka.producer(linger_ms=50) as producer:
        for key, value in encoded:
            producer.send(own.topic("crimes"), value, key)
        producer.flush()


def _bare(own: Settings) -> float:
    """Seconds of kafka-python's own loop over all messages."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=own.kafka_servers, group_id=None, max_poll_records=10_000)
    source = TopicPartition(own.topic("crimes"), 0)
    consumer.assign([source])
    consumer.seek(source, 0)
    started, count = time.perf_counter(), 0
    while count < WAITING:
        count += sum(map(len, consumer.poll(1_000).values()))
    seconds = time.perf_counter() - started
    consumer.close()
    return seconds


def _plan(own: Settings, instance: dg.DagsterInstance) -> list[str]:
    one = Planner(CRIMES, own, KafkaResource.of(own))
    one.add_all(instance)
    return one.keys(instance)


def _execute(defs: Any, instance: dg.DagsterInstance, assets: list[dg.AssetKey], keys: list[str]) -> None:
    tags = tags_for(keys[0], keys[-1])
    config = ONLINE if any(key.path[-1] == "arrest_scores" for key in assets) else None
    job = defs.resolve_implicit_global_asset_job_def()
    job.execute_in_process(instance=instance, asset_selection=assets, tags=tags, run_config=config)
    gc.collect()


def _timed(defs: Any, instance: dg.DagsterInstance, key: str) -> float:
    started = time.perf_counter()
    _execute(defs, instance, BATCHED, [key])
    return time.perf_counter() - started


def _compact(defs: Any) -> None:
    with dg.build_resources({name: defs.resources[name] for name in ("delta", "spark")}) as resources:
        for table in STREAM_TABLES:
            resources.delta.compact(table)


if __name__ == "__main__":
    for name, value in run().items():
        sys.stdout.write(f"{name:<70}{value:>14,.2f}\n")
