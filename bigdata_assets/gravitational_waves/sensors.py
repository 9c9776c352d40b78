"""Events whose strain has come become partitions and runs."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from bigdata_assets.gravitational_waves.partitions import SKY_EVENTS
from bigdata_assets.gravitational_waves.tables import (
    BRANCH,
    EVENT_PREDICTIONS,
    QSCANS,
    QUARANTINED_QSCANS,
    QUARANTINED_STRAIN,
    STRAIN,
)
from bigdata_assets.runtime import sources
from bigdata_assets.settings import Settings
from bigdata_assets.sources import SourceUnavailableError

MAX_ATTEMPTS = 3
"""An event whose runs keep failing is left to the reader of the run's log; it can still be run by hand."""
EVENT_TAG = "bigdata_assets/sky_event"

look_at_event = dg.define_asset_job(
    "look_at_event",
    selection=dg.AssetSelection.assets(
        *(table.key for table in (STRAIN, QUARANTINED_STRAIN, QSCANS, QUARANTINED_QSCANS, EVENT_PREDICTIONS)),
        dg.AssetKey([BRANCH, "strain_report"]),
    ),
    description="Reads an event's strain, reports on it, and has the models look at its Q-scans.",
)


def events_folder(settings: Settings) -> Path | None:
    """The branch's folder, nothing being downloaded for it; None where there is none."""
    try:
        return sources(settings).folder(BRANCH, download=False)
    except SourceUnavailableError:
        return None


def event_keys(settings: Settings) -> list[str]:
    """Partition keys of the events that strain is there for."""
    from bigdata_assets.gravitational_waves.logic import events

    folder = events_folder(settings)
    return events.keys(folder) if folder else []


def strain_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor that watches the list of events and the files beside it."""

    @dg.sensor(
        name="new_strain_files",
        job=look_at_event,
        minimum_interval_seconds=30,
        description="Finds events of strain/events.json whose files have come, and has each looked at as a partition.",
    )
    def new_strain_files(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        from bigdata_assets.gravitational_waves.logic import events

        folder = None if settings.sources == "sample" else events_folder(settings)
        if folder is None:
            return dg.SkipReason("BIGDATA_SOURCES has no folder where strain could come in")
        keys = events.keys(folder)
        requests = list(_requests(context.instance, keys))
        if not requests:
            waiting = events.without_files(folder)
            return dg.SkipReason(f"{len(keys)} keys, none new; no strain yet of {', '.join(waiting) or 'no event'}")
        new = sorted({str(request.partition_key) for request in requests} - _registered(context.instance))
        return dg.SensorResult(
            run_requests=requests,
            dynamic_partitions_requests=[SKY_EVENTS.build_add_request(new)] if new else [],
        )

    return new_strain_files


def _requests(instance: dg.DagsterInstance, keys: list[str]) -> Iterator[dg.RunRequest]:
    """A run for each key that has none, or whose runs failed; those read by other runs are left alone.

    A run key that was used is never launched again, even if that run failed: the attempt's number is part of it.
    """
    read = instance.get_materialized_partitions(STRAIN.key)
    for key in keys:
        runs = instance.get_runs(dg.RunsFilter(tags={EVENT_TAG: key}))
        if len(runs) >= MAX_ATTEMPTS or any(run.status != dg.DagsterRunStatus.FAILURE for run in runs):
            continue
        if runs or key not in read:
            yield dg.RunRequest(f"{key}:{len(runs)}", partition_key=key, tags={EVENT_TAG: key})


def _registered(instance: dg.DagsterInstance) -> set[str]:
    return set(instance.get_dynamic_partitions(str(SKY_EVENTS.name)))
