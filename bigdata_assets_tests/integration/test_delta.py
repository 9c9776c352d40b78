"""The Delta IO manager on a real Spark Connect server."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from pyspark.sql import DataFrame, functions
from pyspark.sql import types as T

from bigdata_assets.catalogue import schema_check, table_asset
from bigdata_assets.io_managers.delta import (
    DeltaIOManager,
    DeltaTableError,
    commits,
    delta_io_manager,
    first_rows,
    spark_schema,
)
from bigdata_assets.io_managers.staging import FILES, StagedFiles
from bigdata_assets.resources.spark import SparkResource, SparkUnreachableError
from bigdata_assets.services.supervisor import free_port
from bigdata_assets.settings import Settings
from bigdata_assets.tables import Column, Table
from bigdata_assets_tests.conftest import Engines, wait_for
from bigdata_assets_tests.drills import Drill

pytestmark = pytest.mark.integration

PARTS = dg.DynamicPartitionsDefinition(name="parts")
ROWS = Table(
    "toy",
    "rows",
    "O'Brien's `rows`.",
    (
        Column("part", T.StringType(), "The partition's key."),
        Column("n", T.LongType(), "It's a count.", check="n >= 0"),
        Column("text", T.StringType(), "Any text.", nullable=True),
    ),
    partition_column="part",
)
LOOSE = Table("toy", "loose", "The same, files not kept apart.", ROWS.columns, "part", partitioned_files=False)
TYPES = (
    *(T.StringType(), T.BinaryType(), T.BooleanType(), T.IntegerType(), T.LongType(), T.ShortType(), T.FloatType()),
    *(T.DoubleType(), T.DateType(), T.TimestampType(), T.DecimalType(12, 3), T.ArrayType(T.FloatType())),
    T.StructType([T.StructField("a", T.LongType()), T.StructField("b", T.StringType())]),
    T.MapType(T.StringType(), T.DoubleType()),
)
EVERY_TYPE = Table(
    "toy",
    "every_type",
    "One column of each type that a table may have.",
    tuple(Column(f"c_{type_.typeName()}", type_, "A value.", nullable=True) for type_ in TYPES),
)
VALUES: dict[str, Any] = {
    "c_string": "naïve «text» \n, \"quoted\" 'and' `more` \\ 🐈",
    "c_binary": b"\x00\xff",
    "c_boolean": True,
    "c_integer": -(2**31),
    "c_long": 2**63 - 1,
    "c_short": -5,
    "c_float": 0.5,
    "c_double": 1e-300,
    "c_date": date(1999, 12, 31),
    "c_timestamp": datetime(2026, 3, 29, 1, 30, 0, 123456, UTC),
    "c_decimal": Decimal("123456789.125"),
    "c_array": [0.5, -1.0],
    "c_struct": {"a": 1, "b": "x"},
    "c_map": [("k", 2.5)],
}


@pytest.fixture
def resource(spark_server: Settings) -> Iterator[SparkResource]:
    resource = SparkResource(remote=spark_server.spark_remote)
    yield resource
    resource.stop()


@pytest.fixture
def manager(resource: SparkResource, tmp_path: Path) -> DeltaIOManager:
    return DeltaIOManager(str(tmp_path / "store é"), resource, [ROWS, LOOSE, EVERY_TYPE])


def frame(part: str, *numbers: int, text: str | None = None) -> pd.DataFrame:
    return pd.DataFrame({"part": part, "n": list(numbers), "text": text})


def stored(manager: DeltaIOManager, table: Table = ROWS) -> list[tuple[str, int]]:
    rows = manager.stored(table).to_pyarrow_table().to_pylist()
    return sorted((row["part"], row["n"]) for row in rows)


class BySpark(DeltaIOManager):
    """Writes as a Spark frame what a test gives as pandas: both writers must keep the same promises."""

    def write(self, table: Table, obj: Any, keys: Any, run_id: str) -> tuple[int, int, int]:
        if isinstance(obj, pd.DataFrame) and set(obj) == {"part", "n", "text"} and obj["n"].dtype != object:
            nullable = T.StructType([T.StructField(f.name, f.dataType) for f in table.spark_schema])
            obj = self.spark.createDataFrame(commits.arrow_table(table, obj), nullable)
        return super().write(table, obj, keys, run_id)


class ByStaging(DeltaIOManager):
    """Stages as a worker would what a test gives in memory, where a file holds one partition."""

    def write(self, table: Table, obj: Any, keys: Any, run_id: str) -> tuple[int, int, int]:
        if table is ROWS and isinstance(obj, pd.DataFrame) and (obj.empty or obj["n"].dtype != object):
            obj = staged(self, table, *((key, commits.arrow_table(table, rows)) for key, rows in obj.groupby("part")))
        return super().write(table, obj, keys, run_id)


def staged(manager: DeltaIOManager, table: Table, *partitions: tuple[Any, pa.Table]) -> StagedFiles:
    staging = manager.staging(table)
    files = [file for key, rows in partitions for file in staging.write(rows.to_batches(), key)]
    return StagedFiles(pa.Table.from_pylist(files, schema=FILES))


@pytest.fixture(params=[DeltaIOManager, BySpark, ByStaging], ids=["deltalake", "spark", "staging"])
def either(request: pytest.FixtureRequest, manager: DeltaIOManager) -> DeltaIOManager:
    """A manager for each of the ways to write."""
    kind: type[DeltaIOManager] = request.param
    return kind(manager.storage, manager._spark, manager._tables.values())


class TestTablesThatAnotherEngineTouched:
    @pytest.fixture(params=[ROWS, LOOSE], ids=["apart", "loose"])
    def table(self, request: pytest.FixtureRequest, manager: DeltaIOManager) -> Table:
        table: Table = request.param
        manager.write(table, pd.concat([frame("a", 1, 2, 3, text="x"), frame("b", 4, 5)]), ["a", "b"], "run")
        return table

    @staticmethod
    def alter(manager: DeltaIOManager, table: Table, *statements: str) -> None:
        for sql in statements:
            manager.spark.sql(sql.replace("THE_TABLE", f"delta.`{manager.location(table)}`"))

    @staticmethod
    def by_spark(manager: DeltaIOManager, table: Table) -> list[tuple[str, int]]:
        return sorted((row["part"], row["n"]) for row in manager.read(table).collect())

    def test_deletion_vectors_are_read_and_written(self, manager: DeltaIOManager, table: Table) -> None:
        self.alter(
            manager,
            table,
            "ALTER TABLE THE_TABLE SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')",
            "DELETE FROM THE_TABLE WHERE n IN (2, 5)",
        )
        assert pa.table(manager.stored(table).deletion_vectors()).num_rows > 0
        left = [("a", 1), ("a", 3), ("b", 4)]
        rows = manager.read_arrow(table, columns=["n", "part"])
        assert sorted(zip(rows["part"].to_pylist(), rows["n"].to_pylist(), strict=True)) == left
        assert manager.read_arrow(table, ["a"], ["n"], pc.field("n") > 1)["n"].to_pylist() == [3]
        assert manager.rows_by_partition(table) == {"a": 2, "b": 1}
        assert manager.query(table, "SELECT sum(n) AS n FROM stored", ["a"])["n"].to_pylist() == [4]
        assert first_rows(manager.stored(table), 2).num_rows == 2
        manager.write(table, frame("b", 6), ["b"], "run")
        assert self.by_spark(manager, table) == [("a", 1), ("a", 3), ("b", 6)]
        manager.write(table, frame("c", 7), ["c"], "run")
        manager.compact(table)
        assert self.by_spark(manager, table) == [("a", 1), ("a", 3), ("b", 6), ("c", 7)]
        assert manager.rows_by_partition(table) == {"a": 2, "b": 1, "c": 1}

    def test_mapped_columns_are_read_by_their_names_and_not_written(
        self, manager: DeltaIOManager, table: Table
    ) -> None:
        mapping = "'delta.columnMapping.mode' = 'name', 'delta.minReaderVersion' = '2', 'delta.minWriterVersion' = '5'"
        self.alter(
            manager,
            table,
            f"ALTER TABLE THE_TABLE SET TBLPROPERTIES ({mapping})",
            "ALTER TABLE THE_TABLE DROP COLUMN text",
            "ALTER TABLE THE_TABLE ADD COLUMN text STRING",  # its files have another column of that name
        )
        assert manager.read_arrow(table, ["a"], ["n", "text"]).sort_by("n").to_pylist() == [
            {"n": n, "text": None} for n in (1, 2, 3)
        ]
        assert manager.rows_by_partition(table) == {"a": 3, "b": 2}
        before = set(Path(manager.location(table)).rglob("*"))
        for write in (
            lambda: manager.write(table, frame("a", 9), ["a"], "run"),
            lambda: manager.write(table, manager.spark.table(f"delta.`{manager.location(table)}`"), ["a"], "run"),
            lambda: manager.compact(table),
        ):
            with pytest.raises(
                DeltaTableError,
                match=r"has the Delta features columnMapping, .* nothing was written\. In Spark: ALTER TABLE delta.*"
                r"SET TBLPROPERTIES \('delta.columnMapping.mode' = 'none'\); ALTER TABLE .* DROP FEATURE columnMapping",
            ):
                write()
        assert set(Path(manager.location(table)).rglob("*")) == before

    @pytest.mark.parametrize(
        ("feature", "properties"),
        [
            ("appendOnly", "'delta.appendOnly' = 'true'"),
            ("inCommitTimestamp", "'delta.enableInCommitTimestamps' = 'true'"),
            ("domainMetadata", "'delta.feature.domainMetadata' = 'supported'"),
        ],
    )
    def test_what_is_not_written_is_named_and_the_way_back_is_one(
        self, manager: DeltaIOManager, feature: str, properties: str
    ) -> None:
        manager.write(ROWS, frame("a", 1), ["a"], "run")
        self.alter(manager, ROWS, f"ALTER TABLE THE_TABLE SET TBLPROPERTIES ({properties})")
        assert manager.read_arrow(ROWS)["n"].to_pylist() == [1]
        with pytest.raises(DeltaTableError, match=rf"has the Delta features {feature}, which") as refusal:
            manager.write(ROWS, frame("a", 2), ["a"], "run")
        told = str(refusal.value).split("In Spark: ")[1].split(". Where")[0]
        self.alter(manager, ROWS, *told.split("; "))
        manager.write(ROWS, frame("a", 2), ["a"], "run")
        assert self.by_spark(manager, ROWS) == [("a", 2)]

    def test_what_is_read_by_spark_alone_is_named(self, manager: DeltaIOManager) -> None:
        manager.write(ROWS, frame("a", 1), ["a"], "run")
        self.alter(manager, ROWS, "ALTER TABLE THE_TABLE SET TBLPROPERTIES ('delta.enableTypeWidening' = 'true')")
        assert self.by_spark(manager, ROWS) == [("a", 1)]
        message = "has the Delta features typeWidening, which .* not read here.* DROP FEATURE typeWidening"
        for read in (
            lambda: manager.read_arrow(ROWS),
            lambda: manager.query(ROWS, "SELECT n FROM stored"),
            lambda: first_rows(manager.stored(ROWS), 1),
        ):
            with pytest.raises(DeltaTableError, match=message):
                read()

    @pytest.mark.parametrize(
        "protocol",
        [
            {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["new"], "writerFeatures": ["new"]},
            {"minReaderVersion": 4, "minWriterVersion": 8},
        ],
    )
    def test_a_newer_protocol_is_named(self, manager: DeltaIOManager, protocol: dict[str, Any]) -> None:
        manager.write(ROWS, frame("a", 1), ["a"], "run")
        log = Path(manager.location(ROWS)) / "_delta_log"
        (log / f"{manager.version(ROWS) + 1:020}.json").write_text(json.dumps({"protocol": protocol}))
        for use in (lambda: manager.read(ROWS), lambda: manager.write(ROWS, frame("a", 2), ["a"], "run")):
            with pytest.raises(DeltaTableError, match=r"newer Delta protocol than is known here \(.*DROP FEATURE"):
                use()


class TestWriting:
    @pytest.fixture
    def manager(self, either: DeltaIOManager) -> DeltaIOManager:
        return either

    def test_a_partition_is_replaced_and_the_others_stay(self, manager: DeltaIOManager) -> None:
        manager.write(ROWS, pd.concat([frame("a", 1, 2), frame("b", 3)]), ["a", "b"], "run")
        manager.write(ROWS, frame("a", 9), ["a"], "run")
        assert stored(manager) == [("a", 9), ("b", 3)]
        manager.write(ROWS, frame("a", 9), ["a"], "run")
        assert stored(manager) == [("a", 9), ("b", 3)]

    def test_no_rows_empty_a_partition(self, manager: DeltaIOManager) -> None:
        manager.write(ROWS, pd.concat([frame("a", 1), frame("b", 3)]), ["a", "b"], "run")
        manager.write(ROWS, frame("a"), ["a"], "run")
        assert stored(manager) == [("b", 3)]
        # Nothing to remove and nothing to add.
        assert manager.write(ROWS, frame("a"), ["a"], "run")[1:] == (0, 0)
        assert stored(manager) == [("b", 3)]

    def test_what_a_commit_added_is_told(self, manager: DeltaIOManager) -> None:
        manager.write(ROWS, frame("a", 1), ["a"], "run")
        version, rows, n_bytes = manager.write(ROWS, frame("b", 1, 2, 3), ["b"], "run")
        files = Path(manager.location(ROWS)).rglob("part=b/*.parquet")
        assert (version, rows, n_bytes) == (2, 3, sum(file.stat().st_size for file in files))

    def test_joined_files_hold_the_same_rows_and_the_log_is_read_from_there(self, manager: DeltaIOManager) -> None:
        for n in range(5):
            manager.write(LOOSE, frame(f"k{n}", n), [f"k{n}"], "run")
        assert manager.compact(LOOSE)["files joined"] == 5
        manager.write(LOOSE, frame("k0", 9), ["k0"], "run")
        rows = manager.read(LOOSE).orderBy("part").toPandas()
        assert list(rows["n"]) == [9, 1, 2, 3, 4]
        assert list((Path(manager.location(LOOSE)) / "_delta_log").glob("*.checkpoint.parquet"))

    def test_any_partition_key_works(self, manager: DeltaIOManager) -> None:
        keys = ["it's", 'a"b', "a`b", "a\\b", "a,b", "a=b/c d", "ä ☃", "%2F", "__x", "null", "a.parquet"]
        everything = pd.concat([frame(key, 1) for key in [*keys, "other"]])
        manager.write(ROWS, everything, [*keys, "other"], "run")
        manager.write(ROWS, everything[everything["part"] != "other"].assign(n=3), keys, "run")
        assert stored(manager) == sorted([*((key, 3) for key in keys), ("other", 1)])
        assert manager.read(ROWS, keys).count() == len(keys)
        assert manager.read_arrow(ROWS, keys).num_rows == len(keys)

    def test_a_row_of_another_partition_is_refused_and_nothing_is_written(self, manager: DeltaIOManager) -> None:
        manager.write(ROWS, frame("a", 1), ["a"], "run")
        with pytest.raises(DeltaTableError, match="rows refused, nothing was written"):
            manager.write(ROWS, pd.concat([frame("a", 2), frame("b", 3)]), ["a"], "run")
        assert stored(manager) == [("a", 1)]

    def test_a_constraint_holds(self, manager: DeltaIOManager) -> None:
        with pytest.raises(
            DeltaTableError, match=r"toy/rows: rows refused, nothing was written.*(constraint|validation)"
        ):
            manager.write(ROWS, frame("a", 1, -1), ["a"], "run")
        assert stored(manager) == []

    def test_a_null_where_none_may_be_is_refused(self, manager: DeltaIOManager) -> None:
        bad = pd.DataFrame({"part": ["a"], "n": pd.array([None], "Int64"), "text": ["x"]})
        with pytest.raises(DeltaTableError, match=r"refused.*n"):
            manager.write(ROWS, bad, ["a"], "run")

    def test_a_table_that_was_declared_otherwise_is_not_written_to(self, manager: DeltaIOManager) -> None:
        manager.write(ROWS, frame("a", 1), ["a"], "run")
        changed = Table("toy", "rows", "Rows.", (*ROWS.columns, Column("more", T.LongType(), "More.")), "part")
        with pytest.raises(DeltaTableError, match=r"other columns than tables.py declares: column `more`"):
            manager.write(changed, frame("a", 1).assign(more=2), ["a"], "run")
        assert stored(manager) == [("a", 1)]

    def test_a_nullable_column_that_was_declared_later_is_added_and_what_was_stored_has_none(
        self, manager: DeltaIOManager
    ) -> None:
        manager.write(ROWS, frame("a", 1), ["a"], "run")
        more = Column("more", T.LongType(), "More.", nullable=True, check="more > 0")
        longer = Table("toy", "rows", "Rows.", (*ROWS.columns, more), "part")

        def found() -> list[tuple[int, int | None]]:
            rows = manager.read_arrow(longer).select(["n", "more"]).to_pylist()
            by_spark = manager.read(longer).select("n", "more").collect()
            assert sorted(map(tuple, by_spark)) == sorted((row["n"], row["more"]) for row in rows)
            return sorted((row["n"], row["more"]) for row in rows)

        assert found() == [(1, None)]
        manager.write(longer, frame("b", 2).assign(more=pd.array([7], "Int64")), ["b"], "run")
        assert found() == [(1, None), (2, 7)]
        assert stored(manager) == [("a", 1), ("b", 2)], "a declaration of before reads on"
        with pytest.raises(DeltaTableError, match="rows refused"):
            manager.write(longer, frame("c", 3).assign(more=pd.array([0], "Int64")), ["c"], "run")

    def test_a_condition_that_was_declared_anew_holds_from_then_on(self, manager: DeltaIOManager) -> None:
        manager.write(ROWS, frame("a", 1), ["a"], "run")
        columns = tuple(replace(c, check="n >= -1") if c.name == "n" else c for c in ROWS.columns)
        wider = Table("toy", "rows", "Rows.", columns, "part")
        manager.write(wider, frame("b", -1), ["b"], "run")
        assert stored(manager) == [("a", 1), ("b", -1)]
        with pytest.raises(DeltaTableError, match="rows refused"):
            manager.write(wider, frame("b", -2), ["b"], "run")
        assert manager.stored(wider).version() == 3, "declared, written, declared anew, written"


class TestDeclaration:
    """What is the same whoever writes."""

    @pytest.mark.parametrize("kind", ["spark", "pandas", "arrow", "staged"])
    def test_every_type_comes_back_as_it_was(self, manager: DeltaIOManager, kind: str) -> None:
        rows = pa.Table.from_pylist([VALUES, dict.fromkeys(VALUES)], schema=EVERY_TYPE.arrow_schema)
        given = {
            "spark": lambda: manager.spark.createDataFrame(rows, EVERY_TYPE.spark_schema),
            "pandas": lambda: rows.to_pandas(types_mapper=pd.ArrowDtype),
            "arrow": lambda: rows,
            "staged": lambda: staged(manager, EVERY_TYPE, (None, rows)),
        }[kind]()
        manager.write(EVERY_TYPE, given, None, "run")
        back = manager.read_arrow(EVERY_TYPE)
        assert back.schema == EVERY_TYPE.arrow_schema
        assert back.sort_by("c_string").to_pylist() == rows.sort_by("c_string").to_pylist()
        (through_spark,) = manager.read(EVERY_TYPE).where("c_string IS NOT NULL").toArrow().to_pylist()
        assert {name: through_spark[name] for name in VALUES} == VALUES

    def test_wrong_columns_and_types_are_named_before_anything_is_written(self, manager: DeltaIOManager) -> None:
        good = manager.spark.createDataFrame([("a", 1, "x")], ROWS.spark_schema)
        with pytest.raises(DeltaTableError, match=r"column `text` .string. is missing"):
            manager.write(ROWS, good.drop("text"), ["a"], "run")
        with pytest.raises(DeltaTableError, match=r"column `more` .int. is not declared"):
            manager.write(ROWS, good.selectExpr("*", "1 AS more"), ["a"], "run")
        with pytest.raises(DeltaTableError, match="column `n` is string, declared bigint"):
            manager.write(ROWS, good.withColumn("n", good["n"].cast("string")), ["a"], "run")
        with pytest.raises(DeltaTableError, match=r"undeclared ones .'more'"):
            manager.write(ROWS, frame("a", 1).assign(more=1), ["a"], "run")
        with pytest.raises(DeltaTableError, match="cannot be stored as declared"):
            manager.write(ROWS, frame("a", 1).assign(n="many"), ["a"], "run")
        with pytest.raises(DeltaTableError, match="not list"):
            manager.write(ROWS, [1], ["a"], "run")  # type: ignore[arg-type]
        with pytest.raises(DeltaTableError, match="holds nothing yet"):
            manager.version(ROWS)

    def test_the_declaration_is_in_the_table(self, manager: DeltaIOManager) -> None:
        manager.create(ROWS)
        metadata = manager.stored(ROWS).metadata()
        assert metadata.description == "O'Brien's `rows`."
        assert metadata.partition_columns == ["part"]
        assert metadata.configuration["delta.constraints.n_valid"] == "n >= 0"
        assert spark_schema(manager.stored(ROWS))["n"].metadata["comment"] == "It's a count."
        assert not spark_schema(manager.stored(ROWS))["n"].nullable


class TestReading:
    @pytest.mark.parametrize("table", [ROWS, LOOSE], ids=lambda table: table.name)
    def test_a_declared_table_that_is_not_there_is_empty_and_is_not_made(
        self, manager: DeltaIOManager, table: Table
    ) -> None:
        assert manager.read_arrow(table).schema == table.arrow_schema
        assert manager.read_arrow(table, ["a"], ["n"], pc.field("n") > 0).to_pydict() == {"n": []}
        assert manager.read_arrow(table, []).schema == table.arrow_schema
        assert manager.rows_by_partition(table, ["a"]) == {}
        assert manager.query(table, "SELECT count(*) AS rows FROM stored", ["a"]).to_pylist() == [{"rows": 0}]
        for frame in (manager.read(table), manager.read(table, ["a"])):
            assert (frame.count(), table.difference(frame.schema)) == (0, [])
        assert not Path(manager.storage).exists()

    def test_an_input_that_is_not_there_is_an_error(self, manager: DeltaIOManager) -> None:
        for kind in (pd.DataFrame, pa.Table, DataFrame):
            wanted = dg.build_input_context(asset_key=ROWS.key, dagster_type=dg.PythonObjectDagsterType(kind))
            with pytest.raises(DeltaTableError, match="toy/rows holds nothing yet at"):
                manager.load_input(wanted)

    def test_a_scalar_python_udf_over_a_stored_table_ends(self, manager: DeltaIOManager) -> None:
        manager.write(ROWS, frame("a", 1, 2), ["a"], "run")
        doubled = functions.udf(lambda n: 2 * n, T.LongType())
        answer: list[int] = []
        rows = manager.read(ROWS).select(doubled("n").alias("n"))
        # SPARK-58241: in a thread, or its failure would stop all tests.
        thread = threading.Thread(target=lambda: answer.extend(row["n"] for row in rows.collect()), daemon=True)
        thread.start()
        thread.join(60)
        if thread.is_alive():
            manager.spark.interruptAll()
        assert sorted(answer) == [2, 4]


class TestConcurrency:
    @pytest.fixture
    def manager(self, either: DeltaIOManager) -> DeltaIOManager:
        return either

    @staticmethod
    def _write_at_once(
        manager: DeltaIOManager, settings: Settings, storage: str, jobs: list[tuple[Table, pd.DataFrame, str]]
    ) -> list[Exception]:
        """Each job from a session and a thread of its own, all at the same moment."""
        barrier, errors = threading.Barrier(len(jobs)), []

        def write(table: Table, rows: pd.DataFrame, key: str) -> None:
            resource = SparkResource(remote=settings.spark_remote)
            try:
                writer = type(manager)(storage, resource, [table])
                if isinstance(writer, BySpark):
                    _ = writer.spark  # the others need none
                barrier.wait(60)
                writer.write(table, rows, [key], "run")
            except Exception as error:  # noqa: BLE001
                errors.append(error)
            finally:
                resource.stop()

        threads = [threading.Thread(target=write, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(180)
        return errors

    def test_first_writers_of_one_table_lose_nothing(self, spark_server: Settings, manager: DeltaIOManager) -> None:
        for attempt in range(3):
            storage = f"{manager.storage}/{attempt}"
            jobs = [(ROWS, frame(f"p{i}", i), f"p{i}") for i in range(5)]
            assert self._write_at_once(manager, spark_server, storage, jobs) == []
            written = DeltaIOManager(storage, manager._spark, [ROWS])
            assert stored(written) == [(f"p{i}", i) for i in range(5)]
            assert written.version(ROWS) == len(jobs), "the declaration was committed more than once"

    def test_the_declaration_is_committed_by_one_of_many_first_writers(self, tmp_path: Path) -> None:
        for attempt in range(20):
            managers = [DeltaIOManager(f"{tmp_path}/{attempt}", SparkResource(remote=""), [ROWS]) for _ in range(6)]
            with ThreadPoolExecutor(len(managers)) as pool:
                list(pool.map(lambda manager: manager.create(ROWS), managers))
            assert managers[0].version(ROWS) == 0

    @pytest.mark.parametrize("table", [LOOSE, ROWS], ids=lambda table: table.name)
    def test_two_writers_of_one_partition_leave_the_rows_of_one(
        self, spark_server: Settings, manager: DeltaIOManager, table: Table
    ) -> None:
        manager.create(table)
        jobs = [(table, frame("a", *range(10 * i, 10 * i + 5)), "a") for i in range(4)]
        assert self._write_at_once(manager, spark_server, manager.storage, jobs) == []
        rows = stored(manager, table)
        assert rows in [[("a", n) for n in range(10 * i, 10 * i + 5)] for i in range(4)]

    def test_a_conflict_that_does_not_end_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(commits, "MAX_ATTEMPTS", 2)

        def conflicting() -> None:
            raise CommitFailedError("files were added")

        with pytest.raises(DeltaTableError, match="another writer changed the same rows 2 times"):
            commits.with_retry(conflicting, "toy/rows")

    def test_another_error_is_not_tried_again(self) -> None:
        tried = []

        def failing() -> None:
            tried.append(1)
            raise RuntimeError("[TABLE_OR_VIEW_NOT_FOUND] no")

        with pytest.raises(RuntimeError, match="NOT_FOUND"):
            commits.with_retry(failing, "toy/rows")
        assert tried == [1]


class TestCommits:
    @pytest.mark.parametrize("kind", [BySpark, ByStaging, DeltaIOManager])
    def test_a_write_whose_commit_is_there_is_never_undone(
        self, manager: DeltaIOManager, monkeypatch: pytest.MonkeyPatch, kind: type[DeltaIOManager]
    ) -> None:
        writer = kind(manager.storage, manager._spark, [ROWS])
        monkeypatch.setattr(kind, "_find_commit", _failing)
        with pytest.raises(OSError, match="the log cannot be read"):
            writer.write(ROWS, frame("a", 1), ["a"], "run")
        assert stored(manager) == [("a", 1)]
        assert [row["n"] for row in manager.read(ROWS).collect()] == [1]

    def test_a_commit_that_was_refused_and_is_there_all_the_same_is_not_made_again(
        self, manager: DeltaIOManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = staged(manager, ROWS, ("a", commits.arrow_table(ROWS, frame("a", 2))))
        commit = DeltaTable.create_write_transaction

        def lose_the_answer(stored: DeltaTable, *arguments: Any, **options: Any) -> None:
            commit(stored, *arguments, **options)
            raise CommitFailedError("no answer")

        monkeypatch.setattr(DeltaTable, "create_write_transaction", lose_the_answer)
        assert manager.write(ROWS, files, ["a"], "run")[:2] == (1, 1)
        assert [row["n"] for row in manager.read(ROWS).collect()] == [2]

    @pytest.mark.drill
    def test_no_commit_that_was_acknowledged_is_lost(self, manager: DeltaIOManager, drill: Drill) -> None:
        """Frames of Spark's, frames in memory from two processes, and files being joined all the while."""
        commits = drill.pick("commits", short=200, full=2_000)
        acknowledged, joined = race(manager, one=commits * 9 // 20, two=commits * 9 // 20, spark=commits // 10)
        drill.figures |= {"acknowledged": acknowledged, "lost": 0, "files joined meanwhile": joined}


def race(manager: DeltaIOManager, spark: int, **others: int) -> tuple[int, int]:
    """Commits to a new table of several processes at once, of which none may be lost; how many, and files joined.

    Args:
        manager: of the table.
        spark: frames of Spark's that this process has committed; after each fifth the table's files are joined.
        others: frames that each of the other processes commits as fast as it can; `plain` by deltalake alone.
    """
    manager.create(LOOSE)
    code = "import sys; from bigdata_assets_tests.integration import test_delta as t; t.append(*sys.argv[1:])"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, manager.storage, name, str(count)], text=True)
        for name, count in others.items()
    ]
    try:
        by_spark = BySpark(manager.storage, manager._spark, [LOOSE])
        joined = 0
        for number in range(spark):
            by_spark.write(LOOSE, frame(f"spark-{number}", number), [f"spark-{number}"], "run")
            if number % 5 == 0:
                joined += manager.compact(LOOSE)["files joined"]
        assert [process.wait(600) for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    by_each = {"spark": spark, **others}
    expected = [(f"{name}-{number}", number) for name, count in by_each.items() for number in range(count)]
    assert stored(manager, LOOSE) == sorted(expected)
    assert joined > 0
    return len(expected), joined


def _failing(*_: Any) -> None:
    raise OSError("the log cannot be read")


def append(storage: str, name: str, count: str) -> None:
    """A process that commits small frames as fast as it can; `plain`, as a program does that is not of this project."""
    manager = DeltaIOManager(storage, SparkResource(remote=""), [LOOSE])
    for number in range(int(count)):
        if name == "plain":
            rows = commits.arrow_table(LOOSE, frame(f"{name}-{number}", number))
            write_deltalake(manager.stored(LOOSE), rows, mode="append")
            continue
        manager.write(LOOSE, frame(f"{name}-{number}", number), [f"{name}-{number}"], "run")


class TestStaging:
    def test_what_was_never_committed_is_seen_by_nobody_and_removed_after_a_week(self, manager: DeltaIOManager) -> None:
        manager.write(ROWS, frame("a", 1), ["a"], "run")
        left = staged(manager, ROWS, ("a", commits.arrow_table(ROWS, frame("a", 2)))).files["file"].to_pylist()[0]
        path = Path(manager.location(ROWS)) / left
        manager.compact(ROWS)
        assert path.is_file(), "another writer may be about to commit it"
        assert stored(manager) == [("a", 1)]
        assert [row["n"] for row in manager.read(ROWS).collect()] == [1]
        os.utime(path, (time.time() - 8 * 86_400,) * 2)
        manager.compact(ROWS)
        assert not path.exists()
        assert stored(manager) == [("a", 1)]

    def test_another_writers_rows_in_an_empty_partition_are_replaced_too(
        self, manager: DeltaIOManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The moment that counts: between reading the log and the commit."""
        files = staged(manager, ROWS, ("a", commits.arrow_table(ROWS, frame("a", 2))))
        others = [frame("a", 1)]
        update = DeltaTable.update_incremental

        def update_and_be_overtaken(stored: DeltaTable) -> None:
            update(stored)
            if others:
                manager.write(ROWS, others.pop(), ["a"], "run")

        monkeypatch.setattr(DeltaTable, "update_incremental", update_and_be_overtaken)
        assert manager.write(ROWS, files, ["a"], "run")[1] == 1
        assert stored(manager) == [("a", 2)]

    def test_a_table_whose_files_hold_several_partitions_is_not_staged(self, manager: DeltaIOManager) -> None:
        with pytest.raises(DeltaTableError, match="several partitions"):
            manager.staging(LOOSE)


class TestKilled:
    def test_a_writer_killed_between_data_and_log_leaves_the_old_rows(
        self, engines: Engines, manager: DeltaIOManager, resource: SparkResource
    ) -> None:
        manager.write(ROWS, frame("a", 1, 2), ["a"], "run")
        folder = Path(manager.location(ROWS))
        before = set(folder.rglob("*.parquet"))

        def slow(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            import time

            for batch in batches:
                for value in batch.column(0).to_pylist():
                    if value:
                        time.sleep(600)  # a task that never ends: the commit cannot come before the kill
                    yield pa.record_batch([["a"], pa.array([100 + value]), ["x"]], names=["part", "n", "text"])

        rows = manager.spark.range(0, 2, 1, 2).mapInArrow(slow, "part string, n bigint, text string")
        errors: list[Exception] = []

        def write() -> None:
            try:
                manager.write(ROWS, rows, ["a"], "run")
            except Exception as error:  # noqa: BLE001
                errors.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        wait_for(lambda: set(folder.rglob("*.parquet")) - before, 180, "a data file without a commit")
        with engines.dead("spark-connect", engines.settings.spark_port):
            killed = time.monotonic()
            thread.join(60)
            assert not thread.is_alive(), "the client went on trying"
            assert time.monotonic() - killed < 40
        assert errors
        assert stored(manager) == [("a", 1), ("a", 2)]
        resource.stop()
        manager.write(ROWS, frame("a", 7), ["a"], "run")
        assert stored(manager) == [("a", 7)]

    @pytest.mark.parametrize("left", [[], [".00000000000000000000.json.c0ffee.tmp"]])
    def test_a_writer_killed_before_its_first_commit_is_not_in_the_way(
        self, manager: DeltaIOManager, left: list[str]
    ) -> None:
        log = Path(manager.location(ROWS)) / "_delta_log"
        log.mkdir(parents=True)
        for name in left:
            (log / name).touch()
        manager.write(ROWS, frame("a", 1), ["a"], "run")
        assert stored(manager) == [("a", 1)]
        assert manager.stored(ROWS).metadata().configuration["delta.constraints.n_valid"] == "n >= 0"

    def test_a_server_that_is_not_there_is_named_at_once(self) -> None:
        with pytest.raises(SparkUnreachableError, match="bigdata-assets services up"):
            _ = SparkResource(remote=f"sc://localhost:{free_port()}").spark_session


@dg.asset(**table_asset(ROWS, "1"), partitions_def=PARTS, backfill_policy=dg.BackfillPolicy.single_run())
def rows(context: dg.AssetExecutionContext) -> pd.DataFrame:
    return pd.concat([frame(key, *range(len(key))) for key in context.partition_keys])


@dg.asset(**table_asset(LOOSE, "1"), partitions_def=PARTS, backfill_policy=dg.BackfillPolicy.single_run())
def loose(rows: DataFrame) -> DataFrame:
    return rows


SUM = Table(
    "toy", "total", "The sum.", (Column("n", T.LongType(), "The sum."), Column("parts", T.LongType(), "Count."))
)
OLD = Table("toy", "old", "The first version.", (Column("n", T.LongType(), "The sum."),))


@dg.asset(**table_asset(SUM, "1"))
def total(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"n": [rows["n"].sum()], "parts": [rows["part"].nunique()]})


@dg.asset(**table_asset(OLD, "1"), ins={"rows": dg.AssetIn(metadata={"delta_version": 1})})
def old(rows: pa.Table) -> pd.DataFrame:
    return pd.DataFrame({"n": [sum(rows["n"].to_pylist())]})


class TestInDagster:
    TABLES = (ROWS, LOOSE, SUM, OLD)

    def _run(
        self, settings: Settings, storage: Path, instance: dg.DagsterInstance, assets: list[Any], *keys: str
    ) -> Any:
        tags = (
            {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
            if keys
            else {}
        )
        resources = {
            "spark": SparkResource(remote=settings.spark_remote),
            "delta": delta_io_manager(self.TABLES).configured({"storage": str(storage)}),
        }
        everything = [rows, loose, total, old, schema_check(ROWS)]
        return dg.materialize(
            everything, selection=assets, instance=instance, resources=resources, tags=tags, raise_on_error=False
        )

    @pytest.fixture
    def instance(self, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
        with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
            instance.add_dynamic_partitions("parts", ["a", "bb", "c'c", "dddd"])
            yield instance

    def test_a_range_reports_each_partitions_own_rows_and_both_ways_of_the_run(
        self, spark_server: Settings, instance: dg.DagsterInstance, tmp_path: Path
    ) -> None:
        result = self._run(spark_server, tmp_path / "s", instance, [rows, loose], "a", "dddd")
        for name in ("rows", "loose"):
            events = result.asset_materializations_for_node(f"toy__{name}")
            counts = {event.partition: event.metadata["dagster/partition_row_count"].value for event in events}
            assert counts == {"a": 1, "bb": 2, "c'c": 3, "dddd": 4}
            previews = {event.partition: len(event.metadata["preview"].records) for event in events}
            assert previews == counts
            (newest, *_) = DeltaTable(tmp_path / "s" / "toy" / name).history(1)
            assert json.loads(newest["userMetadata"])["run_id"] == result.run_id
            assert {event.metadata["delta_version"].value for event in events} == {newest["version"]}

    def test_downstream_reads_its_partitions_all_mapped_ones_or_a_named_version(
        self, spark_server: Settings, instance: dg.DagsterInstance, tmp_path: Path
    ) -> None:
        def only(asset: str) -> dict[str, Any]:
            return DeltaTable(tmp_path / "s" / "toy" / asset).to_pyarrow_table().to_pylist()

        self._run(spark_server, tmp_path / "s", instance, [rows], "a", "bb")
        self._run(spark_server, tmp_path / "s", instance, [rows], "c'c", "dddd")
        self._run(spark_server, tmp_path / "s", instance, [loose], "bb")
        assert {row["part"] for row in only("loose")} == {"bb"}
        self._run(spark_server, tmp_path / "s", instance, [total, old])
        assert only("total") == [{"n": 0 + 1 + 3 + 6, "parts": 4}]
        assert only("old") == [{"n": 0 + 1}]
        instance.delete_dynamic_partition("parts", "dddd")
        self._run(spark_server, tmp_path / "s", instance, [total])
        assert only("total") == [{"n": 0 + 1 + 3, "parts": 3}]

    def test_the_schema_check_finds_what_others_did_to_a_table(
        self, spark_server: Settings, instance: dg.DagsterInstance, tmp_path: Path, spark: Any
    ) -> None:
        result = self._run(spark_server, tmp_path / "s", instance, [rows], "a", "bb")
        assert result.success
        assert [evaluation.passed for evaluation in result.get_asset_check_evaluations()] == [True]
        spark.sql(f"ALTER TABLE delta.`{tmp_path / 's' / 'toy' / 'rows'}` DROP CONSTRAINT n_valid").collect()
        result = self._run(spark_server, tmp_path / "s", instance, [rows], "a", "bb")
        assert not result.success
        assert [evaluation.passed for evaluation in result.get_asset_check_evaluations()] == [False]
