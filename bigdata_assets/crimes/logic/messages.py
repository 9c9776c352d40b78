"""Reports as Kafka messages: JSON with a schema version, keyed by report ID.

Version 1 has the columns of tables.REPORT under their own names; times are ISO 8601 with their offset from UTC.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa

from bigdata_assets.crimes.logic.exports import TIME_ZONE

SCHEMA_VERSION = 1
KEPT_BYTES = 65_536
MAX_TEXT = 1_000
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


def decode(messages: pa.Table, max_bytes: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Messages (resources.kafka.MESSAGES) as reports and as rows for the quarantine, each with its place in Kafka."""
    reports, refused = [], []
    for message in messages.to_pylist():
        place = {name: message[name] for name in ("kafka_partition", "kafka_offset")}
        try:
            report = _report(message["key"], message["value"], message["length_bytes"], max_bytes)
        except _UnusableError as error:
            raw = None if message["value"] is None else message["value"][:KEPT_BYTES]
            refused.append(
                place
                | {"reason": str(error), "key": (message["key"] or b"")[:KEPT_BYTES], "raw": raw}
                | {"length_bytes": message["length_bytes"]}
            )
        else:
            reports.append(place | {"broker_timestamp": message["broker_timestamp"]} | report)
    return reports, refused


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
