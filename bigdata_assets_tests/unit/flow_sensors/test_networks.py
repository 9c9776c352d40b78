import numpy as np
import pytest

from bigdata_assets.flow_sensors.logic import anomaly_models, networks
from bigdata_assets.flow_sensors.logic.networks import Windows

T, CHANNELS = 16, 2
INPUTS = 3 * CHANNELS + 2


def windows(n=6, seed=0):
    inputs = np.random.default_rng(seed).normal(size=(n, T, INPUTS)).astype(np.float32)
    inputs[:, :, 2 * CHANNELS : 3 * CHANNELS] = 0  # nothing is missing
    return Windows(inputs, (inputs[:, :, 0] > 1).astype(np.int8))


@pytest.mark.parametrize("name", anomaly_models.NETWORKS)
def test_a_network_has_a_figure_for_each_sample_and_is_read_in_safe_mode(name, tmp_path):
    import keras

    inputs = windows().inputs
    model = networks.build(name, T, CHANNELS, INPUTS)
    found = networks.predict(name, model, inputs, CHANNELS)
    assert found.shape == (6, T)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(networks.predict(name, loaded, inputs, CHANNELS), found)


def test_only_known_networks_are_built():
    with pytest.raises(ValueError, match="no network 'lstm'; there are bilstm_v1, "):
        networks.build("lstm", T, CHANNELS, INPUTS)


def test_samples_of_unknown_label_are_not_learnt():
    learnt = windows()
    unknown = learnt.labels.copy()
    unknown[:, ::2] = -1
    inputs, targets, weights = networks._targets("fcn", Windows(learnt.inputs, unknown), CHANNELS, 3.0)
    np.testing.assert_array_equal(weights[:, ::2], 0)
    np.testing.assert_array_equal(weights[:, 1::2], np.where(learnt.labels[:, 1::2] == 1, 3, 1))
    np.testing.assert_array_equal(targets[:, 1::2, 0], learnt.labels[:, 1::2])
    # The autoencoder learns what is not known to be anomalous.
    _, values, weights = networks._targets(networks.AUTOENCODER, Windows(learnt.inputs, unknown), CHANNELS, 3.0)
    np.testing.assert_array_equal(values, inputs[..., :CHANNELS])
    np.testing.assert_array_equal(weights, unknown != 1)


def test_anomalous_samples_weigh_the_root_of_their_rarity():
    labels = np.repeat(np.array([0, 1, -1], np.int8), [900, 100, 500])
    assert networks.positive_weight(labels) == 3
    assert networks.positive_weight(labels[:901]) == networks.MOST_WEIGHT
    assert networks.positive_weight(np.ones(4, np.int8)) == 1


def test_the_autoencoders_error_is_of_the_values_that_are_there():
    class Zeros:
        def predict(self, inputs, **_):
            return np.zeros((len(inputs), T, CHANNELS), np.float32)

    inputs = np.zeros((1, T, INPUTS), np.float32)
    inputs[..., 0], inputs[..., 1] = 3, 4
    assert networks.predict(networks.AUTOENCODER, Zeros(), inputs, CHANNELS)[0, 0] == pytest.approx(np.sqrt(12.5))
    inputs[..., 2 * CHANNELS + 1] = 1
    assert networks.predict(networks.AUTOENCODER, Zeros(), inputs, CHANNELS)[0, 0] == 3


def test_epochs_are_told_and_nothing_is_printed(capfd):
    told = []
    _, history = networks.fit("fcn", windows(), windows(seed=1), CHANNELS, 2, 5, 7, told.append)
    assert [len(values) for values in history.values()] == [2, 2]
    assert told == [f"fcn: epoch {number + 1} of 2, loss {history['loss'][number]:.4f}" for number in range(2)]
    assert capfd.readouterr().out == ""
