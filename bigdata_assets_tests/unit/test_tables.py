import pytest
from pyspark.sql.types import DoubleType, LongType, StringType, StructField, StructType

from bigdata_assets.catalogue import column_schema
from bigdata_assets.tables import Column, Table, sql_name

TABLE = Table(
    "toy",
    "rows",
    "O'Brien's rows",
    (
        Column("part", StringType(), "The key."),
        Column("n", LongType(), "It's a count.", check="n >= 0"),
        Column("share", DoubleType(), "A share.", nullable=True),
    ),
    partition_column="part",
    checks={"share_of_none": "n > 0 OR share IS NULL"},
)


def test_every_check_is_a_property_that_older_writers_may_not_ignore():
    assert TABLE.properties == {
        "bigdata_assets.table": "toy/rows",
        "delta.constraints.n_valid": "n >= 0",
        "delta.constraints.share_of_none": "n > 0 OR share IS NULL",
        "delta.minWriterVersion": "3",
    }
    assert "delta.minWriterVersion" not in Table("toy", "rows", "Rows.", TABLE.columns[:1]).properties


def test_files_of_many_small_partitions_are_not_kept_apart():
    table = Table("toy", "rows", "Rows.", TABLE.columns, partition_column="part", partitioned_files=False)
    assert (TABLE.file_partitioning, table.file_partitioning) == (["part"], [])


def test_difference_names_missing_extra_and_mistyped_columns():
    schema = StructType(
        [StructField("part", StringType()), StructField("n", StringType()), StructField("x", LongType())]
    )
    assert TABLE.difference(schema) == [
        "column `share` (double) is missing",
        "column `x` (bigint) is not declared",
        "column `n` is string, declared bigint",
    ]
    assert TABLE.difference(TABLE.spark_schema) == []


def test_the_order_of_columns_does_not_matter():
    assert TABLE.difference(StructType(list(reversed(TABLE.spark_schema.fields)))) == []


@pytest.mark.parametrize("name", ["Rows", "a b", "x;drop", "", "1a"])
def test_a_name_that_is_no_identifier_is_refused(name):
    with pytest.raises(ValueError, match="identifier"):
        Table("toy", name, "Rows.", TABLE.columns)


def test_a_column_declared_twice_and_an_unknown_partition_column_are_refused():
    with pytest.raises(ValueError, match="twice"):
        Table("toy", "rows", "Rows.", (TABLE.columns[0], TABLE.columns[0]))
    with pytest.raises(ValueError, match="partition column"):
        Table("toy", "rows", "Rows.", TABLE.columns, partition_column="nope")


def test_the_catalogue_shows_types_descriptions_and_constraints():
    columns = {column.name: column for column in column_schema(TABLE).columns}
    assert columns["n"].type == "bigint"
    assert columns["n"].constraints.other == ["n >= 0"]
    assert not columns["n"].constraints.nullable
    assert columns["share"].constraints.nullable


def test_sql_quoting():
    assert sql_name("a`b") == "`a``b`"
