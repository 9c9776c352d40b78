"""Sends exported samples to Kafka as if they were just coming in: by their time, channels side by side."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from tqdm import tqdm

from bigdata_assets.flow_sensors.logic import messages
from bigdata_assets.flow_sensors.tables import CHANNEL_EXPORT, CHANNEL_PUBLICATIONS, SAMPLE
from bigdata_assets.io_managers.delta.commits import DeltaWriter
from bigdata_assets.io_managers.delta.reading import DeltaReader
from bigdata_assets.resources.kafka import KafkaResource
from bigdata_assets.settings import Settings

UNFINISHED = -1
"""Version of an export that was being sent: what of it the topic has is not known."""
COLUMNS = [column.name for column in SAMPLE]


class PublishError(RuntimeError):
    """Samples cannot be sent; the message says why."""


def by_day(delta: DeltaReader, month: str, version: int | None = None, before: int | None = None) -> Iterator[pa.Table]:
    """A month's samples, a day's at a time, by time.

    What is in memory is a day of all channels.

    Args:
        delta: the tables.
        month: the month.
        version: of the export; default: of each day as it is when it is its turn.
        before: an earlier version: only samples that are other in it.
    """
    times = delta.read_arrow(CHANNEL_EXPORT, [month], ["observed_at"], version=version)["observed_at"]
    for day in messages.days(times):
        samples = _of_day(delta, month, version, day)
        if before is not None:
            samples = messages.changed(samples, _of_day(delta, month, before, day))
        if samples.num_rows:
            yield samples.sort_by([("observed_at", "ascending"), ("site", "ascending"), ("channel", "ascending")])


def _of_day(delta: DeltaReader, month: str, version: int | None, day: datetime) -> pa.Table:
    at = ds.field("observed_at")
    return delta.read_arrow(CHANNEL_EXPORT, [month], COLUMNS, (at >= day) & (at < day + timedelta(days=1)), version)


def send(producer: Any, topic: str, samples: pa.Table) -> None:
    """Send samples, and wait until all replicas have them; each message is written once and in its partition's order.

    Raises:
        PublishError: a message was not taken.
    """
    from kafka.errors import KafkaError

    try:
        futures = [producer.send(topic, value, key) for key, value in messages.encode(samples)]
        producer.flush()
        for future in futures:
            future.get(timeout=30)
    except KafkaError as error:
        raise PublishError(
            f"{topic} did not take a message: {error}. Send the month again: what came already is known by its site, "
            "channel and time, and is not counted twice."
        ) from error


def replay(
    kafka: KafkaResource,
    delta: DeltaReader,
    months: list[str],
    topic: str,
    *,
    rows: int,
    every_s: float,
    partitions: int,
    stop: threading.Event,
    limit: int | None = None,
) -> int:
    """Send months of the export by time, `rows` samples at once; how many were acknowledged by all replicas.

    Raises:
        PublishError: a message was not taken.
        KafkaUnreachableError: no broker answers.
    """
    kafka.create_topic(topic, partitions)
    sent = 0
    with kafka.producer(linger_ms=20) as producer, tqdm(unit="sample", unit_scale=True, disable=None) as bar:
        for month in months:
            for samples in by_day(delta, month):
                for first in range(0, samples.num_rows, rows):
                    if stop.is_set() or (sent and stop.wait(every_s)):
                        return sent
                    portion = samples.slice(first, rows if limit is None else min(rows, limit - sent))
                    send(producer, topic, portion)
                    sent += portion.num_rows
                    bar.update(portion.num_rows)
                    if sent == limit:
                        return sent
    return sent


def is_wanted(asked: bool | None, settings: Settings, kafka: KafkaResource) -> bool:
    """Whether to send: as asked, else to our own broker alone."""
    return kafka.cluster_id() == settings.own_kafka_cluster if asked is None else asked


def publish(delta: DeltaWriter, kafka: KafkaResource, topic: str, months: list[str], run_id: str) -> pa.Table:
    """Send what is new or other in months since they were sent to the topic last; rows of tables.CHANNEL_PUBLICATIONS.

    That months are being sent is stored first: whoever is killed before the end sends them whole the next time, since
    what the topic has is not known, and what it has already changes nothing in channel_samples.

    Raises:
        PublishError: a month is not exported, or a message was not taken.
    """
    version = delta.version(CHANNEL_EXPORT)
    counts: Counter[tuple[str, str, str]] = Counter()
    topic_id = kafka.topic_id(topic)
    sent_before = _versions_sent(delta, topic, topic_id, months)
    with kafka.producer(linger_ms=20) as producer, tqdm(unit="sample", unit_scale=True, disable=None) as bar:
        for month in months:
            before = sent_before.get(month)
            if not (channels := _channels(delta, month, version)):
                raise PublishError(f"{month} is not exported: materialise that partition of channel_export first.")
            counts.update({(month, *channel): 0 for channel in channels})
            begun = _rows(dict.fromkeys(((month, *channel) for channel in channels), 0), topic, topic_id, UNFINISHED)
            delta.write(CHANNEL_PUBLICATIONS, begun, [month], run_id)
            for samples in by_day(delta, month, version, before):
                send(producer, topic, samples)
                bar.update(samples.num_rows)
                for row in samples.group_by(list(messages.KEY)).aggregate([([], "count_all")]).to_pylist():
                    counts[month, row["site"], row["channel"]] += row["count_all"]
    return _rows(counts, topic, topic_id, version)


def _rows(counts: Mapping[tuple[str, str, str], int], topic: str, topic_id: str, version: int) -> pa.Table:
    rows = [
        {"month": m, "site": s, "channel": c, "topic": topic, "topic_id": topic_id, "samples": n}
        | {"export_version": version}
        for (m, s, c), n in counts.items()
    ]
    return pa.Table.from_pylist(rows, CHANNEL_PUBLICATIONS.arrow_schema)


def _versions_sent(delta: DeltaReader, topic: str, topic_id: str, months: list[str]) -> dict[str, int]:
    """The version of the export that the topic has of each month, where it is still there to compare with."""
    rows = delta.read_arrow(CHANNEL_PUBLICATIONS, months, ["month", "topic", "topic_id", "export_version"]).to_pylist()
    found = {
        row["month"]: row["export_version"] for row in rows if (row["topic"], row["topic_id"]) == (topic, topic_id)
    }
    found = {month: version for month, version in found.items() if version != UNFINISHED}
    return {month: version for month, version in found.items() if _is_kept(delta, month, version)}


def _is_kept(delta: DeltaReader, month: str, version: int) -> bool:
    try:
        delta.read_arrow(CHANNEL_EXPORT, [month], ["site"], version=version)
    except Exception:  # noqa: BLE001 -- a version, or a file of it, that upkeep has removed
        return False
    return True


def _channels(delta: DeltaReader, month: str, version: int) -> list[tuple[str, str]]:
    rows = delta.read_arrow(CHANNEL_EXPORT, [month], list(messages.KEY), version=version)
    return [(row["site"], row["channel"]) for row in rows.group_by(list(messages.KEY)).aggregate([]).to_pylist()]
