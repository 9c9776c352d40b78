"""Cassandra: sessions that fail in words, samples written by partition, and whatever is there read by token ranges.

Workers import this module: it never imports dagster.

The keyspace's name is an identifier, as the settings check; all values go to prepared statements.
"""
# ruff: noqa: S608

import itertools
import logging
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

PROBE_S = 4
"""A node that takes no connection in this time is down."""
REQUEST_S = 60
"""Of a busy node; what is asked for is small: a page of rows, a batch of one partition."""
PAGE_ROWS = 5_000
BATCH_ROWS = 100
"""Of an unlogged batch, all of one partition."""
IN_FLIGHT = 32
"""Requests that are not answered yet: what is in memory of a reader or writer."""

RETRY_S = 60
"""How long a node may be away in mid-way: a local one that was killed is back in 10 s."""
MIN_TOKEN, MAX_TOKEN = -(2**63), 2**63 - 1
"""Of the Murmur3 partitioner."""

TABLES: Mapping[str, str] = {
    "samples": "site text, channel text, month text, ts timestamp, value double, quality text, edited double, "
    "PRIMARY KEY ((site, channel, month), ts)",
    "sites": "site text, name text, latitude_deg double, longitude_deg double, time_zone text, labelled_by text, "
    "PRIMARY KEY (site)",
    "refused": "source text, line bigint, channel text, site text, reason text, raw text, "
    "PRIMARY KEY (source, line, channel)",
}
"""`samples` is what the branch reads, whoever writes it; the other two may be absent from a cluster of yours."""
PARTITION = ("site", "channel", "month")
LOG = logging.getLogger(__name__)
T = TypeVar("T")


class CassandraError(RuntimeError):
    """Cassandra cannot be asked, or does not do what it is asked; the message says what to do."""


class CassandraUnreachableError(CassandraError, ConnectionError):
    """No node answers."""


class CassandraLoginError(CassandraError):
    """User or password are not accepted, or may not do this."""


@dataclass(frozen=True)
class Connection:
    """A cluster, a keyspace of it, and how to log in; Spark's workers take it with them."""

    hosts: tuple[str, ...]
    port: int
    keyspace: str
    data_centre: str | None = None
    ca_file: str | None = None
    login: tuple[str, str] | None = field(default=None, repr=False)

    @contextmanager
    def session(self, login: tuple[str, str] | None = None) -> Generator[Any, None, None]:
        """A `cassandra.cluster.Session`, whose failures are ours.

        Raises:
            CassandraUnreachableError: no node answers, within 5 s.
            CassandraLoginError: user or password are not accepted.
            CassandraError: what was asked for is not there, such as the keyspace.
        """
        from cassandra import ConsistencyLevel, ProtocolVersion
        from cassandra.auth import PlainTextAuthProvider
        from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
        from cassandra.policies import ConstantReconnectionPolicy, DCAwareRoundRobinPolicy, TokenAwarePolicy
        from cassandra.query import tuple_factory

        self._probe()
        login = login or self.login
        profile = ExecutionProfile(
            TokenAwarePolicy(DCAwareRoundRobinPolicy(self.data_centre or "")),
            consistency_level=ConsistencyLevel.LOCAL_QUORUM,
            request_timeout=REQUEST_S,
            row_factory=tuple_factory,
        )
        cluster = Cluster(
            list(self.hosts),
            self.port,
            auth_provider=PlainTextAuthProvider(*login) if login else None,
            ssl_context=self._tls(),
            protocol_version=ProtocolVersion.V4,  # of all since 2.2: the driver would ask a newer one down to it
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            connect_timeout=PROBE_S,
            # By default it looks for a node that was away after 1, 2, 4, … 600 s.
            reconnection_policy=ConstantReconnectionPolicy(1, None),
        )
        try:
            with self._in_words():
                session = cluster.connect()
                session.default_fetch_size = PAGE_ROWS
                yield session
        finally:
            cluster.shutdown()

    def _tls(self) -> Any:
        import ssl

        return ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None

    def _probe(self) -> None:
        """The driver tries for longer before it says that nobody is there."""
        errors = []
        for host in self.hosts:
            try:
                socket.create_connection((host, self.port), timeout=PROBE_S / len(self.hosts)).close()
            except OSError as error:
                errors.append(f"{host}:{self.port} ({error})")
            else:
                return
        raise CassandraUnreachableError(
            f"No Cassandra node answers at {', '.join(errors)}. Start the local one with `bigdata-assets services up`, "
            "or set CASSANDRA_CONTACT_POINTS to yours."
        )

    @contextmanager
    def _in_words(self) -> Generator[None, None, None]:
        from cassandra import AuthenticationFailed, DriverException, InvalidRequest, Unauthorized
        from cassandra.cluster import NoHostAvailable
        from cassandra.connection import ConnectionException

        where = f"Cassandra at {', '.join(self.hosts)}:{self.port}"
        try:
            yield
        except InvalidRequest as error:
            raise CassandraError(
                f"{where} has no such table in the keyspace {self.keyspace}: {error}. `bigdata-assets load sensors` "
                "makes both where they are missing; CASSANDRA_KEYSPACE names another keyspace."
            ) from error
        except (AuthenticationFailed, Unauthorized, NoHostAvailable) as error:
            causes = list(error.errors.values()) if isinstance(error, NoHostAvailable) else [error]
            if any(isinstance(cause, AuthenticationFailed | Unauthorized) for cause in causes):
                # The driver's text has no password.
                raise CassandraLoginError(
                    f"{where} refuses the login, or what it asks for: {causes[0]}. See CASSANDRA_USERNAME and "
                    "CASSANDRA_PASSWORD; that user needs to read and, to load files, to create and modify."
                ) from error
            raise CassandraUnreachableError(f"{where} does not answer: {'; '.join(map(str, causes))}") from error
        except (DriverException, ConnectionException) as error:
            raise CassandraUnreachableError(f"{where} went away: {type(error).__name__} {error}") from error


class Keyspace:
    """The tables of a keyspace, over a session."""

    def __init__(self, session: Any, name: str) -> None:
        self._session, self._name = session, name
        self._prepared: dict[str, Any] = {}

    def cluster_name(self) -> str:
        """The cluster's own name for itself."""
        return str(self._session.execute("SELECT cluster_name FROM system.local").one()[0])

    def create(self, replication: str) -> None:
        """Make the keyspace and its tables where they are missing; a keyspace that is there stays as it is."""
        copies = (
            f"'class': 'SimpleStrategy', 'replication_factor': {replication}"
            if replication.isdigit()
            else "'class': 'NetworkTopologyStrategy', "
            + ", ".join("'{}': {}".format(*part.split("=")) for part in replication.split(","))
        )
        self._session.execute(f"CREATE KEYSPACE IF NOT EXISTS {self._name} WITH replication = {{{copies}}}")
        for table, columns in TABLES.items():
            self._session.execute(f"CREATE TABLE IF NOT EXISTS {self._name}.{table} ({columns})")

    def write_samples(self, rows: pa.Table) -> int:
        """Write samples, in unlogged batches of one partition each; how many rows were acknowledged.

        What is null is left as it is stored. To write the same once more changes nothing.

        Args:
            rows: columns of `samples` but for month, which is that of observed_at.
        """
        from cassandra.query import UNSET_VALUE, BatchStatement, BatchType

        rows = rows.append_column("month", pc.strftime(rows["observed_at"], "%Y-%m"))
        rows = rows.sort_by([(name, "ascending") for name in (*PARTITION, "observed_at")])
        insert = self._insert("samples", (*PARTITION, "ts", "value", "quality", "edited"))
        columns = []
        for name in (*PARTITION, "observed_at", "value", "quality", "edited"):
            values = rows[name].cast(pa.timestamp("ms")).cast(pa.int64()) if name == "observed_at" else rows[name]
            columns.append([UNSET_VALUE if value is None else value for value in values.to_pylist()])

        def batches() -> Iterator[tuple[Any, None]]:
            for _, group in itertools.groupby(zip(*columns, strict=True), key=lambda row: row[:3]):
                while part := list(itertools.islice(group, BATCH_ROWS)):
                    batch = BatchStatement(BatchType.UNLOGGED)
                    for row in part:
                        batch.add(insert, row)
                    yield batch, None

        self._execute(batches())
        return int(rows.num_rows)

    def write_rows(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows of one of the small tables, one by one; None leaves what is stored."""
        from cassandra.query import UNSET_VALUE

        rows = list(rows)
        if rows:
            insert = self._insert(table, tuple(rows[0]))
            self._execute((insert, [UNSET_VALUE if v is None else v for v in row.values()]) for row in rows)

    def forget_refused(self, source: str) -> None:
        """Delete what was refused of a file that is read anew."""
        self._session.execute(self._prepare(f"DELETE FROM {self._name}.refused WHERE source = ?"), [source])

    def rows(self, table: str) -> Iterator[dict[str, Any]]:
        """All rows of one of the small tables; none where there is no such table."""
        from cassandra import InvalidRequest

        names = [column.split()[0] for column in TABLES[table].split(", PRIMARY KEY")[0].split(", ")]
        try:
            for page in self._pages(f"SELECT {', '.join(names)} FROM {self._name}.{table}"):
                yield from (dict(zip(names, row, strict=True)) for row in page)
        except InvalidRequest as error:
            LOG.warning("%s.%s is not there: %s", self._name, table, error)

    def partitions(self, split: int = 0, splits: int = 1) -> Iterator[tuple[str, str, str]]:
        """Site, channel and month of each partition of a part of the token ring."""
        ring = f"token({', '.join(PARTITION)})"
        query = self._prepare(
            f"SELECT DISTINCT {', '.join(PARTITION)} FROM {self._name}.samples WHERE {ring} >= ? AND {ring} <= ?"
        )
        for page in self._pages(query, token_range(split, splits)):
            yield from map(tuple, page)

    def samples(self, partitions: Iterable[tuple[str, str, str]]) -> Iterator[tuple[str, pa.RecordBatch]]:
        """The samples of partitions, in pages, each after its month; columns as `write_samples` takes them."""
        query = self._prepare(
            f"SELECT ts, value, quality, edited FROM {self._name}.samples WHERE site = ? AND channel = ? AND month = ?"
        )
        for some in _portions(partitions, IN_FLIGHT):
            asked = [(key, self._session.execute_async(query, key)) for key in some]
            for key, future in asked:
                for page in self._pages(query, key, future):
                    yield key[2], _batch(*key[:2], page)

    def sample(self, site: str, channel: str, observed_at: datetime) -> dict[str, Any] | None:
        """Value, quality and edited of one sample; None where there is none."""
        query = self._prepare(
            f"SELECT value, quality, edited FROM {self._name}.samples "
            "WHERE site = ? AND channel = ? AND month = ? AND ts = ?"
        )
        rows = next(self._pages(query, (site, channel, f"{observed_at:%Y-%m}", observed_at)))
        (found,) = _batch(site, channel, [(observed_at, *row) for row in rows]).to_pylist() or [None]
        return None if found is None else {name: found[name] for name in ("value", "quality", "edited")}

    def _pages(self, query: Any, values: Any = None, asked: Any = None) -> Iterator[list[Any]]:
        """Rows of a query by page, each asked for again while no node answers; `asked`: the first one's future."""
        tries = itertools.chain(
            [asked.result] if asked else [], itertools.repeat(partial(self._session.execute, query, values))
        )
        pages = again(partial(_called, tries))
        while True:
            yield pages.current_rows
            if not pages.has_more_pages:
                return
            again(pages.fetch_next_page)

    def _execute(self, statements: Iterator[tuple[Any, Any]]) -> None:
        from cassandra.concurrent import execute_concurrent

        for some in _portions(statements, IN_FLIGHT * 4):
            again(partial(execute_concurrent, self._session, some, concurrency=IN_FLIGHT))

    def _insert(self, table: str, names: Sequence[str]) -> Any:
        marks = ", ".join("?" * len(names))
        return self._prepare(f"INSERT INTO {self._name}.{table} ({', '.join(names)}) VALUES ({marks})")

    def _prepare(self, query: str) -> Any:
        if query not in self._prepared:
            self._prepared[query] = again(partial(self._session.prepare, query))
        return self._prepared[query]


def token_range(split: int, splits: int) -> tuple[int, int]:
    """The first and the last token of one of so many equal parts of the ring."""
    cuts = [MIN_TOKEN + (MAX_TOKEN - MIN_TOKEN + 1) * number // splits for number in (split, split + 1)]
    return cuts[0], cuts[1] - 1


def again(ask: Callable[[], T]) -> T:
    """What is asked, once more while no node answers, for RETRY_S: only for what may be done twice."""
    from cassandra import OperationTimedOut, ReadFailure, ReadTimeout, Unavailable, WriteFailure, WriteTimeout
    from cassandra.cluster import NoHostAvailable
    from cassandra.connection import ConnectionException

    timeouts = (OperationTimedOut, ReadTimeout, WriteTimeout, ReadFailure, WriteFailure)
    until, wait_s = time.monotonic() + RETRY_S, 0.25
    while True:
        try:
            return ask()
        except (NoHostAvailable, ConnectionException, Unavailable, *timeouts) as error:
            if time.monotonic() > until:
                raise
            LOG.warning("Cassandra does not answer and is asked again: %s %s", type(error).__name__, error)
            time.sleep(wait_s)
            wait_s = min(wait_s * 2, 4)


def _batch(site: str, channel: str, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    """Rows of a partition in Arrow: NaN, which no value can be told from, is no value."""
    times, values, qualities, edited = zip(*rows, strict=True) if rows else ((), (), (), ())
    n = len(rows)
    return pa.RecordBatch.from_arrays(
        [
            pa.array([site] * n, pa.string()),
            pa.array([channel] * n, pa.string()),
            pa.array(times, pa.timestamp("us")).cast(pa.timestamp("us", "UTC")),
            pa.array(values, pa.float64(), from_pandas=True),
            pa.array([quality or None for quality in qualities], pa.string()),
            pa.array(edited, pa.float64(), from_pandas=True),
        ],
        names=["site", "channel", "observed_at", "value", "quality", "edited"],
    )


def _called(functions: Iterator[Callable[[], T]]) -> T:
    """What the next one gives."""
    return next(functions)()


def _portions(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while part := list(itertools.islice(iterator, size)):
        yield part
