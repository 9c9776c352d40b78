"""What a network makes of chips, on Spark's workers: its likeliest classes, or the features that a head is fitted on.

A worker loads a network once. A picture is decoded, made as small as the network has them and forgotten before the next
one; whatever their sizes, a pass's small ones are all that is kept.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from pyspark.sql import DataFrame

from bigdata_assets.big_cats.logic import pictures
from bigdata_assets.big_cats.tables import CAT_FEATURES, CHIP_PREDICTIONS
from bigdata_assets.resources.networks import Loaded, Network, load
from bigdata_assets.tables import row_schema
from bigdata_assets.workers import once_per_process

CHIP, PICTURE = "chip", "picture"
PREDICTED = ["subset", "chip_id", "image_id", "labels", "is_whole_image", CHIP]
DESCRIBED = ["subset", "image_id", "chip_id", "labels", PICTURE]
STORED_PIXELS = 1 << 31
"""What is stored has passed the limit of its asset."""
SMALLEST_PART = 0.6
"""Share of a side that an augmented view has at least."""
Rows = list[tuple[dict[str, Any], NDArray[np.uint8]]]


def predict(chips: DataFrame, network: Network, names: Sequence[str], top: int, tasks: int) -> DataFrame:
    """Rows of chip_predictions.

    Args:
        chips: rows with at least PREDICTED's columns.
        network: what predicts; `networks.check` has found it whole.
        names: of ImageNet's classes by index.
        top: how many of the likeliest classes.
        tasks: that share the work: as many as cores, or a multiple. A few files of chips would be a few tasks.
    """
    answer = partial(predicted, network=network, names=names, top=top)
    return _mapped(chips.select(PREDICTED), network, answer, row_schema(*CHIP_PREDICTIONS.columns), tasks)


def features(pictured: DataFrame, network: Network, views: int, tasks: int) -> DataFrame:
    """Rows of cat_features, `views` of each picture: it as it is, and mirrored ones and parts of it.

    Args:
        pictured: rows with DESCRIBED's columns: chips, and negative pictures, whose chip_id is null.
        network: what describes them; `networks.check` has found it whole.
        views: how many, at least 1.
        tasks: that share the work.
    """
    answer = partial(described, network=network, views=views)
    return _mapped(pictured.select(DESCRIBED), network, answer, row_schema(*CAT_FEATURES.columns), tasks)


def pictured(chips: DataFrame, negatives: DataFrame) -> DataFrame:
    """Rows for `features`, of cat_chips and of negative_images."""
    from pyspark.sql import functions as F

    of_negatives = negatives.select(
        "subset",
        "image_id",
        F.lit(None).cast("string").alias("chip_id"),
        F.array().cast("array<string>").alias("labels"),
        F.col("image").alias(PICTURE),
    )
    return chips.withColumnRenamed(CHIP, PICTURE).select(DESCRIBED).unionByName(of_negatives)


def _mapped(rows: DataFrame, network: Network, answer: Callable[..., Any], schema: Any, tasks: int) -> DataFrame:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # A worker for each core.
        yield from answer(batches, once_per_process(str(network), lambda: load(network, threads=1)))

    return rows.repartition(tasks).mapInArrow(run, schema)


def predicted(
    batches: Iterable[pa.RecordBatch], loaded: Loaded, network: Network, names: Sequence[str], top: int
) -> Iterator[pa.RecordBatch]:
    """What `predict` makes of batches of chips.

    Raises:
        ValueError: a chip cannot be decoded.
    """
    began = time.perf_counter()
    small_ones = ((row, small(image, loaded.size_px)) for row, image in _decoded(batches, CHIP))
    for rows in _passes(small_ones, network.pictures_a_pass):
        probabilities = loaded.predict(_stacked(rows))
        seconds = (time.perf_counter() - began) / len(rows)
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        yield pa.RecordBatch.from_pylist(
            [
                row
                | {
                    "network": network.name,
                    "top_indices": indices,
                    "top_names": [names[index] for index in indices],
                    "top_probabilities": of_row[indices],
                    "model_version": network.version,
                    "seconds": seconds,
                }
                for (row, _), indices, of_row in zip(rows, best, probabilities, strict=True)
            ],
            CHIP_PREDICTIONS.arrow_schema,
        )
        began = time.perf_counter()


def described(
    batches: Iterable[pa.RecordBatch], loaded: Loaded, network: Network, views: int
) -> Iterator[pa.RecordBatch]:
    """What `features` makes of batches of pictures.

    Raises:
        ValueError: a picture cannot be decoded.
    """
    for rows in _passes(_views(batches, loaded.size_px, views), network.pictures_a_pass):
        found = loaded.features(_stacked(rows))
        made_by = {"network": network.name, "model_version": network.version}
        yield pa.RecordBatch.from_pylist(
            [row | made_by | {"features": of_row} for (row, _), of_row in zip(rows, found, strict=True)],
            CAT_FEATURES.arrow_schema,
        )


def small(image: Image.Image, size_px: int) -> NDArray[np.uint8]:
    """A picture as networks read it, (size_px, size_px, 3): squashed to the square, as keras.utils.load_img does."""
    return np.asarray(image.resize((size_px, size_px), Image.Resampling.BILINEAR))


def view(image: Image.Image, name: str, number: int) -> Image.Image:
    """An augmented view, the same for the same name: 1 is mirrored, others are parts, half of them mirrored.

    A part has the picture's form. Colours stay: they tell cats apart.
    """
    if number == 1:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    seed = hashlib.sha256(f"{name} {number}".encode()).digest()
    rng = np.random.default_rng(list(seed))
    share = rng.uniform(SMALLEST_PART, 1)
    width, height = (max(1, round(side * share)) for side in image.size)
    left, top = (int(rng.integers(side - part + 1)) for side, part in zip(image.size, (width, height), strict=True))
    part = image.crop((left, top, left + width, top + height))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 1 / 2 else part


def _views(
    batches: Iterable[pa.RecordBatch], size_px: int, views: int
) -> Iterator[tuple[dict[str, Any], NDArray[np.uint8]]]:
    for row, image in _decoded(batches, PICTURE):
        told = row | {"perceptual_hash": pictures.perceptual_hash(image)}
        yield told | {"view": 0}, small(image, size_px)
        for number in range(1, views):
            seen = view(image, row["chip_id"] or row["image_id"], number)
            yield told | {"view": number}, small(seen, size_px)


def _decoded(batches: Iterable[pa.RecordBatch], column: str) -> Iterator[tuple[dict[str, Any], Image.Image]]:
    """Each row without its bytes, and its picture."""
    for batch in batches:
        told = batch.drop_columns([column]).to_pylist()
        for row, data in zip(told, batch.column(column), strict=True):
            try:
                image = pictures.decode(data.as_py(), STORED_PIXELS)
            except pictures.PictureError as error:
                raise ValueError(
                    f"chip {row['chip_id']} of picture {row['image_id']} ({row['subset']}) cannot be decoded: {error}. "
                    "Materialise cat_chips and negative_images again."
                ) from error
            yield row, image


def _passes(rows: Iterable[tuple[dict[str, Any], NDArray[np.uint8]]], n: int) -> Iterator[Rows]:
    """`n` rows at once, as a network takes them; they may come from several batches."""
    taken: Rows = []
    for row in rows:
        taken.append(row)
        if len(taken) == n:
            yield taken
            taken = []
    if taken:
        yield taken


def _stacked(rows: Rows) -> NDArray[np.uint8]:
    return np.stack([image for _, image in rows])
