"""Samples of a site as one series: its channels on common times, in stretches without a gap, split by time.

Windows of T samples are views of it: never across a site or a gap, and no memory of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLITS = ("train", "validation", "test")
SHARES = (0.6, 0.2)
"""Of a season: its first part to fit on, the next for thresholds and early stopping, the rest to test on."""
SEASON_S = 7 * 86_400
"""A longer time without samples ends a season: each of a logger's deployments is split by itself and so is tested."""
UNKNOWN = -1
NO_DATA = r"-9999(\.0*)?"
"""A code that says that there is no value, and not what is wrong with it."""
QUALITY, EDITED = "quality", "edited"
"""What may say that a sample is anomalous: that it has a quality code, or that its edited value is another one."""


@dataclass(frozen=True)
class SiteSeries:
    """A site's samples by time.

    Attributes:
        site: its name.
        channels: names of the columns of `values`.
        interval_s: most frequent time between two samples.
        times: (n,) datetime64[ms], UTC, ascending, each once.
        values: (n, channels) float32; NaN where a channel has no value.
        labels: (n,) int8: 1 where a channel is anomalous, 0 where none is, UNKNOWN.
        stretch: (n,) int32, number of the stretch without a gap.
        season: (n,) int32.
        split: (n,) int8: TRAIN, VALIDATION or TEST.
    """

    site: str
    channels: tuple[str, ...]
    interval_s: int
    times: NDArray[np.datetime64]
    values: NDArray[np.float32]
    labels: NDArray[np.int8]
    stretch: NDArray[np.int32]
    season: NDArray[np.int32]
    split: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.times)

    def starts(self, length: int, step: int = 1) -> NDArray[np.int64]:
        """Where windows of `length` samples begin, each `step` samples of a stretch."""
        n = len(self)
        begins = np.flatnonzero(np.diff(self.stretch, prepend=-1))
        position = np.arange(n) - begins[self.stretch - self.stretch[0]] if n else np.zeros(0, np.int64)
        last = np.arange(n) + length - 1
        fits = np.flatnonzero((position % step == 0) & (last < n))
        return fits[self.stretch[fits + length - 1] == self.stretch[fits]]

    def taken(self, rows: NDArray[np.bool_]) -> "SiteSeries":
        """Some of the rows; stretches are told anew, so that no window goes over rows that were left out."""
        kept = np.flatnonzero(rows)
        apart = np.diff(kept, prepend=-2) > 1
        changed = np.diff(self.stretch[kept], prepend=-1) != 0
        fields = ("times", "values", "labels", "season", "split")
        stretch = np.cumsum(apart | changed).astype(np.int32) - 1
        return replace(self, **{name: getattr(self, name)[kept] for name in fields}, stretch=stretch)


def align(site: str, samples: pd.DataFrame, labelled_by: str | None) -> SiteSeries:
    """A site's samples as a series.

    Args:
        site: its name.
        samples: columns channel, observed_at, value, quality, edited; each channel has a time once, in any order.
        labelled_by: QUALITY, EDITED or None, which leaves all labels UNKNOWN.
    """
    samples = samples.assign(observed_at=_milliseconds(samples["observed_at"])).sort_values("observed_at")
    by_channel = samples.groupby("channel")["observed_at"]
    intervals = {str(channel): usual_interval_s(its.to_numpy()) for channel, its in by_channel}
    interval_s = min(filter(None, intervals.values()), default=None) or 1
    samples["observed_at"] = _joined(samples["observed_at"].to_numpy(), interval_s)
    wide = samples.pivot_table(index="observed_at", columns="channel", values="value", aggfunc="last", dropna=False)
    times = wide.index.to_numpy()
    apart_s = np.diff(times).astype("timedelta64[ms]").astype(np.int64) / 1_000
    stretch = _numbered(apart_s > 1.5 * interval_s, len(times))
    for channel in wide:
        # What is sampled less often than the others holds until its next sample, though over no gap.
        if (own := intervals[str(channel)]) and (fill := round(own / interval_s) - 1) > 0:
            wide[channel] = wide[channel].groupby(stretch).ffill(limit=fill)
    season = _numbered(apart_s > max(SEASON_S, 1.5 * interval_s), len(times))
    return SiteSeries(
        site,
        tuple(map(str, wide.columns)),
        interval_s,
        times,
        wide.to_numpy(np.float32),
        _labels(samples, times, labelled_by),
        stretch,
        season,
        _split(season),
    )


def _joined(times: NDArray[np.datetime64], interval_s: int) -> NDArray[np.datetime64]:
    """Ascending times, where those of channels that are seconds apart are one: the first of them."""
    begins = np.diff(times, prepend=times[0] - np.timedelta64(interval_s, "s")) >= np.timedelta64(
        interval_s * 500, "ms"
    )
    return times[np.maximum.accumulate(np.where(begins, np.arange(len(times)), 0))]


def rows_of(series: SiteSeries, times: NDArray[np.datetime64]) -> NDArray[np.bool_]:
    """(n,) which rows of a series have samples of the given times, all of which it has been made of."""
    rows = np.zeros(len(series), bool)
    rows[np.searchsorted(series.times, times, "right") - 1] = True
    return rows


def usual_interval_s(times: NDArray[np.datetime64]) -> int | None:
    """The most frequent time between ascending times in whole seconds, at least one; None of fewer than two."""
    if len(times) < 2:
        return None
    apart, counts = np.unique(np.diff(times).astype("timedelta64[ms]").astype(np.int64), return_counts=True)
    return max(round(int(apart[np.argmax(counts)]) / 1_000), 1)


def anomalous(samples: pd.DataFrame, labelled_by: str | None) -> NDArray[np.int8]:
    """Label of each sample: 1, 0 or UNKNOWN; columns value, quality, edited."""
    if labelled_by == QUALITY:
        no_data = samples["quality"].str.fullmatch(NO_DATA, na=False) if samples["quality"].notna().any() else False
        return (samples["quality"].notna() & ~pd.Series(no_data, samples.index)).to_numpy().astype(np.int8)
    if labelled_by == EDITED:
        known = (samples["value"].notna() & samples["edited"].notna()).to_numpy()
        changed = (samples["value"] != samples["edited"]).to_numpy(np.int8)
        return np.where(known, changed, UNKNOWN).astype(np.int8)
    return np.full(len(samples), UNKNOWN, np.int8)


def _labels(samples: pd.DataFrame, times: NDArray[np.datetime64], labelled_by: str | None) -> NDArray[np.int8]:
    """Of each time: 1 where one of its samples is anomalous, 0 where none is and one is known not to be."""
    found = pd.Series(anomalous(samples, labelled_by), index=samples["observed_at"].to_numpy())
    return found.groupby(level=0).max().reindex(times).to_numpy(np.int8)


def _numbered(ends: NDArray[np.bool_], n: int) -> NDArray[np.int32]:
    return np.concatenate([np.zeros(min(n, 1), np.int32), np.cumsum(ends, dtype=np.int32)])[:n]


def _split(season: NDArray[np.int32]) -> NDArray[np.int8]:
    split = np.empty(len(season), np.int8)
    for number in np.unique(season):
        rows = np.flatnonzero(season == number)
        share = np.arange(len(rows)) / len(rows)
        split[rows] = np.digitize(share, np.cumsum(SHARES))
    return split


def _milliseconds(times: pd.Series) -> pd.Series:
    if times.dt.tz is not None:
        times = times.dt.tz_convert("UTC").dt.tz_localize(None)
    return times.astype("datetime64[ms]")


def to_rows(series: SiteSeries, length: int, step: int) -> pa.Table:
    """The series as rows of tables.WINDOWS, of windows of `length` samples each `step` samples."""
    starts = series.starts(length, step)
    begins = np.zeros(len(series), bool)
    begins[starts] = True
    known, of_window = np.zeros(len(series), bool), np.zeros(len(series), bool)
    # Sums over windows as differences of running sums: views, whatever the length.
    ones, unknown = (np.concatenate([[0], np.cumsum(series.labels == label)]) for label in (1, UNKNOWN))
    of_window[starts] = ones[starts + length] > ones[starts]
    known[starts] = of_window[starts] | (unknown[starts + length] == unknown[starts])
    n = len(series)
    offsets = np.arange(n + 1, dtype=np.int32) * len(series.channels)
    at = pa.array(series.times.astype("datetime64[us]"), pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    columns = {
        "site": pa.array([series.site] * n, pa.string()),
        "observed_at": at,
        "interval_s": pa.array(np.full(n, series.interval_s, np.int32)),
        "channels": pa.array([",".join(series.channels)] * n, pa.string()),
        "values": pa.ListArray.from_arrays(offsets, pa.array(series.values.astype(np.float64).ravel())),
        "stretch": pa.array(series.stretch),
        "season": pa.array(series.season),
        "split": pa.array(np.array(SPLITS, object)[series.split], pa.string()),
        "label": pa.array(series.labels == 1, pa.bool_(), mask=series.labels == UNKNOWN),
        "begins_window": pa.array(begins),
        "window_label": pa.array(of_window, pa.bool_(), mask=~known),
    }
    return pa.table(columns)


def from_rows(rows: pa.Table) -> list[SiteSeries]:
    """The series of rows of tables.WINDOWS, by site."""
    found = []
    rows = rows.sort_by([("site", "ascending"), ("observed_at", "ascending")]).combine_chunks()
    sites = rows["site"].to_numpy()
    cuts = [0, *(np.flatnonzero(sites[1:] != sites[:-1]) + 1), len(sites)] if len(sites) else [0]
    for first, end in pairwise(cuts):
        part = rows.slice(first, end - first)
        values = part["values"].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        labels = part["label"].to_numpy()
        found.append(
            SiteSeries(
                str(sites[first]),
                tuple(part["channels"][0].as_py().split(",")),
                part["interval_s"][0].as_py(),
                part["observed_at"].cast(pa.timestamp("us")).to_numpy().astype("datetime64[ms]"),
                values.reshape(len(part), -1),
                np.array([UNKNOWN if label is None else label for label in labels], np.int8),
                part["stretch"].to_numpy(),
                part["season"].to_numpy(),
                np.array([SPLITS.index(split) for split in part["split"].to_numpy()], np.int8),
            )
        )
    return found


def current(samples: pd.DataFrame) -> pd.DataFrame:
    """Of each site's, channel's and time's samples the one with the highest version."""
    newest = samples.sort_values("version", kind="stable")
    return newest.drop_duplicates(["site", "channel", "observed_at"], keep="last")


def windows(values: NDArray[np.float32], starts: Sequence[int] | NDArray[np.int64], length: int) -> NDArray[np.float32]:
    """Windows of (n, channels) values as (len(starts), length, channels), copied: ask for few at a time."""
    views = np.lib.stride_tricks.sliding_window_view(values, length, axis=0)
    return np.ascontiguousarray(views[np.asarray(starts)].transpose(0, 2, 1))
