"""Dagster's default launcher, which also knows whether a run's process lives: run monitoring then ends dead runs.

Without it a run whose process was killed together with its code server stays STARTED for hours, and what waits for it
stands still.
"""

import json
import os
import platform

import dagster as dg
import psutil
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.tags import GRPC_INFO_TAG

PROCESS = "bigdata_assets/process"
"""Tag of a run that a `bigdata-assets materialize` executes itself: its process and machine."""
CLOCK_S = 5
"""By how much a process may seem younger than what it has written: the kernel has a clock of its own for its start."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def this_process() -> dict[str, str]:
    """The tag of a run that this process executes itself."""
    return {PROCESS: f"{os.getpid()}@{platform.node()}"}


def worker(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[int, str, float] | None:
    """The process that executes a run: its number, its machine, and when it was there; None where none has said.

    The tag counts where no event names a process: a run that is made again in the UI has the tags of the first one.
    """
    pid, _, machine = run.tags.get(PROCESS, "").partition("@")
    host = json.loads(run.tags.get(GRPC_INFO_TAG, "{}")).get("host", LOOPBACK[0])
    here = host if host not in LOOPBACK else machine or platform.node()
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        if named := entry.get_dagster_event().engine_event_data.metadata.get("pid"):
            return int(str(named.value)), here, entry.timestamp
    if not pid:
        return None
    created = instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))[0].create_timestamp
    return int(pid), machine, created.timestamp()


def process_lives(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool | None:
    """Whether the process that executes a run lives; None where none has said yet that it does.

    One on another machine counts as alive: it cannot be seen. Where Dagster's storage is a folder of this machine there
    is no other one, whatever this one was called before. A process of the same number that is younger than the run's
    first word is another one.
    """
    if (found := worker(instance, run)) is None:
        return None
    pid, machine, since = found
    is_here = machine == platform.node() or isinstance(instance.run_storage, SqliteRunStorage)
    return _is_there(pid, since) if is_here else True


def _is_there(pid: int, since: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() < since + CLOCK_S
    except psutil.NoSuchProcess:
        return False


class RunLauncher(DefaultRunLauncher):
    """Has runs executed by their code server."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """By the process that executes it.

        Not by what its code server says: one that was reloaded knows nothing of the runs that it has under way.
        """
        if process_lives(self._instance, run) is False:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the process that executed it is gone")
        return CheckRunHealthResult(WorkerStatus.RUNNING)
