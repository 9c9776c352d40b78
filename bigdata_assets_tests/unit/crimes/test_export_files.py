import codecs
import csv
import gzip
import io
import json
import tempfile
import tracemalloc
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigdata_assets.crimes import producer
from bigdata_assets.crimes.logic import export_files, exports
from bigdata_assets.crimes.logic.export_files import ExportError
from bigdata_assets_tests.unit.crimes.test_exports import ROW

FIELD = Path("../shared/data/field")
HEADER = [*ROW, "Location"]
WIDTH = len(HEADER)


def record(number: int, **changes: str) -> dict[str, str]:
    return ROW | {"ID": str(number), "Location": "(41.9, -87.6)"} | changes


def written(rows: list[list[str]], **options: object) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, **options).writerows(rows)
    return text.getvalue()


def csv_file(folder: Path, lines: list[str], name: str = "crimes_2016.csv", end: str = "\n") -> Path:
    path = folder / name
    path.write_bytes("".join(f"{line}{end}" for line in [",".join(HEADER), *lines]).encode())
    return path


def line(number: int, **changes: str) -> str:
    return written([[record(number, **changes)[name] for name in HEADER]], lineterminator="")


def as_spark(path: Path, month: str = "2016-01") -> pd.DataFrame:
    """What Spark's workers make of a file, in any order of its parts."""
    parts = export_files.plan(path)
    numbers = [pa.record_batch({"id": pa.array([number], pa.int64())}) for number in reversed(range(len(parts)))]
    covers = exports._covers(path.name)
    batches = list(exports._read_parts(numbers, parts, covers, [month]))
    return pa.Table.from_batches(batches, exports.to_arrow(exports.ROWS)).to_pandas()


def assert_same_by_both(folder: Path, path: Path) -> exports.Month:
    read, spark = exports.read_month(folder, "2016-01"), as_spark(path)
    good = spark[spark["reason"].isna()]
    assert set(good["report_id"]) == set(read.reports["report_id"])
    assert len(spark) == len(read.reports) + read.n_refused
    bad = spark[spark["reason"].notna()]
    repeats = read.refused["reason"] == exports.REPEATS
    assert sorted(zip(bad["reason"], bad["raw"], strict=True)) == sorted(
        read.refused[~repeats][["reason", "raw"]].itertuples(index=False, name=None)
    )
    return read


TEXT = st.text(st.sampled_from("ab,;\t|\n\r\"' é\u2028"), max_size=8)
DAMAGE = st.sampled_from(["none"] * 8 + ["short", "long", "together"])


def as_read(text: str, separator: str, quoting: int, end: str) -> str:
    """A line break of another kind, which csv does not quote, is read as a space."""
    is_quoted = quoting == csv.QUOTE_ALL or any(character in text for character in f'{separator}"{end}')
    return text if is_quoted else text.replace("\r", " ").replace("\n", " ")


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(TEXT, TEXT, DAMAGE), max_size=12),
    separator=st.sampled_from(export_files.SEPARATORS),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]),
    packed=st.booleans(),
    last_end=st.booleans(),
    part_bytes=st.integers(1, 600),
    block_bytes=st.sampled_from([3_000, 1 << 20]),
)
def test_no_record_vanishes(rows, separator, quoting, end, encoding, packed, last_end, part_bytes, block_bytes):
    table, expected = [], []
    for number, (block, description, damage) in enumerate(rows, start=1):
        fields = record(number, Block=block, Description=description)
        cells = [fields[name] for name in HEADER]
        if damage == "none":
            expected.append((str(number), *(as_read(text, separator, quoting, end) for text in (block, description))))
        table.append({"short": cells[:-2], "long": [*cells, "more"], "together": cells + cells[3:]}.get(damage, cells))
    text = written([HEADER, *table], delimiter=separator, quoting=quoting, lineterminator=end)
    data = (text if last_end else text.removesuffix(end)).encode(encoding)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / ("crimes_2016.csv.gz" if packed else "crimes_2016.csv")
        path.write_bytes(gzip.compress(data) if packed else data)
        patch.setattr(export_files, "PART_BYTES", part_bytes)
        patch.setattr(export_files, "BLOCK_BYTES", block_bytes)
        chunks = [chunk for part in export_files.plan(path) for chunk in export_files.read(part)]
    found = pa.concat_tables([chunk.texts for chunk in chunks]).to_pandas() if chunks else pd.DataFrame(columns=HEADER)
    refused = [one for chunk in chunks for one in chunk.refused]
    assert len(found) + len(refused) == len(rows)
    assert list(found[["ID", "Block", "Description"]].itertuples(index=False, name=None)) == expected


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(st.tuples(TEXT, st.sampled_from(["1", "2", "north"]), DAMAGE), min_size=1, max_size=12),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    part_bytes=st.integers(300, 2_000),
)
def test_the_producer_and_spark_read_the_same(rows, quoting, end, part_bytes):
    good = record(1_000)
    table = [HEADER, [good[name] for name in HEADER]]
    for number, (block, beat, damage) in enumerate(rows, start=1):
        fields = record(number // 2 + 1, Block=block, Beat=beat)
        cells = [fields[name] for name in HEADER]
        table.append({"short": cells[:-2], "long": [*cells, "more"], "together": cells + cells[3:]}.get(damage, cells))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "crimes_2016.csv"
        path.write_bytes(written(table, quoting=quoting, lineterminator=end).encode())
        patch.setattr(export_files, "PART_BYTES", part_bytes)
        read = assert_same_by_both(Path(folder), path)
    assert len(read.reports) + read.n_refused == len(rows) + 1


@settings(max_examples=300, deadline=None)
@given(
    lines=st.lists(st.text(st.sampled_from('a,"\né'), max_size=30), max_size=8),
    part_bytes=st.integers(1, 200),
)
def test_however_a_file_is_split_its_texts_are_all_there(lines, part_bytes):
    """Lines of any kind between good ones: each is in a record or refused, and the good ones are records."""
    text = "".join(f"{line(n)}\n{odd}\n" for n, odd in enumerate(lines, start=1)) + line(len(lines) + 1)
    data = f"{','.join(HEADER)}\n{text}".encode()
    found = []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "crimes_2016.csv"
        path.write_bytes(data)
        for size in (part_bytes, 1 << 30):
            patch.setattr(export_files, "PART_BYTES", size)
            chunks = [chunk for part in export_files.plan(path) for chunk in export_files.read(part)]
            refused = [(line.position, line.raw) for chunk in chunks for line in chunk.refused]
            records = [
                pair for chunk in chunks for pair in zip(chunk.positions, chunk.texts["ID"].to_pylist(), strict=True)
            ]
            found.append((refused, [number for _, number in records]))
            places = [position for position, _ in refused] + [position for position, _ in records]
            assert len(set(places)) == len(places)
    assert found[0] == found[1]
    assert found[0][1] == [str(n) for n in range(1, len(lines) + 2)]
    kept = "".join(raw for _, raw in found[0][0])
    assert kept.replace("\n", "") == "".join(lines).replace("\n", "")


def test_two_records_in_one_line_are_refused_and_the_others_are_read(tmp_path):
    path = csv_file(tmp_path, [line(1), line(2) + line(3)[4:], line(4)])
    read = assert_same_by_both(tmp_path, path)
    assert read.reports["report_id"].tolist() == [1, 4]
    assert read.refused["reason"].tolist() == [f"{2 * WIDTH - 2} fields where the header has {WIDTH}"]
    assert read.refused["raw"].tolist() == [line(2) + line(3)[4:]]


def test_a_quotation_mark_without_its_other_one_costs_its_line_alone(tmp_path):
    lines = [line(1), line(2).replace("SIMPLE", '"SIMPLE').replace('"(', "(").replace(')"', ")"), line(3), line(4)]
    read = assert_same_by_both(tmp_path, csv_file(tmp_path, lines))
    assert read.reports["report_id"].tolist() == [1, 3, 4]
    assert read.refused["raw"].tolist() == [lines[1]]


def test_a_line_break_of_another_kind_in_a_field_makes_no_two_records(tmp_path):
    lines = [line(1), line(2, Block="A\rB"), line(3, Block='A "\r\n B'), line(4)]
    read = assert_same_by_both(tmp_path, csv_file(tmp_path, lines))
    assert read.reports["block"].tolist() == [ROW["Block"], "A B", 'A "\r\n B', ROW["Block"]]
    assert read.n_refused == 0


def test_what_is_no_text_is_refused(tmp_path):
    path = csv_file(tmp_path, [line(1), line(2, Block="É"), line(3)])
    path.write_bytes(path.read_bytes().replace("É".encode(), b"\xc9"))
    read = assert_same_by_both(tmp_path, path)
    assert read.refused.to_numpy().tolist() == [["not UTF-8", line(2, Block="\\xc9")]]
    data = path.read_bytes().decode("latin-1").encode("utf-16-le")
    path.write_bytes(codecs.BOM_UTF16_LE + data.replace("É".encode("utf-16-le"), b"\x00\xd8"))
    assert assert_same_by_both(tmp_path, path).refused["reason"].tolist() == ["characters that are no text"]


def test_a_line_without_end_is_refused_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(export_files, "BLOCK_BYTES", 1 << 20)
    path = csv_file(tmp_path, [line(1), "x" * 40_000_000, line(2)])
    tracemalloc.start()
    try:
        read = exports.read_month(tmp_path, "2016-01")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 << 20
    assert read.reports["report_id"].tolist() == [1, 2]
    assert read.refused["reason"].tolist() == ["a line longer than 1,048,576 bytes"]
    assert_same_by_both(tmp_path, path)


def test_a_spreadsheet_names_its_separator(tmp_path):
    path = tmp_path / "crimes_2016.csv"
    cells = [record(1)[name] for name in HEADER]
    path.write_text("sep=;\r\n" + written([HEADER, cells], delimiter=";"), newline="")
    assert exports.read_month(tmp_path, "2016-01").reports["report_id"].tolist() == [1]


def test_of_rows_with_one_id_the_last_updated_and_then_the_last_is_kept(tmp_path):
    old, new = {"Updated On": "02/10/2018 03:50:01 PM"}, {"Updated On": "02/11/2018 03:50:01 PM"}
    lines = [
        line(1, **new, Block="A"),
        line(1, **new, Block="B"),
        line(1, **old, Block="C"),
        line(1, **{"Updated On": ""}),
    ]
    csv_file(tmp_path, lines)
    read = exports.read_month(tmp_path, "2016-01")
    assert read.reports["block"].tolist() == ["B"]
    assert read.n_refused == 3
    assert set(read.refused["reason"]) == {exports.REPEATS}
    kept = [json.loads(raw) for raw in read.refused["raw"]]
    assert next(row for row in kept if row["block"] == "A") == {
        "report_id": 1,
        "occurred_at": "2016-01-01T06:01:00+00:00",
        "block": "A",
        "iucr": "0460",
        "primary_type": "BATTERY",
        "description": "SIMPLE",
        "arrest": False,
        "domestic": True,
        "beat": 1931,
        "district": 19,
        "ward": 1,
        "community_area": 5,
        "fbi_code": "08B",
        "x_coordinate_ft": 1161842.0,
        "updated_at": "2018-02-11T21:50:01+00:00",
    }


def test_rows_that_belong_to_no_month_of_their_file_are_refused(tmp_path):
    path = csv_file(
        tmp_path, [line(1), line(2, Date="01/05/2017 10:00:00 AM"), line(3, Date="never"), line(4, Date="02/05/2016")]
    )
    read = assert_same_by_both(tmp_path, path)
    assert read.reports["report_id"].tolist() == [1]
    assert read.refused["reason"].tolist() == [
        "Date is not in 2016, which the file is for",
        "Date is no time: 'never'",
    ]
    assert json.loads(read.refused["raw"][0])["Date"] == "01/05/2017 10:00:00 AM"


def test_of_many_refused_rows_the_first_are_kept_and_all_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(exports, "EXAMPLES", 5)
    csv_file(tmp_path, [line(1), *(line(n, Date="never") for n in range(2, 20)), line(1)])
    read = exports.read_month(tmp_path, "2016-01")
    assert read.n_refused == 19
    assert len(read.refused) == 5


def test_the_producer_says_what_it_refused(tmp_path, capsys):
    path = csv_file(tmp_path, [line(1), line(2, Date="never"), line(3) + ",more"])
    producer._tell_refused(exports.read_month(tmp_path, "2016-01"), "2016-01", path)
    told = capsys.readouterr().err
    assert told.startswith("2016-01 from crimes_2016.csv: 1 reports; 2 rows are none and are not sent. Date is no time")
    producer._tell_refused(exports.read_month(tmp_path, "2016-03"), "2016-03", path)
    assert "2 rows are none" in capsys.readouterr().err  # they belong to no month
    path = csv_file(tmp_path, [line(1)])
    producer._tell_refused(exports.read_month(tmp_path, "2016-01"), "2016-01", path)
    assert not capsys.readouterr().err
    producer._tell_refused(exports.read_month(tmp_path, "2016-03"), "2016-03", path)
    assert capsys.readouterr().err == "crimes_2016.csv has no report of 2016-03\n"


def test_a_file_without_any_report_is_an_error(tmp_path):
    csv_file(tmp_path, [line(1, Date="never")])
    with pytest.raises(ExportError, match=r"none of its 1 rows is understood\. Date is no time: 'never', in "):
        exports.read_month(tmp_path, "2016-01")
    csv_file(tmp_path, [])
    assert exports.read_month(tmp_path, "2016-01").reports.empty


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"lacks the columns \['ID', 'Date', 'IUCR', 'Arrest', 'Domestic'\]; its first line is ''"),
        (b"ID,Date\n1,2\n", r"lacks the columns \['IUCR', 'Arrest', 'Domestic'\]"),
        (b"ID,id,Date,IUCR,Arrest,Domestic\n", r"has two columns \['ID'\]: leave one of each"),
        (gzip.compress(b"x" * 100_000, mtime=0)[:60], r"cannot be read .*: export it again"),
        (
            gzip.compress(csv_header := ",".join(HEADER).encode() + b"\n" + b"1,2\n" * 10_000, mtime=0)[:150],
            "cannot be read",
        ),
        (b"PAR1" + bytes(100), "cannot be read"),
    ],
)
def test_a_file_that_is_no_export_is_named(tmp_path, data, message):
    (tmp_path / "crimes_2016.csv").write_bytes(data)
    with pytest.raises(ExportError, match=rf"crimes_2016.csv {message}"):
        exports.read_month(tmp_path, "2016-01")


def snake(name: str) -> str:
    return name.lower().replace(" ", "_")


def typed_columns() -> dict[str, pa.Array]:
    """Three reports as engines type them."""
    when = [datetime(2016, 1, n, 13, 5, tzinfo=UTC) for n in (1, 2, 3)]
    return {
        "ID": pa.array([1.0, 2.0, 3.0]),
        "Date": pa.array(when, pa.timestamp("ns")),
        "IUCR": pa.array(["0460", "110", "0460"]).dictionary_encode(),
        "Arrest": pa.array([True, False, True]),
        "Domestic": pa.array([False, False, True]),
        "Beat": pa.array([1931.0, None, 12.0]),
        "Ward": pa.array([1, 2, None], pa.int16()),
        "FBI Code": pa.array([5, 14, 6], pa.int8()),
        "Primary Type": pa.array(["BATTERY", "THEFT", "BATTERY"], pa.large_string()).dictionary_encode(),
        "Block": pa.array(["a", None, "c"], pa.large_string()),
        "Description": pa.array(["x", "y", "z"]).cast(pa.string_view()),
        "X Coordinate": pa.array([1161842.0, None, 1161842.25]),
        "Updated On": pa.array([date(2018, 2, 10)] * 3),
        "District": pa.array(["19", "1", "2"]).cast(pa.int32()).cast(pa.decimal128(22, 2)),
        "Location": pa.array([{"x": 1}, None, {"x": 2}]),
    }


@pytest.mark.parametrize("naming", [str, snake, str.upper])
def test_parquet_by_other_writers_gives_the_reports_that_csv_gives(tmp_path, naming):
    table = pa.table({naming(name): column for name, column in typed_columns().items()})
    pq.write_table(table, tmp_path / "crimes_2016.parquet", row_group_size=2)
    read = assert_same_by_both(tmp_path, tmp_path / "crimes_2016.parquet")
    (tmp_path / "crimes_2016.parquet").unlink()
    rows = [
        "1,01/01/2016 01:05:00 PM,0460,true,false,1931,1,05,BATTERY,a,x,1161842,02/10/2018,19,",
        "2,01/02/2016 01:05:00 PM,0110,false,false,,2,14,THEFT,,y,,02/10/2018,1,",
        "3,01/03/2016 01:05:00 PM,0460,true,true,12,,06,BATTERY,c,z,1161842.25,02/10/2018,2,",
    ]
    (tmp_path / "crimes_2016.csv").write_text("\n".join([",".join(typed_columns()), *rows]))
    expected = exports.read_month(tmp_path, "2016-01")
    assert expected.n_refused == read.n_refused == 0
    pd.testing.assert_frame_equal(read.reports, expected.reports)


def test_a_refused_row_of_parquet_is_kept_as_json(tmp_path):
    table = pa.table(typed_columns())
    broken = table.set_column(table.column_names.index("IUCR"), "IUCR", pa.array(["0460", None, "0460"]))
    pq.write_table(broken, tmp_path / "crimes_2016.parquet")
    read = assert_same_by_both(tmp_path, tmp_path / "crimes_2016.parquet")
    assert read.refused["reason"].tolist() == ["IUCR is no code: ''"]
    raw = json.loads(read.refused["raw"][0])
    assert (raw["ID"], raw["Primary Type"], raw["Arrest"]) == ("2", "THEFT", "false")


needs_field = pytest.mark.skipif(not FIELD.is_dir(), reason=f"no folder {FIELD}")


@needs_field
@pytest.mark.parametrize(
    ("folder", "name", "ids", "reasons"),
    [
        ("C01", "crimes_2017.csv", [11091485], []),
        ("C02/a", "crimes_2016.csv", [1, 4], ["41 fields where the header has 22"]),
        ("C03/excel", "crimes_2016.csv", [1, 2], []),
    ],
)
def test_exports_as_people_have_them(folder, name, ids, reasons):
    month = "2017-09" if folder == "C01" else "2016-01"
    read, spark = exports.read_month(FIELD / folder, month), as_spark(FIELD / folder / name, month)
    assert read.reports["report_id"].tolist() == ids == spark[spark["reason"].isna()]["report_id"].tolist()
    assert read.refused["reason"].tolist() == reasons == spark["reason"].dropna().tolist()


@needs_field
def test_an_export_that_went_through_a_spreadsheet_is_what_it_was():
    reports = exports.read_month(FIELD / "C03/excel", "2016-01").reports
    assert reports["occurred_at"].dt.tz_convert("America/Chicago").dt.hour.tolist() == [10, 22]
    assert reports["iucr"].tolist() == ["0460", "0460"]
    assert reports["fbi_code"].tolist() == ["05", "08B"]
    (row,) = exports.read_month(FIELD / "C01", "2017-09").reports.to_dict("records")
    assert row["occurred_at"] == pd.Timestamp("2017-09-18 04:57", tz="UTC")
    assert (row["iucr"], row["fbi_code"], row["community_area"]) == ("141A", "15", 40)
