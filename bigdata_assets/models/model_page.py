"""One page of all models: each beside its baseline on the same rows, and beside itself as it was before."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bigdata_assets.reports import FIGURE_IN, Report, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE = ["report", "model", "split", "metric"]
"""What makes figures comparable over versions."""
VERSION = ["data_version", "code_version"]
BETTER, WORSE, ALIKE = "better", "worse", "not told apart"
ROW_IN = 0.2
HISTORY_ROWS = 10
"""Versions that are told of a figure."""


def by_version(ledger: pd.DataFrame) -> pd.DataFrame:
    """Of each figure and version the row of the run that was last, beside the strongest of its baselines; oldest first.

    A report that is made again of the same data by the same code is no new version.
    """
    rows = ledger.assign(strength=goodness(ledger["baseline_value"], ledger["better"]))
    rows = rows.sort_values(["evaluated_at", "strength"], kind="stable")
    return rows.drop_duplicates([*FIGURE, *VERSION], keep="last").drop(columns="strength")


def newest(ledger: pd.DataFrame) -> pd.DataFrame:
    """Figures of the newest run of each report, in its order, beside baseline and the version before.

    Columns beside the ledger's: previous (the figure of the version before, NaN where there is none), versions,
    against_baseline and against_previous: BETTER, WORSE or ALIKE; the latter is None where nothing was before.
    A figure is told apart from another where that lies outside of its interval; where none was measured, by the least
    difference from a baseline, and never from a version before.
    """
    versions = by_version(ledger)
    groups = versions.groupby(FIGURE, sort=False)
    versions = versions.assign(previous=groups["value"].shift(1), versions=groups["value"].transform("size"))
    last_run = ledger.sort_values("evaluated_at", kind="stable").groupby("report")["run_id"].last()
    found = versions[versions["run_id"] == versions["report"].map(last_run)].copy()
    order = ledger.reset_index().drop_duplicates(["run_id", *FIGURE]).set_index(["run_id", *FIGURE])["index"]
    place = order.reindex(pd.MultiIndex.from_frame(found[["run_id", *FIGURE]])).to_numpy()
    found = found.assign(place=place).sort_values(["branch", "report", "place"]).drop(columns="place")
    known = found["low"].notna() & found["high"].notna()
    beside = _told_apart(found, found["baseline_value"])
    before = pd.Series(_told_apart(found, found["previous"]), found.index, dtype=object)
    before[~known] = ALIKE
    before[found["previous"].isna()] = None
    return found.assign(against_baseline=beside, against_previous=before).reset_index(drop=True)


def _told_apart(rows: pd.DataFrame, other: pd.Series) -> NDArray[np.object_]:
    """BETTER, WORSE or ALIKE: whether the other figure lies below a row's interval, above it, or in it."""
    ends = [goodness(rows[end].astype(float).fillna(rows["value"]), rows["better"]) for end in ("low", "high")]
    low, high = np.minimum(*ends), np.maximum(*ends)
    around_0 = (rows["better"] == "near 0") & (rows["low"] < 0) & (rows["high"] > 0)
    high = np.where(around_0, 0, high)
    beside = goodness(other, rows["better"])
    return np.select([low > beside, high < beside], [BETTER, WORSE], ALIKE).astype(object)


def goodness(values: pd.Series, better: pd.Series) -> NDArray[np.float64]:
    """Figures turned so that more is better."""
    figures = values.to_numpy(float)
    return np.select([better == "less", better == "near 0"], [-figures, -np.abs(figures)], figures)


def fallen(rows: pd.DataFrame) -> pd.DataFrame:
    """What is wrong among rows of `newest`: a line of text for each figure below its baseline or its version before."""
    below, less = rows["against_baseline"] == WORSE, rows["against_previous"] == WORSE
    bad = rows[below | less]
    beside = bad["baseline"] + " " + _numbers(bad["baseline_value"])
    return pd.DataFrame(
        {
            "report": bad["report"],
            "model": bad["model"],
            "of": bad["split"] + ", " + bad["metric"],
            "figure": _figures(bad),
            "below its baseline": beside.where(below, ""),
            "below the version before": _numbers(bad["previous"]).where(less, ""),
        },
        dtype=object,
    )


def report(ledger: pd.DataFrame) -> Report:
    """The page.

    Args:
        ledger: rows of models/model_ledger.
    """
    if ledger.empty:
        return Report("Models of all branches", "No report with figures of a model has been made yet.", {"models": 0})
    rows = newest(ledger)
    first = rows[rows.groupby("report").cumcount() == 0][["report", "split", "metric"]]
    headline = rows.merge(first, on=["report", "split", "metric"])
    wrong = fallen(rows)
    models = rows.drop_duplicates(["branch", "report", "model"])
    verdicts = headline["against_baseline"].value_counts()
    versions = by_version(ledger)
    history = versions.merge(rows[FIGURE][rows["versions"] > 1], on=FIGURE)
    return Report(
        title="Models of all branches",
        summary=(
            f"{len(models)} models of {rows['branch'].nunique()} branches, each beside the strongest baseline on the "
            f"same rows. {len(headline)} have the first figure of their report: by it {verdicts.get(BETTER, 0)} are "
            f"better than the baseline, {verdicts.get(ALIKE, 0)} cannot be told from it and {verdicts.get(WORSE, 0)} "
            "are worse. "
            f"{(rows['against_previous'] == WORSE).sum()} figures are below the version before by more than their "
            "interval. Intervals are the figure's own: of two models on the same rows the difference is often surer."
        ),
        numbers={
            "models": len(models),
            **{f"{which} than their baselines": int(verdicts.get(which, 0)) for which in (BETTER, WORSE)},
            "figures below the version before": int((rows["against_previous"] == WORSE).sum()),
        },
        tables={
            **({"Below its baseline, or below the version before": wrong} if len(wrong) else {}),
            **{
                f"{name}: {', '.join(dict.fromkeys(its['report'].str.rpartition('/')[2]))}": _table(its)
                for name, its in rows.groupby("branch")
            },
            **({"Versions": _history(history)} if len(history) else {}),
            "What they were made from": _origins(rows),
        },
        figures={
            "First figure of each report, its interval, and the baseline (line)": _beside_baselines(headline),
            **(
                {"First figures over versions": _over_versions(moved)}
                if len(moved := history.merge(first, on=["report", "split", "metric"]))
                else {}
            ),
        },
        untold="not measured",
    )


def _numbers(values: pd.Series) -> pd.Series:
    return values.map(shown).astype(str)


def _figures(rows: pd.DataFrame) -> pd.Series:
    """Values as text, with the interval where there is one."""
    known = rows["low"].notna() & rows["high"].notna()
    ends = " (" + _numbers(rows["low"]) + " to " + _numbers(rows["high"]) + ")"
    return _numbers(rows["value"]) + ends.where(known, "")


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "model": rows["model"],
            "of": rows["split"] + ", " + rows["metric"],
            "figure": _figures(rows),
            "interval": rows["interval"].where(rows["low"].notna()),
            "baseline": rows["baseline"] + " " + _numbers(rows["baseline_value"]),
            "is": rows["against_baseline"],
            "version before": rows["previous"],
            "versions": rows["versions"],
        }
    )


def _history(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.groupby(FIGURE, sort=False).tail(HISTORY_ROWS).sort_values([*FIGURE, "evaluated_at"])
    return pd.DataFrame(
        {
            "model": rows["model"],
            "of": rows["split"] + ", " + rows["metric"],
            "at": _times(rows),
            "figure": _figures(rows),
            "code": rows["code_version"],
            "data": rows["data_version"],
        }
    )


def _origins(rows: pd.DataFrame) -> pd.DataFrame:
    one = rows.drop_duplicates("report")
    return pd.DataFrame(
        {
            "report": one["report"],
            "at": _times(one),
            "code": one["code_version"],
            "data": one["data_version"],
            "run": one["run_id"],
        }
    )


def _times(rows: pd.DataFrame) -> pd.Series:
    return pd.to_datetime(rows["evaluated_at"], utc=True).dt.strftime("%Y-%m-%d %H:%M:%S")


def _beside_baselines(rows: pd.DataFrame) -> "Figure":
    """A panel a report: each model's figure and interval, the baseline as a line of its own."""
    from matplotlib.figure import Figure

    groups = dict(list(rows.groupby("report", sort=False)))
    heights = [len(its) + 2 for its in groups.values()]
    figure = Figure(figsize=(FIGURE_IN, 0.5 + ROW_IN * sum(heights) + 0.25 * len(heights)), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, its) in zip(panels, groups.items(), strict=True):
        for place, row in enumerate(its.to_dict("records")):
            colour = {BETTER: "C0", WORSE: "C3"}.get(row["against_baseline"], "C7")
            if pd.notna(row["low"]) and pd.notna(row["high"]):
                axes.hlines(place, row["low"], row["high"], colour, linewidth=2)
            axes.plot(row["value"], place, "o", color=colour, markersize=5)
            axes.vlines(row["baseline_value"], place - 0.4, place + 0.4, "black", linewidth=1.5)
        first = its.iloc[0]
        axes.set_yticks(range(len(its)), its["model"], fontsize=8)
        axes.set_ylim(len(its) - 0.4, -0.6)
        axes.set_title(f"{name!s}: {first['metric']}, {first['split']}", fontsize=8, loc="left")
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(axis="x", alpha=0.3)
    return figure


def _over_versions(rows: pd.DataFrame) -> "Figure":
    """A panel a report: each model's figure from version to version."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    groups = dict(list(rows.groupby("report", sort=False)))
    figure = Figure(figsize=(FIGURE_IN, 0.3 + 2.4 * len(groups)), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
    for axes, (name, its) in zip(panels, groups.items(), strict=True):
        for model, one in its.groupby("model", sort=False):
            axes.plot(range(1, len(one) + 1), one["value"], ".-", label=str(model))
        axes.set_title(f"{name!s}: {its['metric'].iloc[0]}, {its['split'].iloc[0]}", fontsize=8, loc="left")
        axes.set_xlabel("version", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
