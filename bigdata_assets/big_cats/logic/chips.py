"""Pictures and boxes to chips: what is in each box, turned upright. A picture is decoded once for all its boxes."""

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from bigdata_assets import reading
from bigdata_assets.big_cats.logic.pictures import (
    MAX_PIXELS,
    BoxError,
    PictureError,
    decode,
    encoded,
    pixel_box,
    turned,
)
from bigdata_assets.big_cats.tables import CAT_CHIPS, FLAGS, QUARANTINED_BOXES
from bigdata_assets.io_managers.staging import StagedFiles, Staging
from bigdata_assets.tables import row_schema, to_arrow

if TYPE_CHECKING:
    from PIL.Image import Image
    from pyspark.sql import DataFrame

CORNERS = ("x_min", "x_max", "y_min", "y_max")
KEYS = ["subset", "image_id"]
ROWS = to_arrow(
    row_schema(*CAT_CHIPS.columns, *(c for c in QUARANTINED_BOXES.columns if c.name not in CAT_CHIPS.column_names))
)
"""Of chips and of refused boxes, which have a `reason`."""


@dataclass(frozen=True)
class ChipSettings:
    """How chips are made.

    Attributes:
        format: PNG, without loss, or JPEG.
        quality: of JPEG, 1 to 95.
        boxes_drawn_on: the pixels that boxes belong to: as stored, which Open Images' do, or as viewed, that is, after
            a viewer has turned the picture as its EXIF orientation says. Columns and rows of pixels are of these.
        max_pixels: of a picture; what has more is not decoded.
    """

    format: Literal["PNG", "JPEG"] = "PNG"
    quality: int = 90
    boxes_drawn_on: Literal["stored", "viewed"] = "stored"
    max_pixels: int = MAX_PIXELS


def chip_id(image_id: str, corners: Sequence[float] | None) -> str:
    """The name of a picture's chip: x_min, x_max, y_min and y_max bit for bit; of the whole picture without."""
    if corners is None:
        return f"{image_id}-whole"
    doubles = struct.pack(">4d", *(corner + 0.0 for corner in corners))  # which makes 0.0 of -0.0
    return f"{image_id}-{hashlib.sha256(doubles).hexdigest()[:16]}"


def chips_of(row: Mapping[str, Any], settings: ChipSettings) -> Iterator[dict[str, Any]]:
    """Chips of a picture, and its refused boxes, which have a `reason`; columns as in ROWS, in an order of their own.

    Boxes with the same corners are one chip with the labels of all. A picture without a box of a chosen class is one
    chip as a whole, with all of its classes. A picture with one is not, whatever else it is verified to show: what is
    in the box would be in the whole picture too, under another's label. Nor is one whose boxes were all refused, as
    what they were drawn around is there, and nobody knows where.

    Args:
        row: subset, image_id, image (bytes), rotation_deg (None: not known, not turned), classes (MIDs of the chosen
            classes that it is verified to show), boxes (of chosen classes: label, CORNERS, FLAGS; None: none).
        settings: how they are made.
    """
    key = {name: row[name] for name in KEYS}
    # Spark gathers boxes in any order.
    boxes = sorted(row["boxes"] or (), key=lambda box: [str(box[name]) for name in (*CORNERS, "label")])
    is_whole = not boxes
    if is_whole:
        boxes = [dict.fromkeys((*CORNERS, *FLAGS)) | {"label": label} for label in sorted(row["classes"])]
    try:
        picture = decode(row["image"], settings.max_pixels, turned_by_exif=settings.boxes_drawn_on == "viewed")
    except PictureError as error:
        yield from (key | _refused(box, f"picture: {error}") for box in boxes)
        return
    at: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    everything = (0, 0, *picture.size)
    for box in boxes:
        corners = tuple(box[name] for name in CORNERS)
        try:
            pixels = everything if is_whole else pixel_box(*[*corners, *picture.size])
        except BoxError as error:
            yield key | _refused(box, str(error))
        else:
            at.setdefault((None if is_whole else corners, pixels), []).append(box)
    for (place, pixels), its in at.items():
        try:
            yield key | _chip(picture, row, place, pixels, its, settings)
        except PictureError as error:
            yield from (key | _refused(box, str(error)) for box in its)


def _refused(box: Mapping[str, Any], reason: str) -> dict[str, Any]:
    return {name: box[name] for name in ("label", *CORNERS)} | {"reason": reason}


def _together(flags: Sequence[bool | None]) -> bool | None:
    """Of several boxes at one place: true where one says so; null where none says anything."""
    known = [flag for flag in flags if flag is not None]
    return any(known) if known else None


def _chip(
    picture: "Image",
    row: Mapping[str, Any],
    corners: tuple[float, ...] | None,
    pixels: tuple[int, int, int, int],
    boxes: Sequence[Mapping[str, Any]],
    settings: ChipSettings,
) -> dict[str, Any]:
    """The chip of boxes at one place."""
    labels = sorted({box["label"] for box in boxes})
    # Boxes belong to the picture as it lies there: what is in them is turned after it is cut out.
    cut = picture if pixels == (0, 0, *picture.size) else picture.crop(pixels)
    chip = turned(cut, row["rotation_deg"] or 0)
    return {
        "chip_id": chip_id(row["image_id"], corners),
        "labels": labels,
        "label": labels[0] if len(labels) == 1 else None,
        "is_whole_image": corners is None,
        **dict(zip(CORNERS, corners or [None] * 4, strict=True)),
        **dict(zip(("left_px", "top_px", "right_px", "bottom_px"), pixels, strict=True)),
        **{flag: _together([box[flag] for box in boxes]) for flag in FLAGS},
        "rotation_deg": row["rotation_deg"],
        "width_px": chip.width,
        "height_px": chip.height,
        "format": settings.format,
        "chip": encoded(chip, settings.format, settings.quality),
    }


def stage_chips(
    images: "DataFrame",
    boxes: "DataFrame",
    ids: "DataFrame",
    sources: "DataFrame",
    labels: Sequence[str],
    settings: ChipSettings,
    usable: Staging,
    refused: Staging,
) -> tuple[StagedFiles, StagedFiles]:
    """Files of the chips of all pictures, and of the refused boxes; tasks write what they make of theirs.

    Args:
        images: as IMAGES.
        boxes: as BOXES, of any classes.
        ids: as CAT_IMAGE_IDS; pictures that are not among them are left out.
        sources: as IMAGE_SOURCES.
        labels: MIDs of the chosen classes.
        settings: how chips are made.
        usable: where chips go.
        refused: where boxes go that none can be made of.
    """

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[str, pa.RecordBatch]]:
        return chip_batches(batches, settings)

    return reading.stage_rows(with_boxes(images, boxes, ids, sources, labels), read, usable, refused)


def with_boxes(
    images: "DataFrame", boxes: "DataFrame", ids: "DataFrame", sources: "DataFrame", labels: Sequence[str]
) -> "DataFrame":
    """One row per picture, as `chips_of` has it. All else is sent to where pictures are: their bytes stay there."""
    from pyspark.sql import functions as F

    keys = F.broadcast(ids.select(KEYS))
    of_chosen = boxes.where(F.col("label").isin(list(labels))).join(keys, KEYS, "left_semi")
    gathered = of_chosen.groupBy(KEYS).agg(F.collect_list(F.struct("label", *CORNERS, *FLAGS)).alias("boxes"))
    rotations = sources.join(keys, KEYS, "left_semi").groupBy(KEYS).agg(F.min("rotation_deg").alias("rotation_deg"))
    told = ids.select(*KEYS, "classes").join(gathered, KEYS, "left").join(rotations, KEYS, "left")
    return images.select(*KEYS, "image").join(F.broadcast(told), KEYS)


def chip_batches(batches: Iterable[pa.RecordBatch], settings: ChipSettings) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The chips and refused boxes of rows as `chips_of` has them, with the subset that all of a batch are of.

    A batch ends where it has ROW_GROUP_BYTES: what is in memory is that, a picture and a chip of it.
    """
    pictures = (batch.slice(place, 1).to_pylist()[0] for batch in batches for place in range(batch.num_rows))
    rows = (row for picture in pictures for row in chips_of(picture, settings))
    return reading.by_partition(rows, "subset", "chip", ROWS)
