"""What checks of all branches share: the schema check made from a table's declaration, and how shares are judged."""

from collections.abc import Iterable, Mapping

import dagster as dg

from bigdata_assets.io_managers.delta import spark_schema
from bigdata_assets.tables import Table

WARN_SHARE = 0.02
FAIL_SHARE = 0.2
"""Quarantined share of a source: real files have under .1 %; a fifth means that it is another format."""


def schema_check(table: Table) -> dg.AssetChecksDefinition:
    """Stop downstream work when the stored table is not what is declared: columns, types, NOT NULL, CHECKs.

    It reads the table's log only. Writes by the `delta` IO manager always fit; this finds what others did to the table.
    """

    @dg.asset_check(
        asset=table.key,
        name="schema",
        blocking=True,
        description="The stored columns, types and constraints are the declared ones.",
        required_resource_keys={"delta"},
    )
    def schema(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        stored = context.resources.delta.stored(table)
        problems = table.difference(spark_schema(stored))
        properties = stored.metadata().configuration
        problems += [
            f"constraint `{name}` is not {condition!r} but {properties.get(f'delta.constraints.{name}')!r}"
            for name, condition in table.constraints.items()
            if properties.get(f"delta.constraints.{name}") != condition
        ]
        return dg.AssetCheckResult(
            passed=not problems,
            metadata={
                "problems": problems or ["none"],
                "delta_version": stored.version(),
                "columns": len(table.columns),
            },
        )

    return schema


def schema_checks(tables: Iterable[Table]) -> list[dg.AssetChecksDefinition]:
    """A schema check for each table."""
    return [schema_check(table) for table in tables]


def run_keys(context: dg.AssetCheckExecutionContext) -> list[str] | None:
    """The partitions of the run that the check is part of; None where it is run by itself, for all."""
    step = context.op_execution_context
    return sorted(step.partition_keys) if step.has_partition_key or step.has_partition_key_range else None


def share_result(rows: Mapping[str, tuple[int, int]]) -> dg.AssetCheckResult:
    """Judges {source: (rows kept, rows quarantined)} by the worst source."""
    shares = {source: bad / max(good + bad, 1) for source, (good, bad) in rows.items()}
    worst = max(shares, key=lambda source: shares[source], default="none")
    share = shares.get(worst, 0.0)
    return dg.AssetCheckResult(
        passed=share <= WARN_SHARE,
        severity=dg.AssetCheckSeverity.ERROR if share > FAIL_SHARE else dg.AssetCheckSeverity.WARN,
        metadata={
            "worst": worst,
            "share": share,
            "warns_above": WARN_SHARE,
            "fails_above": FAIL_SHARE,
            "quarantined": sum(bad for _, bad in rows.values()),
        },
    )
