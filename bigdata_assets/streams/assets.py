"""What every topic has: the asset of its messages, and the sensor that asks for the runs of its batches."""

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from bigdata_assets.catalogue import table_asset
from bigdata_assets.resources.kafka import MESSAGES, KafkaResource, KafkaUnreachableError, Offsets, OffsetsExpiredError
from bigdata_assets.runs.ranges import tell_partitions
from bigdata_assets.settings import Settings
from bigdata_assets.streams.batches import Batch, parse, topic_of
from bigdata_assets.streams.planner import Planner
from bigdata_assets.streams.stream import Stream

SILENT_FOR = dg.FreshnessPolicy.time_window(warn_window=timedelta(days=1), fail_window=timedelta(days=7))
"""What the UI makes of a topic that nothing comes from any more. What is made of others has no such policy: it is
refreshed with them, and is as fresh as it can be."""


def messages_asset(stream: Stream) -> dg.AssetsDefinition:
    """The asset of a topic's messages; from the table itself where the topic has forgotten what is in it."""

    @dg.asset(
        **table_asset(stream.messages, "1", kinds=["kafka"]),
        partitions_def=stream.partitions,
        deps=[dg.AssetDep(stream.source, partition_mapping=dg.AllPartitionMapping())] if stream.source else [],
        freshness_policy=SILENT_FOR,
        required_resource_keys={"delta", "kafka"},
    )
    def messages(context: dg.AssetExecutionContext) -> pa.Table:
        keys, kafka, tables = sorted(context.partition_keys), context.resources.kafka, []
        topic = topic_of(keys)
        made_anew = stream.is_made_anew(context.instance, topic, kafka.topic_id(topic))
        with kafka.reader() as reader:
            for key in keys:
                batch = parse(key)
                try:
                    if made_anew:
                        raise OffsetsExpiredError(f"{topic} was made anew: what {key} named is not there any more")
                    found = reader.read(topic, batch.partition, batch.first, batch.end)
                except OffsetsExpiredError as error:
                    found = _stored(context.resources.delta, stream, key)
                    if not found.num_rows:
                        raise
                    context.log.warning("%s: replayed from %s, since %s", key, stream.messages.path, error)
                tables.append(found.append_column("batch", pa.array([key] * found.num_rows, pa.string())))
        held = kafka.offsets(topic)
        told = {key: _freshness(parse(key), found, held) for key, found in zip(keys, tables, strict=True)}
        tell_partitions(context.get_step_execution_context(), stream.messages.key, told)
        return pa.concat_tables(tables)

    return messages


def _stored(delta: Any, stream: Stream, key: str) -> pa.Table:
    return delta.read_arrow(stream.messages, [key]).drop_columns("batch").cast(MESSAGES)


def _freshness(batch: Batch, messages: pa.Table, held: Mapping[int, Offsets]) -> dict[str, Any]:
    """What the UI plots of a batch: its size, its age, and what waits behind it."""
    newest = pc.max(messages["broker_timestamp"]).as_py() if messages.num_rows else None
    return {
        "offsets": f"{batch.first} to {batch.end - 1} of {batch.topic}, partition {batch.partition}",
        "batch_messages": messages.num_rows,
        "batch_bytes": pc.sum(messages["length_bytes"]).as_py() or 0,
        "lag_messages": held[batch.partition].end - batch.end if batch.partition in held else 0,
        **({"age_s": time.time() - newest.timestamp()} if newest else {}),
    }


def batch_sensor(stream: Stream) -> dg.SensorDefinition:
    """The sensor that makes batches of a topic's new messages and has them run."""

    @dg.sensor(
        name=stream.sensor,
        job_name=stream.job,
        minimum_interval_seconds=10,
        description=f"Cuts new messages of the stream {stream.name} into batches, each run as a partition.",
    )
    def sensor(
        context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings], kafka: KafkaResource
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            requests, cursor, told = Planner(stream, settings, kafka).tick(context.instance, context.cursor)
        except KafkaUnreachableError as error:
            return dg.SkipReason(str(error))
        context.log.info(told)
        context.update_cursor(cursor)
        return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason(told)

    return sensor
