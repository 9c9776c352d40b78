"""The branch's tables."""

from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    StringType,
)

from bigdata_assets.tables import Column, Table

BRANCH = "big_cats"
SUBSETS = ("test", "validation", "train")
"""Of Open Images, the smallest first."""
ROTATIONS_DEG = (0, 90, 180, 270)

_STRINGS = ArrayType(StringType(), containsNull=False)
_SUBSET = Column(
    "subset",
    StringType(),
    "Subset of Open Images; the partition key.",
    check="subset IN ('" + "', '".join(SUBSETS) + "')",
)
_IMAGE_ID = Column("image_id", StringType(), "Open Images' name of the picture, 16 hexadecimal digits.")
_LABEL = Column("label", StringType(), "Machine-readable name of the class (MID), such as /m/07dm6.")
_FILE_ROW = (
    _SUBSET,
    Column("file", StringType(), "Name of the file."),
    Column("position", LongType(), "Byte offset of the row in its file (decompressed)."),
    Column("reason", StringType(), "Why it is not in the table."),
    Column("raw", StringType(), "Its text, the first 65,536 characters."),
)
FLAGS = {
    "is_occluded": "Whether something hides a part of it.",
    "is_truncated": "Whether it goes beyond the picture's edge.",
    "is_group_of": "Whether it is more than five, touching each other.",
    "is_depiction": "Whether it is a drawing or the like.",
    "is_inside": "Whether the picture was taken from within it.",
}
_FLAGS = tuple(Column(name, BooleanType(), f"{text} Null: unknown.", nullable=True) for name, text in FLAGS.items())
_CORNERS = tuple(
    Column(name, DoubleType(), text)
    for name, text in {
        "x_min": "Left edge as a share of the stored picture's width.",
        "x_max": "Right edge, likewise.",
        "y_min": "Upper edge as a share of its height.",
        "y_max": "Lower edge, likewise.",
    }.items()
)
_OR_NULL = tuple(Column(c.name, c.type, c.description + " Null: none.", nullable=True) for c in _CORNERS)

CLASS_DESCRIPTIONS = Table(
    BRANCH,
    "class_descriptions",
    "One row per class of Open Images: its names. Source: class-descriptions-boxable.csv.",
    (_LABEL, Column("name", StringType(), "Its English name, such as Tiger.")),
)
IMAGE_LABELS = Table(
    BRANCH,
    "image_labels",
    "One row per label that people gave a picture or took from it. Source: <subset>-annotations-human-imagelabels-"
    "boxable.csv.",
    (
        _SUBSET,
        _IMAGE_ID,
        Column("source", StringType(), "How the label came to be, such as verification."),
        _LABEL,
        Column("confidence", DoubleType(), "1: verified to be there; 0: verified not to be.", check="confidence >= 0"),
    ),
    partition_column="subset",
)
QUARANTINED_LABELS = Table(
    BRANCH, "quarantined_labels", "One row per unusable row of a file of labels.", _FILE_ROW, partition_column="subset"
)
BOXES = Table(
    BRANCH,
    "boxes",
    "One row per box that was drawn around something. Source: <subset>-annotations-bbox.csv.",
    (
        _SUBSET,
        _IMAGE_ID,
        Column("source", StringType(), "How the box came to be, such as xclick."),
        _LABEL,
        Column("confidence", DoubleType(), "Always 1 in what people drew."),
        *_CORNERS,
        *_FLAGS,
    ),
    partition_column="subset",
)
QUARANTINED_BOX_ROWS = Table(
    BRANCH, "quarantined_box_rows", "One row per unusable row of a file of boxes.", _FILE_ROW, partition_column="subset"
)
IMAGE_SOURCES = Table(
    BRANCH,
    "image_sources",
    "One row per picture: where it is from, who made it, what may be done with it, how far it is to be turned. Source: "
    "<subset>-images-with-rotation.csv.",
    (
        _SUBSET,
        _IMAGE_ID,
        Column("original_url", StringType(), "Where the original is.", nullable=True),
        Column("landing_url", StringType(), "The page it is shown on.", nullable=True),
        Column("license", StringType(), "Its licence, mostly as a URL.", nullable=True),
        Column("author_profile_url", StringType(), "The author's page.", nullable=True),
        Column("author", StringType(), "The author.", nullable=True),
        Column("title", StringType(), "Its title.", nullable=True),
        Column("original_bytes", LongType(), "Bytes of the original, which is larger than ours.", nullable=True),
        Column("original_md5", StringType(), "MD5 of the original, base64.", nullable=True),
        Column("thumbnail_url", StringType(), "Where a small one is.", nullable=True),
        Column(
            "rotation_deg",
            IntegerType(),
            "How far the picture and its boxes are to be turned counter-clockwise; null: unknown.",
            nullable=True,
            check=f"rotation_deg IS NULL OR rotation_deg IN {ROTATIONS_DEG}",
        ),
    ),
    partition_column="subset",
)
QUARANTINED_SOURCES = Table(
    BRANCH,
    "quarantined_sources",
    "One row per unusable row of a file of pictures' sources.",
    _FILE_ROW,
    partition_column="subset",
)
CAT_IMAGE_IDS = Table(
    BRANCH,
    "cat_image_ids",
    "One row per picture that is verified to show one of the chosen classes.",
    (
        _SUBSET,
        _IMAGE_ID,
        Column("classes", _STRINGS, "MIDs of the chosen classes that it is verified to show, sorted."),
        Column("labels", _STRINGS, "MIDs of all that it is verified to show, sorted."),
    ),
    partition_column="subset",
)
_PICTURE = (
    _SUBSET,
    _IMAGE_ID,
    Column("image", BinaryType(), "The file's bytes."),
    Column("image_bytes", LongType(), "How many.", check="image_bytes > 0"),
    Column("width_px", IntegerType(), "Width as stored.", check="width_px > 0"),
    Column("height_px", IntegerType(), "Height as stored.", check="height_px > 0"),
    Column("format", StringType(), "What the bytes are, whatever the file is called: JPEG, PNG, …"),
    Column(
        "exif_orientation",
        IntegerType(),
        "How a viewer turns it, 1 to 8 as EXIF has it; null: nothing, or nothing legal, is said.",
        nullable=True,
        check="exif_orientation IS NULL OR exif_orientation BETWEEN 1 AND 8",
    ),
    Column("sha256", StringType(), "SHA-256 of the bytes, hexadecimal."),
)
IMAGES = Table(
    BRANCH,
    "images",
    "One row per picture of cat_image_ids: its bytes, and what they are.",
    _PICTURE,
    partition_column="subset",
)
NEGATIVE_IMAGES = Table(
    BRANCH,
    "negative_images",
    "One row per picture of a draw of those that were looked at for some of the chosen classes, in vain: its bytes.",
    _PICTURE,
    partition_column="subset",
)
_NO_PICTURE = (
    _SUBSET,
    _IMAGE_ID,
    Column("place", StringType(), "Path or URL where it was looked for."),
    Column("reason", StringType(), "Why it is not in the table."),
    Column("image_bytes", LongType(), "Bytes that were found.", nullable=True),
    Column("sha256", StringType(), "Their SHA-256, hexadecimal.", nullable=True),
)
QUARANTINED_IMAGES = Table(
    BRANCH,
    "quarantined_images",
    "One row per picture that is missing, broken, too large or a stand-in for many.",
    _NO_PICTURE,
    partition_column="subset",
)
QUARANTINED_NEGATIVES = Table(
    BRANCH,
    "quarantined_negatives",
    "One row per picture of the draw that is missing, broken, too large or a stand-in for many.",
    _NO_PICTURE,
    partition_column="subset",
)
_CHIP_ID = Column("chip_id", StringType(), "Made of the picture's name and the box: the same in every run.")
_CHIP_LABELS = Column(
    "labels",
    _STRINGS,
    "MIDs of the chosen classes that it is said to show, sorted; several where boxes are at one place.",
)
_IS_WHOLE = Column(
    "is_whole_image", BooleanType(), "Whether it is the whole picture, which has a label and no box of a chosen class."
)
CAT_CHIPS = Table(
    BRANCH,
    "cat_chips",
    "One row per box around one of the chosen classes: what is in the box, turned upright.",
    (
        _SUBSET,
        _CHIP_ID,
        _IMAGE_ID,
        _CHIP_LABELS,
        Column("label", StringType(), "The MID where there is one alone; null: several.", nullable=True),
        _IS_WHOLE,
        *_OR_NULL,
        Column("left_px", IntegerType(), "First column of the stored picture.", check="left_px >= 0"),
        Column("top_px", IntegerType(), "First row.", check="top_px >= 0"),
        Column("right_px", IntegerType(), "Column after the last.", check="right_px > left_px"),
        Column("bottom_px", IntegerType(), "Row after the last.", check="bottom_px > top_px"),
        *_FLAGS,
        Column("rotation_deg", IntegerType(), "How far it was turned counter-clockwise; null: unknown.", nullable=True),
        Column("width_px", IntegerType(), "Width of the chip, turned.", check="width_px > 0"),
        Column("height_px", IntegerType(), "Height of the chip, turned.", check="height_px > 0"),
        Column("format", StringType(), "PNG or JPEG.", check="format IN ('PNG', 'JPEG')"),
        Column("chip", BinaryType(), "RGB picture in that format."),
    ),
    partition_column="subset",
)
QUARANTINED_BOXES = Table(
    BRANCH,
    "quarantined_boxes",
    "One row per box of a chosen class, on a picture of images, that no chip could be made of.",
    (_SUBSET, _IMAGE_ID, _LABEL, *_OR_NULL, Column("reason", StringType(), "Why not.")),
    partition_column="subset",
)
TOP = 5
CHIP_PREDICTIONS = Table(
    BRANCH,
    "chip_predictions",
    "One row per chip and network: the five of ImageNet's thousand classes that it thinks most likely.",
    (
        Column("network", StringType(), "Name in keras.applications; the partition key."),
        _CHIP_ID,
        _IMAGE_ID,
        Column("subset", StringType(), "Subset of Open Images."),
        _CHIP_LABELS,
        _IS_WHOLE,
        Column("top_indices", ArrayType(IntegerType(), containsNull=False), "The five, of 0 to 999, likeliest first."),
        Column("top_names", _STRINGS, "Their names, such as snow_leopard."),
        Column("top_probabilities", ArrayType(FloatType(), containsNull=False), "Their probabilities."),
        Column("model_version", StringType(), "Network and weights, such as ResNet50-1f2e… or ResNet50-none."),
        Column("seconds", DoubleType(), "Of a worker: its part of a pass, decoding included.", check="seconds >= 0"),
    ),
    partition_column="network",
    known_by=("network", "chip_id"),
)
CAT_FEATURES = Table(
    BRANCH,
    "cat_features",
    "One row per view of a chip or of a negative picture: what a network makes of it before its last layer.",
    (
        Column("subset", StringType(), "Subset of Open Images."),
        _IMAGE_ID,
        Column("chip_id", StringType(), "The chip; null: a negative picture.", nullable=True),
        _CHIP_LABELS,
        Column("view", IntegerType(), "0: as it is; 1 and on: mirrored, or a part of it.", check="view >= 0"),
        Column("perceptual_hash", LongType(), "64 bits; those of near-duplicates differ in few."),
        Column("network", StringType(), "Name in keras.applications."),
        Column("model_version", StringType(), "Network and weights."),
        Column("features", ArrayType(FloatType(), containsNull=False), "Input of the network's last layer."),
    ),
)
TABLES = (
    CLASS_DESCRIPTIONS,
    IMAGE_LABELS,
    QUARANTINED_LABELS,
    BOXES,
    QUARANTINED_BOX_ROWS,
    IMAGE_SOURCES,
    QUARANTINED_SOURCES,
    CAT_IMAGE_IDS,
    IMAGES,
    QUARANTINED_IMAGES,
    NEGATIVE_IMAGES,
    QUARANTINED_NEGATIVES,
    CAT_CHIPS,
    QUARANTINED_BOXES,
    CHIP_PREDICTIONS,
    CAT_FEATURES,
)
