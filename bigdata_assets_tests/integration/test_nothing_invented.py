"""The sample stays in what is this project's own: nothing of it comes to a broker or into a storage of the user's."""

import uuid
from pathlib import Path

import dagster as dg
import pytest
from kafka import KafkaAdminClient

from bigdata_assets import definitions, runtime
from bigdata_assets.branch import Available
from bigdata_assets.crimes.partitions import CRIME_BATCHES, MONTHS
from bigdata_assets.crimes.tables import CRIME_REPORTS
from bigdata_assets.malicious_urls.partitions import LANDED_FILES, URL_LISTS
from bigdata_assets.malicious_urls.tables import PREDICTIONS
from bigdata_assets.resources.kafka import KafkaResource
from bigdata_assets.settings import Settings
from bigdata_assets_tests.conftest import Engines

pytestmark = pytest.mark.integration

URLS = ("materialize", "--select", 'key:"malicious_urls/url_batches"')


def topics_of(servers: str) -> set[str]:
    client = KafkaAdminClient(bootstrap_servers=servers)
    try:
        return set(client.list_topics())
    finally:
        client.close()


@pytest.fixture
def user(engines: Engines, tmp_path: Path) -> Settings:
    """Somebody whose engines are not this session's: the session's broker is a cluster that they name."""
    home = tmp_path / "var" / "dagster"
    home.mkdir(parents=True)
    own = {
        "services_dir": tmp_path / "var" / "services",
        "storage": str(tmp_path / "var" / "storage"),
        "dagster_home": home,
        "sources": "sample",
        "topics": {"crimes": f"crimes.{uuid.uuid4().hex[:8]}"},
    }
    return engines.settings.model_copy(update=own)


def partitions_for(user: Settings, instance: dg.DagsterInstance, asset: dg.AssetKey) -> Available:
    return definitions.available_partitions(runtime.resources(user, ()), instance, [asset])


def test_nothing_is_sent_to_a_broker_that_this_project_has_not_started(
    user: Settings, engines: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    topics = topics_of(user.kafka_servers)
    with dg.DagsterInstance.from_config(str(user.dagster_home)) as instance:
        found = partitions_for(user, instance, CRIME_REPORTS.key)
    assert found[CRIME_BATCHES] == []
    assert found[MONTHS] == ["2015-11", "2015-12", "2016-01"]
    assert "is not the broker that this project started" in caplog.text
    assert topics_of(user.kafka_servers) == topics

    # The same with the services folder of the session, whose own broker it is.
    ours = user.model_copy(update={"services_dir": engines.settings.services_dir})
    with dg.DagsterInstance.from_config(str(user.dagster_home)) as instance:
        found = partitions_for(ours, instance, CRIME_REPORTS.key)
    assert len(found[CRIME_BATCHES]) == 12
    assert topics_of(user.kafka_servers) - topics == {user.topic("crimes")}


def test_a_selection_of_one_branch_makes_no_sample_of_another_and_asks_no_kafka(
    user: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(KafkaResource, "_connection", lambda self: asked.append(self) or 1 / 0)
    with dg.DagsterInstance.from_config(str(user.dagster_home)) as instance:
        assert set(partitions_for(user, instance, PREDICTIONS.key)) == {URL_LISTS, LANDED_FILES}
    assert asked == []
    assert not list((user.services_dir.parent / "sources").glob("*/gravitational_waves"))


def test_files_are_landed_in_a_storage_of_our_own_only(
    user: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = user.model_copy(update={"storage": str(tmp_path / "lake")})
    with dg.DagsterInstance.from_config(str(user.dagster_home)) as instance:
        assert partitions_for(theirs, instance, PREDICTIONS.key)[LANDED_FILES] == []
        assert f"nothing invented is put into {tmp_path / 'lake'}" in caplog.text
        assert not (tmp_path / "lake").exists()
        assert len(partitions_for(user, instance, PREDICTIONS.key)[LANDED_FILES]) == 3


@pytest.mark.parametrize("command", [URLS, ("run",)], ids=["materialize", "run"])
def test_a_storage_of_the_users_gets_no_invented_tables_unasked(
    user: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.delenv("BIGDATA_SOURCES")
    fields = user.model_dump(by_alias=True, exclude={"sources"}, exclude_unset=True)
    done = Engines(Settings(**fields | {"BIGDATA_STORAGE": str(tmp_path / "lake")})).command(*command)
    assert done.returncode == 1
    assert f"BIGDATA_STORAGE is {tmp_path / 'lake'}, a storage of yours, and BIGDATA_SOURCES is not set" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "lake").exists()
