"""Snapshots of models that go on learning: each is a folder below the asset's own, seen whole or not at all."""

import json
import time
from collections.abc import Mapping, Set
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from pydantic import Field
from upath import UPath

from bigdata_assets.io_managers.files import cards, finished_folders, remove_folder, write_folder
from bigdata_assets.storage import place, remove

CARD = "model.json"
STATE = "state.skops"
ORPHANED_S = 86_400


class SnapshotError(RuntimeError):
    """A snapshot that is needed is not kept any more; the message says what can be done."""


class SnapshotStore(dg.ConfigurableResource):
    """Snapshots by name, each with a model.json that says what it has learnt.

    Models that only change now and then, such as Spark's, stand beside them in folders of their own (`fits`), which the
    snapshots' cards name.
    """

    storage: str
    kept: int = Field(gt=1, description="Snapshots that are kept, the newest ones.")

    def names(self, asset: dg.AssetKey) -> set[str]:
        """Finished snapshots."""
        return {folder.name for folder in finished_folders(self._folder(asset), CARD)}

    def load(self, asset: dg.AssetKey, name: str) -> tuple[dict[str, Any], bytes]:
        """Card and state of a snapshot.

        Raises:
            SnapshotError: there is none of that name.
        """
        folder = self._folder(asset) / name
        try:
            return json.loads((folder / CARD).read_bytes()), (folder / STATE).read_bytes()
        except FileNotFoundError as error:
            raise SnapshotError(
                f"{folder} is not there: of {asset.to_user_string()} the last {self.kept} snapshots are kept, and "
                "this one is no more. What it scored cannot be scored again by the same model."
            ) from error

    def save(self, asset: dg.AssetKey, name: str, card: Mapping[str, Any], state: bytes) -> None:
        """Store a snapshot, and remove what is no longer to be kept."""
        card = {**card, "created_at": datetime.now(UTC).isoformat()}
        files = {STATE: state, CARD: json.dumps(card, indent=2).encode()}
        write_folder(self._folder(asset) / name, files, marker=CARD)
        # Counted before they are looked at one by one, at every save.
        if sum(1 for _ in self._folder(asset).iterdir()) > self.kept * 1.1:
            stored = cards(finished_folders(self._folder(asset), CARD), CARD)
            for folder, _ in stored[: -self.kept]:
                remove_folder(folder, CARD)
            self._remove_fits_but(asset, {card.get("fit") for _, card in stored[-self.kept :]})

    def fit_location(self, asset: dg.AssetKey, name: str) -> str:
        """Where a Spark model goes, as Spark names it."""
        return f"{self.storage}/{'/'.join(asset.path)}/fits/{name}"

    def _remove_fits_but(self, asset: dg.AssetKey, named: Set[str | None]) -> None:
        """Remove Spark models that no kept snapshot names; young ones may belong to a run that is still at work."""
        fits = place(self.storage).joinpath(*asset.path, "fits")
        for folder in fits.iterdir() if fits.exists() else []:
            if self.fit_location(asset, folder.name) not in named:
                # Of an object store's folder its files have the times; Spark removes some while it writes.
                written = max(map(_written_at, [folder, *folder.rglob("*")]))
                if time.time() - written > ORPHANED_S:
                    remove(folder)

    def _folder(self, asset: dg.AssetKey) -> UPath:
        return place(self.storage).joinpath(*asset.path, "snapshots")


def _written_at(path: UPath) -> float:
    try:
        return float(path.stat().st_mtime)
    except FileNotFoundError:
        return 0.0
