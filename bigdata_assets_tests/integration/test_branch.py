"""A branch and a topic of somebody's own, in the lines that this file has before its tests: no other one is edited."""

from pathlib import Path

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql.types import LongType

from bigdata_assets.branch import Branch
from bigdata_assets.catalogue import table_asset
from bigdata_assets.definitions import BRANCHES, available_partitions
from bigdata_assets.reports import Evaluation, Report
from bigdata_assets.resources.kafka import KafkaResource
from bigdata_assets.runtime import REFRESHED_BY_INPUT
from bigdata_assets.streams.stream import Stream
from bigdata_assets.streams.tables import OFFSET, batched_table, messages_table
from bigdata_assets.tables import Column, Table
from bigdata_assets.tracing.tracing import traced
from bigdata_assets_tests.conftest import Engines
from bigdata_assets_tests.integration.conftest import Project

pytestmark = pytest.mark.integration

N = Column("n", LongType(), "A number.", check="n >= 0")
SQUARES = Table("toy", "squares", "One row per number from 0 to 9.", (N, Column("square", LongType(), "Its square.")))
RECEIVED = messages_table("toy", "received")
NUMBERS = batched_table("toy", "numbers", "One row per message of a batch: the number that it is.", *OFFSET, N)
BATCHES = dg.DynamicPartitionsDefinition(name="toy_batches")
STREAM = Stream("toys", BATCHES, RECEIVED, read=NUMBERS.key, last=NUMBERS.key, job="read_toys", sensor="new_toys")


@dg.asset(**table_asset(SQUARES, "1", kinds=["pandas"]))
def squares() -> pd.DataFrame:
    return pd.DataFrame({"n": range(10)}).assign(square=lambda rows: rows["n"] ** 2)


@dg.asset(
    key_prefix="toy",
    group_name="toy",
    owners=["team:toy"],
    description="What the squares of the numbers from 0 to 9 are on average.",
    kinds={"pandas"},
    code_version="1",
    io_manager_key="report",
    automation_condition=REFRESHED_BY_INPUT,
)
def squares_report(squares: pd.DataFrame) -> Report:
    mean = float(squares["square"].mean())
    return Report("Squares", "What they are.", evaluations=(Evaluation("mean", "all", "value", mean, "nothing", 0.0),))


@dg.asset(
    **table_asset(NUMBERS, "1", kinds=["pandas"]), partitions_def=BATCHES, ins={"received": dg.AssetIn(RECEIVED.key)}
)
def numbers(received: pa.Table) -> pd.DataFrame:
    rows = received.to_pandas()
    return rows[["batch", "kafka_partition", "kafka_offset"]].assign(n=rows["value"].map(int))


TOY = Branch(
    name="toy",
    tables=[SQUARES, RECEIVED, NUMBERS],
    assets=[squares, squares_report, numbers],
    streams=[STREAM],
    evaluations=[squares_report.key],
)


@pytest.fixture
def toy(engines: Engines, tmp_path: Path, topic: str) -> Project:
    own = engines.settings.model_copy(update={"topics": {"toys": topic}, "batch_rows": 2, "batches_per_run": 3})
    return Project(tmp_path, own, branches=[*BRANCHES, TOY])


def test_its_table_and_report_are_stored_and_its_figures_are_in_the_ledger(toy: Project) -> None:
    ledger, page = (dg.AssetKey(["models", name]) for name in ("model_ledger", "model_page"))
    toy.execute([SQUARES.key, squares_report.key, ledger, page], ())
    assert toy.table("squares", branch="toy")["square"].tolist() == [n**2 for n in range(10)]
    assert toy.table("model_ledger", branch="models")[["branch", "model", "value"]].to_numpy().tolist() == [
        ["toy", "mean", 28.5]
    ]
    with toy.instance() as instance:
        assert all(instance.get_latest_materialization_event(key) is not None for key in (ledger, page))
        checked = toy.defs.resolve_asset_graph().get_check_keys_for_assets({SQUARES.key})
        assert [check.name for check in checked] == ["schema"]


def test_its_rows_are_traced_to_their_run_although_it_declares_no_lineage(
    toy: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    run = toy.execute([SQUARES.key], ())
    traced(toy.settings, TOY, SQUARES, "square = 49", 5).echo()
    told = capsys.readouterr()
    assert f"made by                run {run.run_id}" in told.out
    assert "the branch toy declares no lineage" in told.err


def test_its_messages_become_batches_by_its_sensor_and_the_job_of_its_topic(
    toy: Project, kafka: KafkaResource, topic: str
) -> None:
    with kafka.producer() as producer:
        for number in range(8):
            producer.send(topic, str(number * 11).encode(), b"k", partition=0)
    sensor = toy.defs.resolve_sensor_def(STREAM.sensor)
    with toy.instance() as instance:
        for n_batches in (3, 1):  # BATCHES_PER_RUN, and what is left
            resources = {name: (toy.defs.resources or {})[name] for name in ("settings", "kafka")}
            (request,) = sensor(dg.build_sensor_context(instance=instance, resources=resources)).run_requests
            tags = dict(request.tags) | ({"dagster/partition": request.partition_key} if request.partition_key else {})
            job = toy.defs.resolve_job_def(STREAM.job)
            done = job.execute_in_process(instance=instance, tags=tags)
            assert len(done.asset_materializations_for_node("toy__numbers")) == n_batches
        assert toy.table("numbers", branch="toy")["n"].tolist() == [number * 11 for number in range(8)]
        with kafka.producer() as producer:
            producer.send(topic, b"99", b"k", partition=0)
        found = available_partitions(toy.defs.resources or {}, instance, [NUMBERS.key], [TOY])
        assert len(found[BATCHES]) == 5, "without the sensor too"
