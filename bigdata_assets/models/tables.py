"""The table of evaluations."""

from pyspark.sql.types import DoubleType, StringType, TimestampType

from bigdata_assets.tables import Column, Table

MODEL_LEDGER = Table(
    "models",
    "model_ledger",
    "One row per figure of an evaluation: model, split, metric, value and baseline. Source: all reports ever stored.",
    (
        Column("branch", StringType(), "Branch of the model."),
        Column("report", StringType(), "Asset key of the report that has the figure."),
        Column("model", StringType(), "Model that was evaluated."),
        Column("split", StringType(), "Rows that it was evaluated on."),
        Column("metric", StringType(), "What was measured."),
        Column("value", DoubleType(), "The figure."),
        Column("baseline", StringType(), "What it is compared with."),
        Column("baseline_value", DoubleType(), "The baseline's figure, same metric, same rows."),
        Column("low", DoubleType(), "Where the figure's interval begins; null where none was measured.", nullable=True),
        Column("high", DoubleType(), "Where it ends.", nullable=True),
        Column("interval", StringType(), "What the interval is.", nullable=True),
        Column("better", StringType(), "Which figures are: more, less, or near 0; null: more.", nullable=True),
        Column("data_version", StringType(), "Versions of the tables and models that it was made from, as JSON."),
        Column("code_version", StringType(), "Code version of the report's asset.", nullable=True),
        Column("run_id", StringType(), "Dagster run that made the report."),
        Column("evaluated_at", TimestampType(), "When it was made."),
    ),
)
