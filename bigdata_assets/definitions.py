"""The whole project as Dagster sees it: `defs`. Branches say what they are made of; here they are joined."""

from collections.abc import Iterable
from typing import Any

import dagster as dg

from bigdata_assets import settings
from bigdata_assets.alerts import run_failure_alert
from bigdata_assets.crimes import definitions as crimes
from bigdata_assets.gravitational_waves import definitions as gravitational_waves
from bigdata_assets.malicious_urls import definitions as malicious_urls
from bigdata_assets.models import definitions as models
from bigdata_assets.runtime import REFRESH, process_per_step, resources

BRANCHES = {
    "crimes": crimes,
    "gravitational_waves": gravitational_waves,
    "malicious_urls": malicious_urls,
    "models": models,
}
"""By name, which its assets' keys begin with."""


def build(
    configuration: settings.Settings, executor: dg.ExecutorDefinition | None = None, **overrides: Any
) -> dg.Definitions:
    """All branches with resources for the given settings; `overrides` replaces resources by key, for tests."""
    branches = [branch.definitions(configuration) for branch in BRANCHES.values()]
    tables = [table for branch in BRANCHES.values() for table in branch.TABLES]
    shared = dg.Definitions(
        resources=resources(configuration, tables) | overrides,
        executor=executor or process_per_step(),
        sensors=[run_failure_alert(configuration), REFRESH],
    )
    return dg.Definitions.merge(shared, *branches)


def discover_partitions(
    configuration: settings.Settings, instance: dg.DagsterInstance, assets: Iterable[dg.AssetKey]
) -> dict[dg.PartitionsDefinition, list[str]]:
    """Partitions that the inputs of the assets' branches call for now; those of dynamic partitionings are added first.

    No other branch's input is looked at: looking may mean making a sample or asking Kafka.
    """
    found: dict[dg.PartitionsDefinition, list[str]] = {}
    for name in sorted({key.path[0] for key in assets}):
        found |= BRANCHES[name].discover_partitions(configuration, instance)
    return found


defs = build(settings.load())
