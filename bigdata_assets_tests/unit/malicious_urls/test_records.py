import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from upath import UPath

from bigdata_assets.malicious_urls.logic import records
from bigdata_assets.malicious_urls.logic.records import BROKEN, blocks, fields
from bigdata_assets.malicious_urls.logic.text import Text

LONGEST = 12


def found(path, content, separator, block_bytes, mark=b""):
    """(begin, end, whether its quotes are broken) of each record, as read in blocks."""
    path.write_bytes(content)
    told = []
    with Text(UPath(path), "utf-8", 0, len(content)) as text:
        for block in blocks(text, 0, separator, mark, block_bytes):
            starts, ends = block.starts, block.ends.copy()
            ends += block.cut
            starts[1:] += block.cut
            kinds = (block.kinds == BROKEN).tolist()
            told += zip((block.position + starts).tolist(), (block.position + ends).tolist(), kinds, strict=True)
    return told


def one_by_one(content, separator, longest):
    """The same by the grammar's words, a byte after the other."""
    begin = 0
    while begin < len(content):
        line = next((n + 1 for n in range(begin, len(content)) if ends_line(content, n)), len(content))
        end = line if content.startswith((b"#", b"\xef\xbb\xbf#"), begin) else record_end(content, begin, separator)
        broken = end is None or (end != line and end - begin > longest)
        yield begin, line if broken else end, broken
        begin = line if broken else end


def in_parts(content, separator, longest, mark):
    """The same of what the mark cuts into parts."""
    bounds = [0, *(match.start() for match in re.finditer(re.escape(mark), content) if mark and match.start())]
    for begin, end in zip(bounds, [*bounds[1:], len(content)], strict=True):
        for first, last, broken in one_by_one(content[begin:end], separator, longest):
            yield begin + first, begin + last, broken


def ends_line(content, n):
    return content[n : n + 1] == b"\n" or (content[n : n + 1] == b"\r" and content[n + 1 : n + 2] != b"\n")


def record_end(content, at, separator):
    stops = separator + b"\r\n"
    at += 3 * content.startswith(b"\xef\xbb\xbf", at)
    while True:
        first = skip(content, at, b" " if separator == b"\t" else b" \t")
        if content[first : first + 1] == b'"':
            at = closing_quote(content, first + 1)
            at = None if at is None else skip(content, at + 1, b" " if separator == b"\t" else b" \t")
            if at is None or (at < len(content) and content[at] not in stops):
                return None
        else:
            at = min((n for n in range(at, len(content)) if content[n] in stops), default=len(content))
        if content[at : at + 1] != separator or not separator:
            return min(at + (2 if content.startswith(b"\r\n", at) else 1), len(content))
        at += 1


def skip(content, at, blanks):
    return next((n for n in range(at, len(content)) if content[n] not in blanks), len(content))


def closing_quote(content, at):
    while at < len(content):
        if content[at : at + 1] == b'"':
            if content[at + 1 : at + 2] != b'"':
                return at
            at += 1
        at += 1
    return None


MARK = b"\xef\xbb\xbfu,t"
BYTES = st.sampled_from(
    [b'"', b'"', b",", b",", b"\n", b"\r", b"\r\n", b"#", b" ", b"\t", b"a", b"b" * 9, MARK[:3], MARK, MARK]
)


@settings(max_examples=600, deadline=None)
@given(
    st.lists(BYTES, max_size=50).map(b"".join),
    st.integers(1, 40),
    st.sampled_from([b",", b"\t", b""]),
    st.sampled_from([b"", MARK]),
)
@example(b"a" * (LONGEST + 1) + b"\r\nb\n", LONGEST + 2, b",", b"")
@example(b"a" * (LONGEST + 9) + b"\r\nb\n", LONGEST + 10, b",", b"")
@example(b'"' + b"\n" * (LONGEST - 3) + b'"\nb\n', 3, b",", b"")
@example(b'"' + b"\n" * (LONGEST - 2) + b'"\nb\n', 3, b",", b"")
@example(b'"' + b"\n" * (LONGEST - 2) + b'"', 3, b",", b"")
@example(b'"' + b"\n" * (LONGEST - 1) + b'"', 3, b",", b"")
@example(b'"' + b"\n" * (LONGEST - 2) + b'"' + MARK, LONGEST + 3, b",", MARK)
@example(b'# a,"b\nc",d\n', 40, b",", b"")
@example(b"a" * 40 + MARK, 38, b",", MARK)
def test_records_are_those_of_the_grammar_whatever_the_blocks(tmp_path_factory, content, block_bytes, separator, mark):
    path = tmp_path_factory.mktemp("records") / "a.csv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "MAX_LINE_BYTES", LONGEST)
        told = found(path, content, separator, block_bytes, mark)
    expected = list(in_parts(content, separator, LONGEST, mark))
    assert [ends for *ends, _ in told] == [ends for *ends, _ in expected]
    for (begin, end, broken), (*_, is_broken) in zip(told, expected, strict=True):
        assert end - begin > LONGEST or broken == is_broken


@pytest.mark.parametrize("block_bytes", [1, 5, 100])
@pytest.mark.parametrize("before", [b"x,y", b'"x","y"', b'"x\n1",y'])
def test_a_mark_begins_a_record(tmp_path, before, block_bytes):
    mark = b"\xef\xbb\xbfa,b"
    content = before + mark + b"\n1,2" + mark
    told = found(tmp_path / "a.csv", content, b",", block_bytes, mark)
    assert [content[begin:end] for begin, end, _ in told] == [before, mark + b"\n", b"1,2", mark]


def test_a_block_holds_whole_records_and_little_more(tmp_path):
    content = b'"aaa",bbb\n' * 10_000
    (tmp_path / "a.csv").write_bytes(content)
    with Text(UPath(tmp_path / "a.csv"), "utf-8", 0, len(content)) as text:
        found_ = list(blocks(text, 0, b",", b"", 1_024))
    assert max(len(block.buffer) for block in found_) < 1_024 + 10
    assert {kind for block in found_ for kind in np.unique(block.kinds)} == {records.PLAIN}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b"", [b""]),
        (b",", [b"", b""]),
        (b'a,"b,""c""\n", d ', [b"a", b'b,"c"\n', b" d "]),
        (b' "a" , "b"', [b"a", b"b"]),
        (b'a"b,c"', [b'a"b', b'c"']),
        (b'"a"b,c', None),
        (b'a,"b', None),
    ],
)
def test_fields(record, expected):
    assert fields(record, b",") == expected
    assert fields(record.replace(b",", b"\t"), b"\t") == (expected and [f.replace(b",", b"\t") for f in expected])
