"""Features of Delta's protocol that other engines have turned on in a table: which can be read and written here.

Source: github.com/delta-io/delta/blob/master/PROTOCOL.md. What deltalake does with each was tried: with column mapping
it names columns wrongly in what it has not written itself, and what it refuses it tells like a conflict of writers.
"""

from collections.abc import Collection
from typing import Any

DATASET = frozenset({"timestampNtz", "variantType", "variantType-preview"})
"""What readers need to know, and an Arrow dataset of the table's files takes care of."""
READ = DATASET | {"columnMapping", "deletionVectors", "v2Checkpoint"}
"""The same for deltalake's own scan."""
WRITTEN = frozenset(
    "appendOnly invariants checkConstraints changeDataFeed generatedColumns deletionVectors v2Checkpoint timestampNtz "
    "variantType variantType-preview".split()
)
MAPPING = "delta.columnMapping.mode"
FIRST = {
    "appendOnly": "SET TBLPROPERTIES ('delta.appendOnly' = 'false')",
    "columnMapping": f"SET TBLPROPERTIES ('{MAPPING}' = 'none')",
    "icebergCompatV1": "SET TBLPROPERTIES ('delta.enableIcebergCompatV1' = 'false')",
    "icebergCompatV2": "SET TBLPROPERTIES ('delta.enableIcebergCompatV2' = 'false')",
    "inCommitTimestamp": "SET TBLPROPERTIES ('delta.enableInCommitTimestamps' = 'false')",
    "rowTracking": "SET TBLPROPERTIES ('delta.enableRowTracking' = 'false')",
    "typeWidening": "SET TBLPROPERTIES ('delta.enableTypeWidening' = 'false')",
}
"""What ends their use, before they can be dropped."""

HISTORY = {"checkpointProtection": " TRUNCATE HISTORY"}
"""What Spark leaves where it has dropped another feature; it goes a day after that, with the versions before."""


def is_dataset(stored: Any) -> bool:
    """Whether an Arrow dataset of a table's files has the table's rows and columns."""
    return _to_read(stored) <= DATASET


def has_deletion_vectors(stored: Any) -> bool:
    """Whether a file may have more rows than the table has of it."""
    return "deletionVectors" in _to_read(stored)


def not_read(stored: Any) -> list[str]:
    """Features without which the rows cannot be read in this process."""
    return sorted(_to_read(stored) - READ)


def not_written(stored: Any) -> list[str]:
    """Features of a table that nothing may be written to here."""
    features = _to_read(stored) | set(stored.protocol().writer_features or ())
    found = features - WRITTEN
    if stored.metadata().configuration.get("delta.appendOnly", "").lower() == "true":
        found.add("appendOnly")
    return sorted(found)


def way_back(location: str, features: Collection[str]) -> str:
    """What to do in Spark, for a message."""
    table = f"ALTER TABLE delta.`{location}`"
    commands = [f"{table} {FIRST[name]}" for name in features if name in FIRST]
    commands += [f"{table} DROP FEATURE {name}{HISTORY.get(name, '')}" for name in features if name != "appendOnly"]
    return (
        f"In Spark: {'; '.join(commands)}. Where Spark cannot drop it, or puts checkpointProtection in its place, move "
        "the folder away and materialise the asset again, or copy the table's rows into a new one there."
    )


def _to_read(stored: Any) -> set[str]:
    features = set(stored.protocol().reader_features or ())
    if stored.metadata().configuration.get(MAPPING, "none") != "none":
        features.add("columnMapping")  # by its version alone
    return features
