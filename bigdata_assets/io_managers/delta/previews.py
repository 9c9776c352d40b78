"""What the UI is told of written rows: the first ones, and of several partitions those of each."""

import shlex
from collections import Counter
from itertools import pairwise
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
from pyspark.sql.types import ArrayType, BinaryType

from bigdata_assets.tables import Table
from bigdata_assets.tracing.where import condition

PREVIEW_ROWS = 10
TRACE = "trace"
"""Metadata with the command that shows where a row comes from."""


def by_partition(table: Table, rows: pa.Table) -> tuple[Counter[str], dict[str, pa.Table]]:
    """How many rows each partition has, and its first ones."""
    column = rows[str(table.partition_column)].combine_chunks().dictionary_encode()
    codes, keys = column.indices.to_numpy(), column.dictionary.to_pylist()
    order = codes.argsort(kind="stable")
    counts = Counter(dict(zip(keys, np.bincount(codes, minlength=len(keys)).tolist(), strict=True)))
    starts = np.cumsum([0, *counts.values()])
    chosen = [order[start : min(start + PREVIEW_ROWS, end)] for start, end in pairwise(starts)]
    # Taken at once: for each, Arrow would join all the table's chunks anew.
    taken, places = rows.take(np.concatenate([order[:0], *chosen])), np.cumsum([0, *map(len, chosen)])
    first = {key: taken.slice(start, end - start) for key, (start, end) in zip(keys, pairwise(places), strict=True)}
    return counts, first


def preview(table: Table, rows: pa.Table) -> dg.TableMetadataValue:
    """The first rows of a write as a table in the UI, cells cut to a readable length."""
    names = previewed(table)
    records = [dg.TableRecord({name: _cell(row[name]) for name in names}) for row in rows.select(names).to_pylist()]
    schema = dg.TableSchema([dg.TableColumn(c.name, c.type.simpleString()) for c in table.columns if c.name in names])
    return dg.MetadataValue.table(records=records, schema=schema)


def told_of(table: Table, rows: pa.Table) -> dict[str, Any]:
    """What the UI is told of the first rows of a write: these, and how one of them is traced back to its source."""
    told: dict[str, Any] = {"preview": preview(table, rows)}
    if table.known_by and rows.num_rows:
        (first,) = rows.slice(0, 1).select(list(table.known_by)).to_pylist()
        where = condition(first, table.known_by)
        told[TRACE] = f"bigdata-assets trace {table.path} --where {shlex.quote(where)}"
    return told


def previewed(table: Table) -> list[str]:
    """The columns that a preview shows. Not arrays and bytes: pixels and pictures say nothing and take long to read."""
    return [column.name for column in table.columns if not isinstance(column.type, ArrayType | BinaryType)]


def _cell(value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)  # JSON has no NaN
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
