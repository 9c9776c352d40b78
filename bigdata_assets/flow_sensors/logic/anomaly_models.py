"""The eleven models of anomalous samples: fitted on training samples, their thresholds on validation ones.

A sample is a site's time; it is anomalous where one of its channels is. Each part of a split is a series of its own, so
that nothing is told from over its border. Samples of which it is not known are never learnt from, nor judged on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bigdata_assets.flow_sensors.logic import estimators, features
from bigdata_assets.flow_sensors.logic.series import TRAIN, UNKNOWN, VALIDATION, SiteSeries, windows
from bigdata_assets.flow_sensors.tables import MODELS

if TYPE_CHECKING:
    import keras

    from bigdata_assets.flow_sensors.logic.networks import Windows

RULE = "rule"
NETWORKS = ("bilstm_v1", "lstm_v2", "fcn", "lstm_autoencoder", "spectrogram_cnn")
SUPERVISED = ("svm", "lightgbm", "bilstm_v1", "lstm_v2", "fcn", "spectrogram_cnn")
"""Those that cannot be fitted without anomalous training samples."""
AT_ONCE = 2_048
"""Windows that a network scores at once."""
FALLBACK = 0.99
"""Quantile of the training scores that is the threshold where no validation sample is anomalous."""


@dataclass(frozen=True)
class Effort:
    """What a fit may take: bounds of its time and memory, whatever the input.

    Attributes:
        length: T, samples of a window.
        step: samples from one training window to the next, and from one scored to the next.
        windows: that a network is fitted on, at most; a third as many that it is stopped on.
        epochs: at most.
        patience: epochs without a better loss on validation windows.
        rows: that LightGBM and the isolation forest are fitted on, at most.
        few_rows: that the others are fitted on, at most.
        trees: of LightGBM for each seed, and of the isolation forest.
        seeds: LightGBM's models that are averaged.
        components: rows that the SVM's kernel is told by, and centres of k-means times 10.
        threads: of LightGBM.
    """

    length: int = 60
    step: int = 30
    windows: int = 4_000
    epochs: int = 10
    patience: int = 4
    rows: int = 120_000
    few_rows: int = 10_000
    trees: int = 200
    seeds: int = 2
    components: int = 200
    threads: int = 2


FAST = Effort()
FULL = Effort(step=15, windows=30_000, epochs=40, patience=10, rows=500_000, few_rows=40_000, seeds=8, components=600)


@dataclass(frozen=True)
class Scorer:
    """What scores samples: a model as it is stored.

    Attributes:
        name: of MODELS.
        parameters: see `Fitted`.
        estimator: of those that are no network.
        network: of the others.
    """

    name: str
    parameters: Mapping[str, Any]
    estimator: Any = None
    network: "keras.Model | None" = None


@dataclass(frozen=True)
class Fitted(Scorer):
    """A model and how it came about.

    Attributes:
        parameters: plain values: channels, scalers, T, how the threshold was chosen, and the effort.
        threshold: a sample whose score is not below it is flagged.
        metrics: figures of the validation samples, and how many these are.
        history: a network's figures, one for each epoch.
    """

    threshold: float = np.nan
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)


def fit(
    name: str,
    series: Sequence[SiteSeries],
    effort: Effort,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Fitted:
    """A model, the same for the same seed.

    Args:
        name: of MODELS.
        series: of several sites, whose channels may differ.
        effort: bounds of time and memory.
        seed: of all that is random.
        progress: told what is done.

    Raises:
        ValueError: there is no such model, no training sample, or no anomalous one for a model that learns from them.
    """
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; there are {', '.join(MODELS)}")
    training, validation = (_part(series, split) for split in (TRAIN, VALIDATION))
    if not training:
        raise ValueError("no training sample is there: load samples of a site, and materialise windows again")
    if name in SUPERVISED and not any((one.labels == 1).any() for one in training):
        raise ValueError(
            f"no training sample is known to be anomalous, and {name} learns from those: label some, or use a model "
            f"that needs none ({', '.join(other for other in MODELS if other not in SUPERVISED)})"
        )
    parameters: dict[str, Any] = {
        "model": name,
        "channels": sorted({channel for one in training for channel in one.channels}),
        "scalers": features.scalers_of(training),
        "length": effort.length,
        "step": effort.step,
        "seed": seed,
        "effort": asdict(effort),
    }
    tell = progress or (lambda _: None)
    tell(f"{name}: {sum(map(len, training))} training samples of {len(training)} sites")
    history: Mapping[str, Sequence[float]] = {}
    if name in NETWORKS:
        from bigdata_assets.flow_sensors.logic import networks

        learnt = _windows(training, parameters, effort.windows, name, seed)
        stopping = _windows(validation, parameters, effort.windows // 3, name, seed)
        network, history = networks.fit(
            name, learnt, stopping, len(parameters["channels"]), effort.epochs, effort.patience, seed, progress
        )
        scorer = Scorer(name, parameters, network=network)
    else:
        scorer = Scorer(name, parameters, _estimator(name, training, parameters, effort, seed))
    return _judged(scorer, training, validation, history)


def scores(model: Scorer, series: SiteSeries, rows: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """(n,) how anomalous each sample is, higher is more; NaN where nothing can be told, and in rows not asked for.

    Args:
        model: fitted, or as it was stored.
        series: of a site; one that was not among the training sites is scaled by its own values.
        rows: (n,) those that are wanted; only what they need is worked on.
    """
    width = int(model.parameters["smoothing"])
    wanted = np.ones(len(series), bool) if rows is None else rows
    found = smoothed(_raw_scores(model, series, _widened(wanted, width // 2)), series.stretch, width)
    found[~wanted] = np.nan
    return found


def smoothed(of: NDArray[np.float32], stretch: NDArray[np.int32], width: int) -> NDArray[np.float32]:
    """Means of `width` scores around each one, within its stretch; NaN stays NaN."""
    if width <= 1 or not len(of):
        return of.copy()
    windows_around = features.Around(stretch, width // 2, width // 2)
    known = np.isfinite(of)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, of, 0), dtype=np.float64)])
    counts = np.concatenate([[0], np.cumsum(known)])
    low, high = windows_around.low, windows_around.high
    mean = (sums[high] - sums[low]) / np.maximum(counts[high] - counts[low], 1)
    return np.where(known, mean, np.nan).astype(np.float32)


def best_threshold(labels: NDArray[np.bool_], of: NDArray[np.float32]) -> float:
    """The threshold of the best F1 of (n,) scores, of equally good ones the highest; one label at least is true."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(labels, of)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = np.flatnonzero(f1[:-1] >= f1.max() - 1e-12)[-1]
    return float(thresholds[best])


def figures(labels: NDArray[np.int8], of: NDArray[np.float32], threshold: float) -> dict[str, float]:
    """AP, F1, precision and recall of samples whose label is known; those without a score count as not flagged.

    `baseline_average_precision` is that of scores that tell nothing: the share of the anomalous ones. A figure that is
    not defined is left out.
    """
    from sklearn.metrics import average_precision_score

    known = labels != UNKNOWN
    truth, of = labels[known] == 1, of[known]
    flagged = of >= threshold  # NaN is not
    hits, said, there = int((flagged & truth).sum()), int(flagged.sum()), int(truth.sum())
    found = {"samples": float(len(truth)), "anomalous": float(there), "flagged": float(said)}
    if there:
        lowest = np.nanmin(of) if np.isfinite(of).any() else 0.0
        ranked = np.where(np.isnan(of), lowest - 1, of)
        found["average_precision"] = float(average_precision_score(truth, ranked))
        found["baseline_average_precision"] = there / len(truth)
        found["recall"] = hits / there
        found["f1"] = 2 * hits / (said + there)
    if said:
        found["precision"] = hits / said
    return found


def _judged(
    scorer: Scorer,
    training: Sequence[SiteSeries],
    validation: Sequence[SiteSeries],
    history: Mapping[str, Sequence[float]],
) -> Fitted:
    """The scorer with smoothing and threshold of the validation samples."""
    raw = [_raw_scores(scorer, one, np.ones(len(one), bool)) for one in validation]
    labels = np.concatenate([one.labels for one in validation] or [np.zeros(0, np.int8)])

    def by(width: int) -> NDArray[np.float32]:
        its = [smoothed(of, one.stretch, width) for of, one in zip(raw, validation, strict=True)]
        return np.concatenate([*its, np.zeros(0, np.float32)])

    told = {width: figures(labels, by(width), np.inf).get("average_precision", 0.0) for width in _widths(scorer)}
    width = max(told, key=lambda one: told[one])  # of equals the first, which is the narrowest
    of, parameters = by(width), {**scorer.parameters, "smoothing": width}
    usable = np.isfinite(of) & (labels != UNKNOWN)
    if scorer.name == RULE:
        threshold, chosen = 0.5, "fixed: what the rule says is anomalous"
    elif (labels[usable] == 1).any():
        threshold = best_threshold(labels[usable] == 1, of[usable])
        chosen = f"best F1 of {usable.sum()} validation samples"
    else:
        fitted = Scorer(scorer.name, parameters, scorer.estimator, scorer.network)
        learnt = np.concatenate([scores(fitted, one) for one in training])
        threshold = float(np.quantile(learnt[np.isfinite(learnt)], FALLBACK)) if np.isfinite(learnt).any() else np.inf
        chosen = f"no validation sample is anomalous: quantile {FALLBACK} of the training samples' scores"
    return Fitted(
        scorer.name,
        {**parameters, "threshold_of": chosen},
        scorer.estimator,
        scorer.network,
        threshold,
        figures(labels, of, threshold) | {"threshold": threshold},
        history,
    )


def _widths(scorer: Scorer) -> tuple[int, ...]:
    """Of the windows that scores may be smoothed over: labels come in long runs at some sites, and not at others."""
    length = int(scorer.parameters["length"])
    return (1,) if scorer.name == RULE else (1, length // 4 // 2 * 2 + 1, length // 2 * 2 + 1, 2 * length + 1)


def _part(series: Sequence[SiteSeries], split: int) -> list[SiteSeries]:
    parts = (one.taken(one.split == split) for one in series)
    return [part for part in parts if len(part)]


def _widened(rows: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """The rows and `by` more before and after each of them."""
    sums = np.concatenate([[0], np.cumsum(rows)])
    at = np.arange(len(rows))
    return sums[np.minimum(at + by + 1, len(rows))] > sums[np.maximum(at - by, 0)]


def _raw_scores(model: Scorer, series: SiteSeries, rows: NDArray[np.bool_]) -> NDArray[np.float32]:
    """As `scores`, not smoothed; rows that are not wanted may have one, too."""
    return (_by_network if model.network is not None else _by_estimator)(model, series, rows)


def _by_estimator(model: Scorer, series: SiteSeries, rows: NDArray[np.bool_]) -> NDArray[np.float32]:
    found = np.full(len(series), np.nan, np.float32)
    for piece, of in _matrices(model.name, series, model.parameters, rows):
        told = np.isfinite(piece.values[piece.inner]).any(axis=1)
        if told.any():
            found[piece.rows][told] = model.estimator.decision_function(of[told])
    return found


def _matrices(
    name: str, series: SiteSeries, parameters: Mapping[str, Any], rows: NDArray[np.bool_] | None = None
) -> Iterator[tuple[features.Piece, NDArray[np.float32]]]:
    """What an estimator reads, a piece at a time."""
    length = int(parameters["length"])
    told: Callable[[features.Piece, int], NDArray[np.float32]] = features.window_statistics
    reach = features.statistics_reach(length, series.interval_s)
    if name in (RULE, "z_score"):
        told, reach = features.rule_features if name == RULE else features.robust_z, length
    for piece in features.pieces(series, parameters["channels"], parameters["scalers"], reach, rows):
        yield piece, told(piece, length)


def _by_network(model: Scorer, series: SiteSeries, rows: NDArray[np.bool_]) -> NDArray[np.float32]:
    from bigdata_assets.flow_sensors.logic import networks

    length, n_channels = int(model.parameters["length"]), len(model.parameters["channels"])
    sums, counts = np.zeros(len(series)), np.zeros(len(series), np.int32)
    starts = covering(series, length, int(model.parameters["step"]))
    wanted = np.concatenate([[0], np.cumsum(rows)])
    starts = starts[wanted[starts + length] > wanted[starts]]
    for first in range(0, len(starts), AT_ONCE):
        some = starts[first : first + AT_ONCE]
        of = networks.predict(model.name, model.network, _inputs(series, some, model.parameters), n_channels)
        places = some[:, None] + np.arange(length)
        np.add.at(sums, places, of)
        np.add.at(counts, places, 1)
    there = np.isfinite(series.values).any(axis=1) & (counts > 0)
    return np.where(there, sums / np.maximum(counts, 1), np.nan).astype(np.float32)


def covering(series: SiteSeries, length: int, step: int) -> NDArray[np.int64]:
    """Where windows begin that together have all samples of stretches that are long enough."""
    # Beside those each `step` samples, the one that ends with its stretch.
    ends = np.flatnonzero(np.diff(series.stretch, append=-1)) + 1
    begins = np.concatenate([[0], ends[:-1]])
    return np.union1d(series.starts(length, step), (ends - length)[ends - begins >= length])


def _inputs(series: SiteSeries, starts: NDArray[np.int64], parameters: Mapping[str, Any]) -> NDArray[np.float32]:
    apply = features.scaling(series, parameters["channels"], parameters["scalers"])
    length = int(parameters["length"])
    scaled, _ = apply(windows(series.values, starts, length))
    return features.network_inputs(scaled, series.times[starts[:, None] + np.arange(length)])


def _windows(series: Sequence[SiteSeries], parameters: Mapping[str, Any], most: int, name: str, seed: int) -> "Windows":
    """Windows to fit or to stop on, `most` of them at most, of all sites alike."""
    from bigdata_assets.flow_sensors.logic import networks

    length = int(parameters["length"])
    places = []
    for number, one in enumerate(series):
        starts = covering(one, length, int(parameters["step"]))
        if name == networks.AUTOENCODER:
            anomalous = np.concatenate([[0], np.cumsum(one.labels == 1)])
            starts = starts[anomalous[starts + length] == anomalous[starts]]
        places += [(number, start) for start in starts]
    chosen = np.array(places, np.int64).reshape(-1, 2)
    if len(chosen) > most:
        chosen = chosen[np.sort(np.random.default_rng(seed).choice(len(chosen), most, replace=False))]
    n_inputs = 3 * len(parameters["channels"]) + len(features.CYCLES)
    inputs, labels = np.zeros((len(chosen), length, n_inputs), np.float32), np.zeros((len(chosen), length), np.int8)
    for number, one in enumerate(series):
        its = chosen[:, 0] == number
        starts = chosen[its, 1]
        if len(starts):
            inputs[its] = _inputs(one, starts, parameters)
            labels[its] = one.labels[starts[:, None] + np.arange(length)]
    return networks.Windows(inputs, labels)


def _estimator(
    name: str, training: Sequence[SiteSeries], parameters: Mapping[str, Any], effort: Effort, seed: int
) -> Any:
    """A fitted estimator."""
    estimator: Any = {
        RULE: estimators.Rule,
        "z_score": estimators.Largest,
        "isolation_forest": lambda: estimators.random_cuts(effort.trees, seed, effort.threads),
        "kmeans": lambda: estimators.centre_distance(max(effort.components // 10, 1), seed),
        "svm": lambda: estimators.support_vectors(effort.components, seed),
        "lightgbm": lambda: estimators.BoostedTrees(effort.trees, effort.seeds, seed=seed, threads=effort.threads),
    }[name]()
    many = name in (RULE, "isolation_forest", "lightgbm")
    rows, labels, seasons = _rows(name, training, parameters, effort.rows if many else effort.few_rows, seed)
    if name != "lightgbm":
        return estimator.fit(rows, labels)
    # Each season weighs the same: the longest are not those with most to tell. Mean AP over five later parts .53 in
    # place of .50, of which single ones go from .2 to .8: no more than a hint.
    _, of, counts = np.unique(seasons, return_inverse=True, return_counts=True)
    return estimator.fit(rows, labels, len(of) / (len(counts) * counts[of]))


def _rows(
    name: str, training: Sequence[SiteSeries], parameters: Mapping[str, Any], most: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int8], NDArray[np.int64]]:
    """Features, labels and seasons, numbered over all sites, of `most` training rows at most.

    Where labels are learnt, of known ones, and of the anomalous ones as many as make up half of the rows: they are few.
    """
    labels = np.concatenate([one.labels for one in training])
    sites = np.repeat(np.arange(len(training)), [len(one) for one in training])
    seasons = np.unique([sites, np.concatenate([one.season for one in training])], axis=1, return_inverse=True)[1]
    there = np.concatenate([np.isfinite(one.values).any(axis=1) for one in training])
    rng = np.random.default_rng(seed)

    def some(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
        return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))

    if name in SUPERVISED:
        positives = some(np.flatnonzero(there & (labels == 1)), most // 2)
        chosen = np.union1d(positives, some(np.flatnonzero(there & (labels == 0)), most - len(positives)))
    else:
        chosen = some(np.flatnonzero(there), most)
    wanted = np.zeros(len(labels), bool)
    wanted[chosen] = True
    parts, first = [], 0
    for one in training:
        its = wanted[first : first + len(one)]
        first += len(one)
        parts += [of[its[piece.rows]] for piece, of in _matrices(name, one, parameters, its)]
    return np.concatenate(parts), labels[wanted], seasons[wanted]
