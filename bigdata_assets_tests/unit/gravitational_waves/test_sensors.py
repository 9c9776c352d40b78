import os
import time

import dagster as dg
import pytest
from click.testing import CliRunner

from bigdata_assets import cli, definitions, runtime, settings
from bigdata_assets.gravitational_waves.logic.strain import events
from bigdata_assets.gravitational_waves.partitions import SKY_EVENTS
from bigdata_assets.gravitational_waves.sensors import MODELS, look_at_event, new_strain_files
from bigdata_assets.gravitational_waves.tables import BRANCH, EVENT_PREDICTIONS, STRAIN
from bigdata_assets.runs import interruptions
from bigdata_assets.runs.files import MAX_ATTEMPTS
from bigdata_assets_tests.runs import ERROR, fail
from bigdata_assets_tests.unit.gravitational_waves.test_events import GPS_S, put_file


@pytest.fixture
def place(tmp_path):
    """The branch's folder of a project's sources, with an event whose strain of one detector is there."""
    folder = tmp_path / "sources" / BRANCH
    folder.mkdir(parents=True)
    events.add(folder, events.Event("GW150914", GPS_S))
    put_whole_file(folder, "H1")
    return folder


def put_whole_file(folder, detector, age_s=300, start=1_126_259_446):
    """A file of strain that was last written to some time ago."""
    put_file(folder, detector, start)
    then = time.time() - age_s
    for path in (folder / events.FOLDER).glob(f"*-{detector}_*-{start}-*"):
        os.utime(path, (then, then))


@pytest.fixture
def instance():
    """An instance where all models are stored."""
    with dg.DagsterInstance.ephemeral() as found:
        for key in MODELS:
            found.report_runless_asset_event(dg.AssetMaterialization(key))
        yield found


def settings_for(place):
    home = place.parent.parent / "dagster"
    return settings.load(
        {"BIGDATA_SOURCES": str(place.parent), "DAGSTER_HOME": str(home), "BIGDATA_STORAGE": str(place.parent.parent)}
    )


def tick(place, instance):
    resources = {"sources": runtime.sources(settings_for(place))}
    result = new_strain_files(dg.build_sensor_context(instance=instance, resources=resources))
    if isinstance(result, dg.SkipReason):
        return [], str(result.skip_message)
    for request in result.dynamic_partitions_requests:
        instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
    return result.run_requests, ""


def failed_run(instance, request, *errors):
    run = instance.create_run_for_job(
        definitions.defs.resolve_job_def(look_at_event.name),
        tags={**request.tags, "dagster/partition": request.partition_key},
    )
    fail(instance, run, *errors)


def test_an_event_whose_file_has_come_is_asked_for_once(place, instance):
    (request,), _ = tick(place, instance)
    assert request.partition_key == "GW150914-H1"
    assert instance.get_dynamic_partitions(str(SKY_EVENTS.name)) == ["GW150914-H1"]
    tags = {**request.tags, "dagster/partition": request.partition_key}
    instance.create_run_for_job(definitions.defs.resolve_job_def(look_at_event.name), tags=tags)
    assert tick(place, instance)[0] == [], "its run is under way"
    put_whole_file(place, "L1")
    (request,), _ = tick(place, instance)
    assert request.partition_key == "GW150914-L1"


def test_an_event_whose_run_failed_is_asked_for_again_but_not_for_ever(place, instance, monkeypatch):
    monkeypatch.setattr(interruptions, "RETRY_AFTER_S", 0)
    monkeypatch.setattr(interruptions, "INTERRUPTED_S", 0)
    keys = []
    for errors in (ERROR, (), (), *[ERROR] * (MAX_ATTEMPTS - 1)):  # two ended with their process: no fault of the file
        (request,), _ = tick(place, instance)
        keys.append(request.run_key)
        failed_run(instance, request, *errors)
    assert len(set(keys)) == len(keys), "a run key that was used is never launched again"
    assert tick(place, instance)[0] == []
    put_whole_file(place, "H1", age_s=100)
    assert len(tick(place, instance)[0]) == 1, "another file"


def test_a_file_that_may_still_be_written_waits(place, instance):
    put_whole_file(place, "H1", age_s=1)
    assert tick(place, instance)[0] == []


def test_nothing_is_asked_for_before_there_are_models(place):
    with dg.DagsterInstance.ephemeral() as instance:
        requests, said = tick(place, instance)
    assert requests == []
    assert "materialise chirp_svc, rbf_svm, glitch_cnn" in said


def test_what_was_looked_at_by_hand_and_what_has_no_strain_is_left_alone(place, instance):
    events.add(place, events.Event("GW170104", 1_167_559_936.6))
    instance.add_dynamic_partitions(str(SKY_EVENTS.name), ["GW150914-H1"])
    key = "GW150914-H1"

    def report(asset, **metadata):
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=key, metadata=metadata))

    report(STRAIN.key, landed_file=events.version(events.file_of(place, key)))
    report(EVENT_PREDICTIONS.key)
    requests, said = tick(place, instance)
    assert requests == []
    assert "no strain yet of GW170104" in said
    put_whole_file(place, "H1", age_s=90_000)  # another one, with the time of its source, as rsync puts it
    report(EVENT_PREDICTIONS.key)  # of what was read before
    assert [request.partition_key for request in tick(place, instance)[0]] == [key]


def test_a_broken_list_stops_no_other_branch(place):
    (place / events.FOLDER / events.FILE).write_text("{")
    with dg.DagsterInstance.ephemeral() as instance:
        assert (
            definitions.available_partitions(runtime.resources(settings_for(place), ()), instance, [STRAIN.key])[
                SKY_EVENTS
            ]
            == []
        )


def test_an_event_is_added_by_the_command_line(place, monkeypatch):
    loaded = settings_for(place)
    monkeypatch.setattr(settings, "load", lambda *_: loaded)
    put_file(place, "L1", start=1_186_741_846)

    def add(*arguments):
        return CliRunner().invoke(cli.group, ["add-event", *arguments])

    assert add("GW170814").exit_code == 2, "without a time, and not from GWOSC"
    nothing = add("GW170104", "--gps", "1167559936.6")
    assert nothing.exit_code == 1
    assert "no file that covers" in nothing.output
    assert "GW170104" not in events.read(place)
    result = add("GW170814", "--gps", "1186741861.5", "--masses", "36", "29")
    assert result.exit_code == 0, result.output
    assert events.read(place)["GW170814"].masses == (36.0, 29.0)
    with dg.DagsterInstance.from_config(str(loaded.dagster_home)) as instance:
        assert instance.get_dynamic_partitions(str(SKY_EVENTS.name)) == ["GW170814-L1"]
