"""Chirp against the rest by a linear support vector machine of Spark's MLlib, on rows of glitch_features.

All pixels are greys on one scale, so that none is standardised: that would make the ones that never change, at the
picture's edge, as important as those where chirps are. Chirps are rare, so that each class weighs the same as a whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from bigdata_assets.gravitational_waves.logic.classifiers import metrics
from bigdata_assets.gravitational_waves.logic.classifiers.features import COLUMNS

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel
    from pyspark.sql import DataFrame, SparkSession

SIGNAL = "Chirp"
MAX_FPR = 0.01
MAX_FOLDS = 3


@dataclass(frozen=True)
class SvcSettings:
    """What a fit is made with; the names of MLlib's parameters are MLlib's.

    Attributes:
        views_s: views whose pixels stand side by side.
        reg_param, max_iter, standardization: LinearSVC's.
        weighted: whether each class weighs the same as a whole.
    """

    views_s: tuple[float, ...] = (0.5, 1.0)
    reg_param: float = 0.001
    max_iter: int = 20
    weighted: bool = True
    standardization: bool = False


CLASSIC = SvcSettings(views_s=(0.5,), reg_param=0.1, max_iter=10, weighted=False, standardization=True)
"""What is often seen: the shortest view's 23,800 pixels, ten iterations, no weights."""


def views(text: str) -> tuple[float, ...]:
    """Views from their seconds, joined by commas.

    Raises:
        ValueError: one is none of the training set's.
    """
    found = tuple(float(part) for part in text.split(","))
    if unknown := [view_s for view_s in found if view_s not in COLUMNS]:
        raise ValueError(f"there is no view of {unknown} s; there are {', '.join(map(str, COLUMNS))}")
    return found


def parameters(settings: SvcSettings) -> dict[str, Any]:
    """As a table or a model.json keeps them."""
    return asdict(settings) | {"views_s": ",".join(map(str, settings.views_s))}


def from_parameters(kept: Mapping[str, Any]) -> SvcSettings:
    """The settings that `parameters` made."""
    names = {field.name for field in fields(SvcSettings)}
    return SvcSettings(**{name: kept[name] for name in names} | {"views_s": views(kept["views_s"])})


def chosen(trials: pd.DataFrame) -> SvcSettings:
    """The settings of the chosen row of chirp_svc_tuning."""
    (row,) = trials[trials["chosen"]].to_dict("records")
    return from_parameters({str(name): value for name, value in row.items()})


def vectors(glitches: "DataFrame", settings: SvcSettings) -> "DataFrame":
    """Each glitch's id, label, sample_type, is_signal (0 or 1), and its views as vectors, from glitch_features."""
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql import functions as F

    return glitches.select(
        "id",
        "label",
        "sample_type",
        (F.col("label") == SIGNAL).cast("double").alias("is_signal"),
        *(array_to_vector(F.col(COLUMNS[view_s])).alias(COLUMNS[view_s]) for view_s in settings.views_s),
    )


def whole_pictures(spectrograms: "DataFrame", settings: SvcSettings) -> "DataFrame":
    """As `vectors`, from the one view's pixels themselves; glitches without that view are left out."""
    (view_s,) = settings.views_s
    pictures = spectrograms.where(f"view_s = {view_s}").withColumnRenamed("pixels", COLUMNS[view_s])
    return vectors(pictures, settings)


def fit(frame: "DataFrame", settings: SvcSettings) -> "PipelineModel":
    """The views put together, then the machine: one pipeline that scores rows of `vectors`."""
    from pyspark.ml import PipelineModel
    from pyspark.ml.classification import LinearSVC
    from pyspark.ml.feature import VectorAssembler
    from pyspark.sql import functions as F

    assembler = VectorAssembler(inputCols=[COLUMNS[view_s] for view_s in settings.views_s], outputCol="pixels")
    ((share,),) = frame.agg(F.mean("is_signal")).collect()
    if not share or share == 1:
        raise ValueError(f"nothing can be learnt: {share or 0:.0%} of the training rows are a {SIGNAL}")
    share = share if settings.weighted else 0.5
    weight = F.when(F.col("is_signal") == 1, 0.5 / share).otherwise(0.5 / (1 - share))
    machine = LinearSVC(
        featuresCol="pixels",
        labelCol="is_signal",
        weightCol="weight",
        regParam=settings.reg_param,
        maxIter=settings.max_iter,
        standardization=settings.standardization,
    )
    # Stage by stage: a Pipeline's fit over Connect asks the server for every stage's schema again.
    assembled = assembler.transform(frame.withColumn("weight", weight))
    return PipelineModel([assembler, machine.fit(assembled)])


def margins(model: "PipelineModel", frame: "DataFrame") -> "DataFrame":
    """One row per glitch: id, label, sample_type, and the margin, above 0 on the chirps' side of the plane."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as F

    scored = model.transform(frame)
    return scored.select(
        "id", "label", "sample_type", vector_to_array(F.col("rawPrediction"))[1].alias("margin").cast("double")
    )


def cross_validated(
    spark: "SparkSession", frame: "DataFrame", settings: SvcSettings, repeats: int, seed: int
) -> pd.DataFrame:
    """Margins of glitches by models that have not seen them: columns repeat, fold, id, is_signal, margin.

    Args:
        spark: the session of `frame`.
        frame: rows of `vectors`.
        settings: what every fold's model is fitted with.
        repeats: how often all rows are dealt out anew.
        seed: of the dealing.

    Raises:
        ValueError: fewer than two chirps: a model that is scored on one would have learnt from none.
    """
    rows = frame.select("id", "is_signal").toPandas().sort_values("id", ignore_index=True)
    n_folds = min(MAX_FOLDS, int(rows["is_signal"].sum()))
    if n_folds < 2:
        raise ValueError(f"{n_folds} glitches are a {SIGNAL}: at least two are needed for cross-validation")
    found = []
    for repeat, fold in enumerate(metrics.repeated_folds(rows["is_signal"], n_folds, repeats, seed)):
        # Each fold reads it three times.
        dealt = frame.join(spark.createDataFrame(pd.DataFrame({"id": rows["id"], "fold": fold})), "id").persist()
        try:
            for number in range(n_folds):
                model = fit(dealt.where(f"fold <> {number}"), settings)
                scored = margins(model, dealt.where(f"fold = {number}")).select("id", "margin").toPandas()
                found.append(scored.assign(repeat=repeat, fold=number))
        finally:
            dealt.unpersist()
    return pd.concat(found).merge(rows, on="id")


def fold_figures(scored: pd.DataFrame) -> dict[str, float]:
    """Means over folds and repeats of `cross_validated`, with the 5th and 95th percentile over repeats."""
    folds = pd.DataFrame(
        {
            "repeat": repeat,
            "roc_auc": metrics.roc_auc(rows["margin"], rows["is_signal"]),
            "recall": metrics.recall_at(rows["margin"], rows["is_signal"], MAX_FPR),
            "recall_at_0": float(np.mean(rows["margin"][rows["is_signal"] == 1] > 0)),
        }
        for (repeat, _), rows in scored.groupby(["repeat", "fold"])
    )
    by_repeat = folds.groupby("repeat").mean()
    figures: dict[str, float] = {}
    for name in by_repeat:
        mean, low, high = metrics.interval(by_repeat[name].tolist())
        figures |= {str(name): mean, f"{name}_p5": low, f"{name}_p95": high}
    return figures


def tune(spark: "SparkSession", glitches: "DataFrame", grid: Sequence[SvcSettings], seed: int) -> pd.DataFrame:
    """One row per setting, as chirp_svc_tuning has them: figures by cross-validation on the rows given, best `chosen`.

    With fewer than two chirps nothing can be tried: the one row is then the settings' defaults. Of one setting alone
    nothing need be tried.
    """
    measures = ("recall", "roc_auc", "recall_at_0")
    n_signals = glitches.where(f"label = '{SIGNAL}'").count()
    if n_signals < 2 or len(grid) == 1:
        nothing, only = dict.fromkeys(measures), SvcSettings() if n_signals < 2 else grid[0]
        return pd.DataFrame([parameters(only) | nothing | {"trial": 0, "folds": 0, "chosen": True}])
    trials = []
    for settings in tqdm(grid, unit="trial", disable=None):
        figures = fold_figures(cross_validated(spark, vectors(glitches, settings), settings, 1, seed))
        trials.append(parameters(settings) | {name: figures[name] for name in measures})
    best = max(range(len(trials)), key=lambda number: [trials[number][measure] for measure in measures])
    return pd.DataFrame(trials).assign(
        trial=range(len(trials)),
        folds=min(MAX_FOLDS, n_signals),
        chosen=[number == best for number in range(len(trials))],
    )
