"""The branch's commands."""

import signal
import threading
from pathlib import Path

import click

from bigdata_assets import settings as settings_module
from bigdata_assets.commands import group, produce, seconds
from bigdata_assets.flow_sensors.source import SOURCE
from bigdata_assets.settings import SettingsError
from bigdata_assets.sources import Sources, SourceUnavailableError


@group.group("load")
def load_group() -> None:
    """Load files of the sources into an engine."""


@load_group.command("sensors")
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def load_sensors(files: tuple[Path, ...]) -> None:
    """Load channel FILES into Cassandra; default: all of the sources. To load one again changes nothing."""
    from bigdata_assets import runtime
    from bigdata_assets.flow_sensors import loading
    from bigdata_assets.flow_sensors.logic import channel_files
    from bigdata_assets.resources.cassandra import CassandraResource
    from bigdata_assets.resources.keyspaces import CassandraError

    settings = settings_module.load()
    try:
        folder = _folder(runtime.sources(settings), needed=not files)
        with CassandraResource.of(settings).keyspace_session() as keyspace:
            is_own = keyspace.cluster_name() == settings.own_cassandra_cluster
            if not (files or is_own or "sources" in settings.model_fields_set):
                raise SettingsError(
                    f"Cassandra at {settings.cassandra_points} is not the node that this project started, and "
                    "BIGDATA_SOURCES is not set: it would get invented samples. Set BIGDATA_SOURCES to a folder with "
                    "your files, or to `sample` if you do want the sample's there."
                )
            keyspace.create(settings.cassandra_replication)
            paths = [file.resolve() for file in files] or channel_files.files(folder or Path())
            told = loading.load(keyspace, folder, paths)
    except (CassandraError, channel_files.ChannelFileError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"{told['samples']:,} samples loaded; {told['repeats']:,} repeated others; {told['refused']:,} could not be "
        "taken: see flow_sensors/quarantined_channel_rows"
    )


def _folder(sources: Sources, *, needed: bool) -> Path | None:
    """The folder of the branch's files; where files are named, it may be that there is none."""
    try:
        return sources.folder(SOURCE, download=needed) if needed or not sources.is_sample else None
    except SourceUnavailableError:
        if needed:
            raise
        return None


@produce.command("sensors")
@click.option("--month", "months", multiple=True, help="Month of the export, such as 2016-01; default: all.")
@click.option("--rows", default=500, show_default=True, type=click.IntRange(1), help="Samples that are sent at once.")
@click.option("--every", default="10s", show_default=True, help="Time between them, such as 10s or 2m; 0: no wait.")
@click.option("--topic", help="Topic; default: KAFKA_CHANNEL_SAMPLES_TOPIC.")
@click.option("--partitions", default=1, show_default=True, type=click.IntRange(1, 999), help="Of a new topic.")
@click.option("--limit", type=click.IntRange(1), help="Only so many samples.")
def produce_sensors(
    months: tuple[str, ...], rows: int, every: str, topic: str | None, partitions: int, limit: int | None
) -> None:
    """Send exported samples by their time, as if they were just coming in; what came before is not counted twice."""
    from bigdata_assets.flow_sensors import publishing
    from bigdata_assets.flow_sensors.tables import CHANNEL_EXPORT
    from bigdata_assets.io_managers.delta.reading import DeltaReader, DeltaTableError
    from bigdata_assets.resources.kafka import KafkaResource, KafkaUnreachableError
    from bigdata_assets.resources.spark import SparkResource

    settings = settings_module.load()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    delta = DeltaReader(settings.storage, SparkResource(remote=settings.spark_remote))
    try:
        exported = sorted(delta.rows_by_partition(CHANNEL_EXPORT)) if delta.exists(CHANNEL_EXPORT) else []
        if unknown := sorted(set(months) - set(exported)):
            raise click.UsageError(f"{unknown[0]} is not in flow_sensors/channel_export, which has {exported}")
        if not exported:
            raise click.ClickException("nothing is exported yet: materialise flow_sensors/channel_export first")
        sent = publishing.replay(
            KafkaResource.of(settings),
            delta,
            sorted(months) or exported,
            settings.topic("channel_samples") if topic is None else settings_module.legal_topic(topic),
            rows=rows,
            every_s=seconds(every),
            partitions=partitions,
            stop=stop,
            limit=limit,
        )
    except (publishing.PublishError, KafkaUnreachableError, DeltaTableError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{sent} samples sent")
