"""Parquet files that Spark's Python workers put into a table's folder themselves, for the `delta` IO manager to commit.

For rows that Python makes and that are long arrays: Spark's own writer takes an array element by element. What is
written here is in the table once `DeltaIOManager.write` has committed it, by the names that came back. What a task
leaves that failed, was killed or was run twice is seen by nobody; where `DeltaIOManager.compact` is run, it goes.

Workers import this module: it never imports dagster.
"""

import contextlib
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql.types import StructType
from upath import UPath

from bigdata_assets.storage import make_parents, place
from bigdata_assets.tables import to_arrow

FILES = pa.schema(
    [
        ("partition", pa.string()),
        ("file", pa.string()),
        ("bytes", pa.int64()),
        ("rows", pa.int64()),
        ("refused", pa.string()),
    ]
)
"""A staged file: its partition's key, its path below the table's folder, and why its rows do not fit, if they don't."""


ROW_GROUP_BYTES = 16 * 2**20
"""Of a row group of pictures or the like, about: a reader has one in memory, and none reads 2 GiB of a column."""


@dataclass(frozen=True)
class StagedFiles:
    """Files of a table that are not committed yet: a row each, columns as in `FILES`."""

    files: pa.Table


@dataclass(frozen=True)
class Staging:
    """Where a table's files are put, and what is in them; it goes to a worker.

    Attributes:
        folder: the table's folder or URL.
        columns: Spark's JSON of the columns, without that of the partition, which Delta keeps in its log.
        partition_column: by whose value files are kept apart, if by any.
    """

    folder: str
    columns: str
    partition_column: str | None

    def write(self, batches: Iterable[pa.RecordBatch], key: str | None = None) -> list[dict[str, Any]]:
        """Write the rows of one partition to one file, a batch at a time; what `StagedFile.told` tells."""
        with self.file(key) as file:
            for batch in batches:
                file.write(batch)
        return file.told()

    def file(self, key: str | None = None) -> "StagedFile":
        """A new file for rows of one partition."""
        schema = to_arrow(StructType.fromJson(json.loads(self.columns)))
        name = f"{uuid.uuid4().hex}.parquet"
        if self.partition_column is not None:
            name = f"{self.partition_column}={_escaped(str(key))}/{name}"
        return StagedFile(place(self.folder) / name, name, schema, key)


class StagedFile(contextlib.ExitStack):
    """A file that batches are written to, columns taken by name; there is none before the first row."""

    def __init__(self, path: UPath, name: str, schema: pa.Schema, key: str | None) -> None:
        super().__init__()
        self._path, self._schema = path, schema
        self._file: dict[str, Any] = {"partition": key, "file": name}
        self._writer: pq.ParquetWriter | None = None
        self._rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows or "refused" in self._file:
            return
        if self._writer is None:
            make_parents(self._path)
            # What is the least of a row group's array elements, or of its pictures, nobody asks. Of arrays it takes a
            # fifth of the writing; of pictures the footer would hold two of each row group.
            plain = [field.name for field in self._schema if not _is_long(field.type)]
            out = self.enter_context(self._path.open("wb"))
            self._writer = self.enter_context(pq.ParquetWriter(out, self._schema, write_statistics=plain))
        try:
            self._writer.write_batch(batch.select(self._schema.names).cast(self._schema))
        except (ValueError, TypeError, NotImplementedError) as error:  # Arrow's are kinds of these
            self._file["refused"] = str(error)
        self._rows += batch.num_rows

    def told(self) -> list[dict[str, Any]]:
        """The closed file, with the fields of `FILES`; no file where there was no row.

        Nulls and types that do not fit are told there: after an error Spark would run the task again.
        """
        if self._writer is None:
            return []
        if "refused" in self._file:
            return [self._file]
        return [self._file | {"bytes": self._path.stat().st_size, "rows": self._rows}]


def _is_long(type_: pa.DataType) -> bool:
    return bool(pa.types.is_nested(type_) or pa.types.is_binary(type_))


def _escaped(key: str) -> str:
    """A folder's name, as Spark reads a partition's value from it; without what is special in a path or a pattern."""
    return "".join(c if c.isalnum() or c in "_-." or ord(c) > 127 else f"%{ord(c):02X}" for c in key)
