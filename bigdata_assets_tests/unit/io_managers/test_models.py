"""Stored models: what comes back, and what is refused."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import numpy as np
import pytest
from upath import UPath

from bigdata_assets.io_managers.keras_model import (
    FILE,
    KerasModelIOManager,
    StoredKerasModel,
    TrainedKerasModel,
)
from bigdata_assets.io_managers.model_card import CARD, KEPT_VERSIONS, ModelFileError
from bigdata_assets.io_managers.spark_model import SparkModelIOManager, TrainedSparkModel
from bigdata_assets.resources.snapshots import SnapshotStore

KEY = dg.AssetKey(["branch", "model"])


def output(run_id="0123456789abcdef"):
    spec = dg.AssetSpec(KEY, code_version="3")
    return dg.build_output_context(asset_key=KEY, run_id=run_id, asset_spec=spec)


def wanted():
    return dg.build_input_context(asset_key=KEY)


@pytest.fixture(scope="module")
def network():
    import keras

    layers = keras.layers
    return keras.Sequential([layers.Input((3,)), layers.Dense(4, activation="relu"), layers.Dense(2)])


def trained(network):
    return TrainedKerasModel(network, ("a", "b"), {"epochs": 2}, {"accuracy": 0.5}, {"loss": [np.float32(2), 1.0]})


class Pipeline:
    """What a Spark pipeline's writer does, without Spark."""

    def write(self):
        return SimpleNamespace(save=self.save)

    def save(self, location):
        metadata = UPath(location) / "metadata"
        metadata.mkdir(parents=True)
        (metadata / "part-00000").write_text("{}")


def managers(storage):
    return {
        "keras": KerasModelIOManager(storage=storage),
        "spark": SparkModelIOManager(storage=storage),
    }


def test_a_network_comes_back_with_its_card(network, tmp_path):
    manager = KerasModelIOManager(storage=str(tmp_path / "Straße nach Süden"))
    context = output()
    manager.handle_output(context, trained(network))
    stored = manager.load_input(wanted())
    rows = np.random.default_rng(0).random((5, 3), np.float32)
    np.testing.assert_array_equal(stored.load().predict(rows, verbose=0), network.predict(rows, verbose=0))
    expected = {
        "asset": "branch/model",
        "run_id": "0123456789abcdef",
        "code_version": "3",
        "classes": ["a", "b"],
        "inputs": {},
        "parameters": {"epochs": 2},
        "metrics": {"accuracy": 0.5},
        "history": {"loss": [2.0, 1.0]},
    }
    assert {name: stored.card[name] for name in expected} == expected
    assert set(stored.card["libraries"]) == {"keras", "tensorflow", "numpy"}
    assert context.get_logged_metadata()["model_version"].value == stored.card["version"]


def test_a_network_is_stored_through_fsspec_as_well(network):
    manager = KerasModelIOManager(storage="memory://bucket/storage")
    manager.handle_output(output(), trained(network))
    assert len(manager.load_input(wanted()).load().layers) == 2


def test_an_altered_network_is_refused(network, tmp_path):
    manager = KerasModelIOManager(storage=str(tmp_path))
    manager.handle_output(output(), trained(network))
    stored = manager.load_input(wanted())
    path = Path(stored.folder) / FILE
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ModelFileError, match="SHA-256 differs"):
        stored.load()
    path.unlink()
    with pytest.raises(ModelFileError, match="is missing"):
        stored.load()


def test_a_network_that_carries_code_is_refused_although_its_hash_is_right(tmp_path):
    import keras

    inputs = keras.layers.Input((3,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1, output_shape=(3,))(inputs))
    manager = KerasModelIOManager(storage=str(tmp_path))
    manager.handle_output(output(), TrainedKerasModel(model, ("a",)))
    with pytest.raises(ModelFileError, match="cannot be read"):
        manager.load_input(wanted()).load()


@pytest.mark.parametrize("kind", ["keras", "spark"])
def test_a_missing_model_says_what_to_materialise(kind, tmp_path):
    with pytest.raises(ModelFileError, match="materialise branch/model"):
        managers(str(tmp_path))[kind].load_input(wanted())


@pytest.mark.parametrize("kind", ["keras", "spark"])
def test_a_version_that_was_never_finished_is_not_read(kind, network, tmp_path):
    manager = managers(str(tmp_path))[kind]
    manager.handle_output(output(), TrainedSparkModel(Pipeline()) if kind == "spark" else trained(network))
    finished = manager.load_input(wanted()).folder
    (tmp_path / "branch" / "model" / "zzz" / "pipeline").mkdir(parents=True)
    assert manager.load_input(wanted()).folder == finished
    (Path(finished) / CARD).unlink()
    with pytest.raises(ModelFileError, match="No model is stored"):
        manager.load_input(wanted())


@pytest.mark.parametrize("kind", ["keras", "spark"])
def test_ten_versions_are_kept_and_the_newest_is_handed_out(kind, network, tmp_path):
    manager, parent = managers(str(tmp_path))[kind], tmp_path / "branch" / "model"
    for number in range(KEPT_VERSIONS + 2):
        old = parent / f"old{number:02}" / "pipeline"
        old.mkdir(parents=True)
        (old / "part-00000").write_text("{}")
        card = old.parent / CARD
        card.write_text(json.dumps({"version": old.parent.name}))
        os.utime(card, (number, number))
    (parent / "unfinished").mkdir()
    manager.handle_output(output(), TrainedSparkModel(Pipeline()) if kind == "spark" else trained(network))
    left = sorted(folder.name for folder in parent.iterdir())
    newest = manager.load_input(wanted())
    assert left == sorted(
        [*(f"old{number:02}" for number in range(3, KEPT_VERSIONS + 2)), newest.card["version"], "unfinished"]
    )
    assert Path(newest.folder).name == newest.card["version"]


def test_the_newest_model_is_the_one_whose_card_says_so_whatever_a_copy_has_made_of_file_times(tmp_path):
    manager, parent = SparkModelIOManager(storage=str(tmp_path)), tmp_path / "branch" / "model"
    older = parent / "zzz"
    older.mkdir(parents=True)
    (older / CARD).write_text(json.dumps({"version": "zzz"}))  # of a time when cards had none
    for _ in range(KEPT_VERSIONS - 1):
        manager.handle_output(output(), TrainedSparkModel(Pipeline()))
    versions = sorted(folder.name for folder in parent.iterdir() if folder != older)  # named by their time
    for number, name in enumerate([*reversed(versions), "zzz"]):
        os.utime(parent / name / CARD, (2e9 + number, 2e9 + number))
    assert manager.load_input(wanted()).card["version"] == versions[-1]
    manager.handle_output(output(), TrainedSparkModel(Pipeline()))
    newest = manager.load_input(wanted()).card["version"]
    assert newest not in versions
    assert {folder.name for folder in parent.iterdir()} == {*versions, newest}


def test_the_snapshots_that_are_kept_are_those_saved_last_whatever_a_copy_has_made_of_file_times(tmp_path):
    store = SnapshotStore(storage=str(tmp_path), kept=2)
    for number in range(3):
        store.save(KEY, f"s{number}", {}, b"")
        os.utime(tmp_path / "branch" / "model" / "snapshots" / f"s{number}" / CARD, (2e9 - number, 2e9 - number))
    assert store.names(KEY) == {"s1", "s2"}


def test_a_spark_model_is_beside_its_card(tmp_path):
    manager = SparkModelIOManager(storage=str(tmp_path))
    manager.handle_output(output(), TrainedSparkModel(Pipeline(), {"reg": 0.1}))
    stored = manager.load_input(wanted())
    assert (Path(stored.folder) / "pipeline" / "metadata" / "part-00000").is_file()
    assert stored.card["parameters"] == {"reg": 0.1}
    assert set(stored.card["libraries"]) == {"pyspark"}


def test_a_reference_is_small_enough_to_travel(network, tmp_path):
    manager = KerasModelIOManager(storage=str(tmp_path))
    manager.handle_output(output(), trained(network))
    stored = manager.load_input(wanted())
    assert isinstance(stored, StoredKerasModel)
    assert len(json.dumps(dict(stored.card))) < 2_000
