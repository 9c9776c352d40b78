"""Backwards: from rows of a table, table by table, to the raw records that they were made of."""

import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from bigdata_assets.io_managers.delta import DeltaTableError
from bigdata_assets.tables import Table
from bigdata_assets.tracing.history import Made, ModelTold, card
from bigdata_assets.tracing.lineage import Lineage, Link, Model, Raw, Row, Since, Within
from bigdata_assets.tracing.places import Places
from bigdata_assets.tracing.rows import Tables

MOST_ROWS = 12
"""Of a table, of those that one row was made of: a figure over thousands is told by its first ones."""
DAY = timedelta(days=1)


@dataclass
class Found:
    """A row, who made it, and the raw record it was read from."""

    row: Row
    made: Made | None = None
    models: list[ModelTold] = field(default_factory=list)
    raw: Raw | None = None
    picture: bytes | None = None
    note: str = ""


@dataclass
class Step:
    """Rows of one table that a traced row was made of; of the first step it is that row itself."""

    table: Table
    rows: list[Found]
    more: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass
class Trace:
    """A row and all that it was made of."""

    steps: list[Step]

    @property
    def row(self) -> Found:
        return self.steps[0].rows[0]


def trace(table: Table, row: Row, lineage: Lineage, places: Places) -> Trace:
    """The whole way back from a row."""
    rows: dict[str, list[Row]] = {table.path: [row]}
    more: set[str] = set()
    notes: dict[str, list[str]] = {}
    steps: list[Step] = []
    for one in lineage.upstream(table):
        its = rows.get(one.path, [])
        if its or notes.get(one.path):
            is_covered = lineage.covered.get(one.path) in {step.table.path for step in steps}
            found = [_found(one, single, lineage, places, with_raw=not is_covered) for single in its]
            steps.append(Step(one, found, one.path in more, notes.get(one.path, [])))
        for link in lineage.inputs_of(one):
            wanted = [single for single in its if link.holds_for(single)]
            if wanted:
                known, told = rows.setdefault(link.of.path, []), notes.setdefault(link.of.path, [])
                if _inputs(link, wanted, known, told, places.tables):
                    more.add(link.of.path)
    return Trace(steps)


def _inputs(link: Link, made: Iterable[Row], known: list[Row], notes: list[str], tables: Tables) -> bool:
    """Add the rows that rows were made of to those that are known; whether there are more than are told."""
    _note(notes, link.note)
    try:
        for row in made:
            rows, more = _rows_of(link, row, tables, notes)
            new = [one for one in rows if one not in known]
            room = MOST_ROWS - len(known)
            known += new[:room]
            if more or len(new) > room:
                return True
    except KeyError as error:
        _note(notes, f"stored before there was the column {error}")
    except (DeltaTableError, pa.ArrowException, OSError) as error:
        _note(notes, f"no longer there: {error}")
    return False


def _rows_of(link: Link, row: Row, tables: Tables, notes: list[str]) -> tuple[list[dict[str, Any]], bool]:
    """The rows that a row was made of, and whether there are more."""
    if (wanted := matching(link, row, tables)) is None:
        return [], False
    rows, more = tables.find(link.of, wanted, MOST_ROWS)
    if not rows:
        _note(notes, f"there is no row with {_told(link, row)}")
    return rows, more


def _note(notes: list[str], note: str) -> None:
    if note and note not in notes:
        notes.append(note)


def _told(link: Link, row: Row) -> str:
    return ", ".join(f"{of} {row[name]}" for name, of in link.on.items())


def matching(link: Link, row: Row, tables: Tables) -> ds.Expression | None:
    """What rows of `of` a row was made of; None where a key is null."""
    schema = tables.schema(link.of)
    wanted = []
    for name, of in link.on.items():
        if row.get(name) is None:
            return None
        values = row[name] if isinstance(row[name], list) else [row[name]]
        wanted.append(ds.field(of).isin(pa.array(values, schema.field(of).type)))
    wanted += [ds.field(name) == derive(row) for name, derive in link.derived.items()]
    if isinstance(link.span, Within):
        at = _moment(row[link.span.made])
        wanted.append(ds.field(link.span.of) >= _plus(at, -link.span.before))
        wanted.append(ds.field(link.span.of) < _plus(at, link.span.after))
    elif link.span is not None:
        wanted.append(ds.field(link.span.of) >= row[link.span.made])
        wanted.append(ds.field(link.span.of) < _next_time(link, link.span, row, tables))
    return reduce(operator.and_, wanted)


def _moment(value: Any) -> Any:
    """A day as its first moment in UTC."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time(), UTC)
    return value


def _plus(value: Any, seconds: float) -> Any:
    return value + timedelta(seconds=seconds) if isinstance(value, datetime) else value + seconds


def _next_time(link: Link, span: Since, row: Row, tables: Tables) -> datetime:
    """When the next row of the same keys begins; a day later where there is none."""
    at, schema = row[span.made], tables.schema(link.made)
    wanted = (ds.field(span.made) > at) & (ds.field(span.made) < at + DAY)
    for name in link.on:
        wanted &= ds.field(name) == pa.scalar(row[name], schema.field(name).type)
    times = (batch[0] for batch in tables.batches(link.made, wanted, [span.made]))
    return min((time for part in times for time in part.to_pylist()), default=at + DAY)


def _found(table: Table, row: Row, lineage: Lineage, places: Places, *, with_raw: bool) -> Found:
    found = Found(row, places.made(table, row))
    found.models = [told(model, row, places) for model in lineage.models_of(table, row)]
    if with_raw and (reader := lineage.sources.get(table.path)):
        found.raw = _read(reader, row, places)
    if draw := lineage.pictures.get(table.path):
        try:
            found.picture = draw(row)
        except Exception as error:  # noqa: BLE001 -- Pillow's many; the row is told all the same
            found.note = f"no picture: {error}"
    return found


def _read(reader: Any, row: Row, places: Places) -> Raw:
    """The raw record; where it cannot be had, why."""
    try:
        raw: Raw = reader(row, places)
    except Exception as error:  # noqa: BLE001 -- of files and engines of all kinds: the trace goes on without it
        what = "no longer there" if isinstance(error, FileNotFoundError | KeyError) else "cannot be read"
        return Raw({}, notes=(f"{what}: {str(error) or type(error).__name__}",))
    return raw


def told(model: Model, row: Row, places: Places) -> ModelTold:
    """A model of a row, by its card."""
    values = {name: value for name, value in row.items() if isinstance(value, str)}
    names = [part for text in (model.folder or "", model.asset, model.partition) for part in _names(text)]
    if missing := [name for name in names if name not in values]:
        return ModelTold(model.asset, note=f"the row has no {', '.join(missing)}")
    if strange := [name for name in names if "/" in values[name] or values[name].startswith(".")]:
        return ModelTold(model.asset, note=f"{strange[0]} {values[strange[0]]!r} is no version")
    asset, note = model.asset.format(**values), model.note.format(**{name: row[name] for name in row})
    if model.folder is None:
        return ModelTold(asset, note=note)
    folder = model.folder.format(**values)
    found = card(places.storage, folder)
    if found is None:
        return ModelTold(asset, note=f"no longer there: {folder}. {note}".strip())
    partition = model.partition.format(**values) or None
    run_id = str(found.get("run_id", ""))
    return ModelTold(asset, found, places.history.of_run(asset, partition, run_id), note)


def _names(text: str) -> Iterator[str]:
    yield from (part.partition("}")[0] for part in text.split("{")[1:])
