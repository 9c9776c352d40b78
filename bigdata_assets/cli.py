"""The `bigdata-assets` command."""

import importlib.util
import os
import pkgutil
import sys
from typing import TYPE_CHECKING

import click
from dotenv import dotenv_values, load_dotenv

import bigdata_assets
from bigdata_assets import settings as settings_module
from bigdata_assets import storage
from bigdata_assets.commands import group
from bigdata_assets.runs import fork_server
from bigdata_assets.services import cli as services_cli
from bigdata_assets.services.jars import JarsError
from bigdata_assets.services.supervisor import MARK, ServiceError
from bigdata_assets.settings import SettingsError
from bigdata_assets.sources import SourceUnavailableError
from bigdata_assets.storage import StorageError

if TYPE_CHECKING:
    import dagster as dg

    from bigdata_assets.streams.planner import Planner


@group.command()
@click.option("--select", default="*", show_default=True, help="Asset selection, such as `group:malicious_urls`.")
@click.option("--partition", "partitions", multiple=True, help="Partition key, or FIRST..LAST; may be repeated.")
@click.option(
    "--missing",
    is_flag=True,
    help="Only what was never made, what depends on it, and marts and reports that are older than their inputs.",
)
def materialize(select: str, partitions: tuple[str, ...], missing: bool) -> None:
    """Materialise assets without the UI; partitioned ones for all their partitions where none is named.

    The exit code is 1 where a run failed or, without --missing, nothing had a partition to be made of, 2 where the
    selection or a partition does not exist.
    """
    settings = settings_module.load()
    if settings.sample_refusal:
        raise SettingsError(settings.sample_refusal)
    storage.check(settings.storage)
    os.environ.update(settings.environment())
    log = settings.services_dir / "logs" / "materialize.log"
    fork_server.start(log, settings)
    from bigdata_assets.runs import materializing
    from bigdata_assets.services import stack

    stack.prepare_dagster_home(settings, end_runs=False)
    try:
        ok = materializing.materialize(log, select, list(partitions), missing)
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
    from deltalake import QueryBuilder
    from deltalake.exceptions import DeltaError, TableNotFoundError

    from bigdata_assets.io_managers.delta import DeltaTableError, first_rows, open_table

    location = f"{settings_module.load().storage}/{name}"
    try:
        stored = open_table(location, version)
        if sql is None:
            rows = first_rows(stored, limit)
        else:
            query = QueryBuilder().register(name.rpartition("/")[2], stored).execute(sql)
            rows = pa.table(query).slice(0, limit)
    except TableNotFoundError:
        what = f"did you mean {meant}?" if (meant := _meant(name)) else f"materialise {name} first"
        raise click.ClickException(f"there is no table at {location}; {what}") from None
    except (DeltaError, DeltaTableError, ValueError, OSError) as error:
        raise click.ClickException(f"{name}: {error}") from None
    click.echo(rows.to_pandas().to_string(index=False, max_colwidth=80))
    click.echo(f"{rows.num_rows} rows shown, version {stored.version()}", err=True)


def _meant(name: str) -> str | None:
    """The declared table whose path is like a name that is none's; without its branch the name is enough."""
    import difflib

    from bigdata_assets.definitions import BRANCHES

    paths = [table.path for branch in BRANCHES for table in branch.tables]
    if name in paths:
        return None
    close = [path for path in paths if path.endswith(f"/{name}")] or difflib.get_close_matches(name, paths, 1)
    return close[0] if close else None


@group.command()
@click.argument("stream", required=False)
@click.option("--give-up", metavar="KEY", help="Take a batch out that can never be read, so that training goes on.")
@click.option(
    "--retire",
    metavar="KEEP",
    type=click.IntRange(1_000),
    help="Take away the partitions of done batches but the last KEEP; rows stay. For streams of 100,000 batches.",
)
def batches(stream: str | None, give_up: str | None, retire: int | None) -> None:
    """List the Kafka batches of a stream, or of all, with their offsets and states."""
    import dagster as dg

    from bigdata_assets.definitions import BRANCHES
    from bigdata_assets.resources.kafka import KafkaResource, KafkaUnreachableError
    from bigdata_assets.services import stack
    from bigdata_assets.streams.batches import BatchError
    from bigdata_assets.streams.planner import Planner

    settings = settings_module.load()
    stack.prepare_dagster_home(settings, end_runs=False)
    streams = {one.name: one for branch in BRANCHES for one in branch.streams}
    if stream not in (None, *streams):
        raise click.UsageError(f"there is no stream {stream!r} but {', '.join(streams)}")
    planners = [
        Planner(streams[name], settings, KafkaResource.of(settings)) for name in streams if stream in (None, name)
    ]
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        try:
            if give_up:
                planner = next((one for one in planners if give_up in one.keys(instance)), planners[0])
                planner.give_up(instance, give_up)
                click.echo(f"gave up {give_up}: its messages are in no table, and training goes on without them")
            for planner in [] if give_up else planners:
                if retire:
                    click.echo(f"{planner.stream.name}: {len(planner.retire(instance, retire))} partitions taken away")
                else:
                    _list_batches(planner, instance)
        except BatchError as error:
            raise click.UsageError(str(error)) from error
        except KafkaUnreachableError as error:
            raise click.ClickException(str(error)) from error


def _list_batches(planner: "Planner", instance: "dg.DagsterInstance") -> None:
    from bigdata_assets.streams.batches import parse

    learnt = instance.get_materialized_partitions(planner.stream.learnt) if planner.stream.learnt else set()
    click.echo(f"{'batch':<50}{'messages':>9}  {'learnt':<8}state")
    for key, state in planner.states(instance).items():
        click.echo(f"{key:<50}{len(parse(key)):>9}  {'yes' if key in learnt else 'no':<8}{state}")
    held = planner.kafka.offsets(planner.topic)
    for partition, behind in planner.lag(instance).items():
        click.echo(
            f"partition {partition} holds {held[partition].begin} to {held[partition].end}; "
            f"{behind} are in no batch yet"
        )


for command in (services_cli.services, services_cli.run, services_cli.jars):
    group.add_command(command)
for package in pkgutil.iter_modules(bigdata_assets.__path__, "bigdata_assets."):
    if package.ispkg and importlib.util.find_spec(f"{package.name}.commands"):
        importlib.import_module(f"{package.name}.commands")


def main() -> None:
    """Run the command; what can be said in one line is, without a traceback."""
    file = settings_module.PROJECT_ROOT / ".env"
    for line in settings_module.misspelt(os.environ, dotenv_values(file)) if MARK not in os.environ else ():
        click.echo(line, err=True)
    load_dotenv(file)
    settings_module.forget_empty_amazon()
    # Steps, Spark and its workers share the cores: a thread of OpenMP's that waits for others must not spin meanwhile.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        group(prog_name="bigdata-assets")
    except (SettingsError, ServiceError, JarsError, SourceUnavailableError, StorageError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
