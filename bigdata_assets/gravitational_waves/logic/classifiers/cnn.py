"""Gravity Spy's 22 classes by a convolutional network on a glitch's four views, with Keras.

A network reads the views as they are in glitch_views: squares of 2 pixels, a byte each. Every fit draws its classes
equally often and moves each glitch a little in time, background coming in behind it. Never in frequency: where a line
is, tells a violin mode from the mains. Keras and TensorFlow are imported by what needs them: they take seconds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bigdata_assets.gravitational_waves.logic.classifiers.features import COLUMNS, by_glitch, pooled, rank, resampled
from bigdata_assets.gravitational_waves.logic.classifiers.svc import SIGNAL
from bigdata_assets.gravitational_waves.logic.strain.qscans import BACKGROUND
from bigdata_assets.gravitational_waves.logic.training.gravity_spy import CLASSES, HEIGHT, VIEWS_S, WIDTH

if TYPE_CHECKING:
    import keras
    from pyspark.sql import DataFrame

POOLED_PIXELS = 2
ROWS, COLS = HEIGHT // POOLED_PIXELS, WIDTH // POOLED_PIXELS
SHAPE = (len(VIEWS_S), ROWS, COLS)
WHITE = 255
BACKGROUND_BYTE = round(WHITE * BACKGROUND)
SPREAD = 64
"""Of the bytes of what is seen, about; the network reads (byte - background) / SPREAD."""
MIN_STEPS = 4
"""An epoch's, of which there are few: a step a batch of 30 glitches would learn next to nothing in 40 epochs."""
HELD_OUT = 0.2
"""Share of each class's training rows that a fit stops on where there are too few validation rows."""


@dataclass(frozen=True)
class CnnSettings:
    """What a network is built and fitted with.

    Attributes:
        epochs: at most.
        patience: epochs without a better loss on the rows to stop on.
        batch_size: glitches a step.
        learning_rate: at first; it falls to 0 along a cosine.
        weight_decay: AdamW's.
        dropout: share of the last layer's inputs.
        shift_s: a glitch is moved by up to so many seconds.
        seed: of weights, batches and shifts.
    """

    epochs: int = 40
    patience: int = 15
    batch_size: int = 32
    learning_rate: float = 0.003
    weight_decay: float = 0.01
    dropout: float = 0.3
    shift_s: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class Glitches:
    """Rows of glitch_views by id: views (n, 4, 70, 85) as bytes, labels, sample types."""

    ids: NDArray[np.str_]
    views: NDArray[np.uint8]
    labels: NDArray[np.str_]
    sample_types: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, rows: NDArray[Any]) -> "Glitches":
        """Some of them, by a mask or by number."""
        return Glitches(self.ids[rows], self.views[rows], self.labels[rows], self.sample_types[rows])

    def of(self, sample_type: str) -> "Glitches":
        """Those of a split."""
        return self.where(self.sample_types == sample_type)


@dataclass(frozen=True)
class Fitted:
    """A network, its figures by epoch, and on how many rows of which kind it was stopped."""

    model: "keras.Model"
    history: Mapping[str, Sequence[float]]
    stopped_on: str


def glitch_views(spectrograms: "DataFrame") -> "DataFrame":
    """Rows of glitch_views."""
    return by_glitch(spectrograms, "binary", pooled_bytes)


def pooled_bytes(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Greys from 0 to 1, (..., 140, 170), as the network reads them, flat: (..., 70 * 85)."""
    return np.rint(WHITE * np.clip(pooled(images, POOLED_PIXELS), 0, 1)).astype(np.uint8)


def glitches(rows: pd.DataFrame) -> Glitches:
    """Rows of glitch_views as arrays, by id."""
    rows = rows.sort_values("id")
    views = [np.frombuffer(b"".join(rows[name]), np.uint8).reshape(-1, ROWS, COLS) for name in COLUMNS.values()]
    ids, labels, sample_types = (rows[name].to_numpy(str) for name in ("id", "label", "sample_type"))
    return Glitches(ids, np.stack(views, axis=1), labels, sample_types)


def from_images(views: NDArray[np.float32]) -> NDArray[np.uint8]:
    """What the network reads of whole views: (n, 4, 140, 170) to (n, 4, 70, 85).

    A view that is missing, all NaN, is taken from the glitch's others, as in glitch_views.

    Raises:
        ValueError: another shape, a glitch without any view, or single pixels that are no numbers.
    """
    if views.shape[1:] != (len(VIEWS_S), HEIGHT, WIDTH):
        raise ValueError(f"views are {views.shape}, not (n, {len(VIEWS_S)}, {HEIGHT}, {WIDTH})")
    missing: NDArray[np.bool_] = np.all(np.isnan(views), axis=(2, 3))
    if missing.all(axis=1).any() or not np.isfinite(views[~missing]).all():
        raise ValueError("a glitch has no view, or a view has pixels that are no numbers")
    whole = views.copy()
    for number, place in np.argwhere(missing):
        present = [VIEWS_S[other] for other in np.flatnonzero(~missing[number])]
        view_s = min(present, key=partial(rank, wanted_s=VIEWS_S[place]))
        whole[number, place] = resampled(views[number, VIEWS_S.index(view_s)], view_s, VIEWS_S[place])
    return pooled_bytes(whole).reshape(-1, *SHAPE)


def predict(model: "keras.Model", views: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of the 22 classes, (n, 22), for whole views (n, 4, 140, 170); see `from_images`."""
    return probabilities(model, from_images(views))


def probabilities(model: "keras.Model", views: NDArray[np.uint8]) -> NDArray[np.float32]:
    """As `predict`, for views as glitch_views has them, (n, 4, 70, 85)."""
    return np.asarray(model.predict(views, batch_size=256, verbose=0))


def chirp_margins(model: "keras.Model", rows: Glitches) -> pd.DataFrame:
    """One row per glitch, as svc.margins has them: the margin is the probability of Chirp."""
    margin = probabilities(model, rows.views)[:, CLASSES.index(SIGNAL)].astype(float)
    return pd.DataFrame({"id": rows.ids, "label": rows.labels, "sample_type": rows.sample_types, "margin": margin})


def build(settings: CnnSettings) -> "keras.Model":
    """The network: glitch_views' bytes (n, 4, 70, 85) in, probabilities (n, 22) out."""
    import keras
    from keras import layers

    views = layers.Input(SHAPE, dtype="uint8")
    pixels = layers.Permute((2, 3, 1))(layers.Rescaling(1 / SPREAD, -BACKGROUND_BYTE / SPREAD)(views))
    seen = layers.AveragePooling2D(2)(pixels)
    for filters, side, step in ((24, 5, 2), (48, 3, 2), (64, 3, 1)):
        seen = layers.Conv2D(filters, side, step, padding="same", use_bias=False)(seen)
        seen = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(seen))
    # Where in time it was is nothing to go by; at which frequency, is.
    loudest = layers.Flatten()(layers.MaxPooling2D((1, seen.shape[2]))(seen))
    return keras.Model(views, layers.Dense(len(CLASSES), "softmax")(layers.Dropout(settings.dropout)(loudest)))


def shifted(views: NDArray[np.uint8], shifts_s: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Views (n, 4, 70, 85), each glitch moved by its shift, later where that is positive, background behind it.

    A shift is the same time in all views, and so more columns in a short one than in a long one.
    """
    moved = np.full_like(views, BACKGROUND_BYTE)
    steps = np.rint(shifts_s[:, None] / np.array(VIEWS_S) * COLS).astype(int)
    for (number, place), step in np.ndenumerate(steps):
        to, of = slice(max(step, 0), COLS + min(step, 0)), slice(max(-step, 0), COLS + min(-step, 0))
        moved[number, place, :, to] = views[number, place, :, of]
    return moved


def batches(
    rows: Glitches, settings: CnnSettings, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Batches without end: an epoch draws all classes equally often, and moves what it draws."""
    codes = class_codes(rows.labels)
    shares = np.cumsum(class_weights(codes))
    n_drawn = steps_per_epoch(rows, settings) * settings.batch_size
    while True:
        # One draw from each of as many equal parts of the shares: within an epoch, too, classes come equally often.
        drawn = np.searchsorted(shares / shares[-1], (np.arange(n_drawn) + rng.random(n_drawn)) / n_drawn)
        for batch in rng.permutation(drawn).reshape(-1, settings.batch_size):
            shifts_s = rng.uniform(-settings.shift_s, settings.shift_s, len(batch))
            yield shifted(rows.views[batch], shifts_s), codes[batch]


def class_codes(labels: NDArray[np.str_]) -> NDArray[np.int64]:
    """The number of each label's class, in CLASSES' order, which is sorted."""
    return np.searchsorted(CLASSES, labels)


def class_weights(codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights of rows, of mean 1, with which each class that is there weighs the same as a whole."""
    counts = np.bincount(codes)
    return len(codes) / (np.count_nonzero(counts) * counts[codes])


def steps_per_epoch(rows: Glitches, settings: CnnSettings) -> int:
    """Batches that show as many glitches as there are, or MIN_STEPS of few glitches."""
    return max(MIN_STEPS, -(-len(rows) // settings.batch_size))


def to_stop_on(training: Glitches, validation: Glitches, seed: int) -> tuple[Glitches, Glitches, str]:
    """Rows to fit on, rows to stop on, and a word about these.

    They are the validation rows where these have half of the training rows' classes; else a fifth of each class's
    training rows, by `held_out`; none where that leaves most classes out: stopping when some classes are best would
    leave the others half learnt.
    """
    n_classes = len(set(training.labels))
    if len(set(validation.labels) & set(training.labels)) >= n_classes / 2:
        return training, validation, f"{len(validation)} validation rows"
    aside = held_out(training.labels, np.random.default_rng(seed))
    if len(set(training.labels[aside])) >= n_classes / 2:
        return training.where(~aside), training.where(aside), f"{aside.sum()} of the training rows"
    return training, training.where(np.zeros(0, int)), "none: all epochs were run"


def held_out(labels: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """A mask of HELD_OUT of each class's rows; of a class with less than three none, since it has none to spare."""
    aside = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        aside[rows[: round(HELD_OUT * len(rows))]] = True
    return aside


def fit(training: Glitches, validation: Glitches, settings: CnnSettings, callbacks: Sequence[Any] = ()) -> Fitted:
    """A network, the same for the same seed.

    Args:
        training: what it learns.
        validation: what it stops on, where there is enough of it; may be empty.
        settings: all else.
        callbacks: Keras', beside the one that stops.

    Raises:
        ValueError: there are no training rows.
    """
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(settings.seed)
    tf.config.experimental.enable_op_determinism()
    if not len(training):
        raise ValueError("there is no training row")
    rows, stopping, stopped_on = to_stop_on(training, validation, settings.seed)
    model, steps = build(settings), steps_per_epoch(rows, settings)
    schedule = keras.optimizers.schedules.CosineDecay(settings.learning_rate, settings.epochs * steps)
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay),
        "sparse_categorical_crossentropy",
        weighted_metrics=["accuracy"],
        jit_compile=False,
    )
    watched, callbacks = None, [*callbacks]
    if len(stopping):
        codes = class_codes(stopping.labels)
        watched = (stopping.views, codes, class_weights(codes))
        callbacks.append(keras.callbacks.EarlyStopping(patience=settings.patience, restore_best_weights=True))
    history = model.fit(
        batches(rows, settings, np.random.default_rng(settings.seed)),
        steps_per_epoch=steps,
        epochs=settings.epochs,
        verbose=0,  # the history is kept; Keras would print it
        shuffle=False,
        validation_data=watched,
        callbacks=callbacks,
    ).history
    return Fitted(model, history, stopped_on)


def parameters(settings: CnnSettings, fitted: Fitted) -> dict[str, Any]:
    """As a model.json keeps them: the settings, and what the fit was stopped on."""
    return asdict(settings) | {"stopped_on": fitted.stopped_on}


def from_parameters(kept: Mapping[str, Any]) -> CnnSettings:
    """The settings that `parameters` kept."""
    return CnnSettings(**{field.name: kept[field.name] for field in fields(CnnSettings)})
