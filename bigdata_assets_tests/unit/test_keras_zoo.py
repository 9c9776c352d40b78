import pytest

from bigdata_assets.resources.keras_zoo import KerasZoo, _network_of
from bigdata_assets.resources.networks import UnknownNetworkError, WeightsError


@pytest.mark.parametrize(
    ("file", "network"),
    {
        "mobilenet_1_0_224.weights.h5": "MobileNet",
        "mobilenet_1_0_224_tf.h5": "MobileNet",
        "mobilenet_v2_1_0_224.weights.h5": "MobileNetV2",
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5": "MobileNetV2",
        "weights_mobilenet_v3_large_224_1.0_float.h5": "MobileNetV3Large",
        "resnet50.weights.h5": "ResNet50",
        "resnet50_weights_tf_dim_ordering_tf_kernels.h5": "ResNet50",
        "resnet50v2_weights_tf_dim_ordering_tf_kernels.h5": "ResNet50V2",
        "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels.h5": "InceptionResNetV2",
        "efficientnetv2-s.h5": "EfficientNetV2S",
        "NASNet-mobile.h5": "NASNetMobile",
        "convnext_xlarge.h5": "ConvNeXtXLarge",
        "my_cats.h5": "",
    }.items(),
)
def test_a_file_is_of_the_network_that_it_is_called_after(file, network):
    assert _network_of(file) == network


def test_weights_are_those_named_then_those_at_hand(tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    for name in ("mobilenet_v2_1_0_224.weights.h5", "resnet50_notop.h5", "resnet50_weights.h5", "other.h5"):
        (weights / name).write_bytes(name.encode())
    zoo = KerasZoo()
    assert zoo.network("MobileNetV2", tmp_path).weights == str(weights / "mobilenet_v2_1_0_224.weights.h5")
    assert zoo.network("ResNet50", tmp_path).weights == str(weights / "resnet50_weights.h5")
    assert zoo.network("MobileNet", tmp_path).version == "MobileNet-imagenet"
    assert KerasZoo(is_sample=True).network("MobileNet", tmp_path / "none").version == "MobileNet-none"
    named = KerasZoo(weights=f"ResNet50=none, MobileNet=other.h5, MobileNetV2={weights}/other.h5")
    assert named.network("ResNet50", tmp_path).weights == "none"
    assert named.network("MobileNet", tmp_path).weights == str(weights / "other.h5")
    assert named.network("MobileNetV2", tmp_path).weights == str(weights / "other.h5")
    with pytest.raises(WeightsError, match=r"gone\.h5"):
        KerasZoo(weights="ResNet50=gone.h5").network("ResNet50", tmp_path)


def test_bad_settings_and_names_are_told(tmp_path):
    for setting in ("ResNet50", "=none", "ResNet50=", "ResNet50=none,ResNet50=imagenet"):
        with pytest.raises(ValueError, match="BIG_CATS_WEIGHTS"):
            KerasZoo(weights=setting)
    with pytest.raises(UnknownNetworkError, match=r"no network 'Resnet50'.*ResNet50"):
        KerasZoo().network("Resnet50", tmp_path)
    with pytest.raises(UnknownNetworkError, match=r"BIG_CATS_WEIGHTS: .*'ResNet51'"):
        KerasZoo(weights="ResNet51=none").network("ResNet50", tmp_path)
