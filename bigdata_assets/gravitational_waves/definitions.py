"""The branch as `bigdata_assets.definitions` joins it to the others."""

import dagster as dg

from bigdata_assets.gravitational_waves import asset_checks, assets, partitions, sensors
from bigdata_assets.gravitational_waves.tables import TABLES
from bigdata_assets.settings import Settings

__all__ = ["TABLES", "definitions", "discover_partitions"]


def definitions(settings: Settings) -> dg.Definitions:
    """What the branch is made of."""
    return dg.Definitions(
        assets=assets.ASSETS,
        asset_checks=asset_checks.CHECKS,
        jobs=[sensors.look_at_event],
        sensors=[sensors.strain_sensor(settings)],
    )


def discover_partitions(settings: Settings, instance: dg.DagsterInstance) -> dict[dg.PartitionsDefinition, list[str]]:
    """All classes: of one that the file lacks there are no rows. Events: those that strain is there for, added."""
    keys = sensors.event_keys(settings)
    instance.add_dynamic_partitions(str(partitions.SKY_EVENTS.name), keys)
    return {
        partitions.GLITCH_CLASSES: list(partitions.GLITCH_CLASSES.get_partition_keys()),
        partitions.SKY_EVENTS: keys,
    }
