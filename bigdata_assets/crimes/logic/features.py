"""What models see of a report: nothing that is known only later (ID, case number, time of the last change)."""

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bigdata_assets.crimes.logic.exports import TIME_ZONE

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from scipy.sparse import csr_matrix

BITS = 18
CROSSES = (
    ("iucr", "location_description"),
    ("iucr", "domestic"),
    ("iucr", "district"),
    ("iucr", "part_of_day"),
    ("iucr", "round_minute"),
    ("iucr", "midnight"),
    ("iucr", "beat"),
    ("iucr", "block"),
    ("location_description", "district"),
    ("iucr", "location_description", "domestic"),
)
"""Pairs and triples that are features of their own: a linear model cannot make them. A time on a round minute, or at
midnight, is often an estimate: nobody was seen doing it."""
WINDOW_NUMBERS = ("hour", "weekday", "domestic", "round_minute", "midnight")
WINDOW_RATES = (
    ("iucr",),
    ("location_description",),
    ("block",),
    ("beat",),
    ("iucr", "location_description"),
    ("iucr", "domestic"),
    ("iucr", "block"),
    ("iucr", "beat"),
    ("iucr", "district"),
    ("iucr", "round_minute", "midnight"),
    ("iucr", "location_description", "domestic"),
)
"""What arrest rates are learnt of. Named by the columns, with `_rate`."""
RATE_BUCKETS = 1 << 18
"""That values of these are hashed into; a pair of columns has up to some hundred thousand."""


def hashed(reports: pd.DataFrame) -> "csr_matrix":
    """Features of reports as a sparse matrix of 2**BITS columns with values 1 and -1.

    Hashed (Weinberger et al. 2009, doi:10.1145/1553374.1553516): nothing is fitted, and an unseen code, block or place
    has a column like any other.
    """
    from scipy.sparse import csr_matrix

    hashes = {name: _hash(name, values) for name, values in _categories(reports).items()}
    crossed = [reduce(_mix, (hashes[name] for name in names)) for names in CROSSES]
    columns = np.stack([*hashes.values(), *crossed], axis=1) if len(reports) else np.empty((0, 1), np.uint64)
    indices = (columns >> np.uint64(64 - BITS)).astype(np.int32)
    signs = np.where(columns & np.uint64(1), 1.0, -1.0)
    starts = np.arange(0, indices.size + 1, indices.shape[1])
    matrix = csr_matrix((signs.ravel(), indices.ravel(), starts), shape=(len(reports), 2**BITS))
    matrix.sum_duplicates()
    return matrix


def window_features(reports: "DataFrame") -> "DataFrame":
    """The same knowledge as Spark columns for MLlib, all of them numbers: WINDOW_NUMBERS, `label`, and of each of
    WINDOW_RATES the hash bucket that its values are in, called `<columns>_bucket`. The frame's other columns are kept.
    """
    from pyspark.sql import functions as F

    local = F.from_utc_timestamp("occurred_at", TIME_ZONE)
    made = {
        "hour": F.hour(local),
        "weekday": F.dayofweek(local),
        "round_minute": F.minute(local) % 5 == 0,
        "midnight": (F.hour(local) == 0) & (F.minute(local) == 0),
    }

    def column(name: str) -> "Column":
        return made.get(name, F.col(name))

    def bucket(names: tuple[str, ...]) -> "Column":
        hashed = F.xxhash64(*map(column, names))
        return F.pmod(hashed, F.lit(RATE_BUCKETS)).cast("double").alias(f"{'_'.join(names)}_bucket")

    return reports.select(
        *[name for name in reports.columns if name not in WINDOW_NUMBERS],
        *[column(name).cast("double").alias(name) for name in WINDOW_NUMBERS],
        *map(bucket, WINDOW_RATES),
        F.col("arrest").cast("double").alias("label"),
    )


def _categories(reports: pd.DataFrame) -> dict[str, np.ndarray]:
    local = reports["occurred_at"].dt.tz_convert(TIME_ZONE)
    numbers = {
        name: reports[name].astype("Float64").fillna(-1).to_numpy(np.float64)
        for name in ("beat", "district", "ward", "community_area")
    }
    texts = {
        name: reports[name].fillna("").to_numpy(object)
        for name in ("iucr", "location_description", "block", "fbi_code")
    }
    times = {
        "hour": local.dt.hour,
        "part_of_day": local.dt.hour // 4,
        "weekday": local.dt.weekday,
        "round_minute": local.dt.minute % 5 == 0,
        "midnight": (local.dt.hour == 0) & (local.dt.minute == 0),
    }
    return {
        **texts,
        **numbers,
        **{name: values.to_numpy(np.float64) for name, values in times.items()},
        "domestic": reports["domestic"].to_numpy(np.float64),
    }


def _hash(name: str, values: np.ndarray) -> np.ndarray:
    """64-bit hashes of a column's values, another one for each column."""
    seed = pd.util.hash_array(np.array([name], object))[0]
    return _mix(pd.util.hash_array(values), np.full(len(values), seed, np.uint64))


def _mix(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """One hash of two (the finaliser of splitmix64), all of whose bits depend on all of theirs."""
    mixed = left * np.uint64(0x9E3779B97F4A7C15) + right
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
