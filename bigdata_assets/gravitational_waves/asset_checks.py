"""The branch's own checks."""

from collections.abc import Sequence

import dagster as dg
import pyarrow.compute as pc

from bigdata_assets.checks import run_keys, share_result
from bigdata_assets.gravitational_waves.source import SOURCE
from bigdata_assets.gravitational_waves.tables import (
    CHIRP_PREDICTIONS,
    CHIRP_SVC_TUNING,
    EVENT_PREDICTIONS,
    GLITCH_METADATA,
    QUARANTINED_METADATA,
    QUARANTINED_SPECTROGRAMS,
    QUARANTINED_STRAIN,
    SPECTROGRAMS,
    STRAIN,
)

MODELS = ("chirp_svc", "rbf_svm", "glitch_cnn")


@dg.asset_check(asset=SPECTROGRAMS.key, blocking=True, required_resource_keys={"delta"})
def a_glitch_is_in_one_split(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """No view is there twice, and no glitch is in two splits or classes: it could be learnt and scored."""
    twice = """
        SELECT id FROM stored GROUP BY id
        HAVING count(*) > count(DISTINCT view_s) OR count(DISTINCT label || '/' || sample_type) > 1
        ORDER BY id LIMIT 20
    """
    wrong = context.resources.delta.query(SPECTROGRAMS, twice)["id"].to_pylist()
    return dg.AssetCheckResult(passed=not wrong, metadata={"glitches": wrong or ["none"]})


@dg.asset_check(
    asset=SPECTROGRAMS.key, additional_deps=[QUARANTINED_SPECTROGRAMS.key], required_resource_keys={"delta"}
)
def share_quarantined_spectrograms(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The share of the run's classes' datasets that are no usable spectrogram; the worst class decides."""
    delta, keys = context.resources.delta, run_keys(context)
    kept, refused = (delta.rows_by_partition(table, keys) for table in (SPECTROGRAMS, QUARANTINED_SPECTROGRAMS))
    return share_result({label: (kept[label], refused[label]) for label in {*kept, *refused}})


@dg.asset_check(asset=SPECTROGRAMS.key, required_resource_keys={"sources"})
def labels_are_known(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The file has no group beside the 22 classes: what it has there is in no partition."""
    from bigdata_assets.gravitational_waves.logic.training import training_set

    unknown = training_set.unknown_labels(context.resources.sources.folder(SOURCE) / training_set.FILE)
    return dg.AssetCheckResult(
        passed=not unknown,
        metadata={"unknown": [f"{label}: {count} glitches" for label, count in unknown.items()] or ["none"]},
    )


@dg.asset_check(asset=GLITCH_METADATA.key, additional_deps=[QUARANTINED_METADATA.key], required_resource_keys={"delta"})
def share_quarantined_metadata(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The share of the metadata file's rows that could not be used."""
    delta = context.resources.delta
    kept, refused = (delta.read_arrow(table).num_rows for table in (GLITCH_METADATA, QUARANTINED_METADATA))
    return share_result({GLITCH_METADATA.name: (kept, refused)})


@dg.asset_check(asset=CHIRP_SVC_TUNING.key, blocking=True, required_resource_keys={"delta"})
def one_trial_is_chosen(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Exactly one setting feeds chirp_svc."""
    chosen = pc.sum(context.resources.delta.read_arrow(CHIRP_SVC_TUNING)["chosen"]).as_py() or 0
    return dg.AssetCheckResult(passed=chosen == 1, metadata={"chosen": chosen})


@dg.asset_check(
    asset=CHIRP_PREDICTIONS.key, additional_deps=[SPECTROGRAMS.key], blocking=True, required_resource_keys={"delta"}
)
def every_glitch_is_scored_once(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Each model has one row for each glitch of spectrograms."""
    delta = context.resources.delta
    glitches = set(delta.read_arrow(SPECTROGRAMS, columns=["id"])["id"].to_pylist())
    rows = delta.read_arrow(CHIRP_PREDICTIONS, columns=["model", "id"]).to_pandas()
    scored = {model: rows["id"][rows["model"] == model] for model in MODELS}
    wrong = [model for model, ids in scored.items() if set(ids) != glitches or not ids.is_unique]
    return dg.AssetCheckResult(
        passed=not wrong, metadata={"glitches": len(glitches), "models_that_differ": wrong or ["none"]}
    )


@dg.asset_check(asset=STRAIN.key, additional_deps=[QUARANTINED_STRAIN.key], required_resource_keys={"delta"})
def events_have_strain(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Every event and detector of the run has strain that can be used."""
    refused = context.resources.delta.read_arrow(QUARANTINED_STRAIN, run_keys(context)).to_pylist()
    return dg.AssetCheckResult(
        passed=not refused,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={row["event_detector"]: row["reason"] for row in refused} or {"refused": "none"},
    )


@dg.asset_check(asset=EVENT_PREDICTIONS.key, required_resource_keys={"delta"})
def only_events_are_chirps(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Each model calls the run's events chirps, and none of the background beside them."""
    from bigdata_assets.gravitational_waves.logic.strain import scans

    predicted = context.resources.delta.read_arrow(EVENT_PREDICTIONS, run_keys(context)).to_pandas()
    return dg.AssetCheckResult(
        passed=bool((predicted["is_chirp"] == predicted["is_event"]).all()),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            model: ", ".join(f"{name} {count}" for name, count in row.items())
            for model, row in scans.agreement(predicted).items()
        },
    )


CHECKS: Sequence[dg.AssetChecksDefinition] = (
    a_glitch_is_in_one_split,
    share_quarantined_spectrograms,
    labels_are_known,
    share_quarantined_metadata,
    one_trial_is_chosen,
    every_glitch_is_scored_once,
    events_have_strain,
    only_events_are_chirps,
)
