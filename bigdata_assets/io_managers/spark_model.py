"""Spark ML models in Spark's own format, each version in a folder of its own with a model.json beside it.

Spark's server reads and writes the model, so that the folder must be one that it sees, as the tables' are.
"""

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
from upath import UPath

from bigdata_assets.io_managers.files import finished_folders, write_file

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel

CARD = "model.json"
MODEL = "pipeline"
KEPT_VERSIONS = 10


class SparkModelError(RuntimeError):
    """No model is stored; the message says what to materialise."""


@dataclass(frozen=True)
class TrainedSparkModel:
    """What a training asset returns: a fitted pipeline, and what it was made from and with."""

    pipeline: "PipelineModel"
    inputs: Mapping[str, int]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredSparkModel:
    """A reference to a stored pipeline."""

    folder: str
    card: Mapping[str, Any]

    def load(self) -> "PipelineModel":
        """The pipeline, loaded by the server of the Spark session that is active."""
        from pyspark.ml import PipelineModel

        return PipelineModel.load(f"{self.folder}/{MODEL}")


class SparkModelIOManager(dg.ConfigurableIOManager):
    """Stores a `TrainedSparkModel`, hands out a `StoredSparkModel`: the newest finished version.

    The model is written to a folder that no reader looks into until its model.json is there, the last of all.
    """

    storage: str

    def handle_output(self, context: dg.OutputContext, obj: TrainedSparkModel) -> None:
        now = datetime.now(UTC)
        version = f"{now:%Y%m%dT%H%M%S%f}-{context.run_id[:8]}"
        folder = self._parent(context.asset_key) / version
        obj.pipeline.write().save(f"{self._location(context.asset_key)}/{version}/{MODEL}")
        card = {
            "version": version,
            "created_at": now.isoformat(),
            "run_id": context.run_id,
            "code_version": context.asset_spec.code_version,
            "inputs": dict(obj.inputs),
            "parameters": dict(obj.parameters),
            "metrics": dict(obj.metrics),
            "libraries": {"pyspark": importlib.metadata.version("pyspark")},
        }
        write_file(folder / CARD, json.dumps(card, indent=2).encode())
        for old in finished_folders(folder.parent, CARD)[:-KEPT_VERSIONS]:
            _remove(old)
        context.add_output_metadata(
            {
                "path": str(folder),
                "model_version": version,
                **{f"input {asset} delta_version": number for asset, number in obj.inputs.items()},
                **{name: float(value) for name, value in obj.metrics.items()},
                "model.json": dg.MetadataValue.json(card),
            }
        )

    def load_input(self, context: dg.InputContext) -> StoredSparkModel:
        versions = finished_folders(self._parent(context.asset_key), CARD)
        if not versions:
            raise SparkModelError(
                f"No model is stored at {self._location(context.asset_key)}: "
                f"materialise {context.asset_key.to_user_string()}."
            )
        card = json.loads((versions[-1] / CARD).read_bytes())
        context.log.info("%s: model version %s", context.asset_key.to_user_string(), card["version"])
        return StoredSparkModel(f"{self._location(context.asset_key)}/{card['version']}", card)

    def _location(self, key: dg.AssetKey) -> str:
        return f"{self.storage}/{'/'.join(key.path)}"

    def _parent(self, key: dg.AssetKey) -> UPath:
        return UPath(self.storage).joinpath(*key.path)


def _remove(folder: UPath) -> None:
    """A version with all below it, the marker first: nobody reads what is half removed."""
    (folder / CARD).unlink(missing_ok=True)
    folder.fs.rm(folder.path, recursive=True)
