"""Batches: immutable ranges of a topic's offsets. How their keys read, and where the next ones are cut."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import zip_longest
from types import MappingProxyType

from bigdata_assets.resources.kafka import Offsets

DIGITS = 7
"""Of offsets in a key, so that it fits its place in the UI; a longer offset only sorts less well."""
OLD_DIGITS = 12
"""As keys once had: those that are stored stay what they are."""
KEPT_KEYS = 200_000
"""Batches of keys that were read already: a tick looks at all, and Dagster advises at most half as many."""
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


def topic_of(keys: Iterable[str]) -> str:
    """The topic that batches are of.

    Raises:
        BatchError: they are of several, each of which has an order of its own.
    """
    topics = {parse(key).topic for key in keys}
    if len(topics) != 1:
        raise BatchError(f"a run is for batches of one topic; these are of {sorted(topics)}: run them apart.")
    return topics.pop()


def next_offsets(batches: Iterable[Batch], ends: Mapping[int, int] = MappingProxyType({})) -> dict[int, int]:
    """Where each partition's next batch begins; `ends`: the same, of batches before these."""
    found = dict(ends)
    for batch in batches:
        found[batch.partition] = max(batch.end, found.get(batch.partition, 0))
    return found


def lag(following: Mapping[int, int], held: Mapping[int, Offsets]) -> dict[int, int]:
    """Messages of each partition that are in no batch yet; `following`: where its next batch begins."""
    return {partition: offsets.end - following.get(partition, offsets.begin) for partition, offsets in held.items()}


def made_anew(topic: str, why: str) -> BatchError:
    """The topic is another one of the same name."""
    return BatchError(
        f"{topic} was made anew: {why}. Read one of another name (KAFKA_<STREAM>_TOPIC), or wipe the materialisations "
        "of all assets of these batches and delete the old ones' partitions, rows and snapshots."
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
            raise made_anew(topic, f"partition {partition} ends at {offsets.end}, batches up to {first} were planned")
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
