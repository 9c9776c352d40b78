"""Keras models in .keras files, each version in a folder of its own with a model.json beside it.

A .keras file can name code to run when it is loaded. Here it cannot: it is read in Keras' safe mode, by code that
registers no layers of its own, and only if it is the file that was stored.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from bigdata_assets.io_managers.model_card import AGAIN, ModelFileError, ModelIOManager, file_identity, read_verified

if TYPE_CHECKING:
    import keras

FILE = "model.keras"
LIBRARIES = ("keras", "tensorflow", "numpy")


@dataclass(frozen=True)
class TrainedKerasModel:
    """What a training asset returns.

    Attributes:
        model: a fitted Keras model, made of Keras' own layers.
        classes: class names in the order of the model's outputs.
        parameters: what the model was built with.
        metrics: figures measured while training, on rows it was not fitted on.
        history: figures by name, one for each epoch.
    """

    model: "keras.Model"
    classes: Sequence[str]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredKerasModel:
    """A reference to a stored model."""

    folder: str
    card: Mapping[str, Any]

    def load(self) -> "keras.Model":
        """The model, to predict with: its optimiser is not restored.

        Raises:
            ModelFileError: the file is missing, is not the one that was stored, or cannot be read safely.
        """
        import keras

        data = read_verified(self.folder, FILE, self.card)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / FILE
            path.write_bytes(data)
            try:
                return keras.saving.load_model(path, compile=False, safe_mode=True)
            except Exception as error:
                raise ModelFileError(f"{self.folder}/{FILE} cannot be read: {error}. {AGAIN}") from error


class KerasModelIOManager(ModelIOManager):
    """Stores a `TrainedKerasModel`, hands out a `StoredKerasModel`: the newest finished version."""

    def handle_output(self, context: dg.OutputContext, obj: TrainedKerasModel) -> None:
        context.add_output_metadata(self.store(context, obj))

    def store(self, context: dg.OutputContext, obj: TrainedKerasModel, partition: str | None = None) -> dict[str, Any]:
        """Store a model, or that of a partition; what the UI is to be told."""
        with tempfile.TemporaryDirectory() as folder:  # Keras writes local files only
            path = Path(folder) / FILE
            obj.model.save(path)
            data = path.read_bytes()
        identity = file_identity(context, data)
        return self.publish(
            context,
            obj,
            version=identity["sha256"][:16],
            libraries=LIBRARIES,
            files={FILE: data},
            more={
                **identity,
                "classes": list(obj.classes),
                "history": {name: [float(value) for value in values] for name, values in obj.history.items()},
            },
            shown={"bytes": len(data), "classes": ", ".join(obj.classes)},
            partition=partition,
        )

    def load_input(self, context: dg.InputContext) -> StoredKerasModel:
        folder, card = self.newest(context)
        return StoredKerasModel(str(folder), card)
