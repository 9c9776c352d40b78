"""New export files become months."""

import dagster as dg

from bigdata_assets.crimes.partitions import MONTHS, available_months
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
