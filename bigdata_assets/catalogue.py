"""What Dagster is told of a declared table: its asset's arguments, its columns, and the check that it is stored so."""

from collections.abc import Iterable
from typing import Any

import dagster as dg

from bigdata_assets.io_managers.delta import spark_schema
from bigdata_assets.tables import Table


def table_asset(
    table: Table, code_version: str, kinds: Iterable[str] = ("spark",), **metadata: str | int | float
) -> dict[str, Any]:
    """What every asset stored in a table says of itself: pass it to `@dg.asset` or `dg.AssetOut`.

    `kinds`: what makes the rows.
    """
    return {
        "key": table.key,
        "group_name": table.branch,
        "owners": [f"team:{table.branch}"],
        "description": table.description,
        "io_manager_key": "delta",
        "kinds": {*kinds, "deltalake"},
        "code_version": code_version,
        "metadata": {
            "dagster/column_schema": column_schema(table),
            "dagster/table_name": table.path,
            **({"partition_expr": table.partition_column} if table.partition_column else {}),
            **metadata,
        },
    }


def column_schema(table: Table) -> dg.TableSchema:
    """The columns as Dagster's catalogue shows them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                c.name,
                c.type.simpleString(),
                description=c.description,
                constraints=dg.TableColumnConstraints(nullable=c.nullable, other=[c.check] if c.check else []),
            )
            for c in table.columns
        ],
        constraints=dg.TableConstraints(other=list(table.checks.values())),
    )


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
