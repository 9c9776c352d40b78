"""The branch's own checks. Each reads its table through the `delta` resource: an input would load every partition."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from bigdata_assets.checks import run_keys, share_result
from bigdata_assets.crimes.partitions import ARREST_MODELS, CRIMES
from bigdata_assets.crimes.tables import (
    ARREST_SCORES,
    CRIME_REPORTS,
    HISTORIC_REPORTS,
    QUARANTINED_HISTORIC_REPORTS,
    QUARANTINED_MESSAGES,
)


@dg.asset_check(
    asset=HISTORIC_REPORTS.key, additional_deps=[QUARANTINED_HISTORIC_REPORTS.key], required_resource_keys={"delta"}
)
def share_quarantined_in_months(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The share of each of the run's months that could not be used; the worst month decides."""
    return _quarantined(context, HISTORIC_REPORTS, QUARANTINED_HISTORIC_REPORTS)


@dg.asset_check(asset=CRIME_REPORTS.key, additional_deps=[QUARANTINED_MESSAGES.key], required_resource_keys={"delta"})
def share_quarantined_in_batches(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The share of each of the run's batches that is no usable report; the worst batch decides."""
    return _quarantined(context, CRIME_REPORTS, QUARANTINED_MESSAGES)


@dg.asset_check(
    asset=ARREST_SCORES.key, additional_deps=[CRIME_REPORTS.key], blocking=True, required_resource_keys={"delta"}
)
def every_report_is_scored(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Each model that scored a batch scored all its reports."""
    delta, keys = context.resources.delta, run_keys(context)
    reports = delta.rows_by_partition(CRIME_REPORTS, keys)
    scored = delta.read_arrow(ARREST_SCORES, keys, ["batch", "model"]).group_by(["batch", "model"])
    counts = scored.aggregate([([], "count_all")]).to_pylist()
    differing = {row["batch"] for row in counts if row["count_all"] != reports[row["batch"]]}
    differing |= set(reports) - {row["batch"] for row in counts}
    return dg.AssetCheckResult(
        passed=not differing,
        metadata={"batches_that_differ": sorted(differing)[:20] or ["none"], "reports": sum(reports.values())},
    )


@dg.asset_check(asset=ARREST_SCORES.key)
def training_keeps_up(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """No batch waits to be learnt because one before it is missing; a warning, not an error.

    On the scores: the models of such a batch are not materialised, and a check on them would not be run.
    """
    instance = context.instance
    keys = CRIMES.order(instance)
    learnt = instance.get_materialized_partitions(ARREST_MODELS)
    stored = instance.get_materialized_partitions(CRIME_REPORTS.key)
    waiting = [key for key in keys if key in stored and key not in learnt]
    missing = [key for key in keys if key not in stored]
    return dg.AssetCheckResult(
        passed=not waiting,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "batches_that_wait": len(waiting),
            "waiting_for": missing[0] if missing and waiting else "none",
            "batches_learnt": len(learnt),
        },
    )


def _quarantined(context: dg.AssetCheckExecutionContext, good: Any, bad: Any) -> dg.AssetCheckResult:
    delta, keys = context.resources.delta, run_keys(context)
    kept, refused = (delta.rows_by_partition(table, keys) for table in (good, bad))
    return share_result({key: (kept[key], refused[key]) for key in keys or sorted({*kept, *refused})})


CHECKS: Sequence[dg.AssetChecksDefinition] = (
    share_quarantined_in_months,
    share_quarantined_in_batches,
    every_report_is_scored,
    training_keeps_up,
)
