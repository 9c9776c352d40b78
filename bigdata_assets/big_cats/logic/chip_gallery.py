"""Contact sheets of chips, with who made each picture and what may be done with it.

Chips are chosen by their names; of those chosen Spark's workers make thumbnails, and only these reach the driver.
"""

import io
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
from PIL import Image

from bigdata_assets.big_cats.logic.classes import CatClass
from bigdata_assets.big_cats.logic.figures import cut, sheet
from bigdata_assets.reports import Report

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PER_CLASS = 12
MOST_CLASSES = 50
"""That have a sheet: 600 thumbnails are six megabytes."""
SIDE_PX = 200
"""Of a thumbnail: a third of a page's 730 dots, less what is between."""
THUMBNAILS = pa.schema([("chip_id", pa.string()), ("thumbnail", pa.binary())])
UNKNOWN = "unknown"
_CC = re.compile(
    r"https?://(?:www\.)?creativecommons\.org/(?:licenses|publicdomain)/([a-z-]+)/([0-9.]+)", re.IGNORECASE
)
_PUBLIC_DOMAIN = {"zero": "CC0", "mark": "Public Domain Mark"}


def gallery(
    chips: "DataFrame", sources: "DataFrame", classes: Sequence[CatClass], per_class: int = PER_CLASS, seed: int = 0
) -> Report:
    """A sheet per class, its chips drawn by a hash of their names, as many from each subset as it goes.

    Args:
        chips: rows of cat_chips.
        sources: rows of image_sources; a picture may have none.
        classes: the chosen classes; the first MOST_CLASSES have a sheet.
        per_class: chips on a sheet.
        seed: another one draws others.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    labels, order = [one.label for one in classes[:MOST_CLASSES]], F.xxhash64("chip_id", F.lit(seed))
    names = chips.select("subset", "chip_id", "image_id", F.explode("labels").alias("label"))
    # More than so many of a subset are never needed: Spark drops them before it shuffles.
    place = F.row_number().over(Window.partitionBy("label", "subset").orderBy(order))
    of_subset = names.where(F.col("label").isin(labels)).withColumn("place", place).where(F.col("place") <= per_class)
    number = F.row_number().over(Window.partitionBy("label").orderBy("place", order))
    drawn = of_subset.withColumn("number", number).where(F.col("number") <= per_class)
    wanted = drawn.select("label", "number", "subset", "chip_id", "image_id").toPandas()
    return report(with_thumbnails(wanted, chips, sources), classes)


def with_thumbnails(wanted: pd.DataFrame, chips: "DataFrame", sources: "DataFrame") -> pd.DataFrame:
    """The rows whose chip is there, with thumbnail and credits: columns thumbnail, author, license and landing_url.

    Args:
        wanted: some hundred rows with subset, image_id and chip_id.
        chips: rows of cat_chips.
        sources: rows of image_sources; a picture may have none.
    """
    from pyspark.sql import functions as F
    from pyspark.sql.pandas.types import from_arrow_schema

    if wanted.empty:
        return wanted.assign(thumbnail=None, author=None, license=None, landing_url=None)
    rows = chips.where(F.col("chip_id").isin(wanted["chip_id"].unique().tolist())).select("chip_id", "chip")
    thumbnails = rows.mapInArrow(_thumbnails, from_arrow_schema(THUMBNAILS)).toPandas()
    of_shown = sources.where(F.col("image_id").isin(wanted["image_id"].unique().tolist()))
    credit = of_shown.select("subset", "image_id", "author", "license", "landing_url").toPandas()
    return wanted.merge(thumbnails, on="chip_id").merge(credit, on=["subset", "image_id"], how="left")


def _thumbnails(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        small = [thumbnail(chip) for chip in batch["chip"].to_pylist()]
        yield pa.RecordBatch.from_arrays([batch["chip_id"], pa.array(small, pa.binary())], schema=THUMBNAILS)


def thumbnail(chip: bytes) -> bytes:
    """A JPEG of some ten kilobytes, at most SIDE_PX wide and high."""
    image, out = Image.open(io.BytesIO(chip)), io.BytesIO()
    image.thumbnail((SIDE_PX, SIDE_PX))
    image.convert("RGB").save(out, "JPEG", quality=85)
    return out.getvalue()


def licence(text: str | None) -> str:
    """The short name of a Creative Commons licence, such as CC BY 2.0; any other text as it is."""
    if not text:
        return UNKNOWN
    if not (found := _CC.match(text)):
        return text
    kind, version = found[1].lower(), found[2]
    return f"{_PUBLIC_DOMAIN.get(kind, f'CC {kind.upper()}')} {version}"


def credited(rows: pd.DataFrame) -> pd.DataFrame:
    """Of every shown picture where it is from: columns picture, subset, author, licence, page."""
    shown = rows.drop_duplicates(["subset", "image_id"]).sort_values(["subset", "image_id"])
    return pd.DataFrame(
        {
            "picture": shown["image_id"],
            "subset": shown["subset"],
            "author": shown["author"].fillna(UNKNOWN),
            "licence": [licence(text) for text in _texts(shown["license"])],
            "page": shown["landing_url"].fillna(UNKNOWN),
        }
    )


def credit_line(row: pd.Series) -> str:
    """Author and licence on a line each, cut to what fits below a chip."""
    author, its_licence = _texts(row[["author", "license"]])
    return f"{cut(author or f'author {UNKNOWN}')}\n{cut(licence(its_licence) if its_licence else f'licence {UNKNOWN}')}"


def _texts(values: pd.Series) -> list[str | None]:
    return [value if isinstance(value, str) else None for value in values]


def report(rows: pd.DataFrame, classes: Sequence[CatClass]) -> Report:
    """Sheets of the drawn chips.

    Args:
        rows: a row per drawn chip and class: label, number (its place on the sheet), subset, image_id, chip_id, and
            what `with_thumbnails` adds.
        classes: in the order that they are shown in.
    """
    rows = rows.sort_values(["label", "number"])
    of_class = {one.name: rows[rows["label"] == one.label] for one in classes}
    none = [name for name, its in of_class.items() if its.empty]
    unshown = f" The first {MOST_CLASSES} of {len(classes)} classes have a sheet." * (len(classes) > MOST_CLASSES)
    return Report(
        title="Chips of each class",
        summary=(
            f"{len(rows)} chips of {len(of_class) - len(none)} classes, drawn by a hash of their names from all "
            f"subsets alike, with picture, author and licence."
            + (f" Of {', '.join(none)} there is none." if none and not unshown else "")
            + unshown
        ),
        numbers={"chips shown": len(rows), "classes shown": len(of_class) - len(none)},
        tables={"Pictures that are shown": credited(rows)},
        figures={
            name: sheet(
                its["thumbnail"].tolist(), [f"{row['image_id']}\n{credit_line(row)}" for _, row in its.iterrows()]
            )
            for name, its in of_class.items()
            if len(its)
        },
    )
