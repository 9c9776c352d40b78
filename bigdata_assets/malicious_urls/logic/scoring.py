"""Batch scoring on Spark: vectorised Arrow batches, one load of the model per worker process."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame

from bigdata_assets.malicious_urls.tables import CLASSES, PREDICTIONS
from bigdata_assets.tables import row_schema
from bigdata_assets.workers import once_per_process


def score(
    urls: DataFrame,
    load: Callable[[], Any],
    model_version: str,
    classes: tuple[str, ...],
    scored_at: datetime,
    tasks: int,
) -> DataFrame:
    """One row per row of `urls`: its columns batch, position, url, registered_domain, landed_at and the prediction.

    Args:
        urls: rows with at least those five columns.
        load: gives the fitted estimator; called once in each worker process. Small: it travels to the workers.
        model_version: version of the model, also the key under which a worker keeps it.
        classes: the model's, in the order of the columns of predict_proba; the probability of others is 0.
        scored_at: time put into every row.
        tasks: how many tasks share the work; a landed file often is a single Parquet row group, which would be
            one task.
    """
    kept = ["batch", "position", "url", "registered_domain", "landed_at"]
    columns = urls.select(kept)

    def predict(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                yield predict_batch(batch, once_per_process(model_version, load), model_version, classes, scored_at)

    return columns.repartition(tasks).mapInArrow(predict, row_schema(*PREDICTIONS.columns))


def predict_batch(
    batch: pa.RecordBatch, model: Any, model_version: str, classes: tuple[str, ...], scored_at: datetime
) -> pa.RecordBatch:
    """The batch's columns with predicted_class, one probability per class, model_version and scored_at added."""
    probabilities = model.predict_proba(batch.column("url").to_pylist())
    best = pa.array(probabilities.argmax(axis=1))
    n = batch.num_rows
    of_class = {name: pa.array(probabilities[:, column], pa.float64()) for column, name in enumerate(classes)}
    never = pa.repeat(0.0, n)
    arrays = [
        *batch.columns,
        pa.array(classes).take(best),
        *(of_class.get(name, never) for name in CLASSES),
        pa.array([model_version] * n),
        pa.array([scored_at] * n, pa.timestamp("us", tz="UTC")),
    ]
    names = [*batch.schema.names, "predicted_class", *(f"p_{c}" for c in CLASSES), "model_version", "scored_at"]
    return pa.RecordBatch.from_arrays(arrays, names)
