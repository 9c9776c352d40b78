"""Traces of each branch's predictions, held against what the sources have by their own bare clients."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import h5py
import numpy as np
import pytest

from bigdata_assets.definitions import BRANCHES
from bigdata_assets.settings import Settings
from bigdata_assets.tables import Table
from bigdata_assets.tracing.commands import known_tables
from bigdata_assets.tracing.lineage import Raw
from bigdata_assets.tracing.tracing import traced
from bigdata_assets.tracing.walking import Found
from bigdata_assets.tracing.where import condition

TABLES = known_tables(BRANCHES)


@dataclass(frozen=True)
class Traced:
    """A prediction and the rows that it was made of, by table."""

    settings: Settings
    table: Table
    steps: Mapping[str, list[Found]]

    @classmethod
    def of(cls, settings: Settings, name: str) -> "Traced":
        """The prediction whose command the newest materialisation of its table tells."""
        branch, table = TABLES[name]
        with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
            event = instance.get_latest_materialization_event(table.key)
        assert event is not None
        assert event.asset_materialization is not None
        command = shlex.split(str(event.asset_materialization.metadata["trace"].value))
        assert command[:4] == ["bigdata-assets", "trace", name, "--where"]
        found = traced(settings, branch, table, command[4], 5)
        (one,) = found.traces
        assert not found.more, "the command is of one row"
        partition = one.row.row[table.partition_column] if table.partition_column else None
        assert event.asset_materialization.partition == partition, "of the partition that tells it"
        assert one.row.made is not None
        assert one.row.made.run_id == event.run_id
        gone = [note for step in one.steps for note in step.notes if note.startswith(("no longer", "there is no row"))]
        assert gone == []
        return cls(settings, table, {step.table.name: step.rows for step in one.steps})

    @property
    def prediction(self) -> Found:
        return self.steps[self.table.name][0]

    def raws(self, name: str) -> list[Raw]:
        """Raw records of a table's rows, none of which is gone or otherwise than stored."""
        raws = [found.raw for found in self.steps[name] if found.raw]
        assert raws
        assert [raw.notes for raw in raws if raw.notes] == []
        return raws

    def is_found_forward_of(self, name: str, *keys: str) -> None:
        """The prediction is among what was made of the first row of a table."""
        branch, table = TABLES[f"{self.table.branch}/{name}"]
        where = condition(self.steps[name][0].row, keys)
        found = traced(self.settings, branch, table, where, 5, is_forward=True)
        affected = {one.table.name: one for one in found.affected}
        column = self.table.partition_column
        assert affected[self.table.name].partitions[self.prediction.row[column] if column else None] >= 1
        assert any(f'"{self.table.path}"' in command for command in found.commands)


def predictions_are_traced_to_their_bytes(settings: Settings) -> None:
    """Of each branch, back and forth, where the sample is materialised and the engines are up."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.environment().items():  # a login comes from there at the moment of use
            patch.setenv(name, value)
        a_url(settings)
        a_report(settings)
        a_glitch_and_an_event(settings)
        a_chip(settings)
        a_time(settings)


def a_url(settings: Settings) -> None:
    found = Traced.of(settings, "malicious_urls/predictions")
    (raw,) = found.raws("url_batches")
    data = Path(raw.place["file"]).read_bytes()
    assert raw.data
    assert data[raw.place["position"] :].startswith(raw.data)
    assert data.splitlines(keepends=True)[raw.place["line"] - 1] == raw.data
    assert str(found.prediction.row["url"]).encode() in raw.data
    (model,) = found.prediction.models
    assert model.card is not None
    assert model.card["version"] == found.prediction.row["model_version"]
    assert "malicious_urls/labelled_urls" in model.card["inputs"]
    found.is_found_forward_of("url_batches", "batch", "position")


def kafka_value(settings: Settings, raw: Raw) -> bytes:
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=settings.kafka_servers, auto_offset_reset="earliest")
    source = TopicPartition(raw.place["topic"], raw.place["partition"])
    try:
        consumer.assign([source])
        consumer.seek(source, raw.place["offset"])
        while not (records := consumer.poll(1_000, max_records=1).get(source)):
            pass
        return bytes(records[0].value)
    finally:
        consumer.close()


def a_report(settings: Settings) -> None:
    found = Traced.of(settings, "crimes/arrest_scores")
    (raw,) = found.raws("crime_messages")
    assert raw.place["from"] == "the broker"
    assert raw.data == kafka_value(settings, raw)
    assert str(found.steps["crime_reports"][0].row["report_id"]).encode() in raw.data
    (model,) = found.prediction.models
    assert model.card is not None
    assert model.card["snapshot"] == found.prediction.row["snapshot"]
    found.is_found_forward_of("crime_messages", "batch", "kafka_partition", "kafka_offset")


def a_glitch_and_an_event(settings: Settings) -> None:
    found = Traced.of(settings, "gravitational_waves/chirp_predictions")
    raws = found.raws("spectrograms")
    assert 1 <= len(raws) <= 4
    for raw in raws:
        with h5py.File(raw.place["file"]) as file:
            assert file[raw.place["dataset"]][()].tobytes() == raw.data
    found.is_found_forward_of("spectrograms", "id")
    found = Traced.of(settings, "gravitational_waves/event_predictions")
    assert len(found.steps["qscans"]) == 4
    raw = found.raws("qscans")[0]
    with h5py.File(raw.place["file"]) as file:
        first = round((raw.place["gps_begin_s"] - file["meta/GPSstart"][()]) * 4_096)
        np.testing.assert_array_equal(
            np.frombuffer(raw.data or b"", np.float64), file["strain/Strain"][first : first + 8 * 4_096]
        )
    found.is_found_forward_of("strain", "event_detector", "gps_s")


def a_chip(settings: Settings) -> None:
    found = Traced.of(settings, "big_cats/chip_predictions")
    (raw,) = found.raws("images")
    (image,) = found.steps["images"]
    assert raw.data == Path(raw.place["file"]).read_bytes() == image.row["image"]
    (chip,) = found.steps["cat_chips"]
    assert chip.picture is not None
    assert chip.row["image_id"] == raw.place["image_id"]
    found.is_found_forward_of("images", "subset", "image_id")


def a_time(settings: Settings) -> None:
    found = Traced.of(settings, "flow_sensors/anomaly_scores")
    for raw in found.raws("channel_samples"):
        assert dict(raw.values) == cassandra_values(settings, raw)
    for raw in found.raws("channel_messages"):
        assert raw.data == kafka_value(settings, raw)
    samples = {found.row["kafka_offset"]: found.row for found in found.steps["channel_samples"]}
    assert {row["site"] for row in samples.values()} == {found.prediction.row["site"]}
    assert {raw.place["offset"] for raw in found.raws("channel_messages")} == set(samples)
    (model,) = found.prediction.models
    assert model.card is not None
    assert model.card["version"] == found.prediction.row["model_version"]
    found.is_found_forward_of("channel_messages", "batch", "kafka_partition", "kafka_offset")


def cassandra_values(settings: Settings, raw: Raw) -> dict[str, Any]:
    from cassandra.auth import PlainTextAuthProvider
    from cassandra.cluster import Cluster

    login = settings.cassandra_login()
    cluster = Cluster(
        settings.cassandra_hosts,
        settings.cassandra_port,
        auth_provider=PlainTextAuthProvider(*login) if login else None,
        protocol_version=4,
    )
    try:
        at = datetime.fromisoformat(raw.place["ts"])
        keys = "site = %s AND channel = %s AND month = %s AND ts = %s"
        query = f"SELECT value, quality, edited FROM {raw.place['table']} WHERE {keys}"
        row = cluster.connect().execute(query, (raw.place["site"], raw.place["channel"], f"{at:%Y-%m}", at)).one()
        return dict(row._asdict())
    finally:
        cluster.shutdown()
