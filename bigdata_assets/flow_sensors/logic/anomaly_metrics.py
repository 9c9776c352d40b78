"""How well scores and flags of samples tell the anomalous ones: by sample, by event, and how sure that is.

Samples of unknown label are left out. A sample without a score counts as the least anomalous, and without a flag as not
flagged: models that cannot judge a stretch's first samples are compared on the same samples as those that can.
No metric is point-adjusted: with that, flags at random would score higher than most models (Kim et al. 2022,
doi:10.1609/aaai.v36i7.20680).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bigdata_assets.flow_sensors.logic.series import UNKNOWN

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Labels = NDArray[np.int8]
Flags = NDArray[np.bool_]
Scores = NDArray[np.floating]
Ints = NDArray[np.int64]
NAN = float("nan")
DAY_S = 86_400
BLOCK_S = 7 * DAY_S
REPEATS = 200
LEVELS = 1_000
"""Of scores in a bootstrap: AP is as with thresholds at these quantiles of the anomalous samples' scores."""
CONFIDENCE = 0.95


def by_sample(labels: Labels, scores: Scores, flags: Flags) -> dict[str, float]:
    """AP (average precision of the scores), precision, recall and F1 of the flags, samples, and anomalous ones.

    Figures that are not defined are NaN: all but precision where no sample is anomalous, precision where none is
    flagged; F1 then is 0.

    Args:
        labels: (n,) 1, 0 or UNKNOWN.
        scores: (n,) higher is more anomalous; NaN where there is none.
        flags: (n,).
    """
    from sklearn.metrics import average_precision_score

    known = labels != UNKNOWN
    truth, flagged = labels[known] == 1, flags[known]
    hits, positives = int((truth & flagged).sum()), int(truth.sum())
    precision, recall = _share(hits, int(flagged.sum())), _share(hits, positives)
    return {
        "AP": float(average_precision_score(truth, _ordered(scores[known]))) if positives else NAN,
        "F1": _share(2 * hits, int(flagged.sum()) + positives) if positives else NAN,
        "precision": precision,
        "recall": recall,
        "samples": len(truth),
        "anomalous": positives,
    }


@dataclass(frozen=True)
class Runs:
    """Runs of true samples within stretches: (runs,) first row and the row after the last."""

    first: Ints
    end: Ints

    def __len__(self) -> int:
        return len(self.first)


def runs(of: NDArray[np.bool_], stretch: NDArray[np.integer]) -> Runs:
    """The runs of true samples; a new stretch begins a new run."""
    changed = np.diff(stretch) != 0 if len(stretch) else np.zeros(0, bool)
    starts = of & ~np.concatenate([[False], of[:-1] & ~changed])[: len(of)]
    ends = of & ~np.concatenate([of[1:] & ~changed, [False]])[: len(of)]
    return Runs(np.flatnonzero(starts), np.flatnonzero(ends) + 1)


def by_event(
    labels: Labels,
    flags: Flags,
    stretch: NDArray[np.integer],
    times: NDArray[np.datetime64],
    interval_s: NDArray[np.integer],
) -> dict[str, float]:
    """Figures of events (runs of anomalous samples within a stretch) and alarms (runs of flagged ones).

    Range-based precision and recall of Tatbul et al. 2018 (arXiv:1803.03639), with existence alone rewarded for recall
    and overlap alone, anywhere alike, for precision: recall is the share of events with a flag in them; precision is
    the mean over alarms of the share of their known samples that are anomalous, so that an alarm that never ends earns
    no more than the share of anomalous samples. The delay is from an event's first sample to the first flag in it,
    the median over the events that have one. A false alarm has no anomalous sample and one at least that is known not
    to be; the rate is by days of known samples.

    Args:
        labels: (n,) 1, 0 or UNKNOWN.
        flags: (n,).
        stretch: (n,) number of the stretch without a gap.
        times: (n,).
        interval_s: (n,) time between the samples of each one's site.
    """
    known = labels != UNKNOWN
    events, alarms = runs(labels == 1, stretch), runs(flags, stretch)
    flagged = np.flatnonzero(flags)
    next_flag = np.append(flagged, len(flags))[np.searchsorted(flagged, events.first)]
    found = next_flag < events.end
    first, at = events.first[found], next_flag[found]
    delay_s = (times[at] - times[first]) / np.timedelta64(1, "s")
    hits, judged = (_sums(which, alarms) for which in (labels == 1, known))
    precision = float(np.mean(hits[judged > 0] / judged[judged > 0])) if judged.any() else NAN
    recall = _share(int(found.sum()), len(events))
    false_alarms = int(((judged > 0) & (hits == 0)).sum())
    days = float(interval_s[known].sum() / DAY_S)
    return {
        "event F1": _harmonic(precision, recall),
        "event precision": precision,
        "event recall": recall,
        "events": len(events),
        "delay, samples": float(np.median(at - first)) if found.any() else NAN,
        "delay, s": float(np.median(delay_s)) if found.any() else NAN,
        "false alarms a day": false_alarms / days if days else NAN,
    }


def blocks(labels: Labels, stretch: NDArray[np.integer], times: NDArray[np.datetime64]) -> Ints:
    """(n,) weeks since 1970 for a bootstrap; an event is all of the week that it begins in, and drawn whole."""
    week = times.astype("datetime64[s]").astype(np.int64) // BLOCK_S
    events = runs(labels == 1, stretch)
    inside = labels == 1
    week[inside] = np.repeat(week[events.first], events.end - events.first)
    return week


def intervals(
    labels: Labels, scores: Scores, flags: Flags, block: Ints, repeats: int = REPEATS, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals of AP and F1 at CONFIDENCE: whole blocks are drawn, with replacement.

    Samples next to each other are alike: drawn one by one, they would make the interval too narrow (Künsch 1989,
    doi:10.1214/aos/1176347265). NaN where no sample is anomalous.

    Args:
        labels: (n,) 1, 0 or UNKNOWN.
        scores: (n,).
        flags: (n,).
        block: (n,) number of the block that a sample is in.
        repeats: how many sets of blocks are drawn.
        seed: of the draws.
    """
    known = labels != UNKNOWN
    truth, flagged = labels[known] == 1, flags[known]
    if not truth.any():
        return {"AP": (NAN, NAN), "F1": (NAN, NAN)}
    names, block = np.unique(block[known], return_inverse=True)
    score = _ordered(scores[known])
    levels = np.unique(np.quantile(score[truth], np.linspace(0, 1, LEVELS), method="lower"))
    level = np.searchsorted(levels, score, side="right") - 1
    reached, n = level >= 0, len(names)
    counts = [_counts(level[which], block[which], len(levels), n) for which in (truth & reached, reached)]
    sums = [np.bincount(block[which], minlength=n) for which in (truth & flagged, truth, flagged)]
    ap, f1 = [], []
    rng = np.random.default_rng(seed)
    for _ in range(repeats):
        weights = rng.multinomial(n, np.full(n, 1 / n))
        hits, positives, marked = (int(its @ weights) for its in sums)
        if positives:  # of a draw without an anomalous sample nothing is defined
            ap.append(_average_precision(*(np.cumsum((its @ weights)[::-1]) for its in counts)))
            f1.append(2 * hits / (positives + marked))
    return {"AP": _interval(ap), "F1": _interval(f1)}


def precision_recall(labels: Labels, scores: Scores, points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision at every threshold, at most `points` of them, evenly by recall."""
    known = labels != UNKNOWN
    truth, score = labels[known] == 1, _ordered(scores[known])
    if not truth.any():
        return np.zeros(0), np.zeros(0)
    order = np.argsort(-score, kind="stable")
    last = _last_of_ties(score[order])
    hits = np.cumsum(truth[order])[last]
    recall, precision = hits / hits[-1], hits / (last + 1)
    kept = np.unique(np.searchsorted(recall, np.linspace(0, 1, points)).clip(max=len(recall) - 1))
    return recall[kept], precision[kept]


def _counts(level: Ints, block: Ints, levels: int, n: int) -> "csr_matrix":
    """(levels, blocks) samples of each; few of the pairs occur."""
    from scipy.sparse import coo_matrix

    return coo_matrix((np.ones(len(level), np.int64), (level, block)), (levels, n)).tocsr()


def _average_precision(hits: Ints, taken: Ints) -> float:
    """Of what thresholds from the highest to the lowest reach: positives, and all."""
    gained = np.diff(hits, prepend=0)
    some = gained > 0
    return float((gained[some] * hits[some] / taken[some]).sum() / hits[-1])


def _last_of_ties(descending: NDArray[np.float64]) -> Ints:
    return np.append(np.flatnonzero(np.diff(descending)), len(descending) - 1)


def _ordered(scores: Scores) -> NDArray[np.float64]:
    """Scores of which none is NaN or infinite: what has none is below all others."""
    numbers = scores.astype(np.float64)
    known = numbers[np.isfinite(numbers)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    below, above = low - 1 - abs(low), high + 1 + abs(high)
    return np.nan_to_num(numbers, nan=below, neginf=below, posinf=above)


def _sums(of: NDArray[np.bool_], within: Runs) -> Ints:
    before = np.concatenate([[0], np.cumsum(of)])
    return before[within.end] - before[within.first]


def _interval(values: list[float]) -> tuple[float, float]:
    rest = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [rest, 1 - rest])
    return float(low), float(high)


def _share(part: float, of: float) -> float:
    return part / of if of else NAN


def _harmonic(precision: float, recall: float) -> float:
    if np.isnan(recall):
        return NAN
    if np.isnan(precision) or not precision + recall:
        return 0.0
    return 2 * precision * recall / (precision + recall)
