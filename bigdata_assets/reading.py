"""Files to rows of two tables on Spark's workers: each file is read once, and is one version of it from plan to end.

A branch plans the splits of its files and reads a split as batches of rows, each with a `reason` where it is refused.

Workers import this module: it never imports dagster.
"""

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.pandas.types import from_arrow_schema
from upath import UPath

from bigdata_assets.io_managers.staging import FILES, ROW_GROUP_BYTES, StagedFile, StagedFiles, Staging
from bigdata_assets.storage import place, state

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

STAGED = pa.schema([*FILES, ("usable", pa.bool_()), ("changed", pa.string())])
"""A staged file, of usable or of refused rows; or that a split's input has changed."""
ROW_BYTES = 1_000
"""Of a row without its picture, about."""
LOG = logging.getLogger(__name__)
T = TypeVar("T")
S = TypeVar("S")


class FileChangedError(RuntimeError):
    """A file was written while it was read."""


@dataclass(frozen=True)
class InputFile:
    """A file as it was when its reading was planned."""

    path: str
    version: str

    @classmethod
    def planned(cls, path: Path | UPath) -> "InputFile":
        """The file as it is now.

        Raises:
            FileNotFoundError: it is not there.
        """
        return cls(str(path), state(path).version)

    def unchanged(self, read: Iterable[T]) -> Iterator[T]:
        """What is read of the file.

        Raises:
            FileChangedError: the file was written since its reading was planned; told before and after it is read.
        """
        self._check()
        try:
            yield from read
        except Exception:
            self._check()  # what is read of two versions looks broken
            raise
        self._check()

    def _check(self) -> None:
        try:
            same = InputFile.planned(place(self.path)) == self
        except FileNotFoundError:
            same = False
        if not same:
            raise FileChangedError(
                f"{self.path} was written while it was read: run this again when it has settled. What watches for new "
                "files does so by itself."
            )


def is_of_system(error: Exception) -> bool:
    """Whether a disk, a network or a store has failed: what was to be read may be well."""
    # s3fs tells of keys that have expired, and of much else, by these two without an errno.
    by_kind = isinstance(error, TimeoutError | ConnectionError | PermissionError | FileNotFoundError)
    return by_kind or getattr(error, "errno", None) is not None


def stage(
    spark: "SparkSession",
    splits: Sequence[S],
    read: Callable[[S], Iterator[pa.RecordBatch]],
    key: Callable[[S], str],
    usable: Staging,
    refused: Staging,
) -> tuple[StagedFiles, StagedFiles]:
    """Files of two tables: the usable rows of the splits, and the refused ones. A task reads a split and writes both.

    Args:
        spark: where tasks are run.
        splits: what a task reads.
        read: the rows of a split, with the columns of both tables and `reason`, which refused ones have.
        key: the partition that a split's rows belong to.
        usable: where rows without a reason go.
        refused: where the others go.

    Raises:
        FileChangedError: a file was written while it was read.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in (number for batch in batches for number in batch.column(0).to_pylist()):
            yield stage_split(read(splits[number]), key(splits[number]), usable, refused)

    return _staged(spark.range(0, len(splits), 1, max(len(splits), 1)), run)


def stage_rows(
    frame: "DataFrame",
    read: Callable[[Iterator[pa.RecordBatch]], Iterator[tuple[str, pa.RecordBatch]]],
    usable: Staging,
    refused: Staging,
) -> tuple[StagedFiles, StagedFiles]:
    """Like `stage`, of what is made of a frame's rows: a task takes those it has, and writes files of each partition.

    Args:
        frame: the rows.
        read: what is made of a task's: batches as `stage` has them, each of the partition whose key is before it. What
            is a batch becomes a row group.
        usable: where rows without a reason go.
        refused: where the others go.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield stage_batches(read(batches), usable, refused)

    return _staged(frame, run)


def stage_all(
    frame: "DataFrame",
    read: Callable[[Iterator[pa.RecordBatch]], Iterator[tuple[str, pa.RecordBatch]]],
    staging: Staging,
) -> StagedFiles:
    """Like `stage_rows`, where no row is refused."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield stage_batches(read(batches), staging, None)

    return _staged(frame, run)[0]


def _staged(
    frame: "DataFrame", run: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
) -> tuple[StagedFiles, StagedFiles]:
    rows = frame.mapInArrow(run, from_arrow_schema(STAGED)).toArrow()
    for error in pc.drop_null(rows["changed"]).to_pylist():
        raise FileChangedError(error)
    good, bad = (rows.filter(pc.equal(rows["usable"], which)).select(FILES.names) for which in (True, False))
    return StagedFiles(good), StagedFiles(bad)


@contextlib.contextmanager
def once(frame: "DataFrame") -> Iterator["DataFrame"]:
    """The frame, computed once for whatever is made of it here: kept on the disks of Spark's workers meanwhile."""
    from pyspark.storagelevel import StorageLevel

    frame = frame.persist(StorageLevel.DISK_ONLY)
    try:
        yield frame
    finally:
        try:
            frame.unpersist()
        except Exception as error:  # noqa: BLE001 -- what was made of it is stored
            LOG.warning("rows stay on the disks of Spark's workers until its server ends: %s", error)


def stage_split(batches: Iterable[pa.RecordBatch], key: str, usable: Staging, refused: Staging) -> pa.RecordBatch:
    """Write a split's rows; columns as in STAGED. A file that has changed is told there: Spark would run it again."""
    try:
        return stage_batches(((key, batch) for batch in batches), usable, refused)
    except FileChangedError as error:
        return pa.RecordBatch.from_pylist([{"changed": str(error)}], STAGED)


def stage_batches(
    batches: Iterable[tuple[str, pa.RecordBatch]], usable: Staging, refused: Staging | None
) -> pa.RecordBatch:
    """Write rows to files of their partitions, whose keys are before them; columns as in STAGED."""
    files: dict[tuple[str, bool], StagedFile] = {}
    with contextlib.ExitStack() as opened:

        def write(key: str, batch: pa.RecordBatch, staging: Staging, which: bool) -> None:
            if (key, which) not in files:
                files[key, which] = opened.enter_context(staging.file(key))
            files[key, which].write(batch)

        for key, batch in batches:
            if refused is not None and batch["reason"].null_count < len(batch):
                has_reason = pc.is_valid(batch["reason"])
                write(key, batch.filter(has_reason), refused, False)
                batch = batch.filter(pc.invert(has_reason))  # noqa: PLW2901 -- what is left of it
            write(key, batch, usable, True)
    in_order = sorted(files.items(), key=lambda item: not item[0][1])  # usable ones first
    told = [file | {"usable": which} for (_, which), staged in in_order for file in staged.told()]
    return pa.RecordBatch.from_pylist(told, STAGED)


def by_partition(
    rows: Iterable[Mapping[str, Any]], key: str, picture: str, schema: pa.Schema
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Rows that hold pictures or the like as batches of one partition, whose key is before each, for `stage_rows`.

    A batch ends where its pictures have ROW_GROUP_BYTES: what is in memory is that and a row.

    Args:
        rows: those of a partition one after the other.
        key: column of the partition's key.
        picture: column of the pictures; a row may have none.
        schema: of the batches; what a row lacks is null.
    """
    for partition, its in itertools.groupby(rows, key=itemgetter(key)):
        part: list[Mapping[str, Any]] = []
        n_bytes = 0
        for row in its:
            part.append(row)
            n_bytes += ROW_BYTES + len(row.get(picture) or b"")
            if n_bytes >= ROW_GROUP_BYTES:
                yield partition, _taken(part, schema)
                n_bytes = 0
                pa.default_memory_pool().release_unused()  # three times a batch, left over from writing it
        if part:
            yield partition, _taken(part, schema)


def _taken(rows: list[Mapping[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """The rows, which are no longer in the list."""
    batch = pa.RecordBatch.from_pylist(rows, schema)
    rows.clear()
    return batch
