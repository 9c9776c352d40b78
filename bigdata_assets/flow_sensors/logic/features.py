"""What models read of a series: robustly scaled values, statistics around each sample, inputs of networks.

All is told from within a stretch, and from at most `reach` samples before and after, so that a long series is worked on
in pieces: a piece's rows are the same whatever else is asked for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.indexers import BaseIndexer

from bigdata_assets.flow_sensors.logic.series import SiteSeries

DAY_S = 86_400
PIECE = 16_384
"""Rows worked on at once: 200 statistics of them are 13 MB."""
LONGEST = 1_344
"""Of a window, in samples: a week every 7.5 minutes. A longer one costs more than it tells."""
CLIP = 20.0
"""Scaled values are cut here: a code that stands for no value, such as -9999, is as far as far can be."""
FLOOR = 0.05
"""Least spread in robust z-scores, in the channel's own: of one that rests any step would else be huge."""
MAD = 1.4826
"""Of a normal distribution the standard deviation, in median absolute deviations."""
CYCLES = ("sine of day", "cosine of day")
"""Not the year's: of a time of the year that no training sample is of, nothing was learnt. Over five later parts of the
training and validation samples LightGBM had a mean AP of .39 with it and .49 without. Of networks it is not clear: of
three such parts of a sewer's an LSTM was better without it in one and worse in one, a BiLSTM the same; of two of rivers
a BiLSTM was worse without it in one (AP .30 in place of .45).
"""

Scalers = Mapping[str, Mapping[str, Sequence[float]]]
"""Median and spread of a site's channel."""


@dataclass(frozen=True)
class Piece:
    """Rows of a series with those around them that they are told from.

    Attributes:
        rows: those that are asked for, of the series.
        inner: the same, of this piece.
        values: (m, channels) float32, scaled.
        raw: (m, channels) float32, as measured.
        times: (m,) datetime64[ms].
        stretch: (m,).
        interval_s: of the series.
    """

    rows: slice
    inner: slice
    values: NDArray[np.float32]
    raw: NDArray[np.float32]
    times: NDArray[np.datetime64]
    stretch: NDArray[np.int32]
    interval_s: int


def scaler(values: NDArray[np.float32]) -> list[tuple[float, float]]:
    """Median and interquartile range of each of the channels of (n, channels) values, (0, 1) of one without any."""
    found = []
    for column in values.T:
        known = column[np.isfinite(column)].astype(float)
        if not known.size:
            found.append((0.0, 1.0))
            continue
        low, median, high = np.percentile(known, (25, 50, 75))
        # More than half of the values may be the same one.
        found.append((float(median), float(high - low or known.std() or abs(median) or 1.0)))
    return found


def scalers_of(series: Sequence[SiteSeries]) -> dict[str, dict[str, list[float]]]:
    """Each site's and channel's scaler."""
    return {
        one.site: {channel: list(its) for channel, its in zip(one.channels, scaler(one.values), strict=True)}
        for one in series
    }


def scaling(
    series: SiteSeries, channels: Sequence[str], scalers: Scalers
) -> Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """What makes rows of the series' values into (m, channels) scaled and unscaled ones; NaN for a channel it lacks.

    A site that no scaler is of is scaled by its own values: by no label of it, so that a site held out stays unseen.
    """
    its = scalers.get(series.site) or scalers_of([series])[series.site]
    places = [series.channels.index(channel) if channel in series.channels else -1 for channel in channels]
    # A channel that is new at a known site is left out: the model knows no scale of it.
    centre, spread = np.array([its.get(channel, (np.nan, 1.0)) for channel in channels], np.float32).reshape(-1, 2).T

    def apply(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        padded = np.concatenate([values, np.full((*values.shape[:-1], 1), np.nan, np.float32)], axis=-1)
        raw = padded[..., places]
        return np.clip((raw - centre) / spread, -CLIP, CLIP), raw

    return apply


def pieces(
    series: SiteSeries,
    channels: Sequence[str],
    scalers: Scalers,
    reach: int,
    rows: NDArray[np.bool_] | None = None,
) -> Iterator[Piece]:
    """The series, or what of it has wanted rows, PIECE rows at a time."""
    apply = scaling(series, channels, scalers)
    for first in range(0, len(series), PIECE):
        end = min(first + PIECE, len(series))
        if rows is not None and not rows[first:end].any():
            continue
        low, high = max(first - reach, 0), min(end + reach, len(series))
        around = slice(low, high)
        scaled, raw = apply(series.values[around])
        yield Piece(
            slice(first, end),
            slice(first - low, end - low),
            scaled,
            raw,
            series.times[around],
            series.stretch[around],
            series.interval_s,
        )


class Around(BaseIndexer):
    """Windows of a sample and so many before and after it, cut at the ends of its stretch."""

    def __init__(self, stretch: NDArray[np.int32], before: int, after: int) -> None:
        super().__init__()
        begin = np.flatnonzero(np.diff(stretch, prepend=stretch[0] - 1))
        number = np.cumsum(np.diff(stretch, prepend=stretch[0]) != 0)
        at = np.arange(len(stretch))
        self.low = np.maximum(at - before, begin[number]).astype(np.int64)
        self.high = np.minimum(at + after + 1, np.append(begin[1:], len(stretch))[number]).astype(np.int64)
        self.high = np.maximum(self.high, self.low)

    def get_window_bounds(
        self,
        num_values: int = 0,  # noqa: ARG002
        min_periods: int | None = None,  # noqa: ARG002
        center: bool | None = None,  # noqa: ARG002
        closed: str | None = None,  # noqa: ARG002
        step: int | None = None,  # noqa: ARG002
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As pandas asks for them."""
        return self.low, self.high


def shifted(values: NDArray[np.float32], stretch: NDArray[np.int32], by: int) -> NDArray[np.float32]:
    """Values of `by` samples later, or before where negative; NaN where the stretch does not go so far."""
    found = np.full_like(values, np.nan)
    to, of = (slice(0, -by), slice(by, None)) if by > 0 else (slice(-by, None), slice(0, by))
    same = stretch[to] == stretch[of]
    found[to][same] = values[of][same]
    return found


def run_lengths(values: NDArray[np.float32], stretch: NDArray[np.int32]) -> NDArray[np.float32]:
    """(n, channels) how many samples the run of equal values is long that a sample is in; 0 of no value."""
    found = np.zeros(values.shape, np.float32)
    apart = np.diff(stretch, prepend=stretch[0]) != 0
    for place, column in enumerate(values.T):
        number = np.cumsum(apart | (column != np.roll(column, 1)))
        found[:, place] = np.where(np.isnan(column), 0, np.bincount(number)[number])
    return found


def cycles(times: NDArray[np.datetime64]) -> NDArray[np.float32]:
    """(..., 2) sine and cosine of the time of the day, UTC."""
    angle = 2 * np.pi * (times.astype("datetime64[ms]").astype(np.int64) / 1_000 % DAY_S) / DAY_S
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).astype(np.float32)


def in_samples(seconds: float, interval_s: int) -> int:
    """Of a window: a time as odd number of samples, from 3 to LONGEST."""
    return min(max(round(seconds / interval_s), 3), LONGEST) // 2 * 2 + 1


def rule_reach(length: int) -> int:
    """Samples around one that the rule's features are told from."""
    return length


def rule_features(piece: Piece, length: int) -> NDArray[np.float32]:
    """(n, 2 channels): whether each value is 0 or less, then whether each is in a flat line of `length` samples."""
    flat = run_lengths(piece.raw, piece.stretch) >= length
    return np.concatenate([piece.raw <= 0, flat], axis=1).astype(np.float32)[piece.inner]


def robust_z(piece: Piece, length: int) -> NDArray[np.float32]:
    """(n, channels): distance from the median of `length` samples around, in their median absolute deviations."""
    around, half = pd.DataFrame(piece.values), length // 2
    windows = Around(piece.stretch, half, half)
    off = (around - around.rolling(windows, min_periods=3).median()).abs()
    spread = off.rolling(windows, min_periods=3).median() * MAD
    return (off / (spread + FLOOR)).to_numpy(np.float32)[piece.inner]


def statistics_reach(length: int, interval_s: int) -> int:
    """Samples around one that its statistics are told from."""
    return max(in_samples(7 * DAY_S, interval_s), length) // 2 + 2


def window_statistics(piece: Piece, length: int) -> NDArray[np.float32]:
    """(n, statistics) of the samples around each one; NaN where there are none."""
    return np.concatenate([block for _, block in _blocks(piece, length)], axis=1)[piece.inner]


def statistic_names(channels: Sequence[str], length: int) -> list[str]:
    """Names of the columns of `window_statistics`."""
    one = np.zeros((1, len(channels)), np.float32)
    piece = Piece(slice(0, 1), slice(0, 1), one, one, np.zeros(1, "datetime64[ms]"), np.zeros(1, np.int32), 900)
    names: list[str] = []
    for name, block in _blocks(piece, length):
        names += [name] if block.shape[1] == 1 else [f"{name}, {channel}" for channel in channels]
    return names


def _blocks(piece: Piece, length: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    values, stretch = piece.values, piece.stretch
    yield "value", values
    before, after = (values - shifted(values, stretch, by) for by in (-1, 1))
    yield "step from before", before
    yield "step to next", -after
    off = np.fmin(np.abs(before), np.abs(after)) * (np.sign(before) == np.sign(after))
    yield "spike", off
    yield "run", np.log1p(np.minimum(run_lengths(piece.raw, stretch), statistics_reach(length, piece.interval_s)))
    for number, one in enumerate(cycles(piece.times).T):
        yield CYCLES[number], one[:, None]
    frame, steps = pd.DataFrame(values), pd.DataFrame(np.abs(before))
    still = (steps == 0).astype(np.float32)
    day = in_samples(DAY_S, piece.interval_s)
    scales = {"short": length // 4 // 2 * 2 + 1, "window": length // 2 * 2 + 1, "day": day}
    scales["week"] = in_samples(7 * DAY_S, piece.interval_s)
    for name, scale in scales.items():
        windows = Around(stretch, scale // 2, scale // 2)
        around = frame.rolling(windows, min_periods=1)
        off = (frame - around.median()).to_numpy(np.float32)
        yield f"{name} off", off
        yield f"{name} spread", around.std().to_numpy(np.float32)
        yield f"{name} range", (around.max() - around.min()).to_numpy(np.float32)
        yield f"{name} roughness", steps.rolling(windows, min_periods=1).mean().to_numpy(np.float32)
        away = np.nan_to_num(np.abs(off))
        yield f"{name} off, most", away.max(axis=1, keepdims=True)
        yield f"{name} off, mean", away.mean(axis=1, keepdims=True)
        if name in ("day", "week"):
            yield f"{name} still", still.rolling(windows, min_periods=1).mean().to_numpy(np.float32)
            yield f"{name} largest step", steps.rolling(windows, min_periods=1).max().to_numpy(np.float32)
    yield "together", _together(frame, Around(stretch, day // 2, day // 2))


def _together(frame: pd.DataFrame, windows: Around) -> NDArray[np.float32]:
    """(n, channels): mean correlation of each channel with the others around a sample; 0 where none is defined."""
    mean, spread = frame.rolling(windows, min_periods=3).mean(), frame.rolling(windows, min_periods=3).std(ddof=0)
    found = np.zeros(frame.shape, np.float32)
    for one in range(frame.shape[1]):
        products = frame.mul(frame[one], axis=0).rolling(windows, min_periods=3).mean()
        covariance = products - mean.mul(mean[one], axis=0)
        correlation = (covariance / spread.mul(spread[one], axis=0).where(lambda of: of > 1e-4)).drop(columns=one)
        found[:, one] = np.nan_to_num(correlation.clip(-1, 1).mean(axis=1).to_numpy(np.float32))
    return found


def network_inputs(windows: NDArray[np.float32], times: NDArray[np.datetime64]) -> NDArray[np.float32]:
    """What networks read of (k, T, channels) scaled values at (k, T) times: (k, T, 3 channels + 2).

    Values, 0 where there is none; first differences; whether there is none; the day's cycle.
    """
    missing = np.isnan(windows)
    values = np.where(missing, 0, windows)
    # Within the window: a window's inputs are the same wherever the series is cut.
    steps = np.diff(values, axis=1, prepend=values[:, :1])
    steps[missing | np.roll(missing, 1, axis=1)] = 0
    return np.concatenate([values, steps, missing, cycles(times)], axis=-1).astype(np.float32)
