"""Labelled URLs: one row per list and URL with one label; every other row goes to quarantine with its reason."""

import itertools
from collections.abc import Mapping

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from bigdata_assets.malicious_urls.logic.lists import MEANINGS, meanings_of


def classified(rows: DataFrame, lists: Mapping[str, str]) -> DataFrame:
    """Rows of lists as `reading.read_urls` has them, with the columns `list`, and `class`, null where there is none.

    Args:
        rows: of the lists' files.
        lists: names of the lists by those of their files.
    """
    of_file = F.create_map(*map(F.lit, itertools.chain(*lists.items())))
    label = F.lower(F.trim("label"))
    known = [
        F.when((F.col("list") == name) & (label == text), F.lit(class_))
        for name in lists.values()
        for text, class_ in meanings_of(name).items()
    ]
    usual = F.try_element_at(F.create_map(*map(F.lit, itertools.chain(*MEANINGS.items()))), label)
    return rows.withColumn("list", F.try_element_at(of_file, F.col("batch"))).withColumn(
        "class", F.coalesce(*known, usual)
    )


def labelled_urls(rows: DataFrame) -> DataFrame:
    """Distinct URLs of each list whose rows agree on one class, as LABELLED_URLS; rows as `classified` has them."""
    usable = rows.where(_reason().isNull())
    return (
        usable.groupBy("list", "url")
        .agg(
            F.min("class").alias("type"),
            F.max("class").alias("other_type"),
            F.first("registered_domain").alias("registered_domain"),
            F.min("as_given").alias("as_given"),
            F.count("*").alias("copies"),
        )
        .where("type = other_type")
        .drop("other_type")
    )


def quarantined_urls(rows: DataFrame) -> DataFrame:
    """Rows that are not in `labelled_urls`, as QUARANTINED_URLS; rows as `classified` has them."""
    judged = rows.withColumn("reason", _reason())
    # Usable rows of one URL come together; each broken row stays by itself.
    same_url = Window.partitionBy(
        "list", F.when(F.col("reason").isNull(), F.col("url")).otherwise(F.col("position").cast("string"))
    )
    types = F.array_sort(F.collect_set("class").over(same_url))
    contradiction = F.when(F.size(types) > 1, F.concat(F.lit("contradicting types: "), F.array_join(types, ", ")))
    return (
        judged.withColumn("reason", F.coalesce("reason", contradiction))
        .where("reason IS NOT NULL")
        .select(
            "list",
            F.col("batch").alias("source"),
            "position",
            "reason",
            F.coalesce("raw", F.coalesce("as_given", "url").cast("binary")).alias("raw"),
            "length_bytes",
        )
    )


def _reason() -> Column:
    """Why a row cannot be used by itself, or null."""
    unknown = F.concat(F.lit("unknown type: "), F.substring("label", 1, 100))
    return (
        F.when(F.col("reason").isNotNull(), F.col("reason"))
        .when(F.col("label").isNull(), F.lit("no type"))
        .when(F.col("class").isNull(), unknown)
    )
