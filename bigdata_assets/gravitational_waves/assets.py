"""Assets of the gravitational_waves branch: the training set, its gallery, and classifiers of chirps."""

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from pyspark.sql import DataFrame

from bigdata_assets.catalogue import table_asset
from bigdata_assets.gravitational_waves.partitions import GLITCH_CLASSES, SKY_EVENTS
from bigdata_assets.gravitational_waves.source import SOURCE
from bigdata_assets.gravitational_waves.tables import (
    BRANCH,
    CHIRP_PREDICTIONS,
    CHIRP_SVC_TUNING,
    EVENT_PREDICTIONS,
    GLITCH_FEATURES,
    GLITCH_METADATA,
    GLITCH_VIEWS,
    QSCANS,
    QUARANTINED_METADATA,
    QUARANTINED_QSCANS,
    QUARANTINED_SPECTROGRAMS,
    QUARANTINED_STRAIN,
    SPECTROGRAMS,
    STRAIN,
)
from bigdata_assets.io_managers.keras_model import StoredKerasModel, TrainedKerasModel
from bigdata_assets.io_managers.model_card import THRESHOLD, threshold_of
from bigdata_assets.io_managers.sklearn_model import StoredModel, TrainedModel
from bigdata_assets.io_managers.spark_model import StoredSparkModel, TrainedSparkModel
from bigdata_assets.io_managers.staging import StagedFiles
from bigdata_assets.reports import Report
from bigdata_assets.resources.spark import SparkResource
from bigdata_assets.runs.ranges import FILE_VERSION
from bigdata_assets.sources import Sources

WHERE: dict[str, Any] = {"group_name": BRANCH, "owners": [f"team:{BRANCH}"], "key_prefix": BRANCH}
"""Of assets that are no tables."""
TRAINING = "sample_type = 'train'"
"""The publisher's training rows: all that is fitted and tuned on."""
NO_TEST = "sample_type != 'test'"
VIEWS_TRIED = ["0.5,1.0", "0.5,1.0,2.0,4.0"]
BY_EVENT: dict[str, Any] = {
    "partitions_def": SKY_EVENTS,
    # A key's strain and pictures are 10 MB in this process.
    "backfill_policy": dg.BackfillPolicy.multi_run(max_partitions_per_run=20),
}


class TuningConfig(dg.Config):
    """The settings that are tried, each with each."""

    views_s: list[str] | None = Field(
        None,
        description="Views side by side, seconds. Default: `0.5,1.0` and `0.5,1.0,2.0,4.0`; on the sample the first.",
    )
    reg_param: list[float] = Field([0.001], description="LinearSVC's regParam.")
    max_iter: list[int] = Field([20], description="LinearSVC's maxIter.")
    weighted: list[bool] = Field([True], description="Whether each class weighs the same as a whole.")
    seed: int = Field(0, description="Of the folds.")


class ScanConfig(dg.Config):
    """What is looked at beside the events."""

    background: int = Field(6, ge=0, le=24, description="Seconds of the background beside each event.")


class SeedConfig(dg.Config):
    """The seed of a fit."""

    seed: int = Field(0, description="Of everything random.")


class ReportConfig(SeedConfig):
    """What the report measures."""

    repeats: int | None = Field(
        None,
        ge=1,
        le=50,
        description="How often all rows are dealt out into folds anew. Default: 2; on the sample 1.",
    )


class CnnConfig(SeedConfig):
    """How the network is fitted."""

    epochs: int = Field(40, ge=1, description="At most; the learning rate falls to 0 along a cosine over as many.")
    patience: int = Field(15, ge=1, description="Epochs without a better loss on the rows it is stopped on.")


class CnnReportConfig(dg.Config):
    """What the network's report measures."""

    repeats: int = Field(1, ge=1, le=50, description="How often all rows are dealt out anew; one has no interval.")
    folds: int | None = Field(
        None, ge=2, le=20, description="Of each repeat; a network is fitted for each. Default: 3; on the sample 2."
    )
    epochs: int | None = Field(
        None, ge=1, description="Of each fold's network, at most. Default: the stored one's; on the sample 10."
    )


@dg.multi_asset(
    name="spectrograms",
    outs={
        "spectrograms": dg.AssetOut(**table_asset(SPECTROGRAMS, "1")),
        "quarantined_spectrograms": dg.AssetOut(**table_asset(QUARANTINED_SPECTROGRAMS, "1")),
    },
    partitions_def=GLITCH_CLASSES,
    backfill_policy=dg.BackfillPolicy.single_run(),
    required_resource_keys={"sources", "spark", "delta"},
)
def spectrograms(context: dg.AssetExecutionContext) -> tuple[StagedFiles, StagedFiles]:
    """The images of the run's classes, and the datasets that are none."""
    from bigdata_assets.gravitational_waves.logic.training import training_set

    resources, labels = context.resources, sorted(context.partition_keys)
    path = resources.sources.folder(SOURCE) / training_set.FILE
    staging = [resources.delta.staging(table) for table in (SPECTROGRAMS, QUARANTINED_SPECTROGRAMS)]
    return training_set.stage_images(resources.spark.spark_session, path, labels, *staging)


@dg.multi_asset(
    name="glitch_metadata",
    outs={
        "glitch_metadata": dg.AssetOut(**table_asset(GLITCH_METADATA, "1", kinds={"pandas"})),
        "quarantined_metadata": dg.AssetOut(**table_asset(QUARANTINED_METADATA, "1", kinds={"pandas"})),
    },
)
def glitch_metadata(sources: Sources) -> tuple[pa.Table, pa.Table]:
    """The 28 official columns of every glitch, and the rows that could not be used."""
    from bigdata_assets.gravitational_waves.logic.training import metadata

    return metadata.read(sources.folder(SOURCE) / metadata.FILE)


@dg.asset(
    **WHERE,
    io_manager_key="report",
    kinds={"spark", "matplotlib"},
    code_version="1",
    description="What the training set looks like: one picture per class and view, counts per class and split.",
)
def spectrogram_gallery(spectrograms: DataFrame) -> Report:
    """Pictures and counts."""
    from bigdata_assets.gravitational_waves.logic.training import gallery

    return gallery.gallery(spectrograms)


@dg.asset(**table_asset(GLITCH_FEATURES, "1"))
def glitch_features(spectrograms: DataFrame) -> DataFrame:
    """Each glitch's four views, pooled."""
    from bigdata_assets.gravitational_waves.logic.classifiers import features

    return features.features(spectrograms)


@dg.asset(**table_asset(CHIRP_SVC_TUNING, "1"))
def chirp_svc_tuning(
    glitch_features: DataFrame, spark: SparkResource, config: TuningConfig, sources: Sources
) -> pd.DataFrame:
    """Settings of the chirp classifier, each tried on the training rows."""
    from bigdata_assets.gravitational_waves.logic.classifiers import svc

    views_s = config.views_s or VIEWS_TRIED[: 1 if sources.is_sample else None]
    grid = [
        svc.SvcSettings(svc.views(views), reg_param, max_iter, weighted)
        for views, reg_param, max_iter, weighted in itertools.product(
            views_s, config.reg_param, config.max_iter, config.weighted
        )
    ]
    return svc.tune(spark.spark_session, glitch_features.where(TRAINING), grid, config.seed)


@dg.asset(
    **WHERE,
    io_manager_key="spark_model",
    kinds={"spark"},
    code_version="1",
    description="Chirp against the rest: Spark MLlib's LinearSVC on pooled views, with the settings that tuning chose.",
)
def chirp_svc(glitch_features: DataFrame, chirp_svc_tuning: pd.DataFrame) -> TrainedSparkModel:
    """A pipeline of Spark ML, fitted on the training rows."""
    from bigdata_assets.gravitational_waves.logic.classifiers import chirp_report, svc

    settings = svc.chosen(chirp_svc_tuning)
    vectors = svc.vectors(glitch_features.where(NO_TEST), settings)
    pipeline = svc.fit(vectors.where(TRAINING), settings)
    return TrainedSparkModel(
        pipeline,
        parameters=svc.parameters(settings),
        metrics={THRESHOLD: chirp_report.threshold(svc.margins(pipeline, vectors).toPandas())},
    )


@dg.asset(
    **WHERE,
    io_manager_key="sklearn_model",
    kinds={"scikitlearn"},
    code_version="1",
    description="Chirp against the rest: a support vector machine with a Gaussian kernel on 50 principal components.",
)
def rbf_svm(glitch_features: pd.DataFrame, config: SeedConfig) -> TrainedModel:
    """A scikit-learn pipeline, fitted on the training rows."""
    from bigdata_assets.gravitational_waves.logic.classifiers import chirp_report, rbf

    rows = rbf.with_pixels(glitch_features.query("sample_type != 'test'"))
    training = rows[rows["sample_type"] == "train"]
    model = rbf.fit(training, config.seed)
    margins = rows[["label", "sample_type"]].assign(margin=rbf.margins(model, rows))
    return TrainedModel(
        model,
        rbf.CLASSES,
        parameters=config.model_dump(),
        metrics={"n_training_glitches": len(training), THRESHOLD: chirp_report.threshold(margins)},
    )


@dg.asset(**table_asset(GLITCH_VIEWS, "1"))
def glitch_views(spectrograms: DataFrame) -> DataFrame:
    """Each glitch's four views, as the network reads them."""
    from bigdata_assets.gravitational_waves.logic.classifiers import cnn

    return cnn.glitch_views(spectrograms)


@dg.asset(
    **WHERE,
    io_manager_key="keras_model",
    kinds={"keras", "tensorflow"},
    code_version="1",
    description="The 22 classes by a convolutional network on a glitch's four views, fitted on the training rows.",
)
def glitch_cnn(glitch_views: pd.DataFrame, config: CnnConfig) -> TrainedKerasModel:
    """A Keras model, stopped on the validation rows."""
    from bigdata_assets.gravitational_waves.logic.classifiers import chirp_report, cnn

    settings, rows = cnn.CnnSettings(**config.model_dump()), cnn.glitches(glitch_views)
    fitted = cnn.fit(rows.of("train"), rows.of("validation"), settings)
    return TrainedKerasModel(
        fitted.model,
        cnn.CLASSES,
        parameters=cnn.parameters(settings, fitted),
        metrics={
            "n_training_glitches": len(rows.of("train")),
            "epochs_run": len(fitted.history["loss"]),
            THRESHOLD: chirp_report.threshold(cnn.chirp_margins(fitted.model, rows)),
        },
        history=fitted.history,
    )


@dg.asset(**table_asset(CHIRP_PREDICTIONS, "3"))
def chirp_predictions(
    glitch_features: DataFrame,
    glitch_views: pd.DataFrame,
    chirp_svc: StoredSparkModel,
    rbf_svm: StoredModel,
    glitch_cnn: StoredKerasModel,
) -> pd.DataFrame:
    """Every glitch's margins, put together by its id."""
    from bigdata_assets.gravitational_waves.logic.classifiers import chirp_report, cnn, rbf, svc

    settings = svc.from_parameters(chirp_svc.card["parameters"])
    linear = svc.margins(chirp_svc.load(), svc.vectors(glitch_features, settings)).toPandas()
    rows = rbf.with_pixels(glitch_features.toPandas())
    margin = rbf.margins(rbf_svm.load(rbf.TRUSTED_TYPES), rows)
    kernel = rows[["id", "label", "sample_type"]].assign(margin=margin)
    network = cnn.chirp_margins(glitch_cnn.load(), cnn.glitches(glitch_views))
    scored = {"chirp_svc": linear, "rbf_svm": kernel, "glitch_cnn": network}
    judges = _judges(chirp_svc=chirp_svc.card, rbf_svm=rbf_svm.card, glitch_cnn=glitch_cnn.card)
    return pd.concat([chirp_report.judged(name, scored[name], *judges[name]) for name in scored], ignore_index=True)


def _judges(**cards: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
    """Version and threshold of each model."""
    return {name: (card["version"], threshold_of(card)) for name, card in cards.items()}


@dg.asset(
    **WHERE,
    io_manager_key="report",
    kinds={"spark", "scikitlearn", "matplotlib"},
    code_version="1",
    description=(
        "How well chirps are told from glitches: ROC, precision and recall, confusion at a threshold from validation "
        "rows, repeated cross-validation, and the classic setting beside ours."
    ),
)
def chirp_svc_report(
    spectrograms: DataFrame,
    glitch_features: DataFrame,
    chirp_predictions: pd.DataFrame,
    chirp_svc: StoredSparkModel,
    spark: SparkResource,
    config: ReportConfig,
    sources: Sources,
) -> Report:
    """Figures of the models on rows they have not seen."""
    from bigdata_assets.gravitational_waves.logic.classifiers import chirp_report, svc

    settings = svc.from_parameters(chirp_svc.card["parameters"])
    return chirp_report.report(
        spark.spark_session,
        spectrograms,
        glitch_features,
        chirp_predictions,
        settings,
        sources.effort(config.repeats, 2),
        config.seed,
        sources.effort_told(config.repeats),
    )


@dg.asset(
    **WHERE,
    io_manager_key="report",
    kinds={"keras", "scikitlearn", "matplotlib"},
    code_version="1",
    description=(
        "How well the network tells the classes apart: training curves, confusion, figures by class and repeated "
        "cross-validation, beside logistic regression and the majority on the same rows."
    ),
)
def glitch_cnn_report(
    glitch_views: pd.DataFrame,
    glitch_features: pd.DataFrame,
    glitch_cnn: StoredKerasModel,
    config: CnnReportConfig,
    sources: Sources,
) -> Report:
    """Figures on rows that the network has not seen."""
    from bigdata_assets.gravitational_waves.logic.classifiers import cnn_report

    return cnn_report.report(
        glitch_views,
        glitch_features,
        glitch_cnn.load(),
        glitch_cnn.card,
        config.repeats,
        sources.effort(config.folds, 3, few=2),
        sources.effort(config.epochs, glitch_cnn.card["parameters"]["epochs"], few=10),
        sources.effort_told(config.folds, config.epochs),
    )


@dg.multi_asset(
    name="strain",
    outs={
        "strain": dg.AssetOut(**table_asset(STRAIN, "2", kinds={"hdf5"})),
        "quarantined_strain": dg.AssetOut(**table_asset(QUARANTINED_STRAIN, "1", kinds={"hdf5"})),
    },
    **BY_EVENT,
)
def strain(context: dg.AssetExecutionContext, sources: Sources) -> tuple[pa.Table, pa.Table]:
    """The seconds around the run's events, and the files that cannot be used."""
    from bigdata_assets.gravitational_waves.logic.strain import events, scans
    from bigdata_assets.gravitational_waves.logic.strain.strain import StrainFileError

    folder = sources.folder(SOURCE, download=False)
    for key in context.partition_keys:
        with contextlib.suppress(StrainFileError):  # said in quarantined_strain
            version = {FILE_VERSION: events.version(events.file_of(folder, key))}
            context.add_asset_metadata(version, asset_key=STRAIN.key, partition_key=key)
    found, refused = scans.read_strain(folder, sorted(context.partition_keys))
    return (
        pa.concat_tables([STRAIN.arrow_schema.empty_table(), *found], promote_options="permissive"),
        pa.Table.from_pylist(refused, schema=QUARANTINED_STRAIN.arrow_schema),
    )


@dg.asset(
    **WHERE,
    io_manager_key="report",
    kinds={"gwpy", "pycbc", "matplotlib"},
    code_version="2",
    partitions_def=SKY_EVENTS,
    # A page is of one event and detector.
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1),
    required_resource_keys={"sources"},
    description=(
        "An event as the open-data tutorials look at it: quality, spectrum, Q-transform, waveform, matched filter, χ², "
        "and time slides against the event's other detectors that are there."
    ),
)
def strain_report(context: dg.AssetExecutionContext, strain: pa.Table) -> Report:
    """Pictures and figures of one event in one detector."""
    from bigdata_assets.gravitational_waves.logic.strain import events, scans, strain_report

    folder = context.resources.sources.folder(SOURCE, download=False)
    name, detector = events.parse(context.partition_key)
    event = events.named(events.read(folder), name)
    # From the files: the runs of the event's other detectors may be under way.
    beside, _ = scans.read_strain(folder, [f"{name}-{other}" for other in events.DETECTORS if other != detector])
    found = scans.by_detector(strain) | scans.by_detectors(beside)
    return strain_report.report(found, detector, event)


@dg.multi_asset(
    name="qscans",
    outs={
        "qscans": dg.AssetOut(**table_asset(QSCANS, "2", kinds={"spark", "gwpy"})),
        "quarantined_qscans": dg.AssetOut(**table_asset(QUARANTINED_QSCANS, "1", kinds={"spark", "gwpy"})),
    },
    **BY_EVENT,
)
def qscans(context: dg.AssetExecutionContext, strain: DataFrame, config: ScanConfig) -> tuple[pa.Table, pa.Table]:
    """Q-scans of the run's events and of the background beside them, made by Spark's workers."""
    from bigdata_assets.gravitational_waves.logic.strain import scans

    scanned = scans.scan(strain, len(context.partition_keys), config.background)
    made = pc.is_null(scanned["reason"])
    return (
        scanned.filter(made).select(QSCANS.column_names),
        scanned.filter(pc.invert(made)).select(QUARANTINED_QSCANS.column_names),
    )


@dg.asset(**table_asset(EVENT_PREDICTIONS, "3"), **BY_EVENT)
def event_predictions(
    qscans: DataFrame,
    chirp_svc: StoredSparkModel,
    rbf_svm: StoredModel,
    glitch_cnn: StoredKerasModel,
) -> pd.DataFrame:
    """What each model says of the run's Q-scans."""
    from bigdata_assets.gravitational_waves.logic.classifiers import cnn, features, rbf, svc
    from bigdata_assets.gravitational_waves.logic.strain import scans

    found, margins = scans.scans_of(qscans), {}
    if len(found):
        glitches = features.features(scans.as_glitches(qscans))
        settings = svc.from_parameters(chirp_svc.card["parameters"])
        linear = svc.margins(chirp_svc.load(), svc.vectors(glitches, settings))
        margins["chirp_svc"] = linear.select("id", "margin").toPandas()
        rows = rbf.with_pixels(glitches.toPandas())
        margins["rbf_svm"] = rows[["id"]].assign(margin=rbf.margins(rbf_svm.load(rbf.TRUSTED_TYPES), rows))
        views = cnn.glitches(cnn.glitch_views(scans.as_glitches(qscans)).toPandas())
        margins["glitch_cnn"] = scans.of_network(views.ids, cnn.probabilities(glitch_cnn.load(), views.views))
    judges = _judges(chirp_svc=chirp_svc.card, rbf_svm=rbf_svm.card, glitch_cnn=glitch_cnn.card)
    return scans.predictions(found, margins, judges)


ASSETS: Sequence[dg.AssetsDefinition] = (
    spectrograms,
    glitch_metadata,
    spectrogram_gallery,
    glitch_features,
    chirp_svc_tuning,
    chirp_svc,
    rbf_svm,
    glitch_views,
    glitch_cnn,
    chirp_predictions,
    chirp_svc_report,
    glitch_cnn_report,
    strain,
    strain_report,
    qscans,
    event_predictions,
)
