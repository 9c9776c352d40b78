"""Detectors that read a matrix of features: what fits them, and what they keep.

All have scikit-learn's fit and `decision_function`, higher where more anomalous, unlike scikit-learn's own detectors.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.cluster import MiniBatchKMeans
from sklearn.ensemble import IsolationForest
from sklearn.kernel_approximation import Nystroem
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from bigdata_assets.flow_sensors.logic.features import scaler

TRUSTED_TYPES = (
    *(
        f"bigdata_assets.flow_sensors.logic.estimators.{name}"
        for name in ("BoostedTrees", "CentreDistance", "Clipped", "Largest", "RandomCuts", "Rule")
    ),
    # Its node indices are used unchecked, so that skops leaves it out of its safe types: only a file whose SHA-256 is
    # that of the one stored gets so far.
    "sklearn.tree._tree.Tree",
)
"""What a stored detector may build besides scikit-learn's own types."""

GAMMA = 1e-3
"""Of the RBF kernel: rows of 150 figures that are scaled by their quartiles are some 20 apart."""

LEAST_SHARE = 0.03
"""Of the training rows, that a centre of k-means must have to be one of what is usual."""


class Rule(BaseEstimator):
    """Values of 0 or less, in channels where they are rare, and flat lines: a score of 0 or 1.

    Args:
        rare: share of the training values below which values of 0 or less are counted as anomalous.
    """

    def __init__(self, rare: float = 0.05) -> None:
        self.rare = rare

    def fit(self, X: NDArray[np.float32], y: Any = None) -> Self:  # noqa: ARG002, N803
        """Fit on rows of `rule_features`, of which the first half says where a value is not positive."""
        self.counted_ = X.mean(axis=0) < self.rare
        self.counted_[X.shape[1] // 2 :] = True
        return self

    def decision_function(self, X: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: N803
        return X[:, self.counted_].max(axis=1, initial=0)


class Largest(BaseEstimator):
    """The largest of a row's figures; NaN of none."""

    def fit(self, X: NDArray[np.float32], y: Any = None) -> Self:  # noqa: ARG002, N803
        self.n_features_in_ = X.shape[1]
        return self

    def decision_function(self, X: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: N803
        return np.fmax.reduce(X, axis=1)


class Clipped(BaseEstimator):
    """Figures scaled by median and quartiles, 0 of none, cut where they are far out: no distance is one figure's alone.

    Args:
        most: that a scaled figure can be.
    """

    def __init__(self, most: float = 10.0) -> None:
        self.most = most

    def fit(self, X: NDArray[np.float32], y: Any = None) -> Self:  # noqa: ARG002, N803
        self.centre_, self.spread_ = np.array(scaler(X), np.float32).T
        return self

    def transform(self, X: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: N803
        return np.nan_to_num(np.clip((X - self.centre_) / self.spread_, -self.most, self.most))


class RandomCuts(IsolationForest):
    """An isolation forest whose scores are higher where fewer cuts isolate a row."""

    def decision_function(self, X: NDArray[np.float32]) -> NDArray[np.float64]:  # noqa: N803
        return -self.score_samples(X)


class CentreDistance(MiniBatchKMeans):
    """Distance to the nearest of the centres of many training rows.

    Anomalous rows have centres of their own, of few rows (He, Xu & Deng 2003, doi:10.1016/S0167-8655(03)00003-5).
    """

    def fit(self, X: NDArray[np.float32], y: Any = None, sample_weight: Any = None) -> Self:  # noqa: N803
        super().fit(X, y, sample_weight)
        share = np.bincount(self.labels_, minlength=self.n_clusters) / len(X)
        self.large_ = share >= min(LEAST_SHARE, share.max())
        return self

    def decision_function(self, X: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: N803
        return self.transform(X)[:, self.large_].min(axis=1)


class BoostedTrees(BaseEstimator):
    """LightGBM's gradient boosting, averaged over seeds, whose fitted state is LightGBM's own text format.

    skops would have to trust LightGBM's internal classes; a text that LightGBM parses builds nothing else.

    Args:
        trees: of each of the seeds.
        seeds: how many.
        learning_rate: of each tree.
        leaves: of a tree.
        least_rows: of a leaf, a fiftieth of the rows at most. Labels come in runs: 100 rows may be a single event.
        features: share of the features that a tree sees.
        rows: share of the rows that it sees.
        l2: weight of the leaves' squares.
        seed: the first of the seeds.
        threads: while fitting and scoring.
    """

    def __init__(
        self,
        trees: int = 200,
        seeds: int = 1,
        learning_rate: float = 0.05,
        leaves: int = 15,
        least_rows: int = 1_000,
        features: float = 0.2,
        rows: float = 0.5,
        l2: float = 10.0,
        seed: int = 0,
        threads: int = 2,
    ) -> None:
        self.trees = trees
        self.seeds = seeds
        self.learning_rate = learning_rate
        self.leaves = leaves
        self.least_rows = least_rows
        self.features = features
        self.rows = rows
        self.l2 = l2
        self.seed = seed
        self.threads = threads

    def fit(self, X: NDArray[np.float32], y: NDArray[Any], sample_weight: NDArray[Any] | None = None) -> Self:  # noqa: N803
        """Fit on (n, features), NaN where one is not told, n labels, and n weights if they do not weigh the same."""
        import lightgbm

        parameters = {
            "objective": "binary",
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "min_data_in_leaf": min(self.least_rows, max(1, len(X) // 50)),
            "feature_fraction": self.features,
            "bagging_fraction": self.rows,
            "bagging_freq": 1,
            "lambda_l2": self.l2,
            "max_bin": 127,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": self.threads,
            "verbosity": -1,
        }
        rows = lightgbm.Dataset(X, y, weight=sample_weight, params=parameters, free_raw_data=False).construct()
        self._boosters = [
            lightgbm.train(parameters | {"seed": self.seed + number}, rows, self.trees) for number in range(self.seeds)
        ]
        self.texts_ = [booster.model_to_string() for booster in self._boosters]
        return self

    def decision_function(self, X: NDArray[np.float32]) -> NDArray[np.float64]:  # noqa: N803
        """(n,) log odds."""
        import lightgbm

        if getattr(self, "_boosters", None) is None:
            self._boosters = [lightgbm.Booster(model_str=text) for text in self.texts_]
        found = [booster.predict(X, raw_score=True, num_threads=self.threads) for booster in self._boosters]
        return np.mean(found, axis=0)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_boosters"}


def support_vectors(components: int, seed: int) -> Any:
    """A support vector machine with an RBF kernel, by Nystroem's map of `components` rows (Williams & Seeger 2001)."""
    machine = LinearSVC(C=0.1, class_weight="balanced", dual=False, random_state=seed)
    return make_pipeline(Clipped(), Nystroem(gamma=GAMMA, n_components=components, random_state=seed), machine)


def random_cuts(trees: int, seed: int, threads: int) -> Any:
    """An isolation forest (Liu, Ting & Zhou 2008) of 256 rows a tree."""
    return make_pipeline(Clipped(), RandomCuts(n_estimators=trees, max_samples=256, n_jobs=threads, random_state=seed))


def centre_distance(centres: int, seed: int) -> Any:
    """Distances to the nearest of so many centres."""
    return make_pipeline(Clipped(), CentreDistance(centres, n_init=3, random_state=seed))
