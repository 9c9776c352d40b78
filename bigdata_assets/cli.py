"""The `bigdata-assets` command."""

import os
import sys

import click
from dotenv import load_dotenv

from bigdata_assets import fork_server
from bigdata_assets import settings as settings_module
from bigdata_assets.services import cli as services_cli
from bigdata_assets.services import stack
from bigdata_assets.services.jars import JarsError
from bigdata_assets.services.supervisor import ServiceError
from bigdata_assets.settings import SettingsError


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
    os.environ.update(settings.environment())
    log = settings.services_dir / "logs" / "materialize.log"
    fork_server.start(log)
    from bigdata_assets import materializing

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


group.add_command(services_cli.services)
group.add_command(services_cli.run)
group.add_command(services_cli.jars)


def main() -> None:
    """Run the command; what can be said in one line is, without a traceback."""
    load_dotenv(settings_module.PROJECT_ROOT / ".env")
    try:
        group(prog_name="bigdata-assets")
    except (SettingsError, ServiceError, JarsError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
