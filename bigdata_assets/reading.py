"""Files to rows of two tables on Spark's workers: each file is read once, and is one version of it from plan to end.

A branch plans the splits of its files and reads a split as batches of rows, each with a `reason` where it is refused.

Workers import this module: it never imports dagster.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.pandas.types import from_arrow_schema
from upath import UPath

from bigdata_assets.io_managers.staging import FILES, StagedFiles, Staging

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

STAGED = pa.schema([*FILES, ("usable", pa.bool_()), ("changed", pa.string())])
"""A staged file, of usable or of refused rows; or that a split's input has changed."""
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
        status = path.stat()
        # An object store tells a time to the second, or otherwise in a listing than of the object.
        info = status.as_info() if hasattr(status, "as_info") else {}
        etag = next((value for name, value in info.items() if name.lower() == "etag"), None)
        return cls(str(path), f"{status.st_size}-{etag or status.st_mtime_ns}")

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
            same = InputFile.planned(UPath(self.path)) == self
        except FileNotFoundError:
            same = False
        if not same:
            raise FileChangedError(
                f"{self.path} was written while it was read: run this again when it has settled. What watches for new "
                "files does so by itself."
            )


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

    rows = spark.range(0, len(splits), 1, max(len(splits), 1)).mapInArrow(run, from_arrow_schema(STAGED)).toArrow()
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
        with usable.file(key) as good, refused.file(key) as bad:
            for batch in batches:
                has_reason = pc.is_valid(batch["reason"])
                if pc.any(has_reason).as_py():
                    bad.write(batch.filter(has_reason))
                    batch = batch.filter(pc.invert(has_reason))  # noqa: PLW2901 -- what is left of it
                good.write(batch)
    except FileChangedError as error:
        return pa.RecordBatch.from_pylist([{"changed": str(error)}], STAGED)
    told = [file | {"usable": which} for files, which in ((good, True), (bad, False)) for file in files.told()]
    return pa.RecordBatch.from_pylist(told, STAGED)
