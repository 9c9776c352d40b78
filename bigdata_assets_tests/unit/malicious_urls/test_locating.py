"""A record is found again at the position that reading has told, in files of all kinds, as it stands there."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from bigdata_assets.malicious_urls.logic import locating
from bigdata_assets.malicious_urls.logic.locating import record
from bigdata_assets.malicious_urls.logic.reading import plan_splits, read_split

TEXT = (
    b"# a feed\r\nurl,type\r\nhttp://a.example.org/1,benign\r\n\r\n"
    b'"http://b.example.org/x\r\ny",phishing\r\nhxxp://c.example[.]org,benign\rhttp://d.example.org,benign\n'
    b"http:///none,benign\nhttp://e.example.org/last,benign"
)
LINES = [3, 5, 7, 8, 9, 10]


def rows_of(path: Path) -> list[tuple[int, str]]:
    """Position of each record, and what of it must be there."""
    rows = [row for split in plan_splits(UPath(path)) for batch in read_split(split) for row in batch.to_pylist()]
    told = [(row["position"], row["as_given"] or row["url"] or row["raw"].decode()) for row in rows]
    return sorted(told)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("plain.csv", TEXT),
        ("packed.csv.gz", gzip.compress(TEXT)),
        ("wide.csv", TEXT.decode().encode("utf-16")),
        ("marked.csv", b"\xef\xbb\xbf" + TEXT),
    ],
    ids=["plain", "packed", "utf-16", "marked"],  # from the bytes, two processes of the tests would find two tests
)
def test_a_line_is_the_one_that_was_read(
    tmp_path: Path, name: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    rows = rows_of(path)
    assert len(rows) == len(LINES)
    for block_bytes in (locating.BLOCK_BYTES, 7, 1):
        monkeypatch.setattr(locating, "BLOCK_BYTES", block_bytes)
        found = [record(UPath(path), position) for position, _ in rows]
        assert [one.line for one in found] == LINES
        for one, (_, text) in zip(found, rows, strict=True):
            assert text.encode() in one.data
        assert found[0].data == b"http://a.example.org/1,benign\r\n"
        assert found[1].data == b'"http://b.example.org/x\r\ny",phishing\r\n'
        assert found[2].data == b"hxxp://c.example[.]org,benign\r"
        assert found[-1].data == b"http://e.example.org/last,benign"


def test_a_row_of_a_parquet_file(tmp_path: Path) -> None:
    urls = [f"http://host{n}.example.org" for n in range(25)]
    pq.write_table(pa.table({"url": urls, "other": range(25)}), tmp_path / "a.parquet", row_group_size=10)
    for position, url in rows_of(tmp_path / "a.parquet"):
        one = record(UPath(tmp_path / "a.parquet"), position)
        assert one.line == position + 1
        assert one.data == repr({"url": url, "other": position}).encode()


def test_what_is_beyond_the_end_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(TEXT)
    pq.write_table(pa.table({"url": ["a.example.org"]}), tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        with pytest.raises(ValueError, match="there is n"):
            record(UPath(tmp_path / name), 10_000)
    with pytest.raises(FileNotFoundError):
        record(UPath(tmp_path / "gone.csv"), 0)
