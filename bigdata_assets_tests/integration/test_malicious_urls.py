"""The URL branch on real Spark: what is stored after runs, re-runs, backfills, kills and bad files."""

import gzip
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession
from upath import UPath

from bigdata_assets.crimes.logic import exports
from bigdata_assets.malicious_urls.logic import reading
from bigdata_assets.malicious_urls.logic.classifier import TRUSTED_TYPES
from bigdata_assets.malicious_urls.logic.mart import prediction_mart, top_domains
from bigdata_assets.malicious_urls.partitions import LANDED_FILES
from bigdata_assets.malicious_urls.tables import CLASSES
from bigdata_assets.reading import FileChangedError, once
from bigdata_assets_tests.conftest import Engines, alive, kill_9, wait_for
from bigdata_assets_tests.drills import Drill
from bigdata_assets_tests.integration.conftest import BATCH_ASSETS, REAL_DATA, SAMPLE_LISTS, Project
from bigdata_assets_tests.integration.workers import Workers

pytestmark = pytest.mark.integration

CHANGING = ("scored_at",)
BATCHES = " or ".join(f'key:"malicious_urls/{name}"' for name in BATCH_ASSETS)
NAMES = [f"delivery_{number}.csv" for number in range(4)]


REAL_LISTS = {"ebbu2017_pdd": 73_575, "fused_binary_183k": 183_029, "malicious_phish": 28_793}
"""Rows of each list."""


def land_four(project: Project) -> None:
    for number, name in enumerate(NAMES):
        project.land(name, [f"http://host{i}.example.org/p{number}?q={i}" for i in range(50 * (number + 1))])


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def test_labelled_urls_account_for_every_row_of_each_list(trained: Project) -> None:
    labelled, refused = trained.table("labelled_urls"), trained.table("quarantined_urls")
    for name in SAMPLE_LISTS:
        path = next(Path(trained.defs.resources["sources"].cache).rglob(f"{name}.csv"))
        rows = [line for line in path.read_text().splitlines()[1:] if line]
        of_list = labelled[labelled["list"] == name]
        assert of_list["copies"].sum() + (refused["list"] == name).sum() == len(rows)
        assert of_list["url"].is_unique
    kinds = labelled.groupby("list")["type"].agg(set).to_dict()
    assert kinds == {"malicious_phish": set(CLASSES) - {"malicious"}, "other_list": {"benign", "malicious"}}
    reasons = set(refused["reason"])
    assert {"empty", "no host", "unknown type: spam", "characters that are no text"} <= reasons
    contradicting = refused[refused["reason"].str.startswith("contradicting types: benign, ")]
    assert len(contradicting) >= 16
    published = labelled[labelled["list"] == "malicious_phish"]
    assert not set(contradicting["raw"].str.decode("utf-8")) & set(published["url"])


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"no folder with the official files at {REAL_DATA}")
def test_the_real_sample_is_read_whole(empty_project: Project) -> None:
    project = Project(empty_project.settings.dagster_home.parent / "real", empty_project.settings, str(REAL_DATA))
    result = project.run(("labelled_urls", "quarantined_urls"), *REAL_LISTS)
    labelled, refused = project.table("labelled_urls"), project.table("quarantined_urls")
    copies, lost = labelled.groupby("list")["copies"].sum(), refused.groupby("list").size()
    assert (copies.add(lost, fill_value=0)).to_dict() == REAL_LISTS
    assert (lost < 0.01 * copies).all()
    kinds = labelled.groupby("list")["type"].agg(set).to_dict()
    assert kinds == {
        "ebbu2017_pdd": {"benign", "phishing"},
        "fused_binary_183k": {"benign", "malicious"},
        "malicious_phish": set(CLASSES) - {"malicious"},
    }
    found = checks(result)
    assert {name for name, check in found.items() if not check.passed} == set()
    assert {"schema", "urls_are_unique", "share_quarantined", "class_shares"} <= set(found)


def test_of_ones_own_data_of_one_branch_all_is_made_and_no_other_branch_fails(
    empty_project: Project, tmp_path: Path
) -> None:
    """As `make run` does it. No file has landed: there is nothing to make a mart of."""
    folder = tmp_path / "own" / "malicious_urls"
    folder.mkdir(parents=True)
    rows = [f"http://site{n}.example/{'login' * (n % 2)}{n},{('good', 'phishing')[n % 2]}" for n in range(120)]
    (folder / "mine.csv").write_text("\n".join(["url,label", *rows]))
    (folder / "strange.csv").write_text("link,verdict\n" + "http://a.example.org,bad\n" * 100)
    project = Project(tmp_path / "eigen", empty_project.settings, str(folder.parent))
    groups = " or ".join(f"group:{name}" for name in ("big_cats", "gravitational_waves", "malicious_urls", "models"))

    def materialize(*arguments: str) -> str:
        run = project.cli("materialize", *arguments)
        told, _ = run.communicate(timeout=600)
        assert run.returncode == 0, told
        return told

    told = materialize("--select", groups, "--missing")
    assert "not used: big_cats, of which" in told
    assert "not used: gravitational_waves, of which" in told
    assert "CHECK FAILED malicious_urls/labelled_urls, share_quarantined: 100 of 100 rows of strange" in told
    left_out = "malicious_urls/prediction_mart, malicious_urls/top_domains"
    assert f"left out, there being nothing to make them of: {left_out}" in told
    assert "skipped" not in told
    assert set(project.table("labelled_urls")["list"]) == {"mine"}
    assert "run " not in materialize("--select", groups, "--missing"), "all is made that can be"
    nothing = project.cli("materialize", "--select", 'key:"malicious_urls/url_batches"')
    assert "nothing was made: what is selected has no partition yet" in nothing.communicate(timeout=300)[0]
    assert nothing.returncode == 1


def test_a_backfill_in_one_run_equals_four_runs_and_a_rerun_changes_nothing(project: Project) -> None:
    land_four(project)
    result = project.run(BATCH_ASSETS, *NAMES)
    counts = {
        event.partition: event.metadata["dagster/partition_row_count"].value
        for event in result.asset_materializations_for_node("malicious_urls__predictions")
    }
    assert counts == {name: 50 * (number + 1) for number, name in enumerate(NAMES)}
    failed = {name for name, check in checks(result).items() if not check.passed}
    assert failed <= {"predicted_shares"}  # a warning: these batches are nothing like the training rows
    together = {name: project.table(name, *(CHANGING if name == "predictions" else ())) for name in BATCH_ASSETS}

    for name in NAMES:
        project.run(BATCH_ASSETS, name)
    for name in BATCH_ASSETS:
        again = project.table(name, *(CHANGING if name == "predictions" else ()))
        assert again.equals(together[name])


def test_predictions_are_the_models_own_answers_and_the_mart_counts_each_once(project: Project) -> None:
    land_four(project)
    project.run(BATCH_ASSETS, *NAMES)
    result = project.run(("prediction_mart", "top_domains"))
    assert all(check.passed for check in checks(result).values())
    predictions, mart, top = (project.table(name) for name in ("predictions", "prediction_mart", "top_domains"))

    from bigdata_assets.io_managers.sklearn_model import SklearnModelIOManager

    context = dg.build_input_context(asset_key=dg.AssetKey(["malicious_urls", "url_classifier"]))
    stored = SklearnModelIOManager(storage=project.settings.storage).load_input(context)
    expected = stored.load(TRUSTED_TYPES).predict_proba(predictions["url"].tolist())
    classes = stored.card["classes"]
    assert classes == [name for name in CLASSES if name != "malicious"], "the sample's kinds are known"
    np.testing.assert_allclose(predictions[[f"p_{name}" for name in classes]], expected, atol=1e-12)
    assert (predictions["p_malicious"] == 0).all()
    assert (predictions["predicted_class"] == np.array(classes)[expected.argmax(axis=1)]).all()
    assert set(predictions["model_version"]) == {stored.version}

    assert mart["urls"].sum() == len(predictions) == 500
    by_class = predictions.groupby("predicted_class").size()
    assert mart.groupby("predicted_class")["urls"].sum().to_dict() == by_class.to_dict()
    assert set(mart["registered_domain"]) == {"example.org"}
    malicious = len(predictions) - by_class.get("benign", 0)
    assert top["malicious_urls"].sum() == malicious

    with project.instance() as instance:
        instance.delete_dynamic_partition(str(LANDED_FILES.name), NAMES[0])  # in the UI: its rows stay in the table
    result = project.run(("prediction_mart",))
    assert all(check.passed for check in checks(result).values())
    assert project.table("prediction_mart")["urls"].sum() == len(predictions) - 50


def test_two_backfills_at_once_lose_nothing(project: Project) -> None:
    land_four(project)
    ranges = (f"{NAMES[0]}..{NAMES[2]}", f"{NAMES[1]}..{NAMES[3]}")
    backfills = [project.cli("materialize", "--select", BATCHES, "--partition", keys) for keys in ranges]
    for backfill in backfills:
        output, _ = backfill.communicate(timeout=300)
        assert backfill.returncode == 0, output
    for name in ("url_batches", "predictions"):
        rows = project.table(name)
        assert rows.groupby("batch").size().to_dict() == {name: 50 * (i + 1) for i, name in enumerate(NAMES)}
        assert not rows.duplicated(["batch", "position"]).any()


@pytest.mark.parametrize("victim", ["run worker", "step", "spark server"])
def test_a_kill_in_mid_batch_leaves_an_exact_table_after_a_rerun(
    project: Project, engines: Engines, victim: str
) -> None:
    n_urls = 30_000
    project.land("big.csv", [f"http://host{i}.example.org/path/{i}?q={i}" for i in range(n_urls)])
    arguments = ("materialize", "--select", BATCHES, "--partition", "big.csv")
    run = project.cli(*arguments)
    storage = Path(project.settings.storage) / "malicious_urls"
    # In mid-batch: data files of the table being written are there, its first commit is not.
    wait_for(lambda: list((storage / "url_batches").rglob("*.parquet")), 120, "a batch half written")
    children = psutil.Process(run.pid).children(recursive=True)
    if victim == "run worker":
        kill_9(run.pid)
    elif victim == "step":
        steps = [child for child in children if "forkserver" in " ".join(child.cmdline())]
        kill_9(max(steps, key=lambda process: process.create_time()).pid)
    else:
        old = engines.pid("spark-connect")
        kill_9(old)
        wait_for(lambda: engines.pid("spark-connect") != old and engines.ready(), 120, "the server is back")
    output, _ = run.communicate(timeout=300)
    assert run.returncode != 0, output
    for left in alive(children):  # what a killed run worker leaves ends by itself or is ended by the next `make run`
        left.kill()
    again = project.cli(*arguments)
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output
    for name in ("url_batches", "predictions"):
        positions = project.table(name)["position"]
        assert len(positions) == n_urls
        assert positions.is_unique


@pytest.mark.drill
def test_a_large_file_is_scored_in_bounded_memory(project: Project, engines: Engines, drill: Drill) -> None:
    n_bytes = drill.pick("MB", short=5, full=1_000) * 10**6
    lengths = [4]
    with (project.landing / "large.csv").open("w") as file:
        file.write("url\n")
        while file.tell() < n_bytes:
            numbers = range(len(lengths), len(lengths) + 10_000)
            hosts = ((n, f"host{n % 9_973}.example.org") for n in numbers)
            lines = [f"https://{host}/{n}/{'a-long-path/' * 6}index.html?q={n}\n" for n, host in hosts]
            file.writelines(lines)
            lengths += map(len, lines)
    positions = np.cumsum(lengths[:-1])  # each line's first byte
    started = time.monotonic()
    with Workers(engines) as workers:
        result = project.run(BATCH_ASSETS, "large.csv")
    seconds = time.monotonic() - started
    assert project.table("quarantined_batch_urls").empty
    assert result.success
    for name in ("url_batches", "predictions"):
        stored = DeltaTable(f"{project.settings.storage}/malicious_urls/{name}").to_pyarrow_table(columns=["position"])
        np.testing.assert_array_equal(np.sort(stored["position"]), positions)
    assert 0 < workers.peak_bytes < 1.5e9
    drill.figures |= {
        "URLs": len(positions),
        "URLs a second, read, stored and scored": round(len(positions) / seconds),
        "peak of a Python worker, MB": round(workers.peak_bytes / 1e6),
    }


def test_bad_files_are_quarantined_and_the_good_one_beside_them_is_scored(project: Project) -> None:
    (project.landing / "binary.csv").write_bytes(bytes(range(128, 256)) * 1000)
    (project.landing / "empty.csv").write_bytes(b"")
    (project.landing / "columns.csv").write_text("address\n12 High Street\n")
    (project.landing / "long.csv").write_bytes(
        b"url\nhttp://a.example.org/1\n" + b"x" * 10_000_000 + b"\nb.example.org\n"
    )
    pq.write_table(pa.table({"address": ["a.example.org"]}), project.landing / "columns.parquet")
    (project.landing / "cut.parquet").write_bytes(b"PAR1" + b"\0" * 100)
    project.land("good.csv", ["http://c.example.org"])
    names = sorted(path.name for path in project.landing.iterdir())
    result = project.run(BATCH_ASSETS, *names)
    assert result.success
    assert project.table("url_batches").groupby("batch").size().to_dict() == {"good.csv": 1, "long.csv": 2}
    assert len(project.table("predictions")) == 3
    refused = project.table("quarantined_batch_urls").set_index("batch")["reason"].to_dict()
    assert set(refused) == set(names) - {"good.csv"}
    assert "not text" in refused["binary.csv"]
    assert "empty" in refused["empty.csv"]
    assert "longer than" in refused["long.csv"]
    share = checks(result)["share_quarantined_in_batches"]
    assert not share.passed
    assert share.severity == dg.AssetCheckSeverity.ERROR


def test_files_as_people_have_them_are_scored_as_what_is_meant(project: Project) -> None:
    project.land("plain.csv", ["http://a.example.org/x[1]", "http://b.example.org"])
    (project.landing / "feed.csv").write_bytes(
        b'# a feed\r# id;URL\r1;hxxp://a.example[.]org/x[1]\r2;"http://b.example\t.org"\r# end\r3;mailto:me@a.com'
    )
    (project.landing / "list.csv.gz").write_bytes(gzip.compress("http://b.example.org\n".encode("utf-16")))
    pq.write_table(
        pa.table({"URL": pa.array(["http://b.example.org"], pa.string_view())}), project.landing / "a.parquet"
    )
    pq.ParquetWriter(project.landing / "none.parquet", pa.schema([("url", pa.string())])).close()
    names = sorted(path.name for path in project.landing.iterdir())
    result = project.run(BATCH_ASSETS, *names)
    assert result.success
    urls, scores = project.table("url_batches"), project.table("predictions")
    counts = {"a.parquet": 1, "feed.csv": 2, "list.csv.gz": 1, "plain.csv": 2}
    assert urls.groupby("batch").size().to_dict() == scores.groupby("batch").size().to_dict() == counts
    given = urls[urls["as_given"].notna()].set_index("as_given")["url"].to_dict()
    assert given == {
        "hxxp://a.example[.]org/x[1]": "http://a.example.org/x[1]",
        "http://b.example\t.org": "http://b.example.org",
    }
    assert scores.groupby("url")["p_benign"].nunique().to_dict() == dict.fromkeys(given.values(), 1)
    assert set(scores["registered_domain"]) == {"example.org"}
    (refused,) = project.table("quarantined_batch_urls").to_dict("records")
    assert (refused["batch"], refused["reason"]) == ("feed.csv", "no host after mailto:")


def test_private_suffixes_are_a_setting_that_reaches_spark(project: Project) -> None:
    project.land("a.csv", ["http://x.y.github.io/"])
    domains = []
    for suffixes in ("icann", "private"):
        project.settings = project.settings.model_copy(update={"url_suffixes": suffixes})
        project.rebuild()
        project.run(BATCH_ASSETS[:2], "a.csv")
        domains += project.table("url_batches")["registered_domain"].tolist()
    assert domains == ["github.io", "y.github.io"]


def test_a_table_of_before_what_was_given_was_kept_is_read_and_written(project: Project) -> None:
    project.land("old.csv", ["http://a.example.org"])
    project.land("new.csv", ["hxxp://a.example[.]org"])
    project.run(BATCH_ASSETS[:2], "old.csv")
    folder = f"{project.settings.storage}/malicious_urls/url_batches"
    rows = DeltaTable(folder).to_pyarrow_table().drop_columns("as_given")
    shutil.rmtree(folder)
    write_deltalake(folder, rows, partition_by=["batch"])
    project.run(BATCH_ASSETS[2:], "old.csv")
    project.run(BATCH_ASSETS, "new.csv")
    stored = project.table("url_batches").set_index("batch")
    assert stored["url"].to_dict() == {"old.csv": "http://a.example.org", "new.csv": "http://a.example.org"}
    assert stored["as_given"].dropna().to_dict() == {"new.csv": "hxxp://a.example[.]org"}
    assert len(project.table("predictions")) == 2


def test_a_file_that_is_rewritten_while_it_is_read_changes_no_table(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.land("a.csv", [*(f"http://host{i}.example.org" for i in range(50)), "http:///no-host"])
    project.run(BATCH_ASSETS, "a.csv")
    before = {name: project.table(name) for name in BATCH_ASSETS}
    plan = reading.plan_splits

    def plan_and_rewrite(path: UPath, **options: bool) -> list[reading.Split]:
        splits = plan(path, **options)
        path.write_text(path.read_text().replace("host1", "tsoh1"))
        return splits

    with monkeypatch.context() as patch:
        patch.setattr(reading, "plan_splits", plan_and_rewrite)
        with pytest.raises(FileChangedError, match=r"a\.csv was written while it was read"):
            project.run(BATCH_ASSETS, "a.csv")
    assert all(project.table(name).equals(before[name]) for name in BATCH_ASSETS)
    project.run(BATCH_ASSETS, "a.csv")
    assert project.table("url_batches")["url"].str.contains("tsoh1").any()


@pytest.mark.parametrize("name", ["malicious_urls", "crimes"])
def test_two_tables_are_made_of_one_reading(spark: SparkSession, tmp_path: Path, name: str) -> None:
    """A frame over Connect is planned anew by each action: it is found again all the same."""
    path = tmp_path / "crimes_2016.csv"

    def counted(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with path.with_suffix(".read").open("a") as readings:
            readings.write("x")
        yield from batches

    path.write_text("url,ID,Date,IUCR,Arrest,Domestic\n" + "a.com,1,01/05/2016 10:00:00 AM,0460,true,true\n" * 3)
    rows = (
        reading.read_urls(spark, reading.plan_splits(UPath(path)))
        if name == "malicious_urls"
        else exports.historic_rows(spark, tmp_path, ["2016-01"])
    )
    counts, readings = [], []
    with once(rows.mapInArrow(counted, rows.schema)) as read:
        for which in ("", "NOT"):
            counts.append(read.where(f"reason IS {which} NULL").toArrow().num_rows)
            readings.append(path.with_suffix(".read").stat().st_size)
    assert counts == ([3, 0] if name == "malicious_urls" else [1, 2])
    assert readings[0] == readings[1] > 0


def test_the_mart_has_urls_that_are_malicious_of_an_unknown_kind(spark: SparkSession) -> None:
    probabilities = ("p_benign", "p_defacement", "p_malicious", "p_malware", "p_phishing")
    rows = [
        (datetime(2026, 1, 5, tzinfo=UTC), "a.example.org", "malicious", 0.1, 0.0, 0.9, 0.0, 0.0),
        (datetime(2026, 1, 5, tzinfo=UTC), "b.example.org", "benign", 0.6, 0.0, 0.4, 0.0, 0.0),
    ]
    columns = ", ".join(f"{name} double" for name in probabilities)
    frame = spark.createDataFrame(
        rows, f"landed_at timestamp, registered_domain string, predicted_class string, {columns}"
    )
    mart = prediction_mart(frame)
    assert {row.registered_domain: row.max_probability for row in mart.collect()} == {
        "a.example.org": 0.9,
        "b.example.org": 0.6,
    }
    (top,) = top_domains(mart).collect()
    assert (top.registered_domain, top.main_class, top.mean_probability) == ("a.example.org", "malicious", 0.9)


def test_a_file_or_a_list_that_is_gone_is_named(project: Project) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.csv"):
        project.run(BATCH_ASSETS, "gone.csv")
    with pytest.raises(FileNotFoundError, match="has no list gone; it has malicious_phish, other_list"):
        project.run(("labelled_urls", "quarantined_urls"), "gone")


def test_without_a_model_the_error_says_what_to_materialise(empty_project: Project) -> None:
    empty_project.land("a.csv", ["a.example.org"])
    empty_project.run(BATCH_ASSETS[:2], "a.csv")
    with pytest.raises(Exception, match="materialise malicious_urls/url_classifier"):
        empty_project.run(BATCH_ASSETS[2:], "a.csv")
