"""Stretches of partitions that one run is for, the tags by which Dagster knows them, and what is being worked on."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
    dg.DagsterRunStatus.SUSPENDED,
]

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
ONE_KEY = "dagster/partition"
FILE_VERSION = "landed_file"
"""Metadata of a partition that is read from a file: which version of that one."""


def tags_for(first: str, last: str) -> dict[str, str]:
    """The tags of a run over the partitions from `first` to `last`."""
    return {ONE_KEY: first} if first == last else {RANGE_START: first, RANGE_END: last}


def as_option(tags: Mapping[str, str]) -> str:
    """What a run with these tags is for, as `materialize --partition` takes it: a key, FIRST..LAST, or empty."""
    is_range = {RANGE_START, RANGE_END} <= tags.keys()
    return f"{tags[RANGE_START]}..{tags[RANGE_END]}" if is_range else tags.get(ONE_KEY, "")


def covered(
    tags: Mapping[str, str], keys: Sequence[str], is_earlier: Callable[[str], bool] = lambda _key: False
) -> list[str]:
    """Those of `keys`, which are in order, that a run with these tags is for; `is_earlier`: of one before them all."""
    if tags.get(ONE_KEY) in keys:
        return [tags[ONE_KEY]]
    first, last = tags.get(RANGE_START), tags.get(RANGE_END)
    if first and last in keys and (first in keys or is_earlier(first)):
        return list(keys[keys.index(first) if first in keys else 0 : keys.index(last) + 1])
    return []


def in_work(
    instance: dg.DagsterInstance, keys: Sequence[str], is_earlier: Callable[[str], bool] = lambda _key: False
) -> set[str]:
    """Those of `keys`, which are in order, that a run or a backfill is for that has not ended, whoever asked for it."""
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    found = {key for run in runs for key in covered(run.tags, keys, is_earlier)}
    return found | set(keys) & set(_to_be_filled(instance))


def partitions_in_work(instance: dg.DagsterInstance) -> Iterator[str]:
    """Partitions that runs which have not ended name, one of a range at least, and those that backfills are for."""
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        yield from (run.tags[tag] for tag in (ONE_KEY, RANGE_START) if tag in run.tags)
    yield from _to_be_filled(instance)


def _to_be_filled(instance: dg.DagsterInstance) -> Iterator[str]:
    """Partitions of unfinished backfills, which ask for their runs bit by bit."""
    for backfill in instance.get_backfills(BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED])):
        yield from backfill.partition_names or ()
        if backfill.asset_backfill_data:
            for subset in backfill.asset_backfill_data.target_subset.partitions_subsets_by_asset_key.values():
                yield from subset.get_partition_keys()


def is_made_of(instance: dg.DagsterInstance, read: dg.AssetKey, made: dg.AssetKey, key: str, version: str) -> bool:
    """Whether the partition of `read` holds this version of its file, and `made` was materialised after that."""

    def newest(asset: dg.AssetKey) -> dg.EventLogRecord | None:
        wanted = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[key])
        return next(iter(instance.fetch_materializations(wanted, limit=1).records), None)

    source, result = newest(read), newest(made)
    if source is None or source.asset_materialization is None or result is None:
        return False
    told = source.asset_materialization.metadata.get(FILE_VERSION)
    return told is not None and told.value == version and result.storage_id > source.storage_id


def tell_partitions(step: Any, asset: dg.AssetKey, metadata: Mapping[str, Mapping[str, Any]]) -> None:
    """Metadata of partitions that a step makes, by key.

    As its `add_asset_metadata` does it, which for each key reads the keys of all partitions that there are, thrice.
    """
    told = step._metadata_accumulator
    for key, values in metadata.items():
        told = told.with_additional_asset_metadata(asset, key, values)
    step._metadata_accumulator = told


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
