"""Sends an export's reports to Kafka as if they were just coming in."""

import json
import logging
import re
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import click
import pandas as pd
from filelock import FileLock
from tqdm import tqdm

from bigdata_assets.crimes.logic import exports, messages
from bigdata_assets.crimes.source import SOURCE
from bigdata_assets.reading import FileChangedError
from bigdata_assets.resources.kafka import KafkaResource, KafkaUnreachableError
from bigdata_assets.settings import Settings, legal_topic
from bigdata_assets.sources import Sources

PLACE = "bigdata-assets-place"
"""Header that tells a report's place in the order of sending: its time and ID. What --resume looks for."""
PORTION = "bigdata-assets-portion"
"""Header of what was sent at once: the sending it is part of, as --resume goes on with the last one; its first place,
before which all is in the topic; and the furthest place that may be in the topic by then."""
LOOKED_AT = 200
Place: TypeAlias = tuple[str, int]
NOWHERE: Place = ("", 0)
"""Before all places."""
SAMPLE_ROWS, SAMPLE_BATCH_ROWS = 1_200, 100
"""Of the sample's stream: enough batches for curves over them, and as many reports left to be sent by hand."""
LOG = logging.getLogger(__name__)


class ProduceError(RuntimeError):
    """The stream cannot be sent; the message says why."""


def produce(
    kafka: KafkaResource,
    folder: Path,
    months: Sequence[str],
    topic: str,
    *,
    rows: int,
    every_s: float,
    partitions: int = 1,
    resume: bool = False,
    limit: int | None = None,
    stop: threading.Event | None = None,
) -> int:
    """Send the months' reports by time and ID, `rows` at once; how many were acknowledged by all replicas.

    Each message is written once and in the order of its partition: the producer is idempotent. A stop request is heeded
    between two portions and while waiting.

    Raises:
        ProduceError: the topic's name is illegal, or a message was not taken.
        ExportError: there is no export of a month, or no row of one is a report.
        KafkaUnreachableError: no broker answers.
    """
    try:
        legal_topic(topic)
    except ValueError as error:
        raise ProduceError(str(error)) from None
    stop = stop or threading.Event()
    files = [exports.export_file(folder, month) for month in months]  # all are there, before anything is sent
    kafka.create_topic(topic, partitions)
    before = look_back(kafka, topic) if resume else Sent(time.time())
    sent = 0
    with kafka.producer(linger_ms=20) as producer:
        n_partitions = len(producer.partitions_for(topic))
        for month, file in zip(months, files, strict=True):
            read = exports.read_month(folder, month)
            _tell_refused(read, month, file)
            reports = read.reports[:limit]
            waiting = reports[[not before.has(place) for place in _places(reports)]]
            with tqdm(total=len(waiting), desc=f"{month} from {file.name}", unit="report", disable=None) as bar:
                for first in range(0, len(waiting), rows):
                    if stop.is_set() or (sent and stop.wait(every_s)):
                        return sent
                    portion = waiting.iloc[first : first + rows]
                    _send(producer, topic, portion, n_partitions, before)
                    sent += len(portion)
                    bar.update(len(portion))
    return sent


def _tell_refused(read: exports.Month, month: str, file: Path) -> None:
    if read.n_refused:
        first = read.refused.iloc[0]
        click.echo(
            f"{month} from {file.name}: {len(read.reports)} reports; {read.n_refused} rows are none and are not sent. "
            f"{first['reason']}, in {first['raw'][:200]!r}. crimes/quarantined_historic_reports has them all.",
            err=True,
        )
    elif read.reports.empty:
        click.echo(f"{file.name} has no report of {month}", err=True)


@dataclass(frozen=True)
class Sent:
    """What a sending has got into its topic: all that comes before `first`, and the places `beyond`.

    A killed producer may have got further in one partition than in another, and since then there may be more of them.
    """

    sending: float
    first: Place = NOWHERE
    beyond: frozenset[Place] = frozenset()

    def has(self, place: Place) -> bool:
        return place < self.first or place in self.beyond


def look_back(kafka: KafkaResource, topic: str) -> Sent:
    """What the last sending has got into the topic.

    Raises:
        ProduceError: a partition's last messages are not from this command, or all have expired.
    """
    count = LOOKED_AT
    while True:
        tails = kafka.tail(topic, count)
        found = {partition: [r for r in map(_record, tail) if r] for partition, tail in tails.items()}
        for partition, tail in tails.items():
            if tail and not found[partition]:
                raise ProduceError(
                    f"--resume: none of the last {count} messages of {topic}, partition {partition}, is from this "
                    "command, so that where it stopped is not known."
                )
        if not any(found.values()):
            if any(offsets.end for offsets in kafka.offsets(topic).values()):
                raise ProduceError(f"--resume: all messages of {topic} have expired: where it stopped is not known.")
            return Sent(time.time())
        sending = max(record.sending for records in found.values() for record in records)
        ours = {p: [record for record in records if record.sending == sending] for p, records in found.items()}
        first = _first_not_sent(ours)
        if all(
            len(tails[partition]) < count or any(r.furthest < first or r.sending < sending for r in records)
            for partition, records in found.items()
        ):
            places = (record.place for records in ours.values() for record in records)
            return Sent(sending, first, frozenset(place for place in places if place >= first))
        count *= 4


@dataclass(frozen=True)
class _Record:
    """What a message's headers tell: `first` and `furthest` are those of its portion; the last sending counts."""

    key: bytes
    place: Place
    sending: float
    first: Place | None
    furthest: Place


def _record(message: Any) -> _Record | None:
    headers = dict(message.headers)
    if PLACE not in headers:
        return None
    place = _place(json.loads(headers[PLACE]))
    if PORTION not in headers:  # sent before there was such a header, in the order of its partition
        return _Record(message.key, place, 0, None, place)
    sending, first, furthest = json.loads(headers[PORTION])
    return _Record(message.key, place, sending, _place(first), _place(furthest))


def _place(value: Sequence[Any]) -> Place:
    occurred_at, report_id = value
    return occurred_at, report_id


def _first_not_sent(found: Mapping[int, Sequence[_Record]]) -> Place:
    """A place before which all was sent, from each partition's last records of one sending."""
    if firsts := [record.first for records in found.values() for record in records if record.first]:
        return max(firsts)
    # Without that header: each partition has all up to its last one, of as many partitions as there were then.
    n = next(
        (n for n in range(len(found), 0, -1) if all(_partition(r.key, n) == p for p in found for r in found[p])),
        len(found),
    )
    return min(found[p][-1].place if found[p] else NOWHERE for p in range(n))


def produce_sample(settings: Settings, kafka: KafkaResource, sources: Sources) -> bool:
    """Send the sample's first reports to our own broker where they were not sent; whether they are all that it has.

    To any other broker nothing is sent.
    """
    topic = settings.topic("crimes")
    with FileLock(Path(settings.dagster_home) / "crimes_sample.lock"):
        try:
            if not is_own_broker(settings, kafka):
                LOG.warning(
                    "nothing is sent: Kafka at %s is not the broker that this project started, and the sources are the "
                    "sample. `bigdata-assets produce crimes` sends there what you want there",
                    settings.kafka_servers,
                )
                return False
            sent = sum(offsets.end for offsets in kafka.offsets(topic).values())
            if sent < SAMPLE_ROWS:  # nothing yet, or a sending that was cut off
                folder = sources.folder(SOURCE)
                produce(
                    kafka,
                    folder,
                    [sample_month(folder)],
                    topic,
                    rows=SAMPLE_ROWS,
                    every_s=0,
                    resume=bool(sent),
                    limit=SAMPLE_ROWS,
                )
        except KafkaUnreachableError:
            return False
        except ProduceError:  # it has somebody's own messages
            return False
        return sent <= SAMPLE_ROWS


def is_own_broker(settings: Settings, kafka: KafkaResource) -> bool:
    """Whether Kafka is what this project has started itself.

    Raises:
        KafkaUnreachableError: no broker answers.
    """
    return kafka.cluster_id() == settings.own_kafka_cluster


def sample_month(folder: Path) -> str:
    """The last month that the folder's files are for."""
    return exports.months(folder, pd.Timestamp.now(exports.TIME_ZONE).date())[-1]


def month_range(text: str) -> list[str]:
    """`2016-01` or `2015-01..2016-12` as months.

    Raises:
        ProduceError: it is neither.
    """
    month = r"\d{4}-(?:0[1-9]|1[0-2])"
    if not re.fullmatch(rf"{month}(?:\.\.{month})?", text):
        raise ProduceError(f"--month is like 2016-01 or 2015-01..2016-12; {text!r} is not")
    first, _, last = text.partition("..")
    return [str(period) for period in pd.period_range(first, last or first, freq="M")]


def _send(producer: Any, topic: str, reports: pd.DataFrame, n_partitions: int, sent: Sent) -> None:
    from kafka.errors import KafkaError

    places, futures = _places(reports), []
    told = [sent.sending, places[0], max([places[-1], *sent.beyond])]
    portion = (PORTION, json.dumps(told).encode())
    for (key, value), place in zip(messages.encode(reports), places, strict=True):
        headers = [(PLACE, json.dumps(place).encode()), portion]
        futures.append(producer.send(topic, value, key, headers=headers, partition=_partition(key, n_partitions)))
    producer.flush()
    try:
        for future in futures:
            future.get(timeout=30)
    except KafkaError as error:
        raise ProduceError(
            f"{topic} did not take a message: {error}. What it took is in order; go on with --resume."
        ) from error


def _partition(key: bytes, n_partitions: int) -> int:
    """The partition of a key: Kafka's own murmur2, so that a report's versions share a partition with any client."""
    from kafka.partitioner import murmur2

    return int((murmur2(key) & 0x7FFFFFFF) % n_partitions)


def _places(reports: pd.DataFrame) -> list[Place]:
    """Each report's instant, as text that sorts by time, and ID."""
    return [(time.isoformat(), int(n)) for time, n in zip(reports["occurred_at"], reports["report_id"], strict=True)]


def run_command(kafka: KafkaResource, folder: Path, month: str, **options: Any) -> None:
    """What `bigdata-assets produce crimes` does: Ctrl-C ends it after the portion that is under way."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    try:
        sent = produce(kafka, folder, month_range(month), stop=stop, **options)
    except (ProduceError, exports.ExportError, FileChangedError, KafkaUnreachableError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{sent} reports sent to {options['topic']}{'; go on with --resume' if stop.is_set() else ''}")
