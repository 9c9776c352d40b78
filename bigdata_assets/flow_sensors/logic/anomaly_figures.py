"""Pictures of anomaly_report: models' figures, curves, and stretches of signal with all models' flags over them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bigdata_assets.flow_sensors.logic import anomaly_metrics as metrics
from bigdata_assets.flow_sensors.logic.series import TEST, UNKNOWN, SiteSeries
from bigdata_assets.reports import FIGURE_IN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPAN = 288
"""Samples of a picture: a day of five minutes, three of a quarter of an hour."""
RANDOM, WORST = 3, 2
POINTS = 300
CHANNELS = 8
"""More could not be told apart in a picture; those with the most values are drawn."""
MODELS = 14
GREY, RED, BLUE, AMBER, BLACK = "#8a90a0", "#c8372d", "#1f6fb4", "#e09a1a", "#1c1f26"


class Judgement(Protocol):
    """What anomaly_report.Judged has."""

    @property
    def model(self) -> str: ...
    @property
    def flags(self) -> Mapping[str, NDArray[np.bool_]]: ...


@dataclass(frozen=True)
class Stretch:
    """Rows of a site's series that are drawn: from `first` to before `end`."""

    series: SiteSeries
    first: int
    end: int


def ranking(measured: pd.DataFrame) -> "Figure":
    """AP and F1 of each model with their intervals, in the order of the rows; a line at the first one's, the rule's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(FIGURE_IN, 1.0 + 0.27 * len(measured)), layout="constrained")
    places = np.arange(len(measured))
    for axes, metric, color in zip(figure.subplots(1, 2, sharey=True), ("AP", "F1"), (BLUE, AMBER), strict=True):
        value = measured[metric].to_numpy(float)
        axes.axvline(value[0], color=GREY, linestyle="--", linewidth=1)
        axes.hlines(places, measured[f"{metric} from"], measured[f"{metric} to"], color=color, linewidth=4, alpha=0.35)
        axes.plot(value, places, "o", color=color, markersize=5)
        for place, number in zip(places, value, strict=True):
            if np.isfinite(number):
                axes.annotate(f"{number:.2f}", (number, place), (0, 4), textcoords="offset points", ha="center", size=8)
        axes.set(xlim=(0, 1.02), xlabel=metric)
        axes.grid(axis="x", alpha=0.3)
    axes = figure.axes[0]
    axes.set_yticks(places)
    axes.set_yticklabels(measured["model"], parse_math=False)
    axes.set_ylim(len(measured) - 0.5, -0.8)
    return figure


def precision_recall(
    labels: NDArray[np.int8], judged: Mapping[str, tuple[NDArray[np.floating], NDArray[np.bool_]]]
) -> "Figure":
    """Curves of all models, the first of which, the rule, is black, and a dot where each one's threshold is."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(FIGURE_IN, 4.6), layout="constrained")
    axes = figure.subplots()
    for number, (name, (scores, flags)) in enumerate(judged.items()):
        recall, precision = metrics.precision_recall(labels, scores, POINTS)
        figures = metrics.by_sample(labels, scores, flags)
        style: dict[str, Any] = {"color": BLACK, "linewidth": 2.2} if not number else {}
        style = style or {"color": colormaps["tab10"]((number - 1) % 10), "linewidth": 2.0 if number < 4 else 1.0}
        # In steps, as AP sums them: between two thresholds there is nothing to be had.
        label = f"{name} {figures['AP']:.2f}"
        begin = [0] if len(recall) else []  # where nothing is anomalous there is no curve
        axes.plot([*begin, *recall], [*precision[:1], *precision], drawstyle="steps-pre", label=label, **style)
        axes.plot(figures["recall"], figures["precision"], "o", markersize=6, color=style["color"])
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    figure.legend(
        title="AP; a dot is at the threshold", fontsize=8, title_fontsize=8, ncols=3, loc="outside lower center"
    )
    return figure


def training(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> "Figure":
    """The loss of each network by epoch: fitted on, and stopped on."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = -(-len(histories) // 2)
    figure = Figure(figsize=(FIGURE_IN, 0.3 + 1.9 * rows), layout="constrained")
    places = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes, (model, history) in zip(places, histories.items(), strict=False):
        for key, color, label in (("loss", BLUE, "fitted on"), ("val_loss", AMBER, "stopped on")):
            if key in history:
                axes.plot(np.arange(len(history[key])) + 1, history[key], ".-", color=color, label=label)
        axes.set_title(model, fontsize=9, parse_math=False)
        axes.set(xlabel="epoch", ylabel="loss")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    for axes in places[len(histories) :]:
        axes.axis("off")
    figure.legend(*places[0].get_legend_handles_labels(), ncols=2, fontsize=8, loc="outside upper center")
    return figure


def stretches(
    series: Sequence[SiteSeries], ranked: Sequence[Judgement], best: Judgement, seed: int
) -> dict[str, "Figure"]:
    """By caption: random stretches of the sites' tests, and those in which the best model misses or wrongs the most."""
    parts = candidates(series)
    if not parts:
        return {}
    drawn = np.random.default_rng(seed).permutation(len(parts))[:RANDOM]
    chosen = [("random stretch", parts[number]) for number in drawn]
    for what, label, flagged in (
        (f"most missed by {best.model}", 1, False),
        (f"most falsely flagged by {best.model}", 0, True),
    ):
        counts = np.array([_count(part, best, label, flagged) for part in parts])
        ordered = [int(number) for number in np.argsort(-counts, kind="stable") if counts[number]]
        # One of each site: the next worst is often the next in time.
        worst = list({parts[number].series.site: number for number in reversed(ordered)}.values())
        worst = sorted(worst, key=lambda number: -counts[number])[:WORST]
        chosen += [(f"{what}, {counts[number]} samples", parts[number]) for number in worst]
    return {
        f"{part.series.site}, {what}, from {part.series.times[part.first].astype('datetime64[m]')}".replace(
            "T", " "
        ): _draw(part, ranked[:MODELS])
        for what, part in chosen
    }


def candidates(series: Sequence[SiteSeries]) -> list[Stretch]:
    """The tests' stretches in pieces of at most SPAN samples; those below half of it only if there is no other."""
    pieces = []
    for one in series:
        cut = np.flatnonzero(np.diff(np.where(one.split == TEST, one.stretch, -1))) + 1
        for first, end in zip([0, *cut], [*cut, len(one)], strict=True):
            if first < end and one.split[first] == TEST:
                pieces += [Stretch(one, at, min(at + SPAN, int(end))) for at in range(int(first), int(end), SPAN)]
    return [piece for piece in pieces if piece.end - piece.first >= SPAN // 2] or pieces


def _count(part: Stretch, judged: Judgement, label: int, flagged: bool) -> int:
    rows = slice(part.first, part.end)
    flags = judged.flags.get(part.series.site)
    its = np.zeros(part.end - part.first, bool) if flags is None else flags[rows]
    return int(((part.series.labels[rows] == label) & (its == flagged)).sum())


def _draw(part: Stretch, judged: Sequence[Judgement]) -> "Figure":
    """Channels one above the other, each from its least to its greatest value, and below them the labels and flags."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    one, rows = part.series, slice(part.first, part.end)
    values = one.values[rows]
    most = np.argsort(-np.isfinite(values).sum(axis=0), kind="stable")[:CHANNELS]
    channels = sorted(most.tolist())
    times = one.times[rows]
    heights = 0.42 * max(len(channels), 2), 0.17 * (len(judged) + 1)
    figure = Figure(figsize=(FIGURE_IN, 0.6 + sum(heights)), layout="constrained")
    signal, flags = figure.subplots(2, 1, sharex=True, height_ratios=heights)
    for place, channel in enumerate(channels):
        _strip(signal, times, values[:, channel], -place)
    signal.set_yticks([0.4 - place for place in range(len(channels))])
    signal.set_yticklabels([_named(one, values, channel) for channel in channels], fontsize=8, parse_math=False)
    signal.set_ylim(0.1 - len(channels) + 0.8, 1)
    half = np.timedelta64(one.interval_s * 500, "ms")
    labels = one.labels[rows]
    for axes in (signal, flags):
        _shade(axes, times, labels == 1, half, RED, 0.18)
        _shade(axes, times, labels == UNKNOWN, half, GREY, 0.12)
    names = ["label", *(its.model for its in judged)]
    given = [labels == 1, *(its.flags[one.site][rows] if one.site in its.flags else labels > 1 for its in judged)]
    for place, which in enumerate(given):
        spans = _spans(times, which, half)
        flags.broken_barh(spans, (-place - 0.4, 0.8), color=RED if not place else BLACK if place == 1 else BLUE)
    flags.set_yticks([-place for place in range(len(names))])
    flags.set_yticklabels(names, fontsize=8, parse_math=False)
    flags.set_ylim(0.6 - len(names), 0.6)
    flags.set_xlim(times[0] - half, times[-1] + half)
    locator = AutoDateLocator(minticks=3, maxticks=7)
    flags.xaxis.set_major_locator(locator)
    flags.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    return figure


def _strip(axes: "Axes", times: NDArray[np.datetime64], values: NDArray[np.float32], bottom: float) -> None:
    if np.isfinite(values).any():
        low, high = np.nanmin(values), np.nanmax(values)
        scaled = (values - low) / (high - low) if high > low else values * 0 + 0.5
        axes.plot(times, bottom + 0.8 * scaled, color=BLACK, linewidth=0.9, marker=".", markersize=1.5)


def _named(one: SiteSeries, values: NDArray[np.float32], channel: int) -> str:
    its = values[:, channel]
    name = one.channels[channel]
    return f"{name}\n{np.nanmin(its):.4g} to {np.nanmax(its):.4g}" if np.isfinite(its).any() else f"{name}\nnone"


def _spans(
    times: NDArray[np.datetime64], which: NDArray[np.bool_], half: np.timedelta64
) -> list[tuple[np.datetime64, np.timedelta64]]:
    found = metrics.runs(which, np.zeros(len(which), int))
    return [
        (times[first] - half, times[last] - times[first] + 2 * half)
        for first, last in zip(found.first, found.end - 1, strict=True)
    ]


def _shade(
    axes: "Axes",
    times: NDArray[np.datetime64],
    which: NDArray[np.bool_],
    half: np.timedelta64,
    color: str,
    alpha: float,
) -> None:
    from matplotlib.dates import date2num

    for begin, width in _spans(times, which, half):
        axes.axvspan(date2num(begin), date2num(begin + width), color=color, alpha=alpha, linewidth=0)
