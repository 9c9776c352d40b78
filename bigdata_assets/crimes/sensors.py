"""New months become partitions; small files of the stream's tables are joined every hour."""

import dagster as dg

from bigdata_assets.crimes.partitions import MONTHS, available_months
from bigdata_assets.crimes.tables import STREAM_TABLES
from bigdata_assets.sources import Sources


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Adds the months of new export files to the partitions of historic_reports; run them as you like.",
)
def new_crime_months(context: dg.SensorEvaluationContext, sources: Sources) -> dg.SensorResult | dg.SkipReason:
    """Watches the folder of exports; it starts nothing."""
    if sources.is_sample:
        return dg.SkipReason("the sample has the months that it has")
    known = set(context.instance.get_dynamic_partitions(str(MONTHS.name)))
    new = [month for month in available_months(sources) if month not in known]
    if not new:
        return dg.SkipReason(f"{len(known)} months, none new")
    return dg.SensorResult(dynamic_partitions_requests=[MONTHS.build_add_request(new)])


@dg.op(required_resource_keys={"delta"})
def join_small_files(context: dg.OpExecutionContext) -> None:
    """Join the small files that batches leave, and remove what no version of the last week needs."""
    delta = context.resources.delta
    for table in STREAM_TABLES:
        if delta.exists(table):
            context.log.info("%s: %s", table.path, delta.compact(table))


@dg.job(description="Joins the small files of the stream's tables, one of which every batch leaves in each.")
def compact_crime_tables() -> None:
    """One op over all of them."""
    join_small_files()


hourly_compaction = dg.ScheduleDefinition(
    name="compact_crime_tables_hourly",
    job=compact_crime_tables,
    cron_schedule="30 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
