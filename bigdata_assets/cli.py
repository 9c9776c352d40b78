"""The `bigdata-assets` command."""

import os
import re
import sys

import click
from dotenv import load_dotenv

from bigdata_assets import fork_server
from bigdata_assets import settings as settings_module
from bigdata_assets.services import cli as services_cli
from bigdata_assets.services.jars import JarsError
from bigdata_assets.services.supervisor import ServiceError
from bigdata_assets.settings import SettingsError
from bigdata_assets.sources import SourceUnavailableError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def group() -> None:
    """Five big-data pipelines as one Dagster asset graph."""


@group.command()
@click.option("--select", default="*", show_default=True, help="Asset selection, such as `group:malicious_urls`.")
@click.option("--partition", "partitions", multiple=True, help="Partition key, or FIRST..LAST; may be repeated.")
@click.option("--missing", is_flag=True, help="Only what was never materialised, and what depends on it.")
def materialize(select: str, partitions: tuple[str, ...], missing: bool) -> None:
    """Materialise assets without the UI; partitioned ones for all their partitions where none is named.

    The exit code is 1 where a run failed, 2 where the selection or a partition does not exist.
    """
    settings = settings_module.load()
    if settings.sample_refusal:
        raise SettingsError(settings.sample_refusal)
    os.environ.update(settings.environment())
    log = settings.services_dir / "logs" / "materialize.log"
    fork_server.start(log)
    from bigdata_assets import materializing
    from bigdata_assets.services import stack

    stack.prepare_dagster_home(settings, end_runs=False)
    try:
        ok = materializing.materialize(settings, log, select, list(partitions), missing)
    except materializing.SelectionError as error:
        raise click.UsageError(str(error)) from error
    sys.exit(0 if ok else 1)


@group.command()
@click.argument("name", metavar="BRANCH/TABLE")
@click.option("--limit", default=20, show_default=True, help="Rows shown.")
@click.option("--sql", help="A query over the table, under its name after the slash.")
@click.option("--version", type=int, help="The Delta version to read; default: the newest.")
def table(name: str, limit: int, sql: str | None, version: int | None) -> None:
    """Look into a table, without Spark."""
    import pyarrow as pa
    from deltalake import DeltaTable, QueryBuilder
    from deltalake.exceptions import DeltaError, TableNotFoundError

    from bigdata_assets.io_managers.delta import first_rows, rust_uri

    location = f"{settings_module.load().storage}/{name}"
    try:
        stored = DeltaTable(rust_uri(location), version=version)
        if sql is None:
            rows = first_rows(stored, limit)
        else:
            query = QueryBuilder().register(name.rpartition("/")[2], stored).execute(sql)
            rows = pa.table(query).slice(0, limit)
    except TableNotFoundError:
        raise click.ClickException(f"there is no table at {location}; materialise {name} first") from None
    except (DeltaError, ValueError, OSError) as error:
        raise click.ClickException(f"{name}: {error}") from None
    click.echo(rows.to_pandas().to_string(index=False, max_colwidth=80))
    click.echo(f"{rows.num_rows} rows shown, version {stored.version()}", err=True)


@group.group()
def produce() -> None:
    """Send records of the sources to Kafka as if they were just coming in."""


@produce.command("crimes")
@click.option("--month", required=True, help="Month of the export, such as 2016-01, or FIRST..LAST.")
@click.option("--rows", default=120, show_default=True, type=click.IntRange(1), help="Reports that are sent at once.")
@click.option("--every", default="120s", show_default=True, help="Time between them, such as 120s or 2m; 0: no wait.")
@click.option("--topic", help="Topic; default: KAFKA_CRIMES_TOPIC.")
@click.option("--partitions", default=1, show_default=True, type=click.IntRange(1, 999), help="Of a new topic.")
@click.option("--resume", is_flag=True, help="Go on behind the last report that the topic has.")
@click.option("--limit", type=click.IntRange(1), help="Only so many reports of each month.")
def produce_crimes(
    month: str, rows: int, every: str, topic: str | None, partitions: int, resume: bool, limit: int | None
) -> None:
    """Send a month of reported crimes by their time."""
    from bigdata_assets.crimes import producer
    from bigdata_assets.runtime import sources

    settings = settings_module.load()
    if "sources" not in settings.model_fields_set and not producer.is_own_broker(settings):
        raise SettingsError(
            f"Kafka at {settings.kafka_servers} is not the broker that this project started, and BIGDATA_SOURCES is "
            "not set: it would get invented reports. Set BIGDATA_SOURCES to a folder with your files, or to `sample` "
            "if you do want the sample's there."
        )
    producer.run_command(
        settings,
        sources(settings).folder("crimes"),
        month,
        topic=settings.crimes_topic if topic is None else topic,
        rows=rows,
        every_s=_seconds(every),
        partitions=partitions,
        resume=resume,
        limit=limit,
    )


@group.command()
@click.option("--give-up", metavar="KEY", help="Take a batch out that can never be read, so that training goes on.")
def batches(give_up: str | None) -> None:
    """List the Kafka batches with their offsets and states."""
    import dagster as dg

    from bigdata_assets.crimes import partitions
    from bigdata_assets.kafka_batches import BatchError, lag, parse
    from bigdata_assets.resources.kafka import KafkaUnreachableError
    from bigdata_assets.services import stack

    settings = settings_module.load()
    stack.prepare_dagster_home(settings, end_runs=False)
    stream = partitions.stream(settings)
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        if give_up:
            try:
                stream.give_up(instance, give_up)
            except BatchError as error:
                raise click.UsageError(str(error)) from error
            click.echo(f"gave up {give_up}: its reports are in no table, and training goes on without them")
            return
        states = stream.states(instance)
        learnt = instance.get_materialized_partitions(partitions.ARREST_MODELS)
        click.echo(f"{'batch':<50}{'messages':>9}  {'learnt':<8}state")
        for key, state in states.items():
            click.echo(f"{key:<50}{len(parse(key)):>9}  {'yes' if key in learnt else 'no':<8}{state}")
        try:
            held = stream.kafka.offsets(stream.topic)
        except KafkaUnreachableError as error:
            raise click.ClickException(str(error)) from error
        for partition, behind in lag(stream.planned(instance), held).items():
            offsets = held[partition]
            click.echo(f"partition {partition} holds {offsets.begin} to {offsets.end}; {behind} are in no batch yet")


@group.command("add-event")
@click.argument("name")
@click.option("--gps", type=float, help="GPS time, for strain files that are in the sources' folder already.")
@click.option(
    "--masses", type=float, nargs=2, help="In the detector's frame, solar masses; default: the loudest found."
)
def add_event(name: str, gps: float | None, masses: tuple[float, float] | None) -> None:
    """Add a gravitational-wave event: with BIGDATA_SOURCES=official its strain is fetched from GWOSC."""
    import dagster as dg

    from bigdata_assets.gravitational_waves import partitions, sensors
    from bigdata_assets.gravitational_waves.logic import events
    from bigdata_assets.gravitational_waves.logic.strain import StrainFileError
    from bigdata_assets.services import stack

    settings = settings_module.load()
    folder = sensors.events_folder(settings)
    if folder is None or settings.sources == "sample":
        raise click.UsageError("BIGDATA_SOURCES must be `official`, or a folder with a sub-folder gravitational_waves.")
    try:
        if gps is not None:
            event = events.Event(name, gps, masses)
            if not events.detectors(folder, event):
                raise StrainFileError(f"{folder / events.FOLDER} has no file that covers GPS time {gps}")
            events.add(folder, event)
        elif settings.sources == "official":
            events.fetch(folder, name, masses)
        else:
            raise click.UsageError("--gps is needed for strain files of a folder of yours")
        keys = [key for key in events.keys(folder) if events.parse(key)[0] == name]
        if not keys:
            raise StrainFileError(f"{name} has files of none of {', '.join(events.DETECTORS)}")
    except StrainFileError as error:
        raise click.ClickException(str(error)) from error
    stack.prepare_dagster_home(settings, end_runs=False)
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        instance.add_dynamic_partitions(str(partitions.SKY_EVENTS.name), keys)
    click.echo(f"added {', '.join(keys)}; to look at one:")
    click.echo(f"bigdata-assets materialize --select 'key:\"gravitational_waves/strain\"+' --partition {keys[0]}")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", text)
    if match is None:
        raise click.UsageError(f"--every is a number and ms, s, m or h, such as 120s; {text!r} is not")
    return float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[match[2] or "s"]


group.add_command(services_cli.services)
group.add_command(services_cli.run)
group.add_command(services_cli.jars)


def main() -> None:
    """Run the command; what can be said in one line is, without a traceback."""
    load_dotenv(settings_module.PROJECT_ROOT / ".env")
    # Steps, Spark and its workers share the cores: a thread of OpenMP's that waits for others must not spin meanwhile.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        group(prog_name="bigdata-assets")
    except (SettingsError, ServiceError, JarsError, SourceUnavailableError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
