import json
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa
import pytest

from bigdata_assets.crimes.logic import messages
from bigdata_assets.resources.kafka import MESSAGES

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
    good, bad = messages.decode(table((key, value)), 10_000)
    return good, [row["reason"] for row in bad]


def test_a_report_comes_back_as_it_was():
    frame = pd.DataFrame([REPORT]).drop(columns="schema_version")
    for name in ("occurred_at", "updated_at"):
        frame[name] = pd.to_datetime(frame[name], utc=True)
    frame["ward"] = frame["ward"].astype("Int64")
    ((key, value),) = messages.encode(frame)
    assert json.loads(value) == REPORT
    (report,), bad = messages.decode(table((key, value)), 10_000)
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
