"""The way of sensors' samples on real engines: files, Cassandra, export, Kafka, batches, windows, models and scores."""

import contextlib
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest

from bigdata_assets import settings as settings_module
from bigdata_assets.flow_sensors import loading
from bigdata_assets.flow_sensors.logic import channel_files
from bigdata_assets.flow_sensors.partitions import SENSORS, available_months
from bigdata_assets.flow_sensors.sample import write_sample
from bigdata_assets.flow_sensors.tables import BRANCH, MODELS
from bigdata_assets.resources.cassandra import CassandraResource
from bigdata_assets.resources.kafka import KafkaResource
from bigdata_assets.resources.keyspaces import (
    CassandraError,
    CassandraLoginError,
    CassandraUnreachableError,
    Connection,
    Keyspace,
)
from bigdata_assets.streams.planner import Planner
from bigdata_assets_tests.conftest import Engines, kill_9, wait_for
from bigdata_assets_tests.drills import Drill
from bigdata_assets_tests.integration.conftest import Project

pytestmark = pytest.mark.integration

IDENTITY = ["site", "channel", "observed_at"]
SAMPLE = [*IDENTITY, "value", "quality", "edited"]
EXPORTS = ("channel_export", "channel_publications")
KINDS = ("rule", "lightgbm", "bilstm_v1")
BATCHED = ("channel_messages", "channel_samples", "quarantined_channel_messages")


class Sensors(Project):
    """A project with a keyspace and a topic of its own."""

    def __init__(self, folder: Path, engines: Engines, batch_rows: int = 5_000, per_run: int = 100) -> None:
        name = uuid.uuid4().hex[:8]
        own = {
            "topics": {SENSORS.name: f"samples.{name}"},
            "cassandra_keyspace": f"test_{name}",
            "batch_rows": batch_rows,
            "batches_per_run": per_run,
        }
        super().__init__(folder, engines.settings.model_copy(update=own))
        self.cassandra = CassandraResource.of(self.settings)
        self.kafka = KafkaResource.of(self.settings)
        with self.cassandra.keyspace_session() as keyspace:
            keyspace.create("1")

    def load(self, folder: Path) -> Any:
        with self.cassandra.keyspace_session() as keyspace:
            return loading.load(keyspace, folder, channel_files.files(folder))

    def write(self, *rows: tuple[Any, ...]) -> None:
        """Samples: site, channel, time, value, quality, edited."""
        with self.cassandra.keyspace_session() as keyspace:
            keyspace.write_samples(samples(*rows))

    def make(self, *names: str, partitions: tuple[str, ...] = (), config: Any = None) -> Any:
        return self.execute([dg.AssetKey([BRANCH, name]) for name in names], partitions, config)

    def export(self, **config: Any) -> None:
        """Export all months, and publish what is new in them."""
        ops = {"ops": {f"{BRANCH}__channel_export": {"config": config}}}
        months = tuple(available_months(self.cassandra))
        assert self.make(*EXPORTS, partitions=months, config=ops).success

    def read(self) -> list[str]:
        """Read what waits in the topic; the keys of all batches."""
        with self.instance() as instance:
            planner = Planner(SENSORS, self.settings, self.kafka)
            old = planner.keys(instance)
            planner.add_all(instance)
            keys = planner.keys(instance)
        self.make_batches(keys[len(old) :], *BATCHED)
        return keys

    def make_batches(self, keys: list[str], *names: str) -> None:
        """As many a run as the sensor would ask for."""
        for first in range(0, len(keys), self.settings.batches_per_run):
            assert self.make(*names, partitions=tuple(keys[first : first + self.settings.batches_per_run])).success

    def stored(self, name: str, *without: str) -> pd.DataFrame:
        return self.table(name, *without, branch=BRANCH)

    def samples(self) -> pd.DataFrame:
        """The samples that count, by what identifies them."""
        rows = self.stored("channel_samples").sort_values("version").drop_duplicates(IDENTITY, keep="last")
        return rows[SAMPLE].sort_values(IDENTITY, ignore_index=True)


def samples(*rows: tuple[Any, ...]) -> pa.Table:
    columns = list(zip(*rows, strict=True))
    types = dict(zip(SAMPLE, channel_files.SAMPLES.types, strict=True))
    return pa.table({name: pa.array(column, types[name]) for name, column in zip(SAMPLE, columns, strict=True)})


def at(minute: int, day: int = 5) -> datetime:
    return datetime(2016, 1, day, tzinfo=UTC) + timedelta(minutes=minute)


@pytest.fixture
def sensors(engines: Engines, tmp_path: Path) -> Sensors:
    return Sensors(tmp_path / "Abfluß", engines)


def expected(folder: Path) -> pd.DataFrame:
    """The samples of files, by what identifies them."""
    parts = [
        p.samples for path in channel_files.files(folder) for p in channel_files.read(path, channel_files.sites(folder))
    ]
    return pa.concat_tables(parts).to_pandas()[SAMPLE].sort_values(IDENTITY, ignore_index=True)


def test_the_whole_way_of_a_sample(sensors: Sensors, tmp_path: Path) -> None:
    folder = tmp_path / "sources" / BRANCH
    folder.mkdir(parents=True)
    write_sample(folder)
    told = sensors.load(folder)
    assert told["samples"] > 10_000
    assert told["refused"] > 0
    assert sensors.load(folder) == told  # again: nothing changes
    sensors.export(csv=True)
    exported = sensors.stored("channel_export")
    pd.testing.assert_frame_equal(
        exported[SAMPLE].sort_values(IDENTITY, ignore_index=True), expected(folder), check_dtype=False
    )
    files = list((Path(sensors.settings.storage) / "exports" / BRANCH).rglob("*.csv"))
    assert sum(len(pd.read_csv(file)) for file in files) == len(exported)

    keys = sensors.read()
    pd.testing.assert_frame_equal(sensors.samples(), expected(folder), check_dtype=False)
    assert len(sensors.stored("channel_samples")) == len(exported)
    sensors.export()  # nothing is new: nothing is sent
    assert sensors.read() == keys
    assert sensors.stored("channel_publications")["samples"].sum() == 0

    for name in ("sites", "quarantined_channel_rows"):
        sensors.make(name)
    assert len(sensors.stored("quarantined_channel_rows")) == told["refused"]
    sensors.make("windows", "channel_quality")
    windows = sensors.stored("windows", "values")
    assert len(windows) == exported.groupby("site")["observed_at"].nunique().sum()
    assert windows["label"].any()
    quality = sensors.stored("channel_quality")
    assert quality["samples"].sum() == len(exported)
    assert (quality["gaps"] > 0).any()

    # One of each kind; the browser's test has all of them.
    for first, last in (("rule", "rule"), ("lightgbm", "bilstm_v1")):
        assert sensors.make("anomaly_models", "held_out_scores", partitions=(first, last)).success
    assert sensors.make("anomaly_scores", partitions=tuple(keys)).success
    scores = sensors.stored("anomaly_scores")
    assert set(scores["model"]) == set(KINDS)
    last = scores.drop_duplicates(["site", "observed_at", "model"])
    assert len(last) == len(KINDS) * len(windows)
    result = sensors.make("anomaly_report", "channel_quality_report", "site_map", "site_correlations")
    assert result.success
    sensors.make("site_correlations_report")
    (event,) = result.asset_materializations_for_node(f"{BRANCH}__anomaly_report")
    report = json.loads((Path(event.metadata["path"].value) / "report.json").read_bytes())
    models = {evaluation["model"] for evaluation in report["evaluations"]}
    assert models >= set(KINDS) - {"rule"}
    assert {evaluation["baseline"] for evaluation in report["evaluations"]} == {"rule"}

    _a_late_correction_replaces_its_sample(sensors, keys)


def _a_late_correction_replaces_its_sample(sensors: Sensors, keys: list[str]) -> None:
    before = sensors.samples()
    late = before.iloc[len(before) // 2]
    sensors.write((late["site"], late["channel"], late["observed_at"], -12.5, None, 7.25))
    sensors.export()
    (new,) = sensors.read()[len(keys) :]
    (row,) = sensors.stored("channel_samples").query("batch == @new").to_dict("records")
    assert (row["version"], row["value"], row["edited"]) == (2, -12.5, 7.25)
    assert row["quality"] == late["quality"]  # None leaves what is stored
    changed = sensors.samples().compare(before)
    assert len(changed) == 1
    sensors.make("anomaly_scores", partitions=(new,))
    again = sensors.stored("anomaly_scores").query("batch == @new")
    assert len(again) == len(KINDS)
    assert again.query("model == 'rule'")["flag"].tolist() == [True]
    batch = sensors.stored("anomaly_scores").query("batch == @keys[0]")
    sensors.make("anomaly_scores", partitions=(keys[0],))  # by what was known then
    pd.testing.assert_frame_equal(sensors.stored("anomaly_scores").query("batch == @keys[0]"), batch)


def test_no_value_erases_none_and_unusual_channels_are_taken(sensors: Sensors) -> None:
    sensors.write(("s/1", "flow", at(0), 1.0, "A", 2.0), ("s/1", "flow", at(5), float("nan"), None, None))
    sensors.write(("s/1", "flow", at(0), 3.0, None, None))
    sensors.write(("one", "level", at(0, day=31), 4.0, None, None))  # a channel with one sample
    sensors.write(("one", "level", datetime(2016, 3, 1, tzinfo=UTC), 5.0, None, None))  # a month without any between
    sensors.export()
    sensors.read()
    found = sensors.samples().astype(object).where(lambda frame: frame.notna(), None)
    assert found[["site", "value", "quality", "edited"]].to_numpy().tolist() == [
        ["one", 4.0, None, None],
        ["one", 5.0, None, None],
        ["s/1", 3.0, "A", 2.0],
        ["s/1", None, None, None],
    ]
    sensors.make("sites")
    sensors.make("quarantined_channel_rows", "windows", "channel_quality")
    quality = sensors.stored("channel_quality").set_index(["site", "channel"])
    assert quality.loc[("s/1", "flow"), "samples"] == 2
    assert quality.loc[("s/1", "flow"), "values"] == 1


def test_poison_in_the_topic_is_quarantined(sensors: Sensors) -> None:
    sensors.write(("a", "flow", at(0), 1.0, None, None), ("a", "flow", at(5), 2.0, None, None))
    sensors.export()
    topic = sensors.settings.topic(SENSORS.name)
    with sensors.kafka.producer() as producer:
        for key, value in ((b"a/flow", b"{"), (b"a/flow", None), (b"b", b'{"schema_version": 1, "site": "b"}')):
            producer.send(topic, value, key).get(30)
    sensors.read()
    assert len(sensors.samples()) == 2
    bad = sensors.stored("quarantined_channel_messages")
    assert sorted(bad["kafka_offset"]) == [2, 3, 4]


def _connection(sensors: Sensors, **other: Any) -> Connection:
    connection = sensors.cassandra.connection()
    return Connection(**({name: getattr(connection, name) for name in connection.__dataclass_fields__} | other))


def test_what_cannot_be_asked_is_told_in_words_and_soon(sensors: Sensors) -> None:
    began = time.monotonic()
    with (
        pytest.raises(CassandraUnreachableError, match="No Cassandra node answers"),
        _connection(sensors, port=1).session(),
    ):
        pass
    assert time.monotonic() - began < 5
    wrong = _connection(sensors, login=("bigdata_assets", "no password"))
    with pytest.raises(CassandraLoginError, match="CASSANDRA_PASSWORD") as refused, wrong.session():
        pass
    assert "no password" not in str(refused.value)
    with pytest.raises(CassandraError, match="CASSANDRA_KEYSPACE"), sensors.cassandra.connection().session() as session:
        list(Keyspace(session, "nowhere").partitions())
    assert available_months(sensors.cassandra) == []  # no rows


def test_the_node_lets_nobody_in_by_the_login_of_new_ones(sensors: Sensors) -> None:
    first = _connection(sensors, login=("cassandra", "cassandra"))
    with pytest.raises(CassandraLoginError), first.session():
        pass
    password = sensors.settings.cassandra_password_file
    assert password.stat().st_mode & 0o777 == 0o600


@pytest.mark.drill
def test_kills_of_cassandra_and_kafka_lose_and_double_nothing(engines: Engines, drill: Drill, tmp_path: Path) -> None:
    rounds = drill.pick("rounds", short=1, full=10)
    n = drill.pick("samples", short=20_000, full=60_000)
    sensors = Sensors(tmp_path / "kills", engines, batch_rows=10_000)
    for number in range(rounds):
        if number and not number % 4:  # a supervisor gives up on what crashes six times in five minutes
            assert engines.command("services", "down").returncode == 0
            engines.ensure_up()
        rows = [(f"site{number}", "flow", at(minute), float(minute), None, None) for minute in range(0, n * 5, 5)]
        # At 35,000 rows a second the shortest round takes half a second.
        with sensors.cassandra.keyspace_session() as keyspace, _killed_in_between(engines, "cassandra", 0.15):
            for part in _parts(rows, 2_000):
                keyspace.write_samples(samples(*part))
        with _killed_in_between(engines, "kafka", 0.7):
            _until_it_succeeds(sensors)
        assert len(sensors.samples()) == (number + 1) * n
    drill.figures["samples"] = rounds * n
    exported, stored = sensors.stored("channel_export"), sensors.stored("channel_samples")
    assert len(exported) == len(stored) == rounds * n
    assert stored["version"].unique().tolist() == [1]


def _parts(rows: list[Any], size: int) -> Iterator[list[Any]]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def _until_it_succeeds(sensors: Sensors) -> None:
    """As the sensor and a user's schedule would: what an engine's death has stopped is run again."""

    def whole() -> bool:
        try:
            sensors.export()
            sensors.read()
        except Exception:  # noqa: BLE001 -- tried again, and told of when it does not end
            return False
        return True

    wait_for(whole, 240, "all is exported and read")


class _killed_in_between:  # noqa: N801 -- reads as what it does
    """Kills an engine shortly after its block has begun, and sees that the block was not over by then."""

    def __init__(self, engines: Engines, name: str, after_s: float) -> None:
        self._engines, self._name, self._after_s = engines, name, after_s
        self._over, self._landed = threading.Event(), threading.Event()

    def __enter__(self) -> None:
        self._old = self._engines.pid(self._name)
        self._thread = threading.Thread(target=self._kill)
        self._thread.start()

    def _kill(self) -> None:
        if not self._over.wait(self._after_s):
            kill_9(self._old)
            self._landed.set()

    def __exit__(self, kind: Any, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if kind is None:
            assert self._landed.is_set(), "the block was over before the kill"
            wait_for(lambda: self._engines.ready() and self._engines.pid(self._name) != self._old, 120, "it is back")


@pytest.mark.drill
def test_ten_years_of_a_channel_in_bounded_memory(engines: Engines, drill: Drill, tmp_path: Path) -> None:
    n = drill.pick("samples", short=20_000, full=1_051_200)
    sensors = Sensors(tmp_path / "years", engines, batch_rows=10_000, per_run=10)
    times = pd.date_range("2006-01-01", periods=n, freq="5min", tz="UTC")
    generator = np.random.default_rng(0)
    values = 5 + np.sin(np.arange(n) / 288 * 2 * np.pi) + generator.normal(0, 0.1, n)
    anomalous = generator.random(n) < 0.01
    with sensors.cassandra.keyspace_session() as keyspace:
        keyspace.write_rows("sites", [{"site": "old", "labelled_by": "edited"}])
        for first in range(0, n, 50_000):
            part = slice(first, min(first + 50_000, n))
            seen = np.where(anomalous[part], 0, values[part])
            same = [["old"] * len(seen), ["flow"] * len(seen), times[part], seen, [None] * len(seen), values[part]]
            keyspace.write_samples(samples(*zip(*same, strict=True)))
    with _largest(drill, "step"):
        sensors.export()
        keys = sensors.read()
        sensors.make("sites")
        sensors.make("windows")
        few = {"config": {"most_samples": 200_000}}
        config = {"ops": {f"{BRANCH}__anomaly_models": few}}
        sensors.make("anomaly_models", partitions=(MODELS[0], MODELS[0]), config=config)
        sensors.make("anomaly_models", partitions=("lightgbm", "lightgbm"), config=config)
        sensors.make_batches(keys, "anomaly_scores")
    scores = sensors.stored("anomaly_scores")
    assert scores.groupby("model").size().to_dict() == {"lightgbm": n, "rule": n}
    assert scores.query("model == 'rule'")["flag"].sum() == anomalous.sum()
    assert drill.figures["step, MB more"] < 1_500


@contextlib.contextmanager
def _largest(drill: Drill, name: str) -> Iterator[None]:
    """How much more memory this process, in which steps are run, has meanwhile, at most."""
    process, stop = psutil.Process(), threading.Event()
    before, peak = process.memory_info().rss, [0]

    def watch() -> None:
        while not stop.wait(0.1):
            peak[0] = max(peak[0], process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    drill.figures[f"{name}, MB more"] = round((peak[0] - before) / 1e6)


def test_files_in_the_sources_are_loaded_by_the_command(engines: Engines, tmp_path: Path) -> None:
    sensors = Sensors(tmp_path / "command", engines)
    folder = tmp_path / "own" / BRANCH
    folder.mkdir(parents=True)
    (folder / "north.csv").write_text("time,velocity\n2016-01-05 00:00,1.5\n2016-01-05 00:05,x\n")
    sensors.settings = sensors.settings.model_copy(update={"sources": str(folder.parent)})
    loaded = sensors.cli("load", "sensors")
    told, _ = loaded.communicate(timeout=120)
    assert loaded.returncode == 0, told
    assert "1 samples loaded" in told
    assert "1 could not be taken" in told
    assert available_months(sensors.cassandra) == ["2016-01"]
    unset = {**os.environ, **sensors.settings.environment(), "CASSANDRA_CONTACT_POINTS": "localhost:1"}
    assert settings_module.load(unset).cassandra_is_local
    shutil.rmtree(folder)
