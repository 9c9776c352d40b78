"""Assets of the malicious_urls branch: labelled URLs, the classifier and its report, batches, predictions, the mart."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field
from pyspark.sql import DataFrame

from bigdata_assets.catalogue import table_asset
from bigdata_assets.io_managers.sklearn_model import StoredModel, TrainedModel
from bigdata_assets.io_managers.staging import StagedFiles
from bigdata_assets.malicious_urls.partitions import LANDED_FILES, URL_LISTS, landed_file, landing_folder
from bigdata_assets.malicious_urls.source import SOURCE
from bigdata_assets.malicious_urls.tables import (
    BRANCH,
    LABELLED_URLS,
    MOST_OF_A_LIST,
    PREDICTION_MART,
    PREDICTIONS,
    QUARANTINED_BATCH_URLS,
    QUARANTINED_URLS,
    TOP_DOMAINS,
    URL_BATCHES,
)
from bigdata_assets.reports import Report
from bigdata_assets.resources.spark import SparkResource
from bigdata_assets.runs.ranges import FILE_VERSION, tell_partitions
from bigdata_assets.runtime import REFRESHED_BY_INPUT
from bigdata_assets.settings import Settings
from bigdata_assets.sources import Sources

WHERE: dict[str, Any] = {"group_name": BRANCH, "owners": [f"team:{BRANCH}"]}
"""Of assets that are no tables."""


class ClassifierConfig(dg.Config):
    """Run-time choices of the classifier; the report measures what they say."""

    family: str = Field("ensemble", description="forest, ngram_linear, lightgbm or ensemble.")
    strip_scheme: bool = Field(
        True,
        description="Leave out `http://`, `https://` and `www.`: in this data set they tell the label, elsewhere not.",
    )
    folds: int | None = Field(
        None, ge=2, le=20, description="Of what the ensemble's trees are fitted on. Default: 5; on the sample 2."
    )
    most_of_a_list: int = Field(
        MOST_OF_A_LIST,
        ge=2,
        description="URLs of each list that are learnt, drawn at random: none is to rule the others.",
    )
    seed: int = Field(0, description="Seed of everything random in training and splitting.")

    def folds_for(self, sources: Sources) -> int:
        return sources.effort(self.folds, 5, few=2)


class ReportConfig(ClassifierConfig):
    """What the report measures besides the classifier's own choices."""

    repeats: int | None = Field(
        None, ge=1, le=50, description="Domain-grouped splits; the interval is over them. Default: 5; on the sample 1."
    )


class ScoringConfig(dg.Config):
    """Run-time choices of batch scoring."""

    tasks: int = Field(4, ge=1, le=10_000, description="Spark tasks that share a run's rows.")


@dg.multi_asset(
    name="labelled_urls",
    outs={
        "labelled_urls": dg.AssetOut(**table_asset(LABELLED_URLS, "2")),
        "quarantined_urls": dg.AssetOut(**table_asset(QUARANTINED_URLS, "2")),
    },
    partitions_def=URL_LISTS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def labelled_urls(
    context: dg.AssetExecutionContext, sources: Sources, spark: SparkResource, settings: dg.ResourceParam[Settings]
) -> Iterator[dg.Output[DataFrame]]:
    """Labelled URLs of the run's lists, deduplicated and typed, and the rows that could not be used."""
    from upath import UPath

    from bigdata_assets.malicious_urls.logic import labelling, lists, reading
    from bigdata_assets.reading import once

    folder = sources.folder(SOURCE)
    found = lists.lists(folder)
    if gone := [name for name in sorted(context.partition_keys) if name not in found]:
        raise FileNotFoundError(f"{folder} has no list {', '.join(gone)}; it has {', '.join(found) or 'none'}.")
    files = {found[name].name: name for name in sorted(context.partition_keys)}
    private = settings.private_suffixes
    splits = [split for file in files for split in reading.plan_splits(UPath(folder / file), private_suffixes=private)]
    with once(reading.read_urls(spark.spark_session, splits)) as rows:
        judged = labelling.classified(rows, files)
        yield dg.Output(labelling.labelled_urls(judged), "labelled_urls")
        yield dg.Output(labelling.quarantined_urls(judged), "quarantined_urls")


@dg.asset(
    **WHERE,
    key_prefix=BRANCH,
    io_manager_key="sklearn_model",
    kinds={"scikitlearn", "lightgbm"},
    code_version="2",
    description="The URL classifier, fitted on all lists of labelled_urls: one estimator, features included.",
)
def url_classifier(labelled_urls: pd.DataFrame, config: ClassifierConfig, sources: Sources) -> TrainedModel:
    """The URL classifier, a scikit-learn estimator from raw URL to class probabilities."""
    from bigdata_assets.malicious_urls.logic import lists, training

    folds, pool = config.folds_for(sources), lists.pooled(labelled_urls, config.most_of_a_list, config.seed)
    estimator = training.fit(pool.rows, config.family, config.strip_scheme, config.seed, folds)
    return TrainedModel(
        estimator=estimator,
        classes=tuple(estimator.classes_),
        parameters=config.model_dump() | {"folds": folds, "lists": sorted(set(pool.rows["list"]))},
        metrics={
            "n_training_urls": len(pool.rows),
            "n_urls_repeated_between_lists": pool.repeated,
            "n_urls_contradicting_between_lists": pool.contradicting,
            "n_urls_not_drawn": pool.not_drawn,
        },
    )


@dg.asset(
    **WHERE,
    key_prefix=BRANCH,
    io_manager_key="report",
    kinds={"scikitlearn", "matplotlib"},
    code_version="2",
    description=(
        "How good the classifier is on lists and domains it has not seen: each list held out, repeated domain-grouped "
        "splits, a random split beside them, against other families, the scheme rule and the majority."
    ),
)
def classifier_report(labelled_urls: pd.DataFrame, config: ReportConfig, sources: Sources) -> Report:
    """Scores of classifiers built as url_classifier is, each fitted on one side of a split and scored on the other."""
    from bigdata_assets.malicious_urls.logic import training

    repeats, folds = sources.effort(config.repeats, 5), config.folds_for(sources)
    why = sources.effort_told(config.repeats, config.folds)
    return training.report(
        labelled_urls, config.family, config.strip_scheme, config.seed, repeats, folds, config.most_of_a_list, why
    )


@dg.multi_asset(
    name="url_batches",
    outs={
        "url_batches": dg.AssetOut(**table_asset(URL_BATCHES, "1")),
        "quarantined_batch_urls": dg.AssetOut(**table_asset(QUARANTINED_BATCH_URLS, "1")),
    },
    partitions_def=LANDED_FILES,
    backfill_policy=dg.BackfillPolicy.single_run(),
    required_resource_keys={"delta", "settings", "spark"},
)
def url_batches(context: dg.AssetExecutionContext) -> tuple[StagedFiles, StagedFiles]:
    """The URLs of the run's landed files, and the rows of them that are no URL."""
    from bigdata_assets.malicious_urls.logic import reading

    delta = context.resources.delta
    folder = landing_folder(delta.storage)
    names = sorted(context.partition_keys)
    versions = {name: {FILE_VERSION: landed_file(folder / name).fingerprint} for name in names}
    tell_partitions(context.get_step_execution_context(), URL_BATCHES.key, versions)
    private = context.resources.settings.private_suffixes
    splits = [split for name in names for split in reading.plan_splits(folder / name, private_suffixes=private)]
    staging = [delta.staging(table) for table in (URL_BATCHES, QUARANTINED_BATCH_URLS)]
    return reading.stage_urls(context.resources.spark.spark_session, splits, *staging)


@dg.asset(
    **table_asset(PREDICTIONS, "1"),
    partitions_def=LANDED_FILES,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def predictions(url_batches: DataFrame, url_classifier: StoredModel, config: ScoringConfig) -> DataFrame:
    """Each URL of the batch with its predicted class, scored on Spark's workers."""
    from bigdata_assets.malicious_urls.logic import classifier, scoring

    return scoring.score(
        url_batches,
        lambda: url_classifier.load(classifier.TRUSTED_TYPES),
        url_classifier.version,
        tuple(url_classifier.card["classes"]),
        datetime.now(UTC),
        config.tasks,
    )


@dg.asset(**table_asset(PREDICTION_MART, "1"), automation_condition=REFRESHED_BY_INPUT)
def prediction_mart(predictions: DataFrame) -> DataFrame:
    """Counts and probabilities per day, registered domain and class."""
    from bigdata_assets.malicious_urls.logic import mart

    return mart.prediction_mart(predictions)


@dg.asset(**table_asset(TOP_DOMAINS, "1"), automation_condition=REFRESHED_BY_INPUT)
def top_domains(prediction_mart: DataFrame) -> DataFrame:
    """The domains with the most URLs predicted malicious."""
    from bigdata_assets.malicious_urls.logic import mart

    return mart.top_domains(prediction_mart)


ASSETS: Sequence[dg.AssetsDefinition] = (
    labelled_urls,
    url_classifier,
    classifier_report,
    url_batches,
    predictions,
    prediction_mart,
    top_domains,
)
