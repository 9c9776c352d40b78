"""Filters: what they let through, and that nothing else than a filter is ever taken for one."""

import contextlib
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigdata_assets.tracing.where import MOST_CHARACTERS, MOST_DEPTH, WhereError, condition, parse

AT = datetime(2016, 1, 2, 3, 4, 5, 6_000, UTC)
ROWS = pa.table(
    {
        "n": pa.array([1, 2, None], pa.int32()),
        "share": [0.5, -1.5, 3.0],
        "name": ["a", "it's", None],
        "is_event": [True, False, None],
        "at": pa.array([AT, datetime(2017, 1, 1, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
        "day": pa.array([date(2016, 1, 2), date(2016, 1, 3), None]),
        "key": [b"\x00a", b"b", None],
        "values": [[1.0], [2.0], None],
    }
)


def found(where: str) -> list[int]:
    """Numbers of the rows that a filter lets through."""
    rows = ROWS.append_column("number", pa.array([0, 1, 2]))
    return rows.filter(parse(where, ROWS.schema))["number"].to_pylist()


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("n = 1", [0]),
        ("N == 2", [1]),
        ("n <> 1", [1]),
        ("n IN (2, 7)", [1]),
        ("n NOT IN (2, 7)", [0]),
        ("NOT n IN (2, 7)", [0]),
        ("n BETWEEN 1 AND 2 AND share < 0", [1]),
        ("NOT n BETWEEN 2 AND 3", [0]),
        ("n = 1 OR n = 2 AND share > 0", [0]),
        ("(n = 1 OR n = 2) AND share < 0", [1]),
        ("not not n=1", [0]),
        ("name = 'it''s'", [1]),
        ("name LIKE 'it%'", [1]),
        ("name IS NULL", [2]),
        ("name IS NOT NULL and is_event", [0]),
        ("is_event = false", [1]),
        ("at = '2016-01-02T03:04:05.006Z'", [0]),
        ("at = '2016-01-02 04:04:05.006+01:00'", [0]),
        ("at >= '2016-06-01'", [1]),
        ("day = '2016-01-02'", [0]),
        ("key = X'0061'", [0]),
        ("key = 'b'", [1]),
        ('"share" = -1.5e0', [1]),
        ("`values` is null", [2]),
    ],
)
def test_what_a_filter_lets_through(where: str, expected: list[int]) -> None:
    assert found(where) == expected


@pytest.mark.parametrize(
    "where",
    [
        "",
        "n",
        "n =",
        "= 1",
        "n = 1; DROP TABLE x",
        "n = 1 -- all",
        "n = 1) OR (n = 2",
        "(n = 1",
        "n = 1 UNION SELECT * FROM y",
        "n = 1 garbage",
        "EXISTS (SELECT 1)",
        "n = (SELECT max(n) FROM x)",
        "n IN (SELECT n FROM x)",
        "random() < 1",
        "n = abs(1)",
        "n = n",
        "1 = 1",
        "n = 'one'",
        "n = 1.5",
        "n = 99999999999999999999",
        "name = 1",
        'name = "a"',
        "name = 'a",
        "name NOT = 'a'",
        "name LIKE 1",
        "n LIKE '1'",
        "at = 'yesterday'",
        "day = '2016-01-02T00'",
        "key = X'0'",
        "values = 1",
        "name = 'a' \x00",
        "COPY x TO '/tmp/y'",
        "__import__('os')",
    ],
)
def test_what_is_no_filter_is_refused_with_what_one_looks_like(where: str) -> None:
    with pytest.raises(WhereError, match=r"a filter is made of|there is no column"):
        parse(where, ROWS.schema)


def test_a_wrong_column_gives_the_columns_that_there_are() -> None:
    with pytest.raises(WhereError, match="no column 'nope'; there are n, share, name, is_event, at, day, key, values"):
        parse("nope = 1", ROWS.schema)


def test_it_is_bounded() -> None:
    with pytest.raises(WhereError, match="deep"):
        parse("(" * (MOST_DEPTH + 1) + "n = 1" + ")" * (MOST_DEPTH + 1), ROWS.schema)
    with pytest.raises(WhereError, match="characters"):
        parse("n = 1" + " " * MOST_CHARACTERS, ROWS.schema)


WORDS = (
    "n name at key values is_event ( ) , = <> >= 1 -2e9 'a' '2016-01-02' X'00' AND OR NOT IN BETWEEN LIKE IS NULL TRUE"
)


@given(st.text() | st.lists(st.sampled_from(WORDS.split())).map(" ".join))
def test_no_text_raises_anything_else(where: str) -> None:
    with contextlib.suppress(WhereError):
        found(where)


@pytest.mark.parametrize("number", range(ROWS.num_rows))
def test_a_row_is_found_by_its_condition(number: int) -> None:
    row: dict[str, Any] = ROWS.slice(number, 1).to_pylist()[0]
    names = [name for name in ROWS.column_names if name != "values"]
    assert found(condition(row, names)) == [number]
