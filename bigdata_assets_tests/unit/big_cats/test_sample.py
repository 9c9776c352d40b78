import csv
import hashlib
import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from bigdata_assets.big_cats import sample
from bigdata_assets.big_cats.tables import SUBSETS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    sample.write_sample(folder)
    return folder


def rows(folder, name):
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def labels(folder, subset):
    return rows(folder, f"{subset}-annotations-human-imagelabels-boxable.csv")


def opened(folder, image_id):
    return Image.open(folder / "images" / f"{image_id}.jpg")


def test_same_seed_gives_same_bytes_and_another_seed_does_not(tmp_path):
    written = {}
    for name, seed in {"one": 1, "again": 1, "other": 2}.items():
        place = tmp_path / name
        (place / "images").mkdir(parents=True)
        sample._write_subset(place, "test", sample._pictures("test", np.random.default_rng(seed)))
        written[name] = {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}
    assert written["one"] == written["again"]
    assert len(written["one"]) > 20
    assert written["one"].keys() != written["other"].keys(), "ids are drawn too"


def test_files_are_laid_out_as_the_publishers(folder):
    names = {path.name for path in folder.glob("*.csv")}
    assert names == {
        "class-descriptions-boxable.csv",
        "test-annotations-human-imagelabels-boxable.csv",
        "validation-annotations-human-imagelabels-boxable.csv",
        "train-annotations-human-imagelabels-boxable.csv",
        "test-annotations-bbox.csv",
        "validation-annotations-bbox.csv",
        "oidv6-train-annotations-bbox.csv",
        "test-images-with-rotation.csv",
        "validation-images-with-rotation.csv",
        "train-images-boxable-with-rotation.csv",
    }
    classes = (folder / "class-descriptions-boxable.csv").read_text().splitlines()
    assert {"/m/07dm6,Tiger", "/m/0449p,Jaguar (Animal)", "/m/0gd36,Sea lion"} < set(classes)
    assert len(classes) == 18
    header = (folder / "oidv6-train-annotations-bbox.csv").read_text().splitlines()[0]
    assert header.endswith("IsInside,XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,XClick4Y")
    assert len(header.split(",")) == 21
    assert all(len(rows(folder, sample.SOURCE_FILES[subset])[0]) == 12 for subset in SUBSETS)
    assert any(row["Title"].startswith('"Tiger", drawn') for row in rows(folder, sample.SOURCE_FILES["train"]))
    assert sum(path.stat().st_size for path in (folder / "images").iterdir()) < 5e6


@pytest.mark.parametrize(("subset", "pictures"), [("test", 18), ("validation", 22), ("train", 42)])
def test_each_subset_has_every_class_and_pictures_that_are_of_no_cat(folder, subset, pictures):
    told = labels(folder, subset)
    cats = {row["ImageID"] for row in told if row["LabelName"] in sample.CATS and row["Confidence"] == "1"}
    asked = {row["ImageID"] for row in told if row["LabelName"] in sample.CATS}
    everything = {row["ImageID"] for row in told}
    assert len(cats) == pictures
    of_a_class = Counter(row["LabelName"] for row in told if row["Confidence"] == "1")
    assert all(of_a_class[label] >= sample.CATS_OF_A_CLASS[subset] for label in sample.CATS)
    assert len(asked - cats) == sample.NEGATIVES[subset]
    assert len(everything - asked) == sample.UNASKED
    assert {row["ImageID"] for row in rows(folder, sample.SOURCE_FILES[subset])} == everything
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in everything)


def test_a_box_is_around_what_is_drawn_also_where_it_is_stored_turned(folder):
    """What is in the box differs most from what is beside it: coats have marks, scenes have few."""
    rotations = {}
    for subset, label in {"test": sample.CHEETAH, "train": sample.LEOPARD}.items():
        rotation = {row["ImageID"]: row["Rotation"] for row in rows(folder, sample.SOURCE_FILES[subset])}
        for row in rows(folder, sample.BOX_FILES[subset]):
            if row["LabelName"] != label:
                continue
            image = np.asarray(opened(folder, row["ImageID"]).convert("L"), float)
            height, width = image.shape
            left, right = (round(float(row[name]) * width) for name in ("XMin", "XMax"))
            top, bottom = (round(float(row[name]) * height) for name in ("YMin", "YMax"))
            marked = np.zeros_like(image)
            marked[:, 1:] = np.abs(np.diff(image)) > 40
            assert marked[top:bottom, left:right].sum() > 0.8 * marked.sum()
            y, x = np.argwhere(marked).mean(axis=0)
            assert abs(x - (left + right) / 2) < 0.1 * width
            assert abs(y - (top + bottom) / 2) < 0.1 * height
            rotations[rotation[row["ImageID"]]] = (width, height, right - left, bottom - top)
    assert rotations.keys() == {"0.0", "90.0", "270.0"}
    for turned in ("90.0", "270.0"):
        width, height, box_width, box_height = rotations[turned]
        assert width < height
        assert box_width < box_height, "a cat is longer than high, and is on its side here"


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_a_square_stays_under_its_box_when_a_picture_is_stored_turned(rotation_deg):
    image = Image.new("L", (80, 40))
    image.paste(255, (8, 16, 24, 32))
    box = sample.Box(sample.TIGER, (0.1, 0.3, 0.4, 0.8))
    turned = sample._turned(sample.Picture("0", sample._jpeg(image), {}, (box,)), rotation_deg)
    stored = Image.open(io.BytesIO(turned.file))
    left, top, right, bottom = stored.point(lambda level: 255 * (level > 127)).getbbox()
    found = (left / stored.width, right / stored.width, top / stored.height, bottom / stored.height)
    assert turned.boxes[0].corners == pytest.approx(found)
    assert turned.rotation == f"{rotation_deg}.0"
    assert np.asarray(stored.rotate(rotation_deg, expand=True))[24, 16] > 200, "turned counter-clockwise it is upright"


def test_test_subset_has_two_cats_a_label_without_box_and_an_id_like_a_number(folder):
    cats = [row for row in rows(folder, sample.BOX_FILES["test"]) if row["LabelName"] in sample.CATS]
    boxed = Counter(row["ImageID"] for row in cats)
    verified = {(r["ImageID"], r["LabelName"]) for r in labels(folder, "test") if r["Confidence"] == "1"}
    (two,) = [name for name, number in boxed.items() if number == 2]
    assert {label for name, label in verified if name == two} >= {sample.TIGER, sample.LION}
    unboxed = {name for name, label in verified if label in sample.CATS} - boxed.keys()
    assert len(unboxed) == 1
    assert sample.NUMBER_LIKE in boxed


def test_validation_subset_has_missing_and_broken_files(folder):
    told = labels(folder, "validation")
    cats = {row["ImageID"] for row in told if row["LabelName"] in sample.CATS and row["Confidence"] == "1"}
    missing = {name for name in cats if not (folder / "images" / f"{name}.jpg").exists()}
    broken, digests = set(), Counter()
    for name in cats - missing:
        data = (folder / "images" / f"{name}.jpg").read_bytes()
        digests[hashlib.sha256(data).hexdigest()] += 1
        try:
            Image.open(io.BytesIO(data)).load()
        except OSError:
            broken.add(name)
    assert (len(missing), len(broken)) == (1, 1)
    assert sorted(digests.values())[-2:] == [1, 2], "one picture stands in for two ids"
    formats = Counter(opened(folder, name).format for name in cats - missing)
    assert formats == {"JPEG": 19, "PNG": 2}
    assert "" in {row["Rotation"] for row in rows(folder, sample.SOURCE_FILES["validation"])}
    unknown = [row for row in rows(folder, sample.BOX_FILES["validation"]) if row["IsGroupOf"] == "-1"]
    assert [{row[flag] for flag in sample.FLAGS} for row in unknown] == [{"-1"}]


def test_train_subset_has_an_empty_box_a_group_and_a_depiction(folder):
    boxes = [row for row in rows(folder, sample.BOX_FILES["train"]) if row["LabelName"] in sample.CATS]
    assert sum(row["XMin"] == row["XMax"] for row in boxes) == 1
    assert sum(row["IsGroupOf"] == "1" for row in boxes) == 1
    assert sum(row["IsDepiction"] == "1" for row in boxes) == 1
