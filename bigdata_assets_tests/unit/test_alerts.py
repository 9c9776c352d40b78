import json

import dagster as dg
import pytest

from bigdata_assets import settings
from bigdata_assets.runs import alerts
from bigdata_assets.runs.ranges import tags_for

URL = "http://127.0.0.1/webhook"


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b", "c"]))
def broken(context: dg.AssetExecutionContext) -> None:
    raise ValueError(f"cannot make {len(context.partition_keys)}")


@pytest.mark.parametrize(("last", "told"), [("a", "a"), ("c", "a..c")])
def test_an_alert_says_which_partitions_its_run_was_for(monkeypatch, last, told):
    posted = []
    monkeypatch.setattr(alerts, "post", lambda url, alert: posted.append((url, json.loads(json.dumps(alert)))))
    sensor = alerts.run_failure_alert(settings.load({"ALERT_WEBHOOK_URL": URL}))
    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.Definitions([broken], executor=dg.in_process_executor).resolve_implicit_global_asset_job_def()
        options = {"asset_selection": [broken.key], "tags": tags_for("a", last), "raise_on_error": False}
        result = job.execute_in_process(instance=instance, **options)
        event = next(e for e in result.all_events if e.event_type == dg.DagsterEventType.RUN_FAILURE)
        context = dg.build_run_status_sensor_context("run_failure_alert", event, instance, result.dagster_run)
        sensor(context.for_run_failure())
    ((url, alert),) = posted
    assert url == URL
    assert alert["partition"] == told
    assert alert["assets"] == ["broken"]
    assert alert["error"] == f"broken: ValueError: cannot make {1 if last == 'a' else 3}"
