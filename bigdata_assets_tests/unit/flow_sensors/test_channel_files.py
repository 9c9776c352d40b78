"""Channel files to samples: every layout, every odd time and value, and nothing that vanishes."""

import gzip
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigdata_assets.flow_sensors.logic import channel_files
from bigdata_assets.flow_sensors.logic.channel_files import AGAIN, ChannelFileError, Site
from bigdata_assets_tests.integration.conftest import REAL_DATA

REAL = REAL_DATA / "flow_sensors"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no folder with the official files at {REAL_DATA}")
NEW_YORK = Site("a", time_zone="America/New_York")


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def written(folder, content, name="a.csv"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def load(path, sites=(), rows=50_000):
    parts = list(channel_files.read(path, {site.site: site for site in sites}, rows))
    samples = pa.concat_tables(part.samples for part in parts)
    assert samples.schema == channel_files.SAMPLES
    return SimpleNamespace(
        parts=parts,
        samples=samples.to_pylist(),
        short=[(s["channel"], s["value"], s["quality"], s["edited"]) for s in samples.to_pylist()],
        times=[f"{s['observed_at']:%Y-%m-%d %H:%M:%S.%f}"[:-3] for s in samples.to_pylist()],
        refused=pa.concat_tables(part.refused for part in parts).to_pylist(),
        repeats=sum(part.repeats for part in parts),
        sites=parts[-1].sites,
    )


@pytest.fixture
def read(tmp_path):
    return lambda content, sites=(), name="a.csv", rows=50_000: load(written(tmp_path, content, name), sites, rows)


# Layouts


def test_carldata_names_the_site_by_its_folder_and_edited_values_are_labels(read):
    found = read("time,velocity,velocity_edited\n2013-03-12 11:50:00,0.0,0.5\n", name="south/anomalies.csv")
    assert found.samples == [
        {
            "site": "south",
            "channel": "velocity",
            "observed_at": at("2013-03-12 11:50"),
            "value": 0.0,
            "quality": None,
            "edited": 0.5,
        }
    ]
    assert found.sites == {"south": Site("south", labelled_by="edited")}


def test_logan_river_names_the_site_by_its_file_without_the_year_and_codes_are_labels(read):
    header = "datetime,temp,temp_cor,temp_qual,stage,stage_cor,stage_qual\r\n"
    found = read(
        gzip.compress(
            (
                header + "2019-01-01 00:00,-0.02,-0.02,NULL,19.53,-9999,5\r\n"
                "2019-01-01 00:15:00.000,-9999,NULL,7,-9999,-9999,NULL"
            ).encode()
        ),
        name="FranklinBasin2019.csv.gz",
    )
    assert found.short == [
        ("temp", -0.02, None, -0.02),
        ("temp", None, "7", None),
        ("stage", 19.53, "5", None),
        ("stage", None, "-9999", None),
    ]
    assert found.sites == {"FranklinBasin": Site("FranklinBasin", labelled_by="quality")}


def test_a_year_stays_in_the_name_of_other_files_and_sites_csv_wins(read):
    found = read(
        "time,flow,flow_qual\n2019-01-01,1,2\n", [Site("weir2019", "Weir", labelled_by="quality")], "weir2019.csv"
    )
    assert found.sites == {"weir2019": Site("weir2019", "Weir", labelled_by="quality")}
    assert found.short == [("flow", 1.0, "2", None)]


@pytest.mark.parametrize(
    ("content", "time"),
    [
        ("Month,Day,Year,Hour,Minute,Flow_mgd\n2,16,2008,0,15,1.25\n", "2008-02-16 00:15:00.000"),
        ("\ufeffDate;Time;Flow (mgd)\n16.02.2008;00:15:30;1,25\n", "2008-02-16 00:15:30.000"),
        ("flow_mgd\ttimestamp\n1.25\t2008-02-16T00:15:00Z\n", "2008-02-16 00:15:00.000"),
        ('# a comment\n\n"time","flow_mgd"\n"2008/2/16 0:15","1.25"\n\n', "2008-02-16 00:15:00.000"),
        ("datetime_utc,FLOW-MGD\n2008-02-16 00:15, 1.25 \n", "2008-02-16 00:15:00.000"),
        ("time,tz,flow_mgd\n2008-02-16 00:15,PST,1.25\n", "2008-02-16 08:15:00.000"),
        ("time,flow_mgd\n2/16/2008 12:15 AM,1.25\n", "2008-02-16 00:15:00.000"),
        ("time,flow_mgd\n2/16/2008 12:15 PM,+1.25\n", "2008-02-16 12:15:00.000"),
        ("time,flow_mgd\n2008-02-16 00:15:00.1239999+0130,1.25\n", "2008-02-15 22:45:00.123"),
    ],
)
def test_layouts_with_columns_of_channels(read, content, time):
    found = read(content)
    assert (found.times, found.short) == ([time], [("flow_mgd", 1.25, None, None)])


def test_edited_and_quality_columns_belong_to_their_channel_wherever_they_are(read):
    found = read("flow_flag,time,flow_cor,flow,pump_flag\nx,2016-01-01,2,1,3\n")
    assert found.short == [("flow", 1.0, "x", 2.0), ("pump_flag", 3.0, None, None)]


def test_a_column_names_the_site_and_its_zone_is_told_by_sites_csv(read):
    found = read("site,time,flow\na,2016-01-01 00:00,1\nb,2016-01-01 00:00,2\n,2016-01-01 00:00,3\n", [NEW_YORK])
    assert [(s["site"], s["observed_at"]) for s in found.samples] == [
        ("a", at("2016-01-01 05:00")),
        ("b", at("2016-01-01 00:00")),
    ]
    assert [(r["line"], r["site"], r["channel"]) for r in found.refused] == [(4, None, "flow")]
    assert found.sites == {"a": NEW_YORK, "b": Site("b")}


def test_a_long_layout_has_a_sample_a_line(read):
    found = read(
        "Channel,ts,Site,value,quality\n"
        "Flow (l/s),2016-01-01,s,1,\nlevel,2016-01-01,s,2,bad\n,2016-01-01,s,3,\nlevel,2016-01-01,s,2,bad\n"
    )
    assert found.short == [("flow_l_s", 1.0, None, None), ("level", 2.0, "bad", None)]
    assert (len(found.refused), found.repeats) == (1, 1)


COPIED = """\
site1,flow,2016-01,2016-01-05 10:00:00.000000+0000,0.51235,,
site1,Flow,2016-01,2016-01-05 10:05:00.000000+0000,,-9999,
site1,flow,2016-01,2016-01-05 10:10:00+0000,NaN,,0.5
"""


@pytest.mark.parametrize("header", ["", "site,channel,month,ts,value,quality,edited\n"])
def test_cqlsh_copy_with_and_without_header(read, header):
    found = read(header + COPIED, [Site("site1", time_zone="Asia/Tokyo")])
    assert found.times == ["2016-01-05 10:00:00.000", "2016-01-05 10:05:00.000", "2016-01-05 10:10:00.000"]
    of_second = "flow" if header else "Flow"  # a name that is in Cassandra already is left as it is
    assert found.short == [("flow", 0.51235, None, None), (of_second, None, "-9999", None), ("flow", None, None, 0.5)]


RDB = """\
# ------------------------------ WARNING ------
agency_cd\tsite_no\tdatetime\ttz_cd\t69928_00060\t69928_00060_cd\t7_99999\t7_99999_cd
5s\t15s\t20d\t6s\t14n\t10s\t14n\t10s
USGS\t01646500\t2020-11-01 01:45\tEDT\t4510\tA\t1\tA
USGS\t01646500\t2020-11-01 01:45\tEST\t4500\tA\t2\tA
USGS\t01646500\t2020-12-25 06:00\tEST\tIce\tP Ice\tEqp\t
USGS\t01646500\t2020-12-25 06:15\tXYZ\t\tP Eqp\t-999999\tP
"""


def test_usgs_rdb_has_two_hours_one_after_the_other_and_codes_for_values(read):
    found = read(RDB, name="a.rdb")
    assert found.times[:3] == ["2020-11-01 05:45:00.000", "2020-11-01 06:45:00.000", "2020-12-25 11:00:00.000"]
    assert found.short == [
        ("flow", 4510.0, "A", None),
        ("flow", 4500.0, "A", None),
        ("flow", None, "P Ice", None),
        ("p99999", 1.0, "A", None),
        ("p99999", 2.0, "A", None),
        ("p99999", None, "Eqp", None),
    ]
    assert {s["site"] for s in found.samples} == {"USGS-01646500"}
    assert [(r["line"], r["channel"], r["reason"]) for r in found.refused] == [
        (7, "flow", "the zone of the time is not known"),
        (7, "p99999", "the zone of the time is not known"),
    ]


def test_usgs_rdb_of_two_sites_has_two_headers_and_series_of_one_parameter_their_numbers(read):
    second = (
        "# next\nagency_cd\tsite_no\tdatetime\ttz_cd\t1_00065\t1_00065_cd\t2_00065\t2_00065_cd\n"
        "5s\t15s\t20d\t6s\t1n\t1s\t1n\t1s\n"
        "USGS\t2\t2020-11-01 01:45\tMST\t1\tA\t2\tA\n"
    )
    for rows in (1, 50_000):
        found = read(RDB + second, name="a.rdb", rows=rows)
        assert found.short[-2:] == [("level_1", 1.0, "A", None), ("level_2", 2.0, "A", None)]
        assert set(found.sites) == {"USGS-01646500", "USGS-2"}
        assert len(found.samples) == 8


# Values


@pytest.mark.parametrize(
    ("text", "value", "quality"),
    [
        ("", None, None),
        ("NULL", None, None),
        ("nan", None, None),
        ("NA", None, "NA"),
        ("-9999", None, "-9999"),
        ("-9999.0", None, "-9999.0"),
        ("-9999.5", -9999.5, None),
        ("1e3", 1000.0, None),
        (".5", 0.5, None),
    ],
)
def test_no_value_keeps_its_marker(read, text, value, quality):
    assert read(f"time,flow\n2016-01-01,{text}\n").short == [("flow", value, quality, None)]
    with_code = read(f"time,flow,flow_qual\n2016-01-01,{text},7\n")
    assert with_code.short == [("flow", value, "7", None)]


@pytest.mark.parametrize("text", ["Ice", "1,5", "inf", "-Infinity", "1e999", "0x1F", "1_000", "12 mm"])
def test_what_is_no_number_is_refused_and_the_rest_is_read(read, text):
    found = read(f'time,flow,level\n2016-01-01 00:00,"{text}",1\n2016-01-01 00:15,2,3\n')
    assert found.short == [("flow", 2.0, None, None), ("level", 1.0, None, None), ("level", 3.0, None, None)]
    (refused,) = found.refused
    assert refused == {
        "source": "a.csv",
        "line": 2,
        "reason": f"the value is no finite number: {text!r}",
        "raw": f'2016-01-01 00:00,"{text}",1',
        "site": "a",
        "channel": "flow",
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"2016-01-01 00:30,1", "2 fields in place of 3"),
        (b"2016-01-01 00:30,1,2,", "4 fields in place of 3"),
        (b'2016-01-01 00:30,"1,2', "a quote does not end"),
        (b'2016-01-01 00:30,1,"2', "a quote does not end"),
        (b"2016-01-01 00:30,\xff,2", "no UTF-8"),
        (b"2016-01-01 00:30,1\r,2", "a carriage return within the line"),
        (b",1,2", "the time is none that is understood"),
        (b"2016-02-30 00:30,1,2", "the time is none that is understood"),
        (b"2016-01-01 24:30,1,2", "the time is none that is understood"),
        (b"01/02/2016 00:30,1,2", "the time is none that is understood"),
        (b"2016-01-01 00:30 XYZ,1,2", "the zone of the time is not known"),
        (b"1899-12-31 23:59,1,2", "the year is not in 1900 to 2199"),
        (b"9999-12-31 23:59,1,2", "the year is not in 1900 to 2199"),
        (b"2016-01-01 00:30,1,2" + b"x" * 2_000, "the value is no finite number: '2" + "x" * 39 + "'"),
    ],
)
def test_an_odd_line_is_refused_for_each_channel(read, line, reason):
    found = read(b"time,flow,level\n2016-01-01 00:00,1,2\n\n" + line + b"\n2016-01-01 00:45,3,4\n")
    assert len(found.samples) + len(found.refused) == 6
    assert {s["observed_at"] for s in found.samples} >= {at("2016-01-01 00:00"), at("2016-01-01 00:45")}
    assert {(r["line"], r["reason"]) for r in found.refused} == {(4, reason)}
    assert found.refused[-1]["channel"] == "level"
    assert found.refused[-1]["raw"] == line.decode("utf-8", "replace")[:1_000]


def test_a_carriage_return_and_a_quote_that_does_not_end_move_no_line(read):
    """Together they leave the number of rows as it is."""
    found = read('time,flow\n2016-01-01,1\r,1\n"a\n2016-01-02,2\n')
    assert [(r["line"], r["reason"]) for r in found.refused] == [
        (2, "a carriage return within the line"),
        (3, "a quote does not end"),
    ]
    assert [s["value"] for s in found.samples] == [2.0]


def test_odd_lines_among_others_leave_these_where_they_are(read):
    lines = [f"2016-01-01 00:{minute:02d},{minute}" for minute in range(60)]
    lines[0] = lines[7] = lines[8] = lines[59] = "2016-01-01,1,2"
    found = read("time,flow\n" + "\n".join(lines))
    assert [r["line"] for r in found.refused] == [2, 9, 10, 61]
    assert {r["reason"] for r in found.refused} == {"3 fields in place of 2"}
    assert all(s["value"] == s["observed_at"].minute for s in found.samples)
    assert len(found.samples) == 56


# Times


def test_days_and_months_are_told_apart_by_all_dates(read):
    assert read("time,flow\n03/04/2016 10:00,1\n13/04/2016 10:00,2\n", rows=1).times[0] == "2016-04-03 10:00:00.000"
    assert read("time,flow\n03/04/2016 10:00,1\n03/13/2016 10:00,2\n", rows=1).times[0] == "2016-03-04 10:00:00.000"
    assert read("time,flow\n03/03/2016,1\n").times == ["2016-03-03 00:00:00.000"]
    assert read("time,flow\n03.04.2016,1\n").times == ["2016-04-03 00:00:00.000"]
    with pytest.raises(ChannelFileError, match=r"a\.csv: days cannot be told from months.*Write them as 2016-03-31"):
        read("time,flow\n03/04/2016 10:00,1\n")


LOGGED_TWICE = "time,velocity\n2020-03-08 01:55:00,0.51\n" + "".join(
    f"2020-03-08 03:{minute:02d}:00,{value}\n" for value in (0.52, 0.62) for minute in range(0, 60, 5)
)


@pytest.mark.parametrize("rows", [1, 7, 50_000])
@pytest.mark.parametrize(("sites", "first"), [((), "2020-03-08 01:55"), ((NEW_YORK,), "2020-03-08 06:55")])
def test_an_hour_logged_twice_keeps_its_first_readings(read, rows, sites, first):
    found = read(LOGGED_TWICE + "2020-03-08 04:00:00,0.55\n2020-03-08 04:00:00,0.55\n", sites, rows=rows)
    assert [s["value"] for s in found.samples] == [0.51, *[0.52] * 12, 0.55]
    assert found.samples[0]["observed_at"] == at(first)
    assert Counter(r["reason"] for r in found.refused) == {AGAIN: 12}
    assert found.refused[0]["line"] == 15
    assert found.repeats == 1
    assert all(len(part.samples) + len(part.refused) + part.repeats <= rows for part in found.parts)


def test_repeats_are_told_by_channel(read):
    found = read(
        "time,a,b\n2016-01-01,x,-1\n2016-01-01,1,-2\n2016-01-01,1,-1\n2016-01-01 00:00:00.000,2,-1.0\n", rows=2
    )
    assert found.short == [("a", 1.0, None, None), ("b", -1.0, None, None)]
    assert [(r["line"], r["channel"]) for r in found.refused] == [(2, "a"), (3, "b"), (5, "a")]
    assert found.repeats == 3


AUTUMN = [f"2020-11-01 01:{minute}" for minute in ("00", "30")] * 2
IN_UTC = ["05:00", "05:30", "06:00", "06:30"]


@pytest.mark.parametrize(
    ("local", "utc"),
    [
        (["2020-11-01 00:30", *AUTUMN, "2020-11-01 02:00"], ["04:30", *IN_UTC, "07:00"]),
        (["2020-11-01 02:00", *AUTUMN[::-1], "2020-11-01 00:30"], ["07:00", *IN_UTC[::-1], "04:30"]),
        (["2020-11-01 01:00", "2020-11-01 01:00", "2020-11-01 02:00"], ["05:00", "06:00", "07:00"]),
        (["2020-11-01 01:30", "2020-11-01 01:15", "2020-11-01 02:00"], ["05:30", "06:15", "07:00"]),
        (["2020-11-01 01:00-05:00", "2020-11-01 01:30"], ["06:00", "05:30"]),
    ],
)
@pytest.mark.parametrize("rows", [2, 50_000])
def test_the_hour_of_autumn_is_summer_time_first(read, local, utc, rows):
    found = read("time,flow\n" + "".join(f"{text},{i}\n" for i, text in enumerate(local)), [NEW_YORK], rows=rows)
    assert [text[11:16] for text in found.times] == utc


def test_a_file_that_was_written_twice_into_one_repeats_its_hour_of_autumn(read):
    lines = "".join(f"{text},{i}\n" for i, text in enumerate(["2020-11-01 00:30", *AUTUMN, "2020-11-01 02:00"]))
    found = read("time,flow\n" + 2 * lines, [NEW_YORK])
    assert (len(found.samples), found.repeats, found.refused) == (6, 6, [])


def test_each_series_of_a_file_has_its_own_hour_of_autumn(read):
    lines = [f"{channel},{text},1" for text in AUTUMN for channel in ("x", "y")]
    found = read("channel,time,value\n" + "\n".join(lines), [NEW_YORK])
    assert [text[11:16] for text in found.times] == [text for text in IN_UTC for _ in "xy"]


def test_a_local_time_that_does_not_exist_is_refused(read):
    found = read("time,flow\n2020-03-08 02:30,1\n2020-03-08 02:30-05:00,2\n", [NEW_YORK])
    assert found.times == ["2020-03-08 07:30:00.000"]
    assert [r["reason"] for r in found.refused] == ["the local time does not exist: the clock was put forward then"]


# Files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n# only\n", "is empty"),
        (b"a,b\n1,2\n", r"line 1: 'a,b' is no header.*Write such a line"),
        (b"time\n2016-01-01\n", "is no header"),
        (b"time,flow,Flow\n", r"'flow' names two columns.*Name each by itself"),
        (b"time;flow;\n", r"'' names two columns.*let no line end by a separator"),
        (b"\xff\xfet\0i\0", "UTF-16: save it as UTF-8"),
        (b"time,flow\r2016-01-01,1\r", "bare carriage returns"),
        (b"time,flow\n" + b"1" * 70_000, "a line of more than 65,536 after line 1"),
        (
            gzip.compress(b"time,flow\n2016-01-01,1\n", mtime=0)[:-9],
            r"cannot be unpacked \(.*\): fetch or pack it again",
        ),
        (b"\x1f\x8bnothing", "cannot be unpacked"),
        (RDB.replace("5s\t15s", "x").encode(), "line 3: an RDB file has its columns' widths"),
        (b"agency_cd\tsite_no\tdv_dt\n5s\t1s\t1d\n", "Fetch instantaneous values"),
        (b"time,flow," + b",".join(b"c%d" % i for i in range(1_000)), "is no header"),
    ],
)
def test_what_is_no_channel_file_says_what_to_do(read, content, message):
    with pytest.raises(ChannelFileError, match=message) as error:
        read(content, name="odd.csv")
    assert "odd.csv" in str(error.value)


def test_a_file_with_more_sites_than_can_be_is_refused(read):
    lines = "".join(f"s{i},2016-01-01,1\n" for i in range(10_001))
    with pytest.raises(ChannelFileError, match="more than 10,000 sites or channels"):
        read("site,time,flow\n" + lines)


def test_a_header_alone_is_a_file_of_no_samples(read):
    found = read("time,flow\n")
    assert (found.samples, found.refused, found.repeats, set(found.sites)) == ([], [], 0, {"a"})


@pytest.mark.parametrize("later", ["time,flow\n2016-01-01,1\n2016-01-02,1\n", "time,flow\n"])
def test_a_file_that_changes_between_its_two_readings_is_refused(tmp_path, monkeypatch, later):
    path = written(tmp_path, "time,flow\n2016-01-01,1\n")
    read_times = channel_files.read_times

    def read_and_write(*arguments):
        times = read_times(*arguments)
        path.write_text(later)
        return times

    monkeypatch.setattr(channel_files, "read_times", read_and_write)
    with pytest.raises(ChannelFileError, match=r"a\.csv was written while it was read"):
        list(channel_files.read(path, {}))


def test_files_below_a_folder_are_found_by_their_endings(tmp_path):
    names = [
        "b/x.CSV.gz",
        "a.rdb",
        "c.txt",
        "d.tsv",
        "sites.csv",
        "README.txt",
        "LICENSE",
        "e.parquet",
        ".f.csv",
        ".g/h.csv",
    ]
    for name in names:
        written(tmp_path, "", name)
    assert [str(path.relative_to(tmp_path)) for path in channel_files.files(tmp_path)] == [
        "a.rdb",
        "b/x.CSV.gz",
        "c.txt",
        "d.tsv",
    ]


def test_sites_are_read_of_their_file(tmp_path):
    assert channel_files.sites(tmp_path) == {}
    rows = 'a,"The weir, old",40.5,-105,America/Denver,quality\nb,,,,,\n'
    written(tmp_path, "\ufeffsite,name,latitude,longitude,time_zone,labelled_by\n" + rows, "sites.csv")
    assert channel_files.sites(tmp_path) == {
        "a": Site("a", "The weir, old", 40.5, -105.0, "America/Denver", "quality"),
        "b": Site("b"),
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,,91,,,", "latitude is '91': write degrees from -90 to 90"),
        ("a,,,x,,", "longitude is 'x'"),
        ("a,,,nan,,", "longitude is 'nan'"),
        ("a,,,,Mars/Base,", "time_zone is 'Mars/Base': write a name of IANA's"),
        ("a,,,,../../etc/passwd,", "time_zone"),
        ("a,,,,,expert", "labelled_by is 'expert': write quality, edited or nothing"),
        (",,,,,", "no site"),
        ("b,,,,,", "site 'b' is there twice"),
    ],
)
def test_bad_values_of_sites_name_their_line(tmp_path, row, message):
    written(tmp_path, f"site,name,latitude,longitude,time_zone,labelled_by\nb,,,,,\n{row}\n", "sites.csv")
    with pytest.raises(ChannelFileError, match=r"sites\.csv, line 3: ") as error:
        channel_files.sites(tmp_path)
    assert message in str(error.value)


def test_sites_with_other_columns_are_refused(tmp_path):
    written(tmp_path, "site,lat\na,1\n", "sites.csv")
    with pytest.raises(ChannelFileError, match="its header is site,lat; write site,name"):
        channel_files.sites(tmp_path)


# Nothing vanishes

FIELD = st.sampled_from(
    ["1", "2", "-1", "-2", "", "NULL", "-9999", "Ice", '"', '"1"', '"1"2', 'a"', "é", "\x00", "\r", "1,2"]
)
TIME = st.sampled_from(
    [f"2020-11-01 0{hour}:{minute}" for hour in range(3) for minute in ("00", "30")]
    + ["2020-03-08 02:30", "2020-03-08 03:00", "2020-11-01 01:00-05:00", "no time", "1700-01-01", "", " "]
)
LINE = st.one_of(
    st.tuples(TIME, FIELD, FIELD, FIELD).map(",".join),
    st.sampled_from(["", "  ", "# comment", ",,,", "x", '"a', 'b"']),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(LINE, max_size=12), st.integers(1, 5), st.sampled_from([(), (NEW_YORK,)]))
def test_records_times_channels_are_samples_refused_ones_and_repeats(lines, rows, sites):
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), "time,flow,flow_qual,level\n" + "\n".join(lines))
        found, whole = load(path, sites, rows), load(path, sites)
    records = sum(bool(line.strip()) and not line.startswith("#") for line in lines)
    assert len(found.samples) + len(found.refused) + found.repeats == 2 * records
    keys = [(s["channel"], s["observed_at"]) for s in found.samples]
    assert len(set(keys)) == len(keys)
    assert all(len(part.samples) + len(part.refused) + part.repeats <= 2 * rows for part in found.parts)

    def key(sample):
        return str(sorted(sample.items(), key=str))

    assert sorted(found.samples, key=key) == sorted(whole.samples, key=key), "parts make no difference"
    assert sorted(found.refused, key=key) == sorted(whole.refused, key=key)


# Real files


@needs_real
@pytest.mark.parametrize(
    ("name", "samples", "coded", "edited"),
    [
        ("carldata_velocity/anomalies.csv.gz", 59_042, 0, 59_042),
        ("logan_river/BlackSmithFork2020.csv.gz", 6 * 8_736, 12, 10_583),
        ("sewer_flow_monitor/Flow_Monitor.csv.gz", 3 * 7_195, 0, 0),
    ],
)
def test_official_files_are_read_whole_and_fast(name, samples, coded, edited):
    list(channel_files.read(REAL / name, {}))  # imports and compiles what it needs
    began = time.process_time()
    parts = list(channel_files.read(REAL / name, {}))
    took_s = time.process_time() - began
    found = pa.concat_tables(part.samples for part in parts)
    assert len(found) == samples
    assert sum(len(part.refused) + part.repeats for part in parts) == 0
    assert samples - found["quality"].null_count == coded
    assert samples - found["edited"].null_count == edited
    assert samples / took_s > 100_000, "a third of what a quiet machine does"
