"""Samples as Kafka messages: JSON keyed by site and channel, so that a channel's samples stay in their order.

Version 1 has the columns of tables.SAMPLE under their own names; times are ISO 8601 with their offset from UTC.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from bigdata_assets.flow_sensors.tables import SAMPLE
from bigdata_assets.streams.envelope import VERSION, JsonEnvelope, text

KEY = ("site", "channel")
IDENTITY = (*KEY, "observed_at")
VALUES = ("value", "quality", "edited")
Known: TypeAlias = dict[tuple[str, str, datetime], tuple[int, tuple[Any, ...]]]
"""The version and the values of each sample, by what identifies it."""


def encode(samples: pa.Table) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each sample's message."""
    for row in samples.to_pylist():
        row["observed_at"] = row["observed_at"].isoformat(timespec="milliseconds")
        yield "/".join(row[name] for name in KEY).encode(), json.dumps({VERSION: SAMPLES.version, **row}).encode()


def versions(samples: pa.Table, known: Known) -> list[int | None]:
    """The version of each sample in the order of its messages; None of one that repeats what is known.

    Args:
        samples: columns of tables.SAMPLE.
        known: of what came before; what is new is added.
    """
    found: list[int | None] = []
    identities = zip(*(samples[name].to_pylist() for name in IDENTITY), strict=True)
    values = zip(*(samples[name].to_pylist() for name in VALUES), strict=True)
    for identity, value in zip(identities, values, strict=True):
        version, before = known.get(identity, (0, None))
        if before == value:
            found.append(None)
        else:
            known[identity] = version + 1, value
            found.append(version + 1)
    return found


def known(rows: Iterable[Mapping[str, Any]]) -> Known:
    """The newest version of each sample of stored rows."""
    found: Known = {}
    for row in rows:
        identity = row["site"], row["channel"], row["observed_at"]
        if row["version"] > found.get(identity, (0, ()))[0]:
            found[identity] = row["version"], tuple(row[name] for name in VALUES)
    return found


def changed(now: pa.Table, before: pa.Table) -> pa.Table:
    """The samples of `now` that `before` has not, or has with other values; columns of tables.SAMPLE."""
    had = known({**row, "version": 1} for row in before.to_pylist())
    return now.filter(pa.array([version is not None for version in versions(now, had)], pa.bool_()))


def _name(value: Any) -> str:
    if not text(value).strip() or "," in value:
        raise ValueError("is empty or has a comma")
    return str(value)


def to_ms(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times of whole milliseconds, which is what Cassandra has and a sample is known by."""
    return pc.floor_temporal(times, unit="millisecond").cast(times.type)


SAMPLES = JsonEnvelope(version=1, key=KEY, columns=SAMPLE, readers={"site": _name, "channel": _name})


def days(times: pa.ChunkedArray) -> list[datetime]:
    """The days, in UTC, that times are of, ascending."""
    return sorted(pc.unique(pc.floor_temporal(times, unit="day")).to_pylist())
