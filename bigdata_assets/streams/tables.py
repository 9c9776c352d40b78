"""What the tables of every topic have in common: a row's place in Kafka, and its message as it was received."""

from pyspark.sql.types import BinaryType, IntegerType, LongType, StringType, TimestampType

from bigdata_assets.tables import Column, Table

BATCH = Column("batch", StringType(), "Offset range `<topic>-p<partition>-<first>-<last + 1>`; the partition key.")
OFFSET = (
    Column("kafka_partition", IntegerType(), "Partition of the topic.", check="kafka_partition >= 0"),
    Column("kafka_offset", LongType(), "Offset in it.", check="kafka_offset >= 0"),
)
BROKER_TIMESTAMP = Column("broker_timestamp", TimestampType(), "The message's timestamp in Kafka.")
_KEY = Column("key", BinaryType(), "Key.", nullable=True)
MESSAGE = (
    *OFFSET,
    BROKER_TIMESTAMP,
    _KEY,
    Column("value", BinaryType(), "Value; null for a tombstone; 64 KiB of one over 1 MiB.", nullable=True),
    Column("length_bytes", LongType(), "Length of the whole value.", check="length_bytes >= 0"),
)


def batched_table(branch: str, name: str, description: str, *columns: Column, known_by: tuple[str, ...] = ()) -> Table:
    """A table of many small batches: its files are joined over them."""
    return Table(
        branch,
        name,
        description,
        (BATCH, *columns),
        partition_column="batch",
        partitioned_files=False,
        known_by=known_by,
    )


def messages_table(branch: str, name: str) -> Table:
    """The messages of a topic as they were received."""
    return batched_table(
        branch,
        name,
        "One row per Kafka message of a batch, as received; a replay falls back on it when the topic has forgotten it.",
        *MESSAGE,
    )


def quarantine_table(branch: str, name: str, of: Table) -> Table:
    """The messages of a topic that cannot be used; `of` has all."""
    return batched_table(
        branch,
        name,
        f"One row per message of a batch that is not usable. Source: {of.name}.",
        *OFFSET,
        Column("reason", StringType(), "Why the row is not in the table."),
        _KEY,
        Column("raw", BinaryType(), "The value's first 64 KiB.", nullable=True),
        Column("length_bytes", LongType(), "Length of the whole value."),
    )
