"""Samples as messages, and which of them tell something new."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa

from bigdata_assets.flow_sensors.logic import messages
from bigdata_assets.resources.kafka import MESSAGES
from bigdata_assets.tables import row_schema, to_arrow

SCHEMA = to_arrow(row_schema(*messages.SAMPLE))
NOON = datetime(2016, 1, 5, 12, tzinfo=UTC)


def table(*rows):
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], SCHEMA)


def received(encoded):
    rows = [
        {
            "kafka_partition": 0,
            "kafka_offset": n,
            "broker_timestamp": NOON,
            "key": k,
            "value": v,
            "length_bytes": len(v),
        }
        for n, (k, v) in enumerate(encoded)
    ]
    return pa.Table.from_pylist(rows, MESSAGES)


def test_samples_come_back_and_a_wrong_key_is_refused():
    rows = table(
        ("a/b", "flow", NOON, 0.1, None, None),
        ("Süd", "level", NOON + timedelta(milliseconds=5), None, "-9999", 2.5),
        ("c", "flow", NOON, -0.0, "A", 0.0),
    )
    encoded = list(messages.encode(rows))
    assert encoded[1][0] == "Süd/level".encode()
    good, bad = messages.SAMPLES.decode(received(encoded), 10_000)
    assert good.select(SCHEMA.names).to_pylist() == rows.to_pylist()
    assert bad.num_rows == 0
    good, bad = messages.SAMPLES.decode(received([(b"c/flow", encoded[0][1]), (b"c/flow", encoded[2][1])]), 10_000)
    assert (good.num_rows, bad["reason"].to_pylist()) == (1, ["its key b'c/flow' is not its site/channel"])
    nameless = list(messages.encode(table((" ", "flow", NOON, 1.0, None, None))))
    assert messages.SAMPLES.decode(received(nameless), 10_000)[1].num_rows == 1


def test_a_repeat_is_no_version_and_a_correction_is():
    first, repeat = ("a", "flow", NOON, 1.0, None, None), ("a", "flow", NOON, 1.0, None, None)
    changed, coded = ("a", "flow", NOON, 2.0, None, None), ("a", "flow", NOON, 2.0, "7", None)
    other = ("a", "flow", NOON + timedelta(minutes=5), 1.0, None, None)
    rows = table(first, repeat, other, changed, coded, first)
    assert messages.versions(rows, {}) == [1, None, 1, 2, 3, 4]
    stored = [{**row, "version": 3 if row["value"] == 2 else 1} for row in table(first, changed).to_pylist()]
    assert messages.versions(table(changed, first), messages.known(stored)) == [None, 4]


def test_only_what_is_new_or_other_is_sent_again():
    before = table(("a", "flow", NOON, 1.0, None, None), ("a", "level", NOON, None, "Ice", None))
    now = table(*(tuple(row.values()) for row in before.to_pylist()), ("b", "flow", NOON, 1.0, None, None))
    assert messages.changed(now, before)["site"].to_pylist() == ["b"]
    assert messages.changed(before, table()).num_rows == 2
    assert messages.days(now["observed_at"]) == [NOON.replace(hour=0)]
