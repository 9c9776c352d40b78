"""What models say of a batch: of its samples alone, in the light of those that came before and around them.

Only samples of this batch and of those before it are looked at, so that a batch that is scored again gets the same
scores, however batches were grouped into runs.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from bigdata_assets.flow_sensors.logic import series
from bigdata_assets.flow_sensors.tables import ANOMALY_SCORES, CHANNEL_SAMPLES
from bigdata_assets.io_managers.delta.reading import DeltaReader
from bigdata_assets.tables import Table

CONTEXT, WINDOWS = timedelta(days=8), 4
"""Around a batch's samples: models look at a week, or at their windows and those beside them where samples are seldom.
What is in memory is this of the batch's sites.
"""
Scorer: TypeAlias = Callable[[series.SiteSeries, NDArray[np.bool_]], NDArray[np.float32]]
"""Scores of a series' times, of which those that are marked are wanted."""


def batch_scores(
    delta: DeltaReader, key: str, before: Collection[str], models: Mapping[str, tuple[str, float, Scorer]], length: int
) -> pa.Table:
    """The scores of a batch, rows of tables.ANOMALY_SCORES.

    Args:
        delta: the tables.
        key: the batch.
        before: batches that came before it.
        models: version, threshold and scorer of each model.
        length: samples of a window.
    """
    mine = delta.read_arrow(CHANNEL_SAMPLES, [key], ["site", "observed_at"])
    parts = [ANOMALY_SCORES.arrow_schema.empty_table()]
    for site in sorted(pc.unique(mine["site"]).to_pylist()):
        times = mine.filter(pc.equal(mine["site"], site))["observed_at"]
        wanted = pd.DatetimeIndex(pc.unique(times).to_pandas()).sort_values()
        for around in _clusters(wanted):
            aligned = _around(delta, site, around, {key, *before}, length)
            rows = series.rows_of(aligned, around.tz_convert(None).to_numpy().astype("datetime64[ms]"))
            for name, (version, threshold, score) in models.items():
                parts.append(_rows(key, aligned, rows, name, version, threshold, score(aligned, rows)))
    return pa.concat_tables(parts)


def _clusters(times: pd.DatetimeIndex) -> Iterator[pd.DatetimeIndex]:
    """Times whose surroundings are read together: those of corrections may be years apart."""
    ends = np.flatnonzero(np.diff(times) > np.timedelta64(2 * CONTEXT)) + 1
    for first, end in zip([0, *ends], [*ends, len(times)], strict=True):
        yield times[first:end]


def _around(
    delta: DeltaReader, site: str, times: pd.DatetimeIndex, batches: Collection[str], length: int
) -> series.SiteSeries:
    found = series.align(site, _context(delta, site, times, batches, CONTEXT), None)
    needed = timedelta(seconds=WINDOWS * length * found.interval_s)
    return found if needed <= CONTEXT else series.align(site, _context(delta, site, times, batches, needed), None)


def _context(
    delta: DeltaReader, site: str, times: pd.DatetimeIndex, batches: Collection[str], reach: timedelta
) -> pd.DataFrame:
    at = ds.field("observed_at")
    where = (ds.field("site") == site) & (at >= times[0] - reach) & (at <= times[-1] + reach)
    rows = delta.read_arrow(CHANNEL_SAMPLES, None, None, where)
    rows = rows.filter(pc.is_in(rows["batch"], pa.array(batches, pa.string())))
    return series.current(rows.to_pandas())


def _rows(
    key: str,
    of: series.SiteSeries,
    rows: NDArray[np.bool_],
    model: str,
    version: str,
    threshold: float,
    scores: NDArray[np.float32],
) -> pa.Table:
    n = int(rows.sum())
    columns = {"batch": [key] * n, "model_version": [version] * n}
    return said(ANOMALY_SCORES, of, rows, model, scores, threshold, columns)


def said(
    table: Table,
    of: series.SiteSeries,
    rows: NDArray[np.bool_],
    model: str,
    scores: NDArray[np.float32],
    threshold: float,
    more: Mapping[str, Any],
) -> pa.Table:
    """Rows of a table of scores: site, observed_at, model, score and flag, beside `more`."""
    n, found = int(rows.sum()), scores[rows].astype(np.float64)
    unknown = np.isnan(found)
    columns = {
        "site": [of.site] * n,
        "observed_at": of.times[rows].astype("datetime64[us]"),
        "model": [model] * n,
        "score": pa.array(found, mask=unknown),
        "flag": pa.array(found >= threshold, mask=unknown),
        **more,
    }
    schema = table.arrow_schema
    return pa.table([pa.array(columns[field.name]).cast(field.type) for field in schema], schema=schema)
