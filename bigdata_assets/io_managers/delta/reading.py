"""Delta tables as they are stored, read at one version: by Spark, into this process's memory, or by a query."""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyspark.sql import DataFrame, SparkSession, functions
from pyspark.sql.types import StructType

from bigdata_assets.io_managers.delta import protocol
from bigdata_assets.resources.spark import SparkResource
from bigdata_assets.storage import delta_place
from bigdata_assets.tables import Table


class DeltaTableError(RuntimeError):
    """A frame does not fit its table, or the table is not what is declared; the message says what to do."""


class DeltaReader:
    """Reads the declared tables below a storage folder or URL; the newest version of one that is not there is empty."""

    def __init__(self, storage: str, spark: SparkResource) -> None:
        self.storage = storage
        self._spark = spark

    @property
    def spark(self) -> SparkSession:
        return self._spark.spark_session

    def location(self, table: Table) -> str:
        return f"{self.storage}/{table.path}"

    def stored(self, table: Table, version: int | None = None) -> Any:
        """The table's log (a `deltalake.DeltaTable`), read without Spark.

        Raises:
            DeltaTableError: nothing is stored there, or by an engine with a newer protocol.
        """
        from deltalake.exceptions import DeltaError, TableNotFoundError

        try:
            return open_table(self.location(table), version)
        except TableNotFoundError as error:
            raise DeltaTableError(
                f"{table.path} holds nothing yet at {self.location(table)}: materialise that asset first."
            ) from error
        except DeltaError as error:
            if "Unsupported" not in str(error):
                raise
            raise DeltaTableError(
                f"{table.path} at {self.location(table)} was changed by an engine with a newer Delta protocol than is "
                f"known here ({error}). Have that engine drop it (ALTER TABLE … DROP FEATURE …), or move the folder "
                "away and materialise the asset again."
            ) from error

    def exists(self, table: Table) -> bool:
        """Whether anything was ever stored there."""
        from deltalake import DeltaTable

        return bool(DeltaTable.is_deltatable(*delta_place(self.location(table))))

    def version(self, table: Table) -> int:
        return int(self.stored(table).version())

    def _at(self, table: Table, version: int | None) -> Any:
        """A version's log; in place of the newest of a table that is not there, that of an empty one."""
        from deltalake import DeltaTable, Schema

        if version is not None or self.exists(table):
            return self.stored(table, version)
        schema = Schema.from_json(table.spark_schema.json())
        with tempfile.TemporaryDirectory() as folder:  # its log is read now, and it has no files to be read later
            return DeltaTable.create(folder, schema, partition_by=table.file_partitioning)

    def read(self, table: Table, keys: Sequence[str] | None = None, version: int | None = None) -> DataFrame:
        """A version of the table, by default the newest, or of its partitions `keys`, on Spark."""
        if version is None and not self.exists(table):
            return self.spark.createDataFrame([], table.spark_schema)
        stored = self.stored(table, version)
        at_version = self.spark.read.format("delta").option("versionAsOf", stored.version())
        frame = at_version.load(self.location(table))
        for absent in table.addable(spark_schema(stored)):
            frame = frame.withColumn(absent.name, functions.lit(None).cast(absent.dataType))
        return frame if keys is None else frame.where(functions.col(str(table.partition_column)).isin(list(keys)))

    def read_arrow(
        self,
        table: Table,
        keys: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        where: ds.Expression | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """Columns of a version of the table, by default the newest, or of its partitions `keys`, in memory."""
        stored = self._at(table, version)
        names = list(columns or table.column_names)
        absent = {field.name for field in table.addable(spark_schema(stored))}
        wanted = among(table, keys)
        if where is not None:
            wanted = where if wanted is None else wanted & where
        there = [name for name in names if name not in absent]
        rows = scanner(stored, there, wanted, predicate(table, keys)).to_table()
        for number, name in enumerate(names):
            if name in absent:
                rows = rows.add_column(number, name, pa.nulls(rows.num_rows))
        return rows.cast(pa.schema([table.arrow_schema.field(name) for name in names]))

    def query(self, table: Table, sql: str, keys: Sequence[str] | None = None) -> pa.Table:
        """What a query of deltalake's own engine finds in the table's newest version, or in its partitions `keys`.

        Its name in the query is `stored`.

        For aggregates that fit this process's memory: Spark takes seconds to begin where this takes milliseconds.
        """
        from deltalake import QueryBuilder

        stored = self._at(table, None)
        _refuse_unread(stored)
        chosen = f"WITH stored AS (SELECT * FROM everything WHERE {predicate(table, keys) or 'true'}) "  # noqa: S608
        return pa.table(QueryBuilder().register("everything", stored).execute(chosen + sql))

    def rows_by_partition(
        self, table: Table, keys: Sequence[str] | None = None, version: int | None = None
    ) -> Counter[str]:
        """Rows of each partition in a version of the table, or of its partitions `keys`; none counts 0."""
        if not table.partitioned_files or not protocol.is_dataset(self._at(table, version)):
            column = self.read_arrow(table, keys, [str(table.partition_column)], version=version)[0]
            return Counter({entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist()})
        # The log has the row count of each file.
        rows: Counter[str] = Counter()
        for file in pa.table(self._at(table, version).get_add_actions(flatten=True)).to_pylist():
            if keys is None or file[f"partition.{table.partition_column}"] in keys:
                rows[file[f"partition.{table.partition_column}"]] += file["num_records"]
        return rows


def open_table(location: str, version: int | None = None) -> Any:
    """A table's log (a `deltalake.DeltaTable`)."""
    from deltalake import DeltaTable

    uri, options = delta_place(location)
    return DeltaTable(uri, version=version, storage_options=options)


def spark_schema(stored: Any) -> Any:
    """A table's columns as Spark types; from the log, which keeps them in Spark's own JSON."""
    return StructType.fromJson(json.loads(stored.schema().to_json()))


def first_rows(stored: Any, limit: int, wanted: Any = None, columns: Sequence[str] | None = None) -> pa.Table:
    """The first rows of a table (a `deltalake.DeltaTable`) that `wanted`, an Arrow expression, lets through.

    Without threads and reading ahead: what a scan that is cut short has still under way aborts the process at its exit.
    """
    options = {"use_threads": False, "fragment_readahead": 0, "batch_readahead": 0}
    return scanner(stored, columns, wanted, options=options).head(limit)


def scanner(
    stored: Any,
    columns: Sequence[str] | None = None,
    wanted: Any = None,
    sql: str | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> ds.Scanner:
    """Reads columns of the rows of a table (a `deltalake.DeltaTable`) that `wanted`, an Arrow expression, lets through.

    Args:
        stored: the table.
        columns: their names; None: all.
        wanted: None: all rows.
        sql: a condition that these rows meet too, for where deltalake looks for files itself.
        options: of Arrow's scanner, for where it does.

    Raises:
        DeltaTableError: another engine has turned on a feature that deltalake cannot read.
    """
    if protocol.is_dataset(stored):
        return stored.to_pyarrow_dataset().scanner(columns=columns, filter=wanted, **options)
    _refuse_unread(stored)
    reader = pa.RecordBatchReader.from_stream(stored.scan(predicate=sql))
    return ds.Scanner.from_batches(reader.cast(pa.schema(stored.schema().to_arrow())), columns=columns, filter=wanted)


def _refuse_unread(stored: Any) -> None:
    if features := protocol.not_read(stored):
        location = stored.table_uri
        raise DeltaTableError(
            f"{location} has the Delta features {', '.join(features)}, which another engine has turned on and which "
            f"are not read here. {protocol.way_back(location, features)}"
        )


def among(table: Table, keys: Sequence[str] | None) -> ds.Expression | None:
    """Whether a row is in one of the partitions; of no type, an empty list would not fit the column's."""
    return None if keys is None else ds.field(str(table.partition_column)).isin(pa.array(list(keys), pa.string()))


def predicate(table: Table, keys: Sequence[str] | None) -> str | None:
    """In DataFusion's SQL, where a quote is doubled and a backslash is an ordinary character."""
    texts = ", ".join("'" + key.replace("'", "''") + "'" for key in keys or ())
    return None if keys is None else f'"{table.partition_column}" IN ({texts})'
