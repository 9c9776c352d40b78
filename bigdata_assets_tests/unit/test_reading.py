"""Files that change while they are read, and rows that a worker stages for two tables; without Spark."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import types as T
from upath import UPath

from bigdata_assets.io_managers.staging import Staging
from bigdata_assets.reading import STAGED, FileChangedError, InputFile, stage_batches, stage_split

GOOD = T.StructType().add("n", T.LongType(), nullable=False)
BAD = T.StructType().add("reason", T.StringType(), nullable=False)


@pytest.fixture
def file(tmp_path):
    (tmp_path / "in é.csv").write_text("a")
    return InputFile.planned(tmp_path / "in é.csv")


def batch(*rows):
    return pa.RecordBatch.from_pylist(
        [{"n": n, "reason": reason} for n, reason in rows], pa.schema([("n", pa.int64()), ("reason", pa.string())])
    )


def staged(tmp_path, batches, key="k"):
    usable, refused = (Staging(str(tmp_path / name), of.json(), "part") for name, of in (("u", GOOD), ("r", BAD)))
    found = stage_split(batches, key, usable, refused)
    assert found.schema == STAGED
    return found.to_pylist()


def rows_of(tmp_path, file):
    return pq.read_table(tmp_path / ("u" if file["usable"] else "r") / file["file"], partitioning=None).to_pylist()


def test_usable_and_refused_rows_of_a_split_are_a_file_each(tmp_path):
    good, bad = staged(tmp_path, [batch((1, None), (None, "why")), batch((2, None)), batch((None, "so"))])
    assert (good["partition"], good["rows"], bad["partition"], bad["rows"]) == ("k", 2, "k", 2)
    assert rows_of(tmp_path, good) == [{"n": 1}, {"n": 2}]
    assert rows_of(tmp_path, bad) == [{"reason": "why"}, {"reason": "so"}]
    (only,) = staged(tmp_path, [batch((None, "why"))])
    assert not only["usable"]
    assert staged(tmp_path, []) == []


def test_rows_of_several_partitions_are_a_file_each(tmp_path):
    usable, refused = (Staging(str(tmp_path / name), of.json(), "part") for name, of in (("u", GOOD), ("r", BAD)))
    keyed = [("a", batch((None, "why"), (1, None))), ("b", batch((2, None))), ("a", batch((3, None)))]
    told = stage_batches(keyed, usable, refused).to_pylist()
    assert [(file["usable"], file["partition"]) for file in told] == [(True, "a"), (True, "b"), (False, "a")]
    assert [rows_of(tmp_path, file) for file in told] == [[{"n": 1}, {"n": 3}], [{"n": 2}], [{"reason": "why"}]]


def test_what_does_not_fit_a_table_is_told(tmp_path):
    good, bad = staged(tmp_path, [batch((None, None), (None, "why"))])
    assert "null values" in good["refused"]
    assert bad["refused"] is None


def test_a_file_that_changes_is_told_and_not_raised_where_spark_would_try_again(tmp_path, file):
    def batches():
        yield batch((1, None))
        UPath(file.path).write_text("ab")

    (told,) = staged(tmp_path, file.unchanged(batches()))
    assert "in é.csv was written while it was read" in told["changed"]
    assert told["file"] is None


@pytest.mark.parametrize("change", ["size", "time", "gone"])
@pytest.mark.parametrize("when", ["before", "meanwhile", "broken"])
def test_a_change_is_noticed_at_either_end_and_before_what_it_broke(file, change, when):
    def write():
        path = UPath(file.path)
        if change == "gone":
            path.unlink()
        elif change == "size":
            path.write_text("ab")
        else:
            os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))

    def read():
        yield "part"
        if when != "before":
            write()
        if when == "broken":
            raise ValueError("half of one, half of the other")

    if when == "before":
        write()
    with pytest.raises(FileChangedError, match=r"in é\.csv was written"):
        list(file.unchanged(read()))


def test_a_file_that_does_not_change_is_read_and_its_errors_are_its_own(file):
    def broken():
        yield "part"
        raise ValueError("of its own")

    assert list(file.unchanged("ab")) == ["a", "b"]
    with pytest.raises(ValueError, match="of its own"):
        list(file.unchanged(broken()))


def test_an_object_is_known_by_its_etag_where_a_store_has_one(monkeypatch):
    path = UPath("memory://bucket/a.csv")
    path.write_text("a")
    info = path.fs.info(path.path)

    def version(**told):
        monkeypatch.setattr(type(path.fs), "info", lambda *_, **__: info | told)
        return InputFile.planned(path).version

    assert version(ETag="x", LastModified=1.5) == version(ETag="x", LastModified=1.0)
    assert version(ETag="x") != version(ETag="y")
    assert version(LastModified=1.5) != version(LastModified=1.0)
