"""What was tried of a batch or a file, and whether it is to be tried again.

A run that ended with its process or with an engine, and not by what it was given, is no attempt of that: it is asked
for again soon, and does not count.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.storage.tags import MAX_RETRIES_TAG, RUN_FAILURE_REASON_TAG
from dagster._utils.error import SerializableErrorInfo

BY_ENGINE = (
    "ChildProcessCrashException",  # of a step's process that was killed
    "DagsterExecutionInterruptedError",
    "EarlierBatchError",
    "CassandraUnreachableError",
    "KafkaUnreachableError",
    *("KafkaTimeoutError", "KafkaConnectionError", "NodeNotReadyError"),
    "StorageUnreachableError",
    *("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "FSTimeoutError"),  # of S3's client
    "SparkUnreachableError",
    "RetriesExceeded",  # of Spark's client whose server was killed
)
LOST_SESSION = (
    *("[INVALID_HANDLE.SESSION_", "[NO_ACTIVE_SESSION]", "StatusCode.UNAVAILABLE"),
    *("stopped SparkContext", "SparkContext was shut down"),
    *("CassandraUnreachableError", "Generic S3 error"),
)
"""In messages of Spark's client whose server came back as another one, or is just going, or whose worker lost one; and
of deltalake whose object store does not answer.
"""
LOST_FORK_SERVER = ("EOFError", "BrokenPipeError", "ConnectionRefusedError", "ConnectionResetError")
"""Of a run whose steps could not be begun, since what forks them was killed."""
BY_ITSELF = tuple(
    reason.value
    for reason in (
        RunFailureReason.STEP_FAILURE,
        RunFailureReason.RUN_EXCEPTION,
        RunFailureReason.JOB_INITIALIZATION_FAILURE,
    )
)
"""Reasons of a failed run, where no step's failure is kept, that would be the same another time."""
NO_OTHER_RETRY = {MAX_RETRIES_TAG: "0"}
"""Tag of runs that a sensor of ours asks for again itself: the daemon is not to do so too."""
RETRY_AFTER_S = 15
"""Before the second attempt; four times as long before each later one: the sixth comes an hour after the fifth."""
INTERRUPTED_S = 15
"""So much longer each time, to a minute, before an interrupted run is asked for again; the first time at once."""
MANY, SELDOM_S = 20, 3_600
"""After so many interruptions in a row it may be that what is run ends its process: then only so often."""
KEPT_RUNS = 10_000
ASKED_FOR = 500
"""Values of a tag in one query of Dagster's storage."""


@dataclass(frozen=True)
class Attempts:
    """The ended runs of something that is not done.

    Attributes:
        failures: those that it has failed by itself, or that somebody has cancelled.
        interruptions: the newest ones, where they ended with their process or an engine.
        newest: the last one of all.
    """

    failures: int
    interruptions: int
    newest: dg.RunRecord

    def are_over(self, most: int) -> bool:
        """Whether it is not tried again by itself."""
        return self.failures >= most

    @property
    def due(self) -> bool:
        """Whether it has waited long enough."""
        wait_s: float = RETRY_AFTER_S * 4 ** (self.failures - 1)
        if self.interruptions:
            wait_s = SELDOM_S if self.interruptions > MANY else INTERRUPTED_S * min(self.interruptions - 1, 4)
        return time.time() >= ended_at(self.newest) + wait_s


def attempts(instance: dg.DagsterInstance, ended: Sequence[dg.RunRecord]) -> Attempts | None:
    """What ended runs of one thing come to; None where there are none."""
    if not ended:
        return None
    newest_first = sorted(ended, key=ended_at, reverse=True)
    by_itself = [not was_interrupted(instance, record.dagster_run) for record in newest_first]
    interruptions = by_itself.index(True) if any(by_itself) else len(ended)
    return Attempts(sum(by_itself), interruptions, newest_first[0])


def is_to_be_tried(instance: dg.DagsterInstance, runs: Sequence[dg.RunRecord], most: int) -> bool:
    """Whether something is to be run now after these runs: none is under way or has succeeded, few have failed."""
    if any(not record.dagster_run.is_finished or record.dagster_run.is_success for record in runs):
        return False
    found = attempts(instance, runs)
    return found is None or (found.due and not found.are_over(most))


def runs_by_tag(
    instance: dg.DagsterInstance, tag: str, values: Sequence[str], job: str | None = None
) -> dict[str, list[dg.RunRecord]]:
    """Runs by the value of a tag that they have, those of all values asked for in few queries."""
    found: dict[str, list[dg.RunRecord]] = defaultdict(list)
    for first in range(0, len(values), ASKED_FOR):
        asked = dg.RunsFilter(job_name=job, tags={tag: list(values[first : first + ASKED_FOR])})
        for record in instance.get_run_records(asked):
            found[record.dagster_run.tags[tag]].append(record)
    return found


def ended_at(record: dg.RunRecord) -> float:
    """When a run ended, Unix seconds."""
    return record.end_time or record.update_timestamp.timestamp()


def was_interrupted(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether an ended run failed without any fault of what it was given; remembered, since that does not change."""
    if run.status != dg.DagsterRunStatus.FAILURE:
        return False
    if run.run_id not in _interrupted:
        if len(_interrupted) >= KEPT_RUNS:
            _interrupted.clear()
        entries = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        failures = [entry.get_dagster_event().step_failure_data.error for entry in entries]
        by_engine = any(_is_by_engine(error) for failure in failures for error in _chain(failure))
        by_engine |= not failures and _could_not_fork(instance, run)
        in_silence = not failures and run.tags.get(RUN_FAILURE_REASON_TAG) not in BY_ITSELF
        _interrupted[run.run_id] = by_engine or in_silence
    return _interrupted[run.run_id]


_interrupted: dict[str, bool] = {}


def _could_not_fork(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    ends = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    told = [entry.get_dagster_event().event_specific_data for entry in ends]
    errors = [data.error for data in told if isinstance(data, JobFailureData)]
    return any(error.cls_name in LOST_FORK_SERVER for end in errors for error in _chain(end))


def _chain(error: SerializableErrorInfo | None) -> Iterator[SerializableErrorInfo]:
    """An error and those that it came from."""
    while error is not None:
        yield error
        error = error.cause or error.context


def _is_by_engine(error: SerializableErrorInfo) -> bool:
    return error.cls_name in BY_ENGINE or any(text in error.message for text in LOST_SESSION)
