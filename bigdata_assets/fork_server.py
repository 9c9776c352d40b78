"""What steps are forked from: a process that has the imports done. benchmarks/overhead.py has the figures."""

from multiprocessing import set_forkserver_preload
from multiprocessing.forkserver import ensure_running

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


def start() -> None:
    """Let it import while this process, about to execute a run, does the same: the first step comes 2 s sooner."""
    set_forkserver_preload(PRELOADED)
    ensure_running()
