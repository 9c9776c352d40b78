"""scikit-learn models in skops files, each version in a folder of its own with a model.json beside it.

skops, not pickle: loading builds only types from a list that the caller's code names, so that a model file from
elsewhere cannot run anything.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from upath import UPath

from bigdata_assets.io_managers.files import finished_folders, remove_folder, write_folder

CARD = "model.json"
FILE = "model.skops"
LIBRARIES = ("scikit-learn", "lightgbm", "skops", "numpy", "scipy")
KEPT_VERSIONS = 10


class ModelFileError(RuntimeError):
    """A stored model is missing, was altered, or needs types that are not trusted."""


@dataclass(frozen=True)
class TrainedModel:
    """What a training asset returns.

    Attributes:
        estimator: a fitted scikit-learn estimator.
        classes: class names in the order of the columns of predict_proba.
        inputs: Delta version of each input table, by asset.
        parameters: what the model was built with.
        metrics: figures measured while training, on rows it was not fitted on.
    """

    estimator: Any
    classes: Sequence[str]
    inputs: Mapping[str, int]
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

        path = UPath(self.folder) / FILE
        again = "Materialise the model's asset again."
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise ModelFileError(f"{path} is missing. {again}") from error
        if hashlib.sha256(data).hexdigest() != self.card["sha256"]:
            raise ModelFileError(f"{path} is not the file that was stored: its SHA-256 differs from {CARD}'s. {again}")
        try:
            return skops.io.loads(data, trusted=list(trusted))
        except UntrustedTypesFoundException as error:
            raise ModelFileError(f"{path} needs types that this code does not trust: {error}. {again}") from error
        except Exception as error:
            raise ModelFileError(f"{path} cannot be read as a skops file: {error}. {again}") from error


class SklearnModelIOManager(dg.ConfigurableIOManager):
    """Stores a `TrainedModel`, hands out a `StoredModel`: the newest finished version."""

    storage: str

    def handle_output(self, context: dg.OutputContext, obj: TrainedModel) -> None:
        import skops.io

        data = skops.io.dumps(obj.estimator)
        digest = hashlib.sha256(data).hexdigest()
        card = {
            "asset": context.asset_key.to_user_string(),
            "version": digest[:16],
            "sha256": digest,
            "created_at": datetime.now(UTC).isoformat(),
            "run_id": context.run_id,
            "code_version": context.asset_spec.code_version,
            "classes": list(obj.classes),
            "inputs": dict(obj.inputs),
            "parameters": dict(obj.parameters),
            "metrics": dict(obj.metrics),
            "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        }
        parent = self._parent(context.asset_key)
        folder = parent / str(card["version"])
        write_folder(folder, {FILE: data, CARD: json.dumps(card, indent=2).encode()}, marker=CARD)
        for old in finished_folders(parent, CARD)[:-KEPT_VERSIONS]:
            remove_folder(old, CARD)
        context.add_output_metadata(
            {
                "path": str(folder),
                "model_version": card["version"],
                "bytes": len(data),
                "classes": ", ".join(obj.classes),
                **{f"input {asset} delta_version": version for asset, version in obj.inputs.items()},
                **{name: float(value) for name, value in obj.metrics.items()},
                "model.json": dg.MetadataValue.json(card),
            }
        )

    def load_input(self, context: dg.InputContext) -> StoredModel:
        parent = self._parent(context.asset_key)
        versions = finished_folders(parent, CARD)
        if not versions:
            raise ModelFileError(
                f"No model is stored below {parent}: materialise {context.asset_key.to_user_string()}."
            )
        card = json.loads((versions[-1] / CARD).read_bytes())
        context.log.info("%s: model version %s", context.asset_key.to_user_string(), card["version"])
        return StoredModel(str(versions[-1]), card)

    def _parent(self, key: dg.AssetKey) -> UPath:
        return UPath(self.storage).joinpath(*key.path)
