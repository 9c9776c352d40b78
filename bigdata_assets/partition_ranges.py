"""Stretches of partitions that one run is for, and the tags and statuses by which Dagster knows its runs."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import dagster as dg

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
ONE_KEY = "dagster/partition"
PID = "bigdata_assets/pid"
"""Tag of a run that a `bigdata-assets materialize` executes itself: its process."""


def tags_for(first: str, last: str) -> dict[str, str]:
    """The tags of a run over the partitions from `first` to `last`."""
    return {ONE_KEY: first} if first == last else {RANGE_START: first, RANGE_END: last}


def covered(tags: Mapping[str, str], keys: Sequence[str]) -> list[str]:
    """Those of `keys`, which are in order, that a run with these tags is for."""
    if tags.get(ONE_KEY) in keys:
        return [tags[ONE_KEY]]
    first, last = tags.get(RANGE_START), tags.get(RANGE_END)
    if first in keys and last in keys:
        return list(keys[keys.index(first) : keys.index(last) + 1])
    return []


def contiguous(all_keys: Sequence[str], wanted: Iterable[str], most: int | None = None) -> list[tuple[str, str]]:
    """First and last key of each unbroken stretch of `wanted` within `all_keys`, cut into parts of at most `most`."""
    wanted = set(wanted)
    found = []
    for is_wanted, stretch in groupby(all_keys, key=lambda key: key in wanted):
        keys = list(stretch)
        step = most or len(keys)
        parts = [keys[start : start + step] for start in range(0, len(keys), step)] if is_wanted else []
        found += [(part[0], part[-1]) for part in parts]
    return found
