"""Models of a partitioned asset, one of each partition: of scikit-learn or of Keras, as each is."""

from collections.abc import Mapping
from typing import TypeAlias

import dagster as dg

from bigdata_assets.io_managers import keras_model
from bigdata_assets.io_managers.keras_model import KerasModelIOManager, StoredKerasModel, TrainedKerasModel
from bigdata_assets.io_managers.model_card import ModelFileError
from bigdata_assets.io_managers.sklearn_model import SklearnModelIOManager, StoredModel, TrainedModel
from bigdata_assets.runs.ranges import tell_partitions

Trained: TypeAlias = TrainedModel | TrainedKerasModel
Stored: TypeAlias = StoredModel | StoredKerasModel


class ModelByPartitionIOManager(dg.ConfigurableIOManager):
    """Stores a mapping of models by partition, hands out those that there are of the input's partitions."""

    storage: str

    def handle_output(self, context: dg.OutputContext, obj: Mapping[str, Trained]) -> None:
        told = {}
        for partition, trained in obj.items():
            if isinstance(trained, TrainedKerasModel):
                told[partition] = KerasModelIOManager(storage=self.storage).store(context, trained, partition)
            else:
                told[partition] = SklearnModelIOManager(storage=self.storage).store(context, trained, partition)
        tell_partitions(context.step_context, context.asset_key, told)

    def load_input(self, context: dg.InputContext) -> dict[str, Stored]:
        found: dict[str, Stored] = {}
        for partition in sorted(context.asset_partition_keys):
            try:
                folder, card = SklearnModelIOManager(storage=self.storage).newest(context, partition)
            except ModelFileError as error:
                context.log.warning(str(error))
            else:
                is_network = (folder / keras_model.FILE).is_file()
                stored = StoredKerasModel if is_network else StoredModel
                found[partition] = stored(str(folder), card)
        return found
