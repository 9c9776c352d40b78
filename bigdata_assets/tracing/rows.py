"""Rows of stored tables by what an expression lets through: only the row groups that have some are read whole."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from bigdata_assets.io_managers.delta import protocol
from bigdata_assets.io_managers.delta.reading import DeltaReader, scanner
from bigdata_assets.tables import Table

IN_ORDER: Mapping[str, Any] = {"use_threads": False, "fragment_readahead": 0, "batch_readahead": 0}
"""A scan that is cut short must have nothing under way: it would abort the process at its exit."""
BATCH_ROWS = 65_536


class Tables:
    """Tables as they are at the first look at each."""

    def __init__(self, reader: DeltaReader) -> None:
        self._reader = reader
        self._stored: dict[str, Any] = {}
        self._datasets: dict[str, ds.Dataset] = {}

    def exists(self, table: Table) -> bool:
        """Whether anything was ever stored there."""
        return table.path in self._stored or self._reader.exists(table)

    def stored(self, table: Table) -> Any:
        """Its log (a `deltalake.DeltaTable`).

        Raises:
            DeltaTableError: nothing is stored there, or by an engine with a newer protocol.
        """
        if table.path not in self._stored:
            self._stored[table.path] = self._reader.stored(table)
        return self._stored[table.path]

    def schema(self, table: Table) -> pa.Schema:
        """Of the stored table: it may lack columns that were declared later."""
        if self._is_dataset(table):
            return self._dataset(table).schema
        return pa.schema(self.stored(table).schema().to_arrow())

    def find(self, table: Table, wanted: ds.Expression, most: int) -> tuple[list[dict[str, Any]], bool]:
        """The first rows, at most so many, and whether there are more."""
        rows: list[dict[str, Any]] = []
        for part in self._parts(table, wanted):
            rows += part.head(most + 1 - len(rows)).to_pylist()
            if len(rows) > most:
                return rows[:most], True
        return rows, False

    def batches(self, table: Table, wanted: ds.Expression, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns of all rows, a batch at a time."""
        if self._is_dataset(table):
            yield from self._dataset(table).scanner(columns=list(columns), filter=wanted, **IN_ORDER).to_batches()
        else:
            yield from scanner(self.stored(table), columns, wanted).to_batches()

    def _is_dataset(self, table: Table) -> bool:
        return protocol.is_dataset(self.stored(table))

    def _dataset(self, table: Table) -> ds.Dataset:
        if table.path not in self._datasets:
            self._datasets[table.path] = self.stored(table).to_pyarrow_dataset()
        return self._datasets[table.path]

    def _parts(self, table: Table, wanted: ds.Expression) -> Iterator[ds.Scanner]:
        """What has rows that fit; pictures of other row groups are not read."""
        if not self._is_dataset(table):
            yield scanner(self.stored(table), None, wanted)
            return
        dataset = self._dataset(table)
        for file in dataset.get_fragments(filter=wanted):
            for group in file.split_by_row_group(filter=wanted, schema=dataset.schema):
                looked = partial(group.scanner, schema=dataset.schema, filter=wanted)
                if looked(columns=[]).count_rows():  # which waits for ever without reading ahead
                    yield looked(batch_size=BATCH_ROWS, **IN_ORDER)
