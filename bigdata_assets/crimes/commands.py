"""The branch's commands."""

import click

from bigdata_assets import settings as settings_module
from bigdata_assets.commands import produce, seconds
from bigdata_assets.settings import SettingsError


@produce.command("crimes")
@click.option("--month", required=True, help="Month of the export, such as 2016-01, or FIRST..LAST.")
@click.option("--rows", default=120, show_default=True, type=click.IntRange(1), help="Reports that are sent at once.")
@click.option("--every", default="120s", show_default=True, help="Time between them, such as 120s or 2m; 0: no wait.")
@click.option("--topic", help="Topic; default: KAFKA_CRIMES_TOPIC.")
@click.option("--partitions", default=1, show_default=True, type=click.IntRange(1, 999), help="Of a new topic.")
@click.option("--resume", is_flag=True, help="Go on behind the last report that the topic has.")
@click.option("--limit", type=click.IntRange(1), help="Only so many reports of each month.")
def produce_crimes(
    month: str, rows: int, every: str, topic: str | None, partitions: int, resume: bool, limit: int | None
) -> None:
    """Send a month of reported crimes by their time."""
    from bigdata_assets import runtime
    from bigdata_assets.crimes import producer
    from bigdata_assets.crimes.source import SOURCE
    from bigdata_assets.resources.kafka import KafkaResource

    settings = settings_module.load()
    kafka = KafkaResource.of(settings)
    if "sources" not in settings.model_fields_set and not producer.is_own_broker(settings, kafka):
        raise SettingsError(
            f"Kafka at {settings.kafka_servers} is not the broker that this project started, and BIGDATA_SOURCES is "
            "not set: it would get invented reports. Set BIGDATA_SOURCES to a folder with your files, or to `sample` "
            "if you do want the sample's there."
        )
    producer.run_command(
        kafka,
        runtime.sources(settings).folder(SOURCE),
        month,
        topic=settings.topic("crimes") if topic is None else topic,
        rows=rows,
        every_s=seconds(every),
        partitions=partitions,
        resume=resume,
        limit=limit,
    )
