"""The branch's tables."""

from pyspark.sql.types import (
    BooleanType,
    DoubleType,
    IntegerType,
    LongType,
    StringType,
    TimestampType,
)

from bigdata_assets.streams.tables import BROKER_TIMESTAMP, OFFSET, batched_table, messages_table, quarantine_table
from bigdata_assets.tables import Column, Table

BRANCH = "crimes"

REPORT = (
    Column("report_id", LongType(), "The portal's ID of the report.", check="report_id > 0"),
    Column("occurred_at", TimestampType(), "When it happened, or the best estimate; the portal's Chicago wall clock."),
    Column("block", StringType(), "Address with its last two digits hidden.", nullable=True),
    Column("iucr", StringType(), "Illinois Uniform Crime Reporting code, four characters."),
    Column("primary_type", StringType(), "First description of the IUCR code.", nullable=True),
    Column("description", StringType(), "Second description of the IUCR code.", nullable=True),
    Column("location_description", StringType(), "Kind of place.", nullable=True),
    Column("arrest", BooleanType(), "Whether an arrest was made, as known when the row was exported."),
    Column("domestic", BooleanType(), "Whether it was domestic as defined by the Illinois Domestic Violence Act."),
    Column("beat", IntegerType(), "Police beat.", nullable=True),
    Column("district", IntegerType(), "Police district.", nullable=True),
    Column("ward", IntegerType(), "City council ward.", nullable=True),
    Column("community_area", IntegerType(), "One of 77 community areas.", nullable=True),
    Column("fbi_code", StringType(), "Class in the FBI's National Incident-Based Reporting System.", nullable=True),
    Column("x_coordinate_ft", DoubleType(), "State Plane Illinois East NAD 1983, feet.", nullable=True),
    Column("y_coordinate_ft", DoubleType(), "State Plane Illinois East NAD 1983, feet.", nullable=True),
    Column("updated_at", TimestampType(), "When the portal last changed the row.", nullable=True),
)
"""What is known of a report, in a message and in an export alike."""
_REASON = Column("reason", StringType(), "Why the row is not in the table.")

HISTORIC_REPORTS = Table(
    BRANCH,
    "historic_reports",
    "One row per report of a month, from the City of Chicago Data Portal's export files.",
    (Column("month", StringType(), "Month of occurrence, Chicago time; the partition key."), *REPORT),
    partition_column="month",
)
QUARANTINED_HISTORIC_REPORTS = Table(
    BRANCH,
    "quarantined_historic_reports",
    "One row per row of an export file's month that is no usable report, or repeats the ID of one.",
    (
        Column("month", StringType(), "Month of occurrence, Chicago time; the partition key."),
        Column("source", StringType(), "Name of the export file."),
        _REASON,
        Column("raw", StringType(), "The row's columns as JSON, or what the line is that is no row."),
    ),
    partition_column="month",
)
CRIME_MESSAGES = messages_table(BRANCH, "crime_messages")
CRIME_REPORTS = batched_table(
    BRANCH,
    "crime_reports",
    "One row per usable message of a batch: a report, or a later version of one, typed. Source: crime_messages.",
    *OFFSET,
    BROKER_TIMESTAMP,
    Column("version", IntegerType(), "1 for a report's first message, 2 for its first correction, and so on."),
    *REPORT,
)
QUARANTINED_MESSAGES = quarantine_table(BRANCH, "quarantined_messages", CRIME_MESSAGES)
ARREST_SCORES = batched_table(
    BRANCH,
    "arrest_scores",
    "One row per report and model: the probability of an arrest from the model as it stood before the batch.",
    *OFFSET,
    Column("model", StringType(), "Name of the model."),
    Column("probability", DoubleType(), "Of an arrest.", check="probability BETWEEN 0 AND 1"),
    Column("is_new", BooleanType(), "Whether no model can have seen the report: no correction, not from the history."),
    Column("snapshot", StringType(), "Snapshot of arrest_models that gave it: the last batch learnt, or `start`."),
    Column("position", StringType(), "What the snapshot had learnt: first offset not learnt, by partition."),
    known_by=("batch", "kafka_partition", "kafka_offset", "model"),
)
BATCH_METRICS = batched_table(
    BRANCH,
    "batch_metrics",
    "One row per batch and model, baselines among them: how good the scores were. Only reports that no model has seen.",
    Column("model", StringType(), "Name of the model; `majority` and `iucr_rate` are the baselines."),
    Column("first_broker_timestamp", TimestampType(), "The batch's first message; orders batches.", nullable=True),
    Column("scored_reports", LongType(), "New reports that were scored."),
    Column("left_out", LongType(), "Corrections and reports from before the stream began: not counted."),
    Column("arrests", LongType(), "New reports with an arrest."),
    Column("correct", LongType(), "Right decisions at probability one half."),
    Column("accuracy", DoubleType(), "Share of right decisions.", nullable=True),
    Column("balanced_accuracy", DoubleType(), "Mean of the recalls; null where a class is absent.", nullable=True),
    Column("roc_auc", DoubleType(), "Area under the ROC curve; null where a class is absent.", nullable=True),
    Column("log_loss", DoubleType(), "Mean negative log-likelihood, nats.", nullable=True),
    Column("precision", DoubleType(), "Of predicted arrests; null where none is predicted.", nullable=True),
    Column("recall", DoubleType(), "Of arrests; null where there is none.", nullable=True),
    Column("bias", DoubleType(), "Mean probability less share of arrests: calibration in the large.", nullable=True),
    Column("calibration_error", DoubleType(), "Expected calibration error, ten equal bins.", nullable=True),
    Column("snapshot", StringType(), "Snapshot of arrest_models that gave the scores."),
)
TABLES = (
    HISTORIC_REPORTS,
    QUARANTINED_HISTORIC_REPORTS,
    CRIME_MESSAGES,
    CRIME_REPORTS,
    QUARANTINED_MESSAGES,
    ARREST_SCORES,
    BATCH_METRICS,
)
