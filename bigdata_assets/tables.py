"""One declaration per table: its Spark and Arrow schemas and its constraints. Spark's workers read it too.

What Dagster says of a table is made of it in catalogue.py; rows are read and written by the `delta` IO manager.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from pyspark.sql.types import DataType, StructField, StructType

if TYPE_CHECKING:
    import dagster as dg
    import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """A column: its name (ending in its unit, where it has one), Spark type, meaning, and what its values must obey."""

    name: str
    type: DataType
    description: str
    nullable: bool = False
    check: str | None = None
    """SQL condition on each value, kept by Delta as a CHECK constraint: a write that breaks it fails as a whole."""


@dataclass(frozen=True)
class Table:
    """A Delta table; `branch/name` is its asset key and its path below BIGDATA_STORAGE.

    Attributes:
        partition_column: the column that holds the Dagster partition key, for a partitioned asset.
        known_by: columns that a row is known by, of a table whose rows people want traced: predictions.
        partitioned_files: whether files are kept apart by that column. Not for many small partitions
            (Kafka batches): there the column is an ordinary one and files are compacted over batches.
    """

    branch: str
    name: str
    description: str
    columns: tuple[Column, ...]
    partition_column: str | None = None
    partitioned_files: bool = True
    checks: Mapping[str, str] = field(default_factory=dict)
    """Further conditions over several columns, by constraint name."""
    known_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.path}: a column is declared twice in {names}")
        if self.partition_column and self.partition_column not in names:
            raise ValueError(f"{self.path}: partition column {self.partition_column!r} is not one of {names}")
        if strange := [name for name in self.known_by if name not in names]:
            raise ValueError(f"{self.path}: known by {strange}, which are not among {names}")
        for name in [self.branch, self.name, *names, *self.checks]:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"{self.path}: {name!r} is not a lower-case SQL identifier")

    @property
    def key(self) -> "dg.AssetKey":
        """Not asked for by workers, which have no need of Dagster and do not import it."""
        from dagster import AssetKey

        return AssetKey([self.branch, self.name])

    @property
    def path(self) -> str:
        return f"{self.branch}/{self.name}"

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]

    @cached_property
    def spark_schema(self) -> StructType:
        return StructType([StructField(c.name, c.type, c.nullable, {"comment": c.description}) for c in self.columns])

    @cached_property
    def arrow_schema(self) -> "pa.Schema":
        return to_arrow(self.spark_schema)

    @property
    def constraints(self) -> dict[str, str]:
        """CHECK constraints by name."""
        return {f"{c.name}_valid": c.check for c in self.columns if c.check} | dict(self.checks)

    @property
    def checks_kept(self) -> dict[str, str]:
        """The CHECK constraints as properties of a Delta table."""
        return {f"delta.constraints.{name}": condition for name, condition in self.constraints.items()}

    @property
    def properties(self) -> dict[str, str]:
        """Delta table properties. CHECKs are among them so that no moment is without them; writers of a version that
        would not keep them are shut out.
        """
        checks = self.checks_kept
        return {"bigdata_assets.table": self.path, **checks, **({"delta.minWriterVersion": "3"} if checks else {})}

    @property
    def file_partitioning(self) -> list[str]:
        """The columns that files are kept apart by."""
        return [self.partition_column] if self.partition_column and self.partitioned_files else []

    def addable(self, stored: StructType) -> list[StructField]:
        """Nullable columns that were declared after the table was stored: its rows have none of them."""
        return [field for field in self.spark_schema if field.nullable and field.name not in stored.fieldNames()]

    def difference(self, schema: StructType) -> list[str]:
        """How a frame's or a stored table's columns differ from the declared ones; empty when they fit.

        Order and nullability are left out: columns are matched by name, and Delta itself refuses a null where NOT NULL
        is declared.
        """
        found = {f.name: f.dataType.simpleString() for f in schema.fields}
        declared = {c.name: c.type.simpleString() for c in self.columns}
        return [
            *(f"column `{n}` ({declared[n]}) is missing" for n in declared if n not in found),
            *(f"column `{n}` ({found[n]}) is not declared" for n in found if n not in declared),
            *(
                f"column `{n}` is {found[n]}, declared {declared[n]}"
                for n in declared
                if n in found and found[n] != declared[n]
            ),
        ]


def row_schema(*columns: Column) -> StructType:
    """Of rows on their way to one of several tables, such as a good one and its quarantine: all may be null."""
    types = {column.name: column.type for column in columns}
    return StructType([StructField(name, type_) for name, type_ in types.items()])


def to_arrow(schema: StructType) -> "pa.Schema":
    """The same in Arrow. Timestamps are microseconds in UTC, as Delta keeps them."""
    from pyspark.sql.pandas.types import to_arrow_schema

    return to_arrow_schema(schema, timezone="UTC")


def sql_name(value: str) -> str:
    """A quoted Spark SQL identifier."""
    return "`" + value.replace("`", "``") + "`"
