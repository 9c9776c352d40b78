import dagster as dg
import pytest
from click.testing import CliRunner

from bigdata_assets import cli, definitions, settings
from bigdata_assets.gravitational_waves.logic import events
from bigdata_assets.gravitational_waves.partitions import SKY_EVENTS
from bigdata_assets.gravitational_waves.sensors import EVENT_TAG, MAX_ATTEMPTS, look_at_event, strain_sensor
from bigdata_assets.gravitational_waves.tables import BRANCH, STRAIN
from bigdata_assets_tests.unit.gravitational_waves.test_events import GPS_S, put_file


@pytest.fixture
def place(tmp_path):
    """The branch's folder of a project's sources, with an event whose strain of one detector is there."""
    folder = tmp_path / "sources" / BRANCH
    folder.mkdir(parents=True)
    events.add(folder, events.Event("GW150914", GPS_S))
    put_file(folder, "H1")
    return folder


def settings_for(place):
    home = place.parent.parent / "dagster"
    return settings.load(
        {"BIGDATA_SOURCES": str(place.parent), "DAGSTER_HOME": str(home), "BIGDATA_STORAGE": str(place.parent.parent)}
    )


def tick(place, instance):
    context = dg.build_sensor_context(instance=instance)
    result = strain_sensor(settings_for(place))(context)
    if isinstance(result, dg.SkipReason):
        return [], str(result.skip_message)
    for request in result.dynamic_partitions_requests:
        instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
    return result.run_requests, ""


def failed_run(instance, request):
    run = instance.create_run_for_job(
        definitions.defs.resolve_job_def(look_at_event.name),
        tags={**request.tags, "dagster/partition": request.partition_key},
    )
    instance.report_run_failed(run)


def test_an_event_whose_file_has_come_is_asked_for_once(place):
    with dg.DagsterInstance.ephemeral() as instance:
        (request,), _ = tick(place, instance)
        assert (request.partition_key, request.run_key) == ("GW150914-H1", "GW150914-H1:0")
        assert instance.get_dynamic_partitions(str(SKY_EVENTS.name)) == ["GW150914-H1"]
        instance.create_run_for_job(definitions.defs.resolve_job_def(look_at_event.name), tags=request.tags)
        assert tick(place, instance)[0] == [], "its run is under way"
        put_file(place, "L1")
        (request,), _ = tick(place, instance)
        assert request.partition_key == "GW150914-L1"


def test_an_event_whose_run_failed_is_asked_for_again_but_not_for_ever(place):
    with dg.DagsterInstance.ephemeral() as instance:
        keys = []
        for _ in range(MAX_ATTEMPTS):
            (request,), _ = tick(place, instance)
            keys.append(request.run_key)
            failed_run(instance, request)
        assert len(set(keys)) == MAX_ATTEMPTS, "a run key that was used is never launched again"
        assert tick(place, instance)[0] == []
        assert len(instance.get_runs(dg.RunsFilter(tags={EVENT_TAG: "GW150914-H1"}))) == MAX_ATTEMPTS


def test_what_was_read_by_hand_and_what_has_no_strain_is_left_alone(place):
    events.add(place, events.Event("GW170104", 1_167_559_936.6))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(SKY_EVENTS.name), ["GW150914-H1"])
        instance.report_runless_asset_event(dg.AssetMaterialization(STRAIN.key, partition="GW150914-H1"))
        requests, said = tick(place, instance)
    assert requests == []
    assert "no strain yet of GW170104" in said


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
