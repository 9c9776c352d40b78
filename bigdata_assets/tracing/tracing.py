"""A trace from beginning to end: storage and Dagster's own are opened, rows found, followed, and shown."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import click
import dagster as dg

from bigdata_assets.branch import Branch
from bigdata_assets.io_managers.delta.reading import DeltaReader
from bigdata_assets.resources.spark import SparkResource
from bigdata_assets.settings import Settings
from bigdata_assets.tables import Table
from bigdata_assets.tracing import forward as forwards
from bigdata_assets.tracing import rendering
from bigdata_assets.tracing.forward import Affected
from bigdata_assets.tracing.history import History
from bigdata_assets.tracing.places import Places
from bigdata_assets.tracing.rows import Tables
from bigdata_assets.tracing.walking import Trace
from bigdata_assets.tracing.walking import trace as walk_back
from bigdata_assets.tracing.where import parse

NO_LINKS = "the branch {branch} declares no lineage: only the runs of these rows are told"


@dataclass
class Traced:
    """What was found, in either direction."""

    traces: Sequence[Trace] = ()
    more: bool = False
    affected: Sequence[Affected] = ()
    commands: Sequence[str] = ()
    whole: Sequence[str] = ()
    note: str = field(default="")

    @property
    def is_empty(self) -> bool:
        return not self.traces and not any(one.rows for one in self.affected)

    def echo(self) -> None:
        """As text."""
        for line in self._lines():
            click.echo(line)
        if self.more:
            click.echo(f"\nthere are more rows than these {len(self.traces)}: see --limit", err=True)
        if self.note:
            click.echo(self.note, err=True)

    def _lines(self) -> Iterator[str]:
        if self.affected:
            yield from rendering.affected_text(self.affected, self.commands, self.whole)
        yield from rendering.text(self.traces)

    def echo_json(self) -> None:
        """As JSON."""
        if self.affected:
            click.echo(rendering.affected_json(self.affected, self.commands, self.whole))
        else:
            click.echo(rendering.to_json(self.traces, self.more))

    def html(self, title: str) -> str:
        """As a page."""
        if self.affected:
            return rendering.affected_html(title, self.affected, self.commands, self.whole)
        return rendering.to_html(title, self.traces, self.more)


def traced(
    settings: Settings, branch: Branch, table: Table, where: str, limit: int, *, is_forward: bool = False
) -> Traced:
    """The rows of a table that a filter finds, at most `limit`, with all that they were made of; or, forward, with all
    that was made of them.

    Raises:
        WhereError: the filter cannot be read.
        DeltaTableError: the table is not there.
        TooManyRowsError: so many rows were made of these that they cannot be followed.
    """
    tables = Tables(DeltaReader(settings.storage, SparkResource(remote=settings.spark_remote)))
    wanted = parse(where, tables.schema(table))
    note = "" if branch.lineage.links or branch.lineage.sources else NO_LINKS.format(branch=branch.name)
    with contextlib.ExitStack() as opened:
        home = settings.dagster_home
        known = dg.DagsterInstance.from_config(str(home)) if home.is_dir() else dg.DagsterInstance.ephemeral()
        instance = opened.enter_context(known)
        history = History(instance)
        if is_forward:
            affected = forwards.forward(table, wanted, branch.lineage, tables, history, rendering.MOST_PARTITIONS)
            graph = forwards.Graph.of(branch)
            return Traced(
                affected=affected,
                commands=forwards.commands(affected, graph, instance),
                whole=forwards.made_of_whole(affected, branch.lineage, graph),
                note=note,
            )
        places = opened.enter_context(Places(settings, tables, history))
        rows, more = tables.find(table, wanted, limit)
        return Traced([walk_back(table, row, branch.lineage, places) for row in rows], more, note=note)
