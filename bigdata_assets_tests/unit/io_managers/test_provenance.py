"""What models and reports say that they were made from, and what Dagster knows of versions."""

import json
from pathlib import Path

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import types as T

from bigdata_assets.catalogue import table_asset
from bigdata_assets.io_managers.delta import DeltaIOManager, delta_io_manager
from bigdata_assets.io_managers.model_card import CARD
from bigdata_assets.io_managers.report import NUMBERS, ReportIOManager
from bigdata_assets.io_managers.sklearn_model import SklearnModelIOManager, StoredModel, TrainedModel
from bigdata_assets.reports import Report
from bigdata_assets.resources.spark import SparkResource
from bigdata_assets.tables import Column, Table

N, PART = Column("n", T.LongType(), "A number."), Column("part", T.StringType(), "The partition's key.")
ROWS = Table("toy", "rows", "Rows.", (N,))
PARTED = Table("toy", "parted", "Rows by part.", (PART, N), partition_column="part")
PARTS = dg.StaticPartitionsDefinition(["a", "b"])


@dg.asset(**table_asset(ROWS, "1"))
def rows() -> pd.DataFrame:
    return pd.DataFrame({"n": [1, 2]})


@dg.asset(**table_asset(PARTED, "1"), partitions_def=PARTS, backfill_policy=dg.BackfillPolicy.single_run())
def parted(context: dg.AssetExecutionContext) -> pd.DataFrame:
    return pd.DataFrame({"part": context.partition_keys, "n": 1})


@dg.asset(key_prefix="toy", group_name="toy", io_manager_key="sklearn_model", code_version="1")
def model(rows: pd.DataFrame, parted: pa.Table) -> TrainedModel:
    return TrainedModel({"n": len(rows) + parted.num_rows}, ("x",))


@dg.asset(key_prefix="toy", group_name="toy", io_manager_key="report", code_version="1")
def report(rows: pa.Table, model: StoredModel) -> Report:
    return Report("t", model.version, provenance={"inputs": {"toy/by_itself": 7}, "more": rows.num_rows})


class Toy:
    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.storage, self.instance = folder / "storage", instance
        self.delta = DeltaIOManager(str(self.storage), SparkResource(remote=""), [ROWS, PARTED])

    def run(self, assets, keys=()):
        resources = {
            "delta": delta_io_manager([ROWS, PARTED]).configured({"storage": str(self.storage)}),
            "spark": SparkResource(remote=""),
            "sklearn_model": SklearnModelIOManager(storage=str(self.storage)),
            "report": ReportIOManager(storage=str(self.storage), url=""),
        }
        ends = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
        options = {"tags": dict(zip(ends, (keys[0], keys[-1]), strict=True)) if keys else {}}
        everything = [rows, parted, model, report]
        return dg.materialize(everything, selection=assets, instance=self.instance, resources=resources, **options)

    def stored(self, name: str, marker: str) -> dict:
        (path,) = [*self.storage.glob(f"toy/{name}/*/{marker}"), *self.storage.glob(f"reports/toy/{name}/*/{marker}")]
        return json.loads(path.read_bytes())

    def versions(self, asset) -> dict[str | None, str]:
        """What Dagster knows as the version of an asset or of its partitions."""
        records = self.instance.fetch_materializations(asset.key, limit=10).records
        return {r.partition_key: r.asset_materialization.tags["dagster/data_version"] for r in reversed(records)}


@pytest.fixture
def toy(tmp_path):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield Toy(tmp_path, instance)


def test_a_model_and_a_report_name_exactly_what_they_were_made_from(toy):
    toy.run([parted], keys=["a", "b"])
    toy.run([rows])
    toy.run([rows])
    toy.run([model, report])  # one process, as `materialize` has it: each step has its own inputs
    card = toy.stored("model", CARD)
    assert card["inputs"] == {"toy/rows": 2, "toy/parted": 1}
    provenance = toy.stored("report", NUMBERS)["provenance"]
    assert provenance == {"inputs": {"toy/rows": 2, "toy/model": card["version"], "toy/by_itself": 7}, "more": 2}
    (event,) = toy.instance.fetch_materializations(model.key, limit=1).records
    assert event.asset_materialization.metadata["input toy/parted delta_version"].value == 1


def test_what_was_read_is_named_also_where_it_is_newer_than_what_dagster_knows(toy):
    toy.run([parted], keys=["a"])
    toy.run([rows])
    toy.delta.write(ROWS, pd.DataFrame({"n": [3]}), None, "another run")
    toy.run([model])
    assert toy.stored("model", CARD)["inputs"] == {"toy/rows": 2, "toy/parted": 1}


def test_dagster_knows_the_delta_version_of_a_table_and_of_each_partition(toy):
    toy.run([rows])
    toy.run([rows])
    assert toy.versions(rows) == {None: "2"} == {None: str(toy.delta.version(ROWS))}
    toy.run([parted], keys=["a", "b"])
    assert toy.versions(parted) == {"a": "1", "b": "1"}
    toy.run([parted], keys=["b"])
    assert toy.versions(parted) == {"a": "1", "b": "2"}
    toy.run([model])
    assert toy.versions(model) == {None: toy.stored("model", CARD)["version"]}


def test_a_version_that_is_known_tells_what_is_stale(toy):
    toy.run([parted], keys=["a"])
    toy.run([rows, model])

    def read() -> str:
        (event,) = toy.instance.fetch_materializations(model.key, limit=1).records
        return event.asset_materialization.tags["dagster/input_data_version/toy/rows"]

    assert read() == toy.versions(rows)[None]
    toy.run([rows])
    assert read() != toy.versions(rows)[None]
    toy.run([model])
    assert read() == toy.versions(rows)[None]
