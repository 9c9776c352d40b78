"""A small, seeded, true-to-format input of the branch: drawn cats with boxes, in Open Images' own files.

A cat is told by its coat: stripes, plain sand, solid spots, rosettes, rosettes with a dot, plain grey with tufted ears.
A network that has learnt photos has never seen the like: **its predictions on this sample mean nothing**. Only
`cat_head`, which is fitted on these drawings, can tell them apart; that says nothing of photos. What it has on purpose:

- test: an id that reads as a number, two cats on one picture, a label without a box, a picture stored turned by 90
  degrees;
- validation: no rotation told, all flags unknown, a file that is missing, one cut off, two ids with one stand-in;
- train: a box of no area, a group in one box, a depiction, a picture stored turned by 270 degrees;
- everywhere: pictures that were looked at for cats in vain, others that nobody looked at for cats, and boxes around
  other things.
"""

import base64
import csv
import hashlib
import io
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from tqdm import tqdm

from bigdata_assets.big_cats.logic.drawing import (
    BALL,
    CHEETAH,
    DOG,
    HOUSE,
    JAGUAR,
    LEOPARD,
    LION,
    LYNX,
    SEA_LION,
    TIGER,
    TREE,
    ZEBRA,
    Corners,
    drawn,
)
from bigdata_assets.big_cats.tables import SUBSETS

VERSION = 1
CATS: dict[str, str] = {
    TIGER: "Tiger",
    LION: "Lion",
    CHEETAH: "Cheetah",
    LEOPARD: "Leopard",
    JAGUAR: "Jaguar (Animal)",
    LYNX: "Lynx",
}
ANIMAL = "/m/0jbk"
OTHERS: dict[str, str] = {
    SEA_LION: "Sea lion",
    DOG: "Dog",
    ZEBRA: "Zebra",
    BALL: "Ball",
    HOUSE: "House",
    TREE: "Tree",
    ANIMAL: "Animal",
    "/m/01yrx": "Cat",
    "/m/01lrl": "Carnivore",
    "/m/01g317": "Person",
    "/m/0k4j": "Car",
    "/m/02y6n": "French fries",
}
SHOWN_OTHERS = (SEA_LION, DOG, ZEBRA, BALL, HOUSE)
CATS_OF_A_CLASS: Mapping[str, int] = {"test": 3, "validation": 3, "train": 7}
NEGATIVES: Mapping[str, int] = {"test": 5, "validation": 5, "train": 10}
"""Pictures that were looked at for cats in vain."""
UNASKED = 3
"""Pictures of a subset that nobody looked at for cats: no label of a cat, whether verified or not."""
NUMBER_LIKE = "00e1234567890123"
LABEL_COLUMNS = ("ImageID", "Source", "LabelName", "Confidence")
FLAGS = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")
BOX_COLUMNS = (*LABEL_COLUMNS, "XMin", "XMax", "YMin", "YMax", *FLAGS)
CLICKS = tuple(f"XClick{number}{axis}" for axis in "XY" for number in range(1, 5))
SOURCE_COLUMNS = (
    "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,OriginalSize,OriginalMD5,"
    "Thumbnail300KURL,Rotation"
).split(",")
BOX_FILES: Mapping[str, str] = {
    "test": "test-annotations-bbox.csv",
    "validation": "validation-annotations-bbox.csv",
    "train": "oidv6-train-annotations-bbox.csv",
}
SOURCE_FILES: Mapping[str, str] = {
    "test": "test-images-with-rotation.csv",
    "validation": "validation-images-with-rotation.csv",
    "train": "train-images-boxable-with-rotation.csv",
}


@dataclass(frozen=True)
class Box:
    """A box: shares of the stored picture's width and height, XMin, XMax, YMin, YMax, and its five flags."""

    label: str
    corners: Corners
    flags: tuple[int, ...] = (0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Picture:
    """A picture and all that is told of it; no file where there are no bytes."""

    image_id: str
    file: bytes
    labels: dict[str, int]
    boxes: tuple[Box, ...] = ()
    rotation: str = "0.0"
    title: str = "Untitled"
    author: str = "Sample author 1"


def write_sample(folder: Path, seed: int = 12) -> None:
    """Write class descriptions, labels, boxes, sources and images of three subsets, in the publisher's layout."""
    classes = [*CATS.items(), *OTHERS.items()]
    random.Random(seed).shuffle(classes)
    _write(folder / "class-descriptions-boxable.csv", classes)
    (folder / "images").mkdir()
    for number, subset in enumerate(tqdm(SUBSETS, "drawing cats", unit="subset", disable=None)):
        _write_subset(folder, subset, _pictures(subset, np.random.default_rng((seed, number))))


def _pictures(subset: str, rng: np.random.Generator) -> list[Picture]:
    cats = [label for label in CATS for _ in range(CATS_OF_A_CLASS[subset])]
    pictures = [_of_cats(rng, [label]) for label in cats]
    _ODDITIES[subset](pictures, rng)
    for number in range(NEGATIVES[subset] + UNASKED):
        label = SHOWN_OTHERS[number % len(SHOWN_OTHERS)]
        picture = _of(rng, [label])
        looked_at = {LION: 0} | {cat: 0 for cat in CATS if rng.random() < 0.3}
        pictures.append(replace(picture, labels=picture.labels | (looked_at if number < NEGATIVES[subset] else {})))
    return [pictures[place] for place in rng.permutation(len(pictures))]


def _of_cats(rng: np.random.Generator, labels: list[str]) -> Picture:
    """A picture of cats, some with a tree that has a box too, some of which were taken for another cat first."""
    picture = _of(rng, labels, with_tree=rng.random() < 0.3)
    others = {cat: 0 for cat in CATS if cat not in labels and rng.random() < 0.1}
    return replace(picture, labels=picture.labels | {ANIMAL: 1} | others)


def _of(rng: np.random.Generator, labels: list[str], with_tree: bool = False) -> Picture:
    """A picture of one thing, or of several beside each other."""
    image, places = drawn(rng, [TREE, *labels] if with_tree else labels)
    return Picture(
        image_id=rng.bytes(8).hex(),
        file=_jpeg(image),
        labels={label: 1 for label, _ in places},
        boxes=tuple(Box(label, corners) for label, corners in places),
        title=f'"{(CATS | OTHERS)[labels[0]]}", drawn, no. {rng.integers(1000)}',
        author=f"Sample author {rng.integers(1, 8)}",
    )


# ---- what a loader must live with ----


def _odd_test(pictures: list[Picture], rng: np.random.Generator) -> None:
    pictures[0] = replace(pictures[0], image_id=NUMBER_LIKE)
    pictures[1] = _of_cats(rng, [TIGER, LION])
    pictures[4] = replace(pictures[4], boxes=())
    pictures[7] = _turned(pictures[7], 90)


def _odd_validation(pictures: list[Picture], rng: np.random.Generator) -> None:
    pictures[0] = replace(pictures[0], rotation="")
    boxes = tuple(replace(box, flags=(-1,) * len(FLAGS)) for box in pictures[3].boxes)
    pictures[3] = replace(pictures[3], boxes=boxes)
    pictures += [replace(_of_cats(rng, [label]), rotation="") for label in (TIGER, CHEETAH, LION, LEOPARD)]
    pictures[-4] = replace(pictures[-4], file=b"")
    pictures[-3] = replace(pictures[-3], file=pictures[-3].file[: len(pictures[-3].file) // 2])
    for place in (-2, -1):
        pictures[place] = replace(pictures[place], file=_stand_in())


def _odd_train(pictures: list[Picture], rng: np.random.Generator) -> None:
    left, _, top, bottom = pictures[0].boxes[0].corners
    pictures[0] = replace(pictures[0], boxes=(*pictures[0].boxes, Box(TIGER, (left, left, top, bottom))))
    herd = _of_cats(rng, [LION] * 6)
    xs = [edge for box in herd.boxes for edge in box.corners[:2]]
    ys = [edge for box in herd.boxes for edge in box.corners[2:]]
    group = Box(LION, (min(xs), max(xs), min(ys), max(ys)), (0, 0, 1, 0, 0))
    pictures[7] = replace(herd, boxes=(group,))
    image = Image.open(io.BytesIO(pictures[14].file))
    boxes = tuple(replace(box, flags=(0, 0, 0, 1, 0)) for box in pictures[14].boxes)
    pictures[14] = replace(pictures[14], file=_jpeg(ImageOps.posterize(image, 1)), boxes=boxes)
    pictures[21] = _turned(pictures[21], 270)


_ODDITIES = {"test": _odd_test, "validation": _odd_validation, "train": _odd_train}


def _turned(picture: Picture, rotation_deg: int) -> Picture:
    """Stored so that it is upright once it is turned counter-clockwise by that, its boxes with it."""
    image = Image.open(io.BytesIO(picture.file)).rotate(-rotation_deg, expand=True)
    boxes = tuple(replace(box, corners=_clockwise(box.corners, rotation_deg // 90)) for box in picture.boxes)
    return replace(picture, file=_jpeg(image), boxes=boxes, rotation=f"{rotation_deg:.1f}")


def _clockwise(corners: Corners, quarters: int) -> Corners:
    for _ in range(quarters):
        left, right, top, bottom = corners
        corners = (1 - bottom, 1 - top, left, right)
    return corners


def _stand_in() -> bytes:
    image = Image.new("RGB", (320, 240), (242, 242, 242))
    ImageDraw.Draw(image).text((80, 110), "This photo is no longer available", (120, 120, 120))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


# ---- files ----


def _write_subset(folder: Path, subset: str, pictures: list[Picture]) -> None:
    _write(
        folder / f"{subset}-annotations-human-imagelabels-boxable.csv",
        [
            LABEL_COLUMNS,
            *((p.image_id, "verification", label, value) for p in pictures for label, value in p.labels.items()),
        ],
    )
    clicks = CLICKS if subset == "train" else ()
    rows = [(picture.image_id, box) for picture in pictures for box in picture.boxes]
    _write(
        folder / BOX_FILES[subset],
        [(*BOX_COLUMNS, *clicks), *(_box_row(image_id, box, bool(clicks)) for image_id, box in rows)],
    )
    _write(folder / SOURCE_FILES[subset], [SOURCE_COLUMNS, *(_source_row(picture, subset) for picture in pictures)])
    for picture in pictures:
        if picture.file:
            (folder / "images" / f"{picture.image_id}.jpg").write_bytes(picture.file)


def _box_row(image_id: str, box: Box, with_clicks: bool) -> tuple[str | int, ...]:
    left, right, top, bottom = (f"{edge:.6f}" for edge in box.corners)
    x, y = (f"{(box.corners[i] + box.corners[i + 1]) / 2:.6f}" for i in (0, 2))
    # Where four clicks were: its uppermost point, the leftmost, the lowest and the rightmost.
    clicks = (x, left, x, right, top, y, bottom, y) if with_clicks else ()
    return image_id, "xclick", box.label, 1, left, right, top, bottom, *box.flags, *clicks


def _source_row(picture: Picture, subset: str) -> tuple[str | int, ...]:
    digest = hashlib.md5(picture.image_id.encode(), usedforsecurity=False).digest()
    page = f"https://example.org/{picture.image_id}"
    return (
        picture.image_id,
        subset,
        f"{page}/original.jpg",
        page,
        "https://creativecommons.org/licenses/by/2.0/",
        "https://example.org/authors/1",
        picture.author,
        picture.title,
        40 * len(picture.file) or 400_000,
        base64.b64encode(digest).decode(),
        f"{page}/small.jpg",
        picture.rotation,
    )


def _write(path: Path, rows: Iterable[Iterable[str | int]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows(rows)


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()
