"""Delta tables: created from their declaration, replaced by partition, read at one version."""

from bigdata_assets.io_managers.delta.commits import arrow_table
from bigdata_assets.io_managers.delta.io_manager import DeltaIOManager, delta_io_manager
from bigdata_assets.io_managers.delta.reading import DeltaTableError, first_rows, open_table, spark_schema

__all__ = [
    "DeltaIOManager",
    "DeltaTableError",
    "arrow_table",
    "delta_io_manager",
    "first_rows",
    "open_table",
    "spark_schema",
]
