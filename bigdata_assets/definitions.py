"""The whole project as Dagster sees it: `defs`. Branches say what they are made of; here they are joined."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from bigdata_assets import settings
from bigdata_assets.big_cats.definitions import BIG_CATS
from bigdata_assets.branch import Available, Branch
from bigdata_assets.crimes.definitions import CRIMES_BRANCH
from bigdata_assets.flow_sensors.definitions import FLOW_SENSORS
from bigdata_assets.gravitational_waves.definitions import GRAVITATIONAL_WAVES
from bigdata_assets.malicious_urls.definitions import MALICIOUS_URLS
from bigdata_assets.models.assets import ledger_branch
from bigdata_assets.runs import maintenance
from bigdata_assets.runs.alerts import run_failure_alert
from bigdata_assets.runtime import REFRESH, process_per_step, resources

BRANCHES = (BIG_CATS, CRIMES_BRANCH, FLOW_SENSORS, GRAVITATIONAL_WAVES, MALICIOUS_URLS)


SENT_HERE = [stream.partitions for branch in BRANCHES for stream in branch.streams if stream.source]
"""Partitions of streams whose messages an asset sends."""


def build(
    configuration: settings.Settings,
    executor: dg.ExecutorDefinition | None = None,
    branches: Sequence[Branch] = BRANCHES,
    **overrides: Any,
) -> dg.Definitions:
    """Branches with resources for the given settings; `overrides` replaces resources by key, for tests."""
    every = [*branches, ledger_branch(branches)]
    tables = [table for branch in every for table in branch.tables]
    shared = dg.Definitions(
        resources=resources(configuration, tables) | overrides,
        executor=executor or process_per_step(configuration),
        sensors=[run_failure_alert(configuration), REFRESH],
    )
    parts = [maintenance.definitions(tables), *(branch.definitions(configuration) for branch in every)]
    return dg.Definitions.merge(shared, *parts)


def available_partitions(
    resources: Mapping[str, Any],
    instance: dg.DagsterInstance,
    assets: Iterable[dg.AssetKey],
    branches: Sequence[Branch] = BRANCHES,
) -> Available:
    """Partitions that the inputs of the assets' branches call for now; those of dynamic partitionings are added first.

    No other branch's input is looked at: looking may mean making a sample or asking Kafka.
    """
    touched = {key.path[0] for key in assets}
    found: dict[dg.PartitionsDefinition, Sequence[str]] = {}
    for branch in branches:
        if branch.name in touched:
            found |= branch.partitions(resources, instance)
    return found


defs = build(settings.load())
