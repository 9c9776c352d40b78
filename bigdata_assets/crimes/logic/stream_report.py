"""The stream so far as a report: metric per batch plots beside the baselines, drift, lag."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from bigdata_assets.crimes.logic.exports import TIME_ZONE
from bigdata_assets.crimes.logic.metrics import cumulative, half_width
from bigdata_assets.crimes.logic.online import BASELINES, LOOK_UP, MAJORITY, SGD
from bigdata_assets.reports import FIGURE_IN, Better, Evaluation, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROLLING_BATCHES = 20
ADWIN_DELTA = 0.002
LABEL = "share of arrests"
BETTER: dict[str, Better] = {"accuracy": "more", "log_loss": "less", "bias": "near 0"}
"""Figures beside the look-up's, and which are better."""
BESIDE = {name: f"{name} of the look-up" for name in BETTER}
"""Columns with the look-up's figures on the batches that a model has scored."""


def report(metrics: pd.DataFrame, recent: pd.DataFrame, order: Sequence[str], lag: Mapping[int, int]) -> Report:
    """The report of a stream.

    Args:
        metrics: rows of batch_metrics.
        recent: rows of crime_reports of the last batches, for drift.
        order: keys of all batches, in their order.
        lag: messages that are in no batch yet, by partition; empty where it is not known.
    """
    place = {key: number for number, key in enumerate(order)}
    metrics = metrics[metrics["batch"].isin(place)]
    metrics = metrics.assign(place=metrics["batch"].map(place)).sort_values(["place", "model"])
    if metrics.empty:
        return Report("Arrests from the stream", "No batch has been scored yet.", {"batches": 0})
    over_time = cumulative(metrics, ROLLING_BATCHES).assign(place=lambda rows: rows["batch"].map(place))
    overall = _overall(metrics, over_time)
    changes = drift(recent, place) if len(recent) else {}
    by_model = overall.set_index("model")
    candidates = by_model.drop(index=[name for name in BASELINES if name in by_model.index])
    gains = (candidates["accuracy"] - candidates[BESIDE["accuracy"]]).dropna()
    best = str(gains.idxmax()) if len(gains) else LOOK_UP

    def shown(column: str, model: str) -> str:
        return f"{by_model[column].get(model, float('nan')):.4f}"

    figures = {
        f"Accuracy over the last {ROLLING_BATCHES} batches": _lines(over_time, "rolling_accuracy", "accuracy"),
        "Log loss since the beginning": _lines(over_time, "cumulative_log_loss", "log loss, nats"),
        f"Bias (mean probability less share of arrests) over {ROLLING_BATCHES} batches": _lines(
            over_time, "rolling_bias", "bias"
        ),
    }
    if changes:
        figures["Share of arrests by batch, and where ADWIN saw it change"] = _drift_figure(recent, place, changes)
    return Report(
        title="Arrests from the stream",
        summary=(
            f"{metrics['batch'].nunique()} batches. Beside the look-up of each code's arrest rate {best} is the best: "
            f"accuracy {shown('accuracy', best)}, the look-up on the same batches {shown(BESIDE['accuracy'], best)}; "
            f"the majority has {shown('accuracy', MAJORITY)}. Each report was scored before a model learnt it. "
            "Labels are as they were in the message; arrests that are made later come as corrections."
        ),
        numbers={
            "batches": metrics["batch"].nunique(),
            "scored_reports": int(overall["scored_reports"].max()),
            **({"lag_messages": sum(lag.values())} if lag else {}),
            **{f"accuracy {name}": value for name, value in by_model["accuracy"].dropna().items()},
            f"bias {SGD}": float(by_model["bias"].get(SGD, float("nan"))),
            "label drifts": len(changes.get(LABEL, [])),
        },
        tables={
            "Each model over the whole stream": overall,
            "Drift in the last batches (ADWIN)": pd.DataFrame(
                [
                    {"what": what, "changes": len(keys), "last change in batch": keys[-1] if keys else ""}
                    for what, keys in changes.items()
                ]
            ),
            f"Last {ROLLING_BATCHES} batches": metrics[metrics["model"] == SGD].tail(ROLLING_BATCHES)[
                ["batch", "scored_reports", "left_out", "arrests", "accuracy", "log_loss", "snapshot"]
            ],
        },
        figures=figures,
        evaluations=tuple(_evaluations(overall)),
        provenance={"batches": f"{metrics['batch'].iloc[0]} to {metrics['batch'].iloc[-1]}"},
    )


def drift(recent: pd.DataFrame, place: Mapping[str, int]) -> dict[str, list[str]]:
    """Batches in which a stream of values changed, by what the values are.

    By ADWIN (Bifet and Gavaldà 2007, doi:10.1137/1.9781611972771.42), as river has it, report by report.
    """
    from river.drift import ADWIN

    rows = recent.assign(place=recent["batch"].map(place)).sort_values(["place", "kafka_offset"])
    code, location = rows["iucr"].mode().iat[0], rows["location_description"].mode().iat[0]
    streams = {
        LABEL: rows["arrest"],
        "share of domestic reports": rows["domestic"],
        "hour of the day": rows["occurred_at"].dt.tz_convert(TIME_ZONE).dt.hour / 24,
        f"share of IUCR {code}": rows["iucr"] == code,
        f"share of {location}": rows["location_description"] == location,
        "share of districts 1 to 12": rows["district"] <= 12,
    }
    found: dict[str, list[str]] = {}
    for what, values in streams.items():
        detector = ADWIN(delta=ADWIN_DELTA)
        found[what] = []
        for batch, value in zip(rows["batch"], values.astype(float), strict=True):
            detector.update(value)
            if detector.drift_detected:
                found[what].append(batch)
    return found


def _overall(metrics: pd.DataFrame, over_time: pd.DataFrame) -> pd.DataFrame:
    rows = []
    last = over_time.groupby("model").last()
    for model, its_rows in metrics.groupby("model"):
        n = its_rows["scored_reports"].sum()
        weight = its_rows["scored_reports"] / n if n else its_rows["scored_reports"]
        figures: Any = last.loc[model] if model in last.index else {}
        rows.append(
            {
                "model": model,
                "scored_reports": int(n),
                "accuracy": figures.get("cumulative_accuracy"),
                "log_loss": figures.get("cumulative_log_loss"),
                "bias": figures.get("cumulative_bias"),
                **{f"{name} ±": half_width(its_rows[name], its_rows["scored_reports"]) for name in BETTER},
                **_look_up_beside(metrics, its_rows),
                **{
                    f"{name}, mean of batches": (its_rows[name] * weight)[its_rows[name].notna()].sum()
                    / weight[its_rows[name].notna()].sum()
                    for name in ("balanced_accuracy", "roc_auc", "precision", "recall", "calibration_error")
                },
            }
        )
    found = pd.DataFrame(rows)
    # A model without a scored report has no figures at all.
    found = found.astype(dict.fromkeys(found.columns.drop(["model", "scored_reports"]), float))
    return found.sort_values("accuracy", ascending=False, ignore_index=True)


def _look_up_beside(metrics: pd.DataFrame, its_rows: pd.DataFrame) -> dict[str, Any]:
    """The look-up's figures on a model's own batches: those before its first fit would favour one of the two."""
    rows = metrics[(metrics["model"] == LOOK_UP) & metrics["batch"].isin(its_rows["batch"])]
    last = cumulative(rows, ROLLING_BATCHES)
    return {
        column: last[f"cumulative_{name}"].iloc[-1] if len(last) else float("nan") for name, column in BESIDE.items()
    }


def _evaluations(overall: pd.DataFrame) -> list[Evaluation]:
    return [
        Evaluation(
            row["model"],
            "prequential",
            metric,
            float(row[metric]),
            LOOK_UP,
            float(row[beside]),
            low=row[metric] - row[f"{metric} ±"],
            high=row[metric] + row[f"{metric} ±"],
            interval="95 %, over batches",
            better=BETTER[metric],
        )
        for row in overall.to_dict("records")
        for metric, beside in BESIDE.items()
        if row["model"] not in BASELINES and pd.notna(row[beside]) and pd.notna(row[metric])
    ]


def _axes(ylabel: str) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(FIGURE_IN, 3.6))
    axes = figure.add_subplot()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("batch")
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    return figure, axes


def _lines(over_time: pd.DataFrame, column: str, ylabel: str) -> "Figure":
    figure, axes = _axes(ylabel)
    for model, rows in over_time.groupby("model"):
        style: dict[str, Any] = {}
        if model in BASELINES:
            style = {"linestyle": "--", "color": "grey" if model == MAJORITY else "black"}
        axes.plot(rows["place"], rows[column], label=model, marker="." if len(rows) < 30 else None, **style)
    axes.legend(fontsize="small", ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.15), frameon=False)
    return figure


def _drift_figure(recent: pd.DataFrame | None, place: Mapping[str, int], changes: Mapping[str, list[str]]) -> "Figure":
    figure, axes = _axes(LABEL)
    if recent is not None:
        shares = recent.groupby("batch")["arrest"].mean()
        shares.index = shares.index.map(place)
        shares.sort_index().plot(ax=axes, color="tab:blue", linewidth=1)
    for batch in changes.get(LABEL, []):
        axes.axvline(place[batch], color="tab:red", alpha=0.6)
    axes.set_xlabel("batch")
    return figure
