"""Records of a text file: where each ends, in blocks of bounded size, whatever its line ends and quotes are.

The grammar is RFC 4180's. Fields are parted by one separator; a field in quotes may have separators, line breaks and
doubled quotes; a record ends at LF, CR LF or a lone CR. Beyond it: blanks may stand around a field in quotes; a quote
within a field without quotes is a character; a line that begins with `#` is one record whatever quotes it has. A quote
that is not closed before a separator or a line's end within MAX_LINE_BYTES breaks its line, and no other: the next
record begins on the next line. So a record's begin depends on what is before it, but its end on no more than
MAX_LINE_BYTES from its begin, and any block size gives the same records.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from bigdata_assets.malicious_urls.logic.text import Text

MAX_LINE_BYTES = 65_536
BLOCK_BYTES = 1 << 20
BOM = b"\xef\xbb\xbf"

PLAIN, ODD, BROKEN = range(3)
"""Kinds of records: fields lie between separators, in quotes or not; Python must look; a quote is not closed."""


@dataclass(frozen=True)
class Block:
    """Whole records of a file, one after the other.

    Attributes:
        position: offset of the first one in the file.
        buffer: the records' bytes, and perhaps some of the next one.
        ends: (records,) offset in the buffer after each record's line end.
        kinds: (records,) PLAIN, ODD or BROKEN.
        cut: bytes of the first record that are not in the buffer: a line is kept up to MAX_LINE_BYTES.
    """

    position: int
    buffer: bytes
    ends: np.ndarray
    kinds: np.ndarray
    cut: int = 0

    @property
    def starts(self) -> np.ndarray:
        """(records,) offset in the buffer of each record's first byte."""
        return _starts(self.ends)


def blocks(
    text: Text, position: int, separator: bytes, mark: bytes = b"", block_bytes: int = BLOCK_BYTES
) -> Iterator[Block]:
    """All records of a text, which begins with one; not the last one of a text that ends by a problem.

    Args:
        text: the text.
        position: offset of the first byte in the file.
        separator: of fields; empty where a line is one field.
        mark: what begins a record wherever it stands: a byte-order mark and the header, where files were put one after
            the other and the last line of one had no end.
        block_bytes: read at once.
    """
    # Of a line without an end: as much as tells what it is, and its last bytes, which may be half of an end or mark.
    kept, last = MAX_LINE_BYTES + 1 + len(mark), 1 + len(mark)
    tail, cut = b"", 0
    while True:
        chunk = text.read(block_bytes)
        buffer = tail + chunk
        ends, kinds = _records(buffer, separator, mark, not chunk and not text.problem)
        done = int(ends[-1]) if len(ends) else 0
        if done:
            yield Block(position, buffer, ends, kinds, cut)
            position += done + cut
            cut = 0
        if not chunk:
            return
        tail = buffer[done:]
        if not done and len(tail) > kept + last + 1:
            cut += len(tail) - kept - last - 1
            tail = tail[:kept] + b"\0" + tail[-last:]


def fields(record: bytes, separator: bytes) -> list[bytes] | None:
    """The fields of a record that has no line end; None where a quote is not closed."""
    field = _grammar(separator)[1]
    found: list[bytes] = []
    at = 0
    while match := field.match(record, at):
        quoted = match[1]
        found.append(match[0] if quoted is None else quoted.replace(b'""', b'"'))
        at = match.end() + 1
        if at > len(record):
            return found
        if record[at - 1 : at] != separator:
            break
    return None


def _records(buffer: bytes, separator: bytes, mark: bytes, final: bool) -> tuple[np.ndarray, np.ndarray]:
    """Ends and kinds of the records that are whole in the buffer, which begins with one."""
    data = np.frombuffer(buffer, np.uint8)
    ends = _line_ends(buffer, data, mark, final)
    kinds = np.full(len(ends), PLAIN, np.uint8)
    if not len(ends) or b'"' not in buffer:
        return ends, kinds
    starts = _starts(ends)
    kept = np.ones(len(ends), bool)
    begins = 0
    for line in np.flatnonzero(_odd_lines(data, starts, ends, separator)).tolist():
        start = int(starts[line])
        if start < begins:
            continue  # within a record that began before
        end = _record_end(buffer, start, separator, mark, final)
        if end is None:
            kept[line:] = False
            break
        if end < 0:
            kinds[line] = BROKEN
            continue
        last = int(np.searchsorted(ends, end)) if end > start else line
        kept[line:last] = False
        kinds[last], begins = ODD, end
    return ends[kept], kinds[kept]


def _starts(ends: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), ends[:-1]])


def _line_ends(buffer: bytes, data: np.ndarray, mark: bytes, final: bool) -> np.ndarray:
    ends = np.flatnonzero(data == ord("\n")) + 1
    if b"\r" in buffer:
        after = np.flatnonzero(data[:-1] == ord("\r")) + 1
        alone = after[data[after] != ord("\n")]
        if len(alone):
            ends = np.sort(np.concatenate([ends, alone]))
    if mark and mark in buffer:
        marks = [match.start() for match in re.finditer(re.escape(mark), buffer) if match.start()]
        ends = np.union1d(ends, np.array(marks, np.int64))
    if final and len(data) and (not len(ends) or ends[-1] < len(data)):
        ends = np.append(ends, len(data))
    return ends


def _odd_lines(data: np.ndarray, starts: np.ndarray, ends: np.ndarray, separator: bytes) -> np.ndarray:
    """(lines,) whether a line's quotes are more than the first and last characters of fields."""
    quotes = np.flatnonzero(data[: ends[-1]] == ord('"'))
    line = np.searchsorted(ends, quotes, side="right")
    number = np.arange(len(quotes)) - np.searchsorted(quotes, starts)[line]
    outside = np.zeros(256, bool)
    outside[list(separator + b"\r\n")] = True
    opens = (quotes == starts[line]) | outside[data[quotes - 1]]
    # Where a line ends without a line end, the byte after its last one is the next line's, or there is none.
    closes = (quotes == ends[line] - 1) | outside[data[np.minimum(quotes + 1, len(data) - 1)]]
    wrong = np.where(number % 2 == 0, ~opens, ~closes)
    n_quotes = np.bincount(line, minlength=len(ends))
    return (np.bincount(line[wrong], minlength=len(ends)) > 0) | (n_quotes % 2 == 1)


def _record_end(buffer: bytes, start: int, separator: bytes, mark: bytes, final: bool) -> int | None:
    """Offset after a record; -1 where a quote is not closed; None where more bytes are needed to tell."""
    if buffer.startswith((b"#", BOM + b"#"), start):
        return start
    stop = min(start + MAX_LINE_BYTES + 1, len(buffer))
    at_mark = buffer.find(mark, start + 1, stop + len(mark)) if mark else -1
    if at_mark >= 0:
        stop = at_mark
    match = _grammar(separator)[0].match(buffer, start, stop)
    if match and match.end() < stop:
        return match.end()
    if at_mark < 0 and not final and len(buffer) - start <= MAX_LINE_BYTES + 1 + len(mark):
        return None
    return stop if match and stop - start <= MAX_LINE_BYTES else -1


@cache
def _grammar(separator: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Patterns of a record with its line end, and of a field; what is between a field's quotes is group 1."""
    blanks = b" *" if separator == b"\t" else rb"[ \t]*"
    after = rb"(?=[\r\n" + re.escape(separator) + rb"]|\Z)"
    field = (
        blanks + rb'"((?:[^"]++|"")*+)"' + blanks + after
        + rb"|(?!" + blanks + rb'")[^\r\n' + re.escape(separator) + rb"]*+"
    )  # fmt: skip
    more = rb"(?:" + re.escape(separator) + rb"(?:" + field + rb"))*+" if separator else b""
    record = rb"(?:" + BOM + rb")?+(?:" + field + rb")" + more + rb"(?:\r\n|\r|\n|\Z)"
    return re.compile(record), re.compile(field)
