import h5py
import numpy as np
import pyarrow as pa
import pytest

from bigdata_assets.gravitational_waves.logic.training.training_set import (
    BATCH_IMAGES,
    CLASSES,
    ROWS,
    GlitchRange,
    TrainingSetError,
    plan,
    read_range,
    unknown_labels,
)

IMAGE = np.arange(140 * 170, dtype=np.float32).reshape(1, 140, 170) / 23_800


@pytest.fixture
def file(tmp_path):
    """A function that writes datasets by path, and the file's path."""
    path = tmp_path / "training set é.h5"

    def write_all(datasets):
        with h5py.File(path, "w") as out:
            for name, value in datasets.items():
                if value is None:
                    out.create_group(name)
                else:
                    out[name] = value
        return path

    return write_all


def rows(path, labels=CLASSES, **plan_options):
    return [
        row
        for part in plan(path, labels, **plan_options)
        for batch in read_range(path, part)
        for row in batch.to_pylist()
    ]


def test_an_image_is_a_row_of_its_pixels_in_order(file):
    (row,) = rows(file({"Chirp/train/abcdefghij/0.5.png": IMAGE}))
    assert (row["id"], row["label"], row["sample_type"], row["view_s"]) == ("abcdefghij", "Chirp", "train", 0.5)
    assert (row["height"], row["width"], row["reason"]) == (140, 170, None)
    np.testing.assert_array_equal(np.float32(row["pixels"]).reshape(1, 140, 170), IMAGE)


def test_missing_views_and_classes_are_normal(file):
    path = file({"Blip/test/a/4.0.png": IMAGE, "Blip/test/b/1.0.png": IMAGE.astype(np.float64)})
    assert [(row["id"], row["view_s"], row["reason"]) for row in rows(path)] == [("a", 4.0, None), ("b", 1.0, None)]
    assert rows(path, ["Chirp"]) == []


def test_what_is_no_spectrogram_has_a_reason_and_costs_nothing_else(file):
    broken = IMAGE.copy()
    broken[0, 3, 4] = np.nan
    path = file(
        {
            "Blip/train/a/0.5.png": IMAGE,
            "Blip/train/a/1.0.png": broken,
            "Blip/train/a/2.0.png": IMAGE[:, :70],
            "Blip/train/a/3.0.png": IMAGE,
            "Blip/train/a/4.0.png": (255 * IMAGE).astype(np.uint8),
            "Blip/train/b": None,
            "Blip/train/c": 5.0,
            "Blip/train/g": IMAGE,
            "Blip/train/d/1.0.png": None,
            "Blip/other/e/1.0.png": IMAGE,
            "Blip/train/f/1.0.png": IMAGE,
        }
    )
    reasons = {row["path"]: row["reason"] for row in rows(path)}
    assert {where for where, reason in reasons.items() if reason is None} == {
        "/Blip/train/a/0.5.png",
        "/Blip/train/f/1.0.png",
    }
    assert "1 pixels are no numbers" in reasons["/Blip/train/a/1.0.png"]
    assert "(1, 70, 170)" in reasons["/Blip/train/a/2.0.png"]
    assert "the view is none of 0.5.png" in reasons["/Blip/train/a/3.0.png"]
    assert "uint8" in reasons["/Blip/train/a/4.0.png"]
    assert reasons["/Blip/train/b"] == "the glitch has no view"
    assert reasons["/Blip/train/c"] == reasons["/Blip/train/g"] == "not a group of views"
    assert "unreadable" in reasons["/Blip/train/d/1.0.png"]
    assert "none of train, validation, test" in reasons["/Blip/other/e"]
    assert len(reasons) == 11


def test_a_dataset_in_place_of_a_group_is_refused_too(file):
    path = file({"Chirp": 1.0, "Blip/train": 2.0, "Blip/test/a/1.0.png": IMAGE})
    assert {row["path"]: row["reason"] for row in rows(path)} == {
        "/Chirp": "not a group of glitches",
        "/Blip/train": "not a group of glitches",
        "/Blip/test/a/1.0.png": None,
    }


def test_a_damaged_chunk_costs_its_image_alone(tmp_path):
    path = tmp_path / "damaged.h5"
    with h5py.File(path, "w") as out:
        for name in ("a", "b"):
            out.create_dataset(f"Chirp/train/{name}/1.0.png", data=IMAGE, compression="gzip", chunks=(1, 140, 170))
        where = out["Chirp/train/a/1.0.png"].id.get_chunk_info(0).byte_offset
    with path.open("r+b") as raw:
        raw.seek(where)
        raw.write(b"\xff" * 64)
    assert [(row["id"], (row["reason"] or "")[:10]) for row in rows(path)] == [("a", "unreadable"), ("b", "")]


def test_what_is_damaged_between_the_images_costs_no_other_class(tmp_path):
    path = tmp_path / "damaged.h5"
    with h5py.File(path, "w") as out:
        for label in ("Blip", "Chirp", "Helix"):
            for number in range(40):
                out[f"{label}/train/{number:03}/1.0.png"] = IMAGE
        out["Tomte/train"] = h5py.SoftLink("/nowhere")
    whole = path.read_bytes()
    nodes = [at for signature in (b"SNOD", b"TREE", b"HEAP") for at in places(whole, signature)]
    outcomes = set()
    for at in nodes[:: max(len(nodes) // 30, 1)]:
        path.write_bytes(whole[:at] + bytes(64) + whole[at + 64 :])
        try:
            found = rows(path)
        except TrainingSetError:
            outcomes.add("the file as a whole")
            continue
        outcomes.add("a part")
        assert {row["label"] for row in found if row["reason"] is None} & {"Blip", "Chirp", "Helix"}
        assert "/Tomte/train" in {row["path"] for row in found if row["reason"]}
    assert "a part" in outcomes


def places(data, signature):
    at = data.find(signature)
    while at >= 0:
        yield at
        at = data.find(signature, at + 1)


def test_ranges_cover_each_glitch_once_and_batches_are_small(file):
    names = [f"glitch{number:04}" for number in range(BATCH_IMAGES + 30)]
    path = file({f"Whistle/train/{name}/1.0.png": IMAGE for name in names})
    parts = plan(path, CLASSES, task_glitches=40)
    assert [(part.first, part.end) for part in parts] == [(0, 40), (40, 80), (80, 94)]
    assert [row["id"] for row in rows(path, task_glitches=40)] == names
    whole = GlitchRange("Whistle", "train", 0, len(names))
    assert [batch.num_rows for batch in read_range(path, whole)] == [BATCH_IMAGES, 30]
    assert next(read_range(path, whole)).schema == ROWS
    assert pa.types.is_list(ROWS.field("pixels").type)


def test_a_file_that_cannot_be_used_is_named(tmp_path, file):
    with pytest.raises(TrainingSetError, match=r"absent\.h5 is not there"):
        plan(tmp_path / "absent.h5", CLASSES)
    (tmp_path / "page.h5").write_text("<html>")
    with pytest.raises(TrainingSetError, match=r"page\.h5 cannot be opened, download it again"):
        plan(tmp_path / "page.h5", CLASSES)
    with pytest.raises(TrainingSetError, match="none of the 22 classes"):
        plan(file({"strain/Strain": 1.0}), CLASSES)
    path = file({f"Chirp/train/{number}/1.0.png": IMAGE for number in range(20)})
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(TrainingSetError, match="truncated"):
        plan(path, CLASSES)


def test_labels_that_are_no_class_are_told(file):
    path = file({"Chirp/train/a/1.0.png": IMAGE, "Dragon/train/b/1.0.png": IMAGE, "Dragon/test/c/1.0.png": IMAGE})
    assert unknown_labels(path) == {"Dragon": 2}
