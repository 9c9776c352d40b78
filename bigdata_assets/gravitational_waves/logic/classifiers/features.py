"""Spectrograms to one row of numbers per glitch: views put side by side, each pooled to squares of pixels.

A glitch that lacks a view gets it from its others: a longer view has the shorter one's time in its middle, a shorter
one has the middle of the longer. Nothing is fitted here.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bigdata_assets.gravitational_waves.logic.strain.qscans import BACKGROUND
from bigdata_assets.gravitational_waves.logic.training.gravity_spy import HEIGHT, VIEWS_S, WIDTH

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

POOLED_PIXELS = 10
"""Side of the squares: 14 by 17 numbers a view. MLlib's work and memory go with their number."""
COLUMNS = {view_s: f"view_{str(view_s).replace('.', '_')}" for view_s in VIEWS_S}
"""Column of each view in a frame of features: an array, rows from the highest frequency."""


def resampled(image: NDArray[np.float32], view_s: float, wanted_s: float) -> NDArray[np.float32]:
    """What a view of `view_s` seconds shows of the one of `wanted_s` around the same time; images (..., 140, 170)."""
    if wanted_s == view_s:
        return image
    if wanted_s < view_s:
        ratio = round(view_s / wanted_s)
        # Middle of each wanted column, in columns of the image.
        columns = (np.arange(WIDTH) + 0.5 - WIDTH / 2) / ratio + WIDTH / 2
        return image[..., columns.astype(int)]
    ratio = round(wanted_s / view_s)
    width = WIDTH // ratio
    narrow = image[..., : width * ratio].reshape(*image.shape[:-1], width, ratio).mean(-1)
    wide = np.full(image.shape, BACKGROUND, np.float32)
    first = (WIDTH - width) // 2
    wide[..., first : first + width] = narrow
    return wide


def pooled(images: NDArray[np.float32], pixels: int) -> NDArray[np.float32]:
    """Means over squares of pixels, (..., 140, 170) to (..., numbers)."""
    shape = (*images.shape[:-2], HEIGHT // pixels, pixels, WIDTH // pixels, pixels)
    means = images.reshape(shape).mean(axis=(-3, -1), dtype=np.float32)
    return means.reshape(*images.shape[:-2], (HEIGHT // pixels) * (WIDTH // pixels))


def features(spectrograms: "DataFrame") -> "DataFrame":
    """One row per glitch: id, label, sample_type, and the pooled pixels of each view, as glitch_features has them."""
    return by_glitch(spectrograms, "array<float>", means)


def means(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Numbers of glitch_features, images (n, 140, 170) to (n, 14 * 17)."""
    return pooled(images, POOLED_PIXELS)


def by_glitch(
    spectrograms: "DataFrame", kind: str, numbers: Callable[[NDArray[np.float32]], NDArray[Any]]
) -> "DataFrame":
    """One row per glitch: id, label, sample_type, and a column of each view.

    Pixels are made into numbers where they are read, so that only what is left of them goes over the network.

    Args:
        spectrograms: the table.
        kind: Spark's type of a view's column.
        numbers: of images (n, 140, 170), by image; uint8 becomes bytes, float32 an array.
    """
    from pyspark.sql import functions as F

    names = COLUMNS.values()
    stand_ins = ", ".join(f"{name} {kind}, rank_{name} int" for name in names)
    schema = f"id string, label string, sample_type string, {stand_ins}"

    def of_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield stand_ins_of(batch, numbers)

    views = spectrograms.select("id", "label", "sample_type", "view_s", "pixels").mapInArrow(of_batches, schema)
    return views.groupBy("id", "label", "sample_type").agg(
        *(F.min_by(name, f"rank_{name}").alias(name) for name in names)
    )


def stand_ins_of(batch: pa.RecordBatch, numbers: Callable[[NDArray[np.float32]], NDArray[Any]]) -> pa.RecordBatch:
    """Each image as it stands in for every view, with its rank among those that can."""
    images = np.asarray(batch.column("pixels").flatten()).reshape(-1, HEIGHT, WIDTH)
    given = batch.column("view_s").to_numpy()
    columns: dict[str, pa.Array] = {name: batch.column(name) for name in ("id", "label", "sample_type")}
    for wanted_s, name in COLUMNS.items():
        nothing = numbers(images[:0])
        shown = np.empty((len(images), *nothing.shape[1:]), nothing.dtype)
        for view_s in np.unique(given):
            rows = given == view_s
            shown[rows] = numbers(resampled(images[rows], float(view_s), wanted_s))
        columns[name] = _column(shown)
        columns[f"rank_{name}"] = pa.array([rank(float(view_s), wanted_s) for view_s in given], pa.int32())
    return pa.RecordBatch.from_pydict(columns)


def _column(numbers: NDArray[Any]) -> pa.Array:
    """One value a row, without a Python object per number."""
    if numbers.dtype == np.uint8:
        return pa.array([row.tobytes() for row in numbers], pa.binary())
    offsets = pa.array(np.arange(0, numbers.size + 1, numbers.shape[1]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(numbers.ravel()))


def rank(view_s: float, wanted_s: float) -> int:
    """The order in which views are asked to stand in: the view itself, longer ones, shorter ones, nearest first."""
    steps = VIEWS_S.index(view_s) - VIEWS_S.index(wanted_s)
    return steps if steps >= 0 else len(VIEWS_S) - steps
