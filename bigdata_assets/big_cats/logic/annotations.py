"""Open Images' CSV files to rows: labels and boxes by parts of a file on Spark's workers, in every published spelling.

A row of labels or boxes is one physical line, so that a file of any size can be cut at any line end; titles in the
files of sources may hold line ends, so that such a file is read from its beginning to its end.
"""

import csv
import gzip
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from bigdata_assets import reading
from bigdata_assets.big_cats.tables import (
    BOXES,
    CLASS_DESCRIPTIONS,
    FLAGS,
    IMAGE_LABELS,
    IMAGE_SOURCES,
    QUARANTINED_LABELS,
    ROTATIONS_DEG,
)
from bigdata_assets.io_managers.staging import StagedFiles, Staging
from bigdata_assets.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PART_BYTES = 32 << 20
BLOCK_BYTES = 8 << 20
"""What a worker has in memory at a time, and a row group of what it writes."""
MAX_LINE_BYTES = 1 << 20
RAW_CHARACTERS = 65_536
BATCH_ROWS = 10_000
CLASS_HEADERS = (("id", "name"), ("LabelName", "DisplayName"))
"""Of v6 and v7; up to v5 there was none."""

QUARANTINE = QUARANTINED_LABELS.arrow_schema
"""Of unusable rows; all three tables of them have these columns."""


class AnnotationsFileError(RuntimeError):
    """A file is not there or not one of Open Images'; the message says which, and what to do."""


@dataclass(frozen=True)
class Field:
    """A column of a file: the table's column that it becomes, and what its text must be."""

    column: str
    type: pa.DataType
    valid: Callable[[Any], Any]
    """Whether values are usable: of an array, and of one value in an array of one."""
    what: str
    """What a usable one is, for who reads the reason."""


def _matches(pattern: str) -> Callable[[pa.Array], pa.Array]:
    return lambda values: pc.match_substring_regex(values, pattern)


def _share(values: pa.Array) -> pa.Array:
    """NaN and what is beyond the picture stay: whether a chip can be made of a box is said where chips are."""
    return pc.is_valid(values)


IMAGE_ID = "^[0-9a-f]{16}$"
_ID = Field("image_id", pa.string(), _matches(IMAGE_ID), "16 hexadecimal digits")
_MID = Field("label", pa.string(), _matches(r"^/[a-z]+/[0-9a-z_]+$"), "a MID, such as /m/07dm6")
_SOURCE = Field("source", pa.string(), lambda values: pc.not_equal(values, ""), "a word")
_CONFIDENCE = Field(
    "confidence",
    pa.float64(),
    lambda values: pc.and_(pc.greater_equal(values, 0.0), pc.less_equal(values, 1.0)),
    "a number from 0 to 1",
)
LABEL_FIELDS: Mapping[str, Field] = {
    "ImageID": _ID,
    "Source": _SOURCE,
    "LabelName": _MID,
    "Confidence": _CONFIDENCE,
}
BOX_FIELDS: Mapping[str, Field] = {
    **LABEL_FIELDS,
    **{
        name: Field(column, pa.float64(), _share, "a number")
        for name, column in {"XMin": "x_min", "XMax": "x_max", "YMin": "y_min", "YMax": "y_max"}.items()
    },
    **{
        "".join(word.title() for word in column.split("_")): Field(
            column, pa.float64(), lambda values: pc.is_in(values, pa.array([-1.0, 0.0, 1.0])), "1, 0 or -1"
        )
        for column in FLAGS
    },
}


@dataclass(frozen=True)
class Kind:
    """A kind of file: how it is called, what its columns become, and the table of its rows."""

    name: str
    fields: Mapping[str, Field]
    table: Table


LABELS = Kind(r"(oidv\d-)?{subset}-annotations-human-imagelabels(-boxable)?\.csv(\.gz)?", LABEL_FIELDS, IMAGE_LABELS)
BOX_FILES = Kind(r"(oidv\d-)?{subset}-annotations-bbox\.csv(\.gz)?", BOX_FIELDS, BOXES)
SOURCES_NAME = r"(oidv\d-)?{subset}-images(-boxable)?-with-rotation\.csv(\.gz)?"
CLASSES_NAME = r"(oidv\d-)?class-descriptions(-boxable)?\.csv"


@dataclass(frozen=True)
class Part:
    """The lines of a file that begin in [begin, end)."""

    file: reading.InputFile
    subset: str
    header: tuple[str, ...]
    begin: int
    end: int


def find(folder: Path, name: str, subset: str = "") -> Path | None:
    """The file of a subset that is called so, rather that of boxable classes; None where there is none.

    Raises:
        AnnotationsFileError: there are several.
    """
    pattern = re.compile(name.replace("{subset}", subset))
    found = sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name) and path.is_file())
    found = [path for path in found if "boxable" in path.name] or found
    if len(found) > 1:
        raise AnnotationsFileError(
            f"{folder} has {' and '.join(path.name for path in found)}, which say the same: leave one of them there."
        )
    return found[0] if found else None


def class_descriptions(folder: Path) -> pa.Table:
    """Names of the classes, by MID; columns as in CLASS_DESCRIPTIONS.

    Raises:
        AnnotationsFileError: there is no such file, or a line of it is no MID and name.
    """
    path = find(folder, CLASSES_NAME)
    if path is None:
        raise AnnotationsFileError(f"{folder} has no class-descriptions-boxable.csv, or what v6 and v7 call it.")
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = [tuple(row) for row in csv.reader(lines) if row]
    if rows and rows[0] in CLASS_HEADERS:
        del rows[0]
    names: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        if len(row) != 2 or not re.fullmatch(r"/[a-z]+/[0-9a-z_]+", row[0]) or not row[1]:
            raise AnnotationsFileError(f"{path}: row {number} is {row}, which is no MID and name.")
        if names.setdefault(*row) != row[1]:
            raise AnnotationsFileError(f"{path}: {row[0]} has two names, {names[row[0]]!r} and {row[1]!r}.")
    return pa.table([list(names), list(names.values())], CLASS_DESCRIPTIONS.arrow_schema)


def plan(path: Path, subset: str, kind: Kind) -> list[Part]:
    """The parts of a file that tasks read.

    Raises:
        AnnotationsFileError: a column is missing from its header.
    """
    file = reading.InputFile.planned(path)
    first, header = _header(path, kind.fields)
    if path.suffix == ".gz":  # it can only be read from its beginning
        return [Part(file, subset, header, len(first), 1 << 62)]
    begins = range(len(first), path.stat().st_size, PART_BYTES)
    return [Part(file, subset, header, begin, begin + PART_BYTES) for begin in begins]


def _header(path: Path, needed: Iterable[str]) -> tuple[bytes, tuple[str, ...]]:
    """A file's first line, and the names in it.

    Raises:
        AnnotationsFileError: a name that is needed is not among them.
    """
    with _opened(path) as lines:
        first = lines.readline(MAX_LINE_BYTES)
    names = tuple(next(csv.reader([first.decode("utf-8-sig", "replace")]), []))
    if missing := [name for name in needed if name not in names]:
        raise AnnotationsFileError(
            f"{path} lacks the columns {', '.join(missing)}; its first line is {first[:200]!r}. Open Images' own file "
            "has them there."
        )
    return first, names


def stage(
    spark: "SparkSession", parts: Sequence[Part], kind: Kind, usable: Staging, refused: Staging
) -> tuple[StagedFiles, StagedFiles]:
    """Files of the kind's table and of its quarantine, read by Spark's workers.

    Raises:
        FileChangedError: a file was written while it was read.
    """
    return reading.stage(spark, parts, partial(read, kind=kind), lambda part: part.subset, usable, refused)


def read(part: Part, kind: Kind) -> Iterator[pa.RecordBatch]:
    """The rows of a part: batches of usable ones, columns as in the kind's table, and of others as in QUARANTINE."""
    yield from part.file.unchanged(_rows(part, kind))


def _rows(part: Part, kind: Kind) -> Iterator[pa.RecordBatch]:
    for position, block in _blocks(part):
        try:
            # Between two quotation marks a line end would be taken for text, and the rows there for one.
            rows = None if b'"' in block else _parsed(block, part.header, kind.fields)
        except pa.ArrowInvalid:
            rows = None
        if rows is None or not all(_valid(rows[name], field) for name, field in kind.fields.items()):
            yield from _line_by_line(part, kind, position, block)
        else:
            yield _typed({name: rows[name].combine_chunks() for name in kind.fields}, part.subset, kind)


def _blocks(part: Part) -> Iterator[tuple[int, bytes]]:
    """Whole lines of a part, BLOCK_BYTES and a line at a time, with the byte where they begin."""
    with _opened(Path(part.file.path)) as lines:
        lines.seek(part.begin - 1)
        _line(lines, part)  # the end of a line that another part reads
        while (position := lines.tell()) < part.end:
            block = lines.read(min(BLOCK_BYTES, part.end - position))
            if not block:
                return
            if not block.endswith(b"\n"):
                block += _line(lines, part)
            yield position, block


def _line(lines: IO[bytes], part: Part) -> bytes:
    line = lines.readline(MAX_LINE_BYTES)
    if len(line) == MAX_LINE_BYTES:
        raise AnnotationsFileError(
            f"{part.file.path} has no line end in the {MAX_LINE_BYTES:,} bytes up to byte {lines.tell():,}: it is no "
            "CSV file with a row in each line."
        )
    return line


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path) if path.suffix == ".gz" else path.open("rb"))


def _parsed(block: bytes, header: Sequence[str], fields: Mapping[str, Field]) -> pa.Table:
    """The columns of a block.

    Raises:
        pa.ArrowInvalid: a row has another number of columns, or a text is not of its column's type.
    """
    return pa_csv.read_csv(
        io.BytesIO(block),
        pa_csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=list(header)),
        convert_options=pa_csv.ConvertOptions(
            include_columns=list(fields),
            column_types={name: field.type for name, field in fields.items()},
            null_values=[""],
            strings_can_be_null=False,
        ),
    )


def _valid(values: pa.Array | pa.ChunkedArray, field: Field) -> bool:
    return bool(pc.all(pc.fill_null(field.valid(values), False), min_count=0).as_py())


def _typed(columns: Mapping[str, pa.Array], subset: str, kind: Kind) -> pa.RecordBatch:
    """Usable rows as the kind's table has them, and that they have no reason not to be."""
    found = {kind.fields[name].column: values for name, values in columns.items()}
    n_rows = len(found["image_id"])
    found["subset"] = pa.repeat(subset, n_rows)
    for name in FLAGS:
        if name in found:
            known = pc.not_equal(found[name], -1.0)
            found[name] = pc.if_else(known, pc.equal(found[name], 1.0), pa.scalar(None, pa.bool_()))
    schema = kind.table.arrow_schema
    usable = pa.RecordBatch.from_arrays([found[name] for name in schema.names], schema=schema)
    return usable.append_column("reason", pa.nulls(n_rows, pa.string()))


def _line_by_line(part: Part, kind: Kind, position: int, block: bytes) -> Iterator[pa.RecordBatch]:
    """The rows of a block one of which is not usable."""
    usable: list[list[str]] = []
    refused = []
    for line in block.splitlines(keepends=True):
        reason, row = _checked(line, part.header, kind.fields)
        if reason:
            refused.append(refusal(part.subset, part.file.path, position, reason, line))
        elif row:
            usable.append(row)
        position += len(line)
    if usable:
        values = dict(zip(kind.fields, zip(*usable, strict=True), strict=True))
        yield _typed({name: _converted(values[name], field) for name, field in kind.fields.items()}, part.subset, kind)
    if refused:
        yield pa.RecordBatch.from_pylist(refused, QUARANTINE)


def _checked(line: bytes, header: Sequence[str], fields: Mapping[str, Field]) -> tuple[str, list[str]]:
    """Why a line is not usable, or the texts of its fields; neither of an empty line."""
    try:
        cells = next(csv.reader([line.decode()], strict=True), [])
    except (csv.Error, UnicodeDecodeError) as error:
        return f"no CSV: {error}", []
    if not cells:
        return "", []
    if len(cells) != len(header):
        return f"{len(cells)} columns where the first line has {len(header)}", []
    texts = [cells[header.index(name)] for name in fields]
    for text, (name, field) in zip(texts, fields.items(), strict=True):
        values = _converted([text], field)
        if not _valid(values, field):
            return f"{name} is {text[:100]!r}, not {field.what}", []
    return "", texts


def _converted(texts: Sequence[str], field: Field) -> pa.Array:
    """Texts as the field's type; null where one is not of it."""
    if pa.types.is_string(field.type):
        return pa.array(texts, pa.string())
    return pa.array([_number(text) for text in texts], field.type)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def refusal(subset: str, path: str, position: int, reason: str, raw: bytes) -> dict[str, Any]:
    """A row of a table of unusable rows."""
    text = raw.rstrip(b"\r\n").decode(errors="replace")[:RAW_CHARACTERS]
    return {"subset": subset, "file": Path(path).name, "position": position, "reason": reason, "raw": text}


SOURCE_COLUMNS: Mapping[str, str] = {
    "OriginalURL": "original_url",
    "OriginalLandingURL": "landing_url",
    "License": "license",
    "AuthorProfileURL": "author_profile_url",
    "Author": "author",
    "Title": "title",
    "OriginalMD5": "original_md5",
    "Thumbnail300KURL": "thumbnail_url",
}
"""Texts, taken as they are; that of a column that a file lacks is null."""
SOURCE_NUMBERS: Mapping[str, tuple[str, Callable[[float], bool], str]] = {
    "OriginalSize": ("original_bytes", lambda size: size.is_integer() and 0 <= size < 1 << 53, "a number of bytes"),
    "Rotation": ("rotation_deg", ROTATIONS_DEG.__contains__, f"one of {', '.join(map(str, ROTATIONS_DEG))}"),
}
"""What they become, whether a value is usable, and what a usable one is."""


def stage_sources(
    spark: "SparkSession", files: Mapping[str, Path], usable: Staging, refused: Staging
) -> tuple[StagedFiles, StagedFiles]:
    """Files of image_sources and of its quarantine; each of the files by subset is read by one of Spark's workers.

    Raises:
        AnnotationsFileError: a file has no column ImageID.
        FileChangedError: a file was written while it was read.
    """
    planned = [(subset, reading.InputFile.planned(path)) for subset, path in files.items()]
    for path in files.values():
        _header(path, ["ImageID"])
    return reading.stage(spark, planned, _read_sources, lambda split: split[0], usable, refused)


def _read_sources(split: tuple[str, reading.InputFile]) -> Iterator[pa.RecordBatch]:
    subset, file = split
    yield from file.unchanged(read_sources(subset, Path(file.path)))


def read_sources(subset: str, path: Path) -> Iterator[pa.RecordBatch]:
    """The rows of a file of pictures' sources: batches as `read` has them."""
    usable: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    with _opened(path) as file:
        lines = _Lines(file)
        rows = csv.reader(lines)
        header = [name.removeprefix("\ufeff").strip() for name in next(rows, [])]
        while True:
            lines.begin()
            try:
                cells = next(rows)
                row, reason = _source_row(subset, dict(zip(header, cells, strict=True))) if cells else (None, "")
            except StopIteration:
                break
            except csv.Error as error:
                row, reason = None, f"no CSV, perhaps a quotation mark without its other one: {error}"
            except ValueError:
                row, reason = None, f"{len(cells)} columns where the first line has {len(header)}"
            if reason:
                refused.append(refusal(subset, str(path), lines.position, reason, lines.raw()))
            elif row:
                usable.append(row)
            if len(usable) + len(refused) >= BATCH_ROWS:
                yield from _source_batches(usable, refused)
                usable, refused = [], []
    yield from _source_batches(usable, refused)


class _Lines:
    """Lines of text, and where in the file the row began that is being read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._read, self._row = file, 0, bytearray()
        self.position = 0

    def begin(self) -> None:
        self.position, self._row = self._read, bytearray()

    def raw(self) -> bytes:
        return bytes(self._row)

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE_BYTES)
        if not line:
            raise StopIteration
        self._read += len(line)
        self._row += line[: max(4 * RAW_CHARACTERS - len(self._row), 0)]
        return line.decode(errors="replace")


def _source_row(subset: str, cells: Mapping[str, str]) -> tuple[dict[str, Any] | None, str]:
    """A row of IMAGE_SOURCES, or why there is none."""
    if not re.fullmatch(IMAGE_ID, cells["ImageID"]):
        return None, f"ImageID is {cells['ImageID'][:100]!r}, not {_ID.what}"
    numbers: dict[str, int | None] = {}
    for name, (column, usable, what) in SOURCE_NUMBERS.items():
        text = cells.get(name) or ""
        number = _number(text)
        if text and (number is None or not usable(number)):
            return None, f"{name} is {text[:100]!r}, not {what} or empty"
        numbers[column] = None if number is None else int(number)
    texts = {column: cells.get(name) or None for name, column in SOURCE_COLUMNS.items()}
    return {"subset": subset, "image_id": cells["ImageID"], **texts, **numbers}, ""


def _source_batches(usable: list[dict[str, Any]], refused: list[dict[str, Any]]) -> Iterator[pa.RecordBatch]:
    if usable:
        rows = pa.RecordBatch.from_pylist(usable, IMAGE_SOURCES.arrow_schema)
        yield rows.append_column("reason", pa.nulls(len(usable), pa.string()))
    if refused:
        yield pa.RecordBatch.from_pylist(refused, QUARANTINE)
