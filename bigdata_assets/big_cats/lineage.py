"""Where the branch's rows come from: what a network says of a chip, the chip's picture, its file."""

from bigdata_assets.big_cats.source import SOURCE
from bigdata_assets.big_cats.tables import (
    BOXES,
    CAT_CHIPS,
    CAT_FEATURES,
    CAT_IMAGE_IDS,
    CHIP_PREDICTIONS,
    IMAGE_LABELS,
    IMAGE_SOURCES,
    IMAGES,
    NEGATIVE_IMAGES,
    QUARANTINED_BOX_ROWS,
    QUARANTINED_BOXES,
    QUARANTINED_LABELS,
    QUARANTINED_SOURCES,
)
from bigdata_assets.tables import Table
from bigdata_assets.tracing.lineage import Lineage, Link, Model, Raw, RawReader, Row, same
from bigdata_assets.tracing.pictures import small
from bigdata_assets.tracing.places import Places

IMAGE = same("subset", "image_id")
CORNERS = same("x_min", "x_max", "y_min", "y_max")
MOST_BYTES = 64 << 20
NETWORK = "{network} of keras.applications with the weights {model_version}: no card is kept of a network"


def image_file(row: Row, places: Places) -> Raw:
    """The picture's file."""
    from bigdata_assets.big_cats.logic.images import Place

    path = Place(str(places.folder(SOURCE))).found(row["subset"], row["image_id"])
    if path is None:
        raise FileNotFoundError(f"no file of the picture {row['image_id']} below {places.folder(SOURCE)}")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path} has {size:,} bytes")
    data = path.read_bytes()
    notes = () if data == row["image"] else ("the file has other bytes than were read",)
    return Raw({"file": str(path), "image_id": row["image_id"]}, data, picture=small(data), notes=notes)


def _annotation(kind: str) -> RawReader:
    def file(row: Row, places: Places) -> Raw:
        """The file of annotations; of refused rows the place in it too."""
        from bigdata_assets.big_cats.logic import annotations

        names = {"labels": annotations.LABELS.name, "boxes": annotations.BOX_FILES.name}
        folder, name = places.folder(SOURCE), names.get(kind, annotations.SOURCES_NAME)
        path = annotations.find(folder, name, row["subset"])
        if path is None:
            raise FileNotFoundError(f"{folder} has no file of {kind} of {row['subset']}")
        place = {"file": str(path), **{key: row[key] for key in ("image_id", "position") if key in row}}
        return Raw(place, row["raw"].encode() if "raw" in row else None)

    return file


def chip(row: Row) -> bytes:
    """A chip's picture."""
    return small(row["chip"])


def image(row: Row) -> bytes:
    """A whole picture."""
    return small(row["image"])


def _networks(table: Table) -> Model:
    return Model(table, asset="keras.applications", note=NETWORK)


LINEAGE = Lineage(
    links=(
        Link(CHIP_PREDICTIONS, CAT_CHIPS, same("subset", "chip_id")),
        Link(CAT_FEATURES, CAT_CHIPS, same("subset", "chip_id")),
        Link(CAT_FEATURES, NEGATIVE_IMAGES, IMAGE, only={"chip_id": (None,)}),
        Link(CAT_CHIPS, BOXES, IMAGE | CORNERS, only={"is_whole_image": (False,)}),
        Link(CAT_CHIPS, IMAGE_SOURCES, IMAGE),
        Link(CAT_CHIPS, IMAGES, IMAGE),
        Link(QUARANTINED_BOXES, BOXES, IMAGE | CORNERS),
        Link(QUARANTINED_BOXES, IMAGES, IMAGE),
        Link(IMAGES, CAT_IMAGE_IDS, IMAGE),
        Link(CAT_IMAGE_IDS, IMAGE_LABELS, IMAGE),
        Link(NEGATIVE_IMAGES, IMAGE_LABELS, IMAGE),
    ),
    models=(_networks(CHIP_PREDICTIONS), _networks(CAT_FEATURES)),
    sources={
        IMAGES.path: image_file,
        NEGATIVE_IMAGES.path: image_file,
        IMAGE_LABELS.path: _annotation("labels"),
        QUARANTINED_LABELS.path: _annotation("labels"),
        BOXES.path: _annotation("boxes"),
        QUARANTINED_BOX_ROWS.path: _annotation("boxes"),
        IMAGE_SOURCES.path: _annotation("sources"),
        QUARANTINED_SOURCES.path: _annotation("sources"),
    },
    pictures={CAT_CHIPS.path: chip, IMAGES.path: image, NEGATIVE_IMAGES.path: image},
)
