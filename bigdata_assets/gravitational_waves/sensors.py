"""Events whose strain has come become partitions and runs."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import dagster as dg

from bigdata_assets.gravitational_waves.partitions import SKY_EVENTS, events_folder
from bigdata_assets.gravitational_waves.tables import (
    BRANCH,
    EVENT_PREDICTIONS,
    QSCANS,
    QUARANTINED_QSCANS,
    QUARANTINED_STRAIN,
    STRAIN,
)
from bigdata_assets.runs.files import file_requests
from bigdata_assets.sources import Sources

SETTLE_S = 60
"""A file that was written to so lately may not be whole yet."""
FILE_TAG = "bigdata_assets/strain_file"
MODELS = tuple(dg.AssetKey([BRANCH, name]) for name in ("chirp_svc", "rbf_svm", "glitch_cnn"))
"""What predictions are made with."""

look_at_event = dg.define_asset_job(
    "look_at_event",
    selection=dg.AssetSelection.assets(
        *(table.key for table in (STRAIN, QUARANTINED_STRAIN, QSCANS, QUARANTINED_QSCANS, EVENT_PREDICTIONS)),
        dg.AssetKey([BRANCH, "strain_report"]),
    ),
    description="Reads an event's strain, reports on it, and has the models look at its Q-scans.",
)


@dg.sensor(
    job=look_at_event,
    minimum_interval_seconds=30,
    description="Finds events of strain/events.json whose files have come, and has each looked at as a partition.",
)
def new_strain_files(context: dg.SensorEvaluationContext, sources: Sources) -> dg.SensorResult | dg.SkipReason:
    """Watches the list of events and the files beside it."""
    from bigdata_assets.gravitational_waves.logic.strain import events

    folder = None if sources.is_sample else events_folder(sources)
    if folder is None:
        return dg.SkipReason("BIGDATA_SOURCES has no folder where strain could come in")
    if lacking := [key.path[-1] for key in MODELS if not context.instance.get_latest_materialization_event(key)]:
        return dg.SkipReason(f"nothing to look with yet: materialise {', '.join(lacking)}")
    keys = events.keys(folder)
    versions = dict(_settled_versions(folder, keys))
    requests = file_requests(context.instance, FILE_TAG, versions, STRAIN.key, EVENT_PREDICTIONS.key)
    if not requests:
        waiting = events.without_files(folder)
        return dg.SkipReason(f"{len(keys)} keys, none new; no strain yet of {', '.join(waiting) or 'no event'}")
    new = sorted({str(request.partition_key) for request in requests} - _registered(context.instance))
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[SKY_EVENTS.build_add_request(new)] if new else [],
    )


def _settled_versions(folder: Path, keys: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Keys and the versions of their files, but for those that may still be written to."""
    from bigdata_assets.gravitational_waves.logic.strain import events

    for key in keys:
        path = events.file_of(folder, key)
        if time.time() - path.stat().st_mtime >= SETTLE_S:
            yield key, events.version(path)


def _registered(instance: dg.DagsterInstance) -> set[str]:
    return set(instance.get_dynamic_partitions(str(SKY_EVENTS.name)))
