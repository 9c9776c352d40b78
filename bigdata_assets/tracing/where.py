"""Filters such as `batch = 'a.csv' AND position > 17` as Arrow expressions, which can do nothing but compare columns.

The part of SQL's grammar that filters are made of: comparisons of a column with a value, IN, BETWEEN, LIKE, IS NULL,
AND, OR, NOT and parentheses. No functions and no queries, so that there is nothing that a filter could run.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

MOST_CHARACTERS, MOST_DEPTH = 20_000, 50
TOKEN = re.compile(
    r"""\s*(?:
    (?P<bytes>[xX]'(?:[0-9A-Fa-f]{2})*')
    | (?P<text>'(?:[^']|'')*')
    | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    | (?P<quoted>"(?:[^"]|"")+"|`[^`]+`)
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<sign><=|>=|<>|!=|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)
COMPARISONS: Mapping[str, Callable[[ds.Expression, Any], ds.Expression]] = {
    "=": lambda column, value: column == value,
    "==": lambda column, value: column == value,
    "<>": lambda column, value: column != value,
    "!=": lambda column, value: column != value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
}
RESERVED = {"AND", "OR", "NOT", "IN", "BETWEEN", "LIKE", "IS", "NULL", "TRUE", "FALSE"}


class WhereError(ValueError):
    """A filter cannot be read, or names a column that is not there; the message says what may be written."""


def parse(text: str, schema: pa.Schema) -> ds.Expression:
    """A filter over columns of a schema.

    Raises:
        WhereError: it is none.
    """
    return _Parser(text, schema).whole()


def condition(row: Mapping[str, Any], names: Iterable[str]) -> str:
    """The filter that finds a row by its values in some columns."""
    return " AND ".join(
        f"{_name(name)} IS NULL" if row[name] is None else f"{_name(name)} = {_literal(row[name])}" for name in names
    )


def _name(name: str) -> str:
    return f'"{name}"' if name.upper() in RESERVED else name


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, int | float):
        return repr(value)
    text = value.isoformat() if isinstance(value, date) else str(value)  # a datetime is a date
    return "'" + text.replace("'", "''") + "'"


class _Parser:
    """Recursive descent; `place` is the next token."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        if len(text) > MOST_CHARACTERS:
            raise WhereError(f"a filter has at most {MOST_CHARACTERS:,} characters")
        self._text, self._schema = text, schema
        self._tokens = self._split()
        self._place = self._depth = 0

    def whole(self) -> ds.Expression:
        found = self._either()
        if self._place < len(self._tokens):
            raise self._error("the filter should have ended")
        return found

    def _split(self) -> list[tuple[str, str, int]]:
        """Kind, text and place of each token."""
        tokens, at, end = [], 0, len(self._text.rstrip())
        while at < end:
            match = TOKEN.match(self._text, at)
            if match is None:
                raise WhereError(f"cannot read {self._text[at:].strip()[:40]!r}: {HELP}")
            kind = str(match.lastgroup)
            tokens.append((kind, match[kind], match.start(kind)))
            at = match.end()
        return tokens

    def _error(self, what: str) -> WhereError:
        left = self._tokens[self._place :]
        where = f"at {self._text[left[0][2] :][:40]!r}" if left else "at its end"
        return WhereError(f"{what}, {where}: {HELP}")

    def _take(self, *wanted: str) -> bool:
        """Go on if the next tokens are these words or signs."""
        part = self._tokens[self._place : self._place + len(wanted)]
        found = [text.upper() for kind, text, _ in part if kind in ("word", "sign")]
        if found != list(wanted):
            return False
        self._place += len(wanted)
        return True

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            raise self._error(f"{sign} is missing")

    def _either(self) -> ds.Expression:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise WhereError(f"a filter is at most {MOST_DEPTH} deep")
        found = self._all()
        while self._take("OR"):
            found = found | self._all()
        self._depth -= 1
        return found

    def _all(self) -> ds.Expression:
        found = self._one()
        while self._take("AND"):
            found = found & self._one()
        return found

    def _one(self) -> ds.Expression:
        negated = False
        while self._take("NOT"):
            negated = not negated
        if self._take("("):
            found = self._either()
            self._need(")")
        else:
            found = self._comparison()
        return ~found if negated else found

    def _comparison(self) -> ds.Expression:
        name = self._column()
        column, type_ = ds.field(name), self._schema.field(name).type
        if self._take("IS", "NULL"):
            return column.is_null()
        if self._take("IS", "NOT", "NULL"):
            return column.is_valid()
        for sign, compare in COMPARISONS.items():
            if self._take(sign):
                return compare(column, self._value(name, type_))
        if (negated := self._take("NOT")) and self._next() not in ("IN", "BETWEEN", "LIKE"):
            raise self._error("after NOT comes IN, BETWEEN or LIKE")
        found = self._of_words(name, column, type_)
        return ~found & column.is_valid() if negated else found

    def _of_words(self, name: str, column: ds.Expression, type_: pa.DataType) -> ds.Expression:
        if self._take("IN"):
            self._need("(")
            values = [self._value(name, type_)]
            while self._take(","):
                values.append(self._value(name, type_))
            self._need(")")
            # Not `isin`, by which a null is no value: NOT of it would let nulls through.
            return reduce(operator.or_, (column == value for value in values))
        if self._take("BETWEEN"):
            low = self._value(name, type_)
            self._need("AND")
            return (column >= low) & (column <= self._value(name, type_))
        if self._take("LIKE"):
            if not pa.types.is_string(type_):
                raise self._error(f"LIKE is for text, and {name} is {type_}")
            return pc.match_like(column, self._value(name, type_).as_py())
        if pa.types.is_boolean(type_):
            return column
        raise self._error(f"{name} is not compared with anything")

    def _next(self) -> str:
        return self._tokens[self._place][1].upper() if self._place < len(self._tokens) else ""

    def _column(self) -> str:
        if self._place >= len(self._tokens) or self._tokens[self._place][0] not in ("word", "quoted"):
            raise self._error("a column is missing")
        kind, text, _ = self._tokens[self._place]
        if kind == "word" and text.upper() in RESERVED:
            raise self._error("a column is missing")
        name = text[1:-1].replace('""', '"') if kind == "quoted" else text
        names = {known.lower(): known for known in self._schema.names}
        if name.lower() not in names:
            raise WhereError(f"there is no column {name!r}; there are {', '.join(self._schema.names)}")
        self._place += 1
        return names[name.lower()]

    def _value(self, name: str, type_: pa.DataType) -> pa.Scalar:
        if self._place >= len(self._tokens):
            raise self._error("a value is missing")
        kind, text, _ = self._tokens[self._place]
        if kind == "quoted" or (kind == "word" and text.upper() not in ("TRUE", "FALSE")) or kind == "sign":
            raise self._error("a value is missing: a number, TRUE, FALSE, or a text in single quotes")
        try:
            found = pa.scalar(_of_type(kind, text, type_), type_)
        except (ValueError, TypeError, OverflowError, pa.ArrowException):
            raise self._error(f"{name} is {type_}, which {text} is not") from None
        self._place += 1
        return found


def _of_type(kind: str, text: str, type_: pa.DataType) -> Any:
    """A literal as a column's values are; raises ValueError where it can be none of them."""
    if kind == "bytes" and pa.types.is_binary(type_):
        return bytes.fromhex(text[2:-1])
    if kind == "word" and pa.types.is_boolean(type_):
        return text.upper() == "TRUE"
    if kind == "number" and pa.types.is_integer(type_):
        return int(text)
    if kind == "number" and pa.types.is_floating(type_):
        return float(text)
    if kind == "text":
        return _of_text(text[1:-1].replace("''", "'"), type_)
    raise ValueError(text)


def _of_text(text: str, type_: pa.DataType) -> Any:
    if pa.types.is_string(type_):
        return text
    if pa.types.is_binary(type_):
        return text.encode()
    if pa.types.is_date(type_):
        return date.fromisoformat(text)
    if pa.types.is_timestamp(type_):
        at = datetime.fromisoformat(text)
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    raise ValueError(text)


HELP = (
    "a filter is made of COLUMN = VALUE (or <>, <, <=, >, >=), IN (…), BETWEEN … AND …, LIKE '…', IS NULL, AND, OR, "
    "NOT and parentheses; text and times (UTC) are in single quotes"
)
