"""Samples into Cassandra and out of it, and inference: as the branch does it, and by the bare libraries."""

import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from bigdata_assets import settings as settings_module
from bigdata_assets.flow_sensors import exporting
from bigdata_assets.flow_sensors.logic import anomaly_models, series
from bigdata_assets.flow_sensors.tables import CHANNEL_EXPORT, TABLES
from bigdata_assets.io_managers.delta import DeltaIOManager
from bigdata_assets.reading import stage_all
from bigdata_assets.resources.cassandra import CassandraResource
from bigdata_assets.resources.keyspaces import BATCH_ROWS, IN_FLIGHT, Keyspace, token_range
from bigdata_assets.resources.spark import SparkResource

ROWS, CHANNELS = 300_000, 6
RANGES, SPLITS = 16, 2
TIMES = 20_000


def run() -> dict[str, float]:
    """Rows and windows a second of each way, and their ratios; needs engines that are up."""
    settings = settings_module.load()
    connection = CassandraResource.of(settings).connection()
    samples = _samples(ROWS)
    figures: dict[str, float] = {}
    with connection.session() as session:
        for way, write in (("ours", _ours), ("bare driver", _bare)):
            name = f"bench_{uuid.uuid4().hex[:8]}"
            keyspace = Keyspace(session, name)
            keyspace.create("1")
            figures[f"write, rows/s: {way}"] = ROWS / _seconds(lambda: write(session, keyspace, name, samples))  # noqa: B023
        figures["write, ours : bare driver"] = figures["write, rows/s: ours"] / figures["write, rows/s: bare driver"]
        figures |= _reading(settings, connection, session, name)
    return figures | _inference() | _memory()


def _samples(n: int) -> pa.Table:
    each = n // CHANNELS
    at = np.tile(np.datetime64("2016-01-01", "us") + np.arange(each) * np.timedelta64(5, "m"), CHANNELS)
    values = np.random.default_rng(0).normal(size=n)
    return pa.table(
        {
            "site": pa.array(np.repeat([f"site{number // 3}" for number in range(CHANNELS)], each)),
            "channel": pa.array(np.repeat([f"channel{number % 3}" for number in range(CHANNELS)], each)),
            "observed_at": pa.array(at, pa.timestamp("us")).cast(pa.timestamp("us", "UTC")),
            "value": values,
            "quality": pa.nulls(n, pa.string()),
            "edited": pa.array(values, mask=np.arange(n) % 10 > 0),
        }
    )


def _ours(_session: Any, keyspace: Keyspace, _name: str, samples: pa.Table) -> None:
    for part in samples.to_batches(50_000):  # as the reader of files gives them
        keyspace.write_samples(pa.Table.from_batches([part]))


def _bare(session: Any, _keyspace: Keyspace, name: str, samples: pa.Table) -> None:
    """The same rows by the driver's own concurrency, in unlogged batches of one partition."""
    from cassandra.concurrent import execute_concurrent
    from cassandra.query import UNSET_VALUE, BatchStatement, BatchType

    insert = session.prepare(
        f"INSERT INTO {name}.samples (site, channel, month, ts, value, quality, edited) VALUES (?, ?, ?, ?, ?, ?, ?)"
    )

    def batches() -> Iterator[tuple[Any, None]]:
        batch, of = BatchStatement(BatchType.UNLOGGED), None
        for row in samples.to_pylist():
            month = row["observed_at"].strftime("%Y-%m")
            partition = row["site"], row["channel"], month
            if of not in (None, partition) or len(batch) == BATCH_ROWS:
                yield batch, None
                batch = BatchStatement(BatchType.UNLOGGED)
            of = partition
            edited = UNSET_VALUE if row["edited"] is None else row["edited"]
            batch.add(insert, (*partition, row["observed_at"], row["value"], UNSET_VALUE, edited))
        yield batch, None

    execute_concurrent(session, batches(), concurrency=IN_FLIGHT)


def _reading(settings: Any, connection: Any, session: Any, name: str) -> dict[str, float]:
    from dataclasses import replace

    of = replace(connection, keyspace=name)
    months = {month for _, _, month in Keyspace(session, name).partitions()}
    query = session.prepare(
        f"SELECT site, channel, month, ts, value, quality, edited FROM {name}.samples "
        "WHERE token(site, channel, month) >= ? AND token(site, channel, month) <= ?"
    )

    def bare() -> int:
        return sum(1 for number in range(RANGES) for _ in session.execute(query, token_range(number, RANGES)))

    spark = SparkResource(remote=settings.spark_remote)
    with tempfile.TemporaryDirectory() as folder:
        delta = DeltaIOManager(f"{folder}/storage", spark, TABLES)
        try:

            def stored() -> None:
                splits = spark.spark_session.range(0, SPLITS, 1, SPLITS)
                staged = stage_all(
                    splits, lambda numbers: exporting.read(of, months, SPLITS, numbers), delta.staging(CHANNEL_EXPORT)
                )
                _, rows, _ = delta.write(CHANNEL_EXPORT, staged, sorted(months), "bench")
                assert rows == ROWS, rows

            stored()  # workers begin
            with _largest_worker() as peak:
                ours = ROWS / _seconds(stored, times=3)
            assert bare() == ROWS
            driver = ROWS / _seconds(bare, times=3)
        finally:
            spark.stop()
    return {
        "read into a table, rows/s: ours": ours,
        "read, rows/s: bare driver by token ranges": driver,
        "read into a table : bare driver, which stores nothing": ours / driver,
        "read, largest Spark worker, MB": peak[0] / 1e6,
    }


def _series(n: int) -> series.SiteSeries:
    generator = np.random.default_rng(1)
    values = np.cumsum(generator.normal(size=(n, 3)), axis=0).astype(np.float32)
    labels = (generator.random(n) < 0.02).astype(np.int8)
    values[labels == 1] = 0
    times = np.datetime64("2016-01-01", "ms") + np.arange(n) * np.timedelta64(300_000, "ms")
    split = np.repeat(np.arange(3, dtype=np.int8), [int(n * 0.6), int(n * 0.2), n - int(n * 0.6) - int(n * 0.2)])
    nothing = np.zeros(n, np.int32)
    return series.SiteSeries(
        "bench", ("flow", "level", "velocity"), 300, times, values, labels, nothing, nothing, split
    )


def _inference() -> dict[str, float]:
    """Times scored a second by the BiLSTM, and windows that bare Keras predicts on the same stride."""
    from dataclasses import replace

    of, effort = _series(TIMES), replace(anomaly_models.FAST, epochs=1, windows=500)
    fitted = anomaly_models.fit("bilstm_v1", [of], effort)
    scored = _seconds(lambda: anomaly_models.scores(fitted, of), times=3)
    starts = anomaly_models.covering(of, effort.length, effort.step)
    inputs = anomaly_models._inputs(of, starts, fitted.parameters)
    fitted.network.predict(inputs[:64], verbose=0)
    bare = _seconds(lambda: fitted.network.predict(inputs, batch_size=256, verbose=0), times=3)
    return {"inference, times/s: ours": TIMES / scored, "inference : bare Keras predict": bare / scored}


def _memory() -> dict[str, float]:
    """What windows take beside the values that they are views of."""
    of = _series(1_000_000)
    starts = of.starts(60)
    views = np.lib.stride_tricks.sliding_window_view(of.values, 60, axis=0)
    return {
        "a million times: values, MB": of.values.nbytes / 1e6,
        "windows of them, where they begin, MB": (
            starts.nbytes + (not np.shares_memory(views, of.values)) * views.nbytes
        )
        / 1e6,
        "the same windows copied, MB": len(starts) * 60 * of.values.shape[1] * 4 / 1e6,
    }


def _seconds(work: Callable[[], Any], times: int = 1) -> float:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


@contextmanager
def _largest_worker() -> Iterator[list[int]]:
    """The most memory that one of Spark's Python workers has meanwhile."""
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            for process in psutil.process_iter(["cmdline", "memory_info"]):
                command = " ".join(process.info["cmdline"] or ())
                if "python_workers" in command or "pyspark.daemon" in command:
                    peak[0] = max(peak[0], process.info["memory_info"].rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
