"""What a tick of the stream's sensor costs with many batches behind it, on Dagster's SQLite storage."""

import contextlib
import sqlite3
import tempfile
import time
from pathlib import Path
from statistics import median

import dagster as dg

from bigdata_assets import settings as settings_module
from bigdata_assets.crimes.partitions import CRIME_BATCHES, CRIMES
from bigdata_assets.crimes.tables import BATCH_METRICS
from bigdata_assets.resources.kafka import KafkaResource, Offsets
from bigdata_assets.streams.batches import Batch
from bigdata_assets.streams.planner import Planner

KEYS = (100, 1_000, 10_000, 50_000)
ROWS = 120
TICKS = 5


class Broker(KafkaResource):
    """Says what a topic holds; what a broker itself takes is not measured here."""

    end: int

    def offsets(self, topic: str) -> dict[int, Offsets]:  # noqa: ARG002
        return {0: Offsets(0, self.end)}

    def topic_id(self, topic: str) -> str:  # noqa: ARG002
        return "id"


def run() -> dict[str, float]:
    """Seconds of a tick that plans a batch and asks for its run, by the number of batches that are done.

    The first one of a process, and now and then one, looks at all batches; the others at the last ones.
    """
    first, later = zip(*(_ticks(n) for n in KEYS), strict=True)
    figures = {f"a tick with {n:,} batches behind it, s": seconds for n, seconds in zip(KEYS, later, strict=True)}
    figures |= {f"one that looks at all {n:,}, s": seconds for n, seconds in zip(KEYS, first, strict=True)}
    return figures | {"with 50,000 : with 1,000": later[3] / later[1]}


def _repeat(home: Path, partitions: list[str]) -> None:
    """The one materialisation that is stored, for other partitions too: through Dagster it would take minutes."""
    (file,) = home.rglob("index.db")
    columns = "run_id, event, dagster_event_type, timestamp, step_key, asset_key"
    copied = f"INSERT INTO event_logs ({columns}, partition) SELECT {columns}, ? FROM event_logs WHERE id = 1"
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.executemany(copied, [(partition,) for partition in partitions])


def _ticks(n: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "dagster.yaml").write_text("telemetry: { enabled: false }\n")
        settings = settings_module.load({"DAGSTER_HOME": folder, "BATCH_ROWS": str(ROWS), "BATCH_SECONDS": "0"})
        seconds, cursor = [], None
        with dg.DagsterInstance.from_config(folder) as instance:
            keys = [Batch("crimes", 0, ROWS * number, ROWS * (number + 1)).key for number in range(n)]
            instance.add_dynamic_partitions(str(CRIME_BATCHES.name), keys)
            instance.report_runless_asset_event(dg.AssetMaterialization(BATCH_METRICS.key, partition=keys[0]))
            _repeat(Path(folder), keys[1:])
            CRIMES.order(instance)  # the record of what was planned is made
            for number in range(TICKS):
                broker = Broker(servers="localhost:1", end=ROWS * (n + number + 1))
                one = Planner(CRIMES, settings, broker)
                started = time.perf_counter()
                requests, cursor, _ = one.tick(instance, cursor)
                seconds.append(time.perf_counter() - started)
                assert len(requests) == 1
        return seconds[0], median(seconds[1:])
