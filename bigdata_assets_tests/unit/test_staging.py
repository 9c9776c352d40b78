"""What a worker writes for the `delta` IO manager to commit; without Spark."""

from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import types as T
from upath import UPath

from bigdata_assets.io_managers.staging import FILES, Staging

COLUMNS = T.StructType(
    [
        T.StructField("n", T.LongType(), nullable=False),
        T.StructField("pixels", T.ArrayType(T.FloatType(), containsNull=False), nullable=False),
    ]
)


def staging(folder, partition_column="part"):
    return Staging(str(folder), COLUMNS.json(), partition_column)


def batch(*numbers, **columns):
    pixels = pa.array([[0.5, n] for n in numbers], pa.list_(pa.float32()))
    return pa.record_batch({"more": ["x"] * len(numbers), "pixels": pixels, "n": pa.array(numbers), **columns})


def test_batches_become_one_file_that_is_told(tmp_path):
    (file,) = staging(tmp_path / "new").write([batch(1, 2), batch(), batch(3)], "a")
    assert pa.RecordBatch.from_pylist([file], schema=FILES).to_pylist() == [file | {"refused": None}]
    path = tmp_path / "new" / file["file"]
    assert path.parent.name == "part=a"
    assert (file["partition"], file["rows"], file["bytes"]) == ("a", 3, path.stat().st_size)
    stored = pq.ParquetFile(path)
    assert stored.read().to_pylist() == [{"n": n, "pixels": [0.5, n]} for n in (1, 2, 3)]
    assert stored.num_row_groups == 2, "a batch is written before the next is made"
    assert [stored.schema.column(place).path for place in range(2)] == ["n", "pixels.list.element"]
    assert stored.schema_arrow.field("pixels").type == pa.list_(pa.field("element", pa.float32(), nullable=False))
    assert not any(stored.schema_arrow.field(name).nullable for name in ("n", "pixels"))


def test_a_footer_holds_neither_pictures_nor_arrays(tmp_path):
    columns = T.StructType([*COLUMNS.fields]).add("picture", T.BinaryType(), nullable=False)
    (file,) = Staging(str(tmp_path), columns.json(), None).write([batch(1, 2, picture=[b"a" * 100, b"b"])])
    group = pq.read_metadata(tmp_path / file["file"]).row_group(0)
    told = {group.column(place).path_in_schema: group.column(place).is_stats_set for place in range(3)}
    assert told == {"n": True, "pixels.list.element": False, "picture": False}


def test_a_batch_is_written_before_the_next_is_asked_for(tmp_path):
    def batches():
        for _ in range(3):
            yield batch(*range(30_000))
            sizes.append(sum(path.stat().st_size for path in tmp_path.rglob("*.parquet")))

    sizes = []
    staging(tmp_path).write(batches(), "a")
    assert 0 < sizes[0] < sizes[1] < sizes[2]


def test_without_rows_there_is_no_file(tmp_path):
    assert staging(tmp_path).write([], "a") == staging(tmp_path).write([batch()], "a") == []
    assert not list(tmp_path.iterdir())


def test_a_table_without_partitions_has_its_files_at_the_top(tmp_path):
    (file,) = staging(tmp_path, None).write([batch(1)])
    assert file["partition"] is None
    assert (tmp_path / file["file"]).parent == tmp_path


@pytest.mark.parametrize("key", ["it's", "a=b/c d", "..", "a*b?[c]{d}", "%2F", 'a"\\b', "ä ☃"])
def test_any_key_is_a_folder_that_no_pattern_finds_more_in(tmp_path, key):
    (file,) = staging(tmp_path).write([batch(1)], key)
    folder, _ = file["file"].split("/")
    assert unquote(folder) == f"part={key}"
    assert not set(folder) & set("*?[]{}'\"\\ ")
    assert (tmp_path / file["file"]).is_file()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (batch(1, n=pa.array([None], pa.int64())), "'n' with null values"),
        (batch(1, pixels=pa.array([[None]], pa.list_(pa.float32()))), "'element' is declared non-nullable"),
        (batch(1, n=pa.array(["many"])), "many"),
    ],
)
def test_rows_that_do_not_fit_are_told_and_are_no_error(tmp_path, bad, reason):
    (file,) = staging(tmp_path).write([batch(1), bad, batch(2)], "a")
    assert reason in file["refused"]
    assert "rows" not in file


def test_what_fails_while_rows_are_made_is_an_error(tmp_path):
    def batches():
        yield batch(1)
        raise ValueError("the disk")

    with pytest.raises(ValueError, match="the disk"):
        staging(tmp_path).write(batches(), "a")


def test_an_object_store_is_written_to_as_a_folder_is():
    (file,) = staging("memory://bucket/table").write([batch(1)], "a")
    with UPath("memory://bucket/table", file["file"]).open("rb") as stored:
        assert pq.read_table(stored)["n"].to_pylist() == [1]
