"""Reports that are kept, and the ledger that remembers all of them."""

import os
from pathlib import Path

import dagster as dg
import pytest

from bigdata_assets.definitions import BRANCHES
from bigdata_assets.io_managers.delta import DeltaIOManager, delta_io_manager
from bigdata_assets.io_managers.report import NUMBERS, ReportIOManager
from bigdata_assets.models.assets import MODEL_PAGE, ledger_branch
from bigdata_assets.models.tables import MODEL_LEDGER
from bigdata_assets.reports import Evaluation, Report
from bigdata_assets.resources.spark import SparkResource

REPORTS = [key for branch in BRANCHES for key in branch.evaluations]
FIRST, *_, LAST = REPORTS
(model_ledger,) = ledger_branch(BRANCHES).assets
PARTS = dg.StaticPartitionsDefinition(["a", "a-b", "b"])


def report_of(key, **options):
    @dg.asset(key=key, io_manager_key="report", **options)
    def report(context) -> Report:
        value = float(context.run.tags["value"])
        return Report("t", "s", evaluations=(Evaluation("m", "test", "accuracy", value, "majority", 0.5),))

    return report


PARTED = report_of("parted", partitions_def=PARTS)
ASSETS = [model_ledger, PARTED, *map(report_of, REPORTS)]


class Ledger:
    def __init__(self, storage: Path) -> None:
        self.storage = storage
        self.delta = DeltaIOManager(str(storage), SparkResource(remote=""), [MODEL_LEDGER])

    def run(self, key, value=0.0, partition=None, kept=3) -> str:
        resources = {
            "report": ReportIOManager(storage=str(self.storage), url="", kept=kept, kept_days=0),
            "delta": delta_io_manager([MODEL_LEDGER]).configured({"storage": str(self.storage)}),
            "spark": SparkResource(remote=""),
        }
        options = {"resources": resources, "partition_key": partition, "tags": {"value": str(value)}}
        selection = [key, MODEL_PAGE] if key == MODEL_LEDGER.key else [key]
        return dg.materialize(ASSETS, selection=selection, **options).run_id

    def refresh(self) -> list[tuple[str, float, str]]:
        self.run(MODEL_LEDGER.key)
        return self.rows()

    def rows(self) -> list[tuple[str, float, str]]:
        rows = self.delta.read_arrow(MODEL_LEDGER).to_pylist()
        return sorted((row["report"], row["value"], row["run_id"]) for row in rows)

    def numbers(self) -> list[Path]:
        """Of all reports that the ledger is made of."""
        return [file for file in self.storage.rglob(NUMBERS) if MODEL_PAGE.path[-1] not in file.parts]

    def folders(self, key) -> list[str]:
        parent = self.storage.joinpath("reports", *key.path)
        return sorted(path.name for path in parent.iterdir())


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "Straße")


def test_the_newest_reports_are_kept_whatever_a_copy_has_made_of_file_times(ledger):
    runs = []
    for number in range(5):
        runs.append(ledger.run(FIRST, number))
        file = ledger.storage.joinpath("reports", *FIRST.path, runs[-1], NUMBERS)
        os.utime(file, (2e9 - number, 2e9 - number))
    assert ledger.folders(FIRST) == sorted(runs[-3:])
    newest = ledger.run(FIRST, kept=1)
    assert ledger.folders(FIRST) == [newest]


def test_a_report_that_was_just_made_is_kept_although_the_clock_was_put_back(ledger):
    first = ledger.run(FIRST)
    file = ledger.storage.joinpath("reports", *FIRST.path, first, NUMBERS)
    file.write_text(file.read_text().replace('"evaluated_at": "20', '"evaluated_at": "90'))
    second = ledger.run(FIRST, kept=1)
    assert ledger.folders(FIRST) == [second]


def test_reports_are_kept_by_partition(ledger):
    runs = {key: [ledger.run(PARTED.key, partition=key, kept=2) for _ in range(3)] for key in ("a", "a-b", "b")}
    left = {name[-36:] for name in ledger.folders(PARTED.key)}
    assert left == {run for its in runs.values() for run in its[-2:]}


def test_the_ledger_keeps_the_rows_of_reports_that_are_gone(ledger):
    runs = [ledger.run(FIRST, 0.0)]
    ledger.refresh()
    runs += [ledger.run(FIRST, float(number)) for number in (1, 2)]
    ledger.refresh()
    runs += [ledger.run(FIRST, float(number)) for number in (3, 4)]
    assert len(ledger.folders(FIRST)) == 3
    expected = [(FIRST.to_user_string(), float(number), run) for number, run in enumerate(runs)]
    assert ledger.refresh() == expected
    assert ledger.refresh() == expected, "again the same"


def test_a_figure_that_is_none_keeps_no_other_out(ledger):
    ledger.run(FIRST, float("nan"))
    run = ledger.run(LAST, 1.0)
    assert ledger.refresh() == [(LAST.to_user_string(), 1.0, run)]


def test_only_reports_that_are_not_in_the_ledger_are_read(ledger):
    """One of a run that is known is unreadable here, which nobody notices."""
    for key in (FIRST, LAST):
        ledger.run(key, 1.0)
    before = ledger.refresh()
    files = ledger.numbers()
    new = ledger.run(LAST, 2.0)
    for file in files:
        file.write_text("{")
    assert ledger.refresh() == sorted([*before, (LAST.to_user_string(), 2.0, new)])


def test_a_run_that_made_several_reports_is_known_by_each(ledger):
    first = ledger.run(FIRST, 1.0)
    ledger.refresh()
    (file,) = ledger.numbers()
    other = ledger.storage.joinpath("reports", *LAST.path, first, NUMBERS)
    other.parent.mkdir(parents=True)
    other.write_text(file.read_text().replace(FIRST.to_user_string(), LAST.to_user_string()))
    assert [report for report, *_ in ledger.refresh()] == sorted([FIRST.to_user_string(), LAST.to_user_string()])


def test_a_ledger_that_was_deleted_is_made_of_what_is_kept(ledger):
    for number in range(5):
        ledger.run(FIRST, number)
        ledger.refresh()
    assert len(ledger.rows()) == 5
    folder = Path(ledger.delta.location(MODEL_LEDGER))
    folder.rename(folder.with_name("gone"))
    assert [value for _, value, _ in ledger.refresh()] == [2, 3, 4]
