"""The branch's own checks. Each reads its table through the `delta` resource: an input would load every partition."""

from collections.abc import Sequence

import dagster as dg

from bigdata_assets.checks import run_keys, share_result
from bigdata_assets.flow_sensors.tables import CHANNEL_MESSAGES, CHANNEL_SAMPLES, QUARANTINED_CHANNEL_MESSAGES


@dg.asset_check(
    asset=CHANNEL_SAMPLES.key, additional_deps=[QUARANTINED_CHANNEL_MESSAGES.key], required_resource_keys={"delta"}
)
def share_quarantined_in_batches(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The share of each of the run's batches that is no usable sample; the worst batch decides."""
    delta, keys = context.resources.delta, run_keys(context)
    every = delta.rows_by_partition(CHANNEL_MESSAGES, keys)
    bad = delta.rows_by_partition(QUARANTINED_CHANNEL_MESSAGES, keys)
    return share_result({key: (rows - bad[key], bad[key]) for key, rows in every.items()})


CHECKS: Sequence[dg.AssetChecksDefinition] = (share_quarantined_in_batches,)
