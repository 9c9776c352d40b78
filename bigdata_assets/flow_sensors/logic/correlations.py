"""How channels go together, within a site and between sites, and with which lag."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bigdata_assets.flow_sensors.logic.series import SiteSeries
from bigdata_assets.flow_sensors.tables import SITE_CORRELATIONS
from bigdata_assets.reports import FIGURE_IN, Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LAG_S = 86_400
MOST_PAIRS = 2_000
MOST_SAMPLES = 1 << 17
LEAST_SAMPLES = 100
"""At fewer common times nothing is said: of enough lags one would fit by chance."""
SHOWN = 24
MOST_SITES = 5
"""Whose names stand side by side over the picture; those of more are beside each channel's."""
STRONGEST = 30


@dataclass(frozen=True)
class Grid:
    """Channels of one site at common times: (n, channels), NaN where there is no value."""

    site: str
    channels: tuple[str, ...]
    values: NDArray[np.float64]


def correlations(
    series: Sequence[SiteSeries],
    most_lag_s: int = MOST_LAG_S,
    most_pairs: int = MOST_PAIRS,
    most_samples: int = MOST_SAMPLES,
) -> pd.DataFrame:
    """Rows of tables.SITE_CORRELATIONS, pairs within sites first.

    Two sites are put on a grid of the longer one's interval over the time that both have, each taking the nearest
    sample within half an interval; of more than `most_samples` times every k-th is taken, so that lags then are
    multiples of k.
    Samples that are known to be anomalous are left out. Where there are fewer than LEAST_SAMPLES common times or one
    channel is constant, the figures are null.

    Args:
        series: of the sites.
        most_lag_s: lags up to this are tried, both ways.
        most_pairs: of channels; the rest is left out.
        most_samples: times of a pair of sites.
    """
    rows: list[dict[str, object]] = []
    for first, second in [*((one, one) for one in series), *combinations(series, 2)]:
        if len(rows) >= most_pairs:
            break
        if grids := on_common_grid(first, second, most_samples):
            a, b, step_s = grids
            within = first is second
            pairs = [(i, j) for i in range(len(a.channels)) for j in range(i + 1 if within else 0, len(b.channels))]
            rows += _pairs(a, b, pairs[: most_pairs - len(rows)], step_s, most_lag_s)
    return pd.DataFrame(rows, columns=list(SITE_CORRELATIONS.column_names))


def on_common_grid(first: SiteSeries, second: SiteSeries, most: int) -> tuple[Grid, Grid, int] | None:
    """Two sites' channels at common times and the seconds between these; None where they have no time in common."""
    if not len(first) or not len(second):
        return None
    begin, end = max(first.times[0], second.times[0]), min(first.times[-1], second.times[-1])
    interval_s = max(first.interval_s, second.interval_s)
    n = int((end - begin) / np.timedelta64(interval_s, "s")) + 1
    if end < begin:
        return None
    step_s = interval_s * -(-n // most)
    times = begin + np.arange(0, n * interval_s, step_s) * np.timedelta64(1_000, "ms")
    a, b = (_at(one, times, interval_s) for one in (first, second))
    return a, b, step_s


def _at(one: SiteSeries, times: NDArray[np.datetime64], interval_s: int) -> Grid:
    after = np.searchsorted(one.times, times).clip(1, max(len(one) - 1, 1))
    nearer = np.abs(one.times.take(after, mode="clip") - times) < np.abs(one.times[after - 1] - times)
    nearest = np.where(nearer, after, after - 1).clip(max=len(one) - 1)
    near = np.abs(one.times[nearest] - times) <= np.timedelta64(interval_s * 500, "ms")
    values = one.values[nearest].astype(np.float64)
    values[~near | (one.labels[nearest] == 1)] = np.nan
    return Grid(one.site, one.channels, values)


def _pairs(a: Grid, b: Grid, pairs: Sequence[tuple[int, int]], step_s: int, most_lag_s: int) -> list[dict[str, object]]:
    most = min(most_lag_s // step_s, len(a.values) - 1)
    size = 1 << (len(a.values) + most).bit_length()
    first = {i: _spectra(a.values[:, i], size) for i in {i for i, _ in pairs}}
    second = {j: _spectra(b.values[:, j], size) for j in {j for _, j in pairs}}
    rows = []
    for i, j in pairs:
        x, y = a.values[:, i], b.values[:, j]
        correlation, lag = spearman(x, y), best_lag(first[i], second[j], most, size)
        found = (0.0, correlation) if np.isfinite(correlation) else (np.nan, np.nan)
        if lag is not None:
            found = max(found, (float(lag * step_s), spearman(*shifted(x, y, lag))), key=_strength)
        rows.append(
            {
                "site_a": a.site,
                "channel_a": a.channels[i],
                "site_b": b.site,
                "channel_b": b.channels[j],
                "samples": int((np.isfinite(x) & np.isfinite(y)).sum()),
                "correlation": correlation,
                "best_lag_s": found[0],
                "best_correlation": found[1],
            }
        )
    return rows


def _strength(lag_and_correlation: tuple[float, float]) -> float:
    correlation = abs(lag_and_correlation[1])
    return correlation if np.isfinite(correlation) else -1


def spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Spearman's correlation where both have a value; NaN of fewer than LEAST_SAMPLES or of a constant."""
    from scipy.stats import rankdata

    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < LEAST_SAMPLES:
        return float("nan")
    ranks = [rankdata(values[both]) for values in (x, y)]
    if any(its[0] == its.mean() and not its.std() for its in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def shifted(x: NDArray, y: NDArray, lag: int) -> tuple[NDArray, NDArray]:
    """The first channel beside what the second is `lag` times later."""
    return (x[: len(x) - lag], y[lag:]) if lag >= 0 else (x[-lag:], y[:lag])


def best_lag(first: NDArray[np.complex128], second: NDArray[np.complex128], most: int, size: int) -> int | None:
    """The lag of the second channel behind the first with the strongest correlation of their ranks; None if undefined.

    All lags at once by the Fourier transform, sums over the common times of each. Ranks are those over all of a
    channel's values, so that the strongest lag, not its correlation, is what is taken from here.
    """
    there_a, a, a2 = first
    there_b, b, b2 = second
    pairs = ((there_a, there_b), (a, b), (a, there_b), (there_a, b), (a2, there_b), (there_a, b2))
    around = np.arange(-most, most + 1) % size
    n, ab, sum_a, sum_b, sum_a2, sum_b2 = (np.fft.irfft(np.conj(p) * q, size)[around] for p, q in pairs)
    n = np.rint(n)
    enough = n >= max(LEAST_SAMPLES, n.max() / 2)
    n = np.maximum(n, 1)
    variances = (sum_a2 / n - (sum_a / n) ** 2) * (sum_b2 / n - (sum_b / n) ** 2)
    enough &= variances > 1e-12  # ranks are between -1/2 and 1/2
    if not enough.any():
        return None
    strength = np.zeros(len(n))
    strength[enough] = np.abs(ab / n - sum_a * sum_b / n**2)[enough] / np.sqrt(variances[enough])
    lags = np.arange(-most, most + 1)
    # Rounded, so that of lags that are as good the shortest is taken.
    return int(lags[np.lexsort((np.abs(lags), -strength.round(6)))[0]])


def _spectra(values: NDArray[np.float64], size: int) -> NDArray[np.complex128]:
    """(3, f): of where there is a value, of its rank from -1/2 to 1/2, and of that squared; 0 where there is none."""
    from scipy.stats import rankdata

    there = np.isfinite(values)
    ranks = np.zeros(len(values))
    if there.any():
        ranks[there] = rankdata(values[there]) / (there.sum() + 1) - 0.5
    return np.fft.rfft(np.stack([there.astype(float), ranks, ranks**2]), size)


def report(found: pd.DataFrame, series: Sequence[SiteSeries]) -> Report:
    """A heat map and the strongest pairs.

    Args:
        found: rows of site_correlations.
        series: that they are of.
    """
    title = "Correlations of channels and sites"
    known = found.dropna(subset=["best_correlation"])
    channels = sum(len(one.channels) for one in series)
    possible = channels * (channels - 1) // 2
    if known.empty:
        why = f"No two channels have {LEAST_SAMPLES} samples in common: load more of them, then materialise windows."
        return Report(title, why, {"channels": channels, "pairs": len(found)})
    strongest = known.loc[known["best_correlation"].abs().sort_values(ascending=False, kind="stable").index]
    first = strongest.iloc[0]
    left = f" {possible - len(found):,} pairs have no common time or were too many." if possible > len(found) else ""
    return Report(
        title=title,
        summary=(
            f"Spearman's correlation of {len(found):,} pairs of {channels} channels, anomalous samples left out.{left} "
            f"The strongest is {_told(first)}. A lag is of the second channel behind the first."
        ),
        numbers={
            "channels": channels,
            "pairs": len(found),
            "pairs of 0.7 and more": int((known["best_correlation"].abs() >= 0.7).sum()),
            "strongest": float(abs(first["best_correlation"])),
        },
        tables={
            f"The {min(STRONGEST, len(strongest))} strongest pairs": pd.DataFrame(
                {
                    "first": f"{row['site_a']} {row['channel_a']}",
                    "second": f"{row['site_b']} {row['channel_b']}",
                    "samples": row["samples"],
                    "at no lag": row["correlation"],
                    "lag, h": row["best_lag_s"] / 3_600,
                    "at that lag": row["best_correlation"],
                }
                for row in strongest.head(STRONGEST).to_dict("records")
            )
        },
        figures={"Below the diagonal at no lag, above it at the best lag": heat_map(found)},
    )


def _told(row: pd.Series) -> str:
    lag_h = row["best_lag_s"] / 3_600
    return (
        f"{row['site_a']} {row['channel_a']} and {row['site_b']} {row['channel_b']}: {row['best_correlation']:.2f} at "
        f"{f'a lag of {lag_h:g} h' if lag_h else 'no lag'}"
    )


def heat_map(found: pd.DataFrame) -> "Figure":
    """Of the first SHOWN channels by site: at no lag below the diagonal, at the best lag above it."""
    from matplotlib.figure import Figure

    ends = [list(zip(found[f"site_{end}"], found[f"channel_{end}"], strict=True)) for end in "ab"]
    names = sorted({*ends[0], *ends[1]})[:SHOWN]
    place = {name: number for number, name in enumerate(names)}
    values = np.full((len(names), len(names)), np.nan)
    for a, b, without, best in zip(*ends, found["correlation"], found["best_correlation"], strict=True):
        if a in place and b in place:
            low, high = sorted((place[a], place[b]))
            values[high, low], values[low, high] = without, best
    figure = Figure(figsize=(FIGURE_IN, FIGURE_IN * 0.95), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("#eceef2")
    image = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
    if len(names) <= 8:
        for row, column in np.argwhere(np.isfinite(values)):
            number = values[row, column]
            color = "white" if abs(number) > 0.6 else "black"
            axes.text(column, row, f"{number:.2f}", ha="center", va="center", fontsize=8, color=color)
    sites = [site for site, _ in names]
    for number in range(1, len(names)):
        if sites[number] != sites[number - 1]:
            axes.axhline(number - 0.5, color="#1c1f26", linewidth=1)
            axes.axvline(number - 0.5, color="#1c1f26", linewidth=1)
    several = len(set(sites)) > MOST_SITES
    labels = [f"{site} {channel}" if several else channel for site, channel in names]
    axes.set_xticks(range(len(names)), labels, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(len(names)), labels, fontsize=8, parse_math=False)
    for site in [] if several else dict.fromkeys(sites):
        middle = float(np.mean([number for number, its in enumerate(sites) if its == site]))
        kind: dict[str, Any] = {
            "fontsize": 8,
            "parse_math": False,
            "ha": "center",
            "va": "center",
            "annotation_clip": False,
        }
        axes.annotate(site, (middle, -0.6), (0, 8), textcoords="offset points", **kind)
    figure.colorbar(image, ax=axes, shrink=0.7, label="Spearman's correlation")
    return figure
