import gzip
import os
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from bigdata_assets.malicious_urls.logic import reading
from bigdata_assets.malicious_urls.logic.reading import plan_splits, read_split, usable_url
from bigdata_assets.reading import FileChangedError


def rows_of(path, split_bytes=reading.SPLIT_BYTES):
    splits = plan_splits(UPath(path), split_bytes)
    return [row for split in splits for batch in read_split(split) for row in batch.to_pylist()]


def written(tmp_path, content, name="batch.csv"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_rows_carry_their_position_label_domain_and_file(tmp_path):
    path = written(tmp_path, b"url,type\nhttp://a.example.com/x,benign\nb.example.org,phishing\n")
    first, second = rows_of(path)
    assert (first["url"], first["label"], first["registered_domain"]) == (
        "http://a.example.com/x",
        "benign",
        "example.com",
    )
    assert (first["position"], second["position"]) == (9, 39)
    assert first["batch"] == "batch.csv"
    assert first["reason"] is None
    assert first["landed_at"] == datetime.fromtimestamp(path.stat().st_mtime, UTC)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"a.com,b,c", "3 fields where the header has 2"),
        (b'"a.com,benign', "1 fields where the header has 2"),
        (b",benign", "empty"),
        (b"\xff\xfe,benign", "not UTF-8"),
        (b"a.com/\x00,benign", "characters that are no text"),
        ("a.com/\ufffd,benign".encode(), "characters that are no text"),
        (b"http:///,benign", "no host"),
        (b"a.com/" + b"x" * 9000 + b",benign", "longer than 8192 bytes"),
        (b"x" * 100_000, "a line longer than 65536 bytes"),
    ],
)
def test_a_broken_line_is_kept_with_its_reason_and_the_next_one_is_read(tmp_path, line, reason):
    broken, good = rows_of(written(tmp_path, b"url,type\n" + line + b"\ngood.com,benign\n"))
    assert broken["reason"] == reason
    assert broken["url"] is None
    assert line.startswith(broken["raw"]) or broken["raw"] in line
    assert good["url"] == "good.com"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"", "the file is empty"),
        ("a.csv", b"link,type\na.com,benign\n", "no column `url`"),
        ("a.csv", bytes(range(128, 256)) * 20, "not text"),
        ("a.csv", b"x" * 200_000, "header is longer"),
        ("a.csv.gz", b"not gzip at all", "gzip"),
        ("a.parquet", b"PAR1 but not really", "arquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_row_of_quarantine(tmp_path, name, content, reason):
    (row,) = rows_of(written(tmp_path, content, name))
    assert reason in row["reason"]
    assert row["length_bytes"] == len(content)
    assert content.startswith(row["raw"])


def test_a_parquet_file_of_other_columns_is_quarantined(tmp_path):
    pq.write_table(pa.table({"url": [1, 2]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"link": ["a.com"]}), tmp_path / "b.parquet")
    assert "column `url` is int64" in rows_of(tmp_path / "a.parquet")[0]["reason"]
    assert "no column `url`" in rows_of(tmp_path / "b.parquet")[0]["reason"]


def test_parquet_rows_are_numbered_over_row_groups_and_bad_ones_quarantined(tmp_path):
    urls = pa.array([b"a.com", None, b"\xff\xff", b"b.com", b"c.com"], pa.binary())
    pq.write_table(pa.table({"url": urls, "type": [0, 1, 1, 0, 1]}), tmp_path / "a.parquet", row_group_size=2)
    rows = rows_of(tmp_path / "a.parquet")
    assert [row["position"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["reason"] for row in rows] == [None, "empty", "not UTF-8", None, None]
    assert [row["label"] for row in rows] == ["0", "1", "1", "0", "1"]


def test_a_gzip_that_is_cut_off_gives_what_it_has_and_says_so(tmp_path):
    whole = gzip.compress(b"url\n" + b"".join(b"host%d.com/%d\n" % (n, n * n) for n in range(50_000)))
    rows = rows_of(written(tmp_path, whole[: len(whole) // 2], "a.csv.gz"))
    assert len(rows) > 1000
    assert all(row["reason"] is None for row in rows[:-1])
    assert "the rest of the file is broken" in rows[-1]["reason"]


def test_a_gzip_bomb_is_read_up_to_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_EXPANDED_BYTES", 1000)
    path = written(tmp_path, gzip.compress(b"url\n" + b"a.com\n" * 10_000), "a.csv.gz")
    assert len(rows_of(path)) < 200


def test_a_line_of_ten_megabytes_needs_little_memory(tmp_path):
    import tracemalloc

    path = written(tmp_path, b"url\na.com\n" + b"y" * 10_000_000 + b"\nb.com\n")
    tracemalloc.start()
    first, long, last = rows_of(path, split_bytes=1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (first["url"], last["url"]) == ("a.com", "b.com")
    assert long["length_bytes"] == 10_000_001
    assert len(long["raw"]) == reading.MAX_LINE_BYTES
    assert peak < 5_000_000


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path):
    path = written(tmp_path, b"url\na.com\n")
    splits = plan_splits(UPath(path))
    path.write_bytes(b"url\na.com\nb.com\n")
    with pytest.raises(FileChangedError, match="run this again when it has settled"):
        list(read_split(splits[0]))


@pytest.mark.parametrize("name", ["a.csv", "empty.csv", "a.parquet"])
def test_a_file_that_is_rewritten_at_its_size_while_it_is_read_is_refused(tmp_path, name):
    rows = 2 * reading.BATCH_ROWS
    path = written(tmp_path, b"url\n" + b"a.com\n" * rows if name == "a.csv" else b"", name)
    if name == "a.parquet":
        pq.write_table(pa.table({"url": ["a.com"] * rows}), path)
    batches = read_split(plan_splits(UPath(path))[0])
    assert next(batches).num_rows
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    with pytest.raises(FileChangedError, match=rf"{name} was written while it was read"):
        list(batches)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"").replace(b"\r", b"")), max_size=20),
    st.integers(1, 64),
    st.booleans(),
)
def test_wherever_a_file_is_split_each_line_is_read_exactly_once(tmp_path_factory, lines, split_bytes, ended):
    content = b"url\n" + b"\n".join(lines) + (b"\n" if ended else b"")
    path = written(tmp_path_factory.mktemp("split"), content)
    rows = rows_of(path, split_bytes)
    expected = [line for line in lines if line]
    assert len(rows) == len(expected)
    assert [row["position"] for row in rows] == sorted({row["position"] for row in rows})
    for row, line in zip(rows, expected, strict=True):
        assert content[row["position"] :].startswith(line)
        if row["reason"] is None:
            assert row["url"] == usable_url(line if b'"' not in line else reading._fields(line)[0])[0]
