"""The URL classifier's families: scikit-learn estimators from raw URLs to class probabilities."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline

from bigdata_assets.malicious_urls.logic.domains import registered_domains
from bigdata_assets.malicious_urls.logic.features import HandMadeFeatures, HashedNgrams, HashedWords

TRUSTED_TYPES = (
    "bigdata_assets.malicious_urls.logic.classifier.BoostedTrees",
    "bigdata_assets.malicious_urls.logic.classifier.StackedUrlClassifier",
    "bigdata_assets.malicious_urls.logic.features.HandMadeFeatures",
    "bigdata_assets.malicious_urls.logic.features.HashedNgrams",
    "bigdata_assets.malicious_urls.logic.features.HashedWords",
    # Its node indices are used unchecked, so that skops leaves it out of its safe types: only a file whose SHA-256 is
    # that of the one stored gets so far.
    "sklearn.tree._tree.Tree",
)
"""What a stored model may build besides scikit-learn's own types; see `StoredModel.load`."""


class BoostedTrees(ClassifierMixin, BaseEstimator):
    """LightGBM gradient boosting whose fitted state is LightGBM's own text format.

    skops would have to trust LightGBM's internal classes; a text that LightGBM parses builds nothing else.
    """

    def __init__(
        self,
        n_estimators: int = 300,
        learning_rate: float = 0.05,
        num_leaves: int = 8,
        min_child_samples: int = 50,
        colsample_bytree: float = 0.2,
        subsample: float = 0.7,
        reg_lambda: float = 5.0,
        seed: int = 0,
        n_jobs: int = 1,
    ) -> None:
        self.n_estimators = n_estimators
        self.learning_rate = learning_rate
        self.num_leaves = num_leaves
        self.min_child_samples = min_child_samples
        self.colsample_bytree = colsample_bytree
        self.subsample = subsample
        self.reg_lambda = reg_lambda
        self.seed = seed
        self.n_jobs = n_jobs

    def fit(self, X: np.ndarray, y: np.ndarray) -> "BoostedTrees":  # noqa: N803
        """Fit on (n, features) float32 and n labels."""
        import lightgbm

        self.classes_, codes = np.unique(y, return_inverse=True)
        parameters = {
            "objective": "multiclass",
            "num_class": len(self.classes_),
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "min_data_in_leaf": self.min_child_samples,
            "feature_fraction": self.colsample_bytree,
            "bagging_fraction": self.subsample,
            "bagging_freq": 1,
            "lambda_l2": self.reg_lambda,
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": self.n_jobs,
            "verbosity": -1,
        }
        booster = lightgbm.train(parameters, lightgbm.Dataset(X, codes), self.n_estimators)
        self.model_text_ = booster.model_to_string()
        self._booster = booster
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:  # noqa: N803
        """(n, classes) float64."""
        import lightgbm

        if getattr(self, "_booster", None) is None:
            self._booster = lightgbm.Booster(model_str=self.model_text_)
        return np.asarray(self._booster.predict(X, num_threads=self.n_jobs))

    def predict(self, X: np.ndarray) -> np.ndarray:  # noqa: N803
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_booster"}


class StackedUrlClassifier(ClassifierMixin, BaseEstimator):
    """Linear models of n-grams and words, and boosted trees that read their answers beside the hand-made features.

    The linear models read the whole URL, its host, its path, and its words; apart, so that the trees learn how little
    a host says of domains that were never seen. What the trees are fitted on are answers to rows that the linear models
    were not fitted on, with whole registered domains held out, as at scoring time.
    Source: Wolpert, "Stacked generalization", Neural Networks 5 (1992).
    """

    def __init__(self, strip_scheme: bool = True, n_folds: int = 5, seed: int = 0, n_jobs: int = 1) -> None:
        self.strip_scheme = strip_scheme
        self.n_folds = n_folds
        self.seed = seed
        self.n_jobs = n_jobs

    def fit(self, X: Sequence[str], y: Sequence[Any]) -> "StackedUrlClassifier":  # noqa: N803
        """Fit on n URLs and n labels; each class needs rows in at least `n_folds` registered domains."""
        labels = np.asarray(y)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        domains = np.unique(registered_domains(X), return_inverse=True)[1]
        folds = StratifiedGroupKFold(self.n_folds, shuffle=True, random_state=self.seed)
        splits = list(folds.split(codes, codes, domains))
        self.hashers_: list[Any] = [
            *(HashedNgrams(part, strip_scheme=self.strip_scheme) for part in ("url", "host", "path")),
            HashedWords(strip_scheme=self.strip_scheme),
        ]
        self.linear_, held_out = [], []
        for hasher in self.hashers_:
            rows = hasher.transform(X)
            answers = np.zeros((len(labels), len(self.classes_)))
            for fitted, held in splits:
                model = self._linear().fit(rows[fitted], codes[fitted])
                answers[np.ix_(held, model.classes_)] = model.predict_proba(rows[held])
            held_out.append(answers)
            self.linear_.append(self._linear().fit(rows, codes))
        self.hand_made_ = HandMadeFeatures(self.strip_scheme)
        self.trees_ = BoostedTrees(seed=self.seed, n_jobs=self.n_jobs)
        self.trees_.fit(self._joined(X, held_out), codes)
        return self

    def predict_proba(self, X: Sequence[str]) -> np.ndarray:  # noqa: N803
        """(n, classes) float64."""
        return self.trees_.predict_proba(self.tree_rows(X))

    def predict(self, X: Sequence[str]) -> np.ndarray:  # noqa: N803
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def _linear(self) -> SGDClassifier:
        return linear_model(self.seed, self.n_jobs)

    def tree_rows(self, X: Sequence[str]) -> np.ndarray:  # noqa: N803
        """What the trees read, (n, features): the hand-made features, then the linear models' log probabilities."""
        pairs = zip(self.linear_, self.hashers_, strict=True)
        return self._joined(X, [model.predict_proba(hasher.transform(X)) for model, hasher in pairs])

    def _joined(self, urls: Sequence[str], answers: list[np.ndarray]) -> np.ndarray:
        logarithms = [np.log(answer + 1e-6).astype(np.float32) for answer in answers]
        return np.hstack([self.hand_made_.transform(urls), *logarithms])


def linear_model(seed: int, n_jobs: int) -> SGDClassifier:
    """Logistic regression by averaged stochastic gradient descent: 2 s where a quasi-Newton solver took 60, as good."""
    return SGDClassifier(
        loss="log_loss", alpha=3e-6, max_iter=12, tol=None, average=True, random_state=seed, n_jobs=n_jobs
    )


def build(family: str, *, strip_scheme: bool = True, seed: int = 0, n_jobs: int = 2) -> Any:
    """An unfitted classifier: fit(urls, labels), predict_proba(urls) -> (n, classes), classes sorted by name.

    Args:
        family: `forest` (random forest of hand-made features), `ngram_linear` (logistic regression on hashed byte
            n-grams), `lightgbm` (boosted trees of hand-made features) or `ensemble` (both, stacked).
        strip_scheme: see `domains.normalise`.
        seed: of everything random.
        n_jobs: threads while fitting.

    Raises:
        ValueError: there is no such family.
    """
    if family == "ensemble":
        return StackedUrlClassifier(strip_scheme, seed=seed, n_jobs=n_jobs)
    if family == "ngram_linear":
        return make_pipeline(HashedNgrams(strip_scheme=strip_scheme), linear_model(seed, n_jobs))
    if family == "lightgbm":
        return make_pipeline(HandMadeFeatures(strip_scheme), BoostedTrees(seed=seed, n_jobs=n_jobs))
    if family == "forest":
        forest = RandomForestClassifier(300, min_samples_leaf=2, random_state=seed, n_jobs=n_jobs)
        return make_pipeline(HandMadeFeatures(strip_scheme), forest)
    raise ValueError(f"there is no family {family!r}")
