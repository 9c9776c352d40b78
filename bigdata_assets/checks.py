"""Checks that every stored table has, made from its declaration; branch-specific ones stand in the branch."""

from collections.abc import Iterable

import dagster as dg

from bigdata_assets.tables import Table


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
        problems = table.difference(context.resources.delta.stored_schema(table))
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
