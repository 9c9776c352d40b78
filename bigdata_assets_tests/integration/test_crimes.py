"""The stream of crimes on a real broker: what is stored after poison, re-runs, gaps, expiry and kills."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from bigdata_assets.crimes import prequential_step, producer
from bigdata_assets.crimes.logic import export_files, exports, window
from bigdata_assets.crimes.partitions import ARREST_MODELS, CRIMES
from bigdata_assets.crimes.source import SOURCE
from bigdata_assets.crimes.tables import TABLES as DECLARED
from bigdata_assets.resources.kafka import KafkaResource
from bigdata_assets.runs import interruptions
from bigdata_assets.runs.ranges import ONE_KEY
from bigdata_assets.services.stack import end_unfinished_runs
from bigdata_assets.streams.assets import batch_sensor
from bigdata_assets.streams.batches import parse
from bigdata_assets.streams.planner import Planner
from bigdata_assets_tests.conftest import PATIENCE, Engines, wait_for
from bigdata_assets_tests.drills import Drill
from bigdata_assets_tests.integration.conftest import REAL_DATA, Project
from bigdata_assets_tests.integration.test_kafka import expire

pytestmark = pytest.mark.integration

STREAM_TABLES = [table for table in DECLARED if table.partition_column == "batch"]
BATCHED = [*(table.key for table in STREAM_TABLES), ARREST_MODELS]
TABLES = [table.name for table in STREAM_TABLES]
BAD_ROWS = ["Date is no time: 'no time'", "ID is no number: ''"]
"""Why two rows of each month of the sample are refused."""
ONLINE = {"ops": {"test_then_train": {"config": {"window_models": False}}}}


class Crimes(Project):
    """A project with a topic of its own."""

    def __init__(self, folder: Path, engines: Engines, batch_rows: int = 100) -> None:
        topic = f"crimes.{uuid.uuid4().hex[:8]}"
        own = {"topics": {"crimes": topic}, "batch_rows": batch_rows}
        super().__init__(folder, engines.settings.model_copy(update=own))
        self.topic = topic
        self.kafka = KafkaResource(servers=engines.settings.kafka_servers)

    def produce(self, limit: int, partitions: int = 1, **options: Any) -> int:
        folder = self.defs.resources["sources"].folder(SOURCE)
        options = {"rows": 10_000, "every_s": 0, "limit": limit, "partitions": partitions} | options
        return producer.produce(self.kafka, folder, ["2016-01"], self.topic, **options)

    @property
    def planner(self) -> Planner:
        return Planner(CRIMES, self.settings, self.kafka)

    def plan(self) -> list[str]:
        """Make batches of all that waits; the keys of all batches."""
        with self.instance() as instance:
            self.planner.add_all(instance)
            return self.planner.keys(instance)

    def batches(self, *keys: str, assets: list[dg.AssetKey] = BATCHED, **options: Any) -> Any:
        return self.execute(assets, keys, options.pop("config", ONLINE), **options)

    def tables(self) -> dict[str, pd.DataFrame]:
        return {name: self.table(name, branch="crimes") for name in TABLES}

    def twin(self) -> "Crimes":
        """Another project, without anything, on the same topic."""
        other = Crimes(Path(self.settings.dagster_home).parent / "other", Engines(self.settings))
        other.settings = other.settings.model_copy(update={"topics": {"crimes": self.topic}})
        other.topic = self.topic
        return other

    def learnt(self) -> set[str]:
        with self.instance() as instance:
            return set(instance.get_materialized_partitions(ARREST_MODELS))


@pytest.fixture
def crimes(engines: Engines, tmp_path: Path) -> Crimes:
    return Crimes(tmp_path / "Verbrechen é", engines)


def assert_same(left: dict[str, pd.DataFrame], right: dict[str, pd.DataFrame]) -> None:
    for name in TABLES:
        pd.testing.assert_frame_equal(left[name], right[name])


def offsets_of(table: pd.DataFrame) -> list[tuple[int, int]]:
    return sorted(zip(table["kafka_partition"], table["kafka_offset"], strict=True))


def checks(result: Any) -> dict[str, bool]:
    return {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}


def test_several_partitions_in_one_run_or_many_and_again(crimes: Crimes) -> None:
    crimes.produce(700, partitions=3)
    keys = crimes.plan()
    assert {parse(key).partition for key in keys} == {0, 1, 2}
    result = crimes.batches(*keys)
    assert set(checks(result).values()) == {True}
    first = crimes.tables()
    held = {(p, o) for p, offsets in crimes.kafka.offsets(crimes.topic).items() for o in range(offsets.end)}
    assert offsets_of(first["crime_messages"]) == offsets_of(first["crime_reports"]) == sorted(held)
    assert len(first["arrest_scores"]) == 3 * 700
    assert crimes.learnt() == set(keys)
    for event in result.asset_materializations_for_node("crimes__crime_messages"):
        batch = parse(event.partition)
        assert event.metadata["batch_messages"].value == len(batch)
        assert (
            event.metadata["lag_messages"].value == crimes.kafka.offsets(crimes.topic)[batch.partition].end - batch.end
        )
        assert 0 < event.metadata["age_s"].value < 600
    scored_by = first["arrest_scores"].groupby("batch")["snapshot"].unique()
    assert [scored_by[key].tolist() for key in keys] == [[f"{crimes.topic}-start"], *([key] for key in keys[:-1])]

    for key in (keys[3], keys[0]):  # old batches, in any order
        crimes.batches(key)
    assert_same(crimes.tables(), first)

    other = crimes.twin()
    for key in other.plan():
        other.batches(key)
    assert_same(other.tables(), first)


def test_metrics_are_those_of_the_stored_scores(crimes: Crimes) -> None:
    result = crimes.execute([dg.AssetKey(["crimes", "stream_report"])], ())  # before there is any batch
    (event,) = result.asset_materializations_for_node("crimes__stream_report")
    assert event.metadata["batches"].value == 0
    crimes.produce(300)
    crimes.batches(*crimes.plan())
    tables = crimes.tables()
    place = ["batch", "kafka_partition", "kafka_offset"]
    rows = tables["arrest_scores"].merge(tables["crime_reports"][[*place, "arrest"]], on=place)
    by_batch = tables["batch_metrics"].set_index(["batch", "model"])
    for name, its_rows in rows.groupby(["batch", "model"]):
        metrics = by_batch.loc[name]
        right = ((its_rows["probability"] > 0.5) == its_rows["arrest"]).sum()
        assert (metrics["correct"], metrics["scored_reports"]) == (right, len(its_rows))
    result = crimes.execute([dg.AssetKey(["crimes", "stream_report"])], ())
    (event,) = result.asset_materializations_for_node("crimes__stream_report")
    accuracy = rows[rows["model"] == "iucr_rate"].eval("(probability > 0.5) == arrest").mean()
    assert event.metadata["accuracy iucr_rate"].value == pytest.approx(accuracy)
    report = json.loads((Path(event.metadata["path"].value) / "report.json").read_bytes())
    assert report["provenance"]["inputs"] == {"crimes/batch_metrics": 1, "crimes/crime_reports": 1}
    assert event.metadata["lag_messages"].value == 0


POISON: list[bytes | None] = [
    b"{",
    b"not json",
    None,
    b'{"schema_version": 1}',
    b'{"schema_version": 2, "report_id": 5}',
    b'{"schema_version": 1, "report_id": "five"}',
    b"[]",
    b"\xff\xfe\x00",
    b'{"schema_version": 1, "report_id": 5, "x_coordinate_ft": 1' + b"0" * 400 + b"}",
]


def test_poison_is_quarantined_with_its_offset_and_nothing_else_is_lost(engines: Engines, tmp_path: Path) -> None:
    crimes = Crimes(tmp_path / "poison", engines, batch_rows=3_000)
    crimes.kafka.create_topic(crimes.topic, 1, {"max.message.bytes": "6000000"})
    folder = crimes.defs.resources["sources"].folder(SOURCE)
    reports = pd.concat([exports.read_month(folder, month).reports for month in ("2015-11", "2015-12", "2016-01")])
    copies = [reports.assign(report_id=reports["report_id"] + 10**6 * copy) for copy in range(2)]
    good = list(producer.messages.encode(pd.concat(copies).iloc[:10_000]))
    generator = random.Random(3)
    everything: list[tuple[bytes, bytes | None]] = [*good, *((b"5", generator.choice(POISON)) for _ in range(999))]
    everything.append((b"big", b"x" * 5_000_000))
    generator.shuffle(everything)
    with crimes.kafka.producer(max_request_size=6_000_000) as sending:
        for future in [sending.send(crimes.topic, value, key, partition=0) for key, value in everything]:
            future.get(30)
    crimes.batches(*crimes.plan())
    tables = crimes.tables()
    bad = [offset for offset, (key, _) in enumerate(everything) if key in (b"5", b"big")]
    assert len(tables["crime_reports"]) == 10_000
    assert sorted(tables["crime_reports"]["report_id"]) == sorted(int(key) for key, _ in good)
    assert sorted(tables["quarantined_messages"]["kafka_offset"]) == bad
    reasons = tables["quarantined_messages"].set_index("kafka_offset")["reason"]
    (big,) = [offset for offset, (key, _) in enumerate(everything) if key == b"big"]
    assert reasons[big].startswith("longer than")
    assert len(tables["crime_messages"]) == 11_000


def test_a_correction_is_a_new_version_and_is_not_scored_as_if_it_were_unseen(crimes: Crimes) -> None:
    crimes.produce(200)
    reports = exports.read_month(crimes.defs.resources["sources"].folder(SOURCE), "2016-01").reports.iloc[:3]
    with crimes.kafka.producer() as sending:
        for key, value in producer.messages.encode(reports.assign(arrest=~reports["arrest"])):
            sending.send(crimes.topic, value, key).get(30)
    crimes.batches(*crimes.plan())
    tables = crimes.tables()
    corrected = tables["crime_reports"][tables["crime_reports"]["report_id"].isin(reports["report_id"])]
    assert corrected.groupby("report_id")["version"].apply(list).tolist() == [[1, 2]] * 3
    assert corrected.groupby("report_id")["arrest"].nunique().tolist() == [2] * 3
    last = tables["batch_metrics"].query("model == 'online_sgd'").iloc[-1]
    assert (last["scored_reports"], last["left_out"]) == (0, 3)
    assert pd.isna(last["accuracy"])


def test_a_batch_that_was_never_read_is_not_learnt_as_an_empty_one(crimes: Crimes) -> None:
    crimes.produce(200)
    first, second = crimes.plan()
    crimes.batches(first)
    result = crimes.batches(second, assets=[ARREST_MODELS], raise_on_error=False)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert f"crimes/crime_reports was not materialised for {second}" in str(failure.event_specific_data.error)
    assert crimes.learnt() == {first}


def test_a_batch_that_fails_does_not_stop_the_stream_and_its_gap_heals(
    crimes: Crimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    crimes.produce(400)
    keys = crimes.plan()
    crimes.batches(keys[0])
    for key in keys[2:]:  # the second one's run has failed
        result = crimes.batches(key)
        assert result.success
    assert crimes.learnt() == {keys[0]}
    assert not checks(result)["training_keeps_up"]
    scores = crimes.table("arrest_scores", branch="crimes")
    assert scores.groupby("batch")["snapshot"].unique().map(list).to_dict() == {
        keys[0]: [f"{crimes.topic}-start"],
        keys[2]: [keys[0]],
        keys[3]: [keys[0]],
    }
    with monkeypatch.context() as patch:  # killed when it has learnt them all and has told nobody
        patch.setattr(prequential_step, "_tell", lambda *_: 1 / 0)
        assert not crimes.batches(keys[1], raise_on_error=False).success
    assert crimes.learnt() == {keys[0]}
    result = crimes.batches(keys[1])
    assert crimes.learnt() == set(keys)
    assert checks(result)["training_keeps_up"]
    again = crimes.tables()
    crimes.batches(keys[2])  # what was scored by an older model stays scored by it
    assert_same(crimes.tables(), again)


def test_expired_offsets_are_replayed_from_what_was_stored_or_named(crimes: Crimes) -> None:
    crimes.produce(300)
    keys = crimes.plan()
    crimes.batches(keys[0])
    stored = crimes.tables()
    expire(crimes.kafka, crimes.topic, 150)
    crimes.batches(keys[0])
    assert_same(crimes.tables(), stored)
    result = crimes.batches(keys[1], raise_on_error=False)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "offsets 100 to 149" in str(failure.event_specific_data.error)
    crimes.batches(keys[2])
    assert crimes.learnt() == {keys[0]}
    done = subprocess.run(
        [sys.executable, "-m", "bigdata_assets.cli", "batches", "--give-up", keys[1]],
        env=_environment(crimes),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert crimes.plan() == [keys[0], keys[2]]  # what was given up is not planned again
    crimes.batches(keys[2])
    assert crimes.learnt() == {keys[0], keys[2]}
    whole = crimes.tables()
    crimes.batches(keys[0], keys[2])  # one from the table, one from the topic
    assert_same(crimes.tables(), whole)


def _environment(crimes: Crimes) -> dict[str, str]:
    return {**os.environ, **crimes.settings.environment()}


def test_a_batch_whose_models_are_gone_is_not_scored_by_later_ones(crimes: Crimes) -> None:
    crimes.produce(300)
    keys = crimes.plan()
    crimes.batches(*keys)
    before = crimes.tables()
    shutil.rmtree(Path(crimes.settings.storage) / "crimes/arrest_models/snapshots" / keys[0])
    result = crimes.batches(keys[1], raise_on_error=False)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "which is not kept any more" in str(failure.event_specific_data.error)
    assert_same(crimes.tables(), before)


def test_spark_models_know_the_history_and_the_window_alone(crimes: Crimes) -> None:
    crimes.settings = crimes.settings.model_copy(update={"crimes_refit_rows": 150})
    crimes.rebuild()
    months = ("2015-11", "2015-12")
    historic = [dg.AssetKey(["crimes", name]) for name in ("historic_reports", "quarantined_historic_reports")]
    result = crimes.execute(historic, months)
    assert checks(result)["share_quarantined_in_months"]
    table = crimes.table("historic_reports", branch="crimes")
    assert table.groupby("month").size().to_dict() == dict.fromkeys(months, 3_000)
    refused = crimes.table("quarantined_historic_reports", branch="crimes")
    assert refused.groupby("month")["reason"].apply(sorted).to_dict() == dict.fromkeys(months, BAD_ROWS)

    crimes.produce(300)
    keys = crimes.plan()
    few = {"window_rows": 2_000, "window_trees": 2}
    config = {"ops": {"test_then_train": {"config": few}}}
    crimes.batches(keys[0], config=config)
    crimes.batches(*keys[1:], config=config)
    scores = crimes.table("arrest_scores", branch="crimes")
    assert set(scores["model"]) == {"majority", "iucr_rate", "online_sgd", *window.MODELS}
    assert len(scores) == 300 * 7
    cards = {path.parent.name: json.loads(path.read_text()) for path in _cards(crimes)}
    start = cards[f"{crimes.topic}-start"]
    assert start["reports_learnt"] == 6_000
    assert start["fit"]
    assert cards[keys[0]]["fit"] == start["fit"]  # too few new reports for another fit
    assert cards[keys[1]]["fit"] == cards[keys[2]]["fit"] not in ("", start["fit"])
    metrics = crimes.table("batch_metrics", branch="crimes").groupby("model")["correct"].sum() / 300
    assert metrics["logistic_regression"] > metrics["majority"]
    before = crimes.tables()
    crimes.batches(keys[1], config=config)
    assert_same(crimes.tables(), before)

    stale = next(path for path in _cards(crimes) if path.parent.name == keys[-1])
    stale.write_text(json.dumps(cards[keys[-1]] | {"code_version": "1"}))
    crimes.produce(400, resume=True)
    crimes.batches(crimes.plan()[-1], config=config)
    newest = crimes.table("arrest_scores", branch="crimes").query("batch not in @keys")
    assert set(newest["model"]) == {"majority", "iucr_rate", "online_sgd"}, "no Spark model that other code has fitted"
    cards = {path.parent.name: json.loads(path.read_text()) for path in _cards(crimes)}
    assert cards[crimes.plan()[-1]]["fit"] not in ("", *(cards[key]["fit"] for key in keys))

    # The same stream, in other runs, is scored by the same: also by models that Spark fits anew on the way.
    other = crimes.twin()
    shutil.copytree(Path(crimes.settings.storage) / "crimes", Path(other.settings.storage) / "crimes", ignore=_batched)
    other.plan()
    for keys_of_run in (keys[:2], keys[2:]):
        other.batches(*keys_of_run, config=config)
    pd.testing.assert_frame_equal(other.table("arrest_scores", branch="crimes"), scores, rtol=1e-9)


def _batched(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in (*TABLES, "arrest_models")]


def _cards(crimes: Crimes) -> Iterator[Path]:
    return (Path(crimes.settings.storage) / "crimes/arrest_models/snapshots").glob("*/model.json")


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"no folder with the official files at {REAL_DATA}")
def test_a_real_month_is_read_whole(crimes: Crimes) -> None:
    project = Project(Path(crimes.settings.dagster_home).parent / "real", crimes.settings, str(REAL_DATA))
    historic = [dg.AssetKey(["crimes", name]) for name in ("historic_reports", "quarantined_historic_reports")]
    project.execute(historic, ("2016-01",))
    table = project.table("historic_reports", branch="crimes")
    assert len(table) == 20_583
    assert len(project.table("quarantined_historic_reports", branch="crimes")) == 0
    assert int(table["arrest"].sum()) == 4_242
    expected = pd.read_parquet(REAL_DATA / "crimes" / "crimes_2016.parquet", columns=["ID", "Date", "Beat", "IUCR"])
    joined = table.merge(expected, left_on="report_id", right_on="ID")
    assert len(joined) > 20_000
    local = joined["occurred_at"].dt.tz_convert("America/Chicago").dt.tz_localize(None)
    assert (local == joined["Date"]).mean() > 0.999  # the two exports were made at different times
    assert (joined["beat"] == joined["Beat"]).mean() > 0.99


def test_a_row_in_the_wrong_file_is_quarantined(crimes: Crimes) -> None:
    folder = Path(crimes.settings.dagster_home).parent / "official"
    (folder / "crimes").mkdir(parents=True)
    source = crimes.defs.resources["sources"].folder(SOURCE)
    rows = pd.read_csv(exports.export_file(source, "2015-12"), dtype=str).iloc[:20]
    rows.loc[rows.index[:2], "Date"] = ["01/01/2016 10:00:00 AM", "11/30/2015 11:59:59 PM"]
    rows.to_csv(folder / "crimes" / "crimes_2015-12.csv", index=False)
    project = Project(folder / "project", crimes.settings, str(folder))
    historic = [dg.AssetKey(["crimes", name]) for name in ("historic_reports", "quarantined_historic_reports")]
    project.execute(historic, ("2015-12",), raise_on_error=False)
    refused = project.table("quarantined_historic_reports", branch="crimes")
    misfiled = refused[refused["reason"] == "Date is not in 2015-12, which the file is for"]
    assert misfiled["month"].tolist() == ["2015-12"] * 2
    assert misfiled["raw"].str.contains(rows["ID"].iloc[0]).any()
    assert len(refused) + len(project.table("historic_reports", branch="crimes")) == 20


def test_spark_and_the_producer_read_and_refuse_the_same(
    crimes: Crimes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(crimes.settings.dagster_home).parent / "official"
    (folder / "crimes").mkdir(parents=True)
    source = exports.export_file(crimes.defs.resources["sources"].folder(SOURCE), "2015-12")
    header, *lines = source.read_text().splitlines()
    lines[3] += lines[4][20:]  # two in one line
    lines[10] = lines[10].replace(",", ',"', 1)  # a mark without its other one
    lines[20] = lines[20].replace("EXAMPLE ST", 'EXAMPLE"\nST').replace(" EX", " EX").replace("XX ", '"XX ', 1)
    lines[30] = lines[30].replace("XX ", "XX\r", 1)
    lines.append(lines[40])  # an ID again
    (folder / "crimes" / "crimes_2015-12.csv").write_bytes("\r\n".join([header, *lines]).encode("utf-8-sig"))
    monkeypatch.setattr(export_files, "PART_BYTES", 10_000)
    project = Project(folder / "project", crimes.settings, str(folder))
    historic = [dg.AssetKey(["crimes", name]) for name in ("historic_reports", "quarantined_historic_reports")]
    project.execute(historic, ("2015-12",), raise_on_error=False)
    reports = project.table("historic_reports", branch="crimes").drop(columns="month")
    refused = project.table("quarantined_historic_reports", branch="crimes")
    read = exports.read_month(folder / "crimes", "2015-12")
    reports = reports.sort_values(["occurred_at", "report_id"], ignore_index=True)
    pd.testing.assert_frame_equal(reports, read.reports, check_dtype=False)
    pairs = [sorted(zip(table["reason"], table["raw"], strict=True)) for table in (refused, read.refused)]
    assert pairs[0] == pairs[1]
    assert len(reports) + len(refused) == len(lines)
    assert len(refused) == read.n_refused == 5
    sent = producer.produce(crimes.kafka, folder / "crimes", ["2015-12"], crimes.topic, rows=10_000, every_s=0)
    assert sent == len(reports)
    assert "5 rows are none and are not sent" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_export_that_is_rewritten_while_it_is_read_fails_the_run(
    crimes: Crimes, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    folder = Path(crimes.settings.dagster_home).parent / "official"
    (folder / "crimes").mkdir(parents=True)
    path = folder / "crimes" / f"crimes_2015-12.{suffix}"
    rows = pd.read_csv(exports.export_file(crimes.defs.resources["sources"].folder(SOURCE), "2015-12"), dtype=str)
    rows.to_csv(path, index=False) if suffix == "csv" else rows.to_parquet(path)

    def plan_and_rewrite(path: Path) -> Any:
        parts = plan(path)
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        return parts

    plan = export_files.plan
    monkeypatch.setattr(export_files, "plan", plan_and_rewrite)  # before the workers read it
    project = Project(folder / "project", crimes.settings, str(folder))
    historic = [dg.AssetKey(["crimes", name]) for name in ("historic_reports", "quarantined_historic_reports")]
    with pytest.raises(Exception, match=rf"crimes_2015-12\.{suffix} was written while it was read"):
        project.execute(historic, ("2015-12",))


RUN = """
import json, sys
import dagster as dg
from bigdata_assets import definitions, settings
from bigdata_assets.crimes.partitions import CRIMES
from bigdata_assets_tests.integration.test_crimes import ONLINE
configuration = settings.load()
defs = definitions.build(configuration, executor=dg.in_process_executor)
with dg.DagsterInstance.from_config(str(configuration.dagster_home)) as instance:
    job = defs.resolve_job_def(CRIMES.job)
    result = job.execute_in_process(instance=instance, run_config=ONLINE, tags=json.loads(sys.argv[1]))
"""


class Daemon:
    """The real sensor, and runs as the daemon launches them: with a request's own tags, and no run key twice."""

    def __init__(self, crimes: Crimes) -> None:
        self.crimes, self.cursor, self.run_keys = crimes, None, set[str]()
        self.sensor = batch_sensor(CRIMES)

    def tick(self) -> dict[str, str]:
        """The tags of the run that the sensor asks for; none where it asks for nothing."""
        with self.crimes.instance() as instance:
            resources = {"settings": self.crimes.settings, "kafka": self.crimes.kafka}
            context = dg.build_sensor_context(instance=instance, cursor=self.cursor, resources=resources)
            asked = self.sensor(context)
            self.cursor = context.cursor
        if isinstance(asked, dg.SkipReason):
            return {}
        ((request,),) = [asked.run_requests]
        assert request.run_key not in self.run_keys, "such a run is never launched again"
        self.run_keys.add(request.run_key)
        partition = {ONE_KEY: request.partition_key} if request.partition_key else {}
        return {**request.tags, **partition, "dagster/run_key": request.run_key}

    def next(self) -> dict[str, str]:
        return wait_for(self.tick, 90, "the sensor asks for a run")

    def launch(self, tags: dict[str, str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", RUN, json.dumps(tags)]
        return subprocess.Popen(
            command, env=_environment(self.crimes), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def run(self, tags: dict[str, str]) -> None:
        """A run that is not to be killed, in this process."""
        with self.crimes.instance() as instance:
            job = self.crimes.defs.resolve_job_def(CRIMES.job)
            assert job.execute_in_process(instance=instance, run_config=ONLINE, tags=tags).success

    def run_of(self, tags: dict[str, str]) -> dg.DagsterRun | None:
        with self.crimes.instance() as instance:
            filters = dg.RunsFilter(tags={"dagster/run_key": tags["dagster/run_key"]})
            return next(iter(instance.get_runs(filters)), None)

    def states(self) -> dict[str, str]:
        with self.crimes.instance() as instance:
            return self.crimes.planner.states(instance)


POINTS = [
    *(("step", name) for name in ("crime_messages", "crime_reports", "test_then_train", "batch_metrics")),
    *(("rows", name) for name in ("crime_messages", "crime_reports", "arrest_scores")),
    ("snapshot", ""),
]
"""Where a run is killed: a step has begun, files of a table are there that may not be committed, models are stored."""


def reached(daemon: Daemon, tags: dict[str, str], point: tuple[str, str]) -> Callable[[], bool]:
    """Whether a run that is about to be launched has come to a point, as seen from outside."""
    kind, name = point
    branch = Path(daemon.crimes.settings.storage) / "crimes"

    def begun() -> set[str]:
        if not (run := daemon.run_of(tags)):
            return set()
        with daemon.crimes.instance() as instance:
            entries = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START)
        return {str(entry.step_key).removeprefix("crimes__") for entry in entries}

    def files() -> set[Path]:
        if kind == "snapshot":
            return set((branch / "arrest_models" / "snapshots").glob("*"))
        return set((branch / name).rglob("*.parquet"))

    before = files()
    return (lambda: name in begun()) if kind == "step" else (lambda: bool(files() - before))


@pytest.mark.drill
def test_rounds_of_kill_9_leave_exactly_what_was_sent(crimes: Crimes, engines: Engines, drill: Drill) -> None:
    """Worker or broker dies in mid-batch, the producer goes on; the sensor then asks for the batch again by itself."""
    rounds = drill.pick("rounds", short=2, full=10)
    generator, daemon, keys, waits = random.Random(11), Daemon(crimes), list[str](), list[float]()
    points = [POINTS[0], *generator.sample(POINTS, len(POINTS))]
    crimes.produce(100)
    for number in range(rounds):
        if number:
            crimes.produce(100 * (number + 1), resume=True)
        tags = daemon.next()
        (key,) = set(daemon.states()) - set(keys)
        keys.append(key)
        assert tags[ONE_KEY] == key
        broker = number % 3 == 1
        point = POINTS[0] if broker else points.pop(0)
        here = reached(daemon, tags, point)
        worker = daemon.launch(tags)
        wait_for(lambda here=here, worker=worker: here() or worker.poll() is not None, 180, str(point))
        assert worker.poll() is None, "it ended before it could be killed"
        if broker:
            with engines.dead("kafka", engines.settings.kafka_port):
                assert daemon.tick() == {}
            worker.wait(180)
        else:
            worker.kill()
            assert worker.wait(30) == -signal.SIGKILL
            assert daemon.run_of(tags).status == dg.DagsterRunStatus.STARTED, "it was not killed in mid-run"
            assert daemon.tick() == {}, "one run at a time, and this one is not known to be dead"
        ended = time.monotonic()
        end_unfinished_runs(crimes.settings, "killed")  # as run monitoring does
        if daemon.states()[key] == "done":
            continue  # the broker had given all, or the last table was stored already
        assert daemon.states()[key] == "waiting", "a kill is no attempt of the batch"
        again = daemon.next()
        waits.append(time.monotonic() - ended)
        assert again[ONE_KEY] == key
        daemon.run(again)
    assert max(waits) < interruptions.RETRY_AFTER_S * PATIENCE, "asked for again at once"
    assert len(waits) >= rounds / 2
    assert set(daemon.states().values()) == {"done"}
    assert daemon.tick() == {}
    tables, sent = crimes.tables(), [(0, offset) for offset in range(100 * rounds)]
    assert offsets_of(tables["crime_messages"]) == offsets_of(tables["crime_reports"]) == sent
    assert tables["crime_reports"]["report_id"].is_unique
    assert len(tables["arrest_scores"]) == 3 * len(sent)
    assert crimes.learnt() == set(keys)
    straight = Crimes(Path(crimes.settings.dagster_home).parent / "straight", engines)
    straight.settings = straight.settings.model_copy(update={"topics": {"crimes": crimes.topic}})
    assert straight.plan() == keys
    straight.batches(*keys)
    assert_same(straight.tables(), tables)
    drill.figures |= {
        "kills": rounds,
        "batches that were run again": len(waits),
        "longest until one was asked for again, s": round(max(waits), 1),
    }


@pytest.mark.drill
def test_a_long_stream_is_caught_up_with_and_the_last_batches_take_no_longer(
    engines: Engines, tmp_path: Path, drill: Drill
) -> None:
    n_batches, rows = drill.pick("batches", short=25, full=1_000), drill.pick("messages a batch", short=10, full=120)
    crimes = Crimes(tmp_path / "long", engines, batch_rows=rows)
    reports = exports.read_month(crimes.defs.resources["sources"].folder(SOURCE), "2016-01").reports
    copies = [reports.assign(report_id=reports["report_id"] + 10**8 * copy) for copy in range(60)]
    sent = pd.concat(copies[: -(-n_batches * rows // len(reports))]).iloc[: n_batches * rows]
    crimes.kafka.create_topic(crimes.topic, 1)
    with crimes.kafka.producer(linger_ms=50) as sending:
        for future in [sending.send(crimes.topic, value, key) for key, value in producer.messages.encode(sent)]:
            future.get(60)
    daemon, seconds = Daemon(crimes), list[float]()
    maintain = crimes.defs.resolve_job_def("maintain_tables")
    while tags := daemon.tick():
        started = time.monotonic()
        daemon.run(tags)
        seconds.append(time.monotonic() - started)
        if len(seconds) % 5 == 1:  # every hundred batches, as every hour
            with crimes.instance() as instance:
                assert maintain.execute_in_process(instance=instance).success
    assert list(daemon.states().values()) == ["done"] * n_batches
    assert len(seconds) == -(-n_batches // crimes.settings.batches_per_run)
    assert sorted(crimes.table("crime_reports", branch="crimes")["report_id"]) == sorted(sent["report_id"])
    assert crimes.learnt() == set(daemon.states())
    if drill.full:
        assert len(list(_cards(crimes))) <= 440, "400 snapshots are kept, and a tenth more before the oldest go"
        early, late = median(seconds[2:7]), median(seconds[-5:])
        drill.figures |= {"a run of 20 early batches, s": round(early, 1), "of the last ones, s": round(late, 1)}
        assert late < 2 * early
