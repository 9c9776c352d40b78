"""Partitions of the branch: months of what is in Cassandra, offset ranges of the Kafka topic, and models."""

import logging
import re
from collections.abc import Mapping
from typing import Any

import click
import dagster as dg

from bigdata_assets.branch import Available
from bigdata_assets.flow_sensors.tables import (
    ANOMALY_SCORES,
    CHANNEL_MESSAGES,
    CHANNEL_PUBLICATIONS,
    CHANNEL_SAMPLES,
    MODELS,
)
from bigdata_assets.resources.cassandra import CassandraResource
from bigdata_assets.resources.keyspaces import CassandraError
from bigdata_assets.streams.planner import Planner
from bigdata_assets.streams.stream import Stream

CHANNEL_MONTHS = dg.DynamicPartitionsDefinition(name="channel_months")
"""Of samples, in UTC: `2016-01`. Those that Cassandra has."""
CHANNEL_BATCHES = dg.DynamicPartitionsDefinition(name="channel_batches")
ANOMALY_MODELS = dg.StaticPartitionsDefinition(list(MODELS))
MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")
LOG = logging.getLogger(__name__)
SAMPLE_BATCH_ROWS = 5_000
"""Of the sample's batches: a few, whatever BATCH_ROWS is."""
SENSORS = Stream(
    "channel_samples",
    CHANNEL_BATCHES,
    CHANNEL_MESSAGES,
    read=CHANNEL_SAMPLES.key,
    last=ANOMALY_SCORES.key,
    job="score_channel_batch",
    sensor="new_channel_batches",
    source=CHANNEL_PUBLICATIONS.key,
)


def available_months(cassandra: CassandraResource) -> list[str]:
    """Months that there are samples of.

    Raises:
        CassandraError: it cannot be asked.
    """
    with cassandra.keyspace_session() as keyspace:
        months = {month for _, _, month in keyspace.partitions()}
    if strange := sorted(month for month in months if not MONTH.fullmatch(month)):
        LOG.warning("months are like 2016-01; samples of %s are not exported", strange)
    return sorted(months - set(strange))


def available(resources: Mapping[str, Any], instance: dg.DagsterInstance) -> Available:
    """Months that Cassandra has, into which the sample's files are loaded first, batches of what waits, and models."""
    from bigdata_assets.flow_sensors import loading

    settings, cassandra = resources["settings"], resources["cassandra"]
    planner = Planner(SENSORS, settings, resources["kafka"])
    is_first = resources["sources"].is_sample and not planner.keys(instance)
    planner.add_all(instance, SAMPLE_BATCH_ROWS if is_first else 0)
    months: list[str] = []
    try:
        if resources["sources"].is_sample:
            loading.load_sample(settings, cassandra, resources["sources"])
        months = available_months(cassandra)
    except CassandraError as error:  # this branch's alone: others go on
        click.echo(f"{error} Nothing of flow_sensors is exported.", err=True)
    instance.add_dynamic_partitions(str(CHANNEL_MONTHS.name), months)
    batches = planner.keys(instance)
    return {CHANNEL_MONTHS: months, CHANNEL_BATCHES: batches, ANOMALY_MODELS: list(MODELS) if batches else []}
