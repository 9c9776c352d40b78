"""What a branch declares of where its rows come from: links between tables, models, raw sources, pictures.

Pure: it knows columns, and neither storage nor engines. `walking` and `forward` follow it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from bigdata_assets.tables import Table

if TYPE_CHECKING:
    from bigdata_assets.tracing.places import Places

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Within:
    """Rows of `of` from `before` before a row's value on, and less than `after` after it: seconds, or the column's."""

    made: str
    of: str
    before: float
    after: float


@dataclass(frozen=True)
class Since:
    """Rows of `of` from a row's time on, until the next row's time among those with the same keys."""

    made: str
    of: str


@dataclass(frozen=True)
class Link:
    """Rows of the table `made` were made of those rows of `of` that have the same keys.

    Attributes:
        on: columns of `made` and the columns of `of` with the same values; a null is no value. A list means any of it.
        span: what else is to fit, where keys alone do not say it.
        only: values of columns of `made`: other rows of it were made of something else.
        derived: further columns of `of`, which follow from a row of `made`: they say which files need not be read.
        note: what else is to be known.
    """

    made: Table
    of: Table
    on: Mapping[str, str]
    span: Within | Since | None = None
    only: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    derived: Mapping[str, Callable[[Row], Any]] = field(default_factory=dict)
    note: str = ""

    def holds_for(self, row: Row) -> bool:
        """Whether the link says anything of a row of `made`."""
        return all(row.get(name) in values for name, values in self.only.items())

    @property
    def columns_of(self) -> set[str]:
        """The columns of `of` that it needs."""
        return {*self.on.values(), *([self.span.of] if self.span else [])}

    @property
    def columns_made(self) -> set[str]:
        """The columns of `made` that it needs."""
        return {*self.on, *self.only, *([self.span.made] if self.span else [])}


def same(*names: str) -> dict[str, str]:
    """Columns that are called alike in both tables."""
    return {name: name for name in names}


@dataclass(frozen=True)
class Model:
    """The model that gave a table's rows.

    Attributes:
        folder: of its card below the storage, with the row's columns in braces; None: no card is kept of it.
        asset: its asset, likewise; its partition is `partition`.
        note: what there is to say of a model without a card, likewise.
        only: values of columns, as a link's.
    """

    table: Table
    folder: str | None = None
    asset: str = ""
    partition: str = ""
    note: str = ""
    only: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """A raw record.

    Attributes:
        place: what says where it is, by name: file and line, topic, partition and offset.
        data: its bytes.
        values: what it holds, where it is no run of bytes.
        picture: it as a picture.
        notes: what is no longer there, or otherwise.
    """

    place: Mapping[str, Any]
    data: bytes | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    picture: bytes | None = None
    notes: tuple[str, ...] = ()


RawReader: TypeAlias = "Callable[[Row, Places], Raw]"


@dataclass(frozen=True)
class Lineage:
    """All of a branch.

    Attributes:
        sources: what reads the raw record of a table's row, by the table.
        pictures: a picture of a table's row as PNG or JPEG, by the table.
        covered: tables whose raw records are told already where rows of another table are.
    """

    links: Sequence[Link] = ()
    models: Sequence[Model] = ()
    sources: Mapping[str, RawReader] = field(default_factory=dict)
    pictures: Mapping[str, Callable[[Row], bytes]] = field(default_factory=dict)
    covered: Mapping[str, str] = field(default_factory=dict)

    def inputs_of(self, table: Table) -> list[Link]:
        """Links of what its rows are made of."""
        return [link for link in self.links if link.made.path == table.path]

    def made_of(self, table: Table) -> list[Link]:
        """Links of what is made of its rows."""
        return [link for link in self.links if link.of.path == table.path]

    def models_of(self, table: Table, row: Row) -> Iterator[Model]:
        """The models that gave a row."""
        for model in self.models:
            if model.table.path == table.path and all(row.get(name) in its for name, its in model.only.items()):
                yield model

    def upstream(self, table: Table) -> list[Table]:
        """The table and all that it is made of, each behind those that are made of it."""
        return _ordered(table, lambda one: [link.of for link in self.inputs_of(one)])

    def downstream(self, table: Table) -> list[Table]:
        """The table and all that is made of it, each behind those that it is made of."""
        return _ordered(table, lambda one: [link.made for link in self.made_of(one)])


def _ordered(first: Table, following: Callable[[Table], Iterable[Table]]) -> list[Table]:
    found: dict[str, Table] = {}

    def visit(table: Table) -> None:
        if table.path not in found:
            for one in following(table):
                visit(one)
            found[table.path] = table

    visit(first)
    return list(found.values())[::-1]
