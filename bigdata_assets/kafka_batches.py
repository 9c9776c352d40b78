"""Kafka batches: immutable offset ranges as dynamic partitions. Keys, planning, and which runs to ask for.

The keys are the only record of what was planned. Which offset comes next, which batches have no run yet and which ones
failed is worked out from the keys and from Dagster's runs and materialisations, so that a lost cursor, a restarted
daemon or a killed run neither makes a batch twice nor leaves one out.

Batches have an order, the one in which they were planned: Dagster keeps dynamic partitions in it.
"""

import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path

import dagster as dg
from filelock import FileLock

from bigdata_assets.interruptions import NO_OTHER_RETRY, Attempts, attempts, ended_at
from bigdata_assets.partition_ranges import ONE_KEY, RANGE_START, contiguous, covered, in_work, tags_for
from bigdata_assets.resources.kafka import KafkaResource, KafkaUnreachableError, Offsets
from bigdata_assets.settings import Settings

DIGITS = 7
"""Of offsets in a key, so that it fits its place in the UI; a longer offset only sorts less well."""
OLD_DIGITS = 12
"""As keys once had: those that are stored stay what they are."""
MAX_ATTEMPTS = 6
ALONE_AFTER = 3
"""Interruptions after which a batch is run alone: it may be what ends the process."""
KEPT_KEYS = 200_000
"""Batches of keys that were read already: a tick looks at all, and Dagster advises at most half as many."""
KEYS_ASKED_FOR = 500
"""In one query of Dagster's storage."""
KEY = re.compile(rf"(?P<topic>.+)-p(?P<partition>\d{{3,}})-(?P<first>\d{{{DIGITS},}})-(?P<end>\d{{{DIGITS},}})")


class BatchError(ValueError):
    """A key is not a batch's, or batches contradict each other or their topic."""


@dataclass(frozen=True)
class Batch:
    """The messages [first, end) of a topic's partition; `digits` are those of the offsets in its key."""

    topic: str
    partition: int
    first: int
    end: int
    digits: int = field(default=DIGITS, compare=False)

    @property
    def key(self) -> str:
        return f"{self.topic}-p{self.partition:03d}-{self.first:0{self.digits}d}-{self.end:0{self.digits}d}"

    def __len__(self) -> int:
        return self.end - self.first


@lru_cache(KEPT_KEYS)
def parse(key: str) -> Batch:
    """The batch that a key names.

    Raises:
        BatchError: it names none.
    """
    if match := KEY.fullmatch(key):
        partition, first, end = (int(match[name]) for name in ("partition", "first", "end"))
        for digits in (DIGITS, OLD_DIGITS):
            batch = Batch(match["topic"], partition, first, end, digits)
            if batch.key == key and first < end:
                return batch
    raise BatchError(f"{key!r} is no batch's key: those look like {Batch('topic', 0, 0, 120).key}.")


def next_offsets(batches: Iterable[Batch]) -> dict[int, int]:
    """Where each partition's next batch begins.

    Raises:
        BatchError: two batches share messages.
    """
    ends: dict[int, int] = {}
    for batch in sorted(batches, key=lambda batch: (batch.partition, batch.first)):
        if batch.first < ends.get(batch.partition, 0):
            raise BatchError(
                f"batch {batch.key} shares messages with the one before it: delete one of their partitions in the UI, "
                "and its rows with it."
            )
        ends[batch.partition] = batch.end
    return ends


def lag(batches: Iterable[Batch], held: Mapping[int, Offsets]) -> dict[int, int]:
    """Messages of each partition that are in no batch yet; `batches`: all of the topic."""
    return _behind(next_offsets(batches), held)


def _behind(following: Mapping[int, int], held: Mapping[int, Offsets]) -> dict[int, int]:
    return {partition: offsets.end - following.get(partition, offsets.begin) for partition, offsets in held.items()}


def _made_anew(topic: str, why: str) -> BatchError:
    return BatchError(
        f"{topic} was made anew: {why}. Read it under another name, or delete the old batches' partitions and rows."
    )


def plan(
    topic: str, following: Mapping[int, int], held: Mapping[int, Offsets], rows: int, ripe: Iterable[int], most: int
) -> list[Batch]:
    """The next batches, at most `most`, the topic's partitions in turn.

    Args:
        topic: its name.
        following: where each partition's next batch begins; missing for one that has none yet.
        held: what the topic holds now.
        rows: size of a batch.
        ripe: partitions whose waiting messages become a batch although they are fewer.
        most: how many batches are planned at once.

    Raises:
        BatchError: a partition ends before what was planned already.
    """
    by_partition = []
    for partition, offsets in sorted(held.items()):
        first = following.get(partition, offsets.begin)
        if offsets.end < first:
            raise _made_anew(topic, f"partition {partition} ends at {offsets.end}, batches up to {first} were planned")
        cuts = list(range(max(first, offsets.begin), offsets.end, rows))[: most + 1]
        found = [Batch(topic, partition, cut, min(cut + rows, offsets.end)) for cut in cuts]
        if found and len(found[-1]) < rows and partition not in ripe:
            found.pop()
        if first < offsets.begin:
            # Expired before anyone read it. One batch of it, whose run fails and says so.
            found.insert(0, Batch(topic, partition, first, offsets.begin))
        by_partition.append(found)
    in_turn = (batch for batches in zip_longest(*by_partition) for batch in batches if batch)
    return [batch for batch, _ in zip(in_turn, range(most), strict=False)]


@dataclass(frozen=True)
class Stream:
    """A topic whose batches are the partitions of a branch's assets.

    Attributes:
        job: the job that a batch is run with.
        read: the asset that has a batch's usable messages.
        last: the asset that a batch is done with.
    """

    topic: str
    partitions: dg.DynamicPartitionsDefinition
    job: str
    read: dg.AssetKey
    last: dg.AssetKey
    settings: Settings
    kafka: KafkaResource

    def keys(self, instance: dg.DagsterInstance) -> list[str]:
        """Keys of the topic's batches, in their order."""
        return in_order(instance, self.partitions, self.topic)

    def planned(self, instance: dg.DagsterInstance) -> set[Batch]:
        """All batches that were ever planned, with those that were given up."""
        return planned(instance, self.partitions, self.topic)

    def give_up(self, instance: dg.DagsterInstance, key: str) -> None:
        """Take out a batch that can never be read. Its range stays known, or it would be planned again.

        Raises:
            BatchError: there is no such batch, it runs, or it is stored and nothing waits for it.
        """
        with self._planning():
            state = self.states(instance).get(key)
            if state is None or state in ("running", "done") or key in instance.get_materialized_partitions(self.read):
                raise BatchError(
                    f"{key!r} is not given up: "
                    + ("there is no such batch." if state is None else f"it is {state}.")
                    + " `bigdata-assets batches` lists all. One that is stored holds up nothing."
                )
            instance.add_dynamic_partitions(_given_up(self.partitions), [key])
            instance.delete_dynamic_partition(str(self.partitions.name), key)

    def _given_up(self, instance: dg.DagsterInstance) -> list[Batch]:
        return [batch for _, batch in _named(instance.get_dynamic_partitions(_given_up(self.partitions)), self.topic)]

    def _planning(self) -> FileLock:
        """One planner at a time, or two would cut the same messages twice."""
        return FileLock(Path(self.settings.dagster_home) / "kafka_batches.lock")

    def add_new(
        self, instance: dg.DagsterInstance, held: Mapping[int, Offsets], ripe: Iterable[int], most: int, rows: int = 0
    ) -> list[Batch]:
        """Plan batches, of `rows` messages or else BATCH_ROWS, and add their keys at once."""
        with self._planning():
            following = self._following(instance, self.planned(instance))
            return self._add(instance, following, held, ripe, most, rows)

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
        instance.add_dynamic_partitions(str(self.partitions.name), [batch.key for batch in new])
        return new

    def _following(self, instance: dg.DagsterInstance, already: set[Batch]) -> dict[int, int]:
        """Where each partition's next batch begins, if the topic is still the one that the batches are of."""
        self._recognise(instance, known=bool(already))
        return next_offsets(already)

    def _recognise(self, instance: dg.DagsterInstance, *, known: bool) -> None:
        """Keep the id of the topic, once: `known` says that batches of it are planned already.

        Raises:
            BatchError: it is another one's.
        """
        id_, name = self.kafka.topic_id(self.topic), _ids(self.partitions)
        if is_made_anew(instance, self.partitions, self.topic, id_):
            if known:
                raise _made_anew(self.topic, f"its id is {id_} now")
            for old in [old for old in instance.get_dynamic_partitions(name) if old.startswith(f"{self.topic}:")]:
                instance.delete_dynamic_partition(name, old)
        if id_:
            instance.add_dynamic_partitions(name, [f"{self.topic}:{id_}"])

    def add_all(self, instance: dg.DagsterInstance, rows: int = 0) -> None:
        """Make batches of all that waits, without the sensor; nothing where no broker answers or no topic is there."""
        try:
            held = self.kafka.offsets(self.topic)
        except KafkaUnreachableError:
            return
        while self.add_new(instance, held, held, 1_000, rows):
            pass

    def states(self, instance: dg.DagsterInstance) -> dict[str, str]:
        """What became of each batch: done, running, failed N times, or waiting."""
        return self._survey(instance, self.keys(instance))[0]

    def _survey(self, instance: dg.DagsterInstance, keys: Sequence[str]) -> tuple[dict[str, str], dict[str, Attempts]]:
        """The state of each batch, in their order; what was tried of those that are not done."""
        done = instance.get_materialized_partitions(self.last)
        running = in_work(instance, keys)
        ended = self._ended(instance, keys, [key for key in keys if key not in done])
        tried = {key: found for key, records in ended.items() if (found := attempts(instance, records))}

        def state(key: str) -> str:
            if key in running:
                return "running"
            if key in done:
                return "done"
            return f"failed {tried[key].failures} times" if key in tried and tried[key].failures else "waiting"

        return {key: state(key) for key in keys}, tried

    def _ended(
        self, instance: dg.DagsterInstance, keys: Sequence[str], wanted: Sequence[str]
    ) -> dict[str, list[dg.RunRecord]]:
        """Asked for by key: among the last so many runs, those of a batch that failed long ago would be missing."""
        found: dict[str, dict[str, dg.RunRecord]] = {}
        numbers = {key: number for number, key in enumerate(keys)}
        starts = {
            keys[number]
            for key in wanted
            for number in range(max(numbers[key] - self.settings.batches_per_run + 1, 0), numbers[key] + 1)
        }
        for tag, values in ((ONE_KEY, list(wanted)), (RANGE_START, [key for key in keys if key in starts])):
            for first in range(0, len(values), KEYS_ASKED_FOR):
                asked = dg.RunsFilter(job_name=self.job, tags={tag: values[first : first + KEYS_ASKED_FOR]})
                for record in instance.get_run_records(asked):
                    if record.dagster_run.is_finished:
                        for key in covered(record.dagster_run.tags, keys):
                            found.setdefault(key, {})[record.dagster_run.run_id] = record
        return {key: list(runs.values()) for key, runs in found.items()}

    def tick(self, instance: dg.DagsterInstance, cursor: str | None) -> tuple[list[dg.RunRequest], str, str]:
        """Plan what is new and choose the run to ask for.

        One run at a time, since a batch learns from all before it; what comes meanwhile waits, and a run then takes
        several batches at once. A batch that failed is run again by itself, each time after a longer wait.

        Args:
            instance: Dagster's own storage.
            cursor: since when messages have waited, by partition; lost, they wait BATCH_SECONDS once more.

        Returns:
            The run request, if any; the new cursor; and what to tell.
        """
        held = self.kafka.offsets(self.topic)
        if not held:
            return [], "{}", f"there is no topic {self.topic} at {self.settings.kafka_servers} yet"
        with self._planning():
            every = list(instance.get_dynamic_partitions(str(self.partitions.name)))  # once: there may be very many
            own = dict(_named(every, self.topic))
            states, tried = self._survey(instance, list(own))
            following = self._following(instance, {*own.values(), *self._given_up(instance)})
            since, ripe = self._waiting(cursor, following, held)
            room = self.settings.batches_per_run * 2 - Counter(states.values())["waiting"]
            new = self._add(instance, following, held, ripe, room) if room > 0 else []
        states |= {batch.key: "waiting" for batch in new}
        behind = _behind(following | {batch.partition: batch.end for batch in new}, held)
        counts = Counter(states.values())
        told = (
            f"lag {sum(behind.values())} messages {behind}, {len(new)} new batches; "
            f"{', '.join(f'{count} {state}' for state, count in sorted(counts.items())) or 'no batch'}"
        )
        every += [batch.key for batch in new]
        request = None if "running" in counts else self._request(every, states, tried)
        return ([request] if request else []), json.dumps(since), told

    def _request(
        self, every: Sequence[str], states: Mapping[str, str], tried: Mapping[str, Attempts]
    ) -> dg.RunRequest | None:
        """The run to ask for: of a batch that has failed, alone; else of as many that wait as one run takes.

        Its key ends in the run that was tried last, so that it is new after each, whatever became of the others.
        """
        due = {key for key in states if key not in tried or (tried[key].due and not tried[key].are_over(MAX_ATTEMPTS))}
        for key, state in states.items():
            if state.startswith("failed") and key in due:
                return dg.RunRequest(
                    f"{key}:after {tried[key].newest.dagster_run.run_id}", partition_key=key, tags=NO_OTHER_RETRY
                )
        waiting = [key for key, state in states.items() if state == "waiting" and key in due]
        alone = {key for key in waiting if key in tried and tried[key].interruptions >= ALONE_AFTER}
        stretches = contiguous(every, [key for key in waiting if key not in alone], self.settings.batches_per_run)
        for first, last in sorted([*stretches, *((key, key) for key in alone)], key=lambda ends: every.index(ends[0])):
            ended = [tried[key].newest for key in every[every.index(first) : every.index(last) + 1] if key in tried]
            after = max(ended, key=ended_at).dagster_run.run_id if ended else "nothing"
            if first == last:
                return dg.RunRequest(f"{first}:after {after}", partition_key=first, tags=NO_OTHER_RETRY)
            return dg.RunRequest(f"{first}..{last}:after {after}", tags=tags_for(first, last) | NO_OTHER_RETRY)
        return None

    def _waiting(
        self, cursor: str | None, following: Mapping[int, int], held: Mapping[int, Offsets]
    ) -> tuple[dict[str, list[float]], list[int]]:
        """Since when each partition has had messages that are in no batch, and the partitions with ripe ones."""
        before = json.loads(cursor or "{}")
        since: dict[str, list[float]] = {}
        for partition, offsets in held.items():
            first = following.get(partition, offsets.begin)
            if offsets.end > first:
                known = before.get(str(partition), [])
                since[str(partition)] = known if known and known[0] == first else [first, time.time()]
        old = time.time() - self.settings.batch_seconds
        return since, [int(partition) for partition, (_, at) in since.items() if at <= old]


def in_order(
    instance: dg.DagsterInstance, partitions: dg.DynamicPartitionsDefinition, topic: str | None = None
) -> list[str]:
    """Keys of a topic's batches, or of all topics', in the order in which they were planned."""
    return [key for key, _ in _named(instance.get_dynamic_partitions(str(partitions.name)), topic)]


def planned(instance: dg.DagsterInstance, partitions: dg.DynamicPartitionsDefinition, topic: str) -> set[Batch]:
    """All batches of a topic that were ever planned, with those that were given up."""
    names = (str(partitions.name), _given_up(partitions))
    return {batch for name in names for _, batch in _named(instance.get_dynamic_partitions(name), topic)}


def topic_of(keys: Iterable[str]) -> str:
    """The topic that batches are of.

    Raises:
        BatchError: they are of several, each of which has an order of its own.
    """
    topics = {parse(key).topic for key in keys}
    if len(topics) != 1:
        raise BatchError(f"a run is for batches of one topic; these are of {sorted(topics)}: run them apart.")
    return topics.pop()


def is_made_anew(
    instance: dg.DagsterInstance, partitions: dg.DynamicPartitionsDefinition, topic: str, id_: str
) -> bool:
    """Whether batches were planned of another topic of this name."""
    known = [name for name in instance.get_dynamic_partitions(_ids(partitions)) if name.startswith(f"{topic}:")]
    return bool(id_ and known and f"{topic}:{id_}" not in known)


def _named(keys: Iterable[str], topic: str | None) -> Iterator[tuple[str, Batch]]:
    """Keys that name batches, of a topic or of any, and those: somebody may have added any key in the UI."""
    for key in keys:
        with contextlib.suppress(BatchError):
            batch = parse(key)
            if topic in (None, batch.topic):
                yield key, batch


def _given_up(partitions: dg.DynamicPartitionsDefinition) -> str:
    """Name of a set of keys that Dagster keeps for us: no asset has them for its partitions."""
    return f"{partitions.name}_given_up"


def _ids(partitions: dg.DynamicPartitionsDefinition) -> str:
    """The same of `topic:id`, of the topics that batches were planned of."""
    return f"{partitions.name}_topics"


def batch_sensor(name: str, stream: Stream) -> dg.SensorDefinition:
    """The sensor that makes batches of a topic's new messages and has them run."""

    @dg.sensor(
        name=name,
        job_name=stream.job,
        minimum_interval_seconds=10,
        description=f"Cuts new messages of the Kafka topic {stream.topic} into batches, each run as a partition.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            requests, cursor, told = stream.tick(context.instance, context.cursor)
        except KafkaUnreachableError as error:
            return dg.SkipReason(str(error))
        context.log.info(told)
        context.update_cursor(cursor)
        return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason(told)

    return sensor
