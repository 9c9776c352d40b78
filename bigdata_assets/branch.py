"""A branch: a group of assets with one purpose, and all that the project has to know of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import dagster as dg

from bigdata_assets.catalogue import schema_check
from bigdata_assets.settings import PROJECT_ROOT, Settings
from bigdata_assets.sources import Source
from bigdata_assets.streams.assets import batch_sensor, messages_asset
from bigdata_assets.streams.planner import Planner
from bigdata_assets.streams.stream import Stream
from bigdata_assets.tables import Table
from bigdata_assets.tracing.lineage import Lineage

CADENCE, REAL_TIME, BATCH = "cadence", "real-time", "batch"
"""A tag of each asset: real-time ones follow their input by themselves once the stream's sensor is on."""

Available: TypeAlias = Mapping[dg.PartitionsDefinition, Sequence[str]]
"""Partitions that the inputs call for, of each partitioning."""


@dataclass(frozen=True, kw_only=True)
class Branch:
    """What a branch is made of. `bigdata_assets.definitions.BRANCHES` names it; nothing else of the project has to.

    Attributes:
        name: the group of its assets and the first part of their keys.
        tables: each is some asset's, and gets the check that it is stored as declared.
        assets: but for those of `streams`' messages.
        checks: beyond the tables' own.
        streams: Kafka topics, each with its messages' asset, its job over all assets of its batches, and its sensor.
        evaluations: report assets whose figures go into the ledger of models.
        source: files without which nothing of it can be made; None where it has other inputs as well.
        available: adds partitions that the inputs call for now, and gives them. Takes the resources by key.
        lineage: where the tables' rows come from, for `bigdata-assets trace`; without it their runs alone are told.
    """

    name: str
    assets: Sequence[dg.AssetsDefinition]
    tables: Sequence[Table] = ()
    checks: Sequence[dg.AssetChecksDefinition] = ()
    jobs: Sequence[Any] = ()
    sensors: Sequence[dg.SensorDefinition] = ()
    schedules: Sequence[dg.ScheduleDefinition] = ()
    streams: Sequence[Stream] = ()
    evaluations: Sequence[dg.AssetKey] = ()
    source: Source | None = None
    available: Callable[[Mapping[str, Any], dg.DagsterInstance], Available] = lambda _resources, _instance: {}
    lineage: Lineage = field(default_factory=Lineage)

    def partitions(self, resources: Mapping[str, Any], instance: dg.DagsterInstance) -> Available:
        """Partitions that the inputs call for now, added.

        Where `available` says nothing: of a stream all that waits, of static partitions all, of dynamic ones those that
        are there.
        """
        found = dict(self.available(resources, instance))
        for stream in self.streams:
            if stream.partitions not in found:
                planner = Planner(stream, resources["settings"], resources["kafka"])
                planner.add_all(instance)
                found[stream.partitions] = planner.keys(instance)
        for asset in self.assets:
            if (of := asset.partitions_def) is not None and of not in found:
                found[of] = list(of.get_partition_keys(dynamic_partitions_store=instance))
        return found

    def definitions(self, settings: Settings) -> dg.Definitions:
        """The branch as Dagster sees it."""
        assets = [*self.assets, *map(messages_asset, self.streams)]
        return dg.Definitions(
            assets=[self._in_runs_of(settings.batches_per_run, asset).map_asset_specs(self._told) for asset in assets],
            asset_checks=[*map(schema_check, self.tables), *self.checks],
            jobs=[*self.jobs, *(_job(stream, assets) for stream in self.streams)],
            sensors=[*self.sensors, *map(batch_sensor, self.streams)],
            schedules=self.schedules,
        )

    def _told(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        """With its cadence as a tag, which the catalogue can be filtered by, and its branch's page."""
        of_streams = spec.partitions_def is not None and spec.partitions_def in [one.partitions for one in self.streams]
        cadence = REAL_TIME if of_streams or spec.automation_condition else BATCH
        page = PROJECT_ROOT / "docs" / f"{self.name}.md"
        metadata = {"docs": dg.MetadataValue.path(str(page))} if page.is_file() else {}
        return spec.merge_attributes(tags={CADENCE: cadence}, metadata=metadata)

    def _in_runs_of(self, batches: int, asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
        """A backfill of a stream's asset takes as many batches a run as its sensor: they bound its memory."""
        if asset.partitions_def not in [stream.partitions for stream in self.streams]:
            return asset
        return asset.with_attributes(backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=batches))


def _job(stream: Stream, assets: Sequence[dg.AssetsDefinition]) -> Any:
    batched = [asset for asset in assets if asset.partitions_def == stream.partitions]
    return dg.define_asset_job(
        stream.job, dg.AssetSelection.assets(*batched), description=f"Has a batch of the stream {stream.name} made."
    )
