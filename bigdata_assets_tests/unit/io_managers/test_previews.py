"""What the UI is told of written rows."""

import shlex

import pyarrow as pa
import pytest
from pyspark.sql.types import LongType, StringType

from bigdata_assets.io_managers.delta.previews import TRACE, told_of
from bigdata_assets.tables import Column, Table
from bigdata_assets.tracing.where import parse

COLUMNS = (Column("batch", StringType(), "The key."), Column("n", LongType(), "A number.", nullable=True))
PREDICTIONS = Table("toy", "predictions", "Rows.", COLUMNS, known_by=("batch", "n"))
ROWS = pa.table({"batch": ["it's; rm -rf $HOME", "b"], "n": pa.array([None, 1], pa.int64())})


def test_of_predictions_the_command_that_traces_the_first_row() -> None:
    *command, where = shlex.split(told_of(PREDICTIONS, ROWS)[TRACE])
    assert command == ["bigdata-assets", "trace", "toy/predictions", "--where"]
    assert ROWS.filter(parse(where, ROWS.schema)) == ROWS.slice(0, 1)


def test_of_other_tables_and_without_rows_there_is_none() -> None:
    assert TRACE not in told_of(Table("toy", "rows", "Rows.", COLUMNS), ROWS)
    assert TRACE not in told_of(PREDICTIONS, ROWS.slice(0, 0))


def test_a_table_is_known_by_columns_that_it_has() -> None:
    with pytest.raises(ValueError, match="known by"):
        Table("toy", "rows", "Rows.", COLUMNS, known_by=("batch", "m"))
