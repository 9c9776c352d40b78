"""How often noise alone would look like an event in two detectors: one's triggers are shifted against the other's.

Shifted by more than light needs from one to the other, no coincidence can come from the sky. The event's own triggers
stay in, so that the figure is an upper bound. Source: Usman et al. 2016, doi 10.1088/0264-9381/33/21/215004.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLUSTER_S = 0.1
"""Of each such window only the loudest moment is a trigger."""
MIN_STATISTIC = 3.0
STEP_S = 0.1
TIMING_ERROR_S = 0.005
LIGHT_S = {("H1", "L1"): 0.0100, ("H1", "V1"): 0.0273, ("L1", "V1"): 0.0264}
"""Light's way between two detectors, by their names in order."""


@dataclass(frozen=True)
class Triggers:
    """Loud moments of a detector.

    Attributes:
        gps_s: their times, ascending.
        statistic: how loud, such as re-weighted signal-to-noise ratios.
    """

    gps_s: NDArray[np.float64]
    statistic: NDArray[np.float64]

    def between(self, begin_gps_s: float, end_gps_s: float) -> "Triggers":
        """Those of a time."""
        kept = (self.gps_s >= begin_gps_s) & (self.gps_s < end_gps_s)
        return Triggers(self.gps_s[kept], self.statistic[kept])


@dataclass(frozen=True)
class Slides:
    """What shifted data say of the unshifted.

    Attributes:
        loudest: highest root of the sum of squares of two coincident triggers, unshifted; 0 where there are none.
        at_gps_s: its time in the first detector.
        observed_s: time that both have.
        slides: the loudest coincidence of each shift; 0 where it has none.
    """

    loudest: float
    at_gps_s: float
    observed_s: float
    slides: NDArray[np.float64]

    @property
    def louder(self) -> int:
        """How many shifts have something at least as loud."""
        return int(np.sum(self.slides >= self.loudest))

    @property
    def false_alarms_per_s(self) -> float:
        """An upper bound of the rate of coincidences as loud: (1 + louder) / time of all shifts."""
        background_s = self.observed_s * self.slides.size
        return (1 + self.louder) / background_s if background_s else float("inf")


def triggers(gps_s: NDArray[np.float64], statistic: NDArray[np.float64]) -> Triggers:
    """The loudest moment of each window, where it is above MIN_STATISTIC."""
    if not len(gps_s):
        return Triggers(gps_s, statistic)
    window = np.floor((gps_s - gps_s[0]) / CLUSTER_S).astype(int)
    starts = np.flatnonzero(np.diff(window, prepend=-1))
    chosen = [start + int(np.argmax(part)) for start, part in zip(starts, np.split(statistic, starts[1:]), strict=True)]
    kept = np.array([place for place in chosen if statistic[place] >= MIN_STATISTIC], int)
    return Triggers(gps_s[kept], statistic[kept])


def window_s(detectors: tuple[str, str]) -> float:
    """How far apart the same wave's triggers may be."""
    first, second = sorted(detectors)
    return LIGHT_S[first, second] + TIMING_ERROR_S


def slide(first: Triggers, second: Triggers, begin_gps_s: float, end_gps_s: float, within_s: float) -> Slides:
    """Shift the second's triggers around within the time that both have, by every multiple of STEP_S."""
    first, second = (each.between(begin_gps_s, end_gps_s) for each in (first, second))
    observed_s = max(end_gps_s - begin_gps_s, 0.0)
    loudest, at_gps_s = _loudest(first, second.gps_s, second.statistic, within_s)
    # A shift by less than this could still see the same wave.
    shifts = np.arange(STEP_S, observed_s - STEP_S / 2, STEP_S)
    found = []
    for shift_s in shifts[shifts > 2 * within_s]:
        moved = begin_gps_s + (second.gps_s - begin_gps_s + shift_s) % observed_s
        order = np.argsort(moved)
        found.append(_loudest(first, moved[order], second.statistic[order], within_s)[0])
    return Slides(loudest, at_gps_s, observed_s, np.array(found))


def _loudest(
    first: Triggers, gps_s: NDArray[np.float64], statistic: NDArray[np.float64], within_s: float
) -> tuple[float, float]:
    best, at_gps_s = 0.0, float("nan")
    begins = np.searchsorted(gps_s, first.gps_s - within_s)
    ends = np.searchsorted(gps_s, first.gps_s + within_s, side="right")
    for place in np.flatnonzero(ends > begins):
        together = float(np.hypot(first.statistic[place], statistic[begins[place] : ends[place]].max()))
        if together > best:
            best, at_gps_s = together, float(first.gps_s[place])
    return best, at_gps_s
