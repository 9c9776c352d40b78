"""Reads months of samples out of Cassandra, on Spark's workers: each takes parts of the token ring."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from urllib.parse import quote

import pyarrow as pa
import pyarrow.csv as csv
from upath import UPath

from bigdata_assets.resources.keyspaces import Connection, Keyspace
from bigdata_assets.storage import make_parents

GROUP_ROWS, MOST_ROWS = 50_000, 400_000
"""Of a row group, and what a worker has in memory of all months."""


def read(
    connection: Connection, months: Collection[str], splits: int, numbers: Iterator[pa.RecordBatch]
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Rows of months, whose names are before them, from the parts of the token ring that a task is given by number."""
    with connection.session() as session:
        keyspace = Keyspace(session, connection.keyspace)
        partitions = (
            partition
            for batch in numbers
            for number in batch.column(0).to_pylist()
            for partition in keyspace.partitions(number, splits)
            if partition[2] in months
        )
        yield from joined(keyspace.samples(partitions))


def joined(pages: Iterable[tuple[str, pa.RecordBatch]]) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Pages of each month as batches of GROUP_ROWS or a page more; of less, where there are too many months."""
    waiting: dict[str, list[pa.RecordBatch]] = {}
    rows: Counter[str] = Counter()
    for month, page in pages:
        waiting.setdefault(month, []).append(page)
        rows[month] += len(page)
        if rows[month] >= GROUP_ROWS or rows.total() >= MOST_ROWS:
            ((fullest, _),) = rows.most_common(1)
            del rows[fullest]
            yield fullest, pa.concat_batches(waiting.pop(fullest))
    for month, parts in waiting.items():
        yield month, pa.concat_batches(parts)


def write_csv(keyspace: Keyspace, months: Collection[str], folder: UPath) -> int:
    """Write a file per month, site and channel below a folder, as people exchange them; how many files."""
    written = 0
    for partition in keyspace.partitions():
        site, channel, month = partition
        if month in months:
            path = folder / month / _escaped(site) / f"{_escaped(channel)}.csv"
            make_parents(path)
            with path.open("wb") as file:
                writer = None
                for _, page in keyspace.samples([partition]):
                    writer = writer or csv.CSVWriter(file, page.schema)
                    writer.write_batch(page)
                if writer:
                    writer.close()
            written += 1
    return written


def _escaped(name: str) -> str:
    """A name as one of a file or folder, which is no other folder's."""
    return quote(name, safe="").replace(".", "%2E")
