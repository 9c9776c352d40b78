"""Which batches a stream's new messages become, what became of the old ones, and which run to ask for.

The keys of batches are the only record of what was planned. Which offset comes next, which batches have no run yet and
which ones failed is worked out from them and from Dagster's runs and materialisations, so that a lost cursor, a
restarted daemon or a killed run neither makes a batch twice nor leaves one out.
"""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import dagster as dg
from filelock import FileLock

from bigdata_assets.resources.kafka import KafkaResource, KafkaUnreachableError, Offsets
from bigdata_assets.runs.interruptions import NO_OTHER_RETRY, Attempts, attempts, ended_at, runs_by_tag
from bigdata_assets.runs.ranges import ONE_KEY, RANGE_START, contiguous, covered, in_work, partitions_in_work, tags_for
from bigdata_assets.settings import Settings
from bigdata_assets.streams.batches import Batch, BatchError, lag, next_offsets, plan
from bigdata_assets.streams.stream import Settled, Stream, Tail, named

MAX_ATTEMPTS = 6
HALVED_AFTER = 3
"""Interruptions after which a batch is run with half as many others, then a quarter, at last alone: it may be what ends
the process. Not alone at once: of a run that others have ended thrice, twenty batches would have a run each.
"""
AFRESH_S = 600
"""After so long a tick looks at all batches: somebody may have wiped what one had made."""


@dataclass(frozen=True)
class Planner:
    """Plans a stream's batches and says which run to ask for."""

    stream: Stream
    settings: Settings
    kafka: KafkaResource

    @property
    def topic(self) -> str:
        return self.settings.topic(self.stream.name)

    def keys(self, instance: dg.DagsterInstance) -> list[str]:
        """Keys of the topic's batches, in their order."""
        return self.stream.order(instance, self.topic)

    def give_up(self, instance: dg.DagsterInstance, key: str) -> None:
        """Take out a batch that can never be read.

        Raises:
            BatchError: there is no such batch, it runs, or it is stored and nothing waits for it.
        """
        with self._planning():
            state, read = self.states(instance).get(key), instance.get_materialized_partitions(self.stream.read)
            if state is None or state in ("running", "done") or key in read:
                raise BatchError(
                    f"{key!r} is not given up: "
                    + ("there is no such batch." if state is None else f"it is {state}.")
                    + " `bigdata-assets batches` lists all. One that is stored holds up nothing."
                )
            self.stream.give_up(instance, key)

    def retire(self, instance: dg.DagsterInstance, keep: int) -> list[str]:
        """Take the partitions of old batches away, all but the last `keep`: Dagster advises 100,000 at most.

        They stay recorded, and their rows stay; only what is done, and learnt, is taken away.
        """
        with self._planning():
            over = set(self.present(instance)[:-keep])
            for asset in filter(None, (self.stream.last, self.stream.learnt)):
                over &= instance.get_materialized_partitions(asset)
            retired = [key for key in self.keys(instance) if key in over]
            for key in retired:
                instance.delete_dynamic_partition(str(self.stream.partitions.name), key)
        return retired

    def present(self, instance: dg.DagsterInstance) -> list[str]:
        """Keys of the topic's batches that are partitions, in Dagster's order."""
        every = instance.get_dynamic_partitions(str(self.stream.partitions.name))
        return [key for key, _ in named(every, self.topic)]

    def _planning(self) -> FileLock:
        """One planner at a time, or two would cut the same messages twice."""
        return FileLock(Path(self.settings.dagster_home) / "kafka_batches.lock")

    def add_new(
        self, instance: dg.DagsterInstance, held: Mapping[int, Offsets], ripe: Iterable[int], most: int, rows: int = 0
    ) -> list[Batch]:
        """Plan batches, of `rows` messages or else BATCH_ROWS, and add them."""
        with self._planning():
            look = self._look(instance, self.kafka.topic_id(self.topic))
            return self._add(instance, look.tail.following, held, ripe, most, rows)

    def _add(
        self,
        instance: dg.DagsterInstance,
        following: Mapping[int, int],
        held: Mapping[int, Offsets],
        ripe: Iterable[int],
        most: int,
        rows: int = 0,
    ) -> list[Batch]:
        new = plan(self.topic, following, held, rows or self.settings.batch_rows, ripe, most)
        self.stream.record(instance, new)
        self.stream.add(instance, new)
        return new

    def _look(self, instance: dg.DagsterInstance, id_: str, settled: Settled | None = None) -> "Look":
        """The last batches, if the topic is still the one that they are of.

        Partitions that are not there although their batches are not done are added again: somebody has deleted them, or
        a planner was killed. And partitions that go on where the record ends are recorded: of an earlier version.
        """
        self.stream.recognise(instance, self.topic, id_)
        self.stream.ensure_record(instance)
        tail = self.stream.tail(instance, self.topic, settled)
        undone = {key: batch for key, batch in tail.batches.items() if key not in tail.done}
        every = self.stream.present(instance, undone)
        following = tail.following
        for key, batch in named(every, self.topic):
            if key not in tail.batches and following.get(batch.partition) == batch.first:
                self.stream.record(instance, [batch])
                tail.batches[key], following[batch.partition] = batch, batch.end
                tail.done |= self.stream.done(instance, [key])
        present = set(every)
        if absent := [batch for key, batch in undone.items() if key not in present]:
            self.stream.add(instance, absent)
        return Look(tail, every + [batch.key for batch in absent], absent)

    def lag(self, instance: dg.DagsterInstance) -> dict[int, int]:
        """Messages of each of the topic's partitions that are in no batch yet.

        Raises:
            KafkaUnreachableError: no broker answers.
        """
        return lag(next_offsets(self.stream.planned(instance, self.topic)), self.kafka.offsets(self.topic))

    def add_all(self, instance: dg.DagsterInstance, rows: int = 0) -> None:
        """Make batches of all that waits, without the sensor; nothing where no broker answers or no topic is there."""
        with contextlib.suppress(KafkaUnreachableError):
            while self.add_new(instance, held := self.kafka.offsets(self.topic), held, 1_000, rows):
                pass

    def states(self, instance: dg.DagsterInstance) -> dict[str, str]:
        """What became of each batch: done, running, failed N times, or waiting."""
        done, every = instance.get_materialized_partitions(self.stream.last), self.present(instance)
        return self._survey(instance, self.keys(instance), every, done)[0]

    def _survey(
        self, instance: dg.DagsterInstance, keys: Collection[str], every: Sequence[str], done: Collection[str]
    ) -> tuple[dict[str, str], dict[str, Attempts]]:
        """The state of each batch; what was tried of those that are not done. Ranges go by the order of `every`."""
        inside = set(every)

        def is_earlier(key: str) -> bool:
            return key not in inside and instance.has_dynamic_partition(str(self.stream.partitions.name), key)

        running = in_work(instance, every, is_earlier)
        ended = self._ended(instance, every, [key for key in every if key in keys and key not in done])
        tried = {key: found for key, records in ended.items() if (found := attempts(instance, records))}

        def state(key: str) -> str:
            if key in running:
                return "running"
            if key in done:
                return "done"
            return f"failed {tried[key].failures} times" if key in tried and tried[key].failures else "waiting"

        return {key: state(key) for key in keys}, tried

    def _ended(
        self, instance: dg.DagsterInstance, every: Sequence[str], wanted: Sequence[str]
    ) -> dict[str, list[dg.RunRecord]]:
        """Asked for by key: among the last so many runs, those of a batch that failed long ago would be missing."""
        found: dict[str, dict[str, dg.RunRecord]] = {}
        numbers = {key: number for number, key in enumerate(every)}
        starts = {
            every[number]
            for key in wanted
            for number in range(max(numbers[key] - self.settings.batches_per_run + 1, 0), numbers[key] + 1)
        }
        for tag, values in ((ONE_KEY, list(wanted)), (RANGE_START, [key for key in every if key in starts])):
            for record in chain.from_iterable(runs_by_tag(instance, tag, values, self.stream.job).values()):
                if record.dagster_run.is_finished:
                    for key in covered(record.dagster_run.tags, every):
                        found.setdefault(key, {})[record.dagster_run.run_id] = record
        return {key: list(runs.values()) for key, runs in found.items()}

    def tick(self, instance: dg.DagsterInstance, cursor: str | None) -> tuple[list[dg.RunRequest], str, str]:
        """Plan what is new and choose the run to ask for.

        One run at a time, since a batch learns from all before it; what comes meanwhile waits, and a run then takes
        several batches at once. A batch that failed is run again by itself, each time after a longer wait.

        Args:
            instance: Dagster's own storage.
            cursor: since when messages have waited, by partition: lost, they wait BATCH_SECONDS once more. And which
                batches are done, so that few are looked at: lost, or old, all are.

        Returns:
            The run request, if any; the new cursor; and what to tell.
        """
        before, id_ = json.loads(cursor or "{}"), self.kafka.topic_id(self.topic)
        with self._planning():
            held = self.kafka.offsets(self.topic)
            if not held:
                return [], "{}", f"there is no topic {self.topic} at {self.settings.kafka_servers} yet"
            settled = self._settled(before, id_)
            look = self._look(instance, id_, settled)
            tail, following = look.tail, look.tail.following
            states, tried = self._survey(instance, tail.batches, look.every, tail.done)
            since, ripe = self._waiting(before.get("since", {}), following, held)
            room = self.settings.batches_per_run * 2 - Counter(states.values())["waiting"]
            new = self._add(instance, following, held, ripe, room) if room > 0 else []
        every = [*look.every, *(batch.key for batch in new)]
        states |= {batch.key: "waiting" for batch in new}
        behind = lag(following | {batch.partition: batch.end for batch in new}, held)
        counts = Counter({"done": tail.settled.count}) + Counter(states.values())
        told = (
            f"lag {sum(behind.values())} messages {behind}, {len(new)} new batches; "
            f"{', '.join(f'{count} {state}' for state, count in sorted(counts.items())) or 'no batch'}"
        )
        if look.absent:
            told += f"; added again, being in no other: {', '.join(batch.key for batch in look.absent)}"
        # Whatever run it is, of batches that were settled long ago too.
        is_busy = any(named(partitions_in_work(instance), self.topic))
        request = None if is_busy else self._request(every, states, tried)
        looked = before["looked"] if settled else time.time()
        after = {"since": since, "id": id_, "settled": asdict(tail.settled), "looked": looked}
        return ([request] if request else []), json.dumps(after), told

    def _settled(self, before: Mapping[str, Any], id_: str) -> Settled | None:
        """What need not be looked at again, by the cursor; nothing now and then, or where the topic may be another."""
        if not id_ or before.get("id") != id_ or before.get("looked", 0) < time.time() - AFRESH_S:
            return None
        found = before["settled"]
        return Settled(found["place"], found["count"], {int(name): end for name, end in found["ends"].items()})

    def _request(
        self, every: Sequence[str], states: Mapping[str, str], tried: Mapping[str, Attempts]
    ) -> dg.RunRequest | None:
        """The run to ask for: of a batch that has failed, alone; else of as many that wait as one run takes of them.

        Its key ends in the run that was tried last, so that it is new after each, whatever became of the others.
        """
        due = {key for key in states if key not in tried or (tried[key].due and not tried[key].are_over(MAX_ATTEMPTS))}
        for key, state in states.items():
            if state.startswith("failed") and key in due:
                return dg.RunRequest(
                    f"{key}:after {tried[key].newest.dagster_run.run_id}", partition_key=key, tags=NO_OTHER_RETRY
                )
        waiting = [key for key, state in states.items() if state == "waiting" and key in due]
        by_most: dict[int, list[str]] = {}
        for key in waiting:
            by_most.setdefault(self._most(tried.get(key)), []).append(key)
        stretches = [ends for most, keys in by_most.items() for ends in contiguous(every, keys, most)]
        for first, last in sorted(stretches, key=lambda ends: every.index(ends[0])):
            ended = [tried[key].newest for key in every[every.index(first) : every.index(last) + 1] if key in tried]
            after = max(ended, key=ended_at).dagster_run.run_id if ended else "nothing"
            if first == last:
                return dg.RunRequest(f"{first}:after {after}", partition_key=first, tags=NO_OTHER_RETRY)
            return dg.RunRequest(f"{first}..{last}:after {after}", tags=tags_for(first, last) | NO_OTHER_RETRY)
        return None

    def _most(self, tried: Attempts | None) -> int:
        """How many batches a run may have that has this one."""
        halvings = tried.interruptions - HALVED_AFTER + 1 if tried else 0
        return max(self.settings.batches_per_run >> max(halvings, 0), 1)

    def _waiting(
        self, before: Mapping[str, list[float]], following: Mapping[int, int], held: Mapping[int, Offsets]
    ) -> tuple[dict[str, list[float]], list[int]]:
        """Since when each partition has had messages that are in no batch, and the partitions with ripe ones."""
        since: dict[str, list[float]] = {}
        for partition, offsets in held.items():
            first = following.get(partition, offsets.begin)
            if offsets.end > first:
                known = before.get(str(partition), [])
                since[str(partition)] = known if known and known[0] == first else [first, time.time()]
        old = time.time() - self.settings.batch_seconds
        return since, [int(partition) for partition, (_, at) in since.items() if at <= old]


@dataclass(frozen=True)
class Look:
    """What a planner sees: the last batches, partitions in Dagster's order, and those that were not there."""

    tail: Tail
    every: list[str]
    absent: list[Batch]
