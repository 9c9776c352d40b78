"""Assets of the crimes branch: the portal's history, Kafka batches, arrest models that are tested and then trained."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from pyspark.sql import DataFrame

from bigdata_assets.catalogue import table_asset
from bigdata_assets.crimes import prequential_step
from bigdata_assets.crimes.partitions import ARREST_MODELS, CRIME_BATCHES, CRIMES, MONTHS
from bigdata_assets.crimes.source import SOURCE
from bigdata_assets.crimes.tables import (
    ARREST_SCORES,
    BATCH_METRICS,
    BRANCH,
    CRIME_MESSAGES,
    CRIME_REPORTS,
    HISTORIC_REPORTS,
    QUARANTINED_HISTORIC_REPORTS,
    QUARANTINED_MESSAGES,
)
from bigdata_assets.reports import Report
from bigdata_assets.resources.kafka import MAX_MESSAGE_BYTES, KafkaUnreachableError
from bigdata_assets.resources.spark import SparkResource
from bigdata_assets.runtime import REFRESHED_BY_INPUT
from bigdata_assets.sources import Sources
from bigdata_assets.streams.planner import Planner

WHERE: dict[str, Any] = {"group_name": BRANCH, "owners": [f"team:{BRANCH}"]}
"""Of assets that are no tables."""
DRIFT_BATCHES = 200


class LearningConfig(dg.Config):
    """Run-time choices of the arrest models."""

    window_models: bool = Field(True, description="Fit and use the Spark models as well as the online one.")
    window_rows: int = Field(20_000, ge=100, le=2_000_000, description="Reports that the Spark models are fitted on.")
    rate_rows: int = Field(
        300_000, ge=0, le=20_000_000, description="Reports before those, that their arrest rates are learnt from."
    )
    window_trees: int = Field(20, ge=1, le=500, description="Trees of the random forest, and of boosting.")
    refit_rows: int | None = Field(
        None, ge=1, description="New reports after which the Spark models are fitted anew; default: CRIMES_REFIT_ROWS."
    )
    history_months: int = Field(24, ge=0, le=600, description="Months before the stream that the online model learns.")


@dg.multi_asset(
    name="historic_reports",
    outs={
        table.name: dg.AssetOut(**table_asset(table, "1")) for table in (HISTORIC_REPORTS, QUARANTINED_HISTORIC_REPORTS)
    },
    partitions_def=MONTHS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def historic_reports(
    context: dg.AssetExecutionContext, sources: Sources, spark: SparkResource
) -> Iterator[dg.Output[DataFrame]]:
    """Reports of the run's months, typed, and the rows of the export that are none."""
    from bigdata_assets.crimes.logic import exports
    from bigdata_assets.reading import once

    months, folder = sorted(context.partition_keys), sources.folder(SOURCE)
    with once(exports.historic_rows(spark.spark_session, folder, months)) as rows:
        reports, refused = rows.where("reason IS NULL"), exports.refused_rows(rows)
        for table, its in ((HISTORIC_REPORTS, reports), (QUARANTINED_HISTORIC_REPORTS, refused)):
            yield dg.Output(its.select(table.column_names), table.name)


@dg.multi_asset(
    name="crime_reports",
    outs={
        table.name: dg.AssetOut(**table_asset(table, "1", kinds=["python"]))
        for table in (CRIME_REPORTS, QUARANTINED_MESSAGES)
    },
    partitions_def=CRIME_BATCHES,
    ins={"crime_messages": dg.AssetIn(CRIME_MESSAGES.key)},
    required_resource_keys={"delta"},
)
def crime_reports(context: dg.AssetExecutionContext, crime_messages: pa.Table) -> Iterator[dg.Output[pa.Table]]:
    """Each message as a typed report with its version, or as a row of the quarantine."""
    from bigdata_assets.crimes.logic import messages

    order = CRIMES.order_for(context.instance, keys := context.partition_keys)
    keys = sorted(keys, key=order.index)
    rows = (crime_messages.filter(pc.equal(crime_messages["batch"], key)).sort_by("kafka_offset") for key in keys)
    decoded = [messages.REPORTS.decode(batch, MAX_MESSAGE_BYTES) for batch in rows]
    good, bad = (pa.concat_tables(tables) for tables in zip(*decoded, strict=True))
    ids = good["report_id"].to_pylist()
    numbers = messages.versions(ids, _versions_before(context.resources.delta, order, keys[0], set(ids)))
    yield dg.Output(good.append_column("version", pa.array(numbers, pa.int32())), CRIME_REPORTS.name)
    yield dg.Output(bad, QUARANTINED_MESSAGES.name)


@dg.multi_asset(
    name="test_then_train",
    outs={
        "arrest_scores": dg.AssetOut(
            is_required=False, **table_asset(ARREST_SCORES, "1", kinds=["spark", "scikitlearn"])
        ),
        "arrest_models": dg.AssetOut(
            **WHERE,
            key=ARREST_MODELS,
            is_required=False,
            dagster_type=dg.Nothing,
            kinds={"spark", "scikitlearn"},
            code_version="2",
            description=(
                "The arrest models after each batch: a snapshot that knows this batch and all before it, and nothing "
                "later. Not materialised while an earlier batch is missing: training does not jump a gap."
            ),
        ),
    },
    internal_asset_deps={
        "arrest_scores": {CRIME_REPORTS.key, HISTORIC_REPORTS.key},
        "arrest_models": {CRIME_REPORTS.key, HISTORIC_REPORTS.key, ARREST_SCORES.key},
    },
    ins={"crime_reports": dg.AssetIn(CRIME_REPORTS.key)},
    deps=[dg.AssetDep(HISTORIC_REPORTS.key, partition_mapping=dg.AllPartitionMapping())],
    can_subset=True,
    partitions_def=CRIME_BATCHES,
    required_resource_keys={"delta", "settings", "snapshots", "spark"},
)
def test_then_train(
    context: dg.AssetExecutionContext, crime_reports: pd.DataFrame, config: LearningConfig
) -> Iterator[dg.Output[Any]]:
    """Score each batch by the models that stood before it, then have them learn it."""
    run = prequential_step.test_then_train(context, crime_reports, config)
    if ARREST_SCORES.key in context.selected_asset_keys:
        yield dg.Output(run.scores, "arrest_scores")
    if ARREST_MODELS in context.selected_asset_keys and run.learnt_all:
        yield dg.Output(None, "arrest_models")


test_then_train.__test__ = False  # type: ignore[attr-defined] # its name looks like a test's


@dg.asset(**table_asset(BATCH_METRICS, "1", kinds=["python"]), partitions_def=CRIME_BATCHES)
def batch_metrics(arrest_scores: pd.DataFrame, crime_reports: pd.DataFrame) -> pd.DataFrame:
    """Figures of each model on each batch's new reports."""
    from bigdata_assets.crimes.logic import metrics

    return metrics.by_batch(arrest_scores, crime_reports, BATCH_METRICS.column_names)


@dg.asset(
    **WHERE,
    key_prefix=BRANCH,
    io_manager_key="report",
    kinds={"python", "matplotlib"},
    code_version="1",
    description=(
        "The stream so far: each model's rolling and cumulative figures beside the baselines, drift of labels and "
        "features, lag and age of the batches. Made anew as batches come."
    ),
    automation_condition=REFRESHED_BY_INPUT,
    # Read below, not inputs, which are to be there: before the first batch there are no such tables.
    deps=[BATCH_METRICS.key, CRIME_REPORTS.key],
    required_resource_keys={"delta", "kafka", "settings"},
)
def stream_report(context: dg.AssetExecutionContext) -> Report:
    """Metric per batch plots, drift and lag."""
    from bigdata_assets.crimes.logic import stream_report as logic

    keys = CRIMES.order(context.instance)
    delta = context.resources.delta
    columns = ["batch", "kafka_offset", "occurred_at", "iucr", "location_description", "domestic", "district", "arrest"]
    versions = {table.path: delta.version(table) for table in (BATCH_METRICS, CRIME_REPORTS) if delta.exists(table)}
    metrics = delta.read_arrow(BATCH_METRICS, version=versions.get(BATCH_METRICS.path))
    recent = delta.read_arrow(CRIME_REPORTS, keys[-DRIFT_BATCHES:], columns, version=versions.get(CRIME_REPORTS.path))
    report = logic.report(metrics.to_pandas(), recent.to_pandas(), keys, _lag(context))
    return replace(report, provenance={**report.provenance, "inputs": versions})


def _lag(context: dg.AssetExecutionContext) -> dict[int, int]:
    """Messages that are in no batch yet, by partition; empty where no broker answers."""
    try:
        return Planner(CRIMES, context.resources.settings, context.resources.kafka).lag(context.instance)
    except KafkaUnreachableError:
        return {}


def _versions_before(delta: Any, order: Sequence[str], first: str, ids: set[int]) -> dict[int, int]:
    """How many versions of each report came in the batches before one."""
    wanted = pc.field("report_id").isin(list(ids))
    rows = delta.read_arrow(CRIME_REPORTS, None, ["batch", "report_id"], wanted)
    known = rows.filter(pc.is_in(rows["batch"], pa.array(order[: order.index(first)], pa.string())))
    counts = known.group_by("report_id").aggregate([("report_id", "count")])
    return dict(zip(counts["report_id"].to_pylist(), counts["report_id_count"].to_pylist(), strict=True))


ASSETS: Sequence[dg.AssetsDefinition] = (
    historic_reports,
    crime_reports,
    test_then_train,
    batch_metrics,
    stream_report,
)
