"""The `delta` IO manager: what assets return becomes their tables, and their inputs are read at one version."""

from collections.abc import Iterable, Sequence

import dagster as dg
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame

from bigdata_assets.io_managers import provenance
from bigdata_assets.io_managers.delta.commits import DeltaWriter, Written, arrow_table
from bigdata_assets.io_managers.delta.previews import PREVIEW_ROWS, by_partition, preview, previewed, told_of
from bigdata_assets.io_managers.delta.reading import DeltaTableError, among, first_rows
from bigdata_assets.io_managers.staging import StagedFiles
from bigdata_assets.resources.spark import SparkResource
from bigdata_assets.runs.ranges import tell_partitions
from bigdata_assets.tables import Table

ROW_COUNT, PARTITION_ROW_COUNT = "dagster/row_count", "dagster/partition_row_count"
"""Of a table, and of a partition of one: Dagster's own names for the two."""


class DeltaIOManager(DeltaWriter, dg.IOManager):
    """Stores Spark, pandas and Arrow frames and staged files as the Delta tables that are declared for their assets."""

    def __init__(self, storage: str, spark: SparkResource, tables: Iterable[Table]) -> None:
        super().__init__(storage, spark)
        self._tables = {table.key: table for table in tables}

    def handle_output(self, context: dg.OutputContext, obj: Written) -> None:
        table = self.table(context.asset_key)
        keys = sorted(context.asset_partition_keys) if context.has_asset_partitions else None
        if (keys is not None) != (table.partition_column is not None):
            raise DeltaTableError(
                f"{table.path}: the asset is {'' if keys else 'not '}partitioned but its table declares "
                f"partition_column={table.partition_column!r}; make tables.py and the asset agree."
            )
        if not isinstance(obj, DataFrame | StagedFiles):
            obj = arrow_table(table, obj)
        version, rows, n_bytes = self.write(table, obj, keys, run_id=context.run_id)
        provenance.stored(context, version)
        first = obj.slice(0, PREVIEW_ROWS) if isinstance(obj, pa.Table) else self._first_rows(table, version, keys)
        context.add_output_metadata(
            {
                "path": self.location(table),
                "delta_version": version,
                "run_id_in_delta": context.run_id,
                ROW_COUNT if keys is None else PARTITION_ROW_COUNT: rows,
                "bytes": n_bytes,
                # Of several partitions each is told of its own row: a run's metadata are copied to all of them.
                **(told_of(table, first) if keys is None or len(keys) == 1 else {"preview": preview(table, first)}),
            }
        )
        context.log.info("%s: %d rows in version %d", table.path, rows, version)
        if keys is not None and len(keys) > 1:
            self._add_partition_metadata(context, table, version, keys, obj)

    def _add_partition_metadata(
        self, context: dg.OutputContext, table: Table, version: int, keys: Sequence[str], obj: Written
    ) -> None:
        """Rows of each partition: Dagster copies a run's output metadata to every one of them, whole."""
        if isinstance(obj, pa.Table):
            counts, first = by_partition(table, obj)
        else:
            counts = self.rows_by_partition(table, keys, version)
            stored = self.stored(table, version)
            first = {key: first_rows(stored, PREVIEW_ROWS, among(table, [key]), previewed(table)) for key in keys}
        nothing = table.arrow_schema.empty_table()
        told = {key: {PARTITION_ROW_COUNT: counts[key], **told_of(table, first.get(key, nothing))} for key in keys}
        tell_partitions(context.step_context, context.asset_key, told)

    def _first_rows(self, table: Table, version: int, keys: Sequence[str] | None) -> pa.Table:
        return first_rows(self.stored(table, version), PREVIEW_ROWS, among(table, keys), previewed(table))

    def load_input(self, context: dg.InputContext) -> DataFrame | pd.DataFrame | pa.Table:
        """The upstream table as the input's annotation asks for it: a Spark frame, pandas or Arrow.

        One version is read, resolved now or named by the input's metadata `delta_version`, so that a lazy Spark frame
        that is evaluated twice sees the same rows although others write. Partitions: those mapped to this step's.
        """
        table = self.table(context.asset_key)
        wanted = (context.definition_metadata or {}).get("delta_version")
        version = self.version(table) if wanted is None else int(wanted)
        provenance.loaded(context, version)
        keys = sorted(context.asset_partition_keys) if context.has_asset_partitions else None
        context.log.info("%s: reading version %d%s", table.path, version, f", {len(keys)} partitions" if keys else "")
        kind = context.dagster_type.typing_type
        if kind not in (pd.DataFrame, pa.Table):
            return self.read(table, keys, version)
        rows = self.read_arrow(table, keys, version=version)
        return rows if kind is pa.Table else rows.to_pandas()

    def table(self, key: dg.AssetKey) -> Table:
        if key not in self._tables:
            raise DeltaTableError(
                f"No table is declared for asset {key.to_user_string()}: declare it in the branch's tables.py."
            )
        return self._tables[key]


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
