"""New months in Cassandra become partitions."""

import dagster as dg

from bigdata_assets.flow_sensors.partitions import CHANNEL_MONTHS, available_months
from bigdata_assets.resources.cassandra import CassandraResource
from bigdata_assets.resources.keyspaces import CassandraError


@dg.sensor(
    minimum_interval_seconds=600,  # it asks for the keys of all partitions
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Adds months that Cassandra has samples of to the partitions of channel_export; run them as you like.",
)
def new_channel_months(
    context: dg.SensorEvaluationContext, cassandra: CassandraResource
) -> dg.SensorResult | dg.SkipReason:
    """Looks which partitions Cassandra has; it starts nothing."""
    try:
        months = available_months(cassandra)
    except CassandraError as error:
        return dg.SkipReason(str(error))
    known = set(context.instance.get_dynamic_partitions(str(CHANNEL_MONTHS.name)))
    if not (new := [month for month in months if month not in known]):
        return dg.SkipReason(f"{len(known)} months, none new")
    return dg.SensorResult(dynamic_partitions_requests=[CHANNEL_MONTHS.build_add_request(new)])
