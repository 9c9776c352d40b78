"""Sends an export's reports to Kafka as if they were just coming in."""

import json
import logging
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click
import pandas as pd
from filelock import FileLock
from tqdm import tqdm

from bigdata_assets.crimes.logic import exports, messages
from bigdata_assets.crimes.source import SOURCE
from bigdata_assets.resources.kafka import KafkaResource, KafkaUnreachableError
from bigdata_assets.settings import Settings, legal_topic
from bigdata_assets.sources import Sources

PLACE = "bigdata-assets-place"
"""Header that tells a report's place in the order of sending: its time and ID. What --resume looks for."""
LOOKED_AT = 200
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
        ExportError: there is no export of a month.
        KafkaUnreachableError: no broker answers.
    """
    try:
        legal_topic(topic)
    except ValueError as error:
        raise ProduceError(str(error)) from None
    stop = stop or threading.Event()
    files = [exports.export_file(folder, month) for month in months]  # all are there, before anything is sent
    kafka.create_topic(topic, partitions)
    places = last_places(kafka, topic) if resume else {}
    sent = 0
    with kafka.producer(linger_ms=20) as producer:
        partition_of = _partitioner(producer, topic)
        for month, file in zip(months, files, strict=True):
            reports = exports.read_month(folder, month)[:limit]
            waiting = _not_sent(reports, partition_of, places)
            with tqdm(total=len(waiting), desc=f"{month} from {file.name}", unit="report", disable=None) as bar:
                for first in range(0, len(waiting), rows):
                    if stop.is_set() or (sent and stop.wait(every_s)):
                        return sent
                    portion = waiting.iloc[first : first + rows]
                    _send(producer, topic, portion, partition_of)
                    sent += len(portion)
                    bar.update(len(portion))
    return sent


def last_places(kafka: KafkaResource, topic: str) -> dict[int, tuple[str, int]]:
    """Time and ID of the last report that was sent to each partition.

    A killed producer may have got further in one partition than in another: each goes on from its own.
    """
    found = {}
    for partition, records in kafka.tail(topic, LOOKED_AT).items():
        for record in records:
            for name, value in record.headers:
                if name == PLACE:
                    occurred_at, report_id = json.loads(value)
                    found[partition] = (occurred_at, report_id)
        if records and partition not in found:
            raise ProduceError(
                f"--resume: none of the last {LOOKED_AT} messages of {topic}, partition {partition}, is from this "
                "command, so that where it stopped is not known."
            )
    return found


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


def _send(producer: Any, topic: str, reports: pd.DataFrame, partition_of: Any) -> None:
    from kafka.errors import KafkaError

    futures = []
    encoded = messages.encode(reports)
    for (key, value), occurred_at, report_id in zip(encoded, _times(reports), reports["report_id"], strict=True):
        place = (PLACE, json.dumps([occurred_at, int(report_id)]).encode())
        futures.append(producer.send(topic, value, key, headers=[place], partition=partition_of(key)))
    producer.flush()
    try:
        for future in futures:
            future.get(timeout=30)
    except KafkaError as error:
        raise ProduceError(
            f"{topic} did not take a message: {error}. What it took is in order; go on with --resume."
        ) from error


def _partitioner(producer: Any, topic: str) -> Any:
    """The partition of a key: Kafka's own murmur2, so that a report's versions share a partition with any client."""
    from kafka.partitioner import murmur2

    n = len(producer.partitions_for(topic))
    return lambda key: (murmur2(key) & 0x7FFFFFFF) % n


def _not_sent(reports: pd.DataFrame, partition_of: Any, places: dict[int, tuple[str, int]]) -> pd.DataFrame:
    """Reports behind the last one that their partition has."""
    if not places:
        return reports
    keys = (str(report_id).encode() for report_id in reports["report_id"])
    here = zip(keys, _times(reports), reports["report_id"], strict=True)
    behind = [(time, report_id) > places.get(partition_of(key), ("", 0)) for key, time, report_id in here]
    return reports[behind]


def _times(reports: pd.DataFrame) -> Iterator[str]:
    """Instants as text that sorts by time."""
    return (time.isoformat() for time in reports["occurred_at"])


def run_command(kafka: KafkaResource, folder: Path, month: str, **options: Any) -> None:
    """What `bigdata-assets produce crimes` does: Ctrl-C ends it after the portion that is under way."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    try:
        sent = produce(kafka, folder, month_range(month), stop=stop, **options)
    except (ProduceError, exports.ExportError, KafkaUnreachableError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{sent} reports sent to {options['topic']}{'; go on with --resume' if stop.is_set() else ''}")
