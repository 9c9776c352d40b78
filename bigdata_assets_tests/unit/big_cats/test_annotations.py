"""Open Images' files to rows: every published spelling, any cut, every broken row told."""

import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from bigdata_assets.big_cats.logic import annotations
from bigdata_assets.big_cats.logic.annotations import BOX_FILES, LABELS, AnnotationsFileError
from bigdata_assets_tests.integration.conftest import REAL_DATA

FIELD = REAL_DATA / "field"
needs_real = pytest.mark.skipif(not FIELD.is_dir(), reason=f"no folder with the official files at {REAL_DATA}")

LABEL_HEADER = "ImageID,Source,LabelName,Confidence\n"
BOX_HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)
CAT = "00e1234567890123,verification,/m/07dm6,1\n"


def rows_of(path: Path, kind: annotations.Kind = LABELS, subset: str = "test") -> tuple[list[dict], list[dict]]:
    """Usable rows and refused ones."""
    batches = [batch for part in annotations.plan(path, subset, kind) for batch in annotations.read(part, kind)]
    return split(batches)


def split(batches: list[pa.RecordBatch]) -> tuple[list[dict], list[dict]]:
    rows = [row for batch in batches for row in batch.to_pylist()]
    return [row for row in rows if row["reason"] is None], [row for row in rows if row["reason"] is not None]


def written(folder: Path, text: str, name: str = "test-annotations-human-imagelabels-boxable.csv") -> Path:
    path = folder / name
    path.write_text(text, newline="")
    return path


@needs_real
def test_ids_that_look_like_numbers_stay_as_they_are() -> None:
    path = FIELD / "B01/test-annotations-human-imagelabels-boxable.csv"

    usable, refused = rows_of(path)

    assert [row["image_id"] for row in usable] == ["00e1234567890123", "12e4567890123456", "0001234567890123"]
    assert {row["confidence"] for row in usable} == {1.0}
    assert not refused


@needs_real
def test_files_of_v6_have_other_names_and_more_columns() -> None:
    folder = FIELD / "B02"
    path = annotations.find(folder, BOX_FILES.name, "train")
    assert path is not None
    assert path.name == "oidv6-train-annotations-bbox.csv"

    usable, refused = rows_of(path, BOX_FILES, "train")

    assert usable[0] == {
        "subset": "train",
        "image_id": "000002b66c9c498e",
        "source": "xclick",
        "label": "/m/01g317",
        "confidence": 1.0,
        "x_min": 0.0125,
        "x_max": 0.195312,
        "y_min": 0.148438,
        "y_max": 0.5875,
        "is_occluded": False,
        "is_truncated": True,
        "is_group_of": False,
        "is_depiction": False,
        "is_inside": False,
        "reason": None,
    }
    assert not refused


def test_an_unknown_flag_is_null_and_a_corner_that_is_no_number_is_said_by_the_chips(tmp_path: Path) -> None:
    rows = BOX_HEADER + "00e1234567890123,xclick,/m/07dm6,1,nan,.5,-1.5,1,-1,0,1,-1,-1\n"
    path = written(tmp_path, rows, "test-annotations-bbox.csv")

    usable, refused = rows_of(path, BOX_FILES)

    assert [usable[0][flag] for flag in annotations.FLAGS] == [None, False, True, None, None]
    assert usable[0]["x_min"] != usable[0]["x_min"]
    assert usable[0]["y_min"] == -1.5
    assert not refused


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0001,verification,/m/07dm6,1", "ImageID is '0001', not 16 hexadecimal digits"),
        ("../../../../../etc,verification,/m/07dm6,1", "ImageID is '../../../../../etc', not 16 hexadecimal digits"),
        ("1.2e22,verification,/m/07dm6,1", "ImageID is '1.2e22', not 16 hexadecimal digits"),
        ("00e1234567890123,,/m/07dm6,1", "Source is '', not a word"),
        ("00e1234567890123,verification,Tiger,1", "LabelName is 'Tiger', not a MID, such as /m/07dm6"),
        ("00e1234567890123,verification,/m/07dm6,", "Confidence is '', not a number from 0 to 1"),
        ("00e1234567890123,verification,/m/07dm6,yes", "Confidence is 'yes', not a number from 0 to 1"),
        ("00e1234567890123,verification,/m/07dm6,-1", "Confidence is '-1', not a number from 0 to 1"),
        ("00e1234567890123,verification,/m/07dm6", "3 columns where the first line has 4"),
        ('00e1234567890123,"verification,/m/07dm6,1', "no CSV: unexpected end of data"),
        ("00e1234567890123,verification,/m/07dm6,1,", "5 columns where the first line has 4"),
    ],
)
def test_a_broken_row_is_told_where_it_is_and_takes_no_other_with_it(tmp_path: Path, line: str, reason: str) -> None:
    path = written(tmp_path, LABEL_HEADER + CAT + line + "\n" + CAT)

    usable, refused = rows_of(path)

    assert len(usable) == 2
    assert refused == [
        {
            "subset": "test",
            "file": path.name,
            "position": len(LABEL_HEADER + CAT),
            "reason": reason,
            "raw": line,
        }
    ]


def test_two_stray_quotation_marks_do_not_join_the_rows_between_them(tmp_path: Path) -> None:
    stray = ['00e1234567890123,"verification,/m/07dm6,1\n', '12e4567890123456,verification",/m/096mb,1\n']
    path = written(tmp_path, LABEL_HEADER + stray[0] + CAT + stray[1] + CAT)

    usable, refused = rows_of(path)

    assert [row["label"] for row in usable] == ["/m/07dm6", "/m/096mb", "/m/07dm6"]
    assert [row["raw"] + "\n" for row in refused] == stray[:1]


def test_a_file_can_be_cut_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"{number:016x}" for number in range(50)]
    text = LABEL_HEADER + "".join(f"{one},verification,/m/07dm6,{number % 2}\n" for number, one in enumerate(ids))
    path = written(tmp_path, text.removesuffix("\n"))  # as if the last line had been cut off after its last letter

    for part_bytes in (7, 39, 40, 41, 1000, 1 << 20):
        monkeypatch.setattr(annotations, "PART_BYTES", part_bytes)
        monkeypatch.setattr(annotations, "BLOCK_BYTES", max(part_bytes // 2, 1))
        usable, refused = rows_of(path)
        assert [row["image_id"] for row in usable] == ids
        assert not refused


def test_windows_line_ends_a_byte_order_mark_and_gzip_make_no_difference(tmp_path: Path) -> None:
    path = tmp_path / "test-annotations-human-imagelabels-boxable.csv.gz"
    path.write_bytes(gzip.compress(("\ufeff" + (LABEL_HEADER + CAT + CAT).replace("\n", "\r\n")).encode()))

    assert annotations.find(tmp_path, LABELS.name, "test") == path
    usable, refused = rows_of(path)

    assert [(row["image_id"], row["label"], row["confidence"]) for row in usable] == [
        ("00e1234567890123", "/m/07dm6", 1.0)
    ] * 2
    assert not refused


def test_a_file_of_something_else_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "id,label\n1,2\n")
    with pytest.raises(AnnotationsFileError, match="lacks the columns ImageID, Source, LabelName, Confidence"):
        annotations.plan(path, "test", LABELS)
    monkeypatch.setattr(annotations, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(annotations, "BLOCK_BYTES", 50)
    endless = written(tmp_path, LABEL_HEADER + "x" * 200)
    with pytest.raises(AnnotationsFileError, match="no line end"):
        rows_of(endless)
    written(tmp_path, "", "test-annotations-human-imagelabels.csv")  # of all classes
    assert annotations.find(tmp_path, LABELS.name, "test") == path
    written(tmp_path, "", "oidv6-test-annotations-human-imagelabels-boxable.csv")
    with pytest.raises(AnnotationsFileError, match="leave one of them"):
        annotations.find(tmp_path, LABELS.name, "test")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("/m/07dm6,Tiger\n/m/096mb,Lion\n", ["Tiger", "Lion"]),
        ("id,name\n/m/07dm6,Tiger\n", ["Tiger"]),
        ('LabelName,DisplayName\n/m/0449p,"Jaguar, (Animal)"\n', ["Jaguar, (Animal)"]),
    ],
)
def test_class_descriptions_of_every_version(tmp_path: Path, text: str, names: list[str]) -> None:
    written(tmp_path, text, "oidv7-class-descriptions-boxable.csv")

    assert annotations.class_descriptions(tmp_path)["name"].to_pylist() == names


def test_class_descriptions_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationsFileError, match="no class-descriptions-boxable"):
        annotations.class_descriptions(tmp_path)
    written(tmp_path, "/m/07dm6,Tiger\n/m/07dm6,Lion\n", "class-descriptions-boxable.csv")
    with pytest.raises(AnnotationsFileError, match="two names, 'Tiger' and 'Lion'"):
        annotations.class_descriptions(tmp_path)


@needs_real
def test_sources_have_quoted_titles_and_rotations() -> None:
    path = FIELD / "B03/train-images-boxable-with-rotation.csv"
    assert annotations.find(path.parent, annotations.SOURCES_NAME, "train") == path

    usable, refused = split(list(annotations.read_sources("train", path)))

    assert not refused
    assert usable[0]["title"] == '...Title "0", with a comma'
    assert (usable[0]["original_bytes"], usable[0]["original_md5"]) == (4405052, "KFukvivpCM5QXl5SqKe41g==")
    assert {row["rotation_deg"] for row in usable} == {0}


def test_a_broken_source_is_told_where_it_is(tmp_path: Path) -> None:
    header = "ImageID,Title,OriginalSize,Rotation\n"
    good = '00e1234567890123,"two\nlines",1024,90.0\n'
    broken = ["00e1234567890123,t,1.5,0\n", "00e1234567890123,t,1,45\n", "x,t,1,\n", "00e1234567890123,t\n"]
    path = written(tmp_path, header + good + "".join(broken) + "00e1234567890123,,,\n", "test-images-with-rotation.csv")

    usable, refused = split(list(annotations.read_sources("test", path)))

    assert [(row["title"], row["original_bytes"], row["rotation_deg"]) for row in usable] == [
        ("two\nlines", 1024, 90),
        (None, None, None),
    ]
    assert [row["raw"] + "\n" for row in refused] == broken
    assert refused[0]["position"] == len(header + good)
    assert [row["reason"] for row in refused] == [
        "OriginalSize is '1.5', not a number of bytes or empty",
        "Rotation is '45', not one of 0, 90, 180, 270 or empty",
        "ImageID is 'x', not 16 hexadecimal digits",
        "2 columns where the first line has 4",
    ]


def test_a_quotation_mark_that_is_never_closed_does_not_take_the_rest_of_the_file(tmp_path: Path) -> None:
    lines = "".join(f"{number:016x},title {number},1,0\n" for number in range(20_000))
    text = "ImageID,Title,OriginalSize,Rotation\n" + '00e1234567890123,"never closed,1,0\n' + lines
    path = written(tmp_path, text, "test-images-with-rotation.csv")

    usable, refused = split(list(annotations.read_sources("test", path)))

    assert 10_000 < len(usable) < 20_000
    assert "quotation mark" in refused[0]["reason"]
    assert refused[0]["raw"].startswith('00e1234567890123,"never closed')
