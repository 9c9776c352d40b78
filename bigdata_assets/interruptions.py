"""Runs that ended with their process or with an engine, and not by what they were given: they are asked for again."""

from collections.abc import Iterator, Sequence

import dagster as dg
from dagster._core.events import RunFailureReason
from dagster._core.storage.tags import MAX_RETRIES_TAG, RUN_FAILURE_REASON_TAG
from dagster._utils.error import SerializableErrorInfo

BY_ENGINE = (
    "ChildProcessCrashException",  # of a step's process that was killed
    "DagsterExecutionInterruptedError",
    "KafkaUnreachableError",
    "SparkUnreachableError",
    "RetriesExceeded",  # of Spark's client whose server was killed
)
LOST_SESSION = ("[INVALID_HANDLE.SESSION_", "StatusCode.UNAVAILABLE")
"""In messages of Spark's client whose server came back as another one, or is just going."""
NO_OTHER_RETRY = {MAX_RETRIES_TAG: "0"}
"""Tag of runs that a sensor of ours asks for again itself: the daemon is not to do so too."""


def was_interrupted(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether a run failed without any fault of what it was given."""
    if run.status != dg.DagsterRunStatus.FAILURE:
        return False
    entries = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    if not entries:  # its process has said nothing; or nothing is kept of what it said
        return run.tags.get(RUN_FAILURE_REASON_TAG) != RunFailureReason.STEP_FAILURE.value
    failures = [entry.get_dagster_event().step_failure_data.error for entry in entries]
    return any(_is_by_engine(error) for failure in failures for error in _chain(failure))


def attempts_left(instance: dg.DagsterInstance, runs: Sequence[dg.DagsterRun], most: int) -> bool:
    """Whether something is to be tried again after these runs of it: none has succeeded, and too few have failed."""
    if any(run.status == dg.DagsterRunStatus.SUCCESS for run in runs):
        return False
    return len(runs) < most or sum(not was_interrupted(instance, run) for run in runs) < most


def _chain(error: SerializableErrorInfo | None) -> Iterator[SerializableErrorInfo]:
    """An error and those that it came from."""
    while error is not None:
        yield error
        error = error.cause or error.context


def _is_by_engine(error: SerializableErrorInfo) -> bool:
    return error.cls_name in BY_ENGINE or any(text in error.message for text in LOST_SESSION)
