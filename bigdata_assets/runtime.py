"""What every branch runs with: the resources by key, the executor, and when what is made of others is refreshed."""

from collections.abc import Iterable
from typing import Any

import dagster as dg

from bigdata_assets.io_managers.delta import delta_io_manager
from bigdata_assets.io_managers.keras_model import KerasModelIOManager
from bigdata_assets.io_managers.model_by_partition import ModelByPartitionIOManager
from bigdata_assets.io_managers.report import ReportIOManager
from bigdata_assets.io_managers.sklearn_model import SklearnModelIOManager
from bigdata_assets.io_managers.spark_model import SparkModelIOManager
from bigdata_assets.resources.cassandra import CassandraResource
from bigdata_assets.resources.kafka import KafkaResource
from bigdata_assets.resources.keras_zoo import KerasZoo
from bigdata_assets.resources.snapshots import SnapshotStore
from bigdata_assets.resources.spark import SparkResource
from bigdata_assets.runs.fork_server import preloaded
from bigdata_assets.settings import REFRESH_SENSOR, Settings
from bigdata_assets.sources import Sources
from bigdata_assets.tables import Table

REFRESH = dg.AutomationConditionSensorDefinition(
    REFRESH_SENSOR,
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Refreshes marts, stream reports and the model ledger when what they are made of has changed.",
)

_INPUT_CHANGED = dg.AutomationCondition.any_deps_updated()
# Of a request nothing is left when its run fails: it is made again, with time between, until one succeeds.
_TO_BE_TRIED_AGAIN = dg.AutomationCondition.execution_failed() & dg.AutomationCondition.cron_tick_passed(
    "*/5 * * * *"
).since(dg.AutomationCondition.newly_requested())
REFRESHED_BY_INPUT = (
    (
        # True also a tick later: what is true in the tick after a request is cleared with that request.
        (_INPUT_CHANGED | (~_INPUT_CHANGED).newly_true()).since(
            dg.AutomationCondition.newly_requested() | dg.AutomationCondition.initial_evaluation()
        )
        | _TO_BE_TRIED_AGAIN
    )
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("refreshed once a run that changed an input has ended")
"""Not `eager`: that waits until no partition of an input is missing, and one broken file or batch would stop it; and
its `since_last_handled` takes an input for handled that was stored after it was asked for and before it was made."""
REFRESHED_ONCE_ALL_IS_THERE = (REFRESHED_BY_INPUT & ~dg.AutomationCondition.any_deps_missing()).with_label(
    "refreshed once a run that changed an input has ended, and all inputs are there"
)
"""For what cannot be made without one of its inputs; of partitioned ones it would wait for every partition."""


def resources(settings: Settings, tables: Iterable[Table]) -> dict[str, Any]:
    """Resources and IO managers by key."""
    return {
        "settings": settings,
        "spark": SparkResource(remote=settings.spark_remote),
        "sources": sources(settings),
        "keras_zoo": KerasZoo(weights=settings.big_cats_weights, is_sample=settings.sources == "sample"),
        "delta": delta_io_manager(tables).configured({"storage": settings.storage}),
        "spark_model": SparkModelIOManager(storage=settings.storage),
        "keras_model": KerasModelIOManager(storage=settings.storage),
        "sklearn_model": SklearnModelIOManager(storage=settings.storage),
        "model_by_partition": ModelByPartitionIOManager(storage=settings.storage),
        "kafka": KafkaResource.of(settings),
        "cassandra": CassandraResource.of(settings),
        "snapshots": SnapshotStore(storage=settings.storage, kept=400),
        "report": ReportIOManager(storage=settings.storage, url=settings.reports_url),
    }


def sources(settings: Settings) -> Sources:
    """Where the inputs come from."""
    return Sources(
        location=settings.sources,
        cache=str(settings.services_dir.parent / "sources"),
        sample_refusal=settings.sample_refusal,
    )


def process_per_step(settings: Settings) -> dg.ExecutorDefinition:
    """A process per step, forked from a server that has the imports done."""
    fork_server = {"forkserver": {"preload_modules": preloaded(settings)}}
    return dg.multiprocess_executor.configured({"max_concurrent": settings.max_concurrent, "start_method": fork_server})
