"""All models side by side, the rule in the first row: on the last part of each season, and on sites held out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bigdata_assets.flow_sensors.logic import anomaly_figures as figures
from bigdata_assets.flow_sensors.logic import anomaly_metrics as metrics
from bigdata_assets.flow_sensors.logic.series import TEST, UNKNOWN, SiteSeries
from bigdata_assets.reports import Evaluation, Report

RULE = "rule"
TIME_ORDERED, HELD_OUT = "time-ordered", "site held out"
ALL_SITES = "all sites"
FEW_EVENTS = 10
LEDGER = ("AP", "F1", "event F1")
TITLE = "Anomalies: models beside the rule"
SHOWN = (
    *("AP", "AP from", "AP to", "F1", "F1 from", "F1 to", "precision", "recall"),
    *("event F1", "event precision", "event recall", "delay, samples", "delay, s", "false alarms a day"),
)


@dataclass(frozen=True)
class Judged:
    """What a model says of sites' samples.

    Attributes:
        model: its name.
        version: of the model; of a model of held-out sites what it is made by.
        threshold: the score from which a sample is flagged, from validation; None where sites have their own.
        scores: by site, as long as its series; NaN where there is none.
        flags: by site.
        history: losses and such by epoch, of a network.
        settings: that it was fitted with, such as `fast`.
    """

    model: str
    version: str
    threshold: float | None
    scores: Mapping[str, NDArray[np.floating]]
    flags: Mapping[str, NDArray[np.bool_]]
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    settings: str = ""


@dataclass(frozen=True)
class Pool:
    """Some rows of several sites behind each other; a stretch is never of two sites."""

    rows: Mapping[str, NDArray[np.bool_]]
    labels: NDArray[np.int8]
    stretch: NDArray[np.int64]
    times: NDArray[np.datetime64]
    interval_s: NDArray[np.int64]
    block: NDArray[np.int64]

    @classmethod
    def of(cls, series: Sequence[SiteSeries], split: int | None) -> "Pool":
        """Rows of one of the splits, or all."""
        rows = {one.site: one.split == split if split is not None else np.ones(len(one), bool) for one in series}
        parts = [one.taken(rows[one.site]) for one in series]
        stretches = _behind_each_other([one.stretch.astype(np.int64) for one in parts])
        weeks = [metrics.blocks(one.labels, one.stretch, one.times) for one in parts]
        return cls(
            rows,
            _joined([one.labels for one in parts], np.int8),
            _joined(stretches, np.int64),
            _joined([one.times for one in parts], "datetime64[ms]"),
            _joined([np.full(len(one), one.interval_s) for one in parts], np.int64),
            _joined(_behind_each_other([np.unique(week, return_inverse=True)[1] for week in weeks]), np.int64),
        )

    def judgement(self, judged: Judged) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
        """A model's scores and flags of these rows; none where it has not seen a site."""
        scores, flags = [], []
        for site, rows in self.rows.items():
            its = judged.scores.get(site, np.full(len(rows), np.nan)), judged.flags.get(site, np.zeros(len(rows), bool))
            if {len(rows)} != {len(part) for part in its}:
                raise ValueError(
                    f"{judged.model} has {len(its[0]):,} scores of {site}, windows has {len(rows):,} rows of it: "
                    "materialise windows, then anomaly_scores"
                )
            scores.append(its[0][rows])
            flags.append(its[1][rows])
        return _joined(scores, np.float64), _joined(flags, np.bool_)

    def measured(self, judged: Judged) -> dict[str, float]:
        """All figures of a model on these rows."""
        scores, flags = self.judgement(judged)
        sure = metrics.intervals(self.labels, scores, flags, self.block)
        return {
            **metrics.by_sample(self.labels, scores, flags),
            **metrics.by_event(self.labels, flags, self.stretch, self.times, self.interval_s),
            **{f"{name} {end}": value for name in sure for end, value in zip(("from", "to"), sure[name], strict=True)},
        }


def placed(
    series: SiteSeries, times: NDArray[np.datetime64], scores: NDArray[np.floating], flags: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Scores and flags at the series' times: of several the last one's, NaN and False where there is none.

    Args:
        series: of a site.
        times: (m,) of the scores, in any order; those that the series lacks are left out.
        scores: (m,).
        flags: (m,).
    """
    at = np.searchsorted(series.times, times.astype(series.times.dtype)).clip(max=max(len(series) - 1, 0))
    there = series.times[at] == times if len(series) else np.zeros(len(times), bool)
    placed_scores, placed_flags = np.full(len(series), np.nan, np.float32), np.zeros(len(series), bool)
    placed_scores[at[there]], placed_flags[at[there]] = scores[there], flags[there]
    return placed_scores, placed_flags


def report(series: Sequence[SiteSeries], judged: Sequence[Judged], held_out: Sequence[Judged], seed: int = 0) -> Report:
    """The report of all models.

    Args:
        series: all sites.
        judged: what the stored models say, the rule among them.
        held_out: what models of the same kinds say of sites that they have not seen anything of, the rule among them.
        seed: of the random stretches.

    Raises:
        ValueError: there are models but no rule, or scores are not of the same rows as the series.
    """
    for models in (judged, held_out):
        if models and RULE not in {one.model for one in models}:
            raise ValueError(f"no model is judged without the {RULE}: materialise its partition of anomaly_models")
    labelled = [one for one in series if (one.labels != UNKNOWN).any()]
    if not judged or not labelled:
        missing = "No model has scored a sample yet: materialise anomaly_models, then anomaly_scores."
        unlabelled = "No site has labels: say in sites.csv what its samples are labelled by, `quality` or `edited`."
        return Report(TITLE, missing if not judged else unlabelled, {"models": len(judged), "sites": len(series)})
    test = Pool.of(labelled, TEST)
    in_order = _by_site(labelled, judged, TEST)
    unseen_sites = [one for one in labelled if any(one.site in its.scores for its in held_out)]
    of_unseen = _by_site(unseen_sites, held_out, None) if unseen_sites else pd.DataFrame(columns=["site", "model"])
    overall, unseen = (its[its["site"] == ALL_SITES] for its in (in_order, of_unseen))
    ranked = [next(one for one in judged if one.model == name) for name in overall["model"]]
    sites, rule = _sites(series, in_order), _rule(labelled, judged)
    best = ranked[min(1, len(ranked) - 1)]
    return Report(
        title=TITLE,
        summary=" ".join(_sentences(overall, unseen, sites, rule, ranked)),
        numbers={
            f"{metric} {row['model']}": row[metric]
            for row in overall.to_dict("records")
            for metric in ("AP", "F1")
            if pd.notna(row[metric])
        },
        tables={
            f"{TIME_ORDERED}, {ALL_SITES}": overall[["model", *SHOWN]],
            f"{HELD_OUT}, {ALL_SITES}": unseen.reindex(columns=["model", *SHOWN]),
            "Sites": sites,
            f"The {RULE} over all labelled samples": rule,
            f"{TIME_ORDERED}, by site": _each_site(in_order),
            f"{HELD_OUT}, by site": _each_site(of_unseen),
            "Models": pd.DataFrame(
                {"model": one.model, "version": one.version, "settings": one.settings, "threshold": one.threshold}
                for one in ranked
            ),
        },
        figures={
            f"{TIME_ORDERED}, {ALL_SITES}: AP and F1 with 95 % intervals over weeks": figures.ranking(overall),
            **({f"{HELD_OUT}, {ALL_SITES}: AP and F1": figures.ranking(unseen)} if len(unseen) else {}),
            f"{TIME_ORDERED}, {ALL_SITES}: precision and recall": figures.precision_recall(
                test.labels, {one.model: test.judgement(one) for one in ranked}
            ),
            **({"Training by epoch": figures.training(its)} if (its := _histories(ranked)) else {}),
            **figures.stretches(labelled, ranked, best, seed),
        },
        evaluations=(*_evaluations(overall, TIME_ORDERED), *_evaluations(unseen, HELD_OUT)),
        provenance={one.model: one.version for one in ranked},
        untold="not defined: nothing anomalous, flagged or found",
    )


def _by_site(series: Sequence[SiteSeries], judged: Sequence[Judged], split: int | None) -> pd.DataFrame:
    """Figures of each model on all sites together and on each: the rule in the first row, then by AP."""
    found = []
    for name, its in ((ALL_SITES, series), *((one.site, [one]) for one in series)):
        pool = Pool.of(its, split)
        rows = [{"site": name, "model": one.model, **pool.measured(one)} for one in judged]
        table = pd.DataFrame(rows).assign(after=[one.model != RULE for one in judged])
        found.append(table.sort_values(["after", "AP", "model"], ascending=[True, False, True]).drop(columns="after"))
    return pd.concat(found, ignore_index=True)


def _each_site(measured: pd.DataFrame) -> pd.DataFrame:
    return measured[measured["site"] != ALL_SITES].reindex(columns=["site", "model", *SHOWN])


def _sites(series: Sequence[SiteSeries], in_order: pd.DataFrame) -> pd.DataFrame:
    """What there is to judge by at each site, and a note where that is little."""
    rows = []
    for one in series:
        its = in_order[in_order["site"] == one.site].head(1)
        events = int(its["events"].iloc[0]) if len(its) else 0
        note = "no labels" if not len(its) else ""
        if len(its) and events < FEW_EVENTS:
            note = f"too few events in its test ({events}) for its figures to say much"
        rows.append(
            {
                "site": one.site,
                "samples": len(one),
                "labelled": int((one.labels != UNKNOWN).sum()),
                "anomalous": int((one.labels == 1).sum()),
                "labelled in test": int(its["samples"].iloc[0]) if len(its) else 0,
                "anomalous in test": int(its["anomalous"].iloc[0]) if len(its) else 0,
                "events in test": events,
                "note": note,
            }
        )
    return pd.DataFrame(rows)


def _rule(series: Sequence[SiteSeries], judged: Sequence[Judged]) -> pd.DataFrame:
    rule = next(one for one in judged if one.model == RULE)
    shown = ["site", "samples", "anomalous", "precision", "recall", "F1"]
    rows = []
    for name, its in ((ALL_SITES, series), *((one.site, [one]) for one in series)):
        pool = Pool.of(its, None)
        rows.append({"site": name, **metrics.by_sample(pool.labels, *pool.judgement(rule))})
    return pd.DataFrame(rows)[shown]


def _histories(judged: Sequence[Judged]) -> dict[str, Mapping[str, Sequence[float]]]:
    return {one.model: one.history for one in judged if one.history}


def _sentences(
    overall: pd.DataFrame, unseen: pd.DataFrame, sites: pd.DataFrame, rule: pd.DataFrame, judged: Sequence[Judged]
) -> list[str]:
    first = overall.iloc[0]
    on = (
        f"Judged on the last part of each season of {(sites['labelled'] > 0).sum()} sites: {first['samples']:,} "
        f"labelled samples, {first['anomalous']:,} of them anomalous, in {first['events']:,} events. {_best(overall)}"
    )
    told = [on]
    if len(unseen):
        told.append(f"Sites that a model has seen nothing of: {_best(unseen)}")
    told += [
        f"Over all labelled samples of {row['site']} the {RULE} has precision {row['precision']:.3f} and recall "
        f"{row['recall']:.3f}."
        for row in rule.to_dict("records")
        if row["site"] != ALL_SITES and row["F1"] >= 0.5
    ]
    told += [f"{row['site']}: {row['note']}." for row in sites.to_dict("records") if row["note"]]
    told += [
        f"{one.model} has not scored {', '.join(left)}, which counts as nothing found."
        for one in judged
        if (left := [site for site in sites.loc[sites["labelled"] > 0, "site"] if site not in one.scores])
    ]
    return told


def _best(measured: pd.DataFrame) -> str:
    def figures_of(row: pd.Series) -> str:
        return f"AP {row['AP']:.3f} ({row['AP from']:.3f} to {row['AP to']:.3f}), F1 {row['F1']:.3f}"

    told = f"The {RULE} has {figures_of(measured.iloc[0])}"
    if len(measured) > 1:
        told += f"; the best by AP is {measured['model'].iloc[1]} with {figures_of(measured.iloc[1])}"
    return f"{told}."


def _evaluations(measured: pd.DataFrame, split: str) -> list[Evaluation]:
    return [
        Evaluation(
            row["model"],
            split,
            metric,
            float(row[metric]),
            RULE,
            float(measured[metric].iloc[0]),
            low=row.get(f"{metric} from"),
            high=row.get(f"{metric} to"),
            interval="95 %, over weeks",
        )
        for row in measured.iloc[1:].to_dict("records")
        for metric in LEDGER
        if pd.notna(row[metric])
    ]


def _behind_each_other(numbers: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Numbers from 0 on, made different from those of the arrays before."""
    found, next_number = [], 0
    for its in numbers:
        found.append(its + next_number)
        next_number += int(its.max()) + 1 if len(its) else 0
    return found


def _joined(parts: Sequence[NDArray], dtype: str | type) -> NDArray:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)
