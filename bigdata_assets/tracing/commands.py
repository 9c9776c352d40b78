"""The command `trace`."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bigdata_assets import settings as settings_module
from bigdata_assets.commands import group

if TYPE_CHECKING:
    from bigdata_assets.branch import Branch
    from bigdata_assets.tables import Table


@group.command()
@click.argument("name", metavar="BRANCH/TABLE")
@click.option("--where", required=True, help="Which rows, such as \"batch = 'a.csv' AND position = 17\".")
@click.option("--limit", default=5, show_default=True, type=click.IntRange(1, 1_000), help="Rows that are traced.")
@click.option("--forward", "is_forward", is_flag=True, help="What was made of these rows, and how to make it again.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option(
    "--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Into a page, with pictures, as well."
)
def trace(name: str, where: str, limit: int, is_forward: bool, as_json: bool, page: Path | None) -> None:
    """Show where rows come from: models, runs, the rows they were made of, and the raw bytes.

    The exit code is 1 where no row is found or a table cannot be read, 2 where the filter cannot be read.
    """
    from bigdata_assets.definitions import BRANCHES
    from bigdata_assets.io_managers.delta import DeltaTableError
    from bigdata_assets.models.assets import ledger_branch
    from bigdata_assets.tracing.forward import TooManyRowsError
    from bigdata_assets.tracing.tracing import Traced, traced
    from bigdata_assets.tracing.where import WhereError

    settings = settings_module.load()
    tables = known_tables([*BRANCHES, ledger_branch(BRANCHES)])
    if name not in tables:
        raise click.UsageError(f"there is no table {name!r} but {', '.join(sorted(tables))}")
    branch, table = tables[name]
    try:
        found: Traced = traced(settings, branch, table, where, limit, is_forward=is_forward)
    except WhereError as error:
        raise click.UsageError(f"--where: {error}") from error
    except (DeltaTableError, TooManyRowsError) as error:
        raise click.ClickException(str(error)) from error
    if found.is_empty:
        click.echo(f"no row of {name} has {where}", err=True)
        sys.exit(1)
    if page:
        page.write_text(found.html(f"{name} where {where}"), encoding="utf-8")
        click.echo(f"written: {page}", err=True)
    show: Callable[[], None] = found.echo_json if as_json else found.echo
    show()


def known_tables(branches: "Sequence[Branch]") -> "Mapping[str, tuple[Branch, Table]]":
    """Declared tables and their branches, by `branch/name`."""
    return {table.path: (branch, table) for branch in branches for table in branch.tables}
