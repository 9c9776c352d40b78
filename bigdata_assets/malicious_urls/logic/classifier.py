"""The URL classifier's families: scikit-learn estimators from raw URLs to class probabilities."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline

from bigdata_assets.malicious_urls.logic.domains import registered_domains
from bigdata_assets.malicious_urls.logic.features import HandMadeFeatures, HashedNgrams, HashedWords
from bigdata_assets.malicious_urls.tables import BENIGN, UNKNOWN_KIND

FAMILIES = ("forest", "ngram_linear", "lightgbm", "ensemble")
SCORED_AT_ONCE = 8_192
ROWS_OF_ONE_THREAD = 20_000

TRUSTED_TYPES = (
    "bigdata_assets.malicious_urls.logic.classifier.BoostedTrees",
    "bigdata_assets.malicious_urls.logic.classifier.HashedLinear",
    "bigdata_assets.malicious_urls.logic.classifier.KnownKinds",
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
            # Of few rows threads spend their time waiting for each other; the trees are the same.
            "num_threads": self.n_jobs if len(X) > ROWS_OF_ONE_THREAD else 1,
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
        # One thread: Spark scores as many tasks at once as there are cores.
        return np.asarray(self._booster.predict(X, num_threads=1))

    def predict(self, X: np.ndarray) -> np.ndarray:  # noqa: N803
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    @property
    def feature_importances_(self) -> np.ndarray:
        """(features,) what the splits by each feature took from the loss."""
        import lightgbm

        return np.asarray(lightgbm.Booster(model_str=self.model_text_).feature_importance("gain"))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_booster"}


class HashedLinear(ClassifierMixin, BaseEstimator):
    """Logistic regression, one class against the rest, by averaged stochastic gradient descent.

    As good here as a quasi-Newton solver, in a thirtieth of the time. Of the fit only the averaged weights are kept,
    as float32: a third of the size of an SGDClassifier's file.

    Args:
        alpha: weight of the L2 penalty.
        epochs: passes over the rows.
        seed: of the order of the rows.
        n_jobs: threads, a class each.
    """

    def __init__(self, alpha: float = 3e-6, epochs: int = 10, seed: int = 0, n_jobs: int = 1) -> None:
        self.alpha = alpha
        self.epochs = epochs
        self.seed = seed
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any, classes: np.ndarray | None = None) -> "HashedLinear":  # noqa: N803
        """Fit on sparse rows; `classes` names those that there are, if `y` may lack some."""
        X, labels = sparse.csr_matrix(X), np.asarray(y)  # noqa: N806
        self.classes_ = np.unique(labels) if classes is None else classes
        # Few URLs have a tenth of a million columns: the weights of the others stay 0 and would only be copied.
        has_rows = np.zeros(X.shape[1], bool)
        has_rows[X.indices] = True
        has_rows[0] |= not X.nnz  # one column at least, also of what follows hosts in a list of hosts alone
        columns = np.flatnonzero(has_rows)
        places = (np.cumsum(has_rows) - 1).astype(X.indices.dtype)
        narrow = sparse.csr_matrix((X.data, places[X.indices], X.indptr), (X.shape[0], len(columns)))
        model = SGDClassifier(
            loss="log_loss",
            alpha=self.alpha,
            max_iter=self.epochs,
            tol=None,
            average=True,
            random_state=self.seed,
            n_jobs=self.n_jobs,
        ).fit(narrow, labels)
        weights, constants = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # scikit-learn keeps the second class's alone
            weights, constants = np.vstack([-weights, weights]), np.concatenate([-constants, constants])
        # A class that no row has stays far from all.
        self.weights_ = np.zeros((X.shape[1], len(self.classes_)), np.float32)
        self.constants_ = np.full(len(self.classes_), -10, np.float32)
        present = np.searchsorted(self.classes_, model.classes_)
        self.weights_[np.ix_(columns, present)] = weights.T
        self.constants_[present] = constants
        return self

    def decision_function(self, X: Any) -> np.ndarray:  # noqa: N803
        """(n, classes) float32: log odds of each class against the rest."""
        return np.asarray(X @ self.weights_ + self.constants_)

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """(n, classes) float64."""
        each = expit(self.decision_function(X).astype(np.float64)) + 1e-12
        return each / each.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        return np.asarray(self.classes_[self.decision_function(X).argmax(axis=1)])


class KnownKinds(ClassifierMixin, BaseEstimator):
    """A classifier that answers with known kinds, where its labels have some.

    That a URL is of an unknown kind is to say that it is not benign, and of each kind in the share that is probable.

    Args:
        classifier: fitted on all rows, those of unknown kind being a class of their own.
    """

    def __init__(self, classifier: Any) -> None:
        self.classifier = classifier

    def fit(self, X: Sequence[str], y: Any) -> "KnownKinds":  # noqa: N803
        """Fit on n URLs and n classes."""
        self.classifier.fit(X, y)
        classes = self.classifier.classes_
        kinds = [name for name in classes if name not in (BENIGN, UNKNOWN_KIND)]
        self.classes_ = classes[classes != UNKNOWN_KIND] if kinds else classes
        return self

    def predict_proba(self, X: Sequence[str]) -> np.ndarray:  # noqa: N803
        """(n, classes) float64."""
        answers = self.classifier.predict_proba(X)
        if len(self.classes_) == answers.shape[1]:
            return np.asarray(answers)
        unknown = self.classifier.classes_ == UNKNOWN_KIND
        known = answers[:, ~unknown]
        of_kinds = known * (self.classes_ != BENIGN)
        shares = of_kinds / np.maximum(of_kinds.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        # Of what adds up to 1 a float may be a little more.
        return np.minimum(known + answers[:, unknown] * shares, 1.0)

    def predict(self, X: Sequence[str]) -> np.ndarray:  # noqa: N803
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])


class StackedUrlClassifier(ClassifierMixin, BaseEstimator):
    """Linear models of n-grams and words, and boosted trees that read their answers beside the hand-made features.

    The linear models read the whole URL, its host, what follows it, and its words; apart, so that the trees learn how
    little a host says of domains that were never seen. What the trees are fitted on are answers to rows that the
    linear models were not fitted on, with whole registered domains held out, as at scoring time.
    Source: Wolpert, "Stacked generalization", Neural Networks 5 (1992).

    Args:
        strip_scheme: see `domains.normalise`.
        n_folds: folds of the rows that the trees are fitted on.
        n_bits: see `HashedNgrams`; words have a quarter of the columns.
        seed: of everything random.
        n_jobs: threads while fitting.
    """

    def __init__(
        self, strip_scheme: bool = True, n_folds: int = 5, n_bits: int = 20, seed: int = 0, n_jobs: int = 1
    ) -> None:
        self.strip_scheme = strip_scheme
        self.n_folds = n_folds
        self.n_bits = n_bits
        self.seed = seed
        self.n_jobs = n_jobs

    def fit(self, X: Sequence[str], y: Sequence[Any]) -> "StackedUrlClassifier":  # noqa: N803
        """Fit on n URLs and n labels.

        Raises:
            ValueError: they are from fewer than `n_folds` registered domains.
        """
        labels = np.asarray(y)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        names, domains = np.unique(registered_domains(X), return_inverse=True)
        if len(names) < self.n_folds:
            raise ValueError(
                f"the URLs are of {len(names)} registered domains: the ensemble is fitted on {self.n_folds} parts that "
                "have none in common. Add URLs of other domains, or set `folds` or `family` in the run's config."
            )
        folds = StratifiedGroupKFold(self.n_folds, shuffle=True, random_state=self.seed)
        splits = list(folds.split(codes, codes, domains))
        every = np.arange(len(self.classes_))
        self.ngrams_ = HashedNgrams(n_bits=self.n_bits, strip_scheme=self.strip_scheme)
        self.words_ = HashedWords(self.n_bits - 2, self.strip_scheme)
        self.hand_made_ = HandMadeFeatures(self.strip_scheme)
        self.linear_: list[HashedLinear] = []
        held_out = []
        for rows in self._sparse_rows(X):
            answers = np.zeros((len(labels), len(every)), np.float32)
            for fitted, held in splits:
                model = self._linear().fit(rows[fitted], codes[fitted], every)
                answers[held] = model.decision_function(rows[held])
            held_out.append(answers)
            self.linear_.append(self._linear().fit(rows, codes, every))
        # 300 trees a class at rate .05 are .001 better in accuracy and AUC, and take more time than all the features.
        self.trees_ = BoostedTrees(n_estimators=120, learning_rate=0.1, seed=self.seed, n_jobs=self.n_jobs)
        self.trees_.fit(np.hstack([self.hand_made_.transform(X), *held_out]), codes)
        return self

    def predict_proba(self, X: Sequence[str]) -> np.ndarray:  # noqa: N803
        """(n, classes) float64."""
        # In pieces, so that memory does not grow with n.
        pieces = [
            self.trees_.predict_proba(self.tree_rows(X[start : start + SCORED_AT_ONCE]))
            for start in range(0, len(X), SCORED_AT_ONCE)
        ]
        return np.concatenate(pieces) if pieces else np.zeros((0, len(self.classes_)))

    def predict(self, X: Sequence[str]) -> np.ndarray:  # noqa: N803
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def tree_rows(self, X: Sequence[str]) -> np.ndarray:  # noqa: N803
        """What the trees read, (n, features): the hand-made features, then the linear models' log odds."""
        pairs = zip(self.linear_, self._sparse_rows(X), strict=True)
        return np.hstack([self.hand_made_.transform(X), *(model.decision_function(rows) for model, rows in pairs)])

    def _linear(self) -> HashedLinear:
        return HashedLinear(seed=self.seed, n_jobs=self.n_jobs)

    def _sparse_rows(self, urls: Sequence[str]) -> Iterator[Any]:
        """What each of the linear models reads: n-grams of the whole, of the host, of the rest, and words."""
        whole = self.ngrams_.transform(urls)
        hosts, paths = self.ngrams_.regions(whole)
        yield whole
        del whole
        yield hosts
        del hosts
        yield paths
        del paths
        yield self.words_.transform(urls)


def build(family: str, *, strip_scheme: bool = True, n_folds: int = 5, seed: int = 0, n_jobs: int = 2) -> KnownKinds:
    """An unfitted classifier: fit(urls, labels), predict_proba(urls) -> (n, classes), classes sorted by name.

    Args:
        family: `forest` (random forest of hand-made features), `ngram_linear` (logistic regression on hashed byte
            n-grams), `lightgbm` (boosted trees of hand-made features) or `ensemble` (both, stacked).
        strip_scheme: see `domains.normalise`.
        n_folds: the ensemble's.
        seed: of everything random.
        n_jobs: threads while fitting.

    Raises:
        ValueError: there is no such family.
    """
    if family == "ensemble":
        return KnownKinds(StackedUrlClassifier(strip_scheme, n_folds, seed=seed, n_jobs=n_jobs))
    if family == "ngram_linear":
        linear = HashedLinear(seed=seed, n_jobs=n_jobs)
        return KnownKinds(make_pipeline(HashedNgrams(strip_scheme=strip_scheme), linear))
    if family == "lightgbm":
        return KnownKinds(make_pipeline(HandMadeFeatures(strip_scheme), BoostedTrees(seed=seed, n_jobs=n_jobs)))
    if family == "forest":
        forest = RandomForestClassifier(300, min_samples_leaf=2, random_state=seed, n_jobs=n_jobs)
        return KnownKinds(make_pipeline(HandMadeFeatures(strip_scheme), forest))
    raise ValueError(f"there is no family {family!r}; there are {', '.join(FAMILIES)}")
