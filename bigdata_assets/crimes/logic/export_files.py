"""Export files as people have them, to columns of text: a part at a time, in memory that does not grow with the file.

A CSV record is a line, or several where a quoted field has line breaks, or a field one that is not the file's own line
end. A line that has the header's number of fields and an even number of quotation marks is always a record of its own:
a mark that is missing costs no line after that, and a file can be split anywhere. What is no record has a reason. What
the texts mean is told in exports.py.
"""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bigdata_assets.reading import InputFile

PORTAL_NAMES = (
    "ID,Case Number,Date,Block,IUCR,Primary Type,Description,Location Description,Arrest,Domestic,Beat,District,Ward,"
    "Community Area,FBI Code,X Coordinate,Y Coordinate,Year,Updated On,Latitude,Longitude,Location"
).split(",")
NEEDED = ("ID", "Date", "IUCR", "Arrest", "Domestic")
SEPARATORS = ",;\t|"
SEPARATOR_LINE = re.compile(rb"\"?sep=([,;\t|])\"?\s*", re.IGNORECASE)
"""How a spreadsheet is told the separator."""
BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, which it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
PART_BYTES = 16 << 20
BLOCK_BYTES = 4 << 20
"""What is parsed at once; a line that is longer is refused."""
CHUNK_ROWS = 50_000
MAX_RECORD_BYTES, MAX_RECORD_LINES = 65_536, 100
"""Of a record with line breaks."""
RAW_CHARACTERS = 65_536
WHOLE = 1 << 62
"""End of a part that is read to the end of its file."""
BROKEN = "\ufffd".encode()
"""What an earlier reader put for bytes that were no text."""


class ExportError(RuntimeError):
    """There is no export file of a month, or it cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Part:
    """What a task reads of a file: the records that begin in [begin, end) of its text, or row groups of Parquet.

    Attributes:
        file: the file as it was when this was planned.
        columns: the portal's names, where these are its columns, or else the file's own.
        separator: between fields; none in Parquet.
        line_end: of its first line.
        encoding: of a text, which is UTF-8 once it is read.
        after_another: whether a record of the part before it may reach into it.
    """

    file: InputFile
    columns: tuple[str, ...]
    begin: int
    end: int
    separator: str = ""
    line_end: bytes = b""
    encoding: str = "utf-8"
    after_another: bool = False


@dataclass(frozen=True)
class Refused:
    """What is no record: where it is, why, and its text."""

    position: int
    reason: str
    raw: str


@dataclass
class Chunk:
    """Records of a part as columns of text, and where each is: positions ascend in a file."""

    texts: pa.Table
    positions: NDArray[np.int64]
    refused: list[Refused] = field(default_factory=list)


def plan(path: Path) -> list[Part]:
    """The parts of an export file; none of a file without records.

    Raises:
        ExportError: it is no table with the columns that are needed.
        FileNotFoundError: it is not there.
    """
    file = InputFile.planned(path)
    with path.open("rb") as raw:
        beginning = raw.read(4)
    try:
        return _plan_parquet(path, file) if beginning == b"PAR1" or path.suffix == ".parquet" else _plan_csv(path, file)
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def read(part: Part) -> Iterator[Chunk]:
    """The records of a part, and what is none.

    Raises:
        ExportError: the file cannot be unpacked, or a Parquet file is damaged.
        FileChangedError: it was written since it was planned.
    """
    try:
        yield from part.file.unchanged(_csv_chunks(part) if part.separator else _parquet_chunks(part))
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeError, pa.ArrowException) as error:
        raise _unreadable(part.file.path, error) from error


def _unreadable(path: Path | str, error: Exception) -> ExportError:
    return ExportError(f"{path} cannot be read ({error}): export it again.")


def _plan_csv(path: Path, file: InputFile) -> list[Part]:
    encoding, skipped = _encoding(path)
    with _opened(path, encoding, skipped) as text:
        lines = _Lines(text, skipped)
        header, separator = lines.line(), ""
        if match := SEPARATOR_LINE.fullmatch(header):
            header, separator = lines.line(), match[1].decode()
        while header and not header.strip():
            header = lines.line()
    told = header.decode(errors="replace")
    separator = separator or max(SEPARATORS, key=lambda each: len(_cells(header, each)[0]))
    columns = _columns(path, _cells(header, separator)[0], told)
    whole = Part(file, columns, lines.position, WHOLE, separator, header[len(header.rstrip(b"\r\n")) :], encoding)
    if encoding != "utf-8" or _packed(path):  # it can only be read from its beginning
        return [whole]
    begins = range(lines.position, path.stat().st_size, PART_BYTES)
    return [replace(whole, begin=b, end=b + PART_BYTES, after_another=b != begins[0]) for b in begins]


def _columns(path: Path, names: Sequence[str], told: str) -> tuple[str, ...]:
    """The portal's names of columns, whichever way they are written.

    Raises:
        ExportError: one that is needed is missing, or one is there twice.
    """
    known = {_plain(name): name for name in PORTAL_NAMES}
    columns = [known.get(_plain(name), name.strip()) for name in names]
    if missing := [name for name in NEEDED if name not in columns]:
        raise ExportError(
            f"{path} lacks the columns {missing}; its first line is {told[:300]!r}. Write the portal's names there, "
            "such as ID, Date, IUCR, Arrest, Domestic or id, date, iucr, arrest, domestic."
        )
    if twice := [name for name in PORTAL_NAMES if columns.count(name) > 1]:
        raise ExportError(f"{path} has two columns {twice}: leave one of each.")
    return tuple(f"{name} (column {n})" if columns.count(name) > 1 else name for n, name in enumerate(columns, 1))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower())


def _encoding(path: Path) -> tuple[str, int]:
    """How a file's text is encoded, and the bytes of a mark of that before it."""
    with _unpacked(path) as file:
        beginning = file.read(64)
    for mark, encoding in BOMS.items():
        if beginning.startswith(mark):
            return encoding, len(mark) if encoding == "utf-8" else 0
    # A header is ASCII: in UTF-16 every other byte of it is 0.
    if beginning[1::2].count(0) > len(beginning) // 4:
        return "utf-16-le", 0
    return ("utf-16-be" if beginning[::2].count(0) > len(beginning) // 4 else "utf-8"), 0


def _packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _unpacked(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path) if _packed(path) else path.open("rb"))


def _opened(path: Path, encoding: str, begin: int) -> IO[bytes]:
    """A file's text in UTF-8 from a byte on."""
    file = _unpacked(path)
    if encoding != "utf-8":
        file = cast(IO[bytes], _Transcoded(file, encoding))
    file.seek(begin)
    return file


class _Transcoded(io.RawIOBase):
    """A text in UTF-8 that is stored in another encoding; it is read from its beginning."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file, self._rest, self._ended = file, b"", False
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and not self._ended:
            data = self._file.read(size)
            self._ended = not data
            self._rest += self._decoder.decode(data, final=self._ended).encode()
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        while offset and (skipped := len(self.read(min(offset, BLOCK_BYTES)))):
            offset -= skipped
        return whence

    def close(self) -> None:
        self._file.close()
        super().close()


class _Lines:
    """Physical lines of a text, which end by LF, CR LF or CR.

    Attributes:
        position: the byte of the text that comes next.
        cut: whether what was read last is the beginning of a line that is longer than BLOCK_BYTES.
    """

    def __init__(self, text: IO[bytes], position: int) -> None:
        self._text, self._data, self._at, self._ended = text, b"", 0, False
        self.position, self.cut = position, False

    def line(self) -> bytes:
        """The next one; empty at the end."""
        return self.block(1)

    def unread(self, line: bytes) -> None:
        """Put back what was read last."""
        self._at -= len(line)
        self.position -= len(line)

    def block(self, size: int) -> bytes:
        """The lines that are whole within the next bytes, or one that is longer; empty at the end."""
        self._fill(size + 1)
        data, at, self.cut = self._data, self._at, False
        # A CR at the end may be half of a line's end.
        end = max(data.rfind(b"\n", at, at + size), data.rfind(b"\r", at, at + size - 1)) + 1
        while not end:
            if found := re.compile(rb"\r\n|\n|\r(?!\Z)").search(self._data, self._at):
                end = found.end()
            elif self._ended:
                end = len(self._data)
                break
            elif len(self._data) - self._at > BLOCK_BYTES:
                return self._cut()
            else:
                self._fill(len(self._data) - self._at + MAX_RECORD_BYTES)
        block = self._data[self._at : end]
        self._at = end
        self.position += len(block)
        return block

    def _cut(self) -> bytes:
        """The beginning of a line of which the rest is skipped."""
        beginning = self._data[self._at : self._at + RAW_CHARACTERS]
        while True:
            self.position += len(self._data) - self._at
            self._data, self._at = b"", 0
            self._fill(BLOCK_BYTES)
            if not self._data or (found := re.search(rb"\r\n|\n|\r", self._data)):
                break
        self._at = found.end() if self._data and found else 0
        self.position += self._at
        self.cut = True
        return beginning

    def _fill(self, size: int) -> None:
        """Have so many bytes to look at, if there are."""
        if (lacking := size - (len(self._data) - self._at)) > 0 and not self._ended:
            more = self._text.read(max(lacking, MAX_RECORD_BYTES))
            self._ended = not more
            self._data, self._at = self._data[self._at :] + more, 0


def _csv_chunks(part: Part) -> Iterator[Chunk]:
    with _opened(Path(part.file.path), part.encoding, max(part.begin - part.after_another, 0)) as text:
        lines = _Lines(text, part.begin - part.after_another)
        if part.after_another:
            lines.line()  # of which the last byte before this part is a byte
        rest = b""
        for position, block, cut, last in _blocks(lines, part):
            if cut:
                yield _chunk(part, [], [Refused(position, f"a line longer than {BLOCK_BYTES:,} bytes", _raw(block))])
                continue
            table = None if rest else _parsed(block, part)
            if table is not None:
                yield Chunk(table, position + np.arange(len(table)))
            else:
                chunk, rest = _line_by_line(part, position - len(rest), rest + block, last)
                yield chunk


def _blocks(lines: _Lines, part: Part) -> Iterator[tuple[int, bytes, bool, bool]]:
    """Whole lines from a part's first record to the next part's: position, text, whether it is cut, whether it ends.

    An empty one ends them, or those before a line that is cut.
    """
    if part.after_another:
        while True:
            if lines.position >= part.end or not (line := lines.line()):
                return
            if not lines.cut and _is_record(line, part):
                break
        lines.unread(line)
    while (at := lines.position) < part.end and (block := lines.block(min(BLOCK_BYTES, part.end - at))):
        if lines.cut:
            yield at, b"", False, True
        yield at, block, lines.cut, False
    at, tail = lines.position, bytearray()
    while (line := lines.line()) and not lines.cut and not _is_record(line, part):
        tail += line
        if len(tail) > BLOCK_BYTES:
            yield at, bytes(tail), False, False
            at, tail = lines.position, bytearray()
    yield at, bytes(tail), False, True
    if lines.cut:  # the next part has skipped it
        yield at + len(tail), line, True, False


def _is_record(line: bytes, part: Part) -> bool:
    if line.count(b'"') % 2:
        return False
    cells, unclosed = _cells(line, part.separator)
    return len(cells) == len(part.columns) and not unclosed


def _parsed(block: bytes, part: Part) -> pa.Table | None:
    """The records of lines that each are one; None where a line is not, or may not be."""
    from pyarrow import csv as pa_csv

    if BROKEN in block:
        return None
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    while b"\n\n" in block:
        block = block.replace(b"\n\n", b"\n")
    if not (block := block.strip(b"\n")):
        return _chunk(part, [], []).texts
    last = block[block.rfind(b"\n") + 1 :]
    if _cells(last, part.separator)[1]:  # a quotation mark at the end that goes on is not told
        return None
    names = [str(number) for number in range(len(part.columns))]
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(block),
            pa_csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=names),
            pa_csv.ParseOptions(delimiter=part.separator),
            pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid:
        return None
    # Between two quotation marks a line end is taken for text.
    return table.rename_columns(list(part.columns)) if len(table) == block.count(b"\n") + 1 else None


def _line_by_line(part: Part, position: int, text: bytes, last: bool) -> tuple[Chunk, bytes]:
    """The records of lines of which one is none or has line breaks, and the lines of one that may not have ended."""
    lines, at = text.splitlines(keepends=True), 0
    records: list[tuple[int, list[str]]] = []
    refused: list[Refused] = []
    while at < len(lines):
        record, taken, cells, pending = _record(lines, at, part)
        if pending and at + taken == len(lines) and not last and _may_grow(record, taken):
            return _chunk(part, records, refused), record
        unclosed = False
        if pending:
            record, taken = lines[at], 1
            cells, unclosed = _cells(record, part.separator)
        if reason := "a quotation mark lacks its other one" if unclosed else _no_record(record, cells, part):
            refused.append(Refused(position, reason, _raw(record)))
        elif record.strip():
            records.append((position, cells))
        position += len(record)
        at += taken
    return _chunk(part, records, refused), b""


def _record(lines: Sequence[bytes], at: int, part: Part) -> tuple[bytes, int, list[str], bool]:
    """What begins in a line: text, number of lines, fields, and whether it has not ended."""
    record, taken = lines[at], 1
    text = record
    while True:
        cells, unclosed = _cells(text, part.separator)
        other_end = text.endswith((b"\n", b"\r")) and not text.endswith(part.line_end)
        pending = unclosed or (other_end and bool(text.strip()) and len(cells) != len(part.columns))
        if not pending or at + taken == len(lines) or not _may_grow(record, taken):
            break
        if _is_record(line := lines[at + taken], part):
            break
        # Outside of quotation marks it is a space in place of the line break: csv would refuse that.
        text = (text if unclosed else text.rstrip(b"\r\n") + b" ") + line
        record, taken = record + line, taken + 1
    return record, taken, cells, pending


def _may_grow(record: bytes, lines: int) -> bool:
    return len(record) < MAX_RECORD_BYTES and lines < MAX_RECORD_LINES


def _no_record(record: bytes, cells: Sequence[str], part: Part) -> str:
    """Why a text is no record; nothing where it is one, or blank."""
    try:
        text = record.decode()
    except UnicodeDecodeError:
        return "not UTF-8"
    if "\ufffd" in text:
        return "characters that are no text"
    if not record.strip() or len(cells) == len(part.columns):
        return ""
    return f"{len(cells)} fields where the header has {len(part.columns)}"


def _cells(record: bytes, separator: str) -> tuple[list[str], bool]:
    """The fields of a record, and whether a quotation mark in it lacks its other one."""
    text = record.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
    if '"' not in text:
        return text.split(separator), False
    reader = csv.reader([text, ""], delimiter=separator)
    try:
        cells = next(reader, [])
    except csv.Error:  # a field of more than 128 KiB
        return [], False
    return cells, reader.line_num > 1  # only then it has asked for another line


def _raw(record: bytes) -> str:
    return record.rstrip(b"\r\n").decode("utf-8", "backslashreplace")[:RAW_CHARACTERS]


def _chunk(part: Part, records: Sequence[tuple[int, Sequence[str]]], refused: list[Refused]) -> Chunk:
    columns = zip(*(cells for _, cells in records), strict=True) if records else [()] * len(part.columns)
    texts = pa.table([pa.array(values, pa.string()) for values in columns], list(part.columns))
    return Chunk(texts, np.array([position for position, _ in records], np.int64), refused)


def _plan_parquet(path: Path, file: InputFile) -> list[Part]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as parquet:
        names, groups = parquet.schema_arrow.names, parquet.num_row_groups
    columns = _columns(path, names, ", ".join(names))
    return [Part(file, columns, group, group + 1) for group in range(groups)]


def _parquet_chunks(part: Part) -> Iterator[Chunk]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(part.file.path) as parquet:
        position = sum(parquet.metadata.row_group(group).num_rows for group in range(part.begin))
        for batch in parquet.iter_batches(CHUNK_ROWS, row_groups=range(part.begin, part.end)):
            texts = pa.table([as_text(column) for column in batch.columns], list(part.columns))
            yield Chunk(texts, position + np.arange(len(texts)))
            position += len(texts)


def as_text(column: pa.Array) -> pa.Array:
    """Values as a CSV file would have them: whole numbers without a decimal point, true and false."""
    if pa.types.is_dictionary(column.type):
        values = as_text(column.dictionary)
        return pa.DictionaryArray.from_arrays(column.indices, values).dictionary_decode()
    if pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
        whole = pc.fill_null(pc.and_(pc.equal(column, pc.floor(column)), pc.less(pc.abs(column), 2.0**53)), False)
        numbers = pc.if_else(whole, column, 0.0).cast(pa.int64()).cast(pa.string())
        return pc.if_else(whole, numbers, column.cast(pa.string()))
    try:
        return column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):  # a structure, a list, bytes that are no text
        return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
