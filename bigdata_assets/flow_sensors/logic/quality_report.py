"""Pictures of channels: when they have values, what is wrong in them, and the worst ones' signals."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bigdata_assets.reports import FIGURE_IN, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Quality of the channels"
SHOWN = 24
"""Channels of a picture: more could not be read; the worst are drawn."""
SIGNALS = 6
EXAMPLE = 1_500
"""Samples of a signal."""
BINS = 240
"""Of the time, in the picture of coverage."""
BLUE, RED, AMBER, GREY, BLACK = "#1f6fb4", "#c8372d", "#e09a1a", "#8a90a0", "#1c1f26"
WRONG = {"missing": GREY, "no value": BLUE, "flat": AMBER, "spikes": RED}
DAY_S = 86_400


def worst(quality: pd.DataFrame, most: int = SIGNALS) -> list[tuple[str, str]]:
    """Site and channel of those with the largest shares of flat samples, nulls and spikes; none that has nothing wrong.

    What is missing altogether is seen in the picture of coverage, and would be between two signals.
    """
    share = shares(quality).drop(columns="missing").sum(axis=1)
    chosen = share[share > 0].sort_values(ascending=False, kind="stable").index[:most]
    return list(quality.loc[chosen, ["site", "channel"]].itertuples(index=False, name=None))


def shares(quality: pd.DataFrame) -> pd.DataFrame:
    """By row of channel_quality, of the samples that there should be: missing, without a value, flat, spikes."""
    due = (quality["samples"] + quality["missing"]).clip(lower=1)
    counts = {
        "missing": quality["missing"],
        "no value": quality["samples"] - quality["values"],
        "flat": quality["flat_samples"],
        "spikes": quality["spikes"],
    }
    return pd.DataFrame({name: its / due for name, its in counts.items()}, index=quality.index)


def report(
    quality: pd.DataFrame,
    refused: pd.DataFrame,
    examples: Mapping[tuple[str, str], pd.DataFrame],
    days: pd.DataFrame,
) -> Report:
    """The report of all channels.

    Args:
        quality: rows of channel_quality.
        refused: rows that are no sample: source, line, reason, site, channel.
        examples: what quality.example returns, by site and channel; those of `worst` are drawn.
        days: what quality.daily_values returns, of all sites.
    """
    tables = {"Rows that are no sample, by reason": by_reason(refused)} if len(refused) else {}
    numbers = {"channels": len(quality), "refused rows": len(refused)}
    if quality.empty:
        why = (
            "There is no sample yet. Put channel files into the folder flow_sensors of BIGDATA_SOURCES and run "
            "`bigdata-assets load sensors`; then materialise a month of channel_export, publish it with "
            "channel_messages, and the sensor makes batches of channel_samples."
        )
        return Report(TITLE, why, numbers, tables)
    quality = quality.reset_index(drop=True)
    share = shares(quality)
    order = share.sum(axis=1).sort_values(ascending=False, kind="stable").index
    drawn = {key: examples[key] for key in worst(quality) if key in examples}
    names = _names(quality)
    shown = sorted(order[:SHOWN])
    figures = {
        "Share of each time's samples that have a value; white: none": _coverage(quality.loc[shown], days),
        "Of the samples that there should be": _stacked(share.loc[shown], names.loc[shown]),
    }
    if drawn:
        figures["The worst channels: spikes (red), flat runs (amber), gaps and nulls (grey)"] = _signals(drawn)
    return Report(
        title=TITLE,
        summary=_summary(quality, share, names, len(refused)),
        numbers=numbers
        | {
            name: int(quality[name].sum())
            for name in ("samples", "missing", "corrected", "repeated_hours", "flat_samples", "spikes", "anomalous")
        },
        tables={
            "Channels, the worst first": quality.loc[order].drop(columns=["first_at", "last_at"]),
            "When": quality.loc[
                order, ["site", "channel", "first_at", "last_at", "interval_s", "longest_gap_s"]
            ].assign(first_at=lambda its: _minutes(its["first_at"]), last_at=lambda its: _minutes(its["last_at"])),
            **tables,
        },
        figures=figures,
        untold="one sample or no value alone",
    )


def by_reason(refused: pd.DataFrame) -> pd.DataFrame:
    """Rows and sources of each reason, the most frequent first, and where the first one is."""
    rows = [
        {
            "reason": reason,
            "rows": len(its),
            "sources": its["source"].nunique(),
            "first": f"{its['source'].iloc[0]}, line {its['line'].iloc[0]}",
        }
        for reason, its in refused.groupby("reason", sort=True)
    ]
    columns = ["reason", "rows", "sources", "first"]
    return pd.DataFrame(rows, columns=columns).sort_values("rows", ascending=False, kind="stable", ignore_index=True)


def _minutes(times: pd.Series) -> pd.Series:
    return times.dt.strftime("%Y-%m-%d %H:%M")


def _names(quality: pd.DataFrame) -> pd.Series:
    return quality["site"] + " " + quality["channel"]


def _summary(quality: pd.DataFrame, share: pd.DataFrame, names: pd.Series, refused: int) -> str:
    told = [
        f"{quality['samples'].sum():,} samples of {len(quality)} channels at {quality['site'].nunique()} sites.",
        f"{quality['missing'].sum():,} more would fill their {quality['gaps'].sum():,} gaps.",
    ]
    for kind in ("flat", "spikes", "no value"):
        most = share[kind].idxmax()
        if share[kind].loc[most]:
            told.append(f"Most {kind}: {names.loc[most]} with {share[kind].loc[most]:.1%}.")
    if twice := int(quality["repeated_hours"].sum()):
        told.append(f"{twice:,} samples are of local hours that a logger has written twice.")
    if quality["labelled"].sum():
        told.append(f"{quality['anomalous'].sum():,} of {quality['labelled'].sum():,} labelled samples are anomalous.")
    if refused:
        told.append(f"{refused:,} rows are no sample: their reasons are below.")
    if len(quality) > SHOWN:
        told.append(f"The pictures show the {SHOWN} worst channels.")
    return " ".join(told)


def _coverage(quality: pd.DataFrame, days: pd.DataFrame) -> "Figure":
    """Channels by time: the share of the values that each bin would have at the channel's interval."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
    from matplotlib.figure import Figure

    begin = quality["first_at"].min().floor("D")
    n_days = (quality["last_at"].max().floor("D") - begin).days + 1
    width = -(-n_days // BINS)
    n_bins = -(-n_days // width)
    values = np.zeros((len(quality), n_bins))
    for row, its in enumerate(quality.to_dict("records")):
        mine = days[(days["site"] == its["site"]) & (days["channel"] == its["channel"])]
        bins = (mine["day"] - begin).dt.days.to_numpy(int) // width
        inside = (bins >= 0) & (bins < n_bins)
        np.add.at(values[row], bins[inside], mine["values"].to_numpy(float)[inside])
        interval_s = its["interval_s"] if its["interval_s"] == its["interval_s"] else DAY_S
        edges = np.minimum(np.arange(n_bins + 1) * width, n_days) * DAY_S
        start, end = ((its[name] - begin).total_seconds() for name in ("first_at", "last_at"))
        # A channel's first and last bin are full with what they have from its first to its last sample.
        due = np.clip(np.minimum(edges[1:], end + interval_s) - np.maximum(edges[:-1], start), 0, None) / interval_s
        values[row] /= np.maximum(due, 1)
    figure = Figure(figsize=(FIGURE_IN, 0.8 + 0.2 * len(quality)), layout="constrained")
    axes = figure.subplots()
    left = date2num(begin.tz_localize(None) if begin.tzinfo else begin)
    extent = (left, left + n_bins * width, len(quality) - 0.5, -0.5)
    colors = LinearSegmentedColormap.from_list("coverage", ["white", AMBER, BLUE])
    image = axes.imshow(
        values.clip(max=1), aspect="auto", interpolation="nearest", cmap=colors, vmin=0, vmax=1, extent=extent
    )
    axes.set_yticks(range(len(quality)))
    axes.set_yticklabels(_names(quality), fontsize=8, parse_math=False)
    axes.set_yticks(np.arange(1, len(quality)) - 0.5, minor=True)
    axes.grid(axis="y", which="minor", color="white", linewidth=2)
    axes.tick_params(axis="y", which="minor", length=0)
    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    return figure


def _stacked(share: pd.DataFrame, names: pd.Series) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(FIGURE_IN, 1.0 + 0.2 * len(share)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 3))
    places = np.arange(len(share))
    # Apart: a logger that was away for years would leave no room for what it has measured.
    for axes, kinds in ((left, ["missing"]), (right, [kind for kind in WRONG if kind != "missing"])):
        before = np.zeros(len(share))
        for kind in kinds:
            axes.barh(places, share[kind], left=before, color=WRONG[kind], label=kind, height=0.75)
            before += share[kind].to_numpy()
        axes.set_xlim(0, max(before.max() * 1.05, 0.001))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(axis="x", alpha=0.3)
    left.set_yticks(places)
    left.set_yticklabels(names, fontsize=8, parse_math=False)
    left.set_ylim(len(share) - 0.4, -0.6)
    figure.legend(fontsize=8, ncols=4, loc="outside lower center")
    return figure


def _signals(examples: Mapping[tuple[str, str], pd.DataFrame]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(FIGURE_IN, 0.2 + 1.45 * len(examples)), layout="constrained")
    places = figure.subplots(len(examples), 1, squeeze=False).ravel()
    for axes, ((site, channel), its) in zip(places, examples.items(), strict=True):
        _signal(axes, its.head(EXAMPLE))
        axes.set_title(f"{site} {channel}", fontsize=9, loc="left", parse_math=False)
    return figure


def _signal(axes: "Axes", its: pd.DataFrame) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    times = its["observed_at"].to_numpy("datetime64[us]")
    values, spike, flat = its["value"].to_numpy(float), its["spike"].to_numpy(bool), its["flat"].to_numpy(bool)
    apart = np.diff(times)
    usual = np.median(apart) if len(apart) else np.timedelta64(1, "s")
    gaps = np.flatnonzero(apart > 1.5 * usual)
    for at in gaps:
        axes.axvspan(times[at], times[at + 1], color=GREY, alpha=0.35, linewidth=0)
    for at in np.flatnonzero(np.isnan(values)):
        axes.axvspan(times[at] - usual / 2, times[at] + usual / 2, color=GREY, alpha=0.35, linewidth=0)
    # A NaN where a gap is: no line over it.
    line = np.insert(values, gaps + 1, np.nan)
    axes.plot(np.insert(times, gaps + 1, times[gaps] + usual), line, color=BLACK, linewidth=0.8)
    axes.plot(times, np.where(flat, values, np.nan), color=AMBER, linewidth=3)
    axes.plot(times[spike], values[spike], "o", color=RED, markersize=3.5)
    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.tick_params(labelsize=8)
    axes.xaxis.get_offset_text().set_fontsize(8)
    axes.margins(x=0.01)
