"""Partitions of the branch: months of history, and offset ranges of the Kafka topic."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import click
import dagster as dg

from bigdata_assets.branch import Available
from bigdata_assets.crimes.logic.exports import TIME_ZONE, months
from bigdata_assets.crimes.producer import SAMPLE_BATCH_ROWS, produce_sample
from bigdata_assets.crimes.source import SOURCE
from bigdata_assets.crimes.tables import BATCH_METRICS, BRANCH, CRIME_MESSAGES, CRIME_REPORTS, HISTORIC_REPORTS
from bigdata_assets.sources import Sources, SourceUnavailableError
from bigdata_assets.streams.batches import BatchError
from bigdata_assets.streams.planner import Planner
from bigdata_assets.streams.stream import Stream

MONTHS = dg.DynamicPartitionsDefinition(name="crime_months")
"""Of occurrence, Chicago time: `2016-01`. Those that the input has, which may be any since 2001."""
CRIME_BATCHES = dg.DynamicPartitionsDefinition(name="crime_batches")
ARREST_MODELS = dg.AssetKey([BRANCH, "arrest_models"])
CRIMES = Stream(
    "crimes",
    CRIME_BATCHES,
    CRIME_MESSAGES,
    read=CRIME_REPORTS.key,
    last=BATCH_METRICS.key,
    job="learn_crime_batch",
    sensor="new_crime_batches",
    learnt=ARREST_MODELS,
)


def available_months(sources: Sources) -> list[str]:
    """Months that the input's files are for; none where there are no files."""
    try:
        folder = sources.folder(SOURCE)
    except SourceUnavailableError:
        return []
    return months(folder, datetime.now(ZoneInfo(TIME_ZONE)).date())


def available(resources: Mapping[str, Any], instance: dg.DagsterInstance) -> Available:
    """Months that the input has, and batches of all messages that wait; the sample's own are sent first."""
    settings, sources, kafka = (resources[name] for name in ("settings", "sources", "kafka"))
    planner, rows = Planner(CRIMES, settings, kafka), 0
    if sources.is_sample and produce_sample(settings, kafka, sources) and not planner.keys(instance):
        rows = min(SAMPLE_BATCH_ROWS, settings.batch_rows)
    try:
        planner.add_all(instance, rows)
    except BatchError as error:  # the stream's alone: other branches go on
        click.echo(f"{error} Nothing new of it is read.", err=True)
    found = available_months(sources)
    instance.add_dynamic_partitions(str(MONTHS.name), found)
    stored = instance.get_materialized_partitions(HISTORIC_REPORTS.key)
    for month in set(instance.get_dynamic_partitions(str(MONTHS.name))) - {*found, *stored}:
        instance.delete_dynamic_partition(str(MONTHS.name), month)  # of other sources, never read
    return {MONTHS: found, CRIME_BATCHES: planner.keys(instance)}
