"""Spark MLlib models that are fitted anew on a bounded window of the latest reports.

Not fitted on what they score: arrest rates are part of the pipeline, and are learnt from the window alone. What is not
in the window has the overall rate.

Arrest rates are learnt from the window's older reports and the classifiers from its newest ones: to a row
that a rate was learnt from, it tells that row's own label. The encoding: Micci-Barreca 2001, doi:10.1145/507533.507538.
"""

from typing import TYPE_CHECKING, Any

import pandas as pd

from bigdata_assets.crimes.logic.features import WINDOW_NUMBERS, WINDOW_RATES, window_features

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PARTITIONS = 4
SMOOTHING = 5.0
"""Reports of the overall rate that each rate begins with."""
LEAST_RATE = 0.001
MODELS = ("logistic_regression", "decision_tree", "random_forest", "gradient_boosting")
PLACE = ("batch", "kafka_partition", "kafka_offset")


def fit(reports: "DataFrame", n_trees: int = 20, n_newest: int = 20_000, seed: int = 0) -> Any:
    """A pipeline (`pyspark.ml.PipelineModel`) of features and the four classifiers, fitted on reports.

    Args:
        reports: the window.
        n_trees: of the forest, and of boosting.
        n_newest: of the reports, about, that the classifiers are fitted on; at most half. Arrest rates are of the rest.
        seed: of everything random.
    """
    from pyspark.ml import PipelineModel
    from pyspark.ml.classification import (
        DecisionTreeClassifier,
        GBTClassifier,
        LogisticRegression,
        RandomForestClassifier,
    )
    from pyspark.ml.feature import SQLTransformer, TargetEncoder, VectorAssembler
    from pyspark.sql import functions as F

    def named(classifier: Any, name: str) -> Any:
        """With output columns of its own: all four stand in one pipeline."""
        classifier.setPredictionCol(f"{name}_prediction").setRawPredictionCol(f"{name}_raw")
        return classifier.setProbabilityCol(f"{name}_probability").setLabelCol("label")

    since_1970 = F.unix_micros("occurred_at")
    n_rows = reports.count()
    share = 1 - min(n_newest, n_rows / 2) / max(n_rows, 1)
    begin = reports.select(F.percentile(since_1970, F.lit(share))).collect()[0][0]
    names = ["_".join(columns) for columns in WINDOW_RATES]
    rates = TargetEncoder(
        inputCols=[f"{name}_bucket" for name in names],
        outputCols=[f"{name}_rate" for name in names],
        targetType="binary",
        handleInvalid="keep",
        smoothing=SMOOTHING,
    ).fit(window_features(reports.where(since_1970 < begin)))
    sql = ", ".join(map(_log_odds, names))
    log_odds = SQLTransformer(statement=f"SELECT *, {sql} FROM __THIS__")  # noqa: S608 -- of names declared here
    newest = reports.where(since_1970 >= begin)
    # The same rows in the same places however they are stored: what a tree draws depends on where a row is.
    newest = newest.repartition(PARTITIONS, "report_id").sortWithinPartitions("report_id", "occurred_at")
    # Computed once: the rates would travel with each task of each of the classifiers' hundred jobs.
    rows = log_odds.transform(rates.transform(window_features(newest))).localCheckpoint()
    vector = VectorAssembler(inputCols=[*WINDOW_NUMBERS, *(f"{name}_log_odds" for name in names)], outputCol="vector")
    rows = vector.transform(rows)
    trees: dict[str, Any] = {"featuresCol": "vector", "seed": seed}
    # Fitted one by one: a pipeline would have each classifier see its predecessors' predictions, at thrice the time.
    classifiers = (
        LogisticRegression(featuresCol="vector", maxIter=50),
        DecisionTreeClassifier(maxDepth=6, minInstancesPerNode=50, **trees),
        RandomForestClassifier(numTrees=n_trees, maxDepth=8, minInstancesPerNode=10, **trees),
        GBTClassifier(maxIter=n_trees, maxDepth=4, stepSize=0.2, minInstancesPerNode=20, **trees),
    )
    fitted = [named(classifier, name).fit(rows) for classifier, name in zip(classifiers, MODELS, strict=True)]
    return PipelineModel(stages=[rates, log_odds, vector, *fitted])


def _log_odds(name: str) -> str:
    """SQL of a rate's log odds, which a linear model can add up."""
    rate = f"greatest(least({name}_rate, {1 - LEAST_RATE}D), {LEAST_RATE}D)"
    return f"ln({rate} / (1 - {rate})) AS {name}_log_odds"


def score(location: str, reports: "DataFrame") -> pd.DataFrame:
    """Place (PLACE) and probability of an arrest by each of MODELS, one row per report, from a stored pipeline."""
    from pyspark.ml import PipelineModel
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as F

    scored = PipelineModel.load(location).transform(window_features(reports))
    probabilities = [vector_to_array(F.col(f"{name}_probability"))[1].alias(name) for name in MODELS]
    return scored.select(*PLACE, *probabilities).toPandas()
