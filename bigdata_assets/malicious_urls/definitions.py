"""The branch as `bigdata_assets.definitions` joins it to the others."""

import dagster as dg

from bigdata_assets.malicious_urls import asset_checks, assets, partitions, sensors
from bigdata_assets.malicious_urls.tables import TABLES
from bigdata_assets.settings import Settings

__all__ = ["TABLES", "definitions", "discover_partitions"]


def definitions(settings: Settings) -> dg.Definitions:
    """What the branch is made of."""
    return dg.Definitions(
        assets=assets.ASSETS,
        asset_checks=asset_checks.CHECKS,
        jobs=[sensors.score_landed_file],
        sensors=[sensors.landing_sensor(settings)],
        schedules=[sensors.nightly_schedule(settings)],
    )


def discover_partitions(settings: Settings, instance: dg.DagsterInstance) -> dict[dg.PartitionsDefinition, list[str]]:
    """Files that have landed, added without any sensor."""
    names = partitions.landed_names(settings)
    instance.add_dynamic_partitions(str(partitions.LANDED_FILES.name), names)
    return {partitions.LANDED_FILES: names}
