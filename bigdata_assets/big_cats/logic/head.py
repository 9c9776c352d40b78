"""A head over a network's frozen features that names the chosen classes, and when it names none.

A class's logit begins as the network's own for the class's synsets, which stays as it is, and a correction is learnt
that is drawn to zero: of a class with few pictures, or none, is kept what ImageNet knew. Near-duplicate pictures are a
group, and a group is on one side of every split. Keras and TensorFlow are imported by what needs them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bigdata_assets.big_cats.logic.classes import CatClass
from bigdata_assets.resources import networks

if TYPE_CHECKING:
    import keras

    from bigdata_assets.resources.networks import Loaded

KNOWN = "imagenet"
"""Name of the layer that stays as the network has it."""
NONE = -1
"""Code of a negative picture, which shows none of the classes."""
SEVERAL = -2
"""Code of a chip that shows several: none is the answer, so it is neither fitted on nor scored."""
NEAR = 6
"""Bits in which the hashes of near-duplicates differ at most. Of 106 photos of different things no two differ in less
than 16; a picture that was made smaller or compressed again differs in 4 or less."""
HASHES_A_PART = 64
HELD_OUT_PART = 5
"""One group in so many of each class is held out to stop on."""
MIN_STEPS = 4
"""An epoch's, of which there are few."""
PASSED = 0.05
"""Share of negative pictures that are taken for one of the classes, at most."""
LOST = 0.05
"""Share of chips that are taken for none where there is no negative picture to choose the threshold on."""


@dataclass(frozen=True)
class HeadSettings:
    """What a head is fitted with.

    Attributes:
        epochs: at most.
        patience: epochs without a better loss on the rows to stop on.
        batch_size: views a step.
        learning_rate: Adam's. Features are made of length 1, their parts about .02: a step moves a logit by .03 or so.
        l2: weight of the correction's squares in the loss: ten times as large, a logit is moved by one or two at most
            whatever the pictures say; a tenth, by more than ImageNet's differ.
        dropout: share of the features that a step does without.
        seed: of splits, batches and dropout.
    """

    epochs: int = 40
    patience: int = 5
    batch_size: int = 32
    learning_rate: float = 0.001
    l2: float = 0.01
    dropout: float = 0.3
    seed: int = 0


@dataclass(frozen=True)
class Start:
    """The network's own last layer for the classes: kernel (d, k) and biases (k,), zeros for a class without synset."""

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """Rows of cat_features: names of chips (of negatives: of pictures), class codes or NONE or SEVERAL, views, groups,
    features (n, d).
    """

    names: NDArray[np.str_]
    codes: NDArray[np.int64]
    views: NDArray[np.int64]
    groups: NDArray[np.int64]
    features: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.names)

    def where(self, rows: NDArray[Any]) -> "Rows":
        """Some of them, by a mask or by number."""
        return Rows(self.names[rows], self.codes[rows], self.views[rows], self.groups[rows], self.features[rows])

    @property
    def plain(self) -> "Rows":
        """Pictures as they are: what is scored."""
        return self.where(self.views == 0)

    @property
    def positive(self) -> "Rows":
        """Those of one class."""
        return self.where(self.codes >= 0)


@dataclass(frozen=True)
class Fitted:
    """A head: logits of the classes out of features. What it was fitted on, and stopped on.

    Attributes:
        model: features (n, d) in, logits (n, k) out; see `scores`.
        history: figures by name, one for each epoch.
        threshold: a picture whose score is not above it shows none of the classes.
        threshold_of: what the threshold was chosen on.
        stopped_on: what the fit was stopped on.
        held_out: accuracy on the rows that it was stopped on; NaN where there are none.
    """

    model: "keras.Model"
    history: Mapping[str, Sequence[float]]
    threshold: float
    threshold_of: str
    stopped_on: str
    held_out: float


@dataclass(frozen=True)
class Crossed:
    """Answers by heads that have not seen the row's group, for n plain rows and r repeats.

    Attributes:
        rows: the plain rows of one class or none.
        logits: (r, n, k).
        thresholds: (r, n): of the head that answered, chosen without the row.
    """

    rows: Rows
    logits: NDArray[np.float32]
    thresholds: NDArray[np.float64]

    @property
    def answers(self) -> NDArray[np.int64]:
        """Codes of the likeliest classes, (r, n)."""
        return np.asarray(self.logits.argmax(axis=-1))

    @property
    def scores(self) -> NDArray[np.float64]:
        """(r, n)."""
        return energy(self.logits)

    @property
    def accepted(self) -> NDArray[np.bool_]:
        """Whether the answer is one of the classes, (r, n)."""
        return np.asarray(self.scores > self.thresholds)


def start(loaded: "Loaded", classes: Sequence[CatClass]) -> Start:
    """What the network knows of the classes: means over a class's synsets; nothing where its weights are random."""
    size = loaded.top_weights(())[0].shape[0]
    kernel, bias = np.zeros((size, len(classes)), np.float32), np.zeros(len(classes), np.float32)
    for code, one in enumerate(classes):
        if one.synsets and loaded.network.weights != networks.NONE:
            of_synsets, biases = loaded.top_weights(one.synsets)
            kernel[:, code], bias[code] = of_synsets.mean(axis=1), biases.mean()
    return Start(kernel, bias)


def start_of(model: "keras.Model") -> Start:
    """What a stored head began with."""
    return Start(*model.get_layer(KNOWN).get_weights())


def made_with(features: pd.DataFrame, version: str) -> None:
    """See that features are of the network that a head is to begin with.

    Raises:
        ValueError: they are another's.
    """
    if list(features["model_version"].unique()) != [version]:
        raise ValueError(
            f"cat_features has features of {', '.join(features['model_version'].unique())}, and the network is now "
            f"{version}: materialise cat_features again"
        )


def rows(features: pd.DataFrame, classes: Sequence[CatClass]) -> Rows:
    """Rows of cat_features, sorted by name and view.

    Raises:
        ValueError: there is none, a chip shows another class than the chosen ones, or features are of several networks
            or weights.
    """
    if features.empty:
        raise ValueError("no chip and no negative picture is there: nothing can be fitted on cat_features")
    if features["model_version"].nunique() > 1:
        versions = ", ".join(sorted(features["model_version"].unique()))
        raise ValueError(f"cat_features has features of {versions}, which cannot be compared: materialise it again")
    codes = {one.label: code for code, one in enumerate(classes)}
    features = features.assign(name=features["chip_id"].fillna(features["image_id"])).sort_values(["name", "view"])
    is_chip = features["chip_id"].notna().to_numpy()
    if foreign := {label for labels in features["labels"] for label in labels} - set(codes):
        raise ValueError(
            f"cat_features has chips of {', '.join(sorted(foreign))}, no chosen classes: materialise cat_image_ids and "
            "what is made of it again"
        )
    found = [codes[labels[0]] if len(labels) == 1 else SEVERAL for labels in features["labels"]]
    return Rows(
        features["name"].to_numpy(str),
        np.where(is_chip, found, NONE),
        features["view"].to_numpy(np.int64),
        groups(features["image_id"].to_numpy(str), features["perceptual_hash"].to_numpy(np.int64)),
        np.stack(features["features"].to_list()).astype(np.float32),
    )


def groups(image_ids: NDArray[np.str_], hashes: NDArray[np.int64], near: int = NEAR) -> NDArray[np.int64]:
    """Number of each row's group: rows of one picture, or with hashes that differ in at most `near` bits, and so on.

    Each hash is compared with each other one: 10,000 take half a second, 40,000 six, in the memory of a part.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, of_image = np.unique(image_ids, return_inverse=True)
    unique, of_hash = np.unique(hashes, return_inverse=True)
    group = np.arange(len(unique) + len(image_ids))  # of hashes, and of pictures behind them

    def joined(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
        edges = coo_array((np.ones(len(one), bool), (group[one], group[other])), (len(group), len(group)))
        return connected_components(edges, directed=False)[1].astype(np.int64)[group]

    group = joined(of_hash, len(unique) + of_image)
    for first in range(0, len(unique), HASHES_A_PART):
        different = (unique[first : first + HASHES_A_PART, None] ^ unique[None, first:]).view(np.uint64)
        # Of a negative number bitwise_count has the bits of its absolute.
        one, other = np.nonzero(np.bitwise_count(different) <= near)
        group = joined(first + one, first + other)
    return group[of_hash]


def folds(rows: Rows, n: int, seed: int) -> NDArray[np.int64]:
    """The fold of every row, by group; the groups of each class, and those of none, are spread evenly.

    Raises:
        ValueError: there are less than two groups.
    """
    names, first, of_row = np.unique(rows.groups, return_index=True, return_inverse=True)
    if len(names) < 2:
        raise ValueError("all pictures are near-duplicates of each other: nothing can be split")
    rng, dealt = np.random.default_rng(seed), np.empty(len(names), np.int64)
    shuffled = rng.permutation(len(names))
    # By class; each class goes on where the one before has ended, or the first folds would be the largest.
    dealt[shuffled[np.argsort(rows.codes[first][shuffled], kind="stable")]] = np.arange(len(names)) % n
    return dealt[of_row]


def build(begin: Start, learnt: Rows, settings: HeadSettings) -> "keras.Model":
    """The head, of Keras' own layers: features (n, d) in, logits (n, k) out; as yet those that it begins with."""
    import keras
    from keras import layers

    size, k = begin.kernel.shape
    features = layers.Input((size,))
    known = layers.Dense(k, trainable=False, name=KNOWN)
    # Their differences are of length 1 about, so that one learning rate and one L2 do for every network. Not each
    # feature by its own variance: one that is seldom there would make a picture that has it an outlier.
    mean, variance = learnt.features.mean(axis=0, dtype=float), learnt.features.var(axis=0, dtype=float).sum()
    centred = layers.Normalization(mean=mean.tolist(), variance=[float(variance)] * size)(features)
    seen = layers.Dropout(settings.dropout, seed=settings.seed)(centred)
    correction = layers.Dense(k, kernel_initializer="zeros", kernel_regularizer=keras.regularizers.L2(settings.l2))
    model = keras.Model(features, layers.Add()([known(features), correction(seen)]))
    known.set_weights([begin.kernel, begin.bias])
    return model


def fit(rows: Rows, begin: Start, settings: HeadSettings) -> Fitted:
    """A head, the same for the same seed.

    It is fitted on the views of chips of one class, each class weighing the same as a whole, and stopped on plain rows
    of other groups. Negative pictures are not fitted on: the threshold is chosen on them.

    Args:
        rows: of one class, of several (left out) and of none.
        begin: what the network knows.
        settings: all else.

    Raises:
        ValueError: no row is of one class.
    """
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(settings.seed)
    tf.config.experimental.enable_op_determinism()
    learnt, stopping, stopped_on = to_stop_on(rows.positive, settings.seed)
    model = build(begin, learnt, settings)
    # The head's softmax over the classes that are there: another's logit is then left as ImageNet has it.
    present = np.isin(np.arange(begin.kernel.shape[1]), learnt.codes)
    offset = keras.layers.Rescaling(1.0, [0.0 if there else -1e9 for there in present])
    fitted = keras.Model(model.input, keras.layers.Softmax()(offset(model.output)))
    fitted.compile(
        keras.optimizers.Adam(settings.learning_rate),
        "sparse_categorical_crossentropy",
        weighted_metrics=["accuracy"],
        jit_compile=False,
    )
    watched, callbacks = None, []
    if len(stopping):
        watched = (stopping.features, stopping.codes, class_weights(stopping.codes))
        callbacks.append(keras.callbacks.EarlyStopping(patience=settings.patience, restore_best_weights=True))
    history = fitted.fit(
        batches(learnt, settings),
        steps_per_epoch=steps_per_epoch(learnt, settings),
        epochs=settings.epochs,
        verbose=0,
        shuffle=False,
        validation_data=watched,
        callbacks=callbacks,
    ).history
    unseen = stopping if len(stopping) else learnt.plain
    chosen, of = threshold(scores(model, rows.where(rows.codes == NONE).plain.features), scores(model, unseen.features))
    right = logits(model, stopping.features).argmax(axis=1) == stopping.codes
    return Fitted(model, history, chosen, of, stopped_on, float(right.mean()) if len(right) else float("nan"))


def to_stop_on(rows: Rows, seed: int) -> tuple[Rows, Rows, str]:
    """Rows to fit on, plain rows to stop on, and a word about these.

    These are a fifth of each class's groups. There are none where that would leave out most classes, as where few have
    five groups: stopping when some classes are best would leave the others half learnt.

    Raises:
        ValueError: there is no row.
    """
    if not len(rows):
        raise ValueError("no chip shows one of the classes alone: there is nothing to fit on")
    rng, aside = np.random.default_rng(seed), np.zeros(0, np.int64)
    classes = np.unique(rows.codes)
    for code in classes:
        its = rng.permutation(np.unique(rows.groups[rows.codes == code]))
        aside = np.append(aside, its[: len(its) // HELD_OUT_PART])
    is_aside = np.isin(rows.groups, aside)
    stopping = rows.where(is_aside).plain
    left = rows.where(~is_aside)
    if 2 * len(np.unique(stopping.codes)) < len(classes) or len(np.unique(left.codes)) < len(classes):
        return rows, rows.where(np.zeros(0, int)), "nothing: all epochs were run"
    return left, stopping, f"{len(stopping)} chips of other groups"


def batches(rows: Rows, settings: HeadSettings) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Features, codes and weights without end: an epoch has each view once, or some twice where they are few."""
    rng, weights = np.random.default_rng(settings.seed), class_weights(rows.codes)
    n_drawn = steps_per_epoch(rows, settings) * settings.batch_size
    while True:
        drawn = np.concatenate([rng.permutation(len(rows)) for _ in range(-(-n_drawn // len(rows)))])[:n_drawn]
        for batch in drawn.reshape(-1, settings.batch_size):
            yield rows.features[batch], rows.codes[batch], weights[batch]


def class_weights(codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights of rows, of mean 1, with which each class that is there weighs the same as a whole."""
    counts = np.bincount(codes)
    return len(codes) / (np.count_nonzero(counts) * counts[codes])


def steps_per_epoch(rows: Rows, settings: HeadSettings) -> int:
    """Batches that show as many views as there are, or MIN_STEPS."""
    return max(MIN_STEPS, -(-len(rows) // settings.batch_size))


def logits(model: "keras.Model", features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, k), a part at a time: Keras' own predict makes a graph anew for every head."""
    parts = [np.asarray(model(features[first : first + 4096])) for first in range(0, len(features), 4096)]
    return np.concatenate([np.zeros((0, model.output_shape[1]), np.float32), *parts])


def scores(model: "keras.Model", features: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much there is of any of the classes, (n,): what is not above the threshold shows none."""
    return energy(logits(model, features))


def energy(of: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logarithm of the sum of exponentials: unlike the highest probability it is low where all logits are (Liu et al.,
    Energy-based Out-of-distribution Detection, arXiv:2010.03759).
    """
    from scipy.special import logsumexp

    return np.asarray(logsumexp(of.astype(float), axis=-1))


def threshold(negatives: ArrayLike, positives: ArrayLike) -> tuple[float, str]:
    """The lowest score that at most PASSED of the negatives exceed, and what it was chosen on.

    Of fewer than 1 / PASSED negatives that is the highest score; without any, one that all but LOST of the positives
    exceed.
    """
    others = np.sort(np.asarray(negatives, float))
    if not others.size:
        chosen = float(np.quantile(np.asarray(positives, float), LOST))
        return chosen, f"no negative picture: {1 - LOST:.0%} of {np.size(positives)} chips are above it"
    few = ", too few for a share: the highest of their scores" if int(PASSED * others.size) == 0 else ""
    return float(others[others.size - 1 - int(PASSED * others.size)]), f"{others.size} negative pictures{few}"


def cross_validate(rows: Rows, begin: Start, settings: HeadSettings, repeats: int, n_folds: int) -> Crossed:
    """Answers for every plain row of one class or none by a head that has not seen its group, once a repeat.

    Raises:
        ValueError: there are less than two groups, or a fold leaves nothing to fit on.
    """
    from tqdm import tqdm

    rows = rows.where(rows.codes != SEVERAL)
    plain = rows.plain
    found = np.zeros((repeats, len(plain), begin.kernel.shape[1]), np.float32)
    thresholds = np.zeros((repeats, len(plain)))
    for number in tqdm(range(repeats * n_folds), "cross-validation", unit="fold", disable=None):
        repeat, this = divmod(number, n_folds)
        fold = folds(rows, n_folds, settings.seed + repeat)
        scored = fold[rows.views == 0] == this
        if not scored.any():
            continue
        fitted = fit(rows.where(fold != this), begin, replace(settings, seed=settings.seed + number))
        found[repeat, scored] = logits(fitted.model, plain.features[scored])
        thresholds[repeat, scored] = fitted.threshold
    return Crossed(plain, found, thresholds)


def parameters(settings: HeadSettings, fitted: Fitted, network: str, model_version: str) -> dict[str, Any]:
    """As a model.json keeps them: the settings, the network whose features it reads, and what it was fitted on."""
    return asdict(settings) | {
        "network": network,
        "network_version": model_version,
        "stopped_on": fitted.stopped_on,
        "threshold_of": fitted.threshold_of,
    }


def from_parameters(kept: Mapping[str, Any]) -> HeadSettings:
    """The settings that `parameters` kept."""
    return HeadSettings(**{name: kept[name] for name in asdict(HeadSettings())})
