"""Assets of the crimes branch: the portal's history, Kafka batches, arrest models that are tested and then trained."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from pyspark.sql import DataFrame

from bigdata_assets.crimes import learning
from bigdata_assets.crimes.partitions import ARREST_MODELS, CRIME_BATCHES, MONTHS
from bigdata_assets.crimes.tables import (
    ARREST_SCORES,
    BATCH_METRICS,
    BRANCH,
    CRIME_MESSAGES,
    CRIME_REPORTS,
    HISTORIC_REPORTS,
    QUARANTINED_HISTORIC_REPORTS,
    QUARANTINED_MESSAGES,
    REPORT,
)
from bigdata_assets.kafka_batches import Batch, in_order, is_made_anew, lag, parse, planned, topic_of
from bigdata_assets.reports import Report
from bigdata_assets.resources.kafka import (
    MAX_MESSAGE_BYTES,
    MESSAGES,
    KafkaUnreachableError,
    Offsets,
    OffsetsExpiredError,
)
from bigdata_assets.resources.spark import SparkResource
from bigdata_assets.runtime import REFRESHED_BY_INPUT
from bigdata_assets.sources import Sources

WHERE: dict[str, Any] = {"group_name": BRANCH, "owners": [f"team:{BRANCH}"]}
"""Of assets that are no tables."""
BATCHED: dict[str, Any] = {
    "partitions_def": CRIME_BATCHES,
    # A backfill's memory is bounded by the batches of one run.
    "backfill_policy": dg.BackfillPolicy.multi_run(max_partitions_per_run=20),
}
DRIFT_BATCHES = 200


class LearningConfig(dg.Config):
    """Run-time choices of the arrest models."""

    window_models: bool = Field(True, description="Fit and use the Spark models as well as the online one.")
    window_rows: int = Field(20_000, ge=100, le=2_000_000, description="Reports that the Spark models are fitted on.")
    window_trees: int = Field(20, ge=1, le=500, description="Trees of the random forest; boosting makes half as many.")
    refit_rows: int = Field(2_000, ge=1, description="New reports after which the Spark models are fitted anew.")
    history_months: int = Field(24, ge=0, le=600, description="Months before the stream that the online model learns.")


@dg.multi_asset(
    name="historic_reports",
    outs={table.name: dg.AssetOut(**table.asset("1")) for table in (HISTORIC_REPORTS, QUARANTINED_HISTORIC_REPORTS)},
    partitions_def=MONTHS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def historic_reports(
    context: dg.AssetExecutionContext, sources: Sources, spark: SparkResource
) -> tuple[DataFrame, DataFrame]:
    """Reports of the run's months, typed, and the rows of the export that are none."""
    from bigdata_assets.crimes.logic import exports

    columns = pa.schema([HISTORIC_REPORTS.arrow_schema.field(column.name).with_nullable(True) for column in REPORT])
    rows = exports.historic_rows(spark.spark_session, sources.folder(BRANCH), sorted(context.partition_keys), columns)
    return (
        rows.where("reason IS NULL").select(HISTORIC_REPORTS.column_names),
        rows.where("reason IS NOT NULL").select(QUARANTINED_HISTORIC_REPORTS.column_names),
    )


@dg.asset(
    **BATCHED,
    **CRIME_MESSAGES.asset("1", kinds=["kafka"]),
    required_resource_keys={"delta", "kafka"},
)
def crime_messages(context: dg.AssetExecutionContext) -> pa.Table:
    """The messages of the run's offset ranges; from the table itself where the topic has forgotten what is in it."""
    kafka, topic, tables = context.resources.kafka, topic_of(context.partition_keys), []
    made_anew = is_made_anew(context.instance, CRIME_BATCHES, topic, kafka.topic_id(topic))
    with kafka.reader() as reader:
        for key in sorted(context.partition_keys):
            batch = parse(key)
            try:
                if made_anew:
                    raise OffsetsExpiredError(f"{topic} was made anew: what {key} named is not there any more")
                messages = reader.read(topic, batch.partition, batch.first, batch.end)
            except OffsetsExpiredError as error:
                messages = _stored_messages(context.resources.delta, key)
                if not messages.num_rows:
                    raise
                context.log.warning("%s: replayed from %s, since %s", key, CRIME_MESSAGES.path, error)
            tables.append(messages.append_column("batch", pa.array([key] * messages.num_rows, pa.string())))
    held = kafka.offsets(topic)
    for key, messages in zip(sorted(context.partition_keys), tables, strict=True):
        metadata = _freshness(parse(key), messages, held)
        context.add_asset_metadata(metadata, asset_key=CRIME_MESSAGES.key, partition_key=key)
    return pa.concat_tables(tables)


@dg.multi_asset(
    name="crime_reports",
    outs={
        table.name: dg.AssetOut(**table.asset("1", kinds=["python"])) for table in (CRIME_REPORTS, QUARANTINED_MESSAGES)
    },
    **BATCHED,
    ins={"crime_messages": dg.AssetIn(CRIME_MESSAGES.key)},
    required_resource_keys={"delta"},
)
def crime_reports(context: dg.AssetExecutionContext, crime_messages: pa.Table) -> Iterator[dg.Output[pa.Table]]:
    """Each message as a typed report with its version, or as a row of the quarantine."""
    from bigdata_assets.crimes.logic import messages

    order = _order(context)
    good, bad = [], []
    for key in sorted(context.partition_keys, key=order.index):
        rows = crime_messages.filter(pc.equal(crime_messages["batch"], key)).sort_by("kafka_offset")
        reports, refused = messages.decode(rows, MAX_MESSAGE_BYTES)
        good += [{"batch": key, **report} for report in reports]
        bad += [{"batch": key, **row} for row in refused]
    ids = {report["report_id"] for report in good}
    earlier = _versions_before(context.resources.delta, order, min(context.partition_keys, key=order.index), ids)
    numbers = messages.versions((report["report_id"] for report in good), earlier)
    good = [{**report, "version": number} for report, number in zip(good, numbers, strict=True)]
    yield dg.Output(pa.Table.from_pylist(good, CRIME_REPORTS.arrow_schema), CRIME_REPORTS.name)
    yield dg.Output(pa.Table.from_pylist(bad, QUARANTINED_MESSAGES.arrow_schema), QUARANTINED_MESSAGES.name)


@dg.multi_asset(
    name="test_then_train",
    outs={
        "arrest_scores": dg.AssetOut(is_required=False, **ARREST_SCORES.asset("1", kinds=["spark", "scikitlearn"])),
        "arrest_models": dg.AssetOut(
            **WHERE,
            key=ARREST_MODELS,
            is_required=False,
            dagster_type=dg.Nothing,
            kinds={"spark", "scikitlearn"},
            code_version="1",
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
    **BATCHED,
    required_resource_keys={"delta", "snapshots", "spark"},
)
def test_then_train(
    context: dg.AssetExecutionContext, crime_reports: pd.DataFrame, config: LearningConfig
) -> Iterator[dg.Output[Any]]:
    """Score each batch by the models that stood before it, then have them learn it."""
    run = learning.test_then_train(context, crime_reports, config)
    if ARREST_SCORES.key in context.selected_asset_keys:
        yield dg.Output(run.scores, "arrest_scores")
    if ARREST_MODELS in context.selected_asset_keys and run.learnt_all:
        yield dg.Output(None, "arrest_models")


test_then_train.__test__ = False  # type: ignore[attr-defined] # its name looks like a test's


@dg.asset(**BATCHED, **BATCH_METRICS.asset("1", kinds=["python"]))
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
    # Read below, not inputs: before the first batch there are no such tables.
    deps=[BATCH_METRICS.key, CRIME_REPORTS.key],
    required_resource_keys={"delta", "kafka"},
)
def stream_report(context: dg.AssetExecutionContext) -> Report:
    """Metric per batch plots, drift and lag."""
    from bigdata_assets.crimes.logic import stream_report as logic

    keys = in_order(context.instance, CRIME_BATCHES)
    delta = context.resources.delta
    columns = ["batch", "kafka_offset", "occurred_at", "iucr", "location_description", "domestic", "district", "arrest"]
    stored = delta.exists(BATCH_METRICS)
    metrics = delta.read_arrow(BATCH_METRICS) if stored else BATCH_METRICS.arrow_schema.empty_table()
    recent = delta.read_arrow(CRIME_REPORTS, keys[-DRIFT_BATCHES:], columns).to_pandas() if stored else None
    return logic.report(metrics.to_pandas(), recent, keys, _lag(context, keys))


def _stored_messages(delta: Any, key: str) -> pa.Table:
    if not delta.exists(CRIME_MESSAGES):
        return MESSAGES.empty_table()
    return delta.read_arrow(CRIME_MESSAGES, [key]).drop_columns("batch").cast(MESSAGES)


def _freshness(batch: Batch, messages: pa.Table, held: Mapping[int, Offsets]) -> dict[str, Any]:
    """What the UI plots of a batch: its size, its age, and what waits behind it."""
    newest = pc.max(messages["broker_timestamp"]).as_py() if messages.num_rows else None
    return {
        "offsets": f"{batch.first} to {batch.end - 1} of {batch.topic}, partition {batch.partition}",
        "batch_messages": messages.num_rows,
        "batch_bytes": pc.sum(messages["length_bytes"]).as_py() or 0,
        "lag_messages": held[batch.partition].end - batch.end if batch.partition in held else 0,
        **({"age_s": time.time() - newest.timestamp()} if newest else {}),
    }


def _lag(context: dg.AssetExecutionContext, keys: Sequence[str]) -> dict[int, int]:
    """Messages that are in no batch yet, by partition of the last batch's topic; empty where no broker answers."""
    if not keys:
        return {}
    topic = parse(keys[-1]).topic
    try:
        held = context.resources.kafka.offsets(topic)
    except KafkaUnreachableError:
        return {}
    return lag(planned(context.instance, CRIME_BATCHES, topic), held)


def _order(context: dg.AssetExecutionContext) -> list[str]:
    return in_order(context.instance, CRIME_BATCHES, topic_of(context.partition_keys))


def _versions_before(delta: Any, order: Sequence[str], first: str, ids: set[int]) -> dict[int, int]:
    """How many versions of each report came in the batches before one."""
    if not delta.exists(CRIME_REPORTS):
        return {}
    wanted = pc.field("report_id").isin(list(ids))
    rows = delta.read_arrow(CRIME_REPORTS, None, ["batch", "report_id"], wanted)
    known = rows.filter(pc.is_in(rows["batch"], pa.array(order[: order.index(first)], pa.string())))
    counts = known.group_by("report_id").aggregate([("report_id", "count")])
    return dict(zip(counts["report_id"].to_pylist(), counts["report_id_count"].to_pylist(), strict=True))


ASSETS: Sequence[dg.AssetsDefinition] = (
    historic_reports,
    crime_messages,
    crime_reports,
    test_then_train,
    batch_metrics,
    stream_report,
)
