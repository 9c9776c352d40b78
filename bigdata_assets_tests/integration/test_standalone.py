"""The same code on a Spark standalone cluster of a master and two workers behind Spark Connect."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from bigdata_assets.resources.spark import SparkResource
from bigdata_assets.services.supervisor import free_port
from bigdata_assets_tests.conftest import Engines, alive
from bigdata_assets_tests.drills import Drill
from bigdata_assets_tests.integration.test_crimes import Crimes, checks

pytestmark = pytest.mark.integration


@pytest.fixture
def cluster(engines: Engines, tmp_path: Path) -> Iterator[Engines]:
    """A cluster of this test alone, beside the session's broker."""
    own = {
        "services_dir": tmp_path / "cluster é",
        "jars": engines.settings.jars_dir,
        "spark_remote": f"sc://localhost:{free_port()}",
        "spark_master": "standalone",
        # The session's broker is used, not another one started: by another name it is no local one.
        "kafka_servers": engines.settings.kafka_servers.replace("localhost", "127.0.1.1"),
        "cassandra_points": "cassandra.invalid",
    }
    cluster = Engines(engines.settings.model_copy(update=own))
    started = cluster.command("services", "up", timeout_s=240)
    assert started.returncode == 0, started.stderr
    yield cluster
    processes = cluster.processes()
    assert cluster.command("services", "down").returncode == 0
    assert not alive(processes)


@pytest.mark.drill
def test_history_scores_and_models_on_a_cluster(
    cluster: Engines, engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drill: Drill
) -> None:
    assert set(cluster.state["processes"]) == {"spark-master", "spark-worker-1", "spark-worker-2", "spark-connect"}
    monkeypatch.setenv("SPARK_CONNECT_AUTHENTICATE_TOKEN", cluster.settings.token() or "")
    resource = SparkResource(remote=cluster.settings.spark_remote)
    assert resource.spark_session.conf.get("spark.master").startswith("spark://127.0.0.1:")
    resource.stop()

    crimes = Crimes(tmp_path / "on a cluster", engines)
    own = {"spark_remote": cluster.settings.spark_remote}
    crimes.settings = crimes.settings.model_copy(update=own)
    crimes.rebuild()
    historic = [dg.AssetKey(["crimes", name]) for name in ("historic_reports", "quarantined_historic_reports")]
    crimes.execute(historic, ("2015-12",))
    crimes.produce(200)
    own_config = {
        "window_rows": drill.pick("reports fitted on", short=300, full=3_000),
        "window_trees": drill.pick("trees", short=2, full=20),
    }
    config = {"ops": {"test_then_train": {"config": own_config}}}
    result = crimes.batches(*crimes.plan(), config=config)
    assert set(checks(result).values()) == {True}
    scores = crimes.table("arrest_scores", branch="crimes")
    assert scores.groupby("model").size().to_dict() == dict.fromkeys(
        [
            *("decision_tree", "gradient_boosting", "iucr_rate", "logistic_regression", "majority"),
            *("online_sgd", "random_forest"),
        ],
        200,
    )
