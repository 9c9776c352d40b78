"""scikit-learn models in skops files, each version in a folder of its own with a model.json beside it.

skops, not pickle: loading builds only types from a list that the caller's code names, so that a model file from
elsewhere cannot run anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from bigdata_assets.io_managers.model_card import (
    AGAIN,
    CARD,
    ModelFileError,
    ModelIOManager,
    file_identity,
    read_verified,
)

__all__ = ["CARD", "FILE", "ModelFileError", "SklearnModelIOManager", "StoredModel", "TrainedModel"]

FILE = "model.skops"
LIBRARIES = ("scikit-learn", "lightgbm", "skops", "numpy", "scipy")


@dataclass(frozen=True)
class TrainedModel:
    """What a training asset returns.

    Attributes:
        estimator: a fitted scikit-learn estimator.
        classes: class names in the order of the columns of predict_proba.
        parameters: what the model was built with.
        metrics: figures measured while training, on rows it was not fitted on.
    """

    estimator: Any
    classes: Sequence[str]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredModel:
    """A reference to a stored model: small, and picklable into Spark workers, which load the file themselves."""

    folder: str
    card: Mapping[str, Any]

    @property
    def version(self) -> str:
        return str(self.card["version"])

    def load(self, trusted: Sequence[str]) -> Any:
        """The estimator.

        Args:
            trusted: names of the types that the file may build besides skops' own safe ones. Always from code,
                never from the model's folder.

        Raises:
            ModelFileError: the file is missing, is not the one that was stored, or needs other types.
        """
        import skops.io
        from skops.io.exceptions import UntrustedTypesFoundException

        path, data = f"{self.folder}/{FILE}", read_verified(self.folder, FILE, self.card)
        try:
            return skops.io.loads(data, trusted=list(trusted))
        except UntrustedTypesFoundException as error:
            raise ModelFileError(f"{path} needs types that this code does not trust: {error}. {AGAIN}") from error
        except Exception as error:
            raise ModelFileError(f"{path} cannot be read as a skops file: {error}. {AGAIN}") from error


class SklearnModelIOManager(ModelIOManager):
    """Stores a `TrainedModel`, hands out a `StoredModel`: the newest finished version."""

    def handle_output(self, context: dg.OutputContext, obj: TrainedModel) -> None:
        context.add_output_metadata(self.store(context, obj))

    def store(self, context: dg.OutputContext, obj: TrainedModel, partition: str | None = None) -> dict[str, Any]:
        """Store a model, or that of a partition; what the UI is to be told."""
        import skops.io

        data = skops.io.dumps(obj.estimator)
        identity = file_identity(context, data)
        return self.publish(
            context,
            obj,
            version=identity["sha256"][:16],
            libraries=LIBRARIES,
            files={FILE: data},
            more={**identity, "classes": list(obj.classes)},
            shown={"bytes": len(data), "classes": ", ".join(obj.classes)},
            partition=partition,
        )

    def load_input(self, context: dg.InputContext) -> StoredModel:
        folder, card = self.newest(context)
        return StoredModel(str(folder), card)
