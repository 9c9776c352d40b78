"""Messages that are JSON objects with a schema version, keyed by one of their fields, as rows of a table.

Another framing, such as Avro or Protobuf with a schema registry, would be another class with the same `decode`.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as json_reader
from pyspark.sql.types import BooleanType, DoubleType, IntegerType, LongType, StringType, TimestampType

from bigdata_assets.tables import Column, row_schema, to_arrow

KEPT_BYTES = 65_536
MAX_TEXT = 1_000
MAX_LINE, FEW = 4_000, 32
"""Bytes: Python reads no whole number of more than 4,300 digits. Messages that are no longer read in bulk."""
EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
VERSION, NUMBER = "schema_version", "number"


class _UnusableError(ValueError):
    """A message has no row; the text is its reason."""


@dataclass(frozen=True)
class Whole:
    """Reads whole numbers within bounds."""

    low: int
    high: int

    def __call__(self, value: Any) -> int:
        if type(value) is not int or not self.low <= value <= self.high:
            raise ValueError(f"is no whole number from {self.low} to {self.high}")
        return value


def number(value: Any) -> float:
    """Reads finite numbers."""
    try:
        found = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        found = math.inf
    if not math.isfinite(found):
        raise ValueError("is no number")
    return found


def text(value: Any) -> str:
    """Reads texts of at most MAX_TEXT characters."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"is no text of at most {MAX_TEXT} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("has half a character") from None
    return value


def truth(value: Any) -> bool:
    """Reads true and false."""
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")
    return value


def instant(value: Any) -> datetime:
    """Reads ISO 8601 times with their offset from UTC, from 1900 to 2199."""
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("is no ISO 8601 time") from None
    if time.tzinfo is None:
        raise ValueError("has no offset from UTC")
    if not EARLIEST <= time < LATEST:
        raise ValueError("is not from 1900 to 2199")
    return time


BY_TYPE: Mapping[type, Callable[[Any], Any]] = {
    BooleanType: truth,
    DoubleType: number,
    IntegerType: Whole(-(2**31), 2**31 - 1),
    LongType: Whole(-(2**63), 2**63 - 1),
    StringType: text,
    TimestampType: instant,
}


@dataclass(frozen=True)
class JsonEnvelope:
    """How a topic's messages are read.

    Attributes:
        version: the schema version that is known.
        key: the fields that a message's key repeats, with slashes between.
        columns: the fields, and whether they may be missing.
        readers: what reads a field whose values obey more than their type: gives the value, or raises a ValueError
            that says what it is not.
    """

    version: int
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    readers: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)

    @cached_property
    def _reads(self) -> dict[str, Callable[[Any], Any]]:
        return {column.name: self.readers.get(column.name, BY_TYPE[type(column.type)]) for column in self.columns}

    @cached_property
    def _schema(self) -> pa.Schema:
        return to_arrow(row_schema(*self.columns)).append(pa.field(NUMBER, pa.int64()))

    def decode(self, messages: pa.Table, max_bytes: int) -> tuple[pa.Table, pa.Table]:
        """Messages as rows, and as rows for the quarantine, in their order.

        What `_row` says of a message decides. Those that are plainly good are read in bulk, in a third of the time.

        Args:
            messages: what resources.kafka.MESSAGES has, and any columns beside it, which the results have too.
            max_bytes: a longer message has no row.
        """
        messages = messages.append_column(NUMBER, pa.array(np.arange(messages.num_rows)))
        good = pa.concat_tables([self._schema.empty_table(), *self._plain(_short_lines(messages, max_bytes))])
        rest = messages.filter(pc.invert(pc.is_in(messages[NUMBER], good[NUMBER])))
        rows, reasons = [], []
        # As NumPy's objects: Arrow makes a scalar of each value first, which takes several times as long.
        received = (rest[name].to_numpy() for name in (NUMBER, "key", "value", "length_bytes"))
        for place, key, value, length in zip(*received, strict=True):
            try:
                rows.append(self._row(key, value, length, max_bytes) | {NUMBER: place})
            except _UnusableError as error:
                reasons.append(str(error))
        good = pa.concat_tables([good, pa.Table.from_pylist(rows, self._schema)]).sort_by(NUMBER)
        usable = pc.is_in(messages[NUMBER], good[NUMBER])
        found = messages.filter(usable).drop_columns(["key", "value", "length_bytes", NUMBER])
        for column in self.columns:
            found = found.append_column(column.name, good[column.name])
        refused = messages.filter(pc.invert(usable))
        key, raw = (pc.binary_slice(refused[name], 0, KEPT_BYTES) for name in ("key", "value"))
        refused = refused.drop_columns(["key", "value", "broker_timestamp", NUMBER])
        told = {"reason": pa.array(reasons, pa.string()), "key": pc.fill_null(key, b""), "raw": raw}
        for name, values in told.items():
            refused = refused.append_column(name, values)
        return found, refused

    def _plain(self, messages: pa.Table) -> Iterator[pa.Table]:
        """Rows that need no second look; where a message cannot be parsed, those beside it are left out too."""
        if not messages.num_rows:
            return
        try:
            rows = self._parsed(messages)
        except ValueError:
            if (half := messages.num_rows // 2) >= FEW:
                yield from self._plain(messages.slice(0, half))
                yield from self._plain(messages.slice(half))
            return
        key = pc.binary_join_element_wise(*(rows[name].cast(pa.string()) for name in self.key), "/").cast(pa.binary())
        plain = pc.and_(pc.equal(rows[VERSION], self.version), pc.equal(messages["key"], key))
        for column in self.columns:
            fits = _is_plain(rows[column.name], self._reads[column.name])
            plain = pc.and_(plain, pc.fill_null(fits, column.nullable))
        yield rows.append_column(NUMBER, messages[NUMBER]).select(self._schema.names).filter(plain)

    def _parsed(self, messages: pa.Table) -> pa.Table:
        """The fields of each message; a ValueError where one has others, or is no JSON, or has another type or a time
        that is none.
        """
        times = [field.name for field in self._schema if pa.types.is_timestamp(field.type)]
        types = [(field.name, pa.string() if field.name in times else field.type) for field in self._schema][:-1]
        known = pa.schema([(VERSION, pa.int64()), *types])
        options = json_reader.ParseOptions(explicit_schema=known, unexpected_field_behavior="error")
        lines = pa.py_buffer(b"\n".join(messages["value"].to_numpy()))
        rows = json_reader.read_json(lines, parse_options=options)
        rows.validate(full=True)
        if rows.num_rows != messages.num_rows:
            raise ValueError("several in one message")
        for name in times:
            values = [value if value is None else instant(value) for value in rows[name].to_numpy()]
            of = self._schema.field(name)
            rows = rows.set_column(rows.schema.get_field_index(name), of, pa.array(values, of.type))
        return rows

    def _row(self, key: bytes | None, value: bytes | None, length: int, max_bytes: int) -> dict[str, Any]:
        fields = self._fields(value, length, max_bytes)
        row = {column.name: self._field(fields.get(column.name), column) for column in self.columns}
        if key != "/".join(str(row[name]) for name in self.key).encode():
            # Only messages with one key stay in order: a correction must not come before what it corrects.
            raise _UnusableError(f"its key {key!r:.80} is not its {'/'.join(self.key)}")
        return row

    def _fields(self, value: bytes | None, length: int, max_bytes: int) -> dict[str, Any]:
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
        if (version := fields.get(VERSION)) != self.version or isinstance(version, bool):
            raise _UnusableError(f"schema version {version!r:.40}, known is {self.version}")
        return fields

    def _field(self, value: Any, column: Column) -> Any:
        if value is None:
            if not column.nullable:
                raise _UnusableError(f"{column.name} is missing")
            return None
        try:
            return self._reads[column.name](value)
        except ValueError as error:
            raise _UnusableError(f"{column.name} {error}: {value!r:.80}") from None


def _short_lines(messages: pa.Table, max_bytes: int) -> pa.Table:
    """Messages that can be no more and no less than one line of JSON each, of numbers that Python would read too."""
    value = messages["value"]
    line = pc.and_(pc.starts_with(value, "{"), pc.ends_with(value, "}"))
    for end in ("\n", "\r"):
        line = pc.and_not(line, pc.match_substring(value, end))
    return messages.filter(pc.and_(line, pc.less_equal(messages["length_bytes"], min(max_bytes, MAX_LINE))))


def _is_plain(values: pa.ChunkedArray, read: Callable[[Any], Any]) -> pa.ChunkedArray:
    """Whether values of the right type can be read; null for null. Not of 0., which Python has for -0."""
    if isinstance(read, Whole):
        return pc.and_(pc.greater_equal(values, read.low), pc.less_equal(values, read.high))
    if read is number:
        return pc.and_(pc.not_equal(values, 0), pc.is_finite(values))
    if read is text:
        return pc.less_equal(pc.utf8_length(values), MAX_TEXT)
    if read in (truth, instant):
        return pc.equal(values, values)
    different = pc.drop_null(pc.unique(values)).to_pylist()
    return pc.if_else(pc.is_valid(values), pc.is_in(values, pa.array(filter(_can(read), different), values.type)), None)


def _can(read: Callable[[Any], Any]) -> Callable[[Any], bool]:
    def can(value: Any) -> bool:
        try:
            return bool(read(value) == value)
        except ValueError:
            return False

    return can


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


DECODER = json.JSONDecoder(parse_constant=_no_constant)
