"""The models group as `bigdata_assets.definitions` joins it to the branches."""

import dagster as dg

from bigdata_assets.models import assets
from bigdata_assets.models.tables import TABLES
from bigdata_assets.settings import Settings

__all__ = ["TABLES", "definitions", "discover_partitions"]


def definitions(settings: Settings) -> dg.Definitions:  # noqa: ARG001 -- every branch is asked alike
    """What the group is made of."""
    return dg.Definitions(assets=assets.ASSETS, asset_checks=assets.CHECKS)


def discover_partitions(
    settings: Settings,  # noqa: ARG001
    instance: dg.DagsterInstance,  # noqa: ARG001
) -> dict[dg.PartitionsDefinition, list[str]]:
    """It has no partitions."""
    return {}
