"""Reports as Kafka messages: JSON with a schema version, keyed by report ID.

Version 1 has the columns of tables.REPORT under their own names; times are ISO 8601 with their offset from UTC.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as json_reader

from bigdata_assets.crimes.logic.exports import TIME_ZONE

SCHEMA_VERSION = 1
KEPT_BYTES = 65_536
MAX_TEXT = 1_000
MAX_LINE, FEW = 4_000, 32
"""Bytes: Python reads no whole number of more than 4,300 digits. Messages that are no longer read in bulk."""
EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


class _UnusableError(ValueError):
    """A message is no report; the text is its reason."""


def encode(reports: pd.DataFrame) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each report's message."""
    for name in ("occurred_at", "updated_at"):
        local = reports[name].dt.tz_convert(TIME_ZONE)
        reports = reports.assign(**{name: local.map(lambda time: time.isoformat(), na_action="ignore")})
    for row in reports.astype(object).to_dict("records"):
        report = {name: None if pd.isna(value) else value for name, value in row.items()}
        yield str(report["report_id"]).encode(), json.dumps({"schema_version": SCHEMA_VERSION, **report}).encode()


def decode(messages: pa.Table, columns: pa.Schema, max_bytes: int) -> tuple[pa.Table, pa.Table]:
    """Messages as reports and as rows for the quarantine, in their order.

    What `_report` says of a message decides. Those that are plainly good are read in bulk, in a third of the time.

    Args:
        messages: what resources.kafka.MESSAGES has, and any columns beside it, which the results have too.
        columns: those of a report, with the types that they get.
        max_bytes: a longer message is no report.
    """
    schema = pa.schema([*[columns.field(name).with_nullable(True) for name in FIELDS], ("number", pa.int64())])
    messages = messages.append_column("number", pa.array(np.arange(messages.num_rows)))
    reports = pa.concat_tables([schema.empty_table(), *_plain_reports(_short_lines(messages, max_bytes), schema)])
    rest = messages.filter(pc.invert(pc.is_in(messages["number"], reports["number"])))
    rows, reasons = [], []
    # As NumPy's objects: Arrow makes a scalar of each value first, which takes several times as long.
    received = (rest[name].to_numpy() for name in ("number", "key", "value", "length_bytes"))
    for number, key, value, length in zip(*received, strict=True):
        try:
            rows.append(_report(key, value, length, max_bytes) | {"number": number})
        except _UnusableError as error:
            reasons.append(str(error))
    reports = pa.concat_tables([reports, pa.Table.from_pylist(rows, schema)]).sort_by("number")
    usable = pc.is_in(messages["number"], reports["number"])
    found = messages.filter(usable).drop_columns(["key", "value", "length_bytes", "number"])
    for name in FIELDS:
        found = found.append_column(name, reports[name])
    refused = messages.filter(pc.invert(usable))
    key, raw = (pc.binary_slice(refused[name], 0, KEPT_BYTES) for name in ("key", "value"))
    refused = refused.drop_columns(["key", "value", "broker_timestamp", "number"])
    for name, values in {"reason": pa.array(reasons, pa.string()), "key": pc.fill_null(key, b""), "raw": raw}.items():
        refused = refused.append_column(name, values)
    return found, refused


def _short_lines(messages: pa.Table, max_bytes: int) -> pa.Table:
    """Messages that can be no more and no less than one line of JSON each, of numbers that Python would read too."""
    value = messages["value"]
    line = pc.and_(pc.starts_with(value, "{"), pc.ends_with(value, "}"))
    for end in ("\n", "\r"):
        line = pc.and_not(line, pc.match_substring(value, end))
    return messages.filter(pc.and_(line, pc.less_equal(messages["length_bytes"], min(max_bytes, MAX_LINE))))


def _plain_reports(messages: pa.Table, schema: pa.Schema) -> Iterator[pa.Table]:
    """Reports that need no second look; where a message cannot be parsed, those beside it are left out too."""
    if not messages.num_rows:
        return
    try:
        rows = _parsed(messages, schema)
    except ValueError:
        if (half := messages.num_rows // 2) >= FEW:
            yield from _plain_reports(messages.slice(0, half), schema)
            yield from _plain_reports(messages.slice(half), schema)
        return
    key = rows["report_id"].cast(pa.string()).cast(pa.binary())
    plain = pc.and_(pc.equal(rows["schema_version"], SCHEMA_VERSION), pc.equal(messages["key"], key))
    for name, (_, needed) in FIELDS.items():
        plain = pc.and_(plain, pc.fill_null(_is_plain(rows[name]), not needed))
    plain = pc.and_(plain, pc.match_substring_regex(rows["iucr"], "^[0-9A-Za-z]{4}$"))
    yield rows.append_column("number", messages["number"]).select(schema.names).filter(plain)


def _parsed(messages: pa.Table, schema: pa.Schema) -> pa.Table:
    """The fields of each message; a ValueError where one has others, or is no JSON, or has another type or a time that
    is none.
    """
    times = [field.name for field in schema if pa.types.is_timestamp(field.type)]
    types = [(field.name, pa.string() if field.name in times else field.type) for field in schema][:-1]
    known = pa.schema([("schema_version", pa.int64()), *types])
    options = json_reader.ParseOptions(explicit_schema=known, unexpected_field_behavior="error")
    lines = pa.py_buffer(b"\n".join(messages["value"].to_numpy()))
    rows = json_reader.read_json(lines, parse_options=options)
    rows.validate(full=True)
    if rows.num_rows != messages.num_rows:
        raise ValueError("several in one message")
    for name in times:
        values = [value if value is None else _time(value) for value in rows[name].to_numpy()]
        rows = rows.set_column(
            rows.schema.get_field_index(name), schema.field(name), pa.array(values, schema.field(name).type)
        )
    return rows


def _is_plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether values of the right type are in bounds; null for null. Not 0, which is -0. here and 0. there."""
    if pa.types.is_string(values.type):
        return pc.less_equal(pc.utf8_length(values), MAX_TEXT)
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        return pc.and_(pc.greater(values, 0), pc.is_finite(values))
    return pc.equal(values, values)


def versions(report_ids: Iterable[int], known: Mapping[int, int]) -> list[int]:
    """The version of each report in the order of its messages; `known`: how many versions of an ID came before."""
    seen, found = Counter(known), []
    for report_id in report_ids:
        seen[report_id] += 1
        found.append(seen[report_id])
    return found


def _report(key: bytes | None, value: bytes | None, length: int, max_bytes: int) -> dict[str, Any]:
    fields = _fields(value, length, max_bytes)
    report = {name: _field(fields.get(name), name, *how) for name, how in FIELDS.items()}
    if key != str(report["report_id"]).encode():
        # Only messages with one key stay in order: a correction must not come before what it corrects.
        raise _UnusableError(f"its key {key!r:.80} is not its report_id")
    return report


def _fields(value: bytes | None, length: int, max_bytes: int) -> dict[str, Any]:
    if value is None:
        raise _UnusableError("tombstone: a message without a value")
    if length > max_bytes:
        raise _UnusableError(f"longer than {max_bytes} bytes")
    try:
        fields = DECODER.decode(value.decode())
    except (ValueError, RecursionError) as error:
        raise _UnusableError(f"no JSON: {str(error)[:200]}") from None
    if not isinstance(fields, dict):
        raise _UnusableError("no JSON object")
    if (version := fields.get("schema_version")) != SCHEMA_VERSION or isinstance(version, bool):
        raise _UnusableError(f"schema version {version!r:.40}, known is {SCHEMA_VERSION}")
    return fields


def _field(value: Any, name: str, read: Callable[[Any], Any], needed: bool) -> Any:
    if value is None:
        if needed:
            raise _UnusableError(f"{name} is missing")
        return None
    try:
        return read(value)
    except ValueError as error:
        raise _UnusableError(f"{name} {error}: {value!r:.80}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"is no whole number from {low} to {high}")
        return value

    return read


def _number(value: Any) -> float:
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("is no number")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"is no text of at most {MAX_TEXT} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("has half a character") from None
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")
    return value


def _time(value: Any) -> datetime:
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("is no ISO 8601 time") from None
    if time.tzinfo is None:
        raise ValueError("has no offset from UTC")
    if not EARLIEST <= time < LATEST:
        raise ValueError("is not from 1900 to 2199")
    return time


def _code(value: Any) -> str:
    if not isinstance(value, str) or not (len(value) == 4 and value.isalnum() and value.isascii()):
        raise ValueError("is no code of four characters")
    return value


FIELDS: Mapping[str, tuple[Callable[[Any], Any], bool]] = {
    "report_id": (_whole(1, 2**63 - 1), True),
    "occurred_at": (_time, True),
    "block": (_text, False),
    "iucr": (_code, True),
    "primary_type": (_text, False),
    "description": (_text, False),
    "location_description": (_text, False),
    "arrest": (_truth, True),
    "domestic": (_truth, True),
    "beat": (_whole(0, 2**31 - 1), False),
    "district": (_whole(0, 2**31 - 1), False),
    "ward": (_whole(0, 2**31 - 1), False),
    "community_area": (_whole(0, 2**31 - 1), False),
    "fbi_code": (_text, False),
    "x_coordinate_ft": (_number, False),
    "y_coordinate_ft": (_number, False),
    "updated_at": (_time, False),
}
"""How each field of version 1 is read, and whether it must be there."""
