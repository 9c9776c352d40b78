"""Assets of the flow_sensors branch: Cassandra's samples, their way through Kafka, windows, and anomaly models."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pydantic import Field
from pyspark.sql import DataFrame
from tqdm import tqdm

from bigdata_assets.catalogue import table_asset
from bigdata_assets.flow_sensors.partitions import ANOMALY_MODELS, CHANNEL_BATCHES, CHANNEL_MONTHS, SENSORS
from bigdata_assets.flow_sensors.tables import (
    ANOMALY_SCORES,
    BRANCH,
    CHANNEL_EXPORT,
    CHANNEL_MESSAGES,
    CHANNEL_PUBLICATIONS,
    CHANNEL_QUALITY,
    CHANNEL_SAMPLES,
    HELD_OUT_SCORES,
    MODELS,
    MODELS_CODE,
    QUARANTINED_CHANNEL_MESSAGES,
    QUARANTINED_CHANNEL_ROWS,
    SITE_CORRELATIONS,
    SITES,
    WINDOWS,
)
from bigdata_assets.io_managers.staging import StagedFiles
from bigdata_assets.reports import Report
from bigdata_assets.resources.cassandra import CassandraResource
from bigdata_assets.resources.kafka import MAX_MESSAGE_BYTES
from bigdata_assets.runs.ranges import tell_partitions
from bigdata_assets.runtime import REFRESHED_BY_INPUT, REFRESHED_ONCE_ALL_IS_THERE
from bigdata_assets.sources import SAMPLE_EFFORT
from bigdata_assets.storage import place

WHERE: dict[str, Any] = {"group_name": BRANCH, "owners": [f"team:{BRANCH}"], "key_prefix": BRANCH}
"""Of assets that are no tables."""
ALL = dg.AllPartitionMapping()
EXAMPLE_SAMPLES = 2_000
DAILY_VALUES = """SELECT site, channel, date_trunc('day', observed_at) AS day,
    count(DISTINCT CASE WHEN value IS NOT NULL THEN observed_at END) AS "values"
    FROM stored GROUP BY site, channel, date_trunc('day', observed_at)"""


class ExportConfig(dg.Config):
    """How months are read out of Cassandra."""

    splits: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Parts of the token ring, which Spark's workers read at once. Default: as this machine has cores.",
    )
    csv: bool = Field(False, description="Also write a CSV file per month, site and channel, below exports/.")


class PublicationConfig(dg.Config):
    """Where the export goes."""

    publish: bool | None = Field(
        None, description="Send it. Default: only to the broker that this project has started, to no other one unasked."
    )
    partitions: int = Field(1, ge=1, le=999, description="Of a new topic.")


AFTER_EXPORTS: dict[str, Any] = {
    "deps": [dg.AssetDep(CHANNEL_EXPORT.key, partition_mapping=ALL)],
    "automation_condition": REFRESHED_BY_INPUT,
}
"""What is loaded is exported: an export is when to look whether there is more beside the samples."""


@dg.asset(**table_asset(SITES, "1", kinds=["cassandra"]), **AFTER_EXPORTS)
def sites(cassandra: CassandraResource) -> pd.DataFrame:
    """Sites of the table sites, and those that have samples alone."""
    with cassandra.keyspace_session() as keyspace:
        known = {row["site"]: row for row in keyspace.rows("sites")}
        nothing = dict.fromkeys(SITES.column_names)
        names = {site for site, _, _ in keyspace.partitions()} | set(known)
    rows = [{**nothing, **known.get(name, {}), "site": name} for name in sorted(names)]
    return pd.DataFrame(rows, columns=SITES.column_names)


@dg.asset(**table_asset(QUARANTINED_CHANNEL_ROWS, "1", kinds=["cassandra"]), **AFTER_EXPORTS)
def quarantined_channel_rows(cassandra: CassandraResource) -> pd.DataFrame:
    """What the loading of files has refused, as it is kept beside the samples."""
    with cassandra.keyspace_session() as keyspace:
        rows = [row | {"channel": row["channel"] or None} for row in keyspace.rows("refused")]
    return pd.DataFrame(rows, columns=QUARANTINED_CHANNEL_ROWS.column_names)


@dg.asset(
    **table_asset(CHANNEL_EXPORT, "1", kinds=["cassandra", "spark"]),
    partitions_def=CHANNEL_MONTHS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    required_resource_keys={"delta", "spark", "cassandra", "settings"},
)
def channel_export(context: dg.AssetExecutionContext, config: ExportConfig) -> StagedFiles:
    """Samples of the run's months, read and written by Spark's workers."""
    from bigdata_assets.flow_sensors import exporting
    from bigdata_assets.reading import stage_all

    months, resources = frozenset(context.partition_keys), context.resources
    connection = resources.cassandra.connection()
    if config.csv:
        folder = place(resources.settings.storage) / "exports" / BRANCH
        with resources.cassandra.keyspace_session() as keyspace:
            context.log.info("%d CSV files below %s", exporting.write_csv(keyspace, months, folder), folder)
    n = config.splits or os.cpu_count() or 1
    splits = resources.spark.spark_session.range(0, n, 1, n)
    read = partial(exporting.read, connection, months, n)
    return stage_all(splits, read, resources.delta.staging(CHANNEL_EXPORT))


@dg.asset(
    **table_asset(CHANNEL_PUBLICATIONS, "1", kinds=["kafka"]),
    partitions_def=CHANNEL_MONTHS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=[CHANNEL_EXPORT.key],
    required_resource_keys={"delta", "kafka", "settings"},
)
def channel_publications(context: dg.AssetExecutionContext, config: PublicationConfig) -> pa.Table:
    """Sends what is new or other in the run's months since they were sent last."""
    from bigdata_assets.flow_sensors import publishing

    delta, kafka, settings = (context.resources.delta, context.resources.kafka, context.resources.settings)
    topic, months = settings.topic(SENSORS.name), sorted(context.partition_keys)
    if not publishing.is_wanted(config.publish, settings, kafka):
        context.log.warning(
            "nothing is sent: Kafka at %s is not the broker that this project started. Run this with `publish: true` "
            "to have months sent there, or replay them by `bigdata-assets produce sensors`",
            settings.kafka_servers,
        )
        return delta.read_arrow(CHANNEL_PUBLICATIONS, months)  # what was sent stays known
    kafka.create_topic(topic, config.partitions)
    return publishing.publish(delta, kafka, topic, months, context.run_id)


@dg.multi_asset(
    name="channel_samples",
    outs={
        table.name: dg.AssetOut(**table_asset(table, "1", kinds=["python"]))
        for table in (CHANNEL_SAMPLES, QUARANTINED_CHANNEL_MESSAGES)
    },
    partitions_def=CHANNEL_BATCHES,
    ins={"channel_messages": dg.AssetIn(CHANNEL_MESSAGES.key)},
    required_resource_keys={"delta"},
)
def channel_samples(context: dg.AssetExecutionContext, channel_messages: pa.Table) -> Iterator[dg.Output[pa.Table]]:
    """Each message that tells something new as a sample with its version, or as a row of the quarantine."""
    from bigdata_assets.flow_sensors.logic import messages

    keys = SENSORS.in_order(context.instance, context.partition_keys, CHANNEL_SAMPLES.key)
    earlier = SENSORS.before(context.instance, keys[0])
    rows = (channel_messages.filter(pc.equal(channel_messages["batch"], key)).sort_by("kafka_offset") for key in keys)
    decoded = [messages.SAMPLES.decode(batch, MAX_MESSAGE_BYTES) for batch in rows]
    good, bad = (pa.concat_tables(tables) for tables in zip(*decoded, strict=True))
    good = good.set_column(
        good.schema.get_field_index("observed_at"), "observed_at", messages.to_ms(good["observed_at"])
    )
    known = messages.known(_before(context.resources.delta, earlier, good))
    versions = pa.array(messages.versions(good, known), pa.int32())
    kept = good.append_column("version", versions).filter(pc.is_valid(versions))
    repeats = pc.value_counts(good["batch"].filter(pc.is_null(versions))).to_pylist()
    told = dict.fromkeys(keys, 0) | {entry["values"]: entry["counts"] for entry in repeats}
    tell_partitions(
        context.get_step_execution_context(), CHANNEL_SAMPLES.key, {key: {"repeats": n} for key, n in told.items()}
    )
    yield dg.Output(kept, CHANNEL_SAMPLES.name)
    yield dg.Output(bad, QUARANTINED_CHANNEL_MESSAGES.name)


def _before(delta: Any, batches: Sequence[str], samples: pa.Table) -> list[dict[str, Any]]:
    """Versions of samples that came in earlier batches."""
    from bigdata_assets.flow_sensors.logic import messages

    where = ds.scalar(True)
    for name in messages.IDENTITY:
        where &= ds.field(name).isin(pc.unique(samples[name]))
    rows = delta.read_arrow(CHANNEL_SAMPLES, None, ["batch", "version", *messages.IDENTITY, *messages.VALUES], where)
    rows = rows.filter(pc.is_in(rows["batch"], pa.array(batches, pa.string()))).to_pylist()
    return list(rows)


@dg.asset(
    **table_asset(WINDOWS, "1"),
    deps=[dg.AssetDep(CHANNEL_SAMPLES.key, partition_mapping=ALL)],
    required_resource_keys={"delta", "settings"},
)
def windows(context: dg.AssetExecutionContext, sites: pd.DataFrame) -> DataFrame:
    """Each site's samples side by side, in stretches without a gap; a site is a task of a Spark worker."""
    from bigdata_assets.flow_sensors.logic import series

    delta, settings = context.resources.delta, context.resources.settings
    labelled_by = _labelled_by(sites)

    def of_site(samples: pa.Table) -> pa.Table:
        site = samples["site"][0].as_py()
        aligned = series.align(site, series.current(samples.to_pandas()), labelled_by.get(site))
        return series.to_rows(aligned, settings.window, settings.window_step).cast(WINDOWS.arrow_schema)

    return delta.read(CHANNEL_SAMPLES).groupBy("site").applyInArrow(of_site, WINDOWS.spark_schema)


def _labelled_by(sites: pd.DataFrame) -> dict[str, str | None]:
    return {site: by or None for site, by in zip(sites["site"], sites["labelled_by"], strict=True)}


@dg.asset(
    **table_asset(CHANNEL_QUALITY, "1"),
    deps=[dg.AssetDep(CHANNEL_SAMPLES.key, partition_mapping=ALL)],
    required_resource_keys={"delta", "settings"},
)
def channel_quality(
    context: dg.AssetExecutionContext, sites: pd.DataFrame, quarantined_channel_rows: pd.DataFrame
) -> DataFrame:
    """What looks wrong in each channel; a site is a task of a Spark worker."""
    from bigdata_assets.flow_sensors.logic import quality
    from bigdata_assets.flow_sensors.logic.channel_files import AGAIN

    delta, length = context.resources.delta, context.resources.settings.window
    labelled_by = _labelled_by(sites)
    again = quarantined_channel_rows[quarantined_channel_rows["reason"] == AGAIN]
    repeated = Counter(zip(again["site"], again["channel"], strict=True))

    def of_site(samples: pd.DataFrame) -> pd.DataFrame:
        return quality.channel_quality(samples, repeated, length, labelled_by)

    return delta.read(CHANNEL_SAMPLES).groupBy("site").applyInPandas(of_site, CHANNEL_QUALITY.spark_schema)


@dg.asset(
    **WHERE,
    io_manager_key="report",
    kinds={"python", "matplotlib"},
    code_version="1",
    description="What channels have: coverage over time, gaps, flat lines, spikes, and the worst channels' signals.",
    automation_condition=REFRESHED_ONCE_ALL_IS_THERE,
    required_resource_keys={"delta", "settings"},
)
def channel_quality_report(
    context: dg.AssetExecutionContext, channel_quality: pd.DataFrame, quarantined_channel_rows: pd.DataFrame
) -> Report:
    """Pictures of the channels."""
    from bigdata_assets.flow_sensors.logic import quality, quality_report

    delta, length = context.resources.delta, context.resources.settings.window
    examples = {}
    for site, channel in quality_report.worst(channel_quality):
        of_channel = (ds.field("site") == site) & (ds.field("channel") == channel)
        samples = delta.read_arrow(CHANNEL_SAMPLES, None, None, of_channel).to_pandas()
        examples[site, channel] = quality.example(samples, length, EXAMPLE_SAMPLES)
    days = delta.query(CHANNEL_SAMPLES, DAILY_VALUES).to_pandas()
    return quality_report.report(channel_quality, quarantined_channel_rows, examples, days)


class FitConfig(dg.Config):
    """How much is spent on a model."""

    effort: Literal["fast", "full"] = Field("fast", description="Epochs, windows and trees: minutes, or an hour.")
    most_samples: int = Field(
        2_000_000, ge=1_000, description="Times of all sites, the newest of each, that are read: bounds the memory."
    )
    seed: int = Field(0, description="Of everything random.")


class HeldOutConfig(FitConfig):
    """How sites are held out."""

    sites: int | None = Field(
        None,
        ge=1,
        le=1_000,
        description="How many, those with most anomalies first. Default: 10; sample: 1, and no networks.",
    )


@dg.asset(
    **WHERE,
    io_manager_key="model_by_partition",
    kinds={"keras", "scikitlearn", "lightgbm"},
    code_version=MODELS_CODE,
    description=(
        "An anomaly model of each kind, the rule among them: fitted on the first part of each season, its threshold "
        "chosen on the next, nothing seen of the last."
    ),
    partitions_def=ANOMALY_MODELS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=[WINDOWS.key],
    required_resource_keys={"delta", "settings", "sources"},
)
def anomaly_models(context: dg.AssetExecutionContext, config: FitConfig) -> dict[str, Any]:
    """Models of the run's partitions, one after the other in this process."""
    from bigdata_assets.flow_sensors import fitting

    series = fitting.series_of(context.resources.delta, config.most_samples)
    effort = fitting.effort(config.effort, context.resources.settings, context.resources.sources)
    names = [name for name in MODELS if name in context.partition_keys]
    settings = "sample" if context.resources.sources.is_sample else config.effort
    models, refused = fitting.trained(names, series, effort, config.seed, settings)
    for name, why in refused.items():
        context.log.error("%s is not there: %s", name, why)
    told = {name: {"not_fitted": why} for name, why in refused.items()}
    tell_partitions(context.get_step_execution_context(), context.asset_key, told)
    return models


@dg.asset(
    **table_asset(HELD_OUT_SCORES, "1", kinds=["keras", "scikitlearn", "lightgbm"]),
    partitions_def=ANOMALY_MODELS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=[WINDOWS.key],
    required_resource_keys={"delta", "settings", "sources"},
)
def held_out_scores(context: dg.AssetExecutionContext, config: HeldOutConfig) -> pa.Table:
    """Each site scored by models that were fitted on the others."""
    from bigdata_assets.flow_sensors import fitting

    sources = context.resources.sources
    series = fitting.series_of(context.resources.delta, config.most_samples)
    effort = fitting.effort(config.effort, context.resources.settings, sources)
    names = [name for name in MODELS if name in context.partition_keys]
    if sources.is_sample and config.sites is None:  # a minute of networks, whose figures would mean nothing
        names = [name for name in names if name not in fitting.NETWORKS]
        context.log.info("on the sample no networks: %s", SAMPLE_EFFORT)
    return fitting.held_out(names, series, sources.effort(config.sites, 10), effort, config.seed)


@dg.asset(
    **table_asset(ANOMALY_SCORES, "1", kinds=["keras", "scikitlearn", "lightgbm"]),
    partitions_def=CHANNEL_BATCHES,
    ins={"anomaly_models": dg.AssetIn(dg.AssetKey([BRANCH, "anomaly_models"]), partition_mapping=ALL)},
    deps=[CHANNEL_SAMPLES.key],
    required_resource_keys={"delta", "settings"},
)
def anomaly_scores(context: dg.AssetExecutionContext, anomaly_models: dict[str, Any]) -> pa.Table:
    """What each model that there is says of the run's batches."""
    from bigdata_assets.flow_sensors import fitting, scoring

    if not anomaly_models:
        context.log.warning("no model is there yet: materialise anomaly_models, then these batches again")
    keys = SENSORS.in_order(context.instance, context.partition_keys, CHANNEL_SAMPLES.key)
    models = {name: fitting.scorer(name, stored) for name, stored in anomaly_models.items()}
    length = context.resources.settings.window
    parts = [
        scoring.batch_scores(context.resources.delta, key, SENSORS.before(context.instance, key), models, length)
        for key in tqdm(keys, unit="batch", disable=None)
    ]
    return pa.concat_tables(parts)


@dg.asset(
    **WHERE,
    io_manager_key="report",
    kinds={"python", "matplotlib"},
    code_version="1",
    description=(
        "All models side by side, the rule first: on the last part of each season and on sites held out; precision and "
        "recall of samples and events, delays, and the worst and some random stretches with the flags over the signal."
    ),
    automation_condition=REFRESHED_BY_INPUT,
    # Read below, not inputs, which are to be there: before the first batch there are no such tables.
    deps=[WINDOWS.key, ANOMALY_SCORES.key, HELD_OUT_SCORES.key],
    ins={"anomaly_models": dg.AssetIn(dg.AssetKey([BRANCH, "anomaly_models"]), partition_mapping=ALL)},
    required_resource_keys={"delta"},
)
def anomaly_report(context: dg.AssetExecutionContext, anomaly_models: dict[str, Any]) -> Report:
    """Figures and pictures of all models."""
    from bigdata_assets.flow_sensors import judging
    from bigdata_assets.flow_sensors.logic import anomaly_report as logic

    delta = context.resources.delta
    versions = {t.path: delta.version(t) for t in (WINDOWS, ANOMALY_SCORES, HELD_OUT_SCORES) if delta.exists(t)}
    series = judging.series_of(delta)
    judged = judging.stored(delta, series, SENSORS.order(context.instance), anomaly_models)
    report = logic.report(series, judged, judging.held_out(delta, series))
    return replace(report, provenance={**report.provenance, "inputs": versions})


@dg.asset(
    **WHERE,
    io_manager_key="report",
    kinds={"python", "matplotlib"},
    code_version="1",
    description="Where the sites are, on a map without a tile server; sites without coordinates are named below it.",
    automation_condition=REFRESHED_BY_INPUT,
)
def site_map(sites: pd.DataFrame) -> Report:
    """A map of the sites."""
    from bigdata_assets.flow_sensors.logic import site_map as logic

    return logic.report(sites)


@dg.asset(**table_asset(SITE_CORRELATIONS, "1", kinds=["python"]), required_resource_keys={"delta"}, deps=[WINDOWS.key])
def site_correlations(context: dg.AssetExecutionContext) -> pd.DataFrame:
    """How channels go together, within sites and between them."""
    from bigdata_assets.flow_sensors import judging
    from bigdata_assets.flow_sensors.logic import correlations

    return correlations.correlations(judging.series_of(context.resources.delta))


@dg.asset(
    **WHERE,
    io_manager_key="report",
    kinds={"python", "matplotlib"},
    code_version="1",
    description="Which channels go together, and with which lag: a heat map and the strongest pairs.",
    automation_condition=REFRESHED_ONCE_ALL_IS_THERE,
    deps=[WINDOWS.key],
    required_resource_keys={"delta"},
)
def site_correlations_report(context: dg.AssetExecutionContext, site_correlations: pd.DataFrame) -> Report:
    """A picture of the correlations."""
    from bigdata_assets.flow_sensors import judging
    from bigdata_assets.flow_sensors.logic import correlations

    return correlations.report(site_correlations, judging.series_of(context.resources.delta))


ASSETS: Sequence[dg.AssetsDefinition] = (
    sites,
    quarantined_channel_rows,
    channel_export,
    channel_publications,
    channel_samples,
    channel_quality,
    channel_quality_report,
    windows,
    anomaly_models,
    held_out_scores,
    anomaly_scores,
    anomaly_report,
    site_map,
    site_correlations,
    site_correlations_report,
)
