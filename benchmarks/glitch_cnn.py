"""Fitting the network of glitches: as the asset does it, and the bare Keras loop on plain arrays.

Ours draws classes equally often, moves each glitch in time, watches other rows and writes a line an epoch; the bare
loop is model.fit of the same network and batch size on arrays, nothing else.
"""

import time
from dataclasses import replace

import numpy as np

from bigdata_assets.gravitational_waves.logic.classifiers import cnn
from bigdata_assets.gravitational_waves.logic.training.gravity_spy import CLASSES

GLITCHES = 256
EPOCHS = 4
TIMES = 3


def run() -> dict[str, float]:
    """Glitches a second of both ways, each in its best epoch, their ratio, and CPU time an epoch."""
    rng = np.random.default_rng(0)
    rows = cnn.Glitches(
        np.array([f"{number:010}" for number in range(GLITCHES)]),
        rng.integers(0, 256, (GLITCHES, *cnn.SHAPE), np.uint8),
        np.resize(CLASSES, GLITCHES),
        np.repeat("train", GLITCHES),
    )
    watched = rows.where(np.arange(len(CLASSES)))
    ours, bare = [], []
    for seed in range(TIMES):  # in turns, so that a busy machine is busy for both
        settings = replace(cnn.CnnSettings(epochs=EPOCHS), seed=seed)
        ours += _ours(rows, watched, settings)
        bare += _bare(rows, settings)
    (ours_s, ours_cpu_s), (bare_s, bare_cpu_s) = (np.min(epochs, axis=0) for epochs in (ours, bare))
    return {
        "glitches a second, fitted as the asset does": GLITCHES / ours_s,
        "glitches a second, bare Keras loop": GLITCHES / bare_s,
        "ours : bare": bare_s / ours_s,
        f"CPU seconds an epoch of {GLITCHES} glitches, ours": ours_cpu_s,
        f"CPU seconds an epoch of {GLITCHES} glitches, bare": bare_cpu_s,
    }


def _ours(rows: cnn.Glitches, watched: cnn.Glitches, settings: cnn.CnnSettings) -> list[tuple[float, float]]:
    clock, epochs = _clock()
    cnn.fit(rows, watched, settings, callbacks=[clock])
    return epochs[1:]


def _bare(rows: cnn.Glitches, settings: cnn.CnnSettings) -> list[tuple[float, float]]:
    clock, epochs = _clock()
    model = cnn.build(settings)
    model.compile("adamw", "sparse_categorical_crossentropy", jit_compile=False)
    codes = cnn.class_codes(rows.labels)
    model.fit(rows.views, codes, batch_size=settings.batch_size, epochs=settings.epochs, verbose=0, callbacks=[clock])
    return epochs[1:]


def _clock() -> tuple[object, list[tuple[float, float]]]:
    """A callback, and each epoch's wall and CPU seconds; the first epoch also builds the graph."""
    import keras

    epochs: list[tuple[float, float]] = []
    started = [0.0, 0.0]

    def begin(*_: object) -> None:
        started[:] = time.perf_counter(), time.process_time()

    def end(*_: object) -> None:
        epochs.append((time.perf_counter() - started[0], time.process_time() - started[1]))

    return keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end), epochs
