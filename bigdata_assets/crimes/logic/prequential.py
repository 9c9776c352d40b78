"""Test, then train: models that have seen neither a batch nor anything later score it, and then learn it.

Batches have an order. A snapshot of the models is stored after each batch that was learnt, under the batch's key; what
it knows is all batches up to that one, in order, and the history before the stream began. Learning never leaves a batch
out: where one is missing it stops, later batches are scored by what stands, and it goes on when that one is there.

Source of the evaluation: Gama, Sebastião, Rodrigues 2013, "On evaluating stream learning algorithms",
doi:10.1007/s10994-012-5320-9.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
import pandas as pd

from bigdata_assets.crimes.logic.online import OnlineModels

NOTHING = "nothing"
"""What a batch is scored with while not even the first one is stored."""


class NoSnapshotError(RuntimeError):
    """The models as they stood before a batch are not kept any more."""


@dataclass(frozen=True)
class Snapshot:
    """Models as they stood after a batch.

    Attributes:
        position: the first offset that was not learnt, by partition.
        fit: where the Spark models are that belong to it; empty for none.
        fitted_reports: how many reports had been learnt when those were fitted.
        history_ends: what happened before is history, which may have been learnt before the stream began.
    """

    name: str
    models: OnlineModels
    position: dict[str, int] = field(default_factory=dict)
    fit: str = ""
    fitted_reports: int = 0
    history_ends: datetime = datetime(1900, 1, 1, tzinfo=UTC)


class Store(Protocol):
    """Where snapshots are."""

    def names(self) -> set[str]:
        """Names of all that are kept."""

    def load(self, name: str) -> Snapshot:
        """The snapshot of that name, or an error that says that it is not kept."""

    def save(self, snapshot: Snapshot) -> None:
        """Keep a snapshot."""


@dataclass
class TestThenTrain:
    """One pass over some batches of a stream.

    Attributes:
        order: keys of all batches, in their order.
        reports: the reports of a batch, or None while they are not stored.
        ends: partition and first offset after it, by key.
        start_name: name of the snapshot that knows the history alone.
        start: makes that one's models, given the first batch's reports; called when there is none.
        refit: fits the Spark models anew on the last of what a snapshot has learnt; gives their location.
        refit_rows: after how many reports that is done, whatever run learns them: what scores a batch depends on the
            stream alone.
        most: most batches that are learnt in this pass; the rest is left to the next.
    """

    __test__ = False  # its name looks like a test's

    order: Sequence[str]
    reports: Callable[[str], pd.DataFrame | None]
    ends: Callable[[str], tuple[int, int]]
    store: Store
    start_name: str
    start: Callable[[pd.DataFrame], Snapshot]
    refit: Callable[[Snapshot], str]
    refit_rows: int
    most: int
    _current: Snapshot | None = None

    def __post_init__(self) -> None:
        self._index = {key: number for number, key in enumerate(self.order)}
        self._kept = self.store.names()
        self._left = self.most
        self.learnt: dict[str, int] = {}
        """Reports known after each batch that was learnt."""

    def before(self, key: str, used: str | None) -> Snapshot:
        """The models that score a batch: those that did before, or the newest that know nothing of it or later ones.

        Raises:
            NoSnapshotError: they are not kept any more.
        """
        if used is not None:
            if used != NOTHING and used not in self._kept:
                raise NoSnapshotError(
                    f"batch {key} was scored by snapshot {used}, which is not kept any more: a later one may have "
                    "learnt it and must not score it again. Its stored scores stay as they are."
                )
            return self._load(used)
        self._begin()
        position = self._index[key]
        newest = self._newest(position)
        if newest != position - 1 and any(self._index.get(name, -1) >= position for name in self._kept):
            raise NoSnapshotError(
                f"the models as they stood before batch {key} are not kept any more, and later ones have learnt it."
            )
        return self._load(self._name(newest))

    def learn_before(self, key: str) -> str | None:
        """Learn all that is stored, in order, before a batch."""
        return self._learn(self._index[key] - 1)

    def learn_up_to(self, key: str) -> str | None:
        """Learn all that is stored, in order, up to and with a batch; the key before which it stops short."""
        return self._learn(self._index[key])

    def learn_on(self) -> str | None:
        """Learn what is stored beyond: what had to wait for one that is there now."""
        return self._learn(len(self.order) - 1)

    def known(self) -> Sequence[str]:
        """Keys of all batches that the newest snapshot has learnt."""
        return self.order[: self._newest(len(self.order)) + 1]

    def _begin(self) -> None:
        """Make the snapshot of the history, once the first report tells when that ends."""
        if self.start_name in self._kept or self._newest(len(self.order)) >= 0:
            return
        for key in self.order:
            rows = self.reports(key)
            if rows is None:
                return
            if len(rows):
                self._save(self.start(rows))
                return

    def _learn(self, to: int) -> str | None:
        """Learn from the newest snapshot on, up to number `to` of the order."""
        self._begin()
        position = self._newest(len(self.order))
        if position < 0 and self.start_name not in self._kept:
            return self.order[0]  # no report yet: what would be learnt now would lack the history
        while position < to:
            key = self.order[position + 1]
            rows = self.reports(key) if self._left > 0 else None
            if rows is None:
                return key
            self._left -= 1
            known = self._load(self._name(position))
            known.models.learn(rows)
            partition, end = self.ends(key)
            learnt = replace(known, name=key, position=known.position | {str(partition): end})
            if learnt.models.reports - learnt.fitted_reports >= self.refit_rows:
                learnt = replace(learnt, fit=self.refit(learnt), fitted_reports=learnt.models.reports)
            self._save(learnt)
            self.learnt[key] = learnt.models.reports
            position += 1
        return None

    def _newest(self, before: int) -> int:
        """Number of the last batch before number `before` that has a snapshot; -1 for none."""
        return max((n for name in self._kept if (n := self._index.get(name, -1)) < before), default=-1)

    def _name(self, position: int) -> str:
        if position >= 0:
            return self.order[position]
        return self.start_name if self.start_name in self._kept else NOTHING

    def _load(self, name: str) -> Snapshot:
        if self._current is None or self._current.name != name:
            self._current = Snapshot(NOTHING, OnlineModels()) if name == NOTHING else self.store.load(name)
        return self._current

    def _save(self, snapshot: Snapshot) -> None:
        self.store.save(snapshot)
        self._kept.add(snapshot.name)
        self._current = snapshot


def online_scores(rows: pd.DataFrame, snapshot: Snapshot, learnt_ids: Collection[int]) -> Iterator[pd.DataFrame]:
    """Place, model and probability for each report and online model, and whether no model can have seen the report.

    Those are the first ones of IDs that the snapshot has not learnt, of what happened after the history ended.

    Args:
        rows: a batch's reports.
        snapshot: what scores them.
        learnt_ids: those of the reports' IDs that the snapshot has learnt.
    """
    first = ~rows["report_id"].isin(learnt_ids) & ~rows["report_id"].duplicated()
    place = rows[["batch", "kafka_partition", "kafka_offset"]].assign(
        is_new=first & (rows["occurred_at"] >= snapshot.history_ends)
    )
    for model, probabilities in snapshot.models.predict(rows).items():
        yield place.assign(model=model, probability=probabilities, **_origin(snapshot))


def window_scores(place: pd.DataFrame, scored: pd.DataFrame, models: Sequence[str]) -> Iterator[pd.DataFrame]:
    """The same from the Spark models' wide table; `place`: rows of one online model, as online_scores gives them."""
    joined = place.drop(columns=["model", "probability"]).merge(scored, on=["batch", "kafka_partition", "kafka_offset"])
    for model in models:
        yield joined.drop(columns=list(models)).assign(model=model, probability=joined[model].astype(np.float64))


def _origin(snapshot: Snapshot) -> dict[str, Any]:
    position = ",".join(f"{partition}:{offset}" for partition, offset in sorted(snapshot.position.items()))
    return {"snapshot": snapshot.name, "position": position}
