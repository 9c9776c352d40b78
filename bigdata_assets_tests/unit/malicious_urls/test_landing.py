import os
import time

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from bigdata_assets import definitions
from bigdata_assets import settings as settings_module
from bigdata_assets.malicious_urls import sensors
from bigdata_assets.malicious_urls.asset_checks import total_variation
from bigdata_assets.malicious_urls.partitions import (
    LANDED_FILES,
    LandedFile,
    complete_files,
    landed_files,
    landing_folder,
)
from bigdata_assets.malicious_urls.tables import PREDICTIONS, QUARANTINED_BATCH_URLS, URL_BATCHES
from bigdata_assets.runs import interruptions
from bigdata_assets.runs.ranges import tags_for
from bigdata_assets.storage import FileState
from bigdata_assets_tests.runs import ERROR, fail


@pytest.fixture
def settings(tmp_path):
    return settings_module.load({"BIGDATA_STORAGE": str(tmp_path), "BIGDATA_SOURCES": str(tmp_path)})


@pytest.fixture
def folder(settings):
    folder = landing_folder(settings.storage)
    folder.mkdir(parents=True)
    return folder


def land(folder, name, content=b"url\na.com\n", age_s=60):
    path = folder / name
    path.write_bytes(content)
    os.utime(path, (time.time() - age_s,) * 2)
    return path


@pytest.mark.parametrize("name", [".a.csv", "_a.csv", "a.csv.tmp", "a.csv.part", "a.csv.crdownload", "a.csv~"])
def test_unfinished_names_are_passed_over(folder, name):
    land(folder, name)
    assert landed_files(folder) == ([], [])


@pytest.mark.parametrize("name", ["a b.csv", "a,b.csv", "a.txt", "a...csv", "é.csv", "a'b.csv", "x" * 200 + ".csv"])
def test_names_that_cannot_be_a_partition_are_told(folder, name):
    land(folder, name)
    assert landed_files(folder) == ([], [name])


def test_a_file_is_complete_when_two_listings_agree_and_it_has_been_quiet():
    file = LandedFile("a.csv", FileState(10, 1_000_000_000_000))
    seen = {"a.csv": file.fingerprint}
    assert complete_files([file], seen, now_s=1020, settle_s=10) == [file]
    assert complete_files([file], seen, now_s=1005, settle_s=10) == []
    assert complete_files([file], {}, now_s=1020, settle_s=10) == []
    assert complete_files([file], {"a.csv": "9-1000000000000"}, now_s=1020, settle_s=10) == []


def tick(settings, instance, cursor=None):
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"settings": settings})
    return sensors.new_url_files(context), context.cursor


def test_a_new_file_is_asked_for_at_the_second_tick_and_never_again(settings, folder):
    land(folder, "a.csv")
    with dg.DagsterInstance.ephemeral() as instance:
        result, cursor = tick(settings, instance)
        assert isinstance(result, dg.SkipReason)
        result, cursor = tick(settings, instance, cursor)
        (request,) = result.run_requests
        assert request.partition_key == "a.csv"
        assert result.dynamic_partitions_requests[0].partition_keys == ["a.csv"]
        _a_run(instance, request, dg.DagsterRunStatus.SUCCESS)
        assert isinstance(tick(settings, instance, cursor)[0], dg.SkipReason)
        # With the cursor lost, the runs tell.
        _, fresh = tick(settings, instance, None)
        assert isinstance(tick(settings, instance, fresh)[0], dg.SkipReason)


def test_a_failed_file_is_tried_three_times_in_all_each_with_its_own_run_key(settings, folder, monkeypatch):
    monkeypatch.setattr(interruptions, "RETRY_AFTER_S", 0)
    monkeypatch.setattr(interruptions, "INTERRUPTED_S", 0)
    land(folder, "a.csv")
    with dg.DagsterInstance.ephemeral() as instance:
        _, cursor = tick(settings, instance)
        keys = []
        for errors in (ERROR, (), (), ERROR, ERROR):  # two ended with their process: no fault of the file
            result, cursor = tick(settings, instance, cursor)
            keys.append(result.run_requests[0].run_key)
            fail(instance, _a_run(instance, result.run_requests[0], dg.DagsterRunStatus.STARTED), *errors)
        assert len(set(keys)) == 5
        assert isinstance(tick(settings, instance, cursor)[0], dg.SkipReason)


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
def test_a_file_whose_run_failed_or_was_cancelled_waits_before_it_is_tried_again(settings, folder, monkeypatch, status):
    land(folder, "a.csv")
    with dg.DagsterInstance.ephemeral() as instance:
        _, cursor = tick(settings, instance)
        result, cursor = tick(settings, instance, cursor)
        run = _a_run(instance, result.run_requests[0], dg.DagsterRunStatus.STARTED)
        if status == dg.DagsterRunStatus.CANCELED:
            instance.report_run_canceled(run)
        else:
            fail(instance, run, *ERROR)
        assert isinstance(tick(settings, instance, cursor)[0], dg.SkipReason)
        monkeypatch.setattr(interruptions, "RETRY_AFTER_S", 0)
        assert len(tick(settings, instance, cursor)[0].run_requests) == 1


def test_what_a_backfill_or_anybodys_run_is_to_score_is_not_asked_for(settings, folder):
    names = ["a.csv", "b.csv", "c.csv"]
    for name in names:
        land(folder, name)
    with dg.DagsterInstance.ephemeral() as instance:
        _, cursor = tick(settings, instance)
        instance.add_dynamic_partitions(str(LANDED_FILES.name), names)
        asked = {
            "backfill_id": "b1",
            "asset_graph": definitions.defs.resolve_asset_graph(),
            "partition_names": names[:1],
            "asset_selection": [URL_BATCHES.key, QUARANTINED_BATCH_URLS.key, PREDICTIONS.key],
            "backfill_timestamp": time.time(),
            "dynamic_partitions_store": instance,
            "tags": {},
            "all_partitions": False,
            "title": None,
            "description": None,
            "run_config": None,
        }
        backfill = PartitionBackfill.from_asset_partitions(**asked)
        instance.add_backfill(backfill)  # its daemon has asked for no run yet
        run = dg.DagsterRun(job_name="any", tags=tags_for("b.csv", "b.csv"), status=dg.DagsterRunStatus.STARTED)
        instance.add_run(run)
        result, cursor = tick(settings, instance, cursor)
        assert [request.partition_key for request in result.run_requests] == ["c.csv"]
        instance.update_backfill(backfill.with_status(BulkActionStatus.CANCELED))
        by_job = PartitionBackfill("b2", BulkActionStatus.REQUESTED, False, {}, time.time(), partition_names=["c.csv"])
        instance.add_backfill(by_job)
        result, _ = tick(settings, instance, cursor)
        assert [request.partition_key for request in result.run_requests] == ["a.csv"]


def test_what_was_scored_by_hand_is_not_scored_again_unless_it_changed(settings, folder):
    land(folder, "a.csv")
    (file,), _ = landed_files(folder)
    with dg.DagsterInstance.ephemeral() as instance:

        def report(asset, **metadata):
            event = dg.AssetMaterialization(["malicious_urls", asset], partition="a.csv", metadata=metadata)
            instance.report_runless_asset_event(event)

        def asked_for():
            _, cursor = tick(settings, instance)
            return [
                request.partition_key for request in getattr(tick(settings, instance, cursor)[0], "run_requests", [])
            ]

        report("predictions")
        report("url_batches", landed_file=file.fingerprint)
        assert asked_for() == ["a.csv"]  # read, but not predicted since
        report("predictions")
        assert asked_for() == []
        land(folder, "a.csv", b"url\na.com\nb.com\n", age_s=30)
        assert asked_for() == ["a.csv"]


def test_a_file_that_was_written_again_is_scored_again(settings, folder):
    land(folder, "a.csv")
    with dg.DagsterInstance.ephemeral() as instance:
        _, cursor = tick(settings, instance)
        result, cursor = tick(settings, instance, cursor)
        _a_run(instance, result.run_requests[0], dg.DagsterRunStatus.SUCCESS)
        land(folder, "a.csv", b"url\na.com\nb.com\n", age_s=30)
        _, cursor = tick(settings, instance, cursor)
        assert len(tick(settings, instance, cursor)[0].run_requests) == 1


def test_the_schedule_takes_what_has_no_predictions(settings, folder):
    land(folder, "a.csv")
    land(folder, "b.csv")
    land(folder, "fresh.csv", age_s=0)
    with dg.instance_for_test() as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(["malicious_urls", "predictions"], partition="a.csv")
        )
        resources = {"settings": settings}
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=_night(), resources=resources)
        requests = list(sensors.score_what_is_left(context))
        assert [request.partition_key for request in requests] == ["b.csv"]
        assert instance.get_dynamic_partitions(LANDED_FILES.name) == ["b.csv"]


def _night():
    from datetime import UTC, datetime

    return datetime(2026, 1, 2, 2, tzinfo=UTC)


def _a_run(instance, request, status):
    tags = {**request.tags, "dagster/partition": request.partition_key}
    return instance.add_run(dg.DagsterRun(job_name="score_landed_file", tags=tags, status=status))


def test_total_variation():
    assert total_variation({"a": 5, "b": 5}, {"a": 0.5, "b": 0.5}) == 0
    assert total_variation({"a": 10}, {"b": 1.0}) == 1
    assert total_variation({"a": 3, "b": 1}, {"a": 0.5, "b": 0.5}) == pytest.approx(0.25)
