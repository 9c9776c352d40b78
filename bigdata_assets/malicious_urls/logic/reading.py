"""URL files to rows, split by split, in bounded memory: what is no usable URL becomes a row with a reason.

A CSV record is one physical line: a URL has no line break, and only so can a file of any size be split anywhere.
"""

import csv
import gzip
import io
import itertools
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, cast

import pyarrow as pa
from upath import UPath

from bigdata_assets import reading
from bigdata_assets.io_managers.staging import StagedFiles, Staging
from bigdata_assets.malicious_urls.logic.domains import host, registered_domains
from bigdata_assets.malicious_urls.tables import QUARANTINED_BATCH_URLS, URL_BATCHES
from bigdata_assets.tables import row_schema, to_arrow

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SUFFIXES = (".csv", ".csv.gz", ".parquet")
MAX_LINE_BYTES = 65_536
MAX_URL_BYTES = 8_192
"""Browsers and servers cut off between 2,000 and 8,192 bytes; the longest labelled URL has under 2,200."""
MAX_EXPANDED_BYTES = 8 << 30
"""A .csv.gz that grows beyond this is a bomb or a mistake."""
SPLIT_BYTES = 16 << 20
BATCH_ROWS = 10_000

SCHEMA = row_schema(*URL_BATCHES.columns, *QUARANTINED_BATCH_URLS.columns)
ROWS = to_arrow(SCHEMA)
"""What reading yields: `url`, or else `reason` with `raw` and `length_bytes`."""


@dataclass(frozen=True)
class Split:
    """A part of a file that one task reads: the lines that begin in [start, end), or one row group of a Parquet file.

    `problem` is set where the file cannot be read at all; the split then is that one row of quarantine.
    """

    file: reading.InputFile
    landed_at: datetime
    size_bytes: int
    start: int = 0
    end: int = 0
    columns: tuple[str, ...] = ()
    problem: str = ""
    raw: bytes = b""

    @property
    def batch(self) -> str:
        return UPath(self.file.path).name


def plan_splits(path: UPath, split_bytes: int = SPLIT_BYTES) -> list[Split]:
    """How to read a file; never raises for what is in it.

    Raises:
        FileNotFoundError: the file is not there.
    """
    file, status = reading.InputFile.planned(path), path.stat()
    whole = Split(file, datetime.fromtimestamp(status.st_mtime, UTC), status.st_size)
    if not status.st_size:
        return [_broken(whole, "the file is empty")]
    try:
        if path.name.endswith(".parquet"):
            return _plan_parquet(path, whole)
        with _open(path) as lines:
            header = lines.readline(MAX_LINE_BYTES)
        columns = _header(header)
    except (OSError, EOFError, ValueError, pa.ArrowException) as error:
        with path.open("rb") as raw:
            return [_broken(whole, str(error), raw.read(1024))]
    # A gzip stream can only be read from its beginning.
    step = MAX_EXPANDED_BYTES if path.name.endswith(".gz") else split_bytes
    stop = MAX_EXPANDED_BYTES if path.name.endswith(".gz") else status.st_size
    starts = range(len(header), max(stop, len(header) + 1), step)
    return [_part(whole, start, min(start + step, stop), columns) for start in starts]


def read_split(split: Split) -> Iterator[pa.RecordBatch]:
    """The rows of a split, in batches of BATCH_ROWS at most, columns as in `ROWS`.

    Raises:
        FileChangedError: the file was written since it was planned.
    """
    return split.file.unchanged(_batches(split))


def read_urls(spark: "SparkSession", splits: list[Split]) -> "DataFrame":
    """One row per record of the splits (`ROWS`), each split read by one task on Spark's workers."""

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for index in batch.column(0).to_pylist():
                yield from read_split(splits[index])

    return spark.range(0, len(splits), 1, len(splits)).mapInArrow(read, SCHEMA)


def stage_urls(
    spark: "SparkSession", splits: list[Split], usable: Staging, refused: Staging
) -> tuple[StagedFiles, StagedFiles]:
    """Files of the usable and of the refused rows of the splits, each read once.

    Raises:
        FileChangedError: a file was written since it was planned.
    """
    return reading.stage(spark, splits, read_split, lambda split: split.batch, usable, refused)


def usable_url(raw: bytes) -> tuple[str, str | None]:
    """A URL's text and None, or the reason why it is none."""
    raw = raw.strip()
    if not raw:
        return "", "empty"
    if len(raw) > MAX_URL_BYTES:
        return "", f"longer than {MAX_URL_BYTES} bytes"
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return "", "not UTF-8"
    if not text.isascii() or not text.isprintable():
        categories = {unicodedata.category(character) for character in text}
        # Cc control, Cn unassigned, Co private use, Cs surrogate; U+FFFD is what an earlier reader put for broken bytes
        if categories & {"Cc", "Cn", "Co", "Cs"} or "\ufffd" in text:
            return "", "characters that are no text"
    if not any(character.isalnum() for character in host(text)):
        return "", "no host"
    return text, None


def _batches(split: Split) -> Iterator[pa.RecordBatch]:
    if split.problem:
        yield _batch(split, [(0, split.raw, split.size_bytes, None, split.problem)])
        return
    path = UPath(split.file.path)
    rows = _parquet_rows(path, split) if path.name.endswith(".parquet") else _csv_rows(path, split)
    while pending := list(itertools.islice(rows, BATCH_ROWS)):
        yield _batch(split, pending)


def _csv_rows(path: UPath, split: Split) -> Iterator[tuple[int, bytes, int, str | None, str | None]]:
    """(position, url or whole line, length, label, reason) of each line."""
    url_at = split.columns.index("url")
    type_at = split.columns.index("type") if "type" in split.columns else None
    with _open(path) as file:
        lines = _lines(file, split.start, split.end)
        while True:
            try:
                position, line, length = next(lines)
            except StopIteration:
                return
            except (EOFError, OSError, zlib.error) as error:
                yield split.start, b"", 0, None, f"the rest of the file is broken: {error}"
                return
            if length > MAX_LINE_BYTES:
                yield position, line, length, None, f"a line longer than {MAX_LINE_BYTES} bytes"
                continue
            line = line.rstrip(b"\r\n")
            if not line:
                continue
            fields = _fields(line)
            if len(fields) != len(split.columns):
                reason = f"{len(fields)} fields where the header has {len(split.columns)}"
                yield position, line, length, None, reason
                continue
            label = None if type_at is None else fields[type_at].decode("utf-8", "replace").strip() or None
            yield position, fields[url_at], length, label, None


def _lines(file: IO[bytes], start: int, end: int) -> Iterator[tuple[int, bytes, int]]:
    """(offset, first MAX_LINE_BYTES, length) of each line that begins in [start, end)."""
    # The line that covers byte start - 1 began before this split, unless that byte ends it.
    file.seek(start - 1)
    position = start - 1 + _skip_line(file)
    while position < end:
        line = file.readline(MAX_LINE_BYTES)
        if not line:
            return
        length = len(line)
        if length == MAX_LINE_BYTES and not line.endswith(b"\n"):
            length += _skip_line(file)
        yield position, line, length
        position += length


def _skip_line(file: IO[bytes]) -> int:
    skipped = 0
    while part := file.readline(1 << 20):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def _parquet_rows(path: UPath, split: Split) -> Iterator[tuple[int, bytes, int, str | None, str | None]]:
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        parquet = pq.ParquetFile(file)
        position = sum(parquet.metadata.row_group(group).num_rows for group in range(split.start))
        wanted = [name for name in ("url", "type") if name in split.columns]
        try:
            for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[split.start], columns=wanted):
                urls = batch.column("url").cast(pa.large_binary()).to_pylist()
                labels = batch.column("type").to_pylist() if "type" in wanted else [None] * len(urls)
                for url, label in zip(urls, labels, strict=True):
                    raw = url or b""
                    yield position, raw, len(raw), None if label is None else str(label), None
                    position += 1
        except (OSError, pa.ArrowException) as error:
            reason = f"row group {split.start} is broken from row {position} on: {error}"
            yield position, b"", 0, None, reason[:1000]


def _batch(split: Split, rows: list[tuple[int, bytes, int, str | None, str | None]]) -> pa.RecordBatch:
    checked = [("", reason) if reason else usable_url(raw) for _, raw, _, _, reason in rows]
    good = [reason is None for _, reason in checked]
    domains = iter(registered_domains([url for url, reason in checked if reason is None]))
    return pa.record_batch(
        [
            [split.batch] * len(rows),
            [position for position, *_ in rows],
            [url if fine else None for (url, _), fine in zip(checked, good, strict=True)],
            [row[3] for row in rows],
            [next(domains) if fine else None for fine in good],
            [split.landed_at] * len(rows),
            [reason for _, reason in checked],
            [None if fine else row[1][:MAX_LINE_BYTES] for row, fine in zip(rows, good, strict=True)],
            [row[2] for row in rows],
        ],
        schema=ROWS,
    )


def _plan_parquet(path: UPath, whole: Split) -> list[Split]:
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        parquet = pq.ParquetFile(file)
        schema, groups = parquet.schema_arrow, parquet.num_row_groups
    if "url" not in schema.names:
        raise ValueError(f"there is no column `url` but {', '.join(schema.names)[:200]}")
    kind = schema.field("url").type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind)):
        raise ValueError(f"column `url` is {kind}, not text")
    return [_part(whole, group, group + 1, tuple(schema.names)) for group in range(groups)]


def _header(line: bytes) -> tuple[str, ...]:
    try:
        columns = tuple(name.strip().lower() for name in line.decode("utf-8-sig").strip().split(","))
    except UnicodeDecodeError:
        raise ValueError("the file is not text") from None
    if not line.endswith(b"\n") and len(line) == MAX_LINE_BYTES:
        raise ValueError(f"the header is longer than {MAX_LINE_BYTES} bytes")
    columns = tuple(name.strip('"') for name in columns)
    if "url" not in columns:
        raise ValueError(f"the header has no column `url` but {', '.join(columns)[:200]!r}")
    return columns


def _fields(line: bytes) -> list[bytes]:
    if b'"' not in line:
        return line.split(b",")
    # latin-1 maps every byte to one character and back: the fields' own bytes are not touched.
    fields = next(csv.reader(io.StringIO(line.decode("latin-1"), newline="")), [])
    return [field.encode("latin-1") for field in fields]


def _open(path: UPath) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path.open("rb")) if path.name.endswith(".gz") else path.open("rb"))


def _part(whole: Split, start: int, end: int, columns: tuple[str, ...]) -> Split:
    return replace(whole, start=start, end=end, columns=columns)


def _broken(whole: Split, problem: str, raw: bytes = b"") -> Split:
    return replace(whole, problem=problem[:1000], raw=raw)
