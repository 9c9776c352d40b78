import io

import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from bigdata_assets.big_cats.logic.chip_gallery import SIDE_PX, _thumbnails, credit_line, licence, report, thumbnail
from bigdata_assets.big_cats.logic.classes import CatClass

LION, TIGER = CatClass("/m/096mb", "Lion", (291,)), CatClass("/m/07dm6", "Tiger", (292,))
BY_2 = "https://creativecommons.org/licenses/by/2.0/"


def png(width=40, height=30):
    out = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(out, "PNG")
    return out.getvalue()


def row(label, number, image_id, author="A. Author", text=BY_2):
    return {
        "label": label.label,
        "number": number,
        "subset": "test",
        "image_id": image_id,
        "chip_id": f"{image_id}-{number}",
        "thumbnail": png(),
        "author": author,
        "license": text,
        "landing_url": f"https://example.org/{image_id}",
    }


@pytest.mark.parametrize(
    ("text", "short"),
    [
        (BY_2, "CC BY 2.0"),
        ("http://www.creativecommons.org/licenses/by-nc-sa/3.0/us/", "CC BY-NC-SA 3.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0 1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "Public Domain Mark 1.0"),
        ("stated CC0 by its uploader", "stated CC0 by its uploader"),
        (None, "unknown"),
        ("", "unknown"),
    ],
)
def test_licence_is_told_by_its_short_name(text, short):
    assert licence(text) == short


def test_thumbnail_is_small_and_keeps_its_shape():
    small = Image.open(io.BytesIO(thumbnail(png(1000, 500))))
    assert (small.size, small.format) == ((SIDE_PX, SIDE_PX // 2), "JPEG")
    assert Image.open(io.BytesIO(thumbnail(png(40, 30)))).size == (40, 30), "a small one is not blown up"


def test_workers_hand_on_thumbnails_under_the_chips_names():
    batch = pa.RecordBatch.from_pydict({"chip_id": ["a", "b"], "chip": [png(900, 900), png()]})
    (out,) = _thumbnails(iter([batch]))
    assert out["chip_id"].to_pylist() == ["a", "b"]
    assert [Image.open(io.BytesIO(data)).width for data in out["thumbnail"].to_pylist()] == [SIDE_PX, 40]


def test_each_class_has_a_sheet_in_order_with_credits_below_the_chips():
    rows = pd.DataFrame([row(LION, 2, "b" * 16), row(LION, 1, "a" * 16, "Ca$h \\no $tudio\n of long names", "x" * 99)])
    page = report(rows, [TIGER, LION])
    assert page.numbers == {"chips shown": 2, "classes shown": 1}
    assert "Of Tiger there is none." in page.summary
    assert list(page.figures) == ["Lion"]
    texts = [text.get_text() for text in page.figures["Lion"].texts]
    assert texts == [
        "a" * 16 + "\nCa$h \\no $tudio of long n…\n" + "x" * 25 + "…",
        "b" * 16 + "\nA. Author\nCC BY 2.0",
    ]
    assert page.pngs()["Lion"][1:4] == b"PNG", "dollars are no formula"
    table = page.tables["Pictures that are shown"]
    assert table["licence"].tolist() == ["x" * 99, "CC BY 2.0"]
    assert table.columns.tolist() == ["picture", "subset", "author", "licence", "page"]


def test_a_picture_without_source_is_said_to_be_of_unknown_author_and_licence():
    rows = pd.DataFrame([row(LION, 1, "a" * 16, None, None)])
    assert credit_line(rows.iloc[0]) == "author unknown\nlicence unknown"
    table = report(rows.assign(landing_url=float("nan")), [LION]).tables["Pictures that are shown"]
    assert table.loc[0, ["author", "licence", "page"]].tolist() == ["unknown"] * 3


def test_a_picture_with_two_classes_is_on_both_sheets_and_credited_once():
    page = report(pd.DataFrame([row(LION, 1, "a" * 16), row(TIGER, 1, "a" * 16)]), [LION, TIGER])
    assert list(page.figures) == ["Lion", "Tiger"]
    assert len(page.tables["Pictures that are shown"]) == 1
