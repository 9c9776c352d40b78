import json
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa
import pytest

from bigdata_assets.crimes.logic import messages
from bigdata_assets.resources.kafka import MESSAGES
from bigdata_assets.streams.envelope import FEW, JsonEnvelope

REPORT = {
    "schema_version": 1,
    "report_id": 7,
    "occurred_at": "2016-01-01T00:01:00-06:00",
    "block": "014XX S AVERS AVE",
    "iucr": "1310",
    "primary_type": "CRIMINAL DAMAGE",
    "description": "TO PROPERTY",
    "location_description": None,
    "arrest": False,
    "domestic": True,
    "beat": 1011,
    "district": 10,
    "ward": None,
    "community_area": 29,
    "fbi_code": "14",
    "x_coordinate_ft": 1150945.0,
    "y_coordinate_ft": None,
    "updated_at": "2018-02-10T15:50:01-06:00",
}


def table(*rows):
    columns = [
        [0] * len(rows),
        list(range(len(rows))),
        [datetime(2026, 1, 1, tzinfo=UTC)] * len(rows),
        [key for key, _ in rows],
        [value for _, value in rows],
        [0 if value is None else len(value) for _, value in rows],
    ]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, MESSAGES, strict=True)], schema=MESSAGES)


def decoded(value, key=b"7"):
    value = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    good, bad = messages.REPORTS.decode(table((key, value)), 10_000)
    return good.to_pylist(), bad["reason"].to_pylist()


def test_a_report_comes_back_as_it_was():
    frame = pd.DataFrame([REPORT]).drop(columns="schema_version")
    for name in ("occurred_at", "updated_at"):
        frame[name] = pd.to_datetime(frame[name], utc=True)
    frame["ward"] = frame["ward"].astype("Int64")
    ((key, value),) = messages.encode(frame)
    assert json.loads(value) == REPORT
    (report,), bad = decoded(value, key)
    assert bad == []
    assert report["occurred_at"] == datetime(2016, 1, 1, 6, 1, tzinfo=UTC)
    assert {name: report[name] for name in ("report_id", "ward", "domestic", "kafka_offset")} == {
        "report_id": 7,
        "ward": None,
        "domestic": True,
        "kafka_offset": 0,
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema_version": 2}, "schema version 2, known is 1"),
        ({"schema_version": True}, "schema version True"),
        ({"report_id": "7"}, "report_id is no whole number"),
        ({"report_id": None}, "report_id is missing"),
        ({"report_id": 2**70}, "report_id is no whole number"),
        ({"arrest": 1}, "arrest is neither true nor false"),
        ({"beat": 3.5}, "beat is no whole number"),
        ({"beat": True}, "beat is no whole number"),
        ({"occurred_at": "2016-01-01T00:01:00"}, "occurred_at has no offset"),
        ({"occurred_at": "01/01/2016 12:01:00 AM"}, "occurred_at is no ISO 8601 time"),
        ({"occurred_at": "0001-01-01T00:00:00+14:00"}, "occurred_at is not from 1900"),
        ({"occurred_at": 5}, "occurred_at is no ISO 8601 time"),
        ({"iucr": "131"}, "iucr is no code"),
        ({"block": "x" * 1_001}, "block is no text"),
        ({"block": "\ud800"}, "block has half a character"),
        ({"x_coordinate_ft": "1"}, "x_coordinate_ft is no number"),
        ({"x_coordinate_ft": 10**400}, "x_coordinate_ft is no number"),
    ],
)
def test_what_does_not_fit_is_named(change, reason):
    good, (found,) = decoded(REPORT | change)
    assert good == []
    assert found.startswith(reason)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[1]", "no JSON object"),
        (b"[" * 9_000, "no JSON"),
        (b'{"schema_version": NaN}', "no JSON"),
        (b"1" * 5_000, "no JSON"),
        (b" " * 10_001, "longer than 10000 bytes"),
    ],
)
def test_what_is_no_json_object_is_refused(value, reason):
    good, (found,) = decoded(value)
    assert good == []
    assert found.startswith(reason)


@pytest.mark.parametrize("key", [None, b"8", b"", b"\xff"])
def test_a_message_must_be_keyed_by_its_report(key):
    good, (found,) = decoded(REPORT, key)
    assert good == []
    assert "is not its report_id" in found


def test_versions_go_on_from_those_before():
    assert messages.versions([1, 2, 1, 3, 1], {1: 2, 9: 1}) == [3, 1, 4, 1, 5]


GOOD = json.dumps(REPORT)
ODD = [
    GOOD.replace("1150945.0", "-0"),
    GOOD.replace("1150945.0", "1e999"),
    GOOD.replace("1150945.0", "NaN"),
    GOOD.replace("1150945.0", "1" * 400),
    GOOD.replace('"ward": null', '"ward": 0, "arrest": true'),
    GOOD.replace('"ward": null', '"more": 1'),
    GOOD.replace("1011", "1011.0"),
    GOOD.replace("1011", str(2**31)),
    GOOD.replace("014XX", "\\udc00"),
    GOOD.replace("014XX", "\\u0000"),
    GOOD.replace("014XX", "é" * 1_000),
    GOOD.replace("00-06:00", "00Z"),
    GOOD.replace("00-06:00", "00"),
    GOOD.replace("false", "null"),
    GOOD.replace("{", '{"more": ' + "[" * 900 + "]" * 900 + ", "),
    GOOD.replace('"7', '"8'),
    GOOD + GOOD,
    GOOD + "\n" + GOOD,
    GOOD[:-1] + "\n}",
    GOOD[1:-1],
    "",
    "{}",
]


@pytest.mark.parametrize("n_good", [0, 1, 200])
def test_what_is_read_in_bulk_is_what_is_read_one_by_one(monkeypatch, n_good):
    rows = [row for odd in ODD for row in [(b"7", odd.encode()), *[(b"7", GOOD.encode())] * n_good]]
    mixed = table(*rows, (b"7", None), (b"7", b'{"block": "\xff"}'), (b"8", GOOD.encode()))
    in_bulk = messages.REPORTS.decode(mixed, 10_000)
    with monkeypatch.context() as patch:
        patch.setattr(JsonEnvelope, "_plain", lambda *_: ())
        one_by_one = messages.REPORTS.decode(mixed, 10_000)
    assert [found.to_pylist() for found in in_bulk] == [found.to_pylist() for found in one_by_one]
    assert repr(in_bulk[0].to_pylist()) == repr(one_by_one[0].to_pylist())  # tells -0.0 from 0.0


def test_plain_reports_are_read_in_bulk_though_others_stand_beside_them(monkeypatch):
    monkeypatch.setattr(JsonEnvelope, "_row", lambda *_: pytest.fail("one by one"))
    assert messages.REPORTS.decode(table(*[(b"7", GOOD.encode())] * 100), 10_000)[0].num_rows == 100
    seen = []
    monkeypatch.setattr(JsonEnvelope, "_row", lambda *_: seen.append(1) or {})
    messages.REPORTS.decode(table((b"7", b'{"a"}'), *[(b"7", GOOD.encode())] * 1_000), 10_000)
    assert 1 <= sum(seen) <= 2 * FEW
