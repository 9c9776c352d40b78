import os
from datetime import date

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigdata_assets.crimes import sample
from bigdata_assets.crimes.logic import exports
from bigdata_assets.crimes.producer import ProduceError, month_range
from bigdata_assets.reading import FileChangedError

ROW = {
    "ID": "10365277",
    "Date": "01/01/2016 12:01:00 AM",
    "Block": "029XX N HOYNE AVE",
    "IUCR": "0460",
    "Primary Type": "BATTERY",
    "Description": "SIMPLE",
    "Location Description": "",
    "Arrest": "false",
    "Domestic": "TRUE",
    "Beat": "1931",
    "District": "019",
    "Ward": "1.0",
    "Community Area": "5",
    "FBI Code": "08B",
    "X Coordinate": "1161842",
    "Y Coordinate": "",
    "Updated On": "02/10/2018 03:50:01 PM",
}


def typed(**changes):
    return exports.typed(pa.Table.from_pylist([ROW | changes])).iloc[0]


def test_a_row_is_typed():
    row = typed()
    assert row["report_id"] == 10365277
    assert row["occurred_at"] == pd.Timestamp("2016-01-01 06:01", tz="UTC")
    assert row["updated_at"] == pd.Timestamp("2018-02-10 21:50:01", tz="UTC")
    assert (row["beat"], row["district"], row["ward"]) == (1931, 19, 1)
    assert (row["arrest"], row["domestic"]) == (False, True)
    assert row["iucr"] == "0460"
    assert row["x_coordinate_ft"] == 1161842.0
    assert pd.isna(row["y_coordinate_ft"])
    assert pd.isna(row["location_description"])
    assert row["month"] == "2016-01"
    assert pd.isna(row["reason"])


@pytest.mark.parametrize(
    ("text", "hour_utc"),
    [
        ("01/01/2016 12:00:00 AM", 6),
        ("01/01/2016 12:00:00 PM", 18),
        ("01/01/2016 01:00:00 PM", 19),
        ("07/01/2016 12:00:00 AM", 5),
        ("2016-01-01 13:00:00", 19),
        ("2016-01-01T13:00:00.000", 19),
        ("1/1/2016 13:00", 19),
        ("1/1/2016 1:00", 7),
        ("1/1/2016 1:00 PM", 19),
        ("1/1/16 13:00", 19),
        ("1/1/2016", 6),
    ],
)
def test_morning_and_afternoon_are_kept_apart(text, hour_utc):
    assert typed(Date=text)["occurred_at"].hour == hour_utc


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2016-01-05T10:00:00Z", "2016-01-05 10:00"),
        ("2016-01-05 10:00:00.5-0600", "2016-01-05 16:00:00.5"),
        ("2016-01-05T10:00+01", "2016-01-05 09:00"),
        ("2016-01-05 10:00:00", "2016-01-05 16:00"),
        ("2016-01-05", "2016-01-05 06:00"),
    ],
)
def test_a_time_with_its_offset_is_that_instant_and_one_without_is_chicagos(text, utc):
    assert typed(Date=text)["occurred_at"] == pd.Timestamp(utc, tz="UTC")


def test_times_of_all_kinds_stand_in_one_file():
    texts = ("01/05/2016 10:00:00 AM", "2016-01-05T16:00:00Z", "never")
    table = exports.typed(pa.Table.from_pylist([ROW | {"Date": text} for text in texts]))
    assert table["occurred_at"].iloc[0] == table["occurred_at"].iloc[1]
    assert table["reason"].notna().tolist() == [False, False, True]


def test_hours_that_the_clock_skips_or_repeats_have_an_instant():
    assert typed(Date="11/06/2016 01:30:00 AM")["occurred_at"] == pd.Timestamp("2016-11-06 06:30", tz="UTC")
    assert typed(Date="03/13/2016 02:30:00 AM")["occurred_at"] == pd.Timestamp("2016-03-13 08:00", tz="UTC")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ID": ""}, "ID is no number: ''"),
        ({"ID": "-4"}, "ID is no number: '-4'"),
        ({"Date": "yesterday"}, "Date is no time: 'yesterday'"),
        ({"IUCR": "12345"}, "IUCR is no code: '12345'"),
        ({"Arrest": "maybe"}, "Arrest is neither true nor false: 'maybe'"),
        ({"Beat": "north"}, "Beat is no number: 'north'"),
        ({"X Coordinate": "east"}, "X Coordinate is no number: 'east'"),
        ({"X Coordinate": "inf"}, "X Coordinate is no number: 'inf'"),
        ({"Updated On": "later"}, "Updated On is no time: 'later'"),
        ({"ID": "1.1E+07"}, "ID is no number: '1.1E+07'"),
    ],
)
def test_what_does_not_fit_is_named(change, reason):
    row = typed(**change)
    assert row["reason"] == reason
    assert next(iter(change.values())) in row["raw"]


@pytest.mark.parametrize(
    ("iucr", "fbi_code", "expected"),
    [
        ("110", "5", ("0110", "05")),
        ("460.0", "5.0", ("0460", "05")),
        ("141a", "08b", ("141A", "08B")),
        ("0460", "4A", ("0460", "4A")),
    ],
)
def test_what_a_spreadsheet_did_to_codes_is_undone(iucr, fbi_code, expected):
    row = typed(IUCR=iucr, **{"FBI Code": fbi_code})
    assert (row["iucr"], row["fbi_code"]) == expected


@pytest.mark.parametrize(("text", "truth"), [("TRUE", True), ("t", True), ("1", True), ("N", False), ("f", False)])
def test_truth_is_written_in_several_ways(text, truth):
    assert typed(Arrest=text)["arrest"] == truth


@pytest.mark.parametrize("text", ["NULL", "nan", "NA", " ", r"\N"])
def test_nothing_is_written_in_several_ways(text):
    row = typed(Ward=text, Description=text)
    assert pd.isna(row["ward"])
    assert pd.isna(row["description"])
    assert pd.isna(row["reason"])


def test_the_most_specific_file_is_taken(tmp_path):
    for name in ("Crimes_-_2001_to_Present_20260101.csv", "crimes_2016.parquet", "crimes_2016-01_portal_export.csv.gz"):
        (tmp_path / name).touch()
    (tmp_path / "crimes_2014-09_snapshot_of_2014-12.csv.gz").touch()
    assert exports.export_file(tmp_path, "2016-01").name == "crimes_2016-01_portal_export.csv.gz"
    assert exports.export_file(tmp_path, "2016-02").name == "crimes_2016.parquet"
    assert exports.export_file(tmp_path, "2014-09").name.startswith("Crimes_-_2001")
    (tmp_path / "Crimes_-_2001_to_Present_20260101.csv").unlink()
    with pytest.raises(exports.ExportError, match=r"no export of 2014-09: put .*There is: crimes_2016-01_portal"):
        exports.export_file(tmp_path, "2014-09")
    assert exports.months(tmp_path, date(2016, 4, 2)) == ["2016-01", "2016-02", "2016-03"]


def test_csv_and_parquet_give_the_same_reports(tmp_path):
    sample.write_sample(tmp_path)
    from_csv = exports.read_month(tmp_path, "2015-12").reports
    assert len(from_csv) == sample.MONTHS["2015-12"]
    assert from_csv["occurred_at"].is_monotonic_increasing
    rows = pd.read_csv(tmp_path / "crimes_2015-12_portal_export.csv", dtype={"IUCR": str, "FBI Code": str})
    rows = rows[pd.to_datetime(rows["Date"], format=exports.PORTAL_TIME, errors="coerce").notna() & rows["ID"].notna()]
    rows["Date"] = pd.to_datetime(rows["Date"], format=exports.PORTAL_TIME)
    (tmp_path / "crimes_2015-12_portal_export.csv").unlink()
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), tmp_path / "crimes_2015.parquet")
    pd.testing.assert_frame_equal(exports.read_month(tmp_path, "2015-12").reports, from_csv)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_export_that_is_written_while_it_is_read_is_named(tmp_path, monkeypatch, suffix):
    path, rows = tmp_path / f"crimes_2016.{suffix}", pd.DataFrame([ROW] * 3)
    rows.to_csv(path, index=False) if suffix == "csv" else pq.write_table(pa.Table.from_pandas(rows), path)
    before, typed = path.stat(), exports.typed

    def typed_meanwhile(chunk):
        os.utime(path, ns=(0, before.st_mtime_ns + 1))
        return typed(chunk)

    monkeypatch.setattr(exports, "typed", typed_meanwhile)
    with pytest.raises(FileChangedError, match=rf"crimes_2016.{suffix} was written while it was read"):
        exports.read_month(tmp_path, "2016-01")


def test_months_of_a_range():
    assert month_range("2016-01") == ["2016-01"]
    assert month_range("2015-11..2016-02") == ["2015-11", "2015-12", "2016-01", "2016-02"]
    for bad in ("January", "2016-13", "2016-01..", "2016-1"):
        with pytest.raises(ProduceError, match="--month is like 2016-01"):
            month_range(bad)
