"""The branch's own checks. Each reads its table through the `delta` resource: an input would load every partition."""

from collections.abc import Sequence

import dagster as dg
import pyarrow.compute as pc

from bigdata_assets.checks import run_keys, share_result
from bigdata_assets.malicious_urls.partitions import LANDED_FILES, URL_LISTS
from bigdata_assets.malicious_urls.tables import (
    BENIGN,
    LABELLED_URLS,
    PREDICTION_MART,
    PREDICTIONS,
    QUARANTINED_BATCH_URLS,
    QUARANTINED_URLS,
    UNKNOWN_KIND,
    URL_BATCHES,
)

CLASS_SHARE_BOUNDS = (0.005, 0.95)
PREDICTION_VERSIONS = 10
PRIOR_DISTANCE = 0.25
"""Total variation distance between a batch's predicted shares and the training prior that is worth a look."""


@dg.asset_check(asset=LABELLED_URLS.key, blocking=True, required_resource_keys={"delta"})
def urls_are_unique(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """No URL is in a list twice: a repeated one could stand on both sides of a split."""
    counts = context.resources.delta.query(
        LABELLED_URLS,
        "SELECT coalesce(sum(n), 0) AS n, count(*) AS n_distinct "
        "FROM (SELECT count(*) AS n FROM stored GROUP BY list, url)",
        _lists(context),
    )
    rows, distinct = counts["n"][0].as_py(), counts["n_distinct"][0].as_py()
    return dg.AssetCheckResult(passed=rows == distinct, metadata={"repeated_urls": rows - distinct, "threshold": 0})


@dg.asset_check(asset=LABELLED_URLS.key, additional_deps=[QUARANTINED_URLS.key], required_resource_keys={"delta"})
def share_quarantined(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The share of each of the run's lists that could not be used; the worst list decides."""
    delta, keys = context.resources.delta, _lists(context)
    copies = (
        delta.read_arrow(LABELLED_URLS, keys, columns=["list", "copies"])
        .group_by("list")
        .aggregate([("copies", "sum")])
    )
    kept = dict(zip(copies["list"].to_pylist(), copies["copies_sum"].to_pylist(), strict=True))
    refused = delta.rows_by_partition(QUARANTINED_URLS, keys)
    return share_result({name: (kept.get(name, 0), refused[name]) for name in keys})


@dg.asset_check(asset=LABELLED_URLS.key, required_resource_keys={"delta"})
def class_shares(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """In all lists together, each class that is there is neither rare nor nearly all."""
    shares = _class_shares(context)
    low, high = CLASS_SHARE_BOUNDS
    outside = [name for name, share in sorted(shares.items()) if not low <= share <= high]
    return dg.AssetCheckResult(
        passed=not outside,
        metadata={"outside": outside or ["none"], "bounds": f"{low} to {high}", **_floats("share", shares)},
    )


@dg.asset_check(asset=URL_BATCHES.key, additional_deps=[QUARANTINED_BATCH_URLS.key], required_resource_keys={"delta"})
def share_quarantined_in_batches(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The share of each of the run's files that could not be used; the worst file decides."""
    delta = context.resources.delta
    keys = run_keys(context)
    kept, refused = (delta.rows_by_partition(t, keys) for t in (URL_BATCHES, QUARANTINED_BATCH_URLS))
    batches = keys if keys is not None else sorted({*kept, *refused})
    return share_result({batch: (kept[batch], refused[batch]) for batch in batches})


@dg.asset_check(
    asset=PREDICTIONS.key, additional_deps=[URL_BATCHES.key], blocking=True, required_resource_keys={"delta"}
)
def every_url_is_scored(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Each batch has as many predictions as URLs."""
    delta = context.resources.delta
    keys = run_keys(context)
    urls, scored = (delta.rows_by_partition(t, keys) for t in (URL_BATCHES, PREDICTIONS))
    differing = sorted(batch for batch in {*urls, *scored} if urls[batch] != scored[batch])
    return dg.AssetCheckResult(
        passed=not differing,
        metadata={
            "batches_that_differ": differing[:20] or ["none"],
            "urls": sum(urls.values()),
            "predictions": sum(scored.values()),
        },
    )


@dg.asset_check(asset=PREDICTIONS.key, additional_deps=[LABELLED_URLS.key], required_resource_keys={"delta"})
def predicted_shares(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Predicted class shares of each of the run's batches against the training prior; a warning, not an error."""
    delta = context.resources.delta
    prior = _class_shares(context)
    grouped = "SELECT batch, predicted_class, count(*) AS n FROM stored GROUP BY batch, predicted_class"
    by_batch: dict[str, dict[str, int]] = {}
    for found in delta.query(PREDICTIONS, grouped, run_keys(context)).to_pylist():
        by_batch.setdefault(found["batch"], {})[found["predicted_class"]] = found["n"]
    distances = {batch: total_variation(shares, prior) for batch, shares in by_batch.items()}
    far = sorted(batch for batch, distance in distances.items() if distance > PRIOR_DISTANCE)
    return dg.AssetCheckResult(
        passed=not far,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "batches_far_from_the_prior": far[:20] or ["none"],
            "largest_distance": max(distances.values(), default=0.0),
            "threshold": PRIOR_DISTANCE,
            **_floats("prior", prior),
        },
    )


@dg.asset_check(
    asset=PREDICTION_MART.key, additional_deps=[PREDICTIONS.key], blocking=True, required_resource_keys={"delta"}
)
def mart_counts_predictions(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The mart counts each prediction once: of the version of predictions that it was made from, one of the last ones.

    Batches may have been scored since; that makes the mart older, not wrong.
    """
    delta = context.resources.delta
    counted = pc.sum(delta.read_arrow(PREDICTION_MART, columns=["urls"])["urls"]).as_py() or 0
    newest = delta.version(PREDICTIONS)
    # Those of files that are partitions no more are in no mart.
    files = context.instance.get_dynamic_partitions(str(LANDED_FILES.name))
    rows = {
        version: sum(delta.rows_by_partition(PREDICTIONS, files, version).values())
        for version in range(newest, max(newest - PREDICTION_VERSIONS, -1), -1)
    }
    matching = [version for version, count in rows.items() if count == counted]
    return dg.AssetCheckResult(
        passed=bool(matching),
        metadata={
            "counted": counted,
            "predictions": rows[newest],
            "predictions_version": matching[0] if matching else "none fits",
        },
    )


def total_variation(counts: dict[str, int], prior: dict[str, float]) -> float:
    """Half the summed absolute differences between two distributions over classes: 0 alike, 1 disjoint."""
    total = sum(counts.values())
    return sum(abs(counts.get(name, 0) / total - prior.get(name, 0.0)) for name in {*counts, *prior}) / 2


def _all_lists(context: dg.AssetCheckExecutionContext) -> list[str]:
    """Those that are partitions: rows of others, and of before there were any, are not read."""
    return sorted(context.instance.get_dynamic_partitions(str(URL_LISTS.name)))


def _lists(context: dg.AssetCheckExecutionContext) -> list[str]:
    """The run's; all where the check is run by itself."""
    keys = run_keys(context)
    return _all_lists(context) if keys is None else keys


def _class_shares(context: dg.AssetCheckExecutionContext) -> dict[str, float]:
    """Of the labelled URLs of all lists, those of unknown kind shared out among the kinds, as the classifier does it.

    One short column, without Spark: a query of a step's own takes seconds to begin.
    """
    lists = _all_lists(context)
    types = context.resources.delta.read_arrow(LABELLED_URLS, lists, columns=["type"])["type"]
    shares = {row["values"].as_py(): row["counts"].as_py() / len(types) for row in pc.value_counts(types)}
    kinds = {name: share for name, share in shares.items() if name not in (BENIGN, UNKNOWN_KIND)}
    if kinds:
        grown = 1 + shares.pop(UNKNOWN_KIND, 0.0) / sum(kinds.values())
        shares |= {name: share * grown for name, share in kinds.items()}
    return shares


def _floats(prefix: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{prefix} {name}": value for name, value in sorted(values.items())}


CHECKS: Sequence[dg.AssetChecksDefinition] = (
    urls_are_unique,
    share_quarantined,
    class_shares,
    share_quarantined_in_batches,
    every_url_is_scored,
    predicted_shares,
    mart_counts_predictions,
)
