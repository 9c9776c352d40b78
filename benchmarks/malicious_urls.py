"""Reading a landed file of 1 GB, and scoring of URLs: on Spark as the assets do it, bare libraries, the classic way.

The classic way of scoring builds a one-row frame for every URL inside a Python UDF and has a random forest of hand-made
features predict it by itself; it is measured on few rows, because it would take an hour on all.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from pyspark.sql import functions as F
from upath import UPath

from bigdata_assets import settings as settings_module
from bigdata_assets.io_managers.sklearn_model import SklearnModelIOManager, StoredModel, TrainedModel
from bigdata_assets.malicious_urls.logic import classifier, reading, scoring, training
from bigdata_assets.malicious_urls.sample import write_landing_files, write_sample
from bigdata_assets.malicious_urls.tables import CLASSES
from bigdata_assets.resources.spark import SparkResource
from bigdata_assets.workers import once_per_process

CORES = 2
CLASSIC_ROWS = 600
LARGE_FILE_BYTES = 10**9


def run() -> dict[str, float]:
    """URLs a second of each way, best of three, and their ratios; needs a Spark Connect server that is up."""
    settings = settings_module.load()
    spark = SparkResource(remote=settings.spark_remote)
    with tempfile.TemporaryDirectory() as folder:
        labelled, urls = _inputs(settings.sources, Path(folder))
        stored, forest = (_stored(folder, family, labelled) for family in ("ensemble", "forest"))
        path = f"{folder}/urls.parquet"
        pq.write_table(_rows(urls), path)
        try:
            figures = _large_file(spark, Path(folder) / "large.csv", urls) | _measure(spark, stored, forest, path, urls)
        finally:
            spark.stop()
    return figures


def _stored(folder: str, family: str, labelled: pd.DataFrame) -> StoredModel:
    """A model of a family, written and read as the asset's is."""
    import dagster as dg

    manager, key = SklearnModelIOManager(storage=folder), dg.AssetKey(["bench", family])
    manager.handle_output(
        dg.build_output_context(asset_key=key, asset_spec=dg.AssetSpec(key), run_id="bench"),
        TrainedModel(training.fit(labelled, family, strip_scheme=True, seed=0), CLASSES),
    )
    return manager.load_input(dg.build_input_context(asset_key=key))


def _measure(
    spark: SparkResource, stored: StoredModel, forest: StoredModel, path: str, urls: list[str]
) -> dict[str, float]:
    session = spark.spark_session
    frame = session.read.parquet(path)

    def ours() -> None:
        load = lambda: stored.load(classifier.TRUSTED_TYPES)  # noqa: E731
        scored = scoring.score(frame, load, stored.version, CLASSES, datetime.now(UTC), tasks=2 * CORES)
        scored.write.format("noop").mode("overwrite").save()

    bare_model = stored.load(classifier.TRUSTED_TYPES)

    def bare() -> None:
        for start in range(0, len(urls), 10_000):
            bare_model.predict_proba(urls[start : start + 10_000])

    def classic(model: StoredModel) -> Callable[[], None]:
        def one_by_one(url: str) -> str:
            loaded = once_per_process(model.version, lambda: model.load(classifier.TRUSTED_TYPES))
            return str(loaded.predict(pd.DataFrame({"url": [url]})["url"].tolist())[0])

        udf = F.udf(one_by_one, "string")
        few = frame.limit(CLASSIC_ROWS).repartition(CORES).select(udf("url").alias("class"))
        return lambda: few.write.format("noop").mode("overwrite").save()

    rate, bare_rate = len(urls) / _best(ours), len(urls) / _best(bare)
    forest_rate, same_rate = (CLASSIC_ROWS / _best(classic(model)) for model in (forest, stored))
    return {
        "ours on Spark, URLs/s": rate,
        "bare predict_proba on one core, URLs/s": bare_rate,
        "classic: scalar UDF, random forest, URLs/s": forest_rate,
        "scalar UDF with the ensemble, URLs/s": same_rate,
        "ours : classic": rate / forest_rate,
        "ours : scalar UDF with the same model": rate / same_rate,
        "ours : bare, per core": rate / CORES / bare_rate,
    }


def _large_file(spark: SparkResource, path: Path, urls: list[str]) -> dict[str, float]:
    """Reading one file of 1 GB: seconds, and the most memory that any of Spark's Python workers took."""
    lines = "".join(f'"{url.replace(chr(34), chr(34) * 2)}"\n' for url in urls if "\n" not in url and "\r" not in url)
    with path.open("w", encoding="utf-8") as file:
        file.write("url\n")
        while file.tell() < LARGE_FILE_BYTES:
            file.write(lines)

    def ours() -> None:
        rows = reading.read_urls(spark.spark_session, reading.plan_splits(UPath(path)))
        rows.write.format("noop").mode("overwrite").save()

    def bare() -> None:
        options = pa.csv.ParseOptions(newlines_in_values=False)
        for _ in pa.csv.open_csv(path, parse_options=options):
            pass

    with _WorkersMemory() as memory:
        started = time.perf_counter()
        ours()
        seconds = time.perf_counter() - started
    figures = {
        "reading a file of 1 GB, s": seconds,
        "the same by bare pyarrow.csv, which checks no URL, s": _best(bare, 1),
        "peak memory of a Python worker while reading it, MB": memory.peak_mb,
    }
    path.unlink()
    return figures


class _WorkersMemory:
    """Watches Spark's Python workers for the largest resident set."""

    def __enter__(self) -> "_WorkersMemory":
        self.peak_mb, self._ended = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            for process in psutil.process_iter(["cmdline", "memory_info"]):
                if "pyspark.worker" in (process.info["cmdline"] or []):
                    self.peak_mb = max(self.peak_mb, process.info["memory_info"].rss / 2**20)


def _inputs(sources: str, folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Labelled rows to fit on and URLs to score: the real ones where BIGDATA_SOURCES has them, else the sample."""
    real = Path(sources) / "malicious_urls"
    if (real / "fused_binary_183k.parquet").is_file():
        labelled = pd.read_csv(real / "malicious_phish_stratified_28k.csv.gz").drop_duplicates("url")
        urls = pq.read_table(real / "fused_binary_183k.parquet")["url"].cast(pa.large_binary()).to_pylist()
        return labelled, [url.decode("utf-8", "replace") for url in urls]
    write_sample(folder)
    write_landing_files(folder / "urls", n_files=50)
    labelled = pd.read_csv(folder / "malicious_phish.csv").dropna().drop_duplicates("url")
    files = sorted((folder / "urls").glob("*.csv"))
    return labelled[labelled["type"].isin(CLASSES)], pd.concat(map(pd.read_csv, files))["url"].tolist()


def _rows(urls: list[str]) -> pa.Table:
    n = len(urls)
    return pa.table(
        {
            "batch": pa.array(["bench"] * n),
            "position": pa.array(range(n), pa.int64()),
            "url": urls,
            "registered_domain": pa.array([""] * n),
            "landed_at": pa.array([datetime.now(UTC)] * n, pa.timestamp("us", tz="UTC")),
        }
    )


def _best(way: Callable[[], None], repeats: int = 3) -> float:
    """Seconds of the quickest of some runs, after one that warms up."""
    way()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        way()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    for name, value in run().items():
        sys.stdout.write(f"{name:<50}{value:>14,.2f}\n")
