"""What stored models of every library share: each version in a folder of its own, a model.json beside the model.

The model.json is written last: a folder without it was never finished, and nobody reads it.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import dagster as dg
from upath import UPath

from bigdata_assets.io_managers import provenance
from bigdata_assets.io_managers.files import cards, finished_folders, remove_folder, write_folder
from bigdata_assets.storage import place

CARD = "model.json"
KEPT_VERSIONS = 10
AGAIN = "Materialise the model's asset again."
THRESHOLD = "threshold"
"""Among a card's metrics."""


class ModelFileError(RuntimeError):
    """A stored model is missing, was altered, or cannot be read by this code; the message says what to materialise."""


class Trained(Protocol):
    """What every training asset returns beside the model itself."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What the model was built with."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Figures measured while training, on rows it was not fitted on."""


class ModelIOManager(dg.ConfigurableIOManager):
    """Base of the IO managers of models: cards, versions, and what the UI is told of them."""

    storage: str

    def parent(self, key: dg.AssetKey, partition: str | None = None) -> UPath:
        """Where the versions of an asset's model are, or of that of its partition."""
        return place(self.storage).joinpath(*key.path, *([partition] if partition else []))

    def publish(
        self,
        context: dg.OutputContext,
        trained: Trained,
        version: str,
        libraries: Iterable[str],
        files: Mapping[str, bytes],
        more: Mapping[str, Any],
        shown: Mapping[str, Any],
        partition: str | None = None,
    ) -> dict[str, Any]:
        """Make a version readable, remove those beyond the newest ten; what the UI is to be told.

        Args:
            context: of the output.
            trained: what was trained.
            version: name of the version's folder.
            libraries: distributions whose versions the card names.
            files: by name, written before the card.
            more: of the card, beside what all cards have.
            shown: metadata beside what all models show.
            partition: whose model it is, where each partition has one.
        """
        inputs = provenance.inputs(context)
        card = {
            "version": version,
            "created_at": datetime.now(UTC).isoformat(),
            "run_id": context.run_id,
            "code_version": context.asset_spec.code_version,
            "inputs": inputs,
            "parameters": dict(trained.parameters),
            "metrics": dict(trained.metrics),
            "libraries": {name: importlib.metadata.version(name) for name in libraries},
            **more,
        }
        parent = self.parent(context.asset_key, partition)
        write_folder(parent / version, {**files, CARD: json.dumps(card, indent=2).encode()}, marker=CARD)
        others = [folder for folder in finished_folders(parent, CARD) if folder.name != version]
        for old, _ in cards(others, CARD)[: -(KEPT_VERSIONS - 1)]:
            remove_folder(old, CARD)
        if partition is None:
            provenance.stored(context, version)
        return {
            "path": str(parent / version),
            "model_version": version,
            **shown,
            **{f"input {asset} delta_version": number for asset, number in inputs.items()},
            **{name: float(value) for name, value in trained.metrics.items()},
            "model.json": dg.MetadataValue.json(card),
        }

    def newest(self, context: dg.InputContext, partition: str | None = None) -> tuple[UPath, dict[str, Any]]:
        """Folder and card of the newest finished version.

        Raises:
            ModelFileError: there is none.
        """
        parent, asset = self.parent(context.asset_key, partition), context.asset_key.to_user_string()
        versions = cards(finished_folders(parent, CARD), CARD)
        if not versions:
            raise ModelFileError(f"No model is stored below {parent}: materialise {asset}.")
        folder, card = versions[-1]
        if partition is None:
            provenance.loaded(context, card["version"])
        context.log.info("%s: model version %s", asset, card["version"])
        return folder, card


def threshold_of(card: Mapping[str, Any]) -> float:
    """The score above which a model says yes: chosen when it was fitted, and of no other version.

    Raises:
        ModelFileError: it was stored when thresholds were not yet kept with models.
    """
    if THRESHOLD not in card["metrics"]:
        raise ModelFileError(f"{card.get('asset', 'the model')}, version {card['version']}, has no threshold. {AGAIN}")
    return float(card["metrics"][THRESHOLD])


def file_identity(context: dg.OutputContext, data: bytes) -> dict[str, str]:
    """What a card says of a model that is one file; `read_verified` relies on it."""
    return {"asset": context.asset_key.to_user_string(), "sha256": hashlib.sha256(data).hexdigest()}


def read_verified(folder: str, name: str, card: Mapping[str, Any]) -> bytes:
    """A model's file.

    Raises:
        ModelFileError: it is missing, or is not the one that was stored.
    """
    path = place(folder) / name
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelFileError(f"{path} is missing. {AGAIN}") from error
    if hashlib.sha256(data).hexdigest() != card["sha256"]:
        raise ModelFileError(f"{path} is not the file that was stored: its SHA-256 differs from {CARD}'s. {AGAIN}")
    return data
