"""Spark MLlib models that are fitted anew on a bounded window of the latest reports.

Not fitted on what they score: the index of categories and its encoding are part of the pipeline, and are fitted on the
window alone. A category that is not in the window gets a place of its own.
"""

from typing import TYPE_CHECKING, Any

import pandas as pd

from bigdata_assets.crimes.logic.features import WINDOW_CATEGORIES, WINDOW_NUMBERS, window_features

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PARTITIONS = 4
MODELS = ("logistic_regression", "decision_tree", "random_forest", "gradient_boosting")
PLACE = ("batch", "kafka_partition", "kafka_offset")


def fit(reports: "DataFrame", n_trees: int = 20, seed: int = 0) -> Any:
    """A pipeline (`pyspark.ml.PipelineModel`) of features and the four classifiers, fitted on reports.

    Boosting makes half as many trees as the forest.
    """
    from pyspark.ml import PipelineModel
    from pyspark.ml.classification import (
        DecisionTreeClassifier,
        GBTClassifier,
        LogisticRegression,
        RandomForestClassifier,
    )
    from pyspark.ml.feature import OneHotEncoder, StringIndexer, VectorAssembler

    indexed, encoded = ([f"{name}_{kind}" for name in WINDOW_CATEGORIES] for kind in ("index", "encoded"))

    def named(classifier: Any, name: str) -> Any:
        """With output columns of its own: all four stand in one pipeline."""
        classifier.setPredictionCol(f"{name}_prediction").setRawPredictionCol(f"{name}_raw")
        return classifier.setProbabilityCol(f"{name}_probability").setLabelCol("label")

    # The same rows in the same places however they are stored: what a tree draws depends on where a row is.
    rows = window_features(
        reports.repartition(PARTITIONS, "report_id").sortWithinPartitions("report_id", "occurred_at")
    )
    indexer = StringIndexer(inputCols=list(WINDOW_CATEGORIES), outputCols=indexed, handleInvalid="keep").fit(rows)
    rows = indexer.transform(rows)
    # A tree needs a bin for every category of a column, and one for those that it has not seen.
    bins = 1 + max(len(categories) for categories in indexer.labelsArray)
    trees: dict[str, Any] = {"featuresCol": "indices", "maxBins": max(bins, 32), "seed": seed}
    encoder = OneHotEncoder(inputCols=indexed, outputCols=encoded, handleInvalid="keep").fit(rows)
    for_trees = VectorAssembler(inputCols=[*indexed, *WINDOW_NUMBERS], outputCol="indices")
    for_regression = VectorAssembler(inputCols=[*encoded, *WINDOW_NUMBERS], outputCol="vectors")
    # Fitted one by one: a pipeline would have each classifier see its predecessors' predictions, at thrice the time.
    rows = for_regression.transform(for_trees.transform(encoder.transform(rows)))
    classifiers = (
        LogisticRegression(featuresCol="vectors", maxIter=15, regParam=0.001),
        DecisionTreeClassifier(maxDepth=8, minInstancesPerNode=10, **trees),
        RandomForestClassifier(numTrees=n_trees, maxDepth=8, minInstancesPerNode=5, **trees),
        GBTClassifier(maxIter=max(n_trees // 2, 1), maxDepth=4, stepSize=0.3, **trees),
    )
    fitted = [named(classifier, name).fit(rows) for classifier, name in zip(classifiers, MODELS, strict=True)]
    return PipelineModel(stages=[indexer, encoder, for_trees, for_regression, *fitted])


def score(location: str, reports: "DataFrame") -> pd.DataFrame:
    """Place (PLACE) and probability of an arrest by each of MODELS, one row per report, from a stored pipeline."""
    from pyspark.ml import PipelineModel
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as F

    scored = PipelineModel.load(location).transform(window_features(reports))
    probabilities = [vector_to_array(F.col(f"{name}_probability"))[1].alias(name) for name in MODELS]
    return scored.select(*PLACE, *probabilities).toPandas()
