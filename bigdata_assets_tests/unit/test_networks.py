import dataclasses
import json
import random
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from bigdata_assets.resources import networks
from bigdata_assets.resources.networks import BATCH, Network, UnknownNetworkError, WeightsError
from bigdata_assets_tests.integration.conftest import REAL_DATA

WEIGHTS = REAL_DATA / "big_cats" / "weights"
needs_real = pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"no folder with weights at {WEIGHTS}")


@pytest.fixture(scope="module")
def lively(tmp_path_factory):
    """MobileNet with random weights whose answers depend on the picture: as Keras draws them, they are 1e-19 apart."""
    keras.utils.set_random_seed(1)
    model = keras.applications.MobileNet(weights=None)
    for weight in model.weights:
        if "kernel" in weight.name:
            weight.assign(weight * 5)
    path = tmp_path_factory.mktemp("lively") / "mobilenet.weights.h5"
    model.save_weights(path)
    return Network.of("MobileNet", str(path))


@pytest.fixture(scope="module")
def mobilenet(lively):
    return networks.load(lively)


def noise(n, size_px=224):
    """Of another colour in each picture."""
    rng = np.random.default_rng(0)
    return (rng.random((n, size_px, size_px, 3)) * rng.integers(20, 256, (n, 1, 1, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """MobileNet's weights in all ways that are wrong."""
    folder = tmp_path_factory.mktemp("weights")
    model = keras.applications.MobileNet(weights=None)
    model.save_weights(folder / "whole.weights.h5")
    model.save(folder / "model.keras")
    keras.src.legacy.saving.legacy_h5_format.save_model_to_hdf5(model, folder / "model.h5")
    keras.applications.MobileNet(weights=None, include_top=False, input_shape=(224, 224, 3)).save_weights(
        folder / "mobilenet_notop.weights.h5"
    )
    (folder / "text.weights.h5").write_text("<html>not found</html>")
    data = (folder / "whole.weights.h5").read_bytes()
    (folder / "half.weights.h5").write_bytes(data[: len(data) // 2])
    return folder


def test_answers_do_not_depend_on_what_else_is_in_the_batch(mobilenet):
    images = noise(BATCH + 3)
    whole = mobilenet.predict(images)
    assert whole.shape == (BATCH + 3, 1000)
    np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-4)
    assert np.abs(whole[0] - whole[1]).max() > 2e-4
    np.testing.assert_allclose(mobilenet.predict(images[BATCH:]), whole[BATCH:], rtol=1e-4, atol=1e-7)
    assert mobilenet.predict(images[:0]).shape == (0, 1000)
    assert mobilenet._forward.experimental_get_tracing_count() == 1


def test_answers_are_the_same_with_other_passes(lively):
    images = noise(5)
    other = dataclasses.replace(lively, pictures_a_pass=3)
    np.testing.assert_allclose(
        networks.load(other).predict(images), networks.load(lively).predict(images), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("name", ["MobileNet", "ResNet50"])
def test_answers_are_those_of_the_bare_model(name, lively):
    """Preprocessing is the network's own, and the last layer of the features makes the answers."""
    network = lively if name == "MobileNet" else Network.of(name, "none")
    loaded, images = networks.load(network), noise(2)
    module = {"MobileNet": keras.applications.mobilenet, "ResNet50": keras.applications.resnet50}[name]
    model = networks._model(network)
    expected = model.predict(module.preprocess_input(images.astype(np.float32)), verbose=0)
    assert np.abs(expected[0] - expected[1]).max() > 2e-4
    np.testing.assert_allclose(loaded.predict(images), expected, rtol=1e-3, atol=1e-6)
    kernel, bias = loaded.top_weights(range(1000))
    logits = loaded.features(images) @ kernel + bias
    of_features = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(of_features / of_features.sum(axis=1, keepdims=True), expected, rtol=1e-3, atol=1e-6)
    few, _ = loaded.top_weights((292, 3))
    np.testing.assert_array_equal(few, kernel[:, [292, 3]])


def test_without_weights_a_network_is_the_same_again_and_nothing_else_is_reseeded():
    network = Network.of("MobileNet", "none")
    random.seed(7)
    expected = random.random()
    random.seed(7)
    first = networks._model(network)
    assert random.random() == expected
    for one, other in zip(first.weights, networks._model(network).weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_efficientnet_has_its_own_size():
    loaded = networks.load(Network.of("EfficientNetV2S", "none"))
    assert loaded.size_px == 384
    assert loaded.features(noise(1, 384)).shape == (1, 1280)


def test_a_file_is_known_by_its_bytes(files):
    path = files / "whole.weights.h5"
    network = Network.of("MobileNet", str(path))
    assert network.version.startswith("MobileNet-")
    assert len(network.version) == len("MobileNet-") + 12
    assert Network.of("MobileNet", "none").version == "MobileNet-none"
    networks.check(network)
    with h5py.File(path) as file:
        first = file["layers/conv2d/vars/0"][()]
    np.testing.assert_array_equal(networks._model(network).weights[0], first)


@pytest.mark.parametrize(
    ("name", "file", "reason"),
    [
        ("MobileNetV2", "whole.weights.h5", "another network's"),
        ("MobileNet", "mobilenet_notop.weights.h5", "without top"),
        ("MobileNet", "model.keras", "whole model"),
        ("MobileNet", "model.h5", "whole model"),
        ("MobileNet", "text.weights.h5", "no HDF5 file"),
        ("MobileNet", "half.weights.h5", "no HDF5 file"),
    ],
)
def test_other_weights_are_refused(files, name, file, reason):
    with pytest.raises(WeightsError, match=reason) as caught:
        networks.check(Network.of(name, str(files / file)))
    assert file in str(caught.value)
    assert f"BIG_CATS_WEIGHTS={name}=<file>" in str(caught.value)


def test_what_is_not_there_is_told(files, monkeypatch):
    with pytest.raises(WeightsError, match=r"gone\.h5, weights of ResNet50, cannot be read"):
        Network.of("ResNet50", str(files / "gone.h5"))
    with pytest.raises(UnknownNetworkError, match="ResNet51"):
        networks.check(Network("ResNet51", "none", ""))

    def offline(**_):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(networks, "names", lambda: ("MobileNet",))
    monkeypatch.setattr(keras.applications, "MobileNet", offline)
    with pytest.raises(WeightsError, match=r"URL fetch failure.*BIG_CATS_WEIGHTS=MobileNet"):
        networks.check(Network.of("MobileNet", "imagenet"))


def test_keras_has_networks():
    assert {"MobileNet", "ResNet50", "EfficientNetV2S", "VGG16"} <= set(networks.names())
    assert not {"mobilenet", "imagenet_utils"} & set(networks.names())


def test_classes_have_names(tmp_path):
    file = tmp_path / "imagenet_class_index.json"
    names = networks.class_names(file)
    assert (names[292], names[0], len(names)) == ("tiger", "class_0", 1000)
    file.write_text(json.dumps({str(number): [f"n{number}", f"name_{number}"] for number in range(1000)}))
    assert networks.class_names(file)[999] == "name_999"
    file.write_text("[]")
    with pytest.raises(WeightsError, match="imagenet_class_index"):
        networks.class_names(file)


@needs_real
def test_known_names_are_imagenets():
    names = networks.class_names(WEIGHTS / "imagenet_class_index.json")
    assert {index: names[index] for index in networks.KNOWN} == networks.KNOWN


@needs_real
@pytest.mark.parametrize("file", ["mobilenet_1_0_224", "mobilenet_v2_1_0_224", "resnet50"])
def test_real_weights_are_those_of_their_network(file):
    name = {"mobilenet_1_0_224": "MobileNet", "mobilenet_v2_1_0_224": "MobileNetV2", "resnet50": "ResNet50"}[file]
    networks.check(Network.of(name, str(Path(WEIGHTS) / f"{file}.weights.h5")))


def test_every_network_of_keras_is_shown_what_it_wants():
    networks._tensorflow(None)
    constructors = [name for name in networks.names() if not name.endswith("Base")]
    assert {"MobileNetV3Small", "VGG16", "ConvNeXtTiny"} < set(constructors)
    for name in constructors:
        assert callable(networks._preprocess(name)), name


def test_a_network_that_keras_makes_unlike_its_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="BIG_CATS_WEIGHTS=EfficientNetB0=imagenet"):
        networks.check(Network("EfficientNetB0", str(tmp_path / "efficientnetb0.h5"), "EfficientNetB0-x"))
