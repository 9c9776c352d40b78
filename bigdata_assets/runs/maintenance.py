"""Upkeep of the tables of all branches, every hour: small files are joined, old ones removed, logs made short."""

from collections.abc import Iterable

import dagster as dg

from bigdata_assets.tables import Table


def definitions(tables: Iterable[Table]) -> dg.Definitions:
    """One job over the given tables, and its schedule."""
    all_tables = tuple(tables)

    @dg.op(required_resource_keys={"delta"})
    def maintain(context: dg.OpExecutionContext) -> None:
        """One table after the other: that of one may fail, the others have theirs."""
        delta, failed = context.resources.delta, []
        for table in all_tables:
            try:
                if delta.exists(table):
                    context.log.info("%s: %s", table.path, delta.compact(table))
            except Exception:
                context.log.exception("%s is not maintained", table.path)
                failed.append(table.path)
        if failed:
            raise dg.Failure(f"not maintained: {', '.join(failed)}; the log says why. All other tables are.")

    @dg.job(description="Joins small files of all tables, removes old ones, and leaves a checkpoint to read logs from.")
    def maintain_tables() -> None:
        maintain()

    hourly = dg.ScheduleDefinition(
        name="maintain_tables_hourly",
        job=maintain_tables,
        cron_schedule="30 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    return dg.Definitions(jobs=[maintain_tables], schedules=[hourly])
