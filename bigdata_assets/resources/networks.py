"""Networks of keras.applications that tell ImageNet's thousand classes apart: weights, a compiled forward, features.

A pass has as many pictures, whatever comes: TensorFlow then makes one graph per network and never another. Keras and
TensorFlow are imported by what needs them: they take seconds.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import random
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras

NONE, IMAGENET = "none", "imagenet"
CLASSES = 1000
UNLIKE_ITS_FILE = re.compile(r"EfficientNetB\d$")
"""With Keras' own weights it has a layer more."""
DEFAULT_SIZE_PX = 224
"""Of a network that takes any."""
BATCH = 8
"""Pictures a pass, unless told otherwise: on one core as fast as 16 or 32. A process then has 1.0 GB with ResNet50, 1.1
with EfficientNetV2S; with 16 it is 1.1 and 1.4, with 32 ResNet50 has 1.3."""
SEED = 0
CLASS_NAMES = "imagenet_class_index.json"
"""Name of Keras' file of them."""
KNOWN = {
    282: "tiger_cat",
    286: "cougar",
    287: "lynx",
    288: "leopard",
    289: "snow_leopard",
    290: "jaguar",
    291: "lion",
    292: "tiger",
    293: "cheetah",
}
"""ImageNet's names of classes that matter here, where the file with all of them is not at hand."""


class UnknownNetworkError(ValueError):
    """keras.applications has no such network; the message says what it has."""


class WeightsError(ValueError):
    """Weights are not those of the network, or cannot be had; the message names both and says what to do."""


@dataclass(frozen=True)
class Network:
    """A network and its weights; it goes to Spark's workers.

    Attributes:
        name: of a constructor in keras.applications.
        weights: `none` (drawn at random, always the same), `imagenet` (Keras downloads them) or a file's path, which
            each worker must be able to read.
        version: what predictions are told apart by, such as ResNet50-<first 12 digits of the file's SHA-256>.
        pictures_a_pass: that are computed at once; a process's memory grows with them.
    """

    name: str
    weights: str
    version: str
    pictures_a_pass: int = BATCH

    @classmethod
    def of(cls, name: str, weights: str) -> "Network":
        """The network with its version.

        Raises:
            WeightsError: the file is not there.
        """
        if weights in (NONE, IMAGENET):
            return cls(name, weights, f"{name}-{weights}")
        try:
            with Path(weights).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise WeightsError(f"{weights}, weights of {name}, cannot be read: {error.strerror}.") from error
        return cls(name, weights, f"{name}-{digest[:12]}")


class Loaded:
    """A network that is ready. Pictures are RGB, (n, size_px, size_px, 3), uint8.

    Attributes:
        network: which it is.
        size_px: width and height of the pictures it was made for.
    """

    def __init__(self, network: Network, threads: int | None = None) -> None:
        tf = _tensorflow(threads)
        import keras

        self.network = network
        model = _model(network)
        preprocess = _preprocess(network.name)
        self.size_px: int = model.input_shape[1] or DEFAULT_SIZE_PX
        self._top = top = [layer for layer in model.layers if layer.weights][-1]
        both = keras.Model(model.input, [top.input, model.output])
        pictures = tf.TensorSpec((network.pictures_a_pass, self.size_px, self.size_px, 3), tf.uint8)
        self._forward = tf.function(
            lambda images: both(preprocess(tf.cast(images, tf.float32)), training=False), input_signature=[pictures]
        )

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities of ImageNet's classes, (n, 1000)."""
        return self.both(images)[1]

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Input of the last layer that has weights, (n, d)."""
        return self.both(images)[0]

    def both(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features and probabilities."""
        parts, n = [], self.network.pictures_a_pass
        # At least one pass, which tells the shapes that no picture has too.
        for first in range(0, max(len(images), 1), n):
            part = images[first : first + n]
            full = np.zeros((n, self.size_px, self.size_px, 3), np.uint8)
            full[: len(part)] = part
            parts.append([np.asarray(out).reshape(n, -1)[: len(part)] for out in self._forward(full)])
        features, probabilities = (np.concatenate(outs) for outs in zip(*parts, strict=True))
        return features, probabilities

    def top_weights(self, indices: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the last layer makes of features for some of ImageNet's classes: kernel (d, n) and biases (n,)."""
        kernel = np.asarray(self._top.kernel).reshape(-1, CLASSES)  # of MobileNet's, a convolution: (1, 1, d, 1000)
        bias = np.asarray(self._top.bias) if self._top.use_bias else np.zeros(CLASSES, np.float32)
        return kernel[:, list(indices)], bias[list(indices)]


def load(network: Network, threads: int | None = None) -> Loaded:
    """The network, ready; it takes seconds.

    Args:
        network: which.
        threads: that TensorFlow computes with, where it has not begun yet; default: one per core.

    Raises:
        UnknownNetworkError: keras.applications has no such network.
        WeightsError: the weights are not those of the network, or cannot be had.
    """
    return Loaded(network, threads)


def check(network: Network) -> None:
    """See that the network can be loaded, before Spark's workers do so.

    It is loaded: that takes a second or two more than to compare the file's arrays with those of a table, which would
    have to be kept for every network. Without weights there is nothing to see.

    Raises:
        UnknownNetworkError: keras.applications has no such network.
        WeightsError: the weights are not those of the network, or cannot be had.
    """
    _refuse_unknown(network.name)
    if network.weights != NONE:
        _tensorflow(None)
        _model(network)


def _refuse_unknown(name: str) -> None:
    if name not in names():
        raise UnknownNetworkError(
            f"keras.applications has no network {name!r}; it has {', '.join(names())}. Names are exact."
        )


def names() -> tuple[str, ...]:
    """Of all networks that keras.applications has; read from its file, since to import it takes seconds."""
    keras = importlib.util.find_spec("keras")
    api = Path(str(keras and keras.origin)).with_name("applications") / "__init__.py"
    return tuple(sorted(re.findall(r" as ([A-Z]\w+)", api.read_text())))  # modules have lower-case names


def class_names(file: Path) -> tuple[str, ...]:
    """ImageNet's names of its classes by index, from Keras' imagenet_class_index.json; without the file those KNOWN.

    Raises:
        WeightsError: the file is another one.
    """
    if not file.is_file():
        return tuple(KNOWN.get(index, f"class_{index}") for index in range(CLASSES))
    try:
        by_index = json.loads(file.read_bytes())
        return tuple(str(by_index[str(index)][1]) for index in range(CLASSES))
    except (ValueError, LookupError, TypeError) as error:
        raise WeightsError(
            f'{file} is not the file that Keras calls so: {{"0": ["n01440764", "tench"], …, "999": …}}. Download it '
            "again or remove it: the classes are then called by their numbers."
        ) from error


def _tensorflow(threads: int | None) -> Any:
    """TensorFlow, quiet; where it has not begun to compute, with so many threads and only the GPU memory it needs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _stderr_closed() if "tensorflow" not in sys.modules else contextlib.nullcontext():
        import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # it has begun
        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    return tf


@contextlib.contextmanager
def _stderr_closed() -> Iterator[None]:
    """What TensorFlow 2.21 says while it is imported heeds no level of logging; where it fails, it raises."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _preprocess(name: str) -> Any:
    """What the network wants done to pixels of 0 to 255: the function of the module that has its constructor."""
    import keras

    # Not every constructor is in the module of keras.applications that has its function, as MobileNetV3Small's is not.
    return sys.modules[getattr(keras.applications, name).__module__].preprocess_input


def _model(network: Network) -> "keras.Model":
    import keras

    _refuse_unknown(network.name)
    constructor = getattr(keras.applications, network.name)
    if UNLIKE_ITS_FILE.match(network.name) and network.weights not in (NONE, IMAGENET):
        raise WeightsError(
            f"{network.weights}, weights of {network.name}, cannot be used: Keras scales what the network is shown "
            f"only where it loads its own. Set BIG_CATS_WEIGHTS={network.name}=imagenet."
        )
    if network.weights == IMAGENET:
        try:
            return constructor(weights=IMAGENET)
        except Exception as error:
            raise WeightsError(
                f"Keras could not get its ImageNet weights of {network.name}: {error}. Put them into the folder "
                f"weights of the branch's sources, or name them: BIG_CATS_WEIGHTS={network.name}=<file>."
            ) from error
    # Where initialisers have no seed, Keras takes one from here; keras.utils.set_random_seed would reseed all others.
    state = random.getstate()
    random.seed(SEED)
    try:
        model = constructor(weights=None)
    finally:
        random.setstate(state)
    if network.weights != NONE:
        _fill(model, network)
    return model


def _fill(model: "keras.Model", network: Network) -> None:
    """Load a file of weights that has exactly the network's arrays: Keras passes over those that it has no use for."""
    where = f"{network.weights}, weights of {network.name},"
    again = (
        f"Take the file with top that Keras offers for {network.name}, or one that its model's "
        f"save_weights('….weights.h5') wrote; BIG_CATS_WEIGHTS={network.name}=<file> names it."
    )
    found = _shapes(Path(network.weights), where, again)
    wanted = Counter(tuple(weight.shape) for weight in model.weights if weight.shape)
    if found != wanted:
        lacking, foreign = wanted - found, found - wanted
        if not foreign and any(shape[-1] == CLASSES for shape in lacking):
            raise WeightsError(f"{where} are without top, the layers that name {CLASSES} classes. {again}")
        raise WeightsError(
            f"{where} are another network's: {found.total()} arrays, {foreign.total()} of shapes that it does not "
            f"have; it has {wanted.total()}. {again}"
        )
    try:
        model.load_weights(network.weights)
    except Exception as error:
        raise WeightsError(f"{where} cannot be loaded: {error}. {again}") from error


def _shapes(path: Path, where: str, again: str) -> Counter[tuple[int, ...]]:
    """How many arrays of which shape a file of weights has.

    Raises:
        WeightsError: it has none, or more than weights.
    """
    import h5py

    if not path.is_file():
        raise WeightsError(f"{where} are not there. {again}")
    if zipfile.is_zipfile(path):
        raise WeightsError(f"{where} are a whole model (.keras), where weights are expected. {again}")
    shapes: list[tuple[int, ...]] = []

    def note(name: str, item: Any) -> None:
        # The state of a layer that draws at random, such as Dropout's, is no weight.
        if isinstance(item, h5py.Dataset) and item.shape and "seed_generator" not in name:
            shapes.append(item.shape)

    try:
        with h5py.File(path) as file:
            is_whole = "model_config" in file.attrs
            file.visititems(note)
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"{where} are no HDF5 file, or a part of one: {error}. {again}") from error
    if is_whole:
        raise WeightsError(f"{where} are a whole model, where weights are expected. {again}")
    return Counter(shapes)
