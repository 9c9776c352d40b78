"""Assets of the big_cats branch: labels and boxes, pictures, chips, what networks say of them, and our own head."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import pandas as pd
import pyarrow as pa
from pydantic import Field
from pyspark.sql import DataFrame

from bigdata_assets.big_cats.logic import classes
from bigdata_assets.big_cats.partitions import IMAGE_SUBSETS, NETWORKS
from bigdata_assets.big_cats.source import BOXES_URLS, CLASSES_URL, LABELS_URLS, SOURCE, SOURCES_URLS
from bigdata_assets.big_cats.tables import (
    BOXES,
    BRANCH,
    CAT_CHIPS,
    CAT_FEATURES,
    CAT_IMAGE_IDS,
    CHIP_PREDICTIONS,
    CLASS_DESCRIPTIONS,
    IMAGE_LABELS,
    IMAGE_SOURCES,
    IMAGES,
    NEGATIVE_IMAGES,
    QUARANTINED_BOX_ROWS,
    QUARANTINED_BOXES,
    QUARANTINED_IMAGES,
    QUARANTINED_LABELS,
    QUARANTINED_NEGATIVES,
    QUARANTINED_SOURCES,
    TOP,
)
from bigdata_assets.catalogue import table_asset
from bigdata_assets.io_managers.keras_model import StoredKerasModel, TrainedKerasModel
from bigdata_assets.io_managers.model_card import THRESHOLD
from bigdata_assets.io_managers.staging import StagedFiles
from bigdata_assets.reports import Report
from bigdata_assets.resources.keras_zoo import KerasZoo
from bigdata_assets.settings import Settings
from bigdata_assets.sources import Sources

WHERE: dict[str, Any] = {"group_name": BRANCH, "owners": [f"team:{BRANCH}"], "key_prefix": BRANCH}
"""Of assets that are no tables."""
TASK_CHIPS = 100
BY_SUBSET: dict[str, Any] = {
    "partitions_def": IMAGE_SUBSETS,
    "backfill_policy": dg.BackfillPolicy.single_run(),
    "required_resource_keys": {"sources", "spark", "delta", "settings"},
}


class ImagesConfig(dg.Config):
    """What pictures are taken."""

    max_bytes: int = Field(64 << 20, ge=1, description="Of a file; a larger one is quarantined.")
    max_pixels: int = Field(25_000_000, ge=1, description="Of a picture; a larger one is quarantined, not decoded.")


class NegativesConfig(ImagesConfig):
    """How many pictures of something else are taken."""

    at_most: int = Field(500, ge=0, description="Of each subset.")


class ChipsConfig(dg.Config):
    """How chips are made."""

    format: Literal["PNG", "JPEG"] = Field("PNG", description="PNG, without loss, or JPEG, smaller.")
    quality: int = Field(90, ge=1, le=95, description="Of JPEG.")
    boxes_drawn_on: Literal["stored", "viewed"] = Field(
        "stored",
        description="Pixels that boxes belong to: as stored, as Open Images', or as a viewer shows them by EXIF.",
    )
    max_pixels: int = Field(25_000_000, ge=1, description="Of a picture; of a larger one no chip is made.")


class PredictionsConfig(dg.Config):
    """How the work is shared."""

    tasks: int = Field(
        4, ge=1, le=10_000, description=f"Most Spark tasks that share a network's pictures, {TASK_CHIPS} each or more."
    )

    pictures_a_pass: int = Field(
        8,
        ge=1,
        le=1_024,
        description="Computed at once. A worker has 1.1 GB with 8, up to 1.4 with 32; a GPU is faster with more.",
    )

    def network_of(self, zoo: KerasZoo, name: str, folder: Path) -> Any:
        """A network as a worker is to have it, found whole.

        Raises:
            UnknownNetworkError: keras.applications has no such network.
            WeightsError: its weights are not there, or are another one's.
        """
        from bigdata_assets.resources import networks

        network = dataclasses.replace(zoo.network(name, folder), pictures_a_pass=self.pictures_a_pass)
        networks.check(network)
        return network

    def tasks_for(self, *pictures: DataFrame) -> int:
        """A worker loads the network: that is worth its seconds for so many pictures."""
        return max(min(self.tasks, sum(frame.count() for frame in pictures) // TASK_CHIPS), 1)


class FeaturesConfig(PredictionsConfig):
    """What is described, and how."""

    network: str = Field("ResNet50", description="Name in keras.applications.")
    views: int | None = Field(
        None, ge=1, le=20, description="Of each picture: it, mirrored, parts of it. Default: 4; on the sample 2."
    )


class HeadConfig(dg.Config):
    """How the head is fitted."""

    epochs: int = Field(40, ge=1, description="At most.")
    patience: int = Field(5, ge=1, description="Epochs without a better loss on the pictures that it is stopped on.")
    seed: int = Field(0, description="Of everything random.")


class HeadReportConfig(dg.Config):
    """What the head's report measures."""

    repeats: int | None = Field(
        None, ge=1, le=50, description="How often all pictures are dealt out anew. Default: 2; on the sample 1."
    )
    folds: int | None = Field(
        None, ge=2, le=20, description="Of each repeat; a head is fitted for each. Default: 5; on the sample 3."
    )


class GalleryConfig(dg.Config):
    """What is shown."""

    per_class: int = Field(12, ge=1, le=48, description="Chips of each class.")
    seed: int = Field(0, description="Another one draws others.")


def _two_tables(usable: Any, refused: Any, **more: Any) -> dict[str, dg.AssetOut]:
    return {table.name: dg.AssetOut(**table_asset(table, "1", **more)) for table in (usable, refused)}


def _stagings(context: dg.AssetExecutionContext, *tables: Any) -> list[Any]:
    return [context.resources.delta.staging(table) for table in tables]


def _files(context: dg.AssetExecutionContext, name: str, urls: Mapping[str, str]) -> dict[str, Path]:
    """The files of the run's subsets; of one that has none there are no rows, which is told."""
    from bigdata_assets.big_cats.logic import annotations

    subsets = sorted(context.partition_keys)
    folder = context.resources.sources.folder(SOURCE, only=[urls[subset] for subset in subsets])
    found = {subset: annotations.find(folder, name, subset) for subset in subsets}
    for subset in subsets:
        if found[subset] is None:
            context.log.warning("%s has no %s: no rows of it", folder, urls[subset].rpartition("/")[2])
    return {subset: path for subset, path in found.items() if path is not None}


@dg.asset(**table_asset(CLASS_DESCRIPTIONS, "1", kinds={"python"}))
def class_descriptions(sources: Sources) -> pa.Table:
    """Names of the classes."""
    from bigdata_assets.big_cats.logic import annotations

    return annotations.class_descriptions(sources.folder(SOURCE, only=[CLASSES_URL]))


@dg.multi_asset(name="image_labels", outs=_two_tables(IMAGE_LABELS, QUARANTINED_LABELS), **BY_SUBSET)
def image_labels(context: dg.AssetExecutionContext) -> tuple[StagedFiles, StagedFiles]:
    """The labels of the run's subsets, and the rows that could not be used."""
    from bigdata_assets.big_cats.logic import annotations

    files = _files(context, annotations.LABELS.name, LABELS_URLS)
    parts = [part for subset, path in files.items() for part in annotations.plan(path, subset, annotations.LABELS)]
    staging = _stagings(context, IMAGE_LABELS, QUARANTINED_LABELS)
    return annotations.stage(context.resources.spark.spark_session, parts, annotations.LABELS, *staging)


@dg.multi_asset(name="boxes", outs=_two_tables(BOXES, QUARANTINED_BOX_ROWS), **BY_SUBSET)
def boxes(context: dg.AssetExecutionContext) -> tuple[StagedFiles, StagedFiles]:
    """The boxes of the run's subsets, and the rows that could not be used."""
    from bigdata_assets.big_cats.logic import annotations

    files = _files(context, annotations.BOX_FILES.name, BOXES_URLS)
    parts = [part for subset, path in files.items() for part in annotations.plan(path, subset, annotations.BOX_FILES)]
    staging = _stagings(context, BOXES, QUARANTINED_BOX_ROWS)
    return annotations.stage(context.resources.spark.spark_session, parts, annotations.BOX_FILES, *staging)


@dg.multi_asset(name="image_sources", outs=_two_tables(IMAGE_SOURCES, QUARANTINED_SOURCES), **BY_SUBSET)
def image_sources(context: dg.AssetExecutionContext) -> tuple[StagedFiles, StagedFiles]:
    """Where the pictures of the run's subsets are from, and the rows that could not be used."""
    from bigdata_assets.big_cats.logic import annotations

    files = _files(context, annotations.SOURCES_NAME, SOURCES_URLS)
    staging = _stagings(context, IMAGE_SOURCES, QUARANTINED_SOURCES)
    return annotations.stage_sources(context.resources.spark.spark_session, files, *staging)


@dg.asset(**table_asset(CAT_IMAGE_IDS, "1"), **{k: v for k, v in BY_SUBSET.items() if k != "required_resource_keys"})
def cat_image_ids(
    image_labels: DataFrame, class_descriptions: pa.Table, settings: dg.ResourceParam[Settings]
) -> DataFrame:
    """Pictures that are verified to show one of the chosen classes."""
    from bigdata_assets.big_cats.logic import images

    return images.cat_image_ids(image_labels, _chosen(settings, class_descriptions))


def _chosen(settings: Settings, class_descriptions: pa.Table) -> dict[str, classes.CatClass]:
    """The chosen classes by MID."""
    names = dict(zip(*class_descriptions.select(["label", "name"]).to_pydict().values(), strict=True))
    return {one.label: one for one in classes.chosen(settings.big_cats_classes, names)}


def _place(context: dg.AssetExecutionContext, config: ImagesConfig) -> Any:
    from bigdata_assets.big_cats.logic import images

    sources, settings = context.resources.sources, context.resources.settings
    folder = sources.folder(SOURCE, only=())
    url = settings.big_cats_images_url if sources.location == "official" else None
    return images.Place(str(folder), url, config.max_bytes, config.max_pixels)


@dg.multi_asset(name="images", outs=_two_tables(IMAGES, QUARANTINED_IMAGES), **BY_SUBSET)
def images(
    context: dg.AssetExecutionContext, cat_image_ids: DataFrame, config: ImagesConfig
) -> tuple[StagedFiles, StagedFiles]:
    """The bytes of exactly these pictures, and those that cannot be had or used."""
    from bigdata_assets.big_cats.logic import images

    return images.stage(cat_image_ids, _place(context, config), *_stagings(context, IMAGES, QUARANTINED_IMAGES))


@dg.multi_asset(name="negative_images", outs=_two_tables(NEGATIVE_IMAGES, QUARANTINED_NEGATIVES), **BY_SUBSET)
def negative_images(
    context: dg.AssetExecutionContext, image_labels: DataFrame, class_descriptions: pa.Table, config: NegativesConfig
) -> tuple[StagedFiles, StagedFiles]:
    """Pictures on which some chosen class was looked for and none found, for the threshold of `none of them`."""
    from bigdata_assets.big_cats.logic import images

    chosen = _chosen(context.resources.settings, class_descriptions)
    drawn = images.negatives(image_labels, chosen, config.at_most)
    return images.stage(drawn, _place(context, config), *_stagings(context, NEGATIVE_IMAGES, QUARANTINED_NEGATIVES))


@dg.multi_asset(name="cat_chips", outs=_two_tables(CAT_CHIPS, QUARANTINED_BOXES), **BY_SUBSET)
def cat_chips(
    context: dg.AssetExecutionContext,
    images: DataFrame,
    boxes: DataFrame,
    cat_image_ids: DataFrame,
    image_sources: DataFrame,
    class_descriptions: pa.Table,
    config: ChipsConfig,
) -> tuple[StagedFiles, StagedFiles]:
    """What is in the boxes around the chosen classes, and the boxes that nothing can be cut out of."""
    from bigdata_assets.big_cats.logic import chips

    return chips.stage_chips(
        images,
        boxes,
        cat_image_ids,
        image_sources,
        list(_chosen(context.resources.settings, class_descriptions)),
        chips.ChipSettings(**config.model_dump()),
        *_stagings(context, CAT_CHIPS, QUARANTINED_BOXES),
    )


@dg.asset(
    **WHERE,
    io_manager_key="report",
    kinds={"spark", "matplotlib"},
    code_version="1",
    description="How many pictures and chips each class has, how large boxes are, what is seen together; the flags.",
)
def label_distribution(
    cat_image_ids: DataFrame,
    cat_chips: DataFrame,
    quarantined_boxes: DataFrame,
    quarantined_images: DataFrame,
    class_descriptions: pa.Table,
    settings: dg.ResourceParam[Settings],
) -> Report:
    """Counts and pictures of them."""
    from bigdata_assets.big_cats.logic import distribution

    chosen = list(_chosen(settings, class_descriptions).values())
    return distribution.distribution(cat_image_ids, cat_chips, quarantined_boxes, quarantined_images, chosen)


@dg.asset(
    **WHERE,
    io_manager_key="report",
    kinds={"spark", "matplotlib"},
    code_version="1",
    description="A contact sheet of each class, with the author and licence of each picture.",
)
def chip_gallery(
    cat_chips: DataFrame,
    image_sources: DataFrame,
    class_descriptions: pa.Table,
    settings: dg.ResourceParam[Settings],
    config: GalleryConfig,
) -> Report:
    """Contact sheets."""
    from bigdata_assets.big_cats.logic import chip_gallery

    chosen = list(_chosen(settings, class_descriptions).values())
    return chip_gallery.gallery(cat_chips, image_sources, chosen, config.per_class, config.seed)


@dg.asset(
    **table_asset(CHIP_PREDICTIONS, "1", kinds={"spark", "keras", "tensorflow"}),
    partitions_def=NETWORKS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    ins={"cat_chips": dg.AssetIn(partition_mapping=dg.AllPartitionMapping())},
)
def chip_predictions(
    context: dg.AssetExecutionContext,
    cat_chips: DataFrame,
    sources: Sources,
    keras_zoo: KerasZoo,
    config: PredictionsConfig,
) -> DataFrame:
    """What the run's networks call each chip, said by Spark's workers."""
    from bigdata_assets.big_cats.logic import predictions

    folder = sources.folder(SOURCE, only=())
    names = keras_zoo.class_names(folder)
    of_networks, tasks = [], config.tasks_for(cat_chips)
    for name in sorted(context.partition_keys):
        network = config.network_of(keras_zoo, name, folder)
        of_networks.append(predictions.predict(cat_chips, network, names, TOP, tasks))
    return functools.reduce(DataFrame.unionByName, of_networks)


@dg.asset(
    **WHERE,
    io_manager_key="report",
    kinds={"spark", "matplotlib"},
    code_version="1",
    description="How well networks that learnt ImageNet name the chips, beside the majority; what they take for what.",
)
def prediction_report(
    chip_predictions: DataFrame,
    cat_chips: DataFrame,
    image_sources: DataFrame,
    class_descriptions: pa.Table,
    settings: dg.ResourceParam[Settings],
) -> Report:
    """Figures of the networks."""
    from bigdata_assets.big_cats.logic import prediction_report

    chosen = list(_chosen(settings, class_descriptions).values())
    return prediction_report.prediction_report(chip_predictions, cat_chips, image_sources, chosen)


@dg.asset(**table_asset(CAT_FEATURES, "1", kinds={"spark", "keras", "tensorflow"}))
def cat_features(
    cat_chips: DataFrame,
    negative_images: DataFrame,
    sources: Sources,
    keras_zoo: KerasZoo,
    config: FeaturesConfig,
) -> DataFrame:
    """What a network makes of each chip and negative picture, and of views of them."""
    from bigdata_assets.big_cats.logic import predictions

    network = config.network_of(keras_zoo, config.network, sources.folder(SOURCE, only=()))
    pictured, views = predictions.pictured(cat_chips, negative_images), sources.effort(config.views, 4, few=2)
    return predictions.features(pictured, network, views, config.tasks_for(cat_chips, negative_images))


@dg.asset(
    **WHERE,
    io_manager_key="keras_model",
    kinds={"keras", "tensorflow"},
    code_version="1",
    description="Our own head on a network's frozen features: the chosen classes, or none of them below the threshold.",
)
def cat_head(
    cat_features: pd.DataFrame,
    class_descriptions: pa.Table,
    settings: dg.ResourceParam[Settings],
    sources: Sources,
    keras_zoo: KerasZoo,
    config: HeadConfig,
) -> TrainedKerasModel:
    """A small Keras model, fitted on chips that are of one class."""
    from bigdata_assets.big_cats.logic import head
    from bigdata_assets.resources import networks

    chosen = list(_chosen(settings, class_descriptions).values())
    rows, fit_as = head.rows(cat_features, chosen), head.HeadSettings(**config.model_dump())
    network = keras_zoo.network(str(cat_features["network"].iloc[0]), sources.folder(SOURCE, only=()))
    head.made_with(cat_features, network.version)
    fitted = head.fit(rows, head.start(networks.load(network), chosen), fit_as)
    return TrainedKerasModel(
        fitted.model,
        [one.label for one in chosen],
        parameters=head.parameters(fit_as, fitted, network.name, network.version),
        metrics={"n_chips": len(rows.positive.plain), THRESHOLD: fitted.threshold}
        | ({"accuracy": fitted.held_out} if math.isfinite(fitted.held_out) else {}),
        history=fitted.history,
    )


@dg.asset(
    **WHERE,
    io_manager_key="report",
    kinds={"keras", "matplotlib"},
    code_version="1",
    description=(
        "How well our own head names the chips by cross-validation that keeps near-duplicates together, beside the "
        "networks as they are and the majority; and how well it tells that none of the classes is there."
    ),
)
def cat_head_report(
    cat_features: pd.DataFrame,
    chip_predictions: pd.DataFrame,
    cat_head: StoredKerasModel,
    class_descriptions: pa.Table,
    settings: dg.ResourceParam[Settings],
    sources: Sources,
    config: HeadReportConfig,
) -> Report:
    """Figures on pictures that the heads have not seen."""
    from bigdata_assets.big_cats.logic import head, head_report

    return head_report.report(
        cat_features,
        chip_predictions,
        list(_chosen(settings, class_descriptions).values()),
        head.start_of(cat_head.load()),
        cat_head.card,
        sources.effort(config.repeats, 2),
        sources.effort(config.folds, 5, few=3),
        sources.effort_told(config.repeats, config.folds),
    )


ASSETS: Sequence[dg.AssetsDefinition] = (
    class_descriptions,
    image_labels,
    boxes,
    image_sources,
    cat_image_ids,
    images,
    negative_images,
    cat_chips,
    label_distribution,
    chip_gallery,
    chip_predictions,
    prediction_report,
    cat_features,
    cat_head,
    cat_head_report,
)
