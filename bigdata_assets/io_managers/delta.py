"""Delta tables: created from their declaration, replaced by partition, read at one version.

What is stored is exactly what a run last returned for a partition: a write replaces by predicate, atomic in Delta's
log, so that a run killed at any point leaves either the old rows or the new ones. Nothing here counts rows: numbers
come from the commit that the write made.

All commits are deltalake's. Spark's look whether a version is there and then write it, so that of two committers in
different processes one may overwrite the other's commit, on a local disk too. A Spark frame's files are written by
Spark's tasks, those of staging.py by its Python workers, what is in this process's memory by deltalake.
"""

import contextlib
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeAlias, TypeVar
from urllib.parse import unquote

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, SparkSession, functions
from pyspark.sql.types import ArrayType, BinaryType, MapType, StructType
from upath import UPath

from bigdata_assets.io_managers.staging import FILES, StagedFiles, Staging
from bigdata_assets.resources.spark import SparkResource
from bigdata_assets.tables import Table, sql_name

ROW_COUNT, PARTITION_ROW_COUNT = "dagster/row_count", "dagster/partition_row_count"
"""Of a table, and of a partition of one: Dagster's own names for the two."""
PREVIEW_ROWS = 10
KEPT_S = 7 * 86_400
"""How long `compact` keeps what no version names, as vacuum does by default."""
MAX_ATTEMPTS = 8
REFUSED_ROWS = ("Invalid data found", "USER_RAISED_EXCEPTION")
"""In the message of deltalake, and of Spark for what `_checked` raises, where rows break the declaration."""

Frame: TypeAlias = DataFrame | pd.DataFrame | pa.Table
Written: TypeAlias = Frame | StagedFiles
T = TypeVar("T")


class DeltaTableError(RuntimeError):
    """A frame does not fit its table, or the table is not what is declared; the message says what to do."""


class DeltaIOManager(dg.IOManager):
    """Stores Spark, pandas and Arrow frames and staged files as the Delta tables that are declared for their assets."""

    def __init__(self, storage: str, spark: SparkResource, tables: Iterable[Table]) -> None:
        self.storage = storage
        self._spark = spark
        self._tables = {table.key: table for table in tables}

    # -- writing

    def handle_output(self, context: dg.OutputContext, obj: Written) -> None:
        table = self.table(context.asset_key)
        keys = sorted(context.asset_partition_keys) if context.has_asset_partitions else None
        if (keys is not None) != (table.partition_column is not None):
            raise DeltaTableError(
                f"{table.path}: the asset is {'' if keys else 'not '}partitioned but its table declares "
                f"partition_column={table.partition_column!r}; make tables.py and the asset agree."
            )
        if not isinstance(obj, DataFrame | StagedFiles):
            obj = _arrow_table(table, obj)
        version, rows, n_bytes = self.write(table, obj, keys, run_id=context.run_id)
        if isinstance(obj, pa.Table):
            preview = obj.slice(0, PREVIEW_ROWS)
        else:
            preview = _first_rows(table, self.stored(table, version), keys)
        context.add_output_metadata(
            {
                "path": self.location(table),
                "delta_version": version,
                "run_id_in_delta": context.run_id,
                ROW_COUNT if keys is None else PARTITION_ROW_COUNT: rows,
                "bytes": n_bytes,
                "preview": _preview(table, preview),
            }
        )
        context.log.info("%s: %d rows in version %d", table.path, rows, version)
        if keys is not None and len(keys) > 1:
            self._add_partition_metadata(context, table, version, keys, obj)

    def write(self, table: Table, obj: Written, keys: Sequence[str] | None, run_id: str) -> tuple[int, int, int]:
        """Replace a table, or its partitions `keys`, by a frame or by staged files.

        Returns:
            The Delta version that holds the frame, and the rows and bytes that its commit added.

        Raises:
            DeltaTableError: the frame's columns, types or rows do not fit; nothing was written.
        """
        if isinstance(obj, DataFrame):
            return self._write_spark(table, obj, keys, run_id)
        if isinstance(obj, StagedFiles):
            self._refuse(table, obj.files, keys)
            return self._commit(table, self._staged_writer(table, obj.files, keys), run_id)
        rows = _arrow_table(table, obj)
        return self._commit(table, self._arrow_writer(table, lambda: rows, keys), run_id)

    def _commit(self, table: Table, writer: Callable[[Any, str], None], run_id: str) -> tuple[int, int, int]:
        """Have `writer` commit, again where another one was first; what `write` returns."""
        stored = self.create(table)
        before = stored.version()
        write_id = uuid.uuid4().hex
        commit = json.dumps({"run_id": run_id, "asset": table.path, "write_id": write_id})
        tried = False

        def write() -> None:
            nonlocal tried
            stored.update_incremental()
            # A commit that was refused may be there all the same, where the answer of an object store was lost.
            if not tried or self._find_commit(table, stored.version(), write_id, before) is None:
                tried = True
                writer(stored, commit)

        with _refusals(table):
            _with_retry(write, table.path)
        stored.update_incremental()
        found = self._find_commit(table, stored.version(), write_id, before)
        return found or (stored.version(), 0, 0)  # nothing to remove and nothing to add may make no commit

    def _write_spark(
        self, table: Table, obj: DataFrame, keys: Sequence[str] | None, run_id: str
    ) -> tuple[int, int, int]:
        """Spark's tasks write Parquet files below the table's folder; a commit makes them the table's.

        Where a file may hold several partitions, deltalake writes their rows once more, a batch at a time: it replaces
        rows by a predicate only in what it writes itself.
        """
        if differences := table.difference(obj.schema):
            raise DeltaTableError(
                f"{table.path}: the frame does not fit tables.py: {'; '.join(differences)}. "
                "Select and cast in the asset's logic, or change the declaration."
            )
        self.create(table)
        folder = UPath(self.location(table)) / f"staged-{uuid.uuid4().hex}"
        writer = _checked(table, obj.select(*table.column_names)).write.partitionBy(*table.file_partitioning)
        to_be_kept = False
        try:
            with _refusals(table):
                writer.option("mapreduce.fileoutputcommitter.marksuccessfuljobs", "false").parquet(
                    f"{self.location(table)}/{folder.name}"
                )
            if keys is None or table.file_partitioning:
                files = _written(folder)
                self._refuse_partitions(table, files, keys)
                to_be_kept = True  # whatever happens from here on, a commit may name them
                return self._commit(table, self._staged_writer(table, files, keys), run_id)
            schema = pa.schema([field.with_nullable(True) for field in table.arrow_schema])
            rows = ds.dataset(folder.path, schema, format="parquet", filesystem=folder.fs)
            return self._commit(table, self._arrow_writer(table, lambda: rows.scanner().to_reader(), keys), run_id)
        finally:
            # What is in the way, such as a task that still writes, must not hide an error; `compact` takes the rest.
            with contextlib.suppress(OSError):
                if not to_be_kept and folder.exists():
                    folder.fs.rm(folder.path, recursive=True)

    def _arrow_writer(
        self, table: Table, rows: Callable[[], pa.Table | pa.RecordBatchReader], keys: Sequence[str] | None
    ) -> Callable[[Any, str], None]:
        from deltalake import CommitProperties, write_deltalake

        predicate = _predicate(table, keys)

        def write(stored: Any, commit: str) -> None:
            properties = CommitProperties(custom_metadata={"userMetadata": commit})
            write_deltalake(stored, rows(), mode="overwrite", predicate=predicate, commit_properties=properties)

        return write

    def staging(self, table: Table) -> Staging:
        """Where workers put files of a table, for `write` to commit; the table is created if it is not there.

        Raises:
            DeltaTableError: the stored table has other columns than the declared one, or a file of it may hold rows of
                several partitions.
        """
        if table.partition_column and not table.file_partitioning:
            raise DeltaTableError(f"{table.path}: files that hold several partitions cannot be staged.")
        self.create(table)
        columns = StructType([field for field in table.spark_schema if field.name != table.partition_column])
        return Staging(self.location(table), columns.json(), table.partition_column)

    def _staged_writer(self, table: Table, files: pa.Table, keys: Sequence[str] | None) -> Callable[[Any, str], None]:
        from deltalake import CommitProperties
        from deltalake.transaction import AddAction

        column, now_ms = table.partition_column, int(time.time() * 1000)
        added = [
            AddAction(
                path=file["file"],
                size=file["bytes"],
                partition_values={column: file["partition"]} if column else {},
                modification_time=now_ms,
                data_change=True,
                stats=json.dumps({"numRecords": file["rows"]}),
            )
            for file in files.to_pylist()
        ]
        replaced = None if keys is None else [(column, "in", list(keys))]

        def write(stored: Any, commit: str) -> None:
            # Without retries of its own, which would not see what another writer has added to an empty partition.
            properties = CommitProperties(custom_metadata={"userMetadata": commit}, max_commit_retries=0)
            stored.create_write_transaction(
                added,
                "overwrite",
                stored.schema(),
                table.file_partitioning,
                replaced,
                commit_properties=properties,
            )

        return write

    def _refuse(self, table: Table, files: pa.Table, keys: Sequence[str] | None) -> None:
        """Raise where staged rows do not fit: a commit of files verifies nothing."""
        self._refuse_partitions(table, files, keys)
        reasons = pc.drop_null(files["refused"]).to_pylist()[:1]
        if not reasons and table.constraints and files.num_rows:
            reader = self.spark.read.schema(table.spark_schema).option("basePath", self.location(table))
            rows = reader.parquet(*[f"{self.location(table)}/{file}" for file in files["file"].to_pylist()])
            checks = table.constraints.items()
            counts = rows.agg(*[functions.expr(f"count_if(({sql}) IS NOT TRUE)").alias(name) for name, sql in checks])
            broken = counts.toArrow().to_pylist()[0].items()
            reasons = [f"{count} rows break the constraint {name}" for name, count in broken if count]
        if reasons:
            raise DeltaTableError(f"{table.path}: rows refused, nothing was written. {'; '.join(reasons)}")

    def _refuse_partitions(self, table: Table, files: pa.Table, keys: Sequence[str] | None) -> None:
        if keys is not None and (others := sorted(set(map(str, files["partition"].to_pylist())) - set(keys))):
            raise DeltaTableError(
                f"{table.path}: rows refused, nothing was written. Partitions that are not this write's: {others}"
            )

    def create(self, table: Table) -> Any:
        """Create a table from its declaration if it is not there, and refuse one that was declared otherwise.

        A bare `_delta_log` folder, which a killed writer leaves, is no table.

        Returns:
            Its log (a `deltalake.DeltaTable`).

        Raises:
            DeltaTableError: the stored table has other columns than the declared one.
        """
        from deltalake import CommitProperties, DeltaTable, Schema
        from deltalake.exceptions import CommitFailedError

        location = rust_uri(self.location(table))
        if not DeltaTable.is_deltatable(location):
            # Without retries, which would commit the declaration once more on top of another first writer's. Who loses
            # has a table all the same.
            with contextlib.suppress(CommitFailedError):
                DeltaTable.create(
                    location,
                    schema=Schema.from_json(table.spark_schema.json()),
                    mode="ignore",
                    partition_by=table.file_partitioning,
                    description=table.description,
                    configuration=table.properties,
                    raise_if_key_not_exists=False,
                    commit_properties=CommitProperties(max_commit_retries=0),
                )
        stored = self.stored(table)
        if added := table.addable(spark_schema(stored)):
            # Another writer may be adding them too.
            with contextlib.suppress(CommitFailedError):
                stored.alter.add_columns(Schema.from_json(StructType(added).json()).fields)
            stored = self.stored(table)
        if differences := table.difference(spark_schema(stored)):
            raise DeltaTableError(
                f"{table.path} is stored at {self.location(table)} with other columns than tables.py declares: "
                f"{'; '.join(differences)}. Move that folder away and materialise the asset again, or alter the table."
            )
        return stored

    def _find_commit(self, table: Table, newest: int, write_id: str, before: int) -> tuple[int, int, int] | None:
        """Version, rows and bytes of the commit that carries a write's id, of those after `before` up to `newest`.

        Others may have committed too. Read from the log itself: deltalake's history numbers commits wrongly while
        others write.
        """
        log = UPath(self.location(table)) / "_delta_log"
        for version in range(newest, before, -1):
            commit = (log / f"{version:020}.json").read_text()
            if write_id in commit:
                actions = [json.loads(line) for line in commit.splitlines()]
                info = next(action["commitInfo"] for action in actions if "commitInfo" in action)
                added = [action["add"] for action in actions if "add" in action]
                metrics = info.get("operationMetrics", {})
                rows = metrics.get("num_added_rows")
                if rows is None:  # of staged files, which are nothing but added
                    rows = sum(json.loads(file["stats"])["numRecords"] for file in added)
                return version, int(rows), sum(file["size"] for file in added)
        return None

    def _add_partition_metadata(
        self, context: dg.OutputContext, table: Table, version: int, keys: Sequence[str], obj: Written
    ) -> None:
        """Rows of each partition: Dagster copies a run's output metadata to every one of them, whole."""
        if isinstance(obj, pa.Table):
            counts, previews = _by_partition(table, obj)
        else:
            stored = self.stored(table, version)
            counts = _partition_rows(table, stored, keys)
            previews = {key: _first_rows(table, stored, [key]) for key in keys}
        nothing = table.arrow_schema.empty_table()
        for key in keys:
            context.step_context.add_asset_metadata(
                {PARTITION_ROW_COUNT: counts[key], "preview": _preview(table, previews.get(key, nothing))},
                asset_key=context.asset_key,
                partition_key=key,
            )

    def rows_by_partition(
        self, table: Table, keys: Sequence[str] | None = None, version: int | None = None
    ) -> Counter[str]:
        """Rows of each partition in a version of the table, or of its partitions `keys`; none counts 0."""
        return _partition_rows(table, self.stored(table, version), keys)

    # -- reading

    def load_input(self, context: dg.InputContext) -> Frame:
        """The upstream table as the input's annotation asks for it: a Spark frame, pandas or Arrow.

        One version is read, resolved now or named by the input's metadata `delta_version`, so that a lazy Spark frame
        that is evaluated twice sees the same rows although others write. Partitions: those mapped to this step's.
        """
        table = self.table(context.asset_key)
        wanted = (context.definition_metadata or {}).get("delta_version")
        stored = self.stored(table, None if wanted is None else int(wanted))
        version = stored.version()
        keys = sorted(context.asset_partition_keys) if context.has_asset_partitions else None
        context.log.info("%s: reading version %d%s", table.path, version, f", {len(keys)} partitions" if keys else "")
        kind = context.dagster_type.typing_type
        if kind in (pd.DataFrame, pa.Table):
            rows = _read_arrow(table, stored, keys)
            if kind is pa.Table:
                return rows
            frame = rows.to_pandas()
            frame.attrs["delta_version"] = version
            return frame
        spark_frame = self._read(table, version)
        return spark_frame if keys is None else spark_frame.where(_is_in(str(table.partition_column), keys))

    def read(self, table: Table, keys: Sequence[str] | None = None) -> DataFrame:
        """The table's newest version, or its partitions `keys`: for checks, which choose their own rows."""
        frame = self._read(table, self.version(table))
        return frame if keys is None else frame.where(_is_in(str(table.partition_column), keys))

    def _read(self, table: Table, version: int) -> DataFrame:
        frame = self.spark.read.format("delta").option("versionAsOf", version).load(self.location(table))
        for absent in table.addable(spark_schema(self.stored(table, version))):
            frame = frame.withColumn(absent.name, functions.lit(None).cast(absent.dataType))
        return frame

    def read_arrow(
        self,
        table: Table,
        keys: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        where: ds.Expression | None = None,
    ) -> pa.Table:
        """Columns of the table's newest version, or of its partitions `keys`, in this process's memory."""
        return _read_arrow(table, self.stored(table), keys, columns, where)

    def query(self, table: Table, sql: str, keys: Sequence[str] | None = None) -> pa.Table:
        """What a query of deltalake's own engine finds in the table's newest version, or in its partitions `keys`.

        Its name in the query is `stored`.

        For aggregates that fit this process's memory: Spark takes seconds to begin where this takes milliseconds.
        """
        from deltalake import QueryBuilder

        chosen = f"WITH stored AS (SELECT * FROM everything WHERE {_predicate(table, keys) or 'true'}) "  # noqa: S608
        return pa.table(QueryBuilder().register("everything", self.stored(table)).execute(chosen + sql))

    # -- what is stored

    @property
    def spark(self) -> SparkSession:
        return self._spark.spark_session

    def table(self, key: dg.AssetKey) -> Table:
        if key not in self._tables:
            raise DeltaTableError(
                f"No table is declared for asset {key.to_user_string()}: declare it in the branch's tables.py."
            )
        return self._tables[key]

    def location(self, table: Table) -> str:
        return f"{self.storage}/{table.path}"

    def stored(self, table: Table, version: int | None = None) -> Any:
        """The table's log (a `deltalake.DeltaTable`), read without Spark.

        Raises:
            DeltaTableError: nothing is stored there.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        try:
            return DeltaTable(rust_uri(self.location(table)), version=version)
        except TableNotFoundError as error:
            raise DeltaTableError(
                f"{table.path} holds nothing yet at {self.location(table)}: materialise that asset first."
            ) from error

    def exists(self, table: Table) -> bool:
        """Whether anything was ever stored there."""
        from deltalake import DeltaTable

        return bool(DeltaTable.is_deltatable(rust_uri(self.location(table))))

    def compact(self, table: Table) -> dict[str, Any]:
        """Join small files; what no version of the last week needs any more is removed. Readers and writers go on.

        So are files of that age that no version ever had: those of writers that were killed before their commit.
        """
        metrics = _with_retry(lambda: self.stored(table).optimize.compact(), table.path)  # noqa: PLW0108 -- anew each time
        stored = self.stored(table)
        removed = stored.vacuum(dry_run=False, full=True)
        for folder in UPath(self.location(table)).glob("staged-*"):  # vacuum leaves empty ones
            if time.time() - folder.stat().st_mtime > KEPT_S and not any(path.is_file() for path in folder.rglob("*")):
                folder.fs.rm(folder.path, recursive=True)
        stored.update_incremental()
        # Whoever opens the table reads the log from here on.
        stored.create_checkpoint()
        return {
            "files joined": metrics["numFilesRemoved"],
            "into": metrics["numFilesAdded"],
            "old files removed": len(removed),
        }

    def version(self, table: Table) -> int:
        return int(self.stored(table).version())


def spark_schema(stored: Any) -> Any:
    """A table's columns as Spark types; from the log, which keeps them in Spark's own JSON."""
    return StructType.fromJson(json.loads(stored.schema().to_json()))


def delta_io_manager(tables: Iterable[Table]) -> dg.IOManagerDefinition:
    """The resource `delta` for the given tables; configured with the storage folder or URL."""

    @dg.io_manager(
        config_schema={"storage": dg.Field(str, description="Folder or URL of the tables.")},
        required_resource_keys={"spark"},
        description="Delta tables, created from their declarations and replaced by partition.",
    )
    def delta(context: dg.InitResourceContext) -> DeltaIOManager:
        return DeltaIOManager(context.resource_config["storage"], context.resources.spark, tables)

    return delta


def _checked(table: Table, frame: DataFrame) -> DataFrame:
    """The frame; a row that breaks the declaration fails the job that reads it, and is named."""
    conditions = {f"{c.name} is null": f"{sql_name(c.name)} IS NOT NULL" for c in table.columns if not c.nullable}
    conditions |= {f"the constraint {name} is broken": f"({sql}) IS TRUE" for name, sql in table.constraints.items()}
    told = [c.name for c in table.columns if not isinstance(c.type, ArrayType | BinaryType | MapType | StructType)]
    row = functions.substring(functions.to_json(functions.struct(*told)), 1, 500)
    for what, sql in conditions.items():
        message = functions.concat(functions.lit(f"{what} in "), row)
        frame = frame.where(functions.assert_true(functions.expr(sql), message).isNull())
    return frame


def _written(folder: UPath) -> pa.Table:
    """Spark's files below a folder of the table's, as FILES has them."""
    rows = []
    for path in sorted(path for path in folder.rglob("*.parquet") if path.is_file()):  # a key may end like that too
        with path.open("rb") as file:
            n_rows = pq.read_metadata(file).num_rows
        _, is_partition, value = path.parent.name.partition("=")
        name = path.path.removeprefix(folder.parent.path).lstrip("/")
        partition = unquote(value) if is_partition else None
        rows.append({"partition": partition, "file": name, "bytes": path.stat().st_size, "rows": n_rows})
    return pa.Table.from_pylist([row for row in rows if row["rows"]], FILES)


@contextlib.contextmanager
def _refusals(table: Table) -> Iterator[None]:
    """Says of rows that break the declaration that they are refused."""
    try:
        yield
    except Exception as error:
        if any(text in str(error) for text in REFUSED_ROWS):
            raise DeltaTableError(f"{table.path}: rows refused, nothing was written. {_beginning(error)}") from error
        raise


def _with_retry(action: Callable[[], T], what: str) -> T:
    """Do what may conflict with another writer, again after a growing, random wait.

    Raises:
        DeltaTableError: it still conflicts after MAX_ATTEMPTS.
    """
    from deltalake.exceptions import CommitFailedError

    for attempt in range(MAX_ATTEMPTS):
        try:
            return action()
        except CommitFailedError as error:
            if attempt == MAX_ATTEMPTS - 1:
                raise DeltaTableError(
                    f"{what}: another writer changed the same rows {MAX_ATTEMPTS} times in a row "
                    f"({_beginning(error)}). "
                    "Run this partition again when the other run has ended."
                ) from error
            time.sleep(random.uniform(0.5, 1) * 0.2 * 2**attempt)
    raise AssertionError("unreachable")


def _arrow_table(table: Table, obj: pd.DataFrame | pa.Table) -> pa.Table:
    if not isinstance(obj, pd.DataFrame | pa.Table):
        raise DeltaTableError(
            f"{table.path}: a Spark, pandas or Arrow frame is stored in a table, not {type(obj).__name__}."
        )
    names = list(obj.columns) if isinstance(obj, pd.DataFrame) else obj.column_names
    missing = [n for n in table.column_names if n not in names]
    extra = [str(n) for n in names if n not in table.column_names]
    if missing or extra:
        raise DeltaTableError(
            f"{table.path}: the frame does not fit tables.py: missing columns {missing}, undeclared ones {extra}."
        )
    # Nullability is checked by Delta, whose error names the column; Arrow would only say that a null is there.
    schema = pa.schema([f.with_nullable(True) for f in table.arrow_schema])
    try:
        if isinstance(obj, pd.DataFrame):
            return pa.Table.from_pandas(obj[table.column_names], schema=schema, preserve_index=False)
        return obj.select(table.column_names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise DeltaTableError(f"{table.path}: a column cannot be stored as declared: {error}") from error


def _read_arrow(
    table: Table,
    stored: Any,
    keys: Sequence[str] | None,
    columns: Sequence[str] | None = None,
    where: ds.Expression | None = None,
) -> pa.Table:
    names = list(columns or table.column_names)
    absent = {field.name for field in table.addable(spark_schema(stored))}
    wanted = None if keys is None else ds.field(str(table.partition_column)).isin(list(keys))
    if where is not None:
        wanted = where if wanted is None else wanted & where
    rows = stored.to_pyarrow_dataset().to_table(columns=[name for name in names if name not in absent], filter=wanted)
    for number, name in enumerate(names):
        if name in absent:
            rows = rows.add_column(number, name, pa.nulls(rows.num_rows))
    return rows.cast(pa.schema([table.arrow_schema.field(name) for name in names]))


def _partition_rows(table: Table, stored: Any, keys: Sequence[str] | None) -> Counter[str]:
    if not table.partitioned_files:
        column = _read_arrow(table, stored, keys, [str(table.partition_column)])[0]
        return Counter({entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist()})
    # The log has the row count of each file.
    rows: Counter[str] = Counter()
    for file in pa.table(stored.get_add_actions(flatten=True)).to_pylist():
        if keys is None or file[f"partition.{table.partition_column}"] in keys:
            rows[file[f"partition.{table.partition_column}"]] += file["num_records"]
    return rows


def _by_partition(table: Table, rows: pa.Table) -> tuple[Counter[str], dict[str, pa.Table]]:
    """How many rows each partition has, and its first ones."""
    column = rows[str(table.partition_column)].combine_chunks().dictionary_encode()
    codes, keys = column.indices.to_numpy(), column.dictionary.to_pylist()
    order = codes.argsort(kind="stable")
    counts = Counter(dict(zip(keys, np.bincount(codes, minlength=len(keys)).tolist(), strict=True)))
    starts = np.cumsum([0, *counts.values()])
    first = {
        key: rows.take(order[start : min(start + PREVIEW_ROWS, end)])
        for key, (start, end) in zip(keys, pairwise(starts), strict=True)
    }
    return counts, first


def _preview(table: Table, rows: pa.Table) -> dg.TableMetadataValue:
    """The first rows of a write as a table in the UI, cells cut to a readable length."""
    names = _previewed(table)
    records = [dg.TableRecord({name: _cell(row[name]) for name in names}) for row in rows.select(names).to_pylist()]
    schema = dg.TableSchema([dg.TableColumn(c.name, c.type.simpleString()) for c in table.columns if c.name in names])
    return dg.MetadataValue.table(records=records, schema=schema)


def _previewed(table: Table) -> list[str]:
    """The columns that a preview shows. Not arrays: a cell of 23,800 pixels says nothing and takes long to read."""
    return [column.name for column in table.columns if not isinstance(column.type, ArrayType)]


def _first_rows(table: Table, stored: Any, keys: Sequence[str] | None) -> pa.Table:
    wanted = None if keys is None else ds.field(str(table.partition_column)).isin(list(keys))
    return first_rows(stored, PREVIEW_ROWS, wanted, _previewed(table))


def first_rows(stored: Any, limit: int, wanted: Any = None, columns: Sequence[str] | None = None) -> pa.Table:
    """The first rows of a table (a `deltalake.DeltaTable`) that `wanted`, an Arrow expression, lets through.

    Without threads and reading ahead: what a scan that is cut short has still under way aborts the process at its exit.
    """
    scanner = stored.to_pyarrow_dataset().scanner(
        columns=columns, filter=wanted, use_threads=False, fragment_readahead=0, batch_readahead=0
    )
    return scanner.head(limit)


def _cell(value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)  # JSON has no NaN
    text = f"{len(value)} bytes" if isinstance(value, bytes) else str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _predicate(table: Table, keys: Sequence[str] | None) -> str | None:
    """In DataFusion's SQL, where a quote is doubled and a backslash is an ordinary character."""
    texts = ", ".join("'" + key.replace("'", "''") + "'" for key in keys or ())
    return None if keys is None else f'"{table.partition_column}" IN ({texts})'


def _is_in(column: str, keys: Sequence[str]) -> SparkColumn:
    return functions.col(column).isin(list(keys))


def rust_uri(location: str) -> str:
    """The same place as the deltalake library names it: it knows s3://, not Hadoop's s3a://."""
    return "s3://" + location.removeprefix("s3a://") if location.startswith("s3a://") else location


def _beginning(error: BaseException) -> str:
    """What an error says before the server's stack trace."""
    return " ".join(str(error).split("JVM stacktrace")[0].split())[:700]
