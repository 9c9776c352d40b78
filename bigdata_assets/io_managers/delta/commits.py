"""Commits to Delta tables: created from their declaration, replaced by partition, tried again after a conflict.

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
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, functions
from pyspark.sql.types import ArrayType, BinaryType, MapType, StructType
from upath import UPath

from bigdata_assets.io_managers.delta import protocol
from bigdata_assets.io_managers.delta.reading import DeltaReader, DeltaTableError, predicate, spark_schema
from bigdata_assets.io_managers.staging import FILES, ROW_GROUP_BYTES, StagedFiles, Staging
from bigdata_assets.storage import delta_place, is_local, place, remove
from bigdata_assets.tables import Table, row_schema, sql_name, to_arrow

KEPT_S = 7 * 86_400
"""How long `compact` keeps what no version names, as vacuum does by default."""
ARRAY_ROWS = 64
"""Of a row group of joined files that hold long arrays: a reader has one of them in memory."""
MAX_ATTEMPTS = 8
REFUSED_ROWS = ("Invalid data found", "USER_RAISED_EXCEPTION")
"""In the message of deltalake, and of Spark for what `_checked` raises, where rows break the declaration."""

Written: TypeAlias = DataFrame | pd.DataFrame | pa.Table | StagedFiles
T = TypeVar("T")


class DeltaWriter(DeltaReader):
    """Writes them too, and keeps them small."""

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
        rows = arrow_table(table, obj)
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
            with_retry(write, table.path)
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
        folder = place(self.location(table)) / f"staged-{uuid.uuid4().hex}"
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
            schema = to_arrow(row_schema(*table.columns))
            rows = ds.dataset(folder.path, schema, format="parquet", filesystem=folder.fs)
            return self._commit(table, self._arrow_writer(table, lambda: rows.scanner().to_reader(), keys), run_id)
        finally:
            # What is in the way, such as a task that still writes, must not hide an error; `compact` takes the rest.
            with contextlib.suppress(OSError):
                if not to_be_kept:
                    remove(folder)

    def _arrow_writer(
        self, table: Table, rows: Callable[[], pa.Table | pa.RecordBatchReader], keys: Sequence[str] | None
    ) -> Callable[[Any, str], None]:
        from deltalake import CommitProperties, write_deltalake

        replaced = predicate(table, keys)

        def write(stored: Any, commit: str) -> None:
            properties = CommitProperties(custom_metadata={"userMetadata": commit})
            write_deltalake(stored, rows(), mode="overwrite", predicate=replaced, commit_properties=properties)

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
            DeltaTableError: the stored table has other columns than the declared one, or features of Delta that
                another engine has turned on and that cannot be written here.
        """
        from deltalake import CommitProperties, DeltaTable, Schema
        from deltalake.exceptions import CommitFailedError

        uri, options = delta_place(self.location(table))
        if not DeltaTable.is_deltatable(uri, options):
            # Without retries, which would commit the declaration once more on top of another first writer's. Who loses
            # has a table all the same.
            with contextlib.suppress(CommitFailedError):
                DeltaTable.create(
                    uri,
                    schema=Schema.from_json(table.spark_schema.json()),
                    mode="ignore",
                    partition_by=table.file_partitioning,
                    description=table.description,
                    configuration=table.properties,
                    storage_options=options,
                    raise_if_key_not_exists=False,
                    commit_properties=CommitProperties(max_commit_retries=0),
                )
        stored = self._to_write(table)
        added, configuration = table.addable(spark_schema(stored)), stored.metadata().configuration
        # One that is there no more somebody has dropped, which the schema check tells.
        kept = {*configuration, *(f"delta.constraints.{field.name}_valid" for field in added)}
        checks = {name: value for name, value in table.checks_kept.items() if name in kept}
        # Before the columns that they are of: those are added the next time, if this is cut off here. Another writer
        # may be at it too.
        if changed := {name: value for name, value in checks.items() if configuration.get(name) != value}:
            with contextlib.suppress(CommitFailedError):
                stored.alter.set_table_properties(changed, raise_if_not_exists=False)
            stored = self.stored(table)
        if added:
            with contextlib.suppress(CommitFailedError):
                stored.alter.add_columns(Schema.from_json(StructType(added).json()).fields)
            stored = self.stored(table)
        if differences := table.difference(spark_schema(stored)):
            raise DeltaTableError(
                f"{table.path} is stored at {self.location(table)} with other columns than tables.py declares: "
                f"{'; '.join(differences)}. Move that folder away and materialise the asset again, or alter the table."
            )
        return stored

    def _to_write(self, table: Table) -> Any:
        stored, location = self.stored(table), self.location(table)
        if features := protocol.not_written(stored):
            raise DeltaTableError(
                f"{table.path} has the Delta features {', '.join(features)}, which another engine has turned on and "
                f"which are not written here: nothing was written. {protocol.way_back(location, features)}"
            )
        return stored

    def _find_commit(self, table: Table, newest: int, write_id: str, before: int) -> tuple[int, int, int] | None:
        """Version, rows and bytes of the commit that carries a write's id, of those after `before` up to `newest`.

        Others may have committed too. Read from the log itself: deltalake's history numbers commits wrongly while
        others write.
        """
        log = place(self.location(table)) / "_delta_log"
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

    def compact(self, table: Table) -> dict[str, Any]:
        """Join small files; what no version of the last week needs any more is removed. Readers and writers go on.

        So are files of that age that no version ever had: those of writers that were killed before their commit.

        Raises:
            DeltaTableError: others were first, again and again.
        """
        return with_retry(lambda: self._compact(table), table.path)

    def _compact(self, table: Table) -> dict[str, Any]:
        stored = self._to_write(table)
        metrics = stored.optimize.compact(writer_properties=_writer_properties(table, stored))
        removed = stored.vacuum(dry_run=False, full=True)
        where = place(self.location(table))
        for folder in where.glob("staged-*") if is_local(where) else []:  # vacuum leaves empty ones
            with contextlib.suppress(FileNotFoundError):  # its writer removes it
                old = time.time() - folder.stat().st_mtime > KEPT_S
                if old and not any(path.is_file() for path in folder.rglob("*")):
                    remove(folder)
        stored.update_incremental()
        # Whoever opens the table reads the log from here on.
        stored.create_checkpoint()
        return {
            "files joined": metrics["numFilesRemoved"],
            "into": metrics["numFilesAdded"],
            "old files removed": len(removed),
        }


def _writer_properties(table: Table, stored: Any) -> Any:
    """How files are joined whose rows may be long (a `deltalake.WriterProperties`); None: as usual."""
    from deltalake import ColumnProperties, WriterProperties

    rows = [ARRAY_ROWS] if any(isinstance(column.type, ArrayType) for column in table.columns) else []
    binary = [column.name for column in table.columns if isinstance(column.type, BinaryType)]
    if binary:
        files = pa.table(stored.get_add_actions()).select(["size_bytes", "num_records"]).to_pylist()
        longest = max((file["size_bytes"] // file["num_records"] for file in files if file["num_records"]), default=1)
        rows.append(max(ROW_GROUP_BYTES // max(longest, 1), 1))
    # The least and greatest of a row group's pictures would be in the footer, which readers hold as a whole.
    unasked = {name: ColumnProperties(statistics_enabled="NONE") for name in binary}
    return WriterProperties(max_row_group_size=min(rows), column_properties=unasked) if rows else None


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


def with_retry(action: Callable[[], T], what: str) -> T:
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


def arrow_table(table: Table, obj: pd.DataFrame | pa.Table) -> pa.Table:
    """A frame in memory with the declared columns and types.

    Raises:
        DeltaTableError: it does not fit.
    """
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
    schema = to_arrow(row_schema(*table.columns))
    try:
        if isinstance(obj, pd.DataFrame):
            return pa.Table.from_pandas(obj[table.column_names], schema=schema, preserve_index=False)
        return obj.select(table.column_names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise DeltaTableError(f"{table.path}: a column cannot be stored as declared: {error}") from error


def _beginning(error: BaseException) -> str:
    """What an error says before the server's stack trace."""
    return " ".join(str(error).split("JVM stacktrace")[0].split())[:700]
