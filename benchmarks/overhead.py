"""What Dagster and Spark Connect cost before any work is done: loading definitions, and a run of three tiny assets."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dagster as dg
import pandas as pd
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.execution.api import execute_run_iterator
from pyspark.sql import DataFrame
from pyspark.sql.types import LongType

from bigdata_assets import settings as settings_module
from bigdata_assets.catalogue import table_asset
from bigdata_assets.io_managers.delta import DeltaIOManager, delta_io_manager
from bigdata_assets.resources.spark import SparkResource
from bigdata_assets.runtime import process_per_step
from bigdata_assets.tables import Column, Table

REPEATS = 3
WARM_UP_WRITES = 30
TABLES = tuple(
    Table("tiny", name, "A hundred numbers.", (Column("n", LongType(), "A number."),))
    for name in ("one", "two", "three")
)


@dg.asset(**table_asset(TABLES[0], "1"))
def one() -> pd.DataFrame:
    """A hundred numbers."""
    return pd.DataFrame({"n": range(100)})


@dg.asset(**table_asset(TABLES[1], "1"), ins={"one": dg.AssetIn(TABLES[0].key)})
def two(one: DataFrame) -> DataFrame:
    """The same."""
    return one


@dg.asset(**table_asset(TABLES[2], "1"), ins={"two": dg.AssetIn(TABLES[1].key)})
def three(two: DataFrame) -> DataFrame:
    """The same."""
    return two


def _definitions() -> dg.Definitions:
    """The tiny assets with the executor that BENCH_EXECUTOR names."""
    settings = settings_module.load()
    executors = {
        "in force": lambda: process_per_step(settings),
        "in process": lambda: dg.in_process_executor,
        "spawned": lambda: dg.multiprocess_executor.configured({"max_concurrent": 2}),
    }
    return dg.Definitions(
        assets=[one, two, three],
        resources={
            "spark": SparkResource(remote=settings.spark_remote),
            "delta": delta_io_manager(TABLES).configured({"storage": settings.storage}),
        },
        executor=executors[os.environ.get("BENCH_EXECUTOR", "in force")](),
    )


defs = _definitions()


def materialize_tiny() -> None:
    """The run itself, in a process that does nothing else."""
    repository = ReconstructableRepository.for_module("benchmarks.overhead", "defs", working_directory=str(Path.cwd()))
    job = repository.get_reconstructable_job("__ASSET_JOB")
    with dg.DagsterInstance.get() as instance:
        run = instance.create_run_for_job(job.get_definition(), job_code_origin=job.get_python_origin())
        events = list(execute_run_iterator(job, run, instance))
    if not any(event.event_type == dg.DagsterEventType.RUN_SUCCESS for event in events):
        raise SystemExit(1)


def run() -> dict[str, float]:
    """Seconds of whole processes, the best of three each; needs a Spark Connect server that is up."""
    figures = {"load definitions, s": _best([sys.executable, "-c", "import bigdata_assets.definitions"], {})}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "dagster").mkdir()
        (Path(folder) / "dagster" / "dagster.yaml").write_text("telemetry: { enabled: false }\n")
        environment = {"DAGSTER_HOME": f"{folder}/dagster", "BIGDATA_STORAGE": f"{folder}/storage"}
        run = "from benchmarks.overhead import materialize_tiny; materialize_tiny()"
        # As `bigdata-assets materialize` does.
        log = f"__import__('pathlib').Path({folder!r}, 'log')"
        imports = "from bigdata_assets import settings; from bigdata_assets.runs import fork_server; "
        start = f"{imports}fork_server.start({log}, settings.load()); "
        _warm_up(folder)
        for executor, code in (("in process", run), ("spawned", run), ("in force", start + run)):
            seconds = _best([sys.executable, "-c", code], environment | {"BENCH_EXECUTOR": executor})
            figures[f"three tiny Spark assets, executor {executor}, s"] = seconds
    forced = figures["three tiny Spark assets, executor in force, s"]
    figures["executor in force : in process"] = forced / figures["three tiny Spark assets, executor in process, s"]
    figures["executor in force : spawned"] = forced / figures["three tiny Spark assets, executor spawned, s"]
    return figures


def _warm_up(folder: str) -> None:
    """Use the server as a day's work does: its first dozens of writes are slow, whoever makes them."""
    spark = SparkResource(remote=settings_module.load().spark_remote)
    manager = DeltaIOManager(f"{folder}/warm", spark, TABLES)
    manager.write(TABLES[0], pd.DataFrame({"n": range(100)}), None, "warm")
    for _ in range(WARM_UP_WRITES):
        manager.write(TABLES[1], manager.read(TABLES[0]), None, "warm")
    spark.stop()


def _best(command: list[str], environment: dict[str, str]) -> float:
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - started)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return min(seconds)


if __name__ == "__main__":
    for name, value in run().items():
        print(f"{name:<60}{value:>8.2f}")
