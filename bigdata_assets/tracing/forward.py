"""Forwards: all rows that were made of raw records, in all tables, and the commands that make them again."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from bigdata_assets.branch import Branch
from bigdata_assets.io_managers.delta import DeltaTableError
from bigdata_assets.runs.ranges import contiguous
from bigdata_assets.streams.assets import messages_asset
from bigdata_assets.tables import Table
from bigdata_assets.tracing.history import History, Made
from bigdata_assets.tracing.lineage import Lineage, Link, Since, Within
from bigdata_assets.tracing.rows import Tables
from bigdata_assets.tracing.walking import DAY

MOST_ROWS = 1_000_000
"""Of a table: only their keys are in memory, some 100 MB of so many."""
MOST_VALUES = 1_000
"""Of a key that files are looked for by; of more, their range."""


class TooManyRowsError(RuntimeError):
    """More rows than can be followed at once; the message says what to do."""


@dataclass
class Affected:
    """Rows of a table that were made of the records."""

    table: Table
    rows: int
    partitions: Counter[str | None]
    made: Mapping[str | None, Made | None]
    notes: list[str] = field(default_factory=list)


def forward(
    table: Table, wanted: ds.Expression, lineage: Lineage, tables: Tables, history: History, told: int
) -> list[Affected]:
    """What was made of the rows of a table that `wanted` lets through, these first.

    Args:
        table: the table.
        wanted: which of its rows.
        lineage: of its branch.
        tables: the stored tables.
        history: of Dagster.
        told: partitions of each table whose materialisation is looked up.

    Raises:
        TooManyRowsError: there are more than MOST_ROWS of a table.
    """
    keys = {table.path: _collected(table, tables.batches(table, wanted, _columns(table, lineage, tables)))}
    found = []
    for one in lineage.downstream(table):
        notes: list[str] = []
        if one.path != table.path:
            if not tables.exists(one):
                continue
            keys[one.path] = _made_of(one, keys, lineage, tables, notes)
        if not (rows := keys[one.path].num_rows) and not notes:
            continue
        partitions = _partitions(one, keys[one.path])
        made = {key: history.newest(one.path, key) for key, _ in partitions.most_common(told)}
        found.append(Affected(one, rows, partitions, made, notes))
    return found


def _columns(table: Table, lineage: Lineage, tables: Tables) -> list[str]:
    """The columns of a table that links need; all plain ones where several lead to it, to count each row once."""
    schema = tables.schema(table)
    if len(lineage.inputs_of(table)) > 1:
        return [column.name for column in schema if not pa.types.is_nested(column.type) and not _is_bytes(column.type)]
    wanted = {name for link in lineage.made_of(table) for name in link.columns_of}
    wanted |= {name for link in lineage.inputs_of(table) for name in link.columns_made}
    wanted |= {table.partition_column} if table.partition_column else set()
    names = [name for name in schema.names if name in wanted]
    return names or schema.names[:1]


def _is_bytes(type_: pa.DataType) -> bool:
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_)


def _collected(table: Table, batches: Iterable[pa.RecordBatch]) -> pa.Table:
    parts: list[pa.Table] = []
    n_rows = 0
    for batch in batches:
        parts.append(pa.table(batch))
        n_rows += batch.num_rows
        if n_rows > MOST_ROWS:
            raise TooManyRowsError(
                f"more than {MOST_ROWS:,} rows of {table.path} were made of these: narrow the filter, or materialise "
                "whole partitions again."
            )
    return pa.concat_tables(parts) if parts else pa.table({})


def _made_of(
    table: Table, keys: Mapping[str, pa.Table], lineage: Lineage, tables: Tables, notes: list[str]
) -> pa.Table:
    """Rows of a table that were made of the known rows of others."""
    parts: list[pa.Table] = []
    links = [link for link in lineage.inputs_of(table) if link.of.path in keys and keys[link.of.path].num_rows]
    try:
        columns = _columns(table, lineage, tables) if links else []
        parts = [_collected(table, _matching(link, keys[link.of.path], columns, tables)) for link in links]
    except KeyError as error:
        notes.append(f"stored before there was the column {error}")
    except (DeltaTableError, pa.ArrowException, OSError) as error:
        notes.append(f"not there: {error}")
    some = [part for part in parts if part.num_rows]
    if len(some) > 1:
        joined = pa.concat_tables(some)
        return joined.group_by(joined.column_names).aggregate([])
    return some[0] if some else pa.table({})


def _matching(link: Link, of: pa.Table, columns: Sequence[str], tables: Tables) -> Iterator[pa.RecordBatch]:
    """Rows of `made`, of those of `of`."""
    schema = tables.schema(link.made)
    plain = {name: its for name, its in link.on.items() if not pa.types.is_nested(schema.field(name).type)}
    wanted, keys = ds.scalar(True), {}
    for name, its in plain.items():
        keys[name] = of[its].cast(schema.field(name).type)
        wanted &= _among(name, keys[name])
    for name, values in link.only.items():
        wanted &= _one_of(name, values, schema.field(name).type)
    if link.span is None:
        known = pa.table(keys).group_by(list(keys)).aggregate([])
        for batch in tables.batches(link.made, wanted, columns):
            yield from _joined(batch, known)
        return
    times = of[link.span.of]
    wanted &= _around(link.span, times, schema)
    if isinstance(link.span, Since):
        known = _begun(link, link.span, pa.table(keys), times, wanted, tables)
        for batch in tables.batches(link.made, wanted, columns):
            yield from _joined(batch, known)
        return
    known = pa.table({**keys, SPAN: times}).group_by([*keys, SPAN]).aggregate([])
    for batch in tables.batches(link.made, wanted, columns):
        yield from _within(batch, known, list(keys), link.span)


SPAN, NUMBER = "__span", "__number"


def _among(name: str, values: pa.ChunkedArray) -> ds.Expression:
    """Whether a column has one of the values; of many, whether it is in their range: rows are joined afterwards."""
    distinct = pc.drop_null(pc.unique(values))
    if len(distinct) <= MOST_VALUES:
        return ds.field(name).isin(distinct)
    ends = pc.min_max(distinct)
    return (ds.field(name) >= ends["min"]) & (ds.field(name) <= ends["max"])


def _one_of(name: str, values: Sequence[Any], type_: pa.DataType) -> ds.Expression:
    some = [value for value in values if value is not None]
    found = ds.field(name).isin(pa.array(some, type_))
    return found | ds.field(name).is_null() if None in values else found


def _around(span: Within | Since, times: pa.ChunkedArray, schema: pa.Schema) -> ds.Expression:
    """The stretch that rows of `made` are in, to a day."""
    ends, type_ = pc.min_max(times), schema.field(span.made).type
    if not pa.types.is_temporal(type_):
        low, high = ends["min"].as_py(), ends["max"].as_py()
        reach = (span.after, span.before) if isinstance(span, Within) else (0.0, 0.0)
        return (ds.field(span.made) >= low - reach[0]) & (ds.field(span.made) <= high + reach[1])
    low, high = (pa.scalar(ends["min"].as_py() - DAY, times.type), pa.scalar(ends["max"].as_py() + DAY, times.type))
    return (ds.field(span.made) >= low.cast(type_, safe=False)) & (ds.field(span.made) <= high.cast(type_, safe=False))


def _joined(batch: pa.RecordBatch, known: pa.Table) -> list[pa.RecordBatch]:
    """Those rows of a batch that have known keys."""
    if not batch.num_rows:
        return []
    rows = pa.table(batch)
    joined = rows.join(known, keys=known.column_names, join_type="left semi")
    return joined.select(rows.column_names).to_batches()


def _begun(
    link: Link, span: Since, keys: pa.Table, times: pa.ChunkedArray, wanted: ds.Expression, tables: Tables
) -> pa.Table:
    """Keys and times of the rows of `made` that rows of `of` belong to: of the same keys the last one until then."""
    import pandas as pd

    names = keys.column_names
    batches = tables.batches(link.made, wanted, [*names, span.made])
    begins = _collected(link.made, batches)
    if not begins.num_rows:
        return pa.table({**{name: keys[name].slice(0, 0) for name in names}, span.made: times.slice(0, 0)})
    distinct = begins.group_by([*names, span.made]).aggregate([])
    at = distinct.to_pandas().assign(**{NUMBER: range(distinct.num_rows)}).sort_values(span.made)
    samples = keys.append_column(SPAN, times).to_pandas().sort_values(SPAN)
    matched = pd.merge_asof(samples, at, left_on=SPAN, right_on=span.made, by=names, tolerance=pd.Timedelta(DAY))
    numbers = pa.array(matched[NUMBER].dropna().astype("int64").unique())
    return distinct.take(numbers)


def _within(batch: pa.RecordBatch, known: pa.Table, keys: list[str], span: Within) -> list[pa.RecordBatch]:
    if not batch.num_rows:
        return []
    rows = pa.table(batch).append_column(NUMBER, pa.array(range(batch.num_rows), pa.int64()))
    pairs = rows.select([*keys, span.made, NUMBER]).join(known, keys=keys, join_type="inner")
    at, of = _seconds(pairs[span.made]), _seconds(pairs[SPAN])
    apart = pc.subtract(of, at)
    fits = pc.and_(pc.greater_equal(apart, -span.before), pc.less(apart, span.after))
    numbers = pc.unique(pairs.filter(fits)[NUMBER])
    return rows.take(numbers).drop_columns([NUMBER]).to_batches()


def _seconds(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers as they are, times as seconds."""
    if pa.types.is_date(values.type):
        return pc.multiply(values.cast(pa.int32()).cast(pa.float64()), 86_400.0)
    if pa.types.is_timestamp(values.type):
        return pc.divide(values.cast(pa.timestamp("us", values.type.tz)).cast(pa.int64()).cast(pa.float64()), 1e6)
    return values.cast(pa.float64())


def _partitions(table: Table, rows: pa.Table) -> Counter[str | None]:
    if table.partition_column is None:
        return Counter({None: rows.num_rows})
    if not rows.num_rows:
        return Counter()
    counts = pc.value_counts(rows[table.partition_column]).to_pylist()
    return Counter({entry["values"]: entry["counts"] for entry in counts})


@dataclass(frozen=True)
class Graph:
    """How a branch's assets are partitioned, and what is made of each, by `branch/name`."""

    partitions: Mapping[str, dg.PartitionsDefinition | None]
    children: Mapping[str, set[str]]

    @classmethod
    def of(cls, branch: Branch) -> "Graph":
        """The graph of a branch's assets, those of its topics' messages among them."""
        assets = [*branch.assets, *map(messages_asset, branch.streams)]
        partitions = {_path(key): asset.partitions_def for asset in assets for key in asset.keys}
        children: dict[str, set[str]] = defaultdict(set)
        for asset in assets:
            for key, needed in asset.asset_deps.items():
                for parent in map(_path, needed):
                    # An input that is named by its argument alone is of the branch; only a repository says so.
                    children[parent if parent in partitions else f"{branch.name}/{parent}"].add(_path(key))
        return cls(partitions, children)


def _path(key: dg.AssetKey) -> str:
    return "/".join(key.path)


def commands(affected: Sequence[Affected], graph: Graph, instance: dg.DagsterInstance) -> list[str]:
    """What makes all of it again, in order: `bigdata-assets materialize` by what has the same partitions.

    Args:
        affected: as `forward` has them.
        graph: knows how assets are partitioned.
        instance: knows the order of dynamic partitions.
    """
    groups: list[tuple[dg.PartitionsDefinition | None, list[str], set[str]]] = []
    for one in affected:
        of = graph.partitions.get(one.table.path)
        keys = {key for key in one.partitions if key is not None}
        if not one.rows:
            continue
        if groups and groups[-1][0] == of and groups[-1][2] == keys:
            groups[-1][1].append(one.table.path)
        else:
            groups.append((of, [one.table.path], keys))
    found = []
    for of, paths, keys in groups:
        options = []
        if of is not None:
            existing = list(of.get_partition_keys(dynamic_partitions_store=instance))
            stretches = contiguous(existing, keys)
            options = [first if first == last else f"{first}..{last}" for first, last in stretches]
            if not options:  # partitions that were retired, or taken out: without any, all would be made again
                continue
        found.append(command(paths, options))
    return found


def command(paths: Sequence[str], partitions: Sequence[str] = ()) -> str:
    """A `bigdata-assets materialize` of assets and partitions."""
    selection = " or ".join(f'key:"{path}"' for path in paths)
    options = "".join(f" --partition {shlex.quote(key)}" for key in partitions)
    return f"bigdata-assets materialize --select {shlex.quote(selection)}{options}"


def made_of_whole(affected: Sequence[Affected], lineage: Lineage, graph: Graph) -> list[str]:
    """Assets that are made of these tables as a whole: models and reports, and what is made of those."""
    followed = {link.made.path for link in lineage.links}
    frontier, found = {one.table.path for one in affected if one.rows}, set[str]()
    while frontier:
        frontier = {child for path in frontier for child in graph.children.get(path, ())} - followed - found
        found |= frontier
    return sorted(found)
