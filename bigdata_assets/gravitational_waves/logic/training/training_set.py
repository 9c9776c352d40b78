"""Gravity Spy's training set (Zenodo 1486046) to rows: /<label>/<train|validation|test>/<id>/<view>.png.

Each dataset is one spectrogram, float32 (1, 140, 170): normalised Q-transform energy as the grey of a viridis picture,
rows from 2,048 Hz down to 10 Hz (logarithmic), columns in time. The HDF5 file is read group by group, a few images at
a time, so that memory does not grow with it; an image that cannot be used becomes a row with a reason.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from bigdata_assets import reading
from bigdata_assets.gravitational_waves.logic.training.gravity_spy import (
    CLASSES,
    HEIGHT,
    SAMPLE_TYPES,
    SHAPE,
    VIEWS_S,
    WIDTH,
)
from bigdata_assets.gravitational_waves.tables import QUARANTINED_SPECTROGRAMS, SPECTROGRAMS
from bigdata_assets.io_managers.staging import StagedFiles, Staging
from bigdata_assets.tables import row_schema, to_arrow

if TYPE_CHECKING:
    import h5py
    from pyspark.sql import SparkSession

FILE = "trainingsetv1d1.h5"
BATCH_IMAGES = 64
"""Of 95 kB each: what a worker has in memory at a time."""
TASK_GLITCHES = 100
BROKEN_GROUP = (KeyError, OSError, RuntimeError, ValueError)
"""What h5py raises where a file's own tables are damaged or a link leads nowhere."""

ROWS = to_arrow(row_schema(*SPECTROGRAMS.columns, *QUARANTINED_SPECTROGRAMS.columns))
"""What reading yields: an image, or else `reason` and the `path` within the file."""


class TrainingSetError(RuntimeError):
    """The file cannot be used at all; the message says what to do."""


@dataclass(frozen=True)
class GlitchRange:
    """What one task reads: the glitches from `first` on, below a group of a label and a sample type."""

    label: str
    sample_type: str
    first: int
    end: int


def open_file(path: str | Path) -> "h5py.File":
    """The training set's file.

    Raises:
        TrainingSetError: it is absent, cut off, or no HDF5 file.
    """
    import h5py

    if not Path(path).is_file():
        raise TrainingSetError(f"{path} is not there: Gravity Spy's training set is Zenodo record 1486046.")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise TrainingSetError(f"{path} cannot be opened, download it again: {error}") from error


def unknown_labels(path: str | Path) -> dict[str, int]:
    """Groups of the file that are none of the 22 classes, with their glitches; no partition holds these."""
    with open_file(path) as file:
        return {label: sum(_sizes(file, label).values()) for label in _labels(file) if label not in CLASSES}


def plan(path: str | Path, labels: Sequence[str], task_glitches: int = TASK_GLITCHES) -> list[GlitchRange]:
    """The ranges of glitches that tasks read, of these labels; a label that the file lacks has none."""
    sizes: dict[tuple[str, str], int] = {}
    with open_file(path) as file:
        present = _labels(file)
        if not set(CLASSES) & set(present):
            raise TrainingSetError(f"{path} has none of the 22 classes: it is not Gravity Spy's training set.")
        for label in sorted(set(labels) & set(present)):
            # What is no group, or is broken, is one range, for reading to find it so.
            sizes |= {(label, sample_type): size for sample_type, size in _sizes(file, label).items()}
    return [
        GlitchRange(label, sample_type, first, min(first + task_glitches, size))
        for (label, sample_type), size in sizes.items()
        for first in range(0, size, task_glitches)
    ]


def read_range(path: str | Path, part: GlitchRange) -> Iterator[pa.RecordBatch]:
    """The images of a range of glitches, columns as in `ROWS`, at most BATCH_IMAGES at a time."""
    with open_file(path) as file:
        where = f"/{part.label}/{part.sample_type}".rstrip("/")
        refused = {"label": part.label, "path": where}
        try:
            group = file[where]
            names = sorted(group)[part.first : part.end] if _is_group(group) and part.sample_type else None
        except BROKEN_GROUP as error:
            yield _batch([refused | {"reason": f"unreadable: {error}"[:500]}])
            return
        if names is None:
            yield _batch([refused | {"reason": "not a group of glitches"}])
            return
        pending: list[dict[str, Any]] = []
        for name in names:
            pending += _glitch(group, name, part)
            if len(pending) >= BATCH_IMAGES:
                yield _batch(pending)
                pending = []
        if pending:
            yield _batch(pending)


def _labels(file: Any) -> list[str]:
    try:
        return list(file)
    except BROKEN_GROUP as error:
        raise TrainingSetError(f"{file.filename} is damaged, download it again: {error}") from error


def _sizes(file: Any, label: str) -> dict[str, int]:
    """Glitches by sample type."""
    try:
        found = file[label]
        names = list(found) if _is_group(found) else [""]
    except BROKEN_GROUP:
        return {"": 1}
    sizes = {}
    for name in names:
        try:
            sizes[name] = len(found[name]) if name and _is_group(found[name]) else 1
        except BROKEN_GROUP:
            sizes[name] = 1
    return sizes


def _is_group(found: Any) -> bool:
    return hasattr(found, "values")


def stage_images(
    spark: "SparkSession", path: Path, labels: Sequence[str], usable: Staging, refused: Staging
) -> tuple[StagedFiles, StagedFiles]:
    """Files with the images of these labels, and with what was refused: the HDF5 file is read once.

    Raises:
        TrainingSetError: the file cannot be used at all.
        FileChangedError: it was written while it was read.
    """
    with open_file(path):
        file = reading.InputFile.planned(path)

    def read(part: GlitchRange) -> Iterator[pa.RecordBatch]:
        return file.unchanged(read_range(file.path, part))

    return reading.stage(spark, plan(path, labels), read, lambda part: part.label, usable, refused)


def _glitch(group: Any, name: str, part: GlitchRange) -> list[dict[str, Any]]:
    """Rows of a glitch's views; one row with a reason where it cannot be read as a group."""
    where = f"/{part.label}/{part.sample_type}/{name}"
    row = {"id": name, "label": part.label, "sample_type": part.sample_type, "path": where}
    if part.sample_type not in SAMPLE_TYPES:
        return [row | {"reason": f"the group is none of {', '.join(SAMPLE_TYPES)}"}]
    try:
        views = group[name]
        if not _is_group(views):
            return [row | {"reason": "not a group of views"}]
        names = sorted(views)
    except BROKEN_GROUP as error:
        return [row | {"reason": f"unreadable: {error}"[:500]}]
    if not names:
        return [row | {"reason": "the glitch has no view"}]
    return [row | {"path": f"{where}/{view}"} | _image(views, view) for view in names]


def _image(views: Any, name: str) -> dict[str, Any]:
    """A view's columns, or its reason."""
    view_s = {f"{view}.png": view for view in VIEWS_S}.get(name)
    if view_s is None:
        return {"reason": f"the view is none of {', '.join(f'{view}.png' for view in VIEWS_S)}"}
    try:
        found = views[name]
        shape, dtype = found.shape, found.dtype
        if shape != SHAPE or dtype.kind != "f":
            return {"view_s": view_s, "reason": f"{dtype} {shape}, not float32 {SHAPE}"}
        pixels = found[()].astype(np.float32, copy=False).ravel()
    except (AttributeError, TypeError, *BROKEN_GROUP) as error:
        return {"view_s": view_s, "reason": f"unreadable: {error}"[:500]}
    if not np.isfinite(pixels).all():
        return {"view_s": view_s, "reason": f"{np.count_nonzero(~np.isfinite(pixels))} pixels are no numbers"}
    return {"view_s": view_s, "pixels": pixels, "height": HEIGHT, "width": WIDTH}


def _batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    columns = [
        _pixels([row.get("pixels") for row in rows])
        if field.name == "pixels"
        else pa.array([row.get(field.name) for row in rows], field.type)
        for field in ROWS
    ]
    return pa.RecordBatch.from_arrays(columns, schema=ROWS)


def _pixels(images: list[np.ndarray | None]) -> pa.ListArray:
    """The images as one list array, without a Python object per pixel."""
    offsets = np.cumsum([0, *(0 if image is None else image.size for image in images)], dtype=np.int32)
    present = [image for image in images if image is not None]
    values = np.concatenate(present) if present else np.empty(0, np.float32)
    missing = pa.array([image is None for image in images])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=missing)
