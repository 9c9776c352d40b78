"""A failed run is logged, and posted to a webhook where one is set."""

import json
import urllib.request
from collections.abc import Mapping

import dagster as dg

from bigdata_assets.runs.ranges import as_option
from bigdata_assets.settings import Settings

TIMEOUT_S = 10


def run_failure_alert(settings: Settings) -> dg.SensorDefinition:
    """The sensor that tells of failed runs; on from the start."""

    @dg.run_failure_sensor(
        name="run_failure_alert",
        monitor_all_code_locations=True,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Logs each failed run and posts it as JSON to ALERT_WEBHOOK_URL where that is set.",
    )
    def run_failure_alert(context: dg.RunFailureSensorContext) -> None:
        steps = {event.step_key: reason(event) for event in context.get_step_failure_events()}
        alert = {
            "run_id": context.dagster_run.run_id,
            "job": context.dagster_run.job_name,
            "assets": sorted(key.to_user_string() for key in context.dagster_run.asset_selection or []),
            "partition": as_option(context.dagster_run.tags),
            "error": "; ".join(f"{step}: {why}" for step, why in steps.items()) or reason(context.failure_event),
        }
        of = f"{', '.join(alert['assets']) or alert['job']} {alert['partition']}".rstrip()
        alert["text"] = f"Run {alert['run_id']} of {of} failed: {alert['error']}"
        context.log.error(alert["text"])
        if settings.alert_webhook_url:
            post(settings.alert_webhook_url, alert)

    return run_failure_alert


def reason(event: dg.DagsterEvent) -> str:
    """Why a step or a run failed: the asset's own error, which says what to do, without the traceback."""
    error = getattr(event.event_specific_data, "error", None)
    while error is not None and error.cause is not None and (error.cls_name or "").startswith("Dagster"):
        error = error.cause
    return ((error.message if error else event.message) or "").strip()


def post(url: str, alert: Mapping[str, object]) -> None:
    """Post an alert; a webhook that does not take it fails the sensor's tick, which is tried again.

    Raises:
        OSError: the webhook did not answer with success. The address is not in the message: it may hold a secret.
    """
    body = json.dumps(alert).encode()
    # Settings take http and https addresses only.
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT_S).close()  # noqa: S310
    except OSError as error:
        raise OSError(f"the webhook of ALERT_WEBHOOK_URL did not take the alert: {type(error).__name__}") from None
