"""The upkeep of all tables."""

from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from pyspark.sql import types as T

from bigdata_assets.definitions import BRANCHES, defs
from bigdata_assets.io_managers.delta import DeltaIOManager
from bigdata_assets.models.assets import ledger_branch
from bigdata_assets.resources.spark import SparkResource
from bigdata_assets.runs import maintenance
from bigdata_assets.tables import Column, Table

KEY, N = Column("part", T.StringType(), "The key."), Column("n", T.LongType(), "A number.")
FIRST, SECOND, THIRD, ABSENT = (
    Table("toy", name, "Rows.", (KEY, N), "part", partitioned_files=False)
    for name in ("first", "second", "third", "absent")
)
TABLES = (ABSENT, FIRST, SECOND, THIRD)


@pytest.fixture
def delta(tmp_path):
    delta = DeltaIOManager(str(tmp_path), SparkResource(remote=""), TABLES)
    for table in (FIRST, SECOND, THIRD):
        for key in "ab":
            delta.write(table, pd.DataFrame({"part": [key], "n": [1]}), [key], "run")
    return delta


def maintain(delta: DeltaIOManager) -> dg.ExecuteInProcessResult:
    job = dg.Definitions.merge(maintenance.definitions(TABLES), dg.Definitions(resources={"delta": delta}))
    return job.resolve_job_def("maintain_tables").execute_in_process(raise_on_error=False)


def files(delta: DeltaIOManager, table: Table) -> int:
    return len(delta.stored(table).file_uris())


def test_each_table_that_is_there_has_few_files_and_a_checkpoint(delta):
    assert maintain(delta).success
    for table in (FIRST, SECOND, THIRD):
        assert files(delta, table) == 1
        assert list((Path(delta.location(table)) / "_delta_log").glob("*.checkpoint.parquet"))
    assert not delta.exists(ABSENT)
    before = [delta.version(table) for table in (FIRST, SECOND, THIRD)]
    assert maintain(delta).success
    assert [delta.version(table) for table in (FIRST, SECOND, THIRD)] == before, "where nothing is to do nothing is"


def test_a_table_that_cannot_be_maintained_is_named_and_the_others_are_done(delta):
    broken = Path(delta.location(SECOND)) / "_delta_log"
    for commit in broken.glob("*.json"):
        commit.write_text("{")
    result = maintain(delta)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "not maintained: toy/second;" in failure.step_failure_data.error.message
    assert [files(delta, table) for table in (FIRST, THIRD)] == [1, 1]


@pytest.mark.parametrize("step", ["vacuum", "create_checkpoint"])
def test_where_another_writer_was_first_it_is_done_again(delta, monkeypatch, step):
    done, refused = getattr(DeltaTable, step), []

    def at_first_refused(stored, *arguments, **options):
        if not refused:
            refused.append(1)
            raise CommitFailedError("another writer was first")
        return done(stored, *arguments, **options)

    monkeypatch.setattr(DeltaTable, step, at_first_refused)
    assert maintain(delta).success
    assert refused
    assert files(delta, FIRST) == 1


def test_every_hour_all_tables_of_all_branches_are_maintained(tmp_path):
    schedule = defs.resolve_schedule_def("maintain_tables_hourly")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert schedule.cron_schedule == "30 * * * *"
    asked = []

    class Asked(DeltaIOManager):
        def exists(self, table):
            asked.append(table)
            return False

    resources = {"delta": Asked(str(tmp_path), SparkResource(remote=""), [])}
    job = defs.resolve_job_def("maintain_tables")
    assert job.graph.execute_in_process(resources=resources).success
    assert asked == [table for branch in (*BRANCHES, ledger_branch(BRANCHES)) for table in branch.tables]
