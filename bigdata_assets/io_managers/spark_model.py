"""Spark ML models in Spark's own format, each version in a folder of its own with a model.json beside it.

Spark's server reads and writes the model, so that the folder must be one that it sees, as the tables' are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from bigdata_assets.io_managers.model_card import ModelIOManager

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel

MODEL = "pipeline"


@dataclass(frozen=True)
class TrainedSparkModel:
    """What a training asset returns: a fitted pipeline, and what it was made with."""

    pipeline: "PipelineModel"
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


class SparkModelIOManager(ModelIOManager):
    """Stores a `TrainedSparkModel`, hands out a `StoredSparkModel`: the newest finished version.

    The model is written to a folder that no reader looks into until its model.json is there, the last of all.
    """

    def handle_output(self, context: dg.OutputContext, obj: TrainedSparkModel) -> None:
        version = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{context.run_id[:8]}"
        obj.pipeline.write().save(f"{self._location(context.asset_key)}/{version}/{MODEL}")
        told = self.publish(context, obj, version, libraries=["pyspark"], files={}, more={}, shown={})
        context.add_output_metadata(told)

    def load_input(self, context: dg.InputContext) -> StoredSparkModel:
        _, card = self.newest(context)
        return StoredSparkModel(f"{self._location(context.asset_key)}/{card['version']}", card)

    def _location(self, key: dg.AssetKey) -> str:
        """As the server is told it: the storage's own scheme, which UPath may spell otherwise."""
        return f"{self.storage}/{'/'.join(key.path)}"
