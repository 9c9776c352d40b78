"""Figures of a classifier's answers, its baselines', and pictures of both."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn import metrics

from bigdata_assets.malicious_urls.tables import BENIGN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FALSE_POSITIVE_RATES = (1e-2, 1e-3)
CALIBRATION_BINS = 10
DRAWS = 200
CONFIDENCE = 0.95

LESS_IS_BETTER = ("log loss", "Brier", "calibration error")


def measures(truth: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """Figures by name; for AUC, precision and the rates the positive class is "not benign".

    Those of classes are of the rows whose class is known.

    Args:
        truth: (n,) class names.
        probabilities: (n, classes), columns in the order of `classes`.
        classes: class names, sorted.
    """
    malicious, score = truth != BENIGN, malicious_probability(probabilities, classes)
    told = np.isin(truth, list(classes))
    known, safe = truth[told], np.clip(probabilities[told], 1e-12, 1)
    predicted = np.asarray(classes)[safe.argmax(axis=1)]
    return {
        "accuracy": float(metrics.accuracy_score(known, predicted)),
        "balanced accuracy": float(metrics.recall_score(known, predicted, average="macro", zero_division=0)),
        "macro F1": float(metrics.f1_score(known, predicted, average="macro", zero_division=0)),
        "log loss": float(metrics.log_loss(known, safe / safe.sum(axis=1, keepdims=True), labels=list(classes))),
        "ROC AUC": float(metrics.roc_auc_score(malicious, score)),
        "PR AUC": float(metrics.average_precision_score(malicious, score)),
        "Brier": float(np.mean((score - malicious) ** 2)),
        "calibration error": expected_calibration_error(malicious, score),
        **{f"TPR at FPR {rate:.2%}": tpr_at_fpr(malicious, score, rate) for rate in FALSE_POSITIVE_RATES},
    }


def malicious_probability(probabilities: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """(n,) of not being benign, of (n, classes)."""
    return np.asarray(1 - probabilities[:, list(classes).index(BENIGN)])


def auc_interval(positive: np.ndarray, score: np.ndarray, groups: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval of ROC AUC at CONFIDENCE: whole groups are drawn, since rows of one domain are alike.

    Args:
        positive: (n,) bool.
        score: (n,).
        groups: (n,) what is drawn together, such as registered domains.
        seed: of the draws.
    """
    group, place = (np.unique(values, return_inverse=True)[1] for values in (groups, score))
    n, rng, found = group.max() + 1, np.random.default_rng(seed), []
    for _ in range(DRAWS):
        weights = rng.multinomial(n, np.full(n, 1 / n))[group]
        hits, misses = (np.bincount(place, weights * which) for which in (positive, ~positive))
        if hits.any() and misses.any():
            below = np.cumsum(misses) - misses / 2
            found.append(float((hits * below).sum() / (hits.sum() * misses.sum())))
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def tpr_at_fpr(positive: np.ndarray, score: np.ndarray, rate: float) -> float:
    """Share of positives above the lowest threshold that at most `rate` of the negatives exceed.

    NaN where there are fewer than 1 / rate negatives: the sample then cannot tell so small a rate from none.
    """
    negatives = np.sort(score[~positive])
    if len(negatives) * rate < 1:
        return float("nan")
    allowed = int(len(negatives) * rate)
    return float(np.mean(score[positive] > negatives[len(negatives) - allowed - 1]))


def expected_calibration_error(positive: np.ndarray, score: np.ndarray) -> float:
    """Mean distance between predicted and observed share over ten bins of the score, weighted by their size.

    Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
    """
    bins = np.minimum((score * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    total = 0.0
    for number in range(CALIBRATION_BINS):
        inside = bins == number
        if inside.any():
            total += inside.mean() * abs(score[inside].mean() - positive[inside].mean())
    return float(total)


def majority_probabilities(train_labels: np.ndarray, n: int, classes: Sequence[str]) -> np.ndarray:
    """(n, classes): every row gets the class shares of the training rows; its answer is the majority."""
    shares = np.array([(train_labels == name).mean() for name in classes])
    return np.tile(shares, (n, 1))


def scheme_probabilities(
    train_urls: Sequence[str], train_labels: np.ndarray, test_urls: Sequence[str], classes: Sequence[str]
) -> np.ndarray:
    """(n, classes): the class shares of the training rows with the same scheme: `http`, `https` or none."""
    train_schemes, test_schemes = np.array(list(map(scheme, train_urls))), np.array(list(map(scheme, test_urls)))
    result = majority_probabilities(train_labels, len(test_urls), classes)
    for name in np.unique(train_schemes):
        shares = [(train_labels[train_schemes == name] == c).mean() for c in classes]
        result[test_schemes == name] = shares
    return result


def scheme(url: str) -> str:
    """The scheme that a URL is written with, in lower case; empty where it has none."""
    before, found, _ = url[:20].partition("://")
    return before.lower() if found else ""


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % t-interval; the half width is NaN for a single value."""
    if len(values) == 1:
        return float(np.mean(values)), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values)), float(half)


def per_class(truth: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """Precision, recall, F1 and rows of each class, of the rows whose class is known."""
    known = np.isin(truth, list(classes))
    truth, probabilities = truth[known], probabilities[known]
    predicted = np.asarray(classes)[probabilities.argmax(axis=1)]
    columns = metrics.precision_recall_fscore_support(truth, predicted, labels=list(classes), zero_division=0)
    return pd.DataFrame(dict(zip(("precision", "recall", "F1", "rows"), columns, strict=True))).assign(
        **{"class": list(classes)}
    )[["class", "precision", "recall", "F1", "rows"]]


def figures(
    truth: np.ndarray, answers: Mapping[str, np.ndarray], classes: Sequence[str], shown: str
) -> dict[str, "Figure"]:
    """ROC, precision-recall, calibration and confusion matrix, by caption.

    Args:
        truth: (n,) class names.
        answers: (n, classes) of each model and baseline, by name.
        classes: class names.
        shown: the model whose calibration and confusion matrix are drawn.
    """
    malicious = truth != BENIGN
    scores = {name: malicious_probability(answer, classes) for name, answer in answers.items()}
    known = np.isin(truth, list(classes))
    return {
        "ROC, malicious against benign, new domains": _roc(malicious, scores),
        "Precision and recall, malicious against benign, new domains": _precision_recall(malicious, scores),
        "Confusion matrix, new domains": _confusion(truth[known], answers[shown][known], classes),
        "Calibration of the probability of being malicious": _calibration(malicious, scores[shown]),
    }


def _figure() -> tuple["Figure", Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4), layout="constrained")
    return figure, figure.subplots()


def _roc(positive: np.ndarray, scores: Mapping[str, np.ndarray]) -> "Figure":
    figure, axes = _figure()
    for name, score in scores.items():
        fpr, tpr, _ = metrics.roc_curve(positive, score)
        axes.plot(fpr, tpr, label=f"{name} ({metrics.auc(fpr, tpr):.3f})")
    axes.set(xscale="symlog", xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01))
    axes.set_xscale("symlog", linthresh=1e-3)
    axes.legend(title="ROC AUC", fontsize="small")
    return figure


def _precision_recall(positive: np.ndarray, scores: Mapping[str, np.ndarray]) -> "Figure":
    figure, axes = _figure()
    for name, score in scores.items():
        precision, recall, _ = metrics.precision_recall_curve(positive, score)
        axes.plot(recall, precision, label=f"{name} ({metrics.average_precision_score(positive, score):.3f})")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(title="PR AUC", fontsize="small")
    return figure


def _confusion(truth: np.ndarray, answer: np.ndarray, classes: Sequence[str]) -> "Figure":
    figure, axes = _figure()
    predicted = np.asarray(classes)[answer.argmax(axis=1)]
    matrix = metrics.confusion_matrix(truth, predicted, labels=list(classes))
    display = metrics.ConfusionMatrixDisplay(matrix, display_labels=list(classes))
    display.plot(ax=axes, cmap="Blues", colorbar=False, values_format="d")
    return figure


def _calibration(positive: np.ndarray, score: np.ndarray) -> "Figure":
    figure, axes = _figure()
    bins = np.minimum((score * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    present = [number for number in range(CALIBRATION_BINS) if (bins == number).any()]
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--")
    axes.plot([score[bins == n].mean() for n in present], [positive[bins == n].mean() for n in present], marker="o")
    axes.set(xlabel="predicted probability", ylabel="observed share", xlim=(0, 1), ylim=(0, 1))
    return figure
