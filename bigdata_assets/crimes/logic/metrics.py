"""How good the probabilities of arrests are, by batch and over many."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

THRESHOLD = 0.5
BINS = 10
EPSILON = 1e-15


def by_batch(scores: pd.DataFrame, reports: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Rows of batch_metrics: each model's figures on each batch's new reports.

    Args:
        scores: rows of arrest_scores.
        reports: rows of crime_reports of the same batches.
        columns: those of the result, in their order.
    """
    place = ["batch", "kafka_partition", "kafka_offset"]
    rows = scores.merge(reports[[*place, "arrest", "broker_timestamp"]], on=place, validate="many_to_one")
    found = []
    for (batch, model), its_rows in rows.groupby(["batch", "model"], sort=True):
        new = its_rows[its_rows["is_new"]]
        figures = batch_metrics(new["arrest"].to_numpy(bool), new["probability"].to_numpy(float))
        found.append(
            {
                "batch": batch,
                "model": model,
                "first_broker_timestamp": its_rows["broker_timestamp"].min(),
                "left_out": len(its_rows) - len(new),
                "snapshot": its_rows["snapshot"].iloc[0],
                **figures,
            }
        )
    return pd.DataFrame(found, columns=list(columns))


def batch_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Figures of one model on one batch's new reports; None where one is not defined.

    Args:
        labels: whether there was an arrest, (n,).
        probabilities: of an arrest, (n,).
    """
    from sklearn.metrics import roc_auc_score

    n, positives = len(labels), int(labels.sum())
    decided = probabilities > THRESHOLD
    hits, correct = int((decided & labels).sum()), int((decided == labels).sum())
    both = 0 < positives < n
    recall = hits / positives if positives else None
    specificity = int((~decided & ~labels).sum()) / (n - positives) if positives < n else None
    clipped = np.clip(probabilities, EPSILON, 1 - EPSILON)
    return {
        "scored_reports": n,
        "arrests": positives,
        "correct": correct,
        "accuracy": correct / n if n else None,
        "balanced_accuracy": (recall + specificity) / 2
        if both and recall is not None and specificity is not None
        else None,
        "roc_auc": float(roc_auc_score(labels, probabilities)) if both else None,
        "log_loss": float(-np.where(labels, np.log(clipped), np.log1p(-clipped)).mean()) if n else None,
        "precision": hits / int(decided.sum()) if decided.any() else None,
        "recall": recall,
        "bias": float(probabilities.mean() - labels.mean()) if n else None,
        "calibration_error": calibration_error(labels, probabilities) if n else None,
    }


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error over ten bins of equal width (Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602)."""
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    gaps = np.bincount(bins, probabilities - labels, minlength=BINS)
    return float(np.abs(gaps).sum() / counts.sum())


def cumulative(metrics: pd.DataFrame, window: int) -> pd.DataFrame:
    """Rolling and cumulative accuracy, log loss and bias of each model over its batches, in their order.

    Weighted by reports, so that they are those of the reports together.

    Args:
        metrics: rows of batch_metrics, ordered.
        window: batches that the rolling figures are over.
    """
    frames = []
    for model, rows in metrics[metrics["scored_reports"] > 0].groupby("model", sort=True):
        sums = pd.DataFrame(
            {
                "accuracy": rows["correct"].astype(float),
                "log_loss": rows["log_loss"] * rows["scored_reports"],
                "bias": rows["bias"] * rows["scored_reports"],
            }
        )
        n = rows["scored_reports"].astype(float)
        parts = {
            **{f"rolling_{name}": sums[name].rolling(window, 1).sum() / n.rolling(window, 1).sum() for name in sums},
            **{f"cumulative_{name}": sums[name].cumsum() / n.cumsum() for name in sums},
        }
        frames.append(pd.DataFrame({"batch": rows["batch"], "model": model, **parts}))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["batch", "model"])


def half_width(values: pd.Series, weights: pd.Series) -> float:
    """Half of the 95 % t-interval of a weighted mean of batches, each a cluster of reports; NaN of fewer than two.

    Batches that follow each other are alike: with a trend in them it is rather too narrow.
    """
    from scipy.stats import t

    there = values.notna() & (weights > 0)
    x, w, n = values[there].to_numpy(float), weights[there].to_numpy(float), int(there.sum())
    if n < 2:
        return float("nan")
    w = w / w.sum()
    return float(t.ppf(0.975, n - 1) * np.sqrt(n / (n - 1) * np.sum((w * (x - np.sum(w * x))) ** 2)))
