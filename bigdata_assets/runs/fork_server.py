"""What steps are forked from: a process that has the imports done. benchmarks/overhead.py has the figures."""

import os
from multiprocessing import set_forkserver_preload
from multiprocessing.forkserver import ensure_running
from pathlib import Path

from bigdata_assets.settings import Settings

PRELOADED = [
    # First, as Dagster would put it: before anything that replaces parts of the standard library.
    "dagster._core.executor.multiprocess",
    "bigdata_assets.definitions",
    # What Dagster itself imports late in each step: .8 s of it.
    "dagster._utils.test",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.instance.factory",
    "pyspark.sql.connect.session",
    "pyspark.sql.connect.functions",
    "pandas",
    "pyarrow.dataset",
    "deltalake",
    "grpc",
]


def preloaded(settings: Settings) -> list[str]:
    """What the settings have every step import."""
    return [*PRELOADED, *(["s3fs"] if settings.storage_is_s3 else [])]  # .6 s


def start(log: Path, settings: Settings) -> None:
    """Let it import while this process, about to execute a run, does the same: the first step comes 2 s sooner.

    What steps print goes to `log`, since they have the fork server's outputs.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    set_forkserver_preload(preloaded(settings))
    kept = {number: os.dup(number) for number in (1, 2)}
    try:
        with log.open("ab") as file:
            for number in kept:
                os.dup2(file.fileno(), number)
        ensure_running()
    finally:
        for number, was in kept.items():
            os.dup2(was, number)
            os.close(was)
