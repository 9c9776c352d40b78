"""The branch as `bigdata_assets.definitions` joins it to the others."""

import dagster as dg

from bigdata_assets.gravitational_waves import asset_checks, assets, partitions
from bigdata_assets.gravitational_waves.tables import TABLES
from bigdata_assets.settings import Settings

__all__ = ["TABLES", "definitions", "discover_partitions"]


def definitions(settings: Settings) -> dg.Definitions:  # noqa: ARG001 -- the same in every branch
    """What the branch is made of."""
    return dg.Definitions(assets=assets.ASSETS, asset_checks=asset_checks.CHECKS)


def discover_partitions(
    settings: Settings,  # noqa: ARG001
    instance: dg.DagsterInstance,  # noqa: ARG001
) -> dict[dg.PartitionsDefinition, list[str]]:
    """All classes: of one that the file lacks there are no rows."""
    return {partitions.GLITCH_CLASSES: list(partitions.GLITCH_CLASSES.get_partition_keys())}
