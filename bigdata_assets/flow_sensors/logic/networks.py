"""The networks: windows of a site's samples in, a figure of each sample out. Of Keras' own layers only.

Keras and TensorFlow are imported by what needs them: they take seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras

AUTOENCODER = "lstm_autoencoder"
BATCH, LEAST_STEPS = 64, 20
"""Windows a step, and steps an epoch: of few windows a step has fewer, but no fewer than 8."""
PREDICTED = 256
"""Windows in a batch that is only scored."""
MOST_WEIGHT = 20.0
"""Of an anomalous sample beside one that is not."""
FRAME = 16
"""Samples of a short-time spectrum."""


@dataclass(frozen=True)
class Windows:
    """What a network is fitted or stopped on.

    Attributes:
        inputs: (k, T, inputs), see `features.network_inputs`.
        labels: (k, T) 1, 0 or UNKNOWN.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.inputs)


def build(name: str, length: int, channels: int, inputs: int) -> "keras.Model":
    """A network: (k, T, inputs) in; (k, T, 1) probabilities out, or (k, T, channels) values of the autoencoder.

    Args:
        name: of the model.
        length: T.
        channels: of the site.
        inputs: for each sample.

    Raises:
        ValueError: there is no such network.
    """
    import keras
    from keras import layers

    if name not in LAYERS:
        raise ValueError(f"there is no network {name!r}; there are {', '.join(LAYERS)}")
    windows = layers.Input((length, inputs))
    seen = LAYERS[name](windows, channels)
    out = layers.Dense(channels) if name == AUTOENCODER else layers.Dense(1, "sigmoid")
    return keras.Model(windows, out(seen))


def bilstm_v1(windows: Any, channels: int) -> Any:  # noqa: ARG001
    """Both ways through the window, beside what each sample is itself."""
    from keras import layers

    local = layers.Conv1D(32, 3, padding="same", activation="relu")(windows)
    both = layers.Bidirectional(layers.LSTM(32, return_sequences=True))(local)
    seen = layers.Dropout(0.2)(layers.Concatenate()([local, both]))
    return layers.Dense(32, "relu")(seen)


def lstm_v2(windows: Any, channels: int) -> Any:  # noqa: ARG001
    """Two layers, forwards: what it says of a sample is told from those before it."""
    from keras import layers

    seen = layers.LSTM(48, return_sequences=True)(windows)
    seen = layers.LSTM(24, return_sequences=True)(layers.Dropout(0.2)(seen))
    return layers.Dense(16, "relu")(layers.Concatenate()([windows, seen]))


def fcn(windows: Any, channels: int) -> Any:  # noqa: ARG001
    """Convolutions alone (Wang, Yan & Oates 2017, arXiv:1611.06455), without pooling: each sample has an answer."""
    from keras import layers

    seen = windows
    for filters, size, dilation in ((48, 7, 1), (64, 5, 2), (48, 3, 4)):
        seen = layers.Conv1D(filters, size, padding="same", dilation_rate=dilation, use_bias=False)(seen)
        seen = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(seen))
    return layers.Dropout(0.2)(seen)


def lstm_autoencoder(windows: Any, channels: int) -> Any:
    """The whole window through a few numbers, and back (Malhotra et al. 2016, arXiv:1607.00148)."""
    from keras import layers

    code = layers.LSTM(8 + 4 * channels)(windows)
    return layers.LSTM(32, return_sequences=True)(layers.RepeatVector(windows.shape[1])(code))


def spectrogram_cnn(windows: Any, channels: int) -> Any:
    """Each channel's short-time spectra as a picture, times by frequencies; what it shows, at each of its times."""
    from keras import layers

    # One step a sample: where spectra are four samples apart, single anomalous ones are lost between them.
    spectra = layers.STFTSpectrogram(
        "log", FRAME, 1, FRAME, scaling="spectrum", padding="same", expand_dims=True, trainable=False
    )(windows[:, :, :channels])
    seen = layers.Rescaling(0.25, 1.0)(spectra)
    for filters, step in ((16, 2), (32, 2)):
        seen = layers.Conv2D(filters, 3, (1, step), padding="same", use_bias=False)(seen)
        seen = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(seen))
    _, times, rows, filters = seen.shape
    each = layers.Dropout(0.2)(layers.Reshape((times, rows * filters))(seen))
    return layers.Conv1D(32, 5, padding="same", activation="relu")(each)


LAYERS: Mapping[str, Callable[[Any, int], Any]] = {
    "bilstm_v1": bilstm_v1,
    "lstm_v2": lstm_v2,
    "fcn": fcn,
    AUTOENCODER: lstm_autoencoder,
    "spectrogram_cnn": spectrogram_cnn,
}


def fit(
    name: str,
    training: Windows,
    stopping: Windows,
    channels: int,
    epochs: int,
    patience: int,
    seed: int,
    progress: Callable[[str], None] | None = None,
) -> tuple["keras.Model", Mapping[str, Sequence[float]]]:
    """A network and its figures by epoch, the same for the same seed.

    Args:
        name: of the model.
        training: what it learns.
        stopping: what it is stopped on; may be empty: all epochs are run then.
        channels: the first of the inputs.
        epochs: at most.
        patience: epochs without a better loss to stop on.
        seed: of weights and of the order of the windows.
        progress: told each epoch.
    """
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    _, length, n_inputs = training.inputs.shape
    model = build(name, length, channels, n_inputs)
    batch = min(BATCH, max(8, len(training) // LEAST_STEPS))
    steps = -(-len(training) // batch)
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, epochs * steps)
    loss = "mean_squared_error" if name == AUTOENCODER else "binary_crossentropy"
    model.compile(keras.optimizers.Adam(schedule, clipnorm=1.0), loss, jit_compile=False)
    weight = positive_weight(training.labels)
    callbacks: list[Any] = []
    if watched := len(stopping) > 0:
        callbacks.append(keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True))
    if progress is not None:
        told = progress
        callbacks.append(
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: told(f"{name}: epoch {epoch + 1} of {epochs}, loss {logs['loss']:.4f}")
            )
        )
    inputs, targets, weights = _targets(name, training, channels, weight)
    history = model.fit(
        inputs,
        targets,
        sample_weight=weights,
        batch_size=batch,
        epochs=epochs,
        verbose=0,
        validation_data=_targets(name, stopping, channels, weight) if watched else None,
        validation_batch_size=PREDICTED,
        callbacks=callbacks,
    ).history
    return model, {figure: [float(value) for value in values] for figure, values in history.items()}


def positive_weight(labels: NDArray[np.int8]) -> float:
    """Of an anomalous sample: the root of what would make both classes weigh the same, MOST_WEIGHT at most.

    Of the whole of it, what is one sample in a hundred would be seen everywhere.
    """
    positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
    return float(min(np.sqrt(negatives / max(positives, 1)), MOST_WEIGHT)) if negatives else 1.0


def _targets(
    name: str, windows: Windows, channels: int, weight: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Inputs, targets and weights of the samples: none of one whose label is not known."""
    if name == AUTOENCODER:
        known = (windows.labels != 1).astype(np.float32)
        return windows.inputs, windows.inputs[:, :, :channels], known
    weights = np.array([1.0, weight, 0.0], np.float32)[windows.labels]  # the last one is UNKNOWN's, -1
    return windows.inputs, (windows.labels == 1)[..., None].astype(np.float32), weights


def predict(name: str, model: "keras.Model", inputs: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """(k, T) figures of the samples of windows: probabilities, or errors of the autoencoder's values."""
    found = np.asarray(model.predict(inputs, batch_size=PREDICTED, verbose=0))
    if name != AUTOENCODER:
        return found[..., 0]
    missing = inputs[..., 2 * channels : 3 * channels] > 0
    errors = np.where(missing, 0, (found - inputs[..., :channels]) ** 2).sum(axis=-1)
    return np.sqrt(errors / np.maximum((~missing).sum(axis=-1), 1))
