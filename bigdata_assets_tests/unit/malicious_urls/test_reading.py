import csv
import errno
import gzip
import io
import os
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from upath import UPath

from bigdata_assets.malicious_urls.logic import reading, records
from bigdata_assets.malicious_urls.logic.reading import plan_splits, read_split
from bigdata_assets.malicious_urls.logic.urls import usable_url
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
        (b'"a.com,benign', "a quote that is not closed, or closed within a field"),
        (b'"a.com"x,benign', "a quote that is not closed, or closed within a field"),
        (b",benign", "empty"),
        (b"\xff\xfe,benign", "not UTF-8"),
        (b"a.com/\x00,benign", "characters that are no text"),
        ("a.com/\ufffd,benign".encode(), "characters that are no text"),
        (b"http:///,benign", "no host"),
        (b"a.com/" + b"x" * 9000 + b",benign", "longer than 8192 bytes"),
        (b"x" * 100_000, "a line longer than 65536 bytes"),
        (b"mailto:me@a.com,benign", "no host after mailto:"),
        (b"URL,Type", "the header again"),
        (b"\xef\xbb\xbfurl,type", "the header again"),
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
        ("a.csv", b"address,type\n12 High Street,benign\n", "no column `url` but 'address,type'"),
        ("a.csv", b"url,type\n".decode().encode("utf-16-le"), "not text"),
        ("a.csv", b"# a comment\n" * 50_000, "nothing but comments in its first"),
        ("a.csv", bytes(range(128, 256)) * 20, "not text"),
        ("a.csv", bytes(range(128, 256)) * 1_000, "not text"),
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
    pq.write_table(pa.table({"address": ["a.com"]}), tmp_path / "b.parquet")
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
    assert [row["url"] for row in rows[:-1]] == [f"host{n}.com/{n * n}" for n in range(len(rows) - 1)]


def test_a_gzip_bomb_is_read_up_to_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_EXPANDED_BYTES", 1000)
    path = written(tmp_path, gzip.compress(b"url\n" + b"a.com\n" * 10_000), "a.csv.gz")
    rows = rows_of(path)
    assert [row["url"] for row in rows] == ["a.com"] * 166 + [None]
    assert "the rest of the file is beyond" in rows[-1]["reason"]


def test_a_line_of_thirty_megabytes_needs_little_memory(tmp_path):
    import tracemalloc

    path = written(tmp_path, b"url\na.com\n" + b"y" * 30_000_000 + b"\nb.com\n")
    tracemalloc.start()
    first, long, last = rows_of(path, split_bytes=1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (first["url"], last["url"]) == ("a.com", "b.com")
    assert (long["position"], long["length_bytes"], last["position"]) == (10, 30_000_001, 30_000_011)
    assert len(long["raw"]) == reading.MAX_LINE_BYTES
    assert peak < 10_000_000


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


def urls_of(path, split_bytes=reading.SPLIT_BYTES):
    return [row["url"] for row in rows_of(path, split_bytes)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"url,type\rhttp://a.com/x,benign\rhttp://b.com/y,phishing\r", [("a.com", 9), ("b.com", 31)]),
        (b'url\n"http://a.com"\rhttp://b.com\nhttp://c.com\n', [("a.com", 4), ("b.com", 19), ("c.com", 32)]),
        (b"url\r\n\r\rhttp://a.com\n\rhttp://b.com", [("a.com", 7), ("b.com", 21)]),
        (b"url\r\nhttp://a.com\r\r\nhttp://b.com\r\n", [("a.com", 5), ("b.com", 20)]),
    ],
)
def test_a_carriage_return_ends_a_record(tmp_path, content, expected):
    rows = rows_of(written(tmp_path, content))
    assert [(row["registered_domain"], row["position"]) for row in rows] == expected


@pytest.mark.parametrize("split_bytes", [1, 7, 30, 10**6])
def test_a_record_in_quotes_may_have_line_breaks(tmp_path, split_bytes):
    content = b'url,note\n"http://a.com/x\ny=1",1\nhttp://b.com/,"two\r\n""lines\r"\nhttp://c.com,3\n'
    rows = rows_of(written(tmp_path, content), split_bytes)
    assert [row["url"] for row in rows] == ["http://a.com/xy=1", "http://b.com/", "http://c.com"]
    assert [row["as_given"] for row in rows] == ["http://a.com/x\ny=1", None, None]
    assert [row["length_bytes"] for row in rows] == [23, 30, 15]


@pytest.mark.parametrize("split_bytes", [50_000, 1 << 20, 1 << 30])
def test_an_open_quote_takes_its_line_and_no_more(tmp_path, split_bytes):
    lines = [b"http://host%d.example.org/,benign" % n for n in range(10_000)]
    lines[5_000] = b'"http://open.example.org/,benign'
    lines[7_000] = b'"http://closed-badly.example.org/,benign'
    lines[7_001] = b'"http://closed.example.org/","benign"'
    lines[8_000:8_003] = b'"http://a.example.org/', b"http://b.example.org/", b'http://c.example.org/",benign'
    rows = rows_of(written(tmp_path, b"url,type\n" + b"\n".join(lines)), split_bytes)
    assert len(rows) == len(lines) - 2
    refused = [(number, row["raw"], row["reason"]) for number, row in enumerate(rows) if row["reason"]]
    open_ = "a quote that is not closed, or closed within a field"
    assert refused == [
        (5_000, lines[5_000], open_),
        (7_000, lines[7_000], open_),
        (8_000, b"\n".join(lines[8_000:8_003]), "a line break within the host, or between URLs"),
    ]


def test_rows_in_either_notation_of_quotes_are_the_same(tmp_path):
    fields = ['http://a.com/?q="x",y', "http://b.com/'", "http://c.com"]
    texts = {}
    for quoting in (csv.QUOTE_ALL, csv.QUOTE_MINIMAL):
        lines = io.StringIO()
        csv.writer(lines, quoting=quoting).writerows([("url", "type"), *((url, "x") for url in fields)])
        texts[quoting] = urls_of(written(tmp_path, lines.getvalue().encode()))
    spaced = 'url, type\n"http://a.com/?q=""x"",y" , "x"\n http://b.com/\' ,x\n  "http://c.com","x"\n'
    assert texts[csv.QUOTE_ALL] == texts[csv.QUOTE_MINIMAL] == urls_of(written(tmp_path, spaced.encode())) == fields


@pytest.mark.parametrize("joint", ["\n", "\r\n", ""])
@pytest.mark.parametrize("header", ["url,type\n", "# a list\n# url,type\n"])
def test_files_put_one_after_the_other_are_read_as_one(tmp_path, joint, header):
    parts = [f"\ufeff{header}http://{name}.com/x,benign" for name in "abc"]
    rows = rows_of(written(tmp_path, joint.join(parts).encode()))
    assert [row["url"] for row in rows if not row["reason"]] == [f"http://{name}.com/x" for name in "abc"]
    assert [row["reason"] for row in rows if row["reason"]] == ["the header again"] * 2


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_encodings(tmp_path, coding, name):
    content = "url;label\r\nhttp://bücher.example/é;x\r\nhttp://b.com;y\r\n"
    packed = content.encode(coding)
    rows = rows_of(written(tmp_path, gzip.compress(packed) if name.endswith("gz") else packed, name), 10)
    assert [(row["url"], row["label"], row["registered_domain"]) for row in rows] == [
        ("http://bücher.example/é", "x", "xn--bcher-kva.example"),
        ("http://b.com", "y", "b.com"),
    ]
    assert rows[0]["position"] == 11 + 3 * (coding == "utf-8-sig")


def test_of_a_file_in_latin_1_only_the_rows_that_are_not_ascii_are_refused(tmp_path):
    rows = rows_of(written(tmp_path, "url\nhttp://a.com/é\nhttp://b.com\n".encode("latin-1")))
    assert [(row["url"], row["reason"]) for row in rows] == [(None, "not UTF-8"), ("http://b.com", None)]


@pytest.mark.parametrize("expected", [[], ["http://a.com"]])
def test_comments_and_blank_lines_are_no_records(tmp_path, expected):
    lines = ['# x, "y', "", *expected, "#, 'end'", "   ", "\t"]
    rows = rows_of(written(tmp_path, "\n".join(lines).encode()))
    assert [row["url"] for row in rows if row["reason"] is None] == expected
    assert [row["reason"] for row in rows if row["reason"]] == ["empty"] * (2 * len(expected))


def text_types():
    yield from (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())
    yield from (pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.large_string()))


@pytest.mark.parametrize("type_", text_types(), ids=str)
def test_parquet_of_other_writers(tmp_path, type_):
    values = pa.array(["http://a.com", None, "hxxp://b[.]com", "http://ü.com"])
    kind = type_.value_type if pa.types.is_dictionary(type_) else type_
    column = values.cast(kind).dictionary_encode().cast(type_) if kind is not type_ else values.cast(type_)
    point = pa.field("geometry", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})
    others = {
        "struct": pa.array([{"url": "http://x.com"}] * 4),
        "map": pa.array([[("a", 1)]] * 4, pa.map_(pa.string(), pa.int64())),
        "none": pa.nulls(4),
    }
    schema = pa.schema(
        [*((n, c.type) for n, c in others.items()), point, ("URL", type_), ("Label", pa.list_(pa.int8()))]
    )
    table = pa.table([*others.values(), [b""] * 4, column, [[1]] * 4], schema=schema)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    rows = rows_of(tmp_path / "a.parquet")
    assert [row["url"] for row in rows] == ["http://a.com", None, "http://b.com", "http://ü.com"]
    assert [row["as_given"] for row in rows] == [None, None, "hxxp://b[.]com", None]
    assert [row["reason"] for row in rows] == [None, "empty", None, None]
    assert [row["position"] for row in rows] == [0, 1, 2, 3]
    assert [row["label"] for row in rows] == [None] * 4


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array([b" x\xff", None], pa.binary()), ["x\ufffd", None]),
        (pa.array([1.5, None]), ["1.5", None]),
        (pa.array(["x", ""]).dictionary_encode(), ["x", None]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([[1], [2]]), [None, None]),
    ],
)
def test_labels_of_a_parquet_file_may_be_of_any_type(tmp_path, labels, expected):
    pq.write_table(pa.table({"Label": labels, "URL": ["a.com", "b.com"]}), tmp_path / "a.parquet")
    assert [row["label"] for row in rows_of(tmp_path / "a.parquet")] == expected


def test_a_parquet_file_without_rows_gives_none(tmp_path):
    pq.ParquetWriter(tmp_path / "a.parquet", pa.schema([("url", pa.string())])).close()
    pq.write_table(pa.table({"url": pa.array([], pa.string())}), tmp_path / "b.parquet")
    assert rows_of(tmp_path / "a.parquet") == rows_of(tmp_path / "b.parquet") == []


def test_long_values_of_a_parquet_file_come_in_small_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "BATCH_BYTES", 1 << 20)
    urls = [f"http://a.com/{n:050000}" for n in range(200)]
    pq.write_table(pa.table({"url": urls}), tmp_path / "a.parquet", use_dictionary=False, compression=None)
    batches = [b for split in plan_splits(UPath(tmp_path / "a.parquet")) for b in read_split(split)]
    assert max(batch.num_rows for batch in batches) <= 21
    assert sum(batch.num_rows for batch in batches) == 200


def test_private_suffixes_reach_the_rows(tmp_path):
    path = written(tmp_path, b"url\nhttp://x.y.github.io/\nhxxp://x.y.github[.]io/\n")
    for private, domain in ((False, "github.io"), (True, "y.github.io")):
        (split,) = plan_splits(UPath(path), private_suffixes=private)
        (batch,) = read_split(split)
        assert batch["registered_domain"].to_pylist() == [domain] * 2


URL_TEXTS = st.text(alphabet="abc,;|\t\" /'#é[.]", max_size=12)


@st.composite
def files(draw):
    """A file, its name, and its rows as its writer means them: (url, label)."""
    n_rows = draw(st.integers(0, 30))
    rows = [(f"http://h{n}.example/{draw(URL_TEXTS)}", draw(st.sampled_from(["", "x", "a b"]))) for n in range(n_rows)]
    separator = draw(st.sampled_from(",;|\t"))
    lines = io.StringIO(newline="")
    quoting = draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
    ending = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    writer = csv.writer(lines, delimiter=separator, quoting=quoting, lineterminator=ending)
    writer.writerows([("id", "Url", "type"), *((n, *row) for n, row in enumerate(rows))])
    text_ = lines.getvalue()
    if draw(st.booleans()):
        text_ = text_.removesuffix(ending)
    content = text_.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])))
    return (gzip.compress(content), "a.csv.gz", rows) if draw(st.booleans()) else (content, "a.csv", rows)


@settings(max_examples=150, deadline=None)
@given(files(), st.integers(1, 200))
def test_each_row_that_was_written_is_read(tmp_path_factory, file, split_bytes):
    content, name, written_rows = file
    rows = rows_of(written(tmp_path_factory.mktemp("file"), content, name), split_bytes)
    expected = [usable_url(url.encode()) for url, _ in written_rows]
    assert [(row["url"], row["reason"]) for row in rows] == [(found.url, found.reason) for found in expected]
    labels = [label.strip() or None for _, label in written_rows]
    assert [row["label"] for row in rows] == [
        None if row["reason"] else label for row, label in zip(rows, labels, strict=True)
    ]


def test_a_large_text_is_read_by_many_tasks_and_a_packed_one_by_one(tmp_path):
    content = b"url\n" + b"http://a.com/x\n" * 1_000
    splits = plan_splits(UPath(written(tmp_path, content)), 1_000)
    assert 14 <= len(splits) <= 15
    assert [split.start for split in splits[1:]] == [split.end for split in splits[:-1]]
    assert all((split.start - 4) % 15 == 0 for split in splits)
    assert len(plan_splits(UPath(written(tmp_path, gzip.compress(content), "a.csv.gz")), 1_000)) == 1


PIECES = st.sampled_from(
    [
        '"',
        '""',
        '"',
        ",",
        ",",
        "\n",
        "\n",
        "\r",
        "\r\n",
        "#",
        " ",
        "\ufeff",
        "\ufeffurl,type",
        "http://a.com",
        "b.com/é",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(PIECES, min_size=5, max_size=60).map("".join).map(str.encode) | st.binary(max_size=60),
    st.integers(1, 64),
    st.integers(5, 30),
)
@example(b'x\n"a\n""","b"\nc,d\n', 1, 30)
@example(b'"a"\xef\xbb\xbfurl,type\n,x', 1, 30)
@example(b'a,"' + b"\n" * 40 + b'",\n', 7, 20)
def test_of_any_bytes_none_are_lost_and_the_rows_are_the_same_wherever_they_are_split(
    tmp_path_factory, body, split_bytes, longest
):
    content = b"url,type\nhttp://first.com,x\n" + body
    path = written(tmp_path_factory.mktemp("bytes"), content)
    with pytest.MonkeyPatch.context() as patch:
        for module in (reading, records):
            patch.setattr(module, "MAX_LINE_BYTES", longest)
        whole = rows_of(path)
        assert rows_of(path, split_bytes) == whole
    left = bytearray(content[9:])
    for row in whole:
        start, end = row["position"] - 9, row["position"] - 9 + row["length_bytes"]
        assert left[start:end] == content[9:][start:end] != b""
        left[start:end] = b"\n" * (end - start)
    for line in left.replace(b"\r", b"\n").replace(b"\xef\xbb\xbf", b"").split(b"\n"):
        assert not line or line.startswith(b"#")


@pytest.mark.parametrize("error", [OSError(errno.EIO, "no answer"), TimeoutError(), ConnectionResetError()])
@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_disk_or_a_store_that_fails_is_no_fault_of_the_file(tmp_path, monkeypatch, name, error):
    path = UPath(tmp_path / name)
    path.write_bytes(b"url\na.example.com\n")

    def fail(*_):
        raise error

    monkeypatch.setattr(reading, "_plan_text", fail)
    monkeypatch.setattr(reading, "_plan_parquet", fail)
    with pytest.raises(type(error)):
        reading.plan_splits(path)
