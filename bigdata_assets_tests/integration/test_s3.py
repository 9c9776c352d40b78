"""BIGDATA_STORAGE on S3, whole: an S3 server from a jar, and a Spark server that was started for it."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import dagster as dg
import numpy as np
import pandas as pd
import psutil
import pytest
from matplotlib.figure import Figure
from pyspark.sql import functions

from bigdata_assets.definitions import BRANCHES
from bigdata_assets.io_managers.delta import DeltaIOManager, commits
from bigdata_assets.io_managers.keras_model import KerasModelIOManager, TrainedKerasModel
from bigdata_assets.io_managers.report import ReportIOManager
from bigdata_assets.io_managers.sklearn_model import SklearnModelIOManager, TrainedModel
from bigdata_assets.io_managers.spark_model import SparkModelIOManager, TrainedSparkModel
from bigdata_assets.malicious_urls import sensors
from bigdata_assets.malicious_urls.partitions import landing_folder
from bigdata_assets.malicious_urls.sample import write_landing_files
from bigdata_assets.reports import Report
from bigdata_assets.resources.snapshots import SnapshotStore
from bigdata_assets.resources.spark import SparkResource
from bigdata_assets.services.reports_server import reports_server
from bigdata_assets.services.supervisor import free_port, port_answers
from bigdata_assets.settings import Settings
from bigdata_assets.storage import place
from bigdata_assets_tests import object_store as server
from bigdata_assets_tests.conftest import PATIENCE, Engines, wait_for
from bigdata_assets_tests.drills import Drill
from bigdata_assets_tests.integration.test_delta import (
    LOOSE,
    ROWS,
    BySpark,
    ByStaging,
    frame,
    race,
    stored,
)
from bigdata_assets_tests.object_store import BUCKET, KEY, SECRET, ObjectStore, object_store

pytestmark = pytest.mark.integration

LATENCY_MS = 30
"""Of each of the server's own operations in the drills; a request is one or two."""
ASSET = dg.AssetKey(["branch", "model"])


class Written:
    """A pipeline that writes nothing."""

    def write(self) -> "Written":
        return self

    def save(self, location: str) -> None:
        pass


@contextmanager
def engines_on(store: ObjectStore, base: Settings, folder: Path, *, all_of_them: bool = False) -> Iterator[Engines]:
    """Engines of their own, Spark's started for the storage; this process has its environment meanwhile."""
    given = {
        "BIGDATA_SERVICES": str(folder / "services"),
        "DAGSTER_HOME": str(folder / "dagster"),
        "BIGDATA_SOURCES": "sample",
        "SPARK_REMOTE": f"sc://localhost:{free_port()}",
        "BIGDATA_REPORTS_URL": f"http://127.0.0.1:{free_port()}",
        "KAFKA_BOOTSTRAP_SERVERS": f"localhost:{free_port()}" if all_of_them else "kafka.invalid:9092",
        "CASSANDRA_CONTACT_POINTS": f"localhost:{free_port()}" if all_of_them else "cassandra.invalid",
        "BIGDATA_STORAGE": f"s3://{BUCKET}/a/storage",
    }
    engines = Engines(Settings(**(base.environment() | given | store.environment)))
    with server.environment(store), pytest.MonkeyPatch.context() as patch:
        for name, value in engines.settings.environment().items():
            patch.setenv(name, value)
        try:
            engines.ensure_up()
            yield engines
        finally:
            engines.command("services", "down")
            assert not engines.strays(), "`services down` left processes"


@pytest.fixture(scope="module")
def store(settings: Settings, tmp_path_factory: pytest.TempPathFactory, full: bool) -> Iterator[ObjectStore]:
    """In the drills as far away as a store may be: races show sooner."""
    folder = tmp_path_factory.mktemp("object store")
    with object_store(folder, settings.jars_dir, latency_ms=LATENCY_MS if full else 0) as store:
        yield store


@pytest.fixture(scope="module")
def engines(
    store: ObjectStore, settings: Settings, tmp_path_factory: pytest.TempPathFactory, full: bool
) -> Iterator[Engines]:
    with engines_on(store, settings, tmp_path_factory.mktemp("engines on S3"), all_of_them=full) as engines:
        yield engines


@pytest.fixture(scope="module")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether these are the drills."""
    return bool(request.config.getoption("--drill"))


@pytest.fixture
def resource(engines: Engines) -> Iterator[SparkResource]:
    resource = SparkResource(remote=engines.settings.spark_remote)
    yield resource
    resource.stop()


@pytest.fixture
def storage(engines: Engines, request: pytest.FixtureRequest) -> str:
    """Of a test alone."""
    return f"{engines.settings.storage}/{re.sub('[^a-z0-9-]', '-', request.node.name.lower())}"


class TestTables:
    @pytest.mark.parametrize("kind", [BySpark, ByStaging], ids=["spark", "staging or deltalake"])
    def test_partitions_are_replaced_joined_and_read(
        self, kind: type[DeltaIOManager], storage: str, resource: SparkResource
    ) -> None:
        manager = kind(storage, resource, [ROWS, LOOSE])
        keys = ["it's", "a,b", "a=b/c d", "ä ☃ %2F", "a*[b]?"]
        for table in (ROWS, LOOSE):
            manager.write(table, pd.concat([frame(key, 1, 2) for key in keys]), keys, "run")
            version, rows, n_bytes = manager.write(table, frame(keys[0], 3), keys[:1], "run")
            assert (version, rows) == (2, 1)
            assert n_bytes > 0
            manager.write(table, frame(keys[1]), keys[1:2], "run")
            expected = sorted([(keys[0], 3), *((key, n) for key in keys[2:] for n in (1, 2))])
            assert stored(manager, table) == expected
            assert manager.rows_by_partition(table, keys[2:3]) == {keys[2]: 2}
            manager.compact(table)
            assert stored(manager, table) == expected
            by_spark = manager.read(table, keys[2:]).groupBy("part").agg(functions.sum("n")).collect()
            assert sorted(map(tuple, by_spark)) == sorted((key, 3) for key in keys[2:])

    def test_what_a_refused_frame_had_written_goes(self, storage: str, resource: SparkResource) -> None:
        manager = BySpark(storage, resource, [ROWS])
        manager.create(ROWS)
        with pytest.raises(commits.DeltaTableError, match="rows refused, nothing was written"):
            manager.write(ROWS, frame("a", 1, -1), ["a"], "run")
        folder = place(manager.location(ROWS))
        assert not [name for name in folder.fs.find(folder.path) if "_delta_log" not in name]

    def test_old_files_go_with_the_joining(
        self, storage: str, resource: SparkResource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As if a week had passed: a store's own times cannot be set."""
        manager = BySpark(storage, resource, [LOOSE])
        manager.create(LOOSE)
        manager.stored(LOOSE).alter.set_table_properties({"delta.deletedFileRetentionDuration": "interval 0 seconds"})
        for n in range(4):
            manager.write(LOOSE, frame("a", n), ["a"], "run")
        folder = place(manager.location(LOOSE))

        def files() -> list[str]:
            return [name for name in folder.fs.find(folder.path) if name.endswith(".parquet") and "_log" not in name]

        assert len(files()) == 4
        vacuum = type(manager.stored(LOOSE)).vacuum

        def at_once(stored: Any, **options: Any) -> list[str]:
            return vacuum(stored, retention_hours=0, enforce_retention_duration=False, **options)  # type: ignore[no-any-return]

        monkeypatch.setattr(type(manager.stored(LOOSE)), "vacuum", at_once)
        manager.compact(LOOSE)
        assert len(files()) == 1
        assert stored(manager, LOOSE) == [("a", 3)]


def test_models_reports_and_snapshots_come_back(storage: str, resource: SparkResource) -> None:
    import keras
    from pyspark.ml import Pipeline
    from pyspark.ml.feature import VectorAssembler
    from sklearn.linear_model import LinearRegression

    def output() -> Any:
        spec = dg.AssetSpec(ASSET, code_version="3")
        return dg.build_output_context(asset_key=ASSET, run_id="0123456789abcdef", asset_spec=spec)

    wanted = dg.build_input_context(asset_key=ASSET)
    rows = np.arange(6.0).reshape(3, 2)

    sklearn = SklearnModelIOManager(storage=f"{storage}/sklearn")
    line = LinearRegression().fit(rows, rows.sum(axis=1))
    sklearn.handle_output(output(), TrainedModel(line, ("y",), {"a": 1}))
    back = sklearn.load_input(wanted)
    np.testing.assert_allclose(back.load([]).predict(rows), line.predict(rows))
    assert back.card["parameters"] == {"a": 1}

    network = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(2)])
    manager = KerasModelIOManager(storage=f"{storage}/keras")
    manager.handle_output(output(), TrainedKerasModel(network, ("a", "b")))
    np.testing.assert_array_equal(manager.load_input(wanted).load().predict(rows), network.predict(rows))

    data = resource.spark_session.createDataFrame([(1.0, 2.0)], "x double, y double")
    pipeline = Pipeline(stages=[VectorAssembler(inputCols=["x", "y"], outputCol="v")]).fit(data)
    spark = SparkModelIOManager(storage=f"{storage}/spark")
    spark.handle_output(output(), TrainedSparkModel(pipeline))
    loaded = spark.load_input(wanted).load().transform(data)
    assert [row["v"].toArray().tolist() for row in loaded.collect()] == [[1.0, 2.0]]
    for _ in range(11):
        spark.handle_output(output(), TrainedSparkModel(Written()))
    parent = spark.parent(ASSET)
    versions = [folder.name for folder in parent.iterdir()]
    assert len(versions) == 10, parent.fs.find(parent.path)
    assert spark.load_input(wanted).card["version"] == max(versions)

    manager_of_reports = ReportIOManager(storage=f"{storage}/reported", url="http://127.0.0.1:1")
    figure = Figure()
    figure.subplots().plot([0, 1])
    manager_of_reports.handle_output(output(), Report("A report", "It is there.", {"n": 3}, figures={"line": figure}))
    assert [numbers["numbers"] for numbers in manager_of_reports.load_input(wanted).numbers()] == [{"n": 3}]

    snapshots = SnapshotStore(storage=f"{storage}/snapshots", kept=2)
    location = snapshots.fit_location(ASSET, "fit")
    (place(location) / "metadata").write_bytes(b"{}")
    for number in range(4):
        snapshots.save(ASSET, f"s{number}", {"learnt": number}, bytes([number]))
    assert snapshots.names(ASSET) == {"s2", "s3"}
    assert snapshots.load(ASSET, "s3")[1] == b"\3"
    assert place(location).exists(), "it is young, and may belong to a run that is at work"


def test_a_file_that_another_process_landed_is_seen_and_scored_as_it_is_now(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "SETTLE_S", 0)
    cursor: str | None = None

    def tick(instance: dg.DagsterInstance) -> Any:
        nonlocal cursor
        context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"settings": engines.settings})
        result = sensors.new_url_files(context)
        cursor = context.cursor
        return result

    def land(text: str) -> None:
        code = "import sys; from bigdata_assets.storage import place; place(sys.argv[1]).write_text(sys.argv[2])"
        location = f"{landing_folder(engines.settings.storage)}/a.csv"
        subprocess.run([sys.executable, "-c", code, location, text], check=True)

    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        assert "0 files" in tick(instance).skip_message
        land("url\na.example.com\n")
        assert "1 still being written" in tick(instance).skip_message
        (first,) = tick(instance).run_requests
        land("url\nb.example.com\n")  # as long: told by what is in it
        tick(instance)
        (second,) = tick(instance).run_requests
        assert first.partition_key == second.partition_key == "a.csv"
        assert first.run_key != second.run_key


def test_reports_are_served_out_of_the_storage(engines: Engines) -> None:
    process = reports_server(engines.settings)
    assert process is not None
    (place(engines.settings.storage) / "reports" / "sub" / "page.html").write_text("<p>figures</p>")
    (place(engines.settings.storage) / "secret.txt").write_text("not for reading")
    child = subprocess.Popen(process.command, env={**os.environ, **process.environment})  # type: ignore[dict-item]
    url = engines.settings.reports_url
    try:
        wait_for(lambda: port_answers(process.port), 30, "reports are served")
        with urllib.request.urlopen(f"{url}/sub/page.html") as answer:
            assert answer.read() == b"<p>figures</p>"
            assert answer.headers["Content-Type"].startswith("text/html")
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        for path in ("sub", "sub/", "none.html", "../secret.txt", "%2e%2e/secret.txt", "sub/..%2f..%2fsecret.txt", ""):
            with pytest.raises(HTTPError) as refused:
                urllib.request.urlopen(f"{url}/{path}")
            assert refused.value.code == 404
    finally:
        child.kill()
        child.wait()


def test_no_secret_is_in_sparks_settings_commands_or_logs(engines: Engines, resource: SparkResource) -> None:
    (place(engines.settings.storage) / "some" / "text").write_text("line")
    assert resource.spark_session.read.text(f"{engines.settings.storage}/some").count() == 1
    told = [f"{row['key']}={row['value']}" for row in resource.spark_session.sql("SET -v").collect()]
    told += [f"{row['key']}={row['value']}" for row in resource.spark_session.sql("SET").collect()]
    for process in engines.processes():
        with suppress(psutil.NoSuchProcess):  # one of Spark's workers that has just ended
            told.append(" ".join(process.cmdline()))
    told += [path.read_text(errors="replace") for path in (engines.settings.services_dir / "logs").iterdir()]
    assert any("fs.s3a.endpoint" in text for text in told)
    assert not [text for text in told if SECRET in text or KEY in text]
    assert not [text for text in told if "performance.flags" in text]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"AWS_ACCESS_KEY_ID": "another"}, f"s3a://{BUCKET} at .* does not know AWS_ACCESS_KEY_ID: set it"),
        ({"AWS_SECRET_ACCESS_KEY": "another"}, "AWS_SECRET_ACCESS_KEY is not that of AWS_ACCESS_KEY_ID"),
        ({"BIGDATA_STORAGE": "s3a://other-bucket/x"}, "s3a://other-bucket at .* no such bucket: make it, or correct"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:PORT"}, "not reached: .*PORT.* Correct AWS_ENDPOINT_URL, or start it"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:SILENT"}, "no answer within 6 s. Correct AWS_ENDPOINT_URL"),
    ],
    ids=["key", "secret", "bucket", "no server", "silence"],
)
def test_a_storage_that_cannot_be_used_is_told_at_once(engines: Engines, given: dict[str, str], told: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = {"PORT": str(free_port()), "SILENT": str(silent.getsockname()[1])}
        for name, port in ports.items():
            given = {key: value.replace(name, port) for key, value in given.items()}
            told = told.replace(name, port)
        began = time.monotonic()
        result = engines.command("materialize", "--select", "malicious_urls/labelled_urls", **given)
        assert time.monotonic() - began < 15 * PATIENCE
    assert result.returncode == 1
    assert re.search(told, result.stderr), result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert SECRET not in result.stderr


@pytest.mark.drill
def test_no_commit_to_s3_that_was_acknowledged_is_lost(storage: str, resource: SparkResource, drill: Drill) -> None:
    """Frames of Spark's, frames in memory, plain appends of deltalake, and files being joined all the while."""
    rounds = drill.pick("rounds", short=1, full=20)
    each = drill.pick("commits of each writer in memory a round", short=5, full=12)
    found = [
        race(DeltaIOManager(f"{storage}/{number}", resource, [LOOSE]), spark=6, one=each, plain=each)
        for number in range(rounds)
    ]
    acknowledged, joined = (sum(counts) for counts in zip(*found, strict=True))
    drill.figures |= {"acknowledged": acknowledged, "lost": 0, "files joined meanwhile": joined}


@pytest.mark.drill
@pytest.mark.parametrize("branch", [branch.name for branch in BRANCHES])
def test_a_branch_is_materialised_whole_on_s3(engines: Engines, branch: str, drill: Drill, store: ObjectStore) -> None:
    if not drill.pick("whole", short=False, full=True):
        pytest.skip("by --drill: it takes minutes")
    if branch == "malicious_urls":
        write_landing_files(landing_folder(engines.settings.storage), 2)
    result = engines.command("materialize", "--select", f"group:{branch}", timeout_s=900)
    assert result.returncode == 0, result.stdout + result.stderr
    tables = [table for one in BRANCHES if one.name == branch for table in one.tables]
    delta = DeltaIOManager(engines.settings.storage, SparkResource(remote=""), tables)
    rows = sum(delta.stored(table).to_pyarrow_dataset().count_rows() for table in tables)
    assert rows > 0
    of_branch = [store.folder / "a" / "storage" / name for name in (branch, f"reports/{branch}")]
    objects = sum(path.is_file() for folder in of_branch for path in folder.rglob("*"))
    drill.figures |= {"rows": rows, "objects": objects}
