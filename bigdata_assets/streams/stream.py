"""What is declared of a topic, and which of its batches there are.

Every batch that was ever planned is recorded in a set of keys of its own, which Dagster keeps beside the partitions: no
asset has them for its partitions, so that nobody deletes one in the UI. Batches have an order, that of the record.
"""

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import dagster as dg

from bigdata_assets.streams.batches import Batch, BatchError, made_anew, next_offsets, parse, topic_of
from bigdata_assets.tables import Table

PAGE, FEW_PAGES = 1_000, 4
"""Batches that are looked at together: at least as many as a run may take. And how often, one by one."""


class EarlierBatchError(RuntimeError):
    """A batch that comes first is not there yet; no fault of the later one, which is run again."""


@dataclass(frozen=True)
class Stream:
    """A Kafka topic whose batches are the partitions of a branch's assets.

    Attributes:
        name: what KAFKA_<NAME>_TOPIC and `bigdata-assets batches NAME` call it; the topic's name where none is set.
        messages: the table of its messages as they were received, a `messages_table`.
        read: the asset that has a batch's usable messages.
        last: the asset that a batch is done with.
        job: name of the job that a batch is run with.
        sensor: name of the sensor that asks for it.
        learnt: the asset that takes batches in their order only, where there is one.
        source: the asset that sends the messages, where this project does.
    """

    name: str
    partitions: dg.DynamicPartitionsDefinition
    messages: Table
    read: dg.AssetKey
    last: dg.AssetKey
    job: str
    sensor: str
    learnt: dg.AssetKey | None = None
    source: dg.AssetKey | None = None

    @property
    def _planned(self) -> str:
        return f"{self.partitions.name}_planned"

    @property
    def _given_up(self) -> str:
        return f"{self.partitions.name}_given_up"

    @property
    def _topics(self) -> str:
        """Set of `topic:id`, of the topics that batches were planned of."""
        return f"{self.partitions.name}_topics"

    def order(self, instance: dg.DagsterInstance, topic: str | None = None) -> list[str]:
        """Keys of a topic's batches, or of all topics', as they were planned, without those that were given up."""
        given_up = set(instance.get_dynamic_partitions(self._given_up))
        recorded = instance.get_dynamic_partitions(self._planned) or self._unrecorded(instance)
        return [key for key, _ in named(recorded, topic) if key not in given_up]

    def order_for(self, instance: dg.DagsterInstance, keys: Iterable[str]) -> list[str]:
        """The same of the topic that a run's batches are of.

        Raises:
            BatchError: they are of several topics, or one was given up or never planned.
        """
        order = self.order(instance, topic_of(keys))
        if strange := sorted(set(keys) - set(order)):
            raise BatchError(f"{strange[0]} was given up, or added by hand: `bigdata-assets batches` lists all.")
        return order

    def before(self, instance: dg.DagsterInstance, key: str) -> list[str]:
        """Batches that were planned before one, of all topics that the stream had."""
        order = self.order(instance)
        return order[: order.index(key)]

    def in_order(self, instance: dg.DagsterInstance, keys: Iterable[str], made: dg.AssetKey) -> list[str]:
        """A run's batches in their order, none of which jumps an earlier one of its topic's partition.

        Args:
            instance: Dagster's own storage.
            keys: the run's batches.
            made: the asset that the earlier ones must have.

        Raises:
            BatchError: they are of several topics, or one was given up or never planned.
            EarlierBatchError: an earlier batch is not there.
        """
        order, wanted = self.order_for(instance, keys), set(keys)
        there = instance.get_materialized_partitions(made) | wanted
        last = max(order.index(key) for key in wanted)
        partitions = {parse(key).partition for key in wanted}
        for key in order[:last]:
            if key not in there and parse(key).partition in partitions:
                raise EarlierBatchError(
                    f"{key} comes first and has no {made.to_user_string()} yet: what it corrects, or is corrected by, "
                    "would be lost. It is asked for again by itself; `bigdata-assets batches` tells what became of it."
                )
        return sorted(wanted, key=order.index)

    def planned(self, instance: dg.DagsterInstance, topic: str) -> list[Batch]:
        """All batches of a topic that were ever planned, with those that were given up."""
        keys = [*self.order(instance, topic), *instance.get_dynamic_partitions(self._given_up)]
        return [batch for _, batch in named(keys, topic)]

    def tail(self, instance: dg.DagsterInstance, topic: str, settled: "Settled | None" = None) -> "Tail":
        """The batches from some before the first one on that is not done; `settled`: those before, of an earlier look.

        What a tick costs does not grow with the batches behind it: it looks at these.
        """
        given_up = set(instance.get_dynamic_partitions(self._given_up))
        tail = Tail(settled or Settled(), {}, set(), [batch for _, batch in named(given_up, topic)])
        place, before, pages = tail.settled.place, None, 0
        every = None if settled else instance.get_materialized_partitions(self.last)
        while True:
            page = instance.get_paginated_dynamic_partitions(self._planned, PAGE, ascending=True, cursor=place)
            batches = {key: batch for key, batch in named(page.results, topic) if key not in given_up}
            if every is None and (pages := pages + 1) > FEW_PAGES:  # one that is never done holds up all behind it
                every = instance.get_materialized_partitions(self.last)
            done = set(batches) & (self.done(instance, batches) if every is None else every)
            tail.batches.update(batches)
            tail.done.update(done)
            # Two pages in a row: the batches of a run that is looked for are in two at most.
            if before and page.has_more and done == set(batches):
                tail.settle(*before)
            before = (batches, page.cursor) if done == set(batches) else None
            place = page.cursor
            if not page.has_more:
                return tail

    def done(self, instance: dg.DagsterInstance, keys: Collection[str]) -> set[str]:
        """Asked for by key: all that were ever made would take longer with each batch."""
        if not keys:
            return set()  # for Dagster no key means all
        made = dg.DagsterEventType.ASSET_MATERIALIZATION
        return set(instance.event_log_storage.get_latest_storage_id_by_partition(self.last, made, set(keys)))

    def present(self, instance: dg.DagsterInstance, wanted: Iterable[str]) -> list[str]:
        """Partitions' keys in Dagster's order, which ranges go by: the last ones, those `wanted` and a page before."""
        found: list[str] = []
        before, place, last = set(wanted), None, False
        while not last:
            # Two pages at once: Dagster's storage looks at all keys for each one.
            page = instance.get_paginated_dynamic_partitions(
                str(self.partitions.name), 2 * PAGE, ascending=False, cursor=place
            )
            found += page.results
            before -= set(found[:-PAGE])
            last = not before or not page.has_more
            place = page.cursor
        return found[::-1]

    def ensure_record(self, instance: dg.DagsterInstance) -> None:
        """A storage of a version that had the partitions alone gets a record made of these. One planner at a time."""
        if not instance.get_paginated_dynamic_partitions(self._planned, 1, ascending=True).results:
            instance.add_dynamic_partitions(self._planned, self._unrecorded(instance))

    def _unrecorded(self, instance: dg.DagsterInstance) -> list[str]:
        return [key for key, _ in named(instance.get_dynamic_partitions(str(self.partitions.name)), None)]

    def record(self, instance: dg.DagsterInstance, batches: Iterable[Batch]) -> None:
        """Record new batches, whose partitions are to be added."""
        instance.add_dynamic_partitions(self._planned, [batch.key for batch in batches])

    def add(self, instance: dg.DagsterInstance, batches: Iterable[Batch]) -> None:
        """Add the partitions of batches."""
        instance.add_dynamic_partitions(str(self.partitions.name), [batch.key for batch in batches])

    def give_up(self, instance: dg.DagsterInstance, key: str) -> None:
        """Take out a batch. Its range stays known, or it would be planned again."""
        instance.add_dynamic_partitions(self._given_up, [key])
        instance.delete_dynamic_partition(str(self.partitions.name), key)

    def is_made_anew(self, instance: dg.DagsterInstance, topic: str, id_: str) -> bool:
        """Whether batches were planned of another topic of this name."""
        known = [name for name in instance.get_dynamic_partitions(self._topics) if name.startswith(f"{topic}:")]
        return bool(id_ and known and f"{topic}:{id_}" not in known)

    def recognise(self, instance: dg.DagsterInstance, topic: str, id_: str) -> None:
        """Keep the id of a topic with its batches; those of another one of its name are forgotten once all are deleted.

        Raises:
            BatchError: it is another one, and batches of the old one are there.
        """
        known = [name for name in instance.get_dynamic_partitions(self._topics) if name.startswith(f"{topic}:")]
        another = self.is_made_anew(instance, topic, id_)
        if another or not (id_ or known):
            left = list(named(instance.get_dynamic_partitions(str(self.partitions.name)), topic))
            if another and left:
                raise made_anew(topic, f"its id is {id_} now, and {len(left)} batches are of the old one")
            if not left and self.order(instance, topic):
                for name in (self._planned, self._given_up):
                    for key, _ in list(named(instance.get_dynamic_partitions(name), topic)):
                        instance.delete_dynamic_partition(name, key)
            for name in known if another else ():
                instance.delete_dynamic_partition(self._topics, name)
        if id_:
            instance.add_dynamic_partitions(self._topics, [f"{topic}:{id_}"])


@dataclass(frozen=True)
class Settled:
    """Batches of a topic, from the first one on, all of which are done.

    Attributes:
        place: where the record goes on behind them, as Dagster's storage says it.
        count: how many they are.
        ends: the first offset behind them, by partition.
    """

    place: str | None = None
    count: int = 0
    ends: Mapping[int, int] = field(default_factory=dict)


@dataclass
class Tail:
    """The batches of a topic behind those that are settled, in their order."""

    settled: Settled
    batches: dict[str, Batch]
    done: set[str]
    given_up: list[Batch]

    def settle(self, batches: Mapping[str, Batch], place: str) -> None:
        """Leave out the first ones, behind which the record goes on at `place`."""
        self.settled = Settled(
            place, self.settled.count + len(batches), next_offsets(batches.values(), self.settled.ends)
        )
        self.done -= set(batches)
        for key in batches:
            del self.batches[key]

    @property
    def following(self) -> dict[int, int]:
        """Where each partition's next batch begins."""
        return next_offsets([*self.batches.values(), *self.given_up], self.settled.ends)


def named(keys: Iterable[str], topic: str | None) -> Iterator[tuple[str, Batch]]:
    """Keys that name batches, of a topic or of any, and those: somebody may have added any key in the UI."""
    for key in keys:
        with contextlib.suppress(BatchError):
            batch = parse(key)
            if topic in (None, batch.topic):
                yield key, batch
