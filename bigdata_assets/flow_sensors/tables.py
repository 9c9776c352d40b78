"""The branch's tables."""

from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DoubleType,
    IntegerType,
    LongType,
    StringType,
    TimestampType,
)

from bigdata_assets.streams.tables import BROKER_TIMESTAMP, OFFSET, batched_table, messages_table, quarantine_table
from bigdata_assets.tables import Column, Table

BRANCH = "flow_sensors"
MODELS = (
    "rule",
    "z_score",
    "isolation_forest",
    "kmeans",
    "svm",
    "lightgbm",
    "bilstm_v1",
    "lstm_v2",
    "fcn",
    "lstm_autoencoder",
    "spectrogram_cnn",
)
"""Anomaly models; the rule is the baseline of all."""
MODELS_CODE = "1"
"""Code version of anomaly_models: another one where they look at other features."""

_SITE = Column("site", StringType(), "The site's name.")
_CHANNEL = Column("channel", StringType(), "What the channel measures at the site, such as `velocity`.")
_OBSERVED_AT = Column("observed_at", TimestampType(), "When the sample was taken.")
SAMPLE = (
    _SITE,
    _CHANNEL,
    _OBSERVED_AT,
    Column("value", DoubleType(), "As measured; null where the logger has none, or says so by a code.", nullable=True),
    Column("quality", StringType(), "The source's quality code as it is; null where there is none.", nullable=True),
    Column("edited", DoubleType(), "The value as somebody has corrected it; null where nobody did.", nullable=True),
)
"""A sample, in Cassandra, in an export and in a message alike."""
_MONTH = Column("month", StringType(), "Month of observed_at in UTC, `2016-01`; the partition key.")

CHANNEL_EXPORT = Table(
    BRANCH,
    "channel_export",
    "One row per sample of a month, exported from Cassandra's table samples by token ranges.",
    (_MONTH, *SAMPLE),
    partition_column="month",
)
CHANNEL_PUBLICATIONS = Table(
    BRANCH,
    "channel_publications",
    "One row per channel of a month whose new or changed samples were sent to the stream's topic. "
    "Source: channel_export.",
    (
        _MONTH,
        _SITE,
        _CHANNEL,
        Column("topic", StringType(), "Where they were sent."),
        Column("topic_id", StringType(), "What tells that topic from another one of its name; empty of old brokers."),
        Column("samples", LongType(), "How many were sent, the last time.", check="samples >= 0"),
        Column("export_version", LongType(), "Version of channel_export that the topic has; -1: it was being sent."),
    ),
    partition_column="month",
)
QUARANTINED_CHANNEL_ROWS = Table(
    BRANCH,
    "quarantined_channel_rows",
    "One row per line of a channel file, or one channel of it, that `bigdata-assets load sensors` could not take.",
    (
        Column("source", StringType(), "Name of the file."),
        Column("line", LongType(), "Line of the file."),
        Column("site", StringType(), "The site, as far as it is known.", nullable=True),
        Column("channel", StringType(), "The channel, where it is one value of the line alone.", nullable=True),
        Column("reason", StringType(), "Why it was not loaded."),
        Column("raw", StringType(), "The line's first 1,000 characters.", nullable=True),
    ),
)
CHANNEL_MESSAGES = messages_table(BRANCH, "channel_messages")
QUARANTINED_CHANNEL_MESSAGES = quarantine_table(BRANCH, "quarantined_channel_messages", CHANNEL_MESSAGES)
CHANNEL_SAMPLES = batched_table(
    BRANCH,
    "channel_samples",
    "One row per new or corrected sample of a batch; the highest version of a sample counts. Source: channel_messages.",
    *OFFSET,
    BROKER_TIMESTAMP,
    Column("version", IntegerType(), "1 for a sample's first values, 2 for its first correction, and so on."),
    *SAMPLE,
)
CHANNEL_QUALITY = Table(
    BRANCH,
    "channel_quality",
    "One row per channel of a site: its samples, interval, gaps and what looks wrong in it. Source: channel_samples.",
    (
        _SITE,
        _CHANNEL,
        Column("samples", LongType(), "Samples, each counted once.", check="samples >= 1"),
        Column("values", LongType(), "Samples that have a value."),
        Column("first_at", TimestampType(), "The first sample."),
        Column("last_at", TimestampType(), "The last one."),
        Column("interval_s", DoubleType(), "Most frequent time between samples; null of one sample.", nullable=True),
        Column("gaps", LongType(), "Places with more than 1.5 intervals between two samples."),
        Column("missing", LongType(), "Samples that would fill the gaps."),
        Column("longest_gap_s", DoubleType(), "The longest time without a sample; 0 where there is no gap."),
        Column("off_grid", LongType(), "Samples that follow the one before after less than half an interval."),
        Column("corrected", LongType(), "Samples that came again with other values."),
        Column("repeated_hours", LongType(), "Samples of local hours that a logger has written twice."),
        Column("flat_runs", LongType(), "Runs of equal values that are as long as a window."),
        Column("flat_samples", LongType(), "Samples in them."),
        Column("spikes", LongType(), "Values far from both neighbours: a Hampel filter's outliers."),
        Column("not_positive", LongType(), "Values of 0 or less."),
        Column("labelled", LongType(), "Samples of which it is known whether they are anomalous."),
        Column("anomalous", LongType(), "Those that are."),
        Column("minimum", DoubleType(), "Of the values.", nullable=True),
        Column("median", DoubleType(), "Of the values.", nullable=True),
        Column("maximum", DoubleType(), "Of the values.", nullable=True),
    ),
)
WINDOWS = Table(
    BRANCH,
    "windows",
    "One row per site and time, and whether a window begins there: windows are views of these rows. "
    "Source: channel_samples.",
    (
        _SITE,
        _OBSERVED_AT,
        Column("interval_s", IntegerType(), "Time between the site's samples.", check="interval_s > 0"),
        Column("channels", StringType(), "Names of `values`, commas between."),
        Column("values", ArrayType(DoubleType()), "Each channel's value; NaN where it has none."),
        Column("stretch", IntegerType(), "Number of the site's stretch without a gap that the row is in."),
        Column("season", IntegerType(), "Number of the site's time without a gap of more than a week."),
        Column("split", StringType(), "`train`, `validation` or `test`, by time within a season."),
        Column("label", BooleanType(), "Whether a channel is anomalous then; null where not known.", nullable=True),
        Column("begins_window", BooleanType(), "Whether a window of T samples begins here, all of its stretch."),
        Column("window_label", BooleanType(), "Whether one of the window's samples is anomalous.", nullable=True),
    ),
)
ANOMALY_SCORES = batched_table(
    BRANCH,
    "anomaly_scores",
    "One row per model and site and time that a batch has samples of; of several the last batch's counts. "
    "Source: channel_samples.",
    _SITE,
    _OBSERVED_AT,
    Column("model", StringType(), "Name of the model."),
    Column("model_version", StringType(), "Version of anomaly_models that gave the score."),
    Column("score", DoubleType(), "Higher is more anomalous; null where there are too few samples.", nullable=True),
    Column("flag", BooleanType(), "Whether the score reaches the model's own threshold.", nullable=True),
    known_by=("batch", "site", "observed_at", "model"),
)
SITES = Table(
    BRANCH,
    "sites",
    "One row per site of Cassandra's table sites, or with samples alone: where it is and how it is labelled.",
    (
        _SITE,
        Column("name", StringType(), "As people call it.", nullable=True),
        Column("latitude_deg", DoubleType(), "WGS 84, north is positive.", nullable=True),
        Column("longitude_deg", DoubleType(), "WGS 84, east is positive.", nullable=True),
        Column("time_zone", StringType(), "IANA's name of the zone that its loggers write.", nullable=True),
        Column("labelled_by", StringType(), "`quality`, `edited` or null: what says that a sample is anomalous.", True),
    ),
)
SITE_CORRELATIONS = Table(
    BRANCH,
    "site_correlations",
    "One row per pair of channels, of one site or of two: how they go together, and with which lag. Source: windows.",
    (
        Column("site_a", StringType(), "Site of the first channel."),
        Column("channel_a", StringType(), "The first channel."),
        Column("site_b", StringType(), "Site of the second channel."),
        Column("channel_b", StringType(), "The second channel."),
        Column("samples", LongType(), "Times at which both have a value."),
        Column("correlation", DoubleType(), "Spearman's, at no lag; null where it is not defined.", nullable=True),
        Column("best_lag_s", DoubleType(), "Of the second channel behind the first, at their best.", nullable=True),
        Column("best_correlation", DoubleType(), "Spearman's, at that lag.", nullable=True),
    ),
)
HELD_OUT_SCORES = Table(
    BRANCH,
    "held_out_scores",
    "One row per model, site and time of a site that is held out: what a model says that has seen nothing of it. "
    "Source: windows.",
    (
        Column("model", StringType(), "Name of the model; the partition key."),
        _SITE,
        _OBSERVED_AT,
        Column("score", DoubleType(), "Higher is more anomalous; null where there are too few samples.", nullable=True),
        Column("flag", BooleanType(), "Whether it reaches the threshold that other sites have chosen.", nullable=True),
    ),
    partition_column="model",
    known_by=("model", "site", "observed_at"),
)
TABLES = (
    SITES,
    QUARANTINED_CHANNEL_ROWS,
    CHANNEL_EXPORT,
    CHANNEL_PUBLICATIONS,
    CHANNEL_MESSAGES,
    QUARANTINED_CHANNEL_MESSAGES,
    CHANNEL_SAMPLES,
    CHANNEL_QUALITY,
    WINDOWS,
    ANOMALY_SCORES,
    HELD_OUT_SCORES,
    SITE_CORRELATIONS,
)
