"""The models group: the ledger of all evaluations of all branches."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa

from bigdata_assets.branch import Branch
from bigdata_assets.catalogue import table_asset
from bigdata_assets.io_managers.delta import arrow_table
from bigdata_assets.io_managers.report import StoredReports
from bigdata_assets.models.tables import MODEL_LEDGER
from bigdata_assets.runtime import REFRESHED_BY_INPUT


def ledger_branch(branches: Sequence[Branch]) -> Branch:
    """The ledger of all evaluations that the branches' reports have."""
    keys = {"_".join(key.path): key for branch in branches for key in branch.evaluations}

    @dg.asset(
        **table_asset(MODEL_LEDGER, "2"),
        ins={name: dg.AssetIn(key) for name, key in keys.items()},
        automation_condition=REFRESHED_BY_INPUT,
        required_resource_keys={"delta"},
    )
    def model_ledger(context: dg.AssetExecutionContext, **reports: StoredReports) -> pa.Table:
        """Every evaluation of every report: those that were in it, and those of the reports that it has no run of."""
        stored = context.resources.delta.read_arrow(MODEL_LEDGER)
        known = set(zip(stored["report"].to_pylist(), stored["run_id"].to_pylist(), strict=True))
        new = [
            numbers
            for name, its in reports.items()
            for numbers in its.numbers({run for report, run in known if report == keys[name].to_user_string()})
        ]
        return pa.concat_tables([stored, arrow_table(MODEL_LEDGER, ledger_rows(new))], promote_options="permissive")

    return Branch(name=MODEL_LEDGER.branch, tables=[MODEL_LEDGER], assets=[model_ledger])


def ledger_rows(reports: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One row per evaluation of the reports, in their order, columns as in MODEL_LEDGER."""
    rows = [
        {
            **evaluation,
            "branch": report["asset"].partition("/")[0],
            "report": report["asset"],
            "data_version": json.dumps(report["provenance"].get("inputs", {}), sort_keys=True),
            "code_version": report["code_version"],
            "run_id": report["run_id"],
            "evaluated_at": pd.Timestamp(report["evaluated_at"]),
        }
        for report in reports
        for evaluation in report["evaluations"]
        if math.isfinite(evaluation["value"]) and math.isfinite(evaluation["baseline_value"])  # nothing was measured
    ]
    return pd.DataFrame(rows, columns=MODEL_LEDGER.column_names)
