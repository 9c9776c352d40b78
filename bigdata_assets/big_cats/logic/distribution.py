"""How classes, boxes and what is told of them are distributed: counted on Spark, drawn from the counts."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from bigdata_assets.big_cats.logic.classes import CatClass
from bigdata_assets.big_cats.logic.figures import MOST_ROWS, matrix
from bigdata_assets.big_cats.tables import FLAGS, SUBSETS
from bigdata_assets.reports import FIGURE_IN, Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pyspark.sql import DataFrame

AREAS: Mapping[int, str] = {bin_: f"1/{2 ** -(bin_ + 1)}" for bin_ in range(-10, -1)} | {-1: "all"}
"""Bins of areas and their upper edges: log2 of the share of the picture, rounded down; the first has all below."""
ASPECTS: Mapping[int, str] = {bin_: f"{2 ** (bin_ / 2):.2g}" for bin_ in range(-6, 6)}
"""Bins of width by height and their lower edges: half octaves; the first and the last have all beyond."""
MOST_BOXES = 10
MOST_REASONS = 40
TOLD = ("true", "false", "unknown")


def distribution(
    image_ids: "DataFrame",
    chips: "DataFrame",
    quarantined_boxes: "DataFrame",
    quarantined_images: "DataFrame",
    classes: Sequence[CatClass],
) -> Report:
    """Counts on Spark, and what is drawn of them.

    Args:
        image_ids: rows of cat_image_ids.
        chips: rows of cat_chips; their bytes are not read.
        quarantined_boxes: rows of quarantined_boxes.
        quarantined_images: rows of quarantined_images.
        classes: the chosen classes, in the order that they are shown in.
    """
    return report(counts(image_ids, chips, quarantined_boxes, quarantined_images), classes)


def counts(
    image_ids: "DataFrame", chips: "DataFrame", quarantined_boxes: "DataFrame", quarantined_images: "DataFrame"
) -> dict[str, pd.DataFrame]:
    """Small frames: their length depends on classes, subsets, bins and reasons, not on the tables' length.

    Returns:
        Frames by name, with columns
        pictures: subset, label, other (also the label itself), pictures that show both;
        chips: subset, label, is_whole_image, area (of AREAS; null: a whole picture), aspect (of ASPECTS), chips, and
        of each flag `<flag>_true`, `<flag>_false`, `<flag>_unknown`. A chip of two classes is in both's;
        boxes: boxes (MOST_BOXES: so many and more), pictures that have chips;
        no_boxes: label, reason, boxes;
        no_pictures: subset, reason, pictures.
    """
    from pyspark.sql import functions as F

    # Sizes and places in a reason would make as many kinds of it as there are files.
    kind_of_reason = F.regexp_replace("reason", "[0-9][0-9,]*", "N").alias("reason")
    n, is_box = F.count("*"), ~F.col("is_whole_image")
    area = F.floor(F.log2((F.col("x_max") - F.col("x_min")) * (F.col("y_max") - F.col("y_min"))))
    aspect = F.floor(2 * F.log2(F.col("width_px") / F.col("height_px")))
    flags = {
        f"{flag}_{told}": F.count_if(condition)
        for flag in FLAGS
        for told, condition in zip(TOLD, (F.col(flag), ~F.col(flag), F.isnull(flag)), strict=True)
    }
    of_class = chips.select(
        *("subset", "is_whole_image", *FLAGS),
        F.explode("labels").alias("label"),
        F.when(is_box, F.least(F.greatest(area, F.lit(min(AREAS))), F.lit(max(AREAS)))).alias("area"),
        F.least(F.greatest(aspect, F.lit(min(ASPECTS))), F.lit(max(ASPECTS))).alias("aspect"),
    )
    shown = image_ids.select("subset", "classes", F.explode("classes").alias("label"))
    by_picture = chips.groupBy("subset", "image_id").agg(F.count_if(is_box).alias("boxes"))
    frames = {
        "pictures": shown.select("subset", "label", F.explode("classes").alias("other"))
        .groupBy("subset", "label", "other")
        .agg(n.alias("pictures")),
        "chips": of_class.groupBy("subset", "label", "is_whole_image", "area", "aspect").agg(
            n.alias("chips"), *(count.alias(name) for name, count in flags.items())
        ),
        "boxes": by_picture.groupBy(F.least("boxes", F.lit(MOST_BOXES)).alias("boxes")).agg(n.alias("pictures")),
        "no_boxes": quarantined_boxes.groupBy("label", kind_of_reason).agg(n.alias("boxes")),
        "no_pictures": quarantined_images.groupBy("subset", kind_of_reason).agg(n.alias("pictures")),
    }
    return {name: frame.toPandas() for name, frame in frames.items()}


def report(counted: Mapping[str, pd.DataFrame], classes: Sequence[CatClass]) -> Report:
    """Tables and pictures of what `counts` returns; a class that is not among the chosen ones goes by its MID."""
    names = {one.label: one.name for one in classes}
    frames = {name: frame.replace({"label": names, "other": names}) for name, frame in counted.items()}
    pictures, chips = frames["pictures"], frames["chips"]
    order = list(dict.fromkeys([*names.values(), *sorted({*pictures["label"], *chips["label"]})]))
    boxes, whole = (chips[chips["is_whole_image"] == is_whole] for is_whole in (False, True))
    by_subset = pd.concat(
        {
            "pictures": _sums(pictures[pictures["label"] == pictures["other"]], ["label", "subset"], "pictures"),
            "boxes": _sums(boxes, ["label", "subset"], "chips"),
            "whole pictures": _sums(whole, ["label", "subset"], "chips"),
        },
        axis=1,
    )
    by_subset = by_subset.reindex(pd.MultiIndex.from_product([order, SUBSETS]), fill_value=0).fillna(0).astype(int)
    by_class = by_subset.groupby(level=0).sum().reindex(order)
    per_picture = frames["boxes"].set_index("boxes")["pictures"].sort_index()
    together = pictures.pivot_table(index="label", columns="other", values="pictures", aggfunc="sum", fill_value=0)
    together = together.reindex(index=order, columns=order, fill_value=0)
    shown = order[:MOST_ROWS]
    areas, aspects = (_histograms(boxes, name, bins, order) for name, bins in (("area", AREAS), ("aspect", ASPECTS)))
    n_pictures = int(per_picture.sum())
    quarantined = {what: int(frames[f"no_{what}"][what].sum()) for what in ("boxes", "pictures")}
    return Report(
        title="What the chips are of",
        summary=(
            f"{by_class['boxes'].sum():,} boxes and {by_class['whole pictures'].sum():,} whole pictures of "
            f"{(by_class.sum(axis=1) > 0).sum()} classes, on {n_pictures:,} pictures. What is of two classes is "
            f"counted in both. No chip could be made of {quarantined['boxes']:,} boxes, and "
            f"{quarantined['pictures']:,} pictures are not usable."
        ),
        numbers={
            "pictures with chips": n_pictures,
            "boxes": int(by_class["boxes"].sum()),
            "whole pictures": int(by_class["whole pictures"].sum()),
            "quarantined boxes": quarantined["boxes"],
            "quarantined pictures": quarantined["pictures"],
        },
        tables={
            "By class and subset": by_subset.rename_axis(["class", "subset"]).reset_index(),
            "Boxes on a picture": _told(per_picture.rename_axis("boxes")),
            "Pictures that show both": together.rename_axis("class").reset_index(),
            "Boxes by area, upper edges of bins as shares of the picture": areas.rename_axis("class").reset_index(),
            "Boxes by width by height, lower edges of bins": aspects.rename_axis("class").reset_index(),
            "What is told of boxes": _flags(boxes, order),
            "Quarantined boxes": frames["no_boxes"].rename(columns={"label": "class"}),
            "Quarantined pictures": frames["no_pictures"],
        },
        figures={
            "Chips by class": _bars(by_subset, shown),
            "Pictures that show both classes": matrix(together[shown], "and", "pictures that show"),
            "Boxes by area, share of the picture up to": matrix(areas, "share of the picture, up to", "boxes of"),
            "Boxes by width / height, from": matrix(aspects, "width / height, from", "boxes of"),
            "Boxes on a picture (0: the whole picture is the chip)": _per_picture(per_picture),
        },
    )


def _sums(frame: pd.DataFrame, by: list[str], what: str) -> pd.Series:
    return frame.groupby(by)[what].sum()


def _told(per_picture: pd.Series) -> pd.DataFrame:
    table = per_picture.reset_index()
    return table.assign(boxes=[f"{n} and more" if n == MOST_BOXES else str(n) for n in table["boxes"]])


def _histograms(boxes: pd.DataFrame, name: str, bins: Mapping[int, str], order: list[str]) -> pd.DataFrame:
    table = boxes.pivot_table(index="label", columns=name, values="chips", aggfunc="sum", fill_value=0)
    return table.reindex(index=order, columns=list(bins), fill_value=0).set_axis(list(bins.values()), axis=1)


def _flags(boxes: pd.DataFrame, order: list[str]) -> pd.DataFrame:
    """A row per flag and class, and per flag of all."""
    columns = [f"{flag}_{told}" for flag in FLAGS for told in TOLD]
    sums = boxes.groupby("label")[columns].sum().reindex(order, fill_value=0)
    sums.loc["all"] = sums.sum()
    rows = [
        {"flag": flag, "class": name} | {told: int(sums.loc[name, f"{flag}_{told}"]) for told in TOLD}
        for flag in FLAGS
        for name in sums.index
    ]
    return pd.DataFrame(rows)


def _bars(by_subset: pd.DataFrame, shown: list[str]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(FIGURE_IN, 1.2 + 0.3 * len(shown)), layout="constrained")
    axes = figure.subplots()
    left = pd.Series(0, index=shown)
    for number, subset in enumerate(SUBSETS):
        of_subset = by_subset.xs(subset, level=1).reindex(shown)
        for column, alpha in (("boxes", 1.0), ("whole pictures", 0.4)):
            axes.barh(shown, of_subset[column], left=left, color=f"C{number}", alpha=alpha, label=f"{subset}, {column}")
            left += of_subset[column]
    axes.set(xlabel="chips")
    axes.set_yticks(range(len(shown)), shown, parse_math=False)
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=3, fontsize=7)
    return figure


def _per_picture(per_picture: pd.Series) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(FIGURE_IN, 2.4), layout="constrained")
    axes = figure.subplots()
    axes.bar(per_picture.index, per_picture)
    ticks = range(MOST_BOXES + 1)
    axes.set_xticks(ticks, [f"{n}+" if n == MOST_BOXES else str(n) for n in ticks])
    axes.set(xlabel="boxes on a picture", ylabel="pictures")
    return figure
