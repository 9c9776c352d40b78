"""Runs as tests need them: failed by what they were given, or ended without a word."""

import dagster as dg
from dagster._core.execution.plan.objects import StepFailureData
from dagster._utils.error import SerializableErrorInfo

ERROR = ("DagsterExecutionStepExecutionError", "ValueError")
"""What an asset's own error comes as."""


def fail(instance: dg.DagsterInstance, run: dg.DagsterRun, *errors: str) -> None:
    """A run fails: by an error and those that it came from, by name; or where none is given, with its process."""
    error = None
    for name in reversed(errors):
        error = SerializableErrorInfo(f"{name}: it says why", [], name, cause=error)
    if error:
        event = dg.DagsterEvent(
            "STEP_FAILURE",
            job_name=run.job_name,
            step_key="step",
            event_specific_data=StepFailureData(error, None),
        )
        instance.report_dagster_event(event, run.run_id)
    instance.report_run_failed(run)
