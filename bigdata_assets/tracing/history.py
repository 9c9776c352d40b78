"""What Dagster's event storage and models' cards tell: who made a partition, when and of what."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import CODE_VERSION_TAG, DATA_VERSION_TAG, INPUT_DATA_VERSION_TAG_PREFIX

from bigdata_assets.io_managers.model_card import CARD
from bigdata_assets.storage import place

LOOKED_AT = 20
"""Materialisations of a model that are looked at for that of a version."""


@dataclass(frozen=True)
class Made:
    """A materialisation of an asset, or of a partition of it.

    Attributes:
        input_versions: data versions of what it was made of, by asset, as far as Dagster knows them.
        metadata: its metadata that are numbers or texts.
    """

    asset: str
    partition: str | None
    run_id: str
    at: datetime
    code_version: str | None
    data_version: str | None
    input_versions: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelTold:
    """A model that gave a row: its card, or why there is none."""

    name: str
    card: Mapping[str, Any] | None = None
    made: Made | None = None
    note: str = ""


class History:
    """Looks into Dagster's storage; each materialisation once."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self._newest: dict[tuple[str, str | None], Made | None] = {}

    def newest(self, asset: str, partition: str | None) -> Made | None:
        """The last materialisation of `branch/name`, or of its partition; None where Dagster knows of none."""
        if (asset, partition) not in self._newest:
            self._newest[asset, partition] = next(self._made(asset, partition, 1), None)
        return self._newest[asset, partition]

    def of_run(self, asset: str, partition: str | None, run_id: str) -> Made | None:
        """That of a run, if it is among the last ones."""
        found = self._made(asset, partition, LOOKED_AT)
        return next((made for made in found if made.run_id == run_id), None)

    def _made(self, asset: str, partition: str | None, most: int) -> Iterator[Made]:
        wanted = dg.AssetRecordsFilter(
            asset_key=dg.AssetKey(asset.split("/")), asset_partitions=None if partition is None else [partition]
        )
        for record in self.instance.fetch_materializations(wanted, limit=most).records:
            if (event := record.asset_materialization) is not None:
                tags = event.tags or {}
                yield Made(
                    asset,
                    event.partition,
                    record.run_id,
                    datetime.fromtimestamp(record.timestamp, UTC),
                    tags.get(CODE_VERSION_TAG),
                    tags.get(DATA_VERSION_TAG),
                    {
                        name.removeprefix(f"{INPUT_DATA_VERSION_TAG_PREFIX}/"): value
                        for name, value in tags.items()
                        if name.startswith(INPUT_DATA_VERSION_TAG_PREFIX)
                    },
                    {name: value.value for name, value in event.metadata.items() if isinstance(value.value, _PLAIN)},
                )


_PLAIN = (str, int, float)


def card(storage: str, folder: str) -> Mapping[str, Any] | None:
    """The card of a model; None where that version is not kept any more."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        found = json.loads((place(storage) / folder / CARD).read_bytes())
        return found if isinstance(found, dict) else None
    return None
