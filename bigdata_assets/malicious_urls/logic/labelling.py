"""Labelled URLs: one row per URL with one label; every other row goes to quarantine with its reason."""

from collections.abc import Sequence
from pathlib import Path

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

FILE_NAMES = ("malicious_phish.csv", "malicious_phish.csv.gz", "malicious_phish_stratified_28k.csv.gz")
"""The published file, then the same packed, then a stratified sample of it: the first that is there is read."""


def labelled_file(folder: Path) -> Path:
    """The labelled file of a source folder.

    Raises:
        FileNotFoundError: none is there.
    """
    for name in FILE_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} has none of {', '.join(FILE_NAMES)}. Put malicious_phish.csv (url,type) there.")


def labelled_urls(rows: DataFrame, classes: Sequence[str]) -> DataFrame:
    """Distinct URLs whose rows agree on one of the classes: url, type, registered_domain, as_given, copies."""
    usable = rows.where(_reason(classes).isNull())
    return (
        usable.groupBy("url")
        .agg(
            F.min("label").alias("type"),
            F.max("label").alias("other_type"),
            F.first("registered_domain").alias("registered_domain"),
            F.min("as_given").alias("as_given"),
            F.count("*").alias("copies"),
        )
        .where("type = other_type")
        .drop("other_type")
    )


def quarantined_urls(rows: DataFrame, classes: Sequence[str]) -> DataFrame:
    """Rows that are not in `labelled_urls`: position, reason, raw, length_bytes, and the file's name as source."""
    judged = rows.withColumn("reason", _reason(classes))
    # Usable rows of one URL come together; each broken row stays by itself.
    same_url = Window.partitionBy(
        F.when(F.col("reason").isNull(), F.col("url")).otherwise(F.col("position").cast("string"))
    )
    types = F.array_sort(F.collect_set("label").over(same_url))
    contradiction = F.when(F.size(types) > 1, F.concat(F.lit("contradicting types: "), F.array_join(types, ", ")))
    return (
        judged.withColumn("reason", F.coalesce("reason", contradiction))
        .where("reason IS NOT NULL")
        .select(
            F.col("batch").alias("source"),
            "position",
            "reason",
            F.coalesce("raw", F.coalesce("as_given", "url").cast("binary")).alias("raw"),
            "length_bytes",
        )
    )


def _reason(classes: Sequence[str]) -> Column:
    """Why a row cannot be used by itself, or null."""
    unknown = F.concat(F.lit("unknown type: "), F.substring("label", 1, 100))
    return (
        F.when(F.col("reason").isNotNull(), F.col("reason"))
        .when(F.col("label").isNull(), F.lit("no type"))
        .when(~F.col("label").isin(list(classes)), unknown)
    )
