"""URL files to rows, split by split, in bounded memory: what is no usable URL becomes a row with a reason.

A split is a run of whole records of a text, or a row group of a Parquet file. Where a text has quotes, whether a line
begins a record is known only to who has read all before it: so a large file is gone through once when it is planned.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from bigdata_assets import reading
from bigdata_assets.io_managers.staging import StagedFiles, Staging
from bigdata_assets.malicious_urls.logic.layout import (
    HEAD_BYTES,
    LABEL_NAMES,
    URL_NAMES,
    Layout,
    column_of,
    find_layout,
)
from bigdata_assets.malicious_urls.logic.records import (
    BLOCK_BYTES,
    BOM,
    BROKEN,
    MAX_LINE_BYTES,
    PLAIN,
    Block,
    blocks,
    fields,
)
from bigdata_assets.malicious_urls.logic.text import MAX_EXPANDED_BYTES, Text, encoding_of, is_stream
from bigdata_assets.malicious_urls.logic.urls import Url, Urls, judged, slices, usable_url
from bigdata_assets.malicious_urls.tables import QUARANTINED_BATCH_URLS, URL_BATCHES
from bigdata_assets.storage import place
from bigdata_assets.tables import row_schema, to_arrow

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SPLIT_BYTES = 16 << 20
BATCH_ROWS = 10_000
BATCH_BYTES = 16 << 20
"""Of the URLs of a Parquet file that are in memory at once, about."""

SCHEMA = row_schema(*URL_BATCHES.columns, *QUARANTINED_BATCH_URLS.columns)
ROWS = to_arrow(SCHEMA)
"""What reading yields: `url`, or else `reason` with `raw` and `length_bytes`."""


@dataclass(frozen=True)
class Split:
    """A part of a file that one task reads: whole records in [start, end), or one row group of a Parquet file.

    `problem` is set where the file cannot be read at all; the split then is that one row of quarantine.
    """

    file: reading.InputFile
    landed_at: datetime
    size_bytes: int
    private_suffixes: bool = False
    start: int = 0
    end: int = 0
    layout: Layout | None = None
    encoding: str = "utf-8"
    columns: tuple[str, ...] = ()
    """Of a Parquet file: the URL's, and the label's if there is one."""
    problem: str = ""
    raw: bytes = b""

    @property
    def batch(self) -> str:
        return UPath(self.file.path).name


def plan_splits(path: UPath, split_bytes: int = SPLIT_BYTES, *, private_suffixes: bool = False) -> list[Split]:
    """How to read a file; never raises for what is in it. A Parquet file without rows has no splits.

    Args:
        path: the file.
        split_bytes: of a text, about; packed ones, and those in UTF-16, are one split.
        private_suffixes: see `domains.registered_domain`.

    Raises:
        OSError: the file is not there, or what it lies on has failed.
    """
    file, status = reading.InputFile.planned(path), path.stat()
    landed_at = datetime.fromtimestamp(status.st_mtime, UTC)
    whole = Split(file, landed_at, status.st_size, private_suffixes)
    if not status.st_size:
        return [_broken(whole, "the file is empty")]
    try:
        return _plan_parquet(path, whole) if path.name.endswith(".parquet") else _plan_text(path, whole, split_bytes)
    except (OSError, EOFError, ValueError, zlib.error, pa.ArrowException) as error:
        if reading.is_of_system(error):
            raise
        with path.open("rb") as raw:
            return [_broken(whole, str(error), raw.read(1024))]


def read_split(split: Split) -> Iterator[pa.RecordBatch]:
    """The rows of a split, in batches of some 10,000, columns as in `ROWS`.

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

    return spark.range(0, len(splits), 1, max(len(splits), 1)).mapInArrow(read, SCHEMA)


def stage_urls(
    spark: "SparkSession", splits: list[Split], usable: Staging, refused: Staging
) -> tuple[StagedFiles, StagedFiles]:
    """Files of the usable and of the refused rows of the splits, each read once.

    Raises:
        FileChangedError: a file was written since it was planned.
    """
    return reading.stage(spark, splits, read_split, lambda split: split.batch, usable, refused)


def _batches(split: Split) -> Iterator[pa.RecordBatch]:
    if split.problem:
        yield _refused(split, 0, split.problem, split.raw, split.size_bytes)
    elif split.layout is not None:
        yield from _text_batches(split, split.layout)
    else:
        yield from _parquet_batches(split)


def _plan_text(path: UPath, whole: Split, split_bytes: int) -> list[Split]:
    encoding = encoding_of(path)
    stream = is_stream(path, encoding)
    with Text(path, encoding, 0, MAX_EXPANDED_BYTES if stream else whole.size_bytes) as text:
        head = text.read(HEAD_BYTES)[:HEAD_BYTES]
    layout = find_layout(head, len(head) < HEAD_BYTES)
    end = MAX_EXPANDED_BYTES if stream else whole.size_bytes
    begins = [layout.start]
    if not stream and end - layout.start > split_bytes:
        with Text(path, encoding, layout.start, end) as text:
            block_bytes = min(BLOCK_BYTES, split_bytes // 16 + 1)
            for block in blocks(text, layout.start, layout.separator, layout.mark, block_bytes):
                if block.position - begins[-1] >= split_bytes:
                    begins.append(block.position)
    parts = zip(begins, [*begins[1:], end], strict=True)
    return [replace(whole, start=start, end=stop, layout=layout, encoding=encoding) for start, stop in parts]


def _text_batches(split: Split, layout: Layout) -> Iterator[pa.RecordBatch]:
    reached = split.start
    with Text(place(split.file.path), split.encoding, split.start, split.end) as text:
        for block in blocks(text, split.start, layout.separator, layout.mark):
            reached = block.position + int(block.ends[-1]) + block.cut
            batch = _block_batch(split, layout, block)
            if batch.num_rows:
                yield batch
        if text.problem:
            yield _refused(split, reached, text.problem)


def _block_batch(split: Split, layout: Layout, block: Block) -> pa.RecordBatch:
    """The rows of a block's records: of plain ones all together, of others, and of what is refused, one by one."""
    data, starts = np.frombuffer(block.buffer, np.uint8), block.starts
    stops = _stops(data, starts, block.ends)
    lengths, positions = block.ends - starts, block.position + starts
    lengths[0] += block.cut
    positions[1:] += block.cut
    filled = stops > starts
    plain = filled & (block.kinds == PLAIN) & (lengths <= MAX_LINE_BYTES)
    plain, bounds = _fields(data, starts, stops, block.ends, plain, layout)
    rows = np.flatnonzero(plain)
    urls = judged(data, *bounds(layout.url_at), split.private_suffixes)
    label = (
        pa.nulls(len(rows), pa.string())
        if layout.label_at is None
        else _trimmed(slices(data, *bounds(layout.label_at)))
    )
    columns = [*urls.columns(), label, pa.nulls(len(rows), pa.binary())]
    if urls.reason.null_count < len(rows):
        usable = urls.reason.is_null()
        columns = [column.filter(usable) for column in columns]
        rows = rows[usable.to_numpy(zero_copy_only=False)]
        plain = np.isin(np.arange(len(plain)), rows)
    odd = [
        (row, *told)
        for row in np.flatnonzero(filled & ~plain).tolist()
        if (told := _odd_row(split, layout, block, row, int(starts[row]), int(stops[row]), int(lengths[row])))
    ]
    if odd:
        order = np.concatenate([rows, [row for row, *_ in odd]])
        columns = [
            pa.concat_arrays([some, pa.array([row[number] for row in odd], some.type)]).take(np.argsort(order))
            for number, some in enumerate(columns, start=1)
        ]
        rows = np.sort(order)
    return _batch(split, positions[rows], columns, lengths[rows])


def _fields(
    data: np.ndarray, starts: np.ndarray, stops: np.ndarray, ends: np.ndarray, plain: np.ndarray, layout: Layout
) -> tuple[np.ndarray, Callable[[int], tuple[np.ndarray, np.ndarray]]]:
    """Which of the plain records have as many fields as they should, and where a column's fields begin and end."""
    inner = np.empty((0, 0), np.int64)
    if layout.separator:
        separators = np.flatnonzero(data[: ends[-1]] == ord(layout.separator))
        line = np.searchsorted(ends, separators, side="right")
        quotes = np.flatnonzero(data[: ends[-1]] == ord('"'))
        if len(quotes):
            before = np.searchsorted(quotes, separators) - np.searchsorted(quotes, starts)[line]
            separators, line = separators[before % 2 == 0], line[before % 2 == 0]
        plain = plain & (np.bincount(line, minlength=len(ends)) == layout.n_columns - 1)
        inner = separators[plain[line]].reshape(int(plain.sum()), layout.n_columns - 1)
    first, last = starts[plain], stops[plain]

    def bounds(column: int) -> tuple[np.ndarray, np.ndarray]:
        begins = inner[:, column - 1] + 1 if column else first
        finishes = inner[:, column] if column < layout.n_columns - 1 else last
        quoted = (finishes - begins >= 2) & (data[np.minimum(begins, len(data) - 1)] == ord('"'))
        return begins + quoted, finishes - quoted

    return plain, bounds


def _odd_row(
    split: Split, layout: Layout, block: Block, row: int, start: int, stop: int, length: int
) -> tuple[str | None, str | None, str | None, str | None, str | None, bytes | None] | None:
    """What `Url` has, the label, and the raw bytes of a record that is not plain; None for a comment."""
    record = block.buffer[start:stop][:MAX_LINE_BYTES]
    text = record.removeprefix(BOM)
    found = None if block.kinds[row] == BROKEN else fields(text, layout.separator)
    n_fields = len(found or [])
    if text.startswith(b"#") and (layout.n_columns == 1 or n_fields != layout.n_columns):
        return None
    label = None
    if length > MAX_LINE_BYTES:
        url = Url.refused(f"a line longer than {MAX_LINE_BYTES} bytes")
    elif found is None:
        url = Url.refused("a quote that is not closed, or closed within a field")
    elif n_fields != layout.n_columns:
        url = Url.refused(f"{n_fields} fields where the header has {layout.n_columns}")
    elif layout.is_header(found):
        url = Url.refused("the header again")
    else:
        url = usable_url(found[layout.url_at], split.private_suffixes)
        label = None if layout.label_at is None else found[layout.label_at].decode("utf-8", "replace").strip() or None
    return *url, label, None if url.reason is None else record


def _stops(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(records,) where each record's line end begins."""
    last = data[ends - 1]
    feed = last == ord("\n")
    both = feed & (ends - 2 >= starts) & (data[ends - 2] == ord("\r"))
    return ends - (feed | (last == ord("\r"))) - both


def _trimmed(labels: pa.Array) -> pa.StringArray:
    """Labels of any type as text without white space around; null where nothing is left."""
    try:
        text = labels.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        some = ((raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw) for raw in labels.to_pylist())
        text = pa.array([None if label is None else str(label) for label in some], pa.string())
    text = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _raws(data: np.ndarray, reasons: pa.StringArray, starts: np.ndarray, stops: np.ndarray) -> pa.BinaryArray:
    """The records that have a reason."""
    if reasons.null_count == len(reasons):
        return pa.nulls(len(reasons), pa.binary())
    bad = np.flatnonzero(reasons.is_valid().to_numpy(zero_copy_only=False)).tolist()
    raws: list[bytes | None] = [None] * len(reasons)
    for row in bad:
        raws[row] = data[starts[row] : stops[row]].tobytes()[:MAX_LINE_BYTES]
    return pa.array(raws, pa.binary())


def _batch(split: Split, positions: np.ndarray, columns: list[pa.Array], lengths: np.ndarray) -> pa.RecordBatch:
    """A batch of rows: their url, as_given, registered_domain, reason, label and raw."""
    url, as_given, domain, reason, label, raw = columns
    found = {
        "batch": pa.repeat(split.batch, len(url)),
        "position": pa.array(positions, pa.int64()),
        "url": url,
        "as_given": as_given,
        "label": label,
        "registered_domain": domain,
        "landed_at": pa.repeat(pa.scalar(split.landed_at, ROWS.field("landed_at").type), len(url)),
        "reason": reason,
        "raw": raw,
        "length_bytes": pa.array(lengths, pa.int64()),
    }
    return pa.record_batch([found[name] for name in ROWS.names], schema=ROWS)


def _refused(split: Split, position: int, reason: str, raw: bytes = b"", length_bytes: int = 0) -> pa.RecordBatch:
    columns = [*Urls.of([Url.refused(reason[:1000])]).columns(), pa.nulls(1, pa.string()), pa.array([raw], pa.binary())]
    return _batch(split, np.array([position]), columns, np.array([length_bytes]))


def _plan_parquet(path: UPath, whole: Split) -> list[Split]:
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        parquet = pq.ParquetFile(file)
        schema, groups = parquet.schema_arrow, parquet.num_row_groups
    url_at, label_at = (column_of(schema.names, names) for names in (URL_NAMES, LABEL_NAMES))
    if url_at is None:
        raise ValueError(f"there is no column `url` but {', '.join(schema.names)[:200]}")
    if not _is_text(schema.field(url_at).type):
        raise ValueError(f"column `{schema.names[url_at]}` is {schema.field(url_at).type}, not text")
    if label_at is not None and pa.types.is_nested(schema.field(label_at).type):
        label_at = None
    wanted = tuple(schema.names[at] for at in (url_at, label_at) if at is not None)
    return [replace(whole, start=group, end=group + 1, columns=wanted) for group in range(groups)]


def _parquet_batches(split: Split) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with place(split.file.path).open("rb") as file:
        parquet = pq.ParquetFile(file)
        position = sum(parquet.metadata.row_group(group).num_rows for group in range(split.start))
        group = parquet.metadata.row_group(split.start)
        mean_bytes = group.total_byte_size // max(group.num_rows, 1) + 1
        rows = min(BATCH_ROWS, max(1, BATCH_BYTES // mean_bytes))
        try:
            for batch in parquet.iter_batches(rows, row_groups=[split.start], columns=list(split.columns)):
                first = [batch.schema.get_all_field_indices(name)[0] for name in split.columns]
                yield _values_batch(split, position, *map(batch.column, first))
                position += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            if reading.is_of_system(error):
                raise
            yield _refused(split, position, f"row group {split.start} is broken from row {position} on: {error}")


def _values_batch(split: Split, position: int, url: pa.Array, label: pa.Array | None = None) -> pa.RecordBatch:
    n_rows = len(url)
    values = pc.fill_null(url.cast(pa.binary()), b"")
    _, offsets, content = values.buffers()
    bounds = np.frombuffer(offsets, np.int32)[values.offset : values.offset + n_rows + 1].astype(np.int64)
    data = np.frombuffer(content if content is not None and content.size else b"\0", np.uint8)
    urls = judged(data, bounds[:-1], bounds[1:], split.private_suffixes).columns()
    labels = pa.nulls(n_rows, pa.string()) if label is None else _trimmed(label)
    raws = _raws(data, urls[3], bounds[:-1], bounds[1:])
    return _batch(split, position + np.arange(n_rows), [*urls, labels, raws], np.diff(bounds))


def _is_text(type_: pa.DataType) -> bool:
    if isinstance(type_, pa.BaseExtensionType):
        type_ = type_.storage_type
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    kinds = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
    return any(getattr(pa.types, f"is_{kind}")(type_) for kind in kinds)


def _broken(whole: Split, problem: str, raw: bytes = b"") -> Split:
    return replace(whole, problem=problem[:1000], raw=raw)
