"""Boxes to chips; without Spark."""

import io
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bigdata_assets.big_cats.logic import chips
from bigdata_assets.big_cats.logic.chips import CORNERS, KEYS, ROWS, ChipSettings, chip_batches, chip_id, chips_of
from bigdata_assets.big_cats.tables import CAT_CHIPS, FLAGS, QUARANTINED_BOXES
from bigdata_assets.io_managers.staging import Staging
from bigdata_assets.reading import stage_batches

TIGER, LION = "/m/07dm6", "/m/096mb"
RED = (255, 0, 0)


def png(image, **options):
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def scene():
    """20 by 10, black, with a red square of columns 12 to 15 and rows 2 to 5; its upper left pixel is green."""
    image = Image.new("RGB", (20, 10))
    image.paste(RED, (12, 2, 16, 6))
    image.putpixel((12, 2), (0, 255, 0))
    return image


SQUARE = (0.6, 0.8, 0.2, 0.6)


def box(corners=SQUARE, label=TIGER, **flags):
    return dict(zip(CORNERS, corners, strict=True)) | dict.fromkeys(FLAGS) | flags | {"label": label}


def row(*boxes, image=None, rotation_deg=0, classes=(TIGER,), image_id="0012345678901e12"):
    return {
        "subset": "test",
        "image_id": image_id,
        "image": png(scene()) if image is None else image,
        "rotation_deg": rotation_deg,
        "classes": list(classes),
        "boxes": list(boxes) or None,
    }


def made(*args, settings=ChipSettings(), **how):  # noqa: B008 -- it is frozen
    """Chips and refused boxes of a row, as the tables have them."""
    found = [pa.RecordBatch.from_pylist([its], ROWS).to_pylist()[0] for its in chips_of(row(*args, **how), settings)]
    for its in found:
        names = CAT_CHIPS.column_names if its["reason"] is None else QUARANTINED_BOXES.column_names
        columns = (CAT_CHIPS if its["reason"] is None else QUARANTINED_BOXES).columns
        assert all(its[column.name] is not None for column in columns if not column.nullable)
        assert all(value is None for name, value in its.items() if name not in names)
    return [its for its in found if its["reason"] is None], [its for its in found if its["reason"]]


def pixels(chip):
    return np.asarray(Image.open(io.BytesIO(chip["chip"])))


def test_a_box_is_cut_out_to_the_pixel():
    (chip,), refused = made(box(is_occluded=True, is_truncated=False))
    assert not refused
    assert np.array_equal(pixels(chip), np.asarray(scene().crop((12, 2, 16, 6))))
    expected = {
        "image_id": "0012345678901e12",
        "labels": [TIGER],
        "label": TIGER,
        "is_whole_image": False,
        **dict(zip(CORNERS, SQUARE, strict=True)),
        "left_px": 12,
        "top_px": 2,
        "right_px": 16,
        "bottom_px": 6,
        "is_occluded": True,
        "is_truncated": False,
        "is_group_of": None,
        "rotation_deg": 0,
        "width_px": 4,
        "height_px": 4,
        "format": "PNG",
    }
    assert chip.items() >= expected.items()
    assert chip["chip_id"] == chip_id("0012345678901e12", SQUARE)


@pytest.mark.parametrize("rotation_deg", [None, 0, 90, 180, 270])
def test_the_red_square_stays_under_its_box_and_is_turned_after_it_is_cut_out(rotation_deg):
    wide = (0.6, 0.9, 0.2, 0.6)
    (chip,), _ = made(box(wide), rotation_deg=rotation_deg)
    cut = np.asarray(scene().crop((12, 2, 18, 6)))
    assert np.array_equal(pixels(chip), np.rot90(cut, (rotation_deg or 0) // 90))
    assert (chip["left_px"], chip["top_px"], chip["right_px"], chip["bottom_px"]) == (12, 2, 18, 6)
    assert (chip["width_px"], chip["height_px"]) == ((4, 6) if rotation_deg in (90, 270) else (6, 4))
    assert chip["rotation_deg"] == rotation_deg


@pytest.mark.parametrize("orientation", [0, 6])
def test_exif_turns_the_picture_only_where_boxes_were_drawn_on_what_a_viewer_shows(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = png(scene(), exif=exif)
    (stored,), _ = made(box(), image=data)
    assert np.array_equal(pixels(stored), np.asarray(scene().crop((12, 2, 16, 6))))
    # Turned clockwise, as 6 says, it is 10 wide and 20 high; what was in rows 2 to 5 is in columns 4 to 7.
    corners = (0.4, 0.8, 0.6, 0.8) if orientation == 6 else SQUARE
    (viewed,), _ = made(box(corners), image=data, settings=ChipSettings(boxes_drawn_on="viewed"))
    cut = np.asarray(scene().crop((12, 2, 16, 6)))
    assert np.array_equal(pixels(viewed), np.rot90(cut, -1) if orientation == 6 else cut)


def test_names_are_of_picture_and_box_alone():
    assert chip_id("a", SQUARE) == chip_id("a", list(SQUARE)) == "a-4c52ede7a5af4215"
    assert chip_id("a", None) == "a-whole"
    assert chip_id("a", (-0.0, 1, 0, 1)) == chip_id("a", (0, 1, 0, 1.0))
    others = {chip_id("a", SQUARE), chip_id("b", SQUARE), chip_id("a", (np.nextafter(0.6, 1), *SQUARE[1:]))}
    assert len(others) == 3


def test_the_same_chips_come_of_boxes_in_any_order():
    its = [box((0, x / 10, 0, 1), label) for x in range(1, 6) for label in (TIGER, LION)] + [box((0.5, 0.1, 0, 1))]
    assert made(*its) == made(*its[::-1])


def test_two_cats_are_two_chips_of_one_decoding(monkeypatch):
    decoded = []
    monkeypatch.setattr(chips, "decode", lambda *args, **how: decoded.append(1) or real(*args, **how))
    both, _ = made(box((0, 0.5, 0, 1)), box((0.5, 1, 0, 1), LION), classes=(TIGER, LION))
    assert [chip["label"] for chip in both] == [TIGER, LION]
    assert len({chip["chip_id"] for chip in both}) == 2
    assert len(decoded) == 1


real = chips.decode


def test_boxes_at_one_place_are_one_chip_with_the_labels_of_all():
    its = [
        box(label=TIGER, is_occluded=False, is_group_of=True),
        box(label=LION, is_occluded=None, is_group_of=False),
        box(label=TIGER, is_truncated=None),
    ]
    (chip,), _ = made(*its)
    assert (chip["labels"], chip["label"]) == ([TIGER, LION], None)
    assert (chip["is_occluded"], chip["is_group_of"], chip["is_truncated"]) == (False, True, None)


def test_a_picture_without_a_box_is_one_chip_of_all_its_classes():
    (chip,), refused = made(classes=(LION, TIGER), rotation_deg=90)
    assert not refused
    assert np.array_equal(pixels(chip), np.rot90(np.asarray(scene())))
    assert (chip["labels"], chip["label"], chip["is_whole_image"]) == ([TIGER, LION], None, True)
    assert (chip["right_px"], chip["bottom_px"], chip["width_px"]) == (20, 10, 10)
    assert [chip[name] for name in (*CORNERS, *FLAGS)] == [None] * 9
    assert made()[0][0]["label"] == TIGER


def test_beside_a_box_there_is_no_whole_picture_whatever_else_is_verified():
    (chip,), refused = made(box(), classes=(TIGER, LION))
    assert not refused
    assert (chip["label"], chip["is_whole_image"]) == (TIGER, False)


def test_refused_boxes_are_told_and_the_whole_picture_is_not_made_instead():
    found, refused = made(
        box((0.5, 0.5, 0, 1)),
        box((math.nan, 1, 0, 1), LION),
        box((None, 1, 0, 1)),
        box((0, 2, 0, 1)),
        box((1, 0, 0, 1)),
    )
    assert not found
    assert sorted(its["reason"] for its in refused) == [
        "a corner is missing or not a number",
        "a corner is missing or not a number",
        "inverted: a maximum is below its minimum",
        "no area",
        "out of the picture",
    ]
    (other,), (bad,) = made(box(), box((0.5, 0.5, 0, 1), LION))
    assert (other["label"], bad["label"], bad["x_min"]) == (TIGER, LION, 0.5)


@pytest.mark.parametrize("boxes", [[box(), box(label=LION)], []])
def test_of_a_picture_that_cannot_be_decoded_each_box_or_class_is_told(boxes):
    found, refused = made(*boxes, image=png(scene())[:60], classes=(TIGER, LION))
    assert not found
    assert [its["label"] for its in refused] == [TIGER, LION]
    assert all(its["reason"].startswith("picture: ") for its in refused)
    assert refused[0]["x_min"] == (0.6 if boxes else None)
    assert made(settings=ChipSettings(max_pixels=199))[1][0]["reason"] == "picture: more than 199 pixels"


def test_a_chip_that_jpeg_cannot_hold_is_told_and_the_others_are_made():
    data = png(Image.new("RGB", (65_600, 1)))
    found, refused = made(
        box((0, 1, 0, 1)), box((0, 0.5, 0, 1)), image=data, settings=ChipSettings("JPEG", max_pixels=10**5)
    )
    assert [chip["format"] for chip in found] == ["JPEG"]
    assert "65,500" in refused[0]["reason"]


def test_jpegs_by_setting():
    (chip,), _ = made(box(), settings=ChipSettings("JPEG", 50))
    assert Image.open(io.BytesIO(chip["chip"])).format == chip["format"] == "JPEG"
    assert len(made(settings=ChipSettings("JPEG", 95))[0][0]["chip"]) > len(
        made(settings=ChipSettings("JPEG", 20))[0][0]["chip"]
    )


@pytest.mark.parametrize("mode", ["L", "CMYK", "LA", "P", "I;16"])
def test_a_chip_is_rgb_whatever_the_picture_was(mode):
    image = Image.fromarray(np.full((10, 20), 40_000, np.uint16)) if mode == "I;16" else scene().convert(mode)
    out = io.BytesIO()
    image.save(out, "JPEG" if mode == "CMYK" else "PNG")
    (chip,), _ = made(box(), image=out.getvalue())
    assert pixels(chip).shape == (4, 4, 3)


INPUT = pa.schema(
    [
        *[(name, pa.string()) for name in KEYS],
        ("image", pa.binary()),
        ("rotation_deg", pa.int32()),
        ("classes", pa.list_(pa.string())),
        (
            "boxes",
            pa.list_(
                pa.struct(
                    [("label", pa.string()), *[(c, pa.float64()) for c in CORNERS], *[(f, pa.bool_()) for f in FLAGS]]
                )
            ),
        ),
    ]
)


def test_batches_are_of_one_subset_and_of_bounded_bytes(monkeypatch):
    monkeypatch.setattr(chips.reading, "ROW_GROUP_BYTES", 5_000)
    rows = [row(box(), image_id=str(number)) | {"subset": "test" if number < 8 else "train"} for number in range(10)]
    rows[9]["boxes"] = [box((1, 0, 0, 1))] * 9
    found = list(chip_batches(pa.Table.from_pylist(rows, INPUT).to_batches(max_chunksize=3), ChipSettings()))
    assert [(subset, batch.num_rows) for subset, batch in found] == [
        ("test", 5),
        ("test", 3),
        ("train", 5),
        ("train", 5),
    ]
    assert {subset for _, batch in found[2:] for subset in batch["subset"].to_pylist()} == {"train"}


def test_a_task_stages_files_of_each_subset_with_row_groups_of_bounded_bytes(monkeypatch, tmp_path):
    monkeypatch.setattr(chips.reading, "ROW_GROUP_BYTES", 3_000)
    tables = {True: CAT_CHIPS, False: QUARANTINED_BOXES}
    stagings = []
    for table in tables.values():
        columns = type(table.spark_schema)([field for field in table.spark_schema if field.name != "subset"])
        stagings.append(Staging(str(tmp_path / table.name), columns.json(), "subset"))
    rows = [row(box(), box((1, 0, 0, 1)), image_id=str(number)) for number in range(4)] + [row() | {"subset": "train"}]
    batches = pa.Table.from_pylist(rows, INPUT).to_batches()
    told = stage_batches(chip_batches(batches, ChipSettings()), *stagings).to_pylist()
    assert [(file["usable"], file["partition"], file["rows"], file["refused"]) for file in told] == [
        (True, "test", 4, None),
        (True, "train", 1, None),
        (False, "test", 4, None),
    ]
    stored = pq.ParquetFile(tmp_path / CAT_CHIPS.name / told[0]["file"])
    assert stored.num_row_groups > 1
    assert stored.read()["image_id"].to_pylist() == ["0", "1", "2", "3"]
