"""Partitions of the branch: months of history, and offset ranges of the Kafka topic."""

from datetime import datetime
from zoneinfo import ZoneInfo

import dagster as dg

from bigdata_assets.crimes.logic.exports import TIME_ZONE, months
from bigdata_assets.crimes.tables import BATCH_METRICS, BRANCH, CRIME_REPORTS
from bigdata_assets.kafka_batches import Stream
from bigdata_assets.resources.kafka import KafkaResource
from bigdata_assets.settings import Settings
from bigdata_assets.sources import Sources, SourceUnavailableError

MONTHS = dg.DynamicPartitionsDefinition(name="crime_months")
"""Of occurrence, Chicago time: `2016-01`. Those that the input has, which may be any since 2001."""
CRIME_BATCHES = dg.DynamicPartitionsDefinition(name="crime_batches")
JOB = "learn_crime_batch"
ARREST_MODELS = dg.AssetKey([BRANCH, "arrest_models"])


def stream(settings: Settings) -> Stream:
    """The topic of reported crimes."""
    kafka = KafkaResource(servers=settings.kafka_servers)
    return Stream(settings.crimes_topic, CRIME_BATCHES, JOB, CRIME_REPORTS.key, BATCH_METRICS.key, settings, kafka)


def available_months(sources: Sources) -> list[str]:
    """Months that the input's files are for; none where there are no files."""
    try:
        folder = sources.folder(BRANCH)
    except SourceUnavailableError:
        return []
    return months(folder, datetime.now(ZoneInfo(TIME_ZONE)).date())
