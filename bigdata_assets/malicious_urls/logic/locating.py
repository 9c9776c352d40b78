"""The record at a position of a landed file or list: its line's number, and its bytes as they stand there."""

from dataclasses import dataclass
from typing import Any

from upath import UPath

from bigdata_assets.malicious_urls.logic.layout import HEAD_BYTES, find_layout
from bigdata_assets.malicious_urls.logic.records import BLOCK_BYTES, MAX_LINE_BYTES, blocks
from bigdata_assets.malicious_urls.logic.text import MAX_EXPANDED_BYTES, Text, encoding_of

PARQUET_ROWS = 10_000
"""Read at once."""


@dataclass(frozen=True)
class Record:
    """A record as it stands in its file.

    Attributes:
        line: number of its first line, or its row in a Parquet file, from 1 on.
        data: its bytes, its line's end among them, unpacked and in UTF-8; of a long one the first 65,536.
    """

    line: int
    data: bytes


def record(path: UPath, position: int) -> Record:
    """The record at a position as url_batches has it.

    What is in memory is a block, or some rows of a Parquet file.

    Raises:
        OSError, EOFError, ValueError: there is no such file, it cannot be read, or it ends before.
    """
    return _of_parquet(path, position) if path.name.endswith(".parquet") else _of_text(path, position)


class _Rest:
    """A text from a place on that was reached by reading up to it."""

    def __init__(self, first: bytes, text: Text) -> None:
        self._first, self._text = first, text

    @property
    def problem(self) -> str:
        return self._text.problem

    def read(self, size: int) -> bytes:
        part, self._first = self._first, b""
        return part or self._text.read(size)


def _of_text(path: UPath, position: int) -> Record:
    encoding = encoding_of(path)
    with Text(path, encoding, 0, MAX_EXPANDED_BYTES) as text:
        head = text.read(HEAD_BYTES)[:HEAD_BYTES]
    layout = find_layout(head, len(head) < HEAD_BYTES)
    with Text(path, encoding, 0, MAX_EXPANDED_BYTES) as text:
        at, ends, last = 0, 0, b""
        while True:
            part = text.read(BLOCK_BYTES)
            if not part:
                raise ValueError(f"{path} ends at byte {at}: there is no record at {position}")
            before = part[: max(position - at, 0)]
            ends += _line_ends(last, before)
            if at + len(part) > position:
                break
            at, last = at + len(part), part[-1:]
        rest: Any = _Rest(part[position - at :], text)
        for block in blocks(rest, position, layout.separator, layout.mark):
            return Record(ends + 1, block.buffer[: int(block.ends[0])][:MAX_LINE_BYTES])
    raise ValueError(f"{path} has no whole record at {position}")


def _line_ends(last: bytes, part: bytes) -> int:
    """Line ends in a part: LF, CR LF or a lone CR; `last` is the byte before it."""
    in_halves = last == b"\r" and part.startswith(b"\n")  # counted already
    return part.count(b"\n") + part.count(b"\r") - part.count(b"\r\n") - in_halves


def _of_parquet(path: UPath, position: int) -> Record:
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        parquet = pq.ParquetFile(file)
        begins = 0
        for group in range(parquet.num_row_groups):
            n_rows = parquet.metadata.row_group(group).num_rows
            if position < begins + n_rows:
                break
            begins += n_rows
        else:
            raise ValueError(f"{path} has {begins} rows: there is none at {position}")
        for batch in parquet.iter_batches(PARQUET_ROWS, row_groups=[group]):
            if position < begins + batch.num_rows:
                (row,) = batch.slice(position - begins, 1).to_pylist()
                return Record(position + 1, repr(row).encode()[:MAX_LINE_BYTES])
            begins += batch.num_rows
    raise ValueError(f"{path} has no row {position}")
