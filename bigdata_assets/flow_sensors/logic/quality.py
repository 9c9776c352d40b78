"""What looks wrong in a channel: gaps, samples off its grid, flat runs, spikes, corrections."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bigdata_assets.flow_sensors.logic.series import UNKNOWN, anomalous, current, usual_interval_s
from bigdata_assets.flow_sensors.tables import CHANNEL_QUALITY

HALF_WIDTH = 3
"""Of a Hampel filter's window: a value is judged by itself and three on each side."""
SIGMAS = 3
MAD_TO_SIGMA = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""
GAP, OFF_GRID = 1.5, 0.5
"""More intervals than this between two samples are a gap, fewer put a sample off the grid."""
LAST_DIGITS = 2.5
"""A coarse sensor flickers by one or two of its smallest steps: that is no spike."""
DISTINCT = 10
"""Values from which the smallest step between any two is taken to be the sensor's."""
ROWS = 100_000
"""Windows that are sorted at once."""


def channel_quality(
    samples: pd.DataFrame,
    repeated: Mapping[tuple[str, str], int],
    length: int,
    labelled_by: Mapping[str, str | None],
) -> pd.DataFrame:
    """Rows of tables.CHANNEL_QUALITY, one per site and channel.

    Args:
        samples: rows of channel_samples of a site, all versions, in any order: site, channel, observed_at, version,
            value, quality, edited.
        repeated: samples of local hours that were written twice, by site and channel.
        length: how many equal values make a flat run.
        labelled_by: what says of a site's samples that they are anomalous, as for series.anomalous.
    """
    rows = [
        {
            "site": site,
            "channel": channel,
            **_of_times(its["observed_at"].to_numpy("datetime64[us]")),
            **_of_values(its, length),
            "first_at": its["observed_at"].iloc[0],
            "last_at": its["observed_at"].iloc[-1],
            "corrected": int((its["version"] > 1).sum()),
            "repeated_hours": repeated.get((site, channel), 0),
            **_of_labels(anomalous(its, labelled_by.get(site))),
        }
        for site, channel, its in _channels(samples)
    ]
    return pd.DataFrame(rows, columns=list(CHANNEL_QUALITY.column_names))


def daily_values(samples: pd.DataFrame) -> pd.DataFrame:
    """How many values each day in UTC has: columns site, channel, day, values; one row per day with a sample.

    Args:
        samples: as for channel_quality.
    """
    newest = current(samples)
    day = newest["observed_at"].dt.floor("D").rename("day")
    counts = newest["value"].groupby([newest["site"], newest["channel"], day]).count()
    return counts.rename("values").reset_index()


def example(samples: pd.DataFrame, length: int, most: int) -> pd.DataFrame:
    """The `most` samples in a row, of one channel, with the most spikes, flat samples, missing ones and nulls.

    Args:
        samples: as for channel_quality, of one channel.
        length: how many equal values make a flat run.
        most: how many samples there are at most.

    Returns:
        Columns observed_at, value, spike, flat.
    """
    its = current(samples).sort_values("observed_at")
    times, values = its["observed_at"].to_numpy("datetime64[us]"), its["value"].to_numpy(float)
    interval_s = usual_interval_s(times)
    spike, flat = spikes(times, values, interval_s), flat_runs(times, values, interval_s)[1] >= length
    after_gap = np.concatenate([[False], _intervals(times, interval_s) > GAP])
    wrong = 1 * spike + flat + np.isnan(values) + after_gap
    before = np.concatenate([[0], np.cumsum(wrong)])
    first = int(np.argmax(before[most:] - before[:-most])) if len(its) > most else 0
    found = pd.DataFrame({"observed_at": its["observed_at"].array, "value": values, "spike": spike, "flat": flat})
    return found.iloc[first : first + most].reset_index(drop=True)


def flat_runs(
    times: NDArray[np.datetime64], values: NDArray[np.float64], interval_s: float | None
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Runs of equal values without a gap or a null between them.

    Returns:
        (n,) whether a run begins here, and (n,) how many samples the run has that a sample is in.
    """
    begins = np.ones(len(values), bool)
    begins[1:] = (values[1:] != values[:-1]) | (_intervals(times, interval_s) > GAP)
    run = np.cumsum(begins) - 1
    return begins, np.bincount(run)[run] if len(run) else run


def spikes(times: NDArray[np.datetime64], values: NDArray[np.float64], interval_s: float | None) -> NDArray[np.bool_]:
    """Which values are outliers of a Hampel filter, and of their two neighbours too.

    A value is one if it is more than SIGMAS robust standard deviations away from the median of its window (Hampel 1974,
    doi:10.1080/01621459.1974.10482962; Pearson 2002, doi:10.1109/87.974338) and from both neighbours, so that a step
    or a steep rise is none. The deviation is the larger of the window's, by its MAD, and the channel's usual one from
    sample to sample, since a window of equal values but one has none; and it is more than LAST_DIGITS of the sensor.
    A value without HALF_WIDTH samples on each side, before a gap or a null, is not judged.
    """
    n, width = len(values), 2 * HALF_WIDTH + 1
    found = np.zeros(n, bool)
    steps = np.abs(np.diff(values))
    if n < width or np.isnan(steps).all():
        return found
    usual = SIGMAS * MAD_TO_SIGMA * float(np.nanmedian(steps)) / np.sqrt(2)
    least = max(usual, LAST_DIGITS * _last_digit(values))
    gaps = np.concatenate([[0], np.cumsum(_intervals(times, interval_s) > GAP)])
    for first in range(0, n - width + 1, ROWS):
        part = values[first : first + ROWS + width - 1]
        views = np.lib.stride_tricks.sliding_window_view(part, width)
        middle = np.arange(len(views)) + first + HALF_WIDTH
        whole = gaps[middle + HALF_WIDTH] == gaps[middle - HALF_WIDTH]
        median = np.sort(views, axis=1)[:, HALF_WIDTH]
        mad = np.sort(np.abs(views - median[:, None]), axis=1)[:, HALF_WIDTH]
        limit = np.maximum(SIGMAS * MAD_TO_SIGMA * mad, least)
        value = views[:, HALF_WIDTH]
        # A NaN sorts to the end, and a comparison with one is false: but for the window's ends, which are looked at.
        known = whole & ~np.isnan(views).any(axis=1)
        far = [np.abs(value - other) > limit for other in (median, views[:, HALF_WIDTH - 1], views[:, HALF_WIDTH + 1])]
        found[middle] = known & far[0] & far[1] & far[2]
    return found


def _last_digit(values: NDArray[np.float64]) -> float:
    """The smallest step of a sensor; 0 where there are too few distinct values to tell it."""
    # As float32, so that 8.37 and 8.370000000000001 are one.
    distinct = np.unique(values[~np.isnan(values)].astype(np.float32))
    return float(np.diff(distinct).min()) if len(distinct) >= DISTINCT else 0.0


def _channels(samples: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    for (site, channel), its in current(samples).groupby(["site", "channel"], sort=True, observed=True):
        yield str(site), str(channel), its.sort_values("observed_at")


def _intervals(times: NDArray[np.datetime64], interval_s: float | None) -> NDArray[np.float64]:
    """(n - 1,) times between samples, in intervals."""
    return np.diff(times) / np.timedelta64(1, "s") / (interval_s or 1)


def _of_times(times: NDArray[np.datetime64]) -> dict[str, Any]:
    interval_s = usual_interval_s(times)
    apart = _intervals(times, interval_s)
    gaps = apart[apart > GAP]
    return {
        "samples": len(times),
        "interval_s": float("nan") if interval_s is None else float(interval_s),
        "gaps": len(gaps),
        "missing": int((np.rint(gaps) - 1).sum()),
        "longest_gap_s": float(gaps.max() * (interval_s or 1)) if len(gaps) else 0.0,
        "off_grid": int((apart < OFF_GRID).sum()),
    }


def _of_values(its: pd.DataFrame, length: int) -> dict[str, Any]:
    times, values = its["observed_at"].to_numpy("datetime64[us]"), its["value"].to_numpy(float)
    interval_s = usual_interval_s(times)
    begins, run = flat_runs(times, values, interval_s)
    flat, known = (run >= length) & ~np.isnan(values), values[~np.isnan(values)]
    return {
        "values": len(known),
        "flat_runs": int((flat & begins).sum()),
        "flat_samples": int(flat.sum()),
        "spikes": int(spikes(times, values, interval_s).sum()),
        "not_positive": int((known <= 0).sum()),
        **{
            name: float(of(known)) if len(known) else float("nan")
            for name, of in (("minimum", np.min), ("median", np.median), ("maximum", np.max))
        },
    }


def _of_labels(labels: NDArray[np.int8]) -> dict[str, int]:
    return {"labelled": int((labels != UNKNOWN).sum()), "anomalous": int((labels == 1).sum())}
