"""How well a detector's scores tell signals from the rest: thresholds, recall at a false-positive rate, folds."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

OVER_REPEATS = "5th to 95th percentile, over repeats"
"""What `interval` gives."""


def threshold(scores: ArrayLike, is_signal: ArrayLike, max_fpr: float) -> float:
    """The lowest score at which at most `max_fpr` of the others are called signals; a signal scores above it.

    With fewer than 1 / max_fpr others it is the highest of their scores.
    """
    others = np.sort(np.asarray(scores, float)[~np.asarray(is_signal, bool)])
    if not others.size:
        raise ValueError("no threshold can be chosen where there are signals alone")
    return float(others[others.size - 1 - int(max_fpr * others.size)])


def recall_at(scores: ArrayLike, is_signal: ArrayLike, max_fpr: float) -> float:
    """Share of the signals that score above the threshold for `max_fpr` on the same rows."""
    scores, is_signal = np.asarray(scores, float), np.asarray(is_signal, bool)
    return float(np.mean(scores[is_signal] > threshold(scores, is_signal, max_fpr)))


def roc_auc(scores: ArrayLike, is_signal: ArrayLike) -> float:
    """Area under the ROC curve; NaN where there is one kind only."""
    from sklearn.metrics import roc_auc_score

    is_signal = np.asarray(is_signal, bool)
    return float(roc_auc_score(is_signal, scores)) if 0 < is_signal.sum() < is_signal.size else float("nan")


def repeated_folds(is_signal: ArrayLike, n_folds: int, repeats: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """For each repeat the fold of every row, folds alike in signals as far as their number lets them."""
    from sklearn.model_selection import StratifiedKFold

    is_signal = np.asarray(is_signal, bool)
    for repeat in range(repeats):
        fold = np.empty(is_signal.size, np.int64)
        splitter = StratifiedKFold(n_folds, shuffle=True, random_state=seed + repeat)
        for number, (_, rows) in enumerate(splitter.split(is_signal, is_signal)):
            fold[rows] = number
        yield fold


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the 5th and 95th percentile over repeats, NaN where there is one."""
    low, high = np.percentile(values, (5, 95)) if len(values) > 1 else (np.nan, np.nan)
    return float(np.mean(values)), float(low), float(high)


def told(figures: Mapping[Any, Any], metric: str) -> str:
    """A metric's mean, with its percentiles where there are any."""
    mean, low, high = (figures[f"{metric}{end}"] for end in ("", "_p5", "_p95"))
    return f"{mean:.3f}" if np.isnan(low) else f"{mean:.3f} ({low:.3f} to {high:.3f})"


def told_repeats(repeats: int) -> str:
    """How often it was done."""
    return "once" if repeats == 1 else f"{repeats} times"
