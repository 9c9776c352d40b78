import dataclasses
import io

import keras
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from bigdata_assets.big_cats.logic import pictures, predictions
from bigdata_assets.big_cats.tables import CAT_FEATURES, CHIP_PREDICTIONS
from bigdata_assets.resources.networks import BATCH, Network

NETWORK = Network("Brightest", "none", "Brightest-none")
NAMES = [f"class_{number}" for number in range(1000)]


class Brightest:
    """Takes pictures of 4 by 4; the class is the mean red, the features are the means of the left and right half."""

    size_px = 4

    def __init__(self):
        self.passes = []

    def predict(self, images):
        self.passes.append(len(images))
        assert images.shape[1:] == (4, 4, 3)
        assert images.dtype == np.uint8
        red = images[..., 0].mean(axis=(1, 2)).round().astype(int)
        found = np.zeros((len(images), 1000), np.float32)
        found[np.arange(len(images)), red] = 0.75
        found[np.arange(len(images)), red + 1] = 0.25
        return found

    def features(self, images):
        self.passes.append(len(images))
        return np.stack([images[:, :, :2].mean(axis=(1, 2, 3)), images[:, :, 2:].mean(axis=(1, 2, 3))], 1)


def png(red, size=(30, 20), right=None):
    image = Image.new("RGB", size, (red, 0, 0))
    if right is not None:
        image.paste((right, 0, 0), (size[0] // 2, 0, *size))
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def chips(reds, **more):
    return pa.RecordBatch.from_pylist(
        [
            {"subset": "test", "chip_id": f"c{red}", "image_id": f"i{red}", "labels": ["/m/07dm6"]}
            | {"is_whole_image": False, "chip": png(red)}
            | more
            for red in reds
        ]
    )


def pictured(*rows):
    return pa.RecordBatch.from_pylist(
        [
            {"subset": "train", "image_id": image_id, "chip_id": chip_id, "labels": labels, "picture": data}
            for image_id, chip_id, labels, data in rows
        ],
        pa.schema(
            [
                ("subset", pa.string()),
                ("image_id", pa.string()),
                ("chip_id", pa.string()),
                ("labels", pa.list_(pa.string())),
                ("picture", pa.binary()),
            ]
        ),
    )


def test_a_pass_has_as_many_pictures_as_is_set():
    loaded = Brightest()
    network = dataclasses.replace(NETWORK, pictures_a_pass=3)
    found = pa.Table.from_batches(predictions.predicted(iter([chips(range(7))]), loaded, network, NAMES, 2))
    assert (loaded.passes, found.num_rows) == ([3, 3, 1], 7)


def test_each_chip_has_its_answer_in_full_passes_across_batches():
    loaded = Brightest()
    reds = range(10, 10 + 2 * BATCH + 1)
    batches = [chips(reds[:3]), chips(reds[:1]).slice(1), chips(reds[3:])]
    found = pa.Table.from_batches(predictions.predicted(iter(batches), loaded, NETWORK, NAMES, 2))
    assert loaded.passes == [BATCH, BATCH, 1]
    assert found.schema.equals(CHIP_PREDICTIONS.arrow_schema)
    assert [row["chip_id"] for row in found.to_pylist()] == [f"c{red}" for red in reds]
    for red, row in zip(reds, found.to_pylist(), strict=True):
        assert row["top_indices"] == [red, red + 1]
        assert row["top_names"] == [f"class_{red}", f"class_{red + 1}"]
        assert row["top_probabilities"] == [0.75, 0.25]
        assert (row["network"], row["model_version"]) == ("Brightest", "Brightest-none")
    assert not list(predictions.predicted(iter([]), loaded, NETWORK, NAMES, 2))


def test_a_chip_that_cannot_be_decoded_is_named():
    batch = chips([7], chip=b"no picture")
    with pytest.raises(ValueError, match=r"chip c7 of picture i7 \(test\) cannot be decoded"):
        list(predictions.predicted(iter([batch]), Brightest(), NETWORK, NAMES, 2))


def test_pictures_are_squashed_as_keras_does(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    loaded = keras.utils.load_img(tmp_path / "picture.png", target_size=(16, 16), interpolation="bilinear")
    np.testing.assert_array_equal(predictions.small(Image.fromarray(pixels), 16), np.asarray(loaded))


def test_a_picture_has_its_views_and_one_hash():
    data = png(40, (60, 40), right=200)
    batch = pictured(("i1", "c1", ["/m/07dm6"], data), ("i2", None, [], data))
    found = pa.Table.from_batches(predictions.described(iter([batch]), Brightest(), NETWORK, 4))
    assert found.schema.equals(CAT_FEATURES.arrow_schema)
    rows = found.to_pylist()
    assert [(row["chip_id"], row["view"]) for row in rows] == [(c, v) for c in ("c1", None) for v in range(4)]
    plain, mirrored = rows[0]["features"], rows[1]["features"]
    assert plain[0] < plain[1]
    assert mirrored == plain[::-1]
    assert {row["perceptual_hash"] for row in rows} == {pictures.perceptual_hash(pictures.decode(data))}
    again = pa.Table.from_batches(predictions.described(iter([batch]), Brightest(), NETWORK, 4))
    assert again.equals(found)


def test_parts_are_seeded_by_name_and_have_the_pictures_form():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8))
    parts = [predictions.view(image, "c1", number) for number in range(2, 12)]
    assert len({part.tobytes() for part in parts}) == 10
    assert predictions.view(image, "c1", 2).tobytes() == parts[0].tobytes()
    assert predictions.view(image, "c2", 2).tobytes() != parts[0].tobytes()
    for part in parts:
        assert 180 <= part.width < 300
        assert part.width / part.height == pytest.approx(1.5, abs=0.01)
    assert predictions.view(Image.new("RGB", (1, 1)), "c1", 3).size == (1, 1)
