"""How well chirps are told from glitches: all models on the publisher's split, the two machines by cross-validation."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bigdata_assets.gravitational_waves.logic.classifiers import metrics, rbf, svc
from bigdata_assets.gravitational_waves.logic.classifiers.svc import MAX_FPR, SIGNAL
from bigdata_assets.reports import FIGURE_IN, Evaluation, Report

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

BASELINE = "brightness"
"""Of the whole picture: a model that knows nothing of shapes."""
CLASSIC = "classic_svc"
CONFUSIONS_A_ROW = 3


def threshold(rows: pd.DataFrame) -> float:
    """A model's threshold by its margins (label, sample_type, margin), for its card.

    From validation rows alone; where these have no glitch but chirps, from training rows.
    """
    chosen_on = rows[rows["sample_type"] == "validation"]
    if (chosen_on["label"] == SIGNAL).all():
        chosen_on = rows[rows["sample_type"] == "train"]
    return metrics.threshold(chosen_on["margin"], chosen_on["label"] == SIGNAL, MAX_FPR)


def judged(model: str, rows: pd.DataFrame, version: str, threshold: float) -> pd.DataFrame:
    """Rows of chirp_predictions: a model's margins (id, label, sample_type, margin) beside its threshold."""
    is_chirp = rows["margin"] > threshold
    return rows.assign(model=model, model_version=version, threshold=threshold, is_chirp=is_chirp)


def classic(spectrograms: "DataFrame") -> pd.DataFrame | None:
    """Margins of the classic setting, fitted on training glitches that have the shortest view: as it is often done.

    None where these are not both chirps and others.
    """
    frame = svc.whole_pictures(spectrograms, svc.CLASSIC)
    if frame.where("sample_type = 'train'").select("is_signal").distinct().count() < 2:
        return None
    return svc.margins(svc.fit(frame.where("sample_type = 'train'"), svc.CLASSIC), frame).toPandas()


def report(
    spark: "SparkSession",
    spectrograms: "DataFrame",
    glitches: "DataFrame",
    predicted: pd.DataFrame,
    settings: svc.SvcSettings,
    repeats: int,
    seed: int,
    why: str = "",
) -> Report:
    """Figures of chirp_predictions on test rows, and of the machines by repeated cross-validation over all rows.

    The network's cross-validation is glitch_cnn_report's.

    Args:
        spark: the session of the frames.
        spectrograms: the table, for the classic setting alone.
        glitches: rows of glitch_features.
        predicted: rows of chirp_predictions.
        settings: what chirp_svc was fitted with.
        repeats: of the cross-validation.
        seed: of its folds.
        why: a sentence that says why there are so many.
    """
    rows = rbf.with_pixels(glitches.toPandas())
    as_often_done = classic(spectrograms)
    others = {BASELINE: _brightness(rows)} | ({} if as_often_done is None else {CLASSIC: as_often_done})
    predicted = pd.concat([predicted, *(judged(name, its, "", threshold(its)) for name, its in others.items())])
    test = predicted[predicted["sample_type"] == "test"]
    if (test["label"] == SIGNAL).all() or not (test["label"] == SIGNAL).any():
        raise ValueError(f"the test rows are all a {SIGNAL}, or none is: there is nothing to report")
    on_test = _on_test(test)
    crossed = _crossed(spark, glitches, rows, settings, repeats, seed)
    (ours,), (base,) = (crossed[crossed["model"] == name].to_dict("records") for name in ("chirp_svc", BASELINE))
    return Report(
        title="Chirps against glitches",
        summary=(
            f"chirp_svc by cross-validation, {metrics.told_repeats(repeats)}: ROC AUC "
            f"{metrics.told(ours, 'roc_auc')}, recall {ours['recall']:.2f} at "
            f"{MAX_FPR:.0%} false positives; the picture's brightness alone has {base['roc_auc']:.3f} and "
            f"{base['recall']:.2f}. {int(rows['is_signal'].sum())} of {len(rows)} glitches are chirps. Views and "
            "penalty were chosen on the training rows, which are among these: the test rows alone had no part in it. "
            f"{why}"
        ),
        numbers={
            "ROC AUC, cross-validated": ours["roc_auc"],
            "recall at 1 % false positives, cross-validated": ours["recall"],
            "ROC AUC, test": float(on_test.set_index("model")["roc_auc"]["chirp_svc"]),
            "recall, test": float(on_test.set_index("model")["recall"]["chirp_svc"]),
            **({} if as_often_done is None else _found_at_0("the classic setting", as_often_done)),
        },
        tables={
            f"Cross-validated {metrics.told_repeats(repeats)}: means, 5th and 95th percentile": crossed,
            f"The publisher's test rows, {_origin(predicted)}": on_test,
        },
        figures=_figures(test, _origin(predicted)),
        evaluations=tuple(_evaluations(crossed, on_test)),
    )


def _crossed(
    spark: "SparkSession",
    glitches: "DataFrame",
    rows: pd.DataFrame,
    settings: svc.SvcSettings,
    repeats: int,
    seed: int,
) -> pd.DataFrame:
    """Figures by cross-validation: a row per model."""
    linear = svc.cross_validated(spark, svc.vectors(glitches, settings), settings, repeats, seed)
    kernel = rbf.cross_validated(rows, repeats, seed)
    bright = kernel.assign(margin=kernel["brightness"])
    scored = {"chirp_svc": linear, "rbf_svm": kernel, BASELINE: bright}
    return pd.DataFrame([{"model": model} | svc.fold_figures(found) for model, found in scored.items()])


def _found_at_0(what: str, scored: pd.DataFrame) -> dict[str, float]:
    """Share of the chirps it was not fitted on that a model calls chirps by itself; nothing where there are none.

    The classic setting only sees glitches that have its view, and of few chirps none may be left.
    """
    chirps = scored[(scored["label"] == SIGNAL) & (scored["sample_type"] != "train")]
    return (
        {f"recall of {what} at margin 0, not trained on": float(np.mean(chirps["margin"] > 0))} if len(chirps) else {}
    )


def _brightness(rows: pd.DataFrame) -> pd.DataFrame:
    margin = [float(pixels.mean()) for pixels in rows["pixels"]]
    return rows[["id", "label", "sample_type"]].assign(margin=margin)


def _split_figures(rows: pd.DataFrame) -> dict[str, float]:
    truth, called = rows["label"] == SIGNAL, rows["is_chirp"]
    hits = int((truth & called).sum())
    return {
        "roc_auc": metrics.roc_auc(rows["margin"], truth),
        "recall": hits / int(truth.sum()) if truth.any() else float("nan"),
        "precision": hits / max(int(called.sum()), 1),
        "false_positives": int((called & ~truth).sum()),
        "chirps": int(truth.sum()),
        "others": int((~truth).sum()),
    }


def _on_test(test: pd.DataFrame) -> pd.DataFrame:
    """A row per model: its figures on test rows, and the baseline's on the same ones; not all models see every row."""
    bright = test[test["model"] == BASELINE]
    found = []
    for model, rows in test.groupby("model"):
        base = _split_figures(bright[bright["id"].isin(rows["id"])])
        beside = {f"{BASELINE}_{metric}": base[metric] for metric in ("roc_auc", "recall")}
        found.append({"model": model} | _split_figures(rows) | beside)
    return pd.DataFrame(found)


def _origin(predicted: pd.DataFrame) -> str:
    """Where thresholds come from, and from how many: of fewer than 1 / MAX_FPR others it is the highest margin."""
    rows = predicted[(predicted["model"] == "chirp_svc") & (predicted["label"] != SIGNAL)]
    n_validation = int((rows["sample_type"] == "validation").sum())
    if n_validation:
        return f"thresholds from {n_validation} others among validation rows"
    return f"thresholds from {int((rows['sample_type'] == 'train').sum())} others among training rows"


def _evaluations(crossed: pd.DataFrame, on_test: pd.DataFrame) -> list[Evaluation]:
    base_row = crossed[crossed["model"] == BASELINE].iloc[0]
    same_rows = crossed.assign(**{f"{BASELINE}_{metric}": base_row[metric] for metric in ("roc_auc", "recall")})
    return [
        Evaluation(
            row["model"],
            split,
            metric,
            row[metric],
            BASELINE,
            row[f"{BASELINE}_{metric}"],
            low=row.get(f"{metric}_p5"),
            high=row.get(f"{metric}_p95"),
            interval=metrics.OVER_REPEATS,
        )
        for split, table in (("cross-validation", same_rows), ("publisher's test", on_test))
        for row in table.to_dict("records")
        for metric in ("roc_auc", "recall")
        # The classic setting may have no chirp to be scored on.
        if row["model"] != BASELINE and np.isfinite(row[metric])
    ]


def _figures(test: pd.DataFrame, origin: str) -> dict[str, Any]:
    from matplotlib.figure import Figure
    from sklearn.metrics import precision_recall_curve, roc_curve

    roc, curve = Figure(figsize=(5, 4.2), layout="constrained"), Figure(figsize=(5, 4.2), layout="constrained")
    roc_axes, curve_axes = roc.subplots(), curve.subplots()
    for model, rows in test.groupby("model"):
        truth = rows["label"] == SIGNAL
        if truth.nunique() < 2:
            continue
        false_positive, hit, _ = roc_curve(truth, rows["margin"])
        roc_axes.step(false_positive, hit, where="post", label=model)
        precision, recall, _ = precision_recall_curve(truth, rows["margin"])
        curve_axes.step(recall, precision, where="post", label=model)
    roc_axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    roc_axes.set(xlabel="false-positive rate", ylabel="recall of chirps")
    curve_axes.set(xlabel="recall of chirps", ylabel="precision")
    roc_axes.legend()
    curve_axes.legend()
    return {
        "ROC on the test rows": roc,
        "Precision and recall on the test rows": curve,
        f"Confusion on the test rows, {origin}": _confusion(test),
    }


def _confusion(test: pd.DataFrame) -> Any:
    from matplotlib.figure import Figure

    models = sorted(set(test["model"]))
    rows_of_axes = -(-len(models) // CONFUSIONS_A_ROW)
    figure = Figure(figsize=(FIGURE_IN, 2.2 * rows_of_axes), layout="constrained")
    places = figure.subplots(rows_of_axes, CONFUSIONS_A_ROW, squeeze=False).flat
    for axes in places[len(models) :]:
        axes.set_axis_off()
    for axes, model in zip(places, models, strict=False):
        rows = test[test["model"] == model]
        counts = pd.crosstab(rows["label"] == SIGNAL, rows["is_chirp"])
        counts = counts.reindex(index=[False, True], columns=[False, True], fill_value=0)
        axes.imshow(counts.div(counts.sum(axis=1).clip(lower=1), axis=0), cmap="Blues", vmin=0, vmax=1.6)
        for row in range(2):
            for column in range(2):
                axes.text(column, row, str(counts.iloc[row, column]), ha="center", va="center")
        axes.set(xticks=[0, 1], yticks=[0, 1], title=model, xlabel="called")
        axes.set_xticklabels(["rest", "chirp"])
        axes.set_yticklabels(["rest", "chirp"])
    return figure
