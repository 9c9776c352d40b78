"""The branch as `bigdata_assets.definitions` joins it to the others."""

import click
import dagster as dg

from bigdata_assets.crimes import asset_checks, assets, partitions, sensors
from bigdata_assets.crimes.producer import SAMPLE_BATCH_ROWS, produce_sample
from bigdata_assets.crimes.tables import HISTORIC_REPORTS, TABLES
from bigdata_assets.kafka_batches import BatchError
from bigdata_assets.runtime import sources
from bigdata_assets.settings import Settings

__all__ = ["TABLES", "definitions", "discover_partitions"]


def definitions(settings: Settings) -> dg.Definitions:
    """What the branch is made of."""
    return dg.Definitions(
        assets=assets.ASSETS,
        asset_checks=asset_checks.CHECKS,
        jobs=[sensors.learn_crime_batch, sensors.compact_crime_tables],
        sensors=[sensors.new_crimes(settings), sensors.new_months(settings)],
        schedules=[sensors.hourly_compaction],
    )


def discover_partitions(settings: Settings, instance: dg.DagsterInstance) -> dict[dg.PartitionsDefinition, list[str]]:
    """Months that the input has, and batches of all messages that wait; the sample's own are sent first."""
    stream, rows = partitions.stream(settings), 0
    if settings.sources == "sample" and produce_sample(settings) and not stream.keys(instance):
        rows = min(SAMPLE_BATCH_ROWS, settings.batch_rows)
    try:
        stream.add_all(instance, rows)
    except BatchError as error:  # the stream's alone: other branches go on
        click.echo(f"{error} Nothing new of it is read.", err=True)
    months = partitions.available_months(sources(settings))
    instance.add_dynamic_partitions(str(partitions.MONTHS.name), months)
    stored = instance.get_materialized_partitions(HISTORIC_REPORTS.key)
    for month in set(instance.get_dynamic_partitions(str(partitions.MONTHS.name))) - {*months, *stored}:
        instance.delete_dynamic_partition(str(partitions.MONTHS.name), month)  # of other sources, never read
    return {
        partitions.MONTHS: months,
        partitions.CRIME_BATCHES: stream.keys(instance),
    }
