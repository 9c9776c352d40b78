"""The models group: the ledger of all evaluations of all branches."""

import json
from collections.abc import Sequence
from typing import Any

import dagster as dg
import pandas as pd

from bigdata_assets.branch import Branch
from bigdata_assets.catalogue import table_asset
from bigdata_assets.models.tables import MODEL_LEDGER
from bigdata_assets.runtime import REFRESHED_BY_INPUT


def ledger_branch(branches: Sequence[Branch]) -> Branch:
    """The ledger of all evaluations that the branches' reports have."""
    reports = {"_".join(key.path): dg.AssetIn(key) for branch in branches for key in branch.evaluations}

    @dg.asset(**table_asset(MODEL_LEDGER, "1"), ins=reports, automation_condition=REFRESHED_BY_INPUT)
    def model_ledger(**reports: list[dict[str, Any]]) -> pd.DataFrame:
        """Every evaluation of every stored report, made anew each time."""
        return ledger_rows(report for stored in reports.values() for report in stored)

    return Branch(name=MODEL_LEDGER.branch, tables=[MODEL_LEDGER], assets=[model_ledger])


def ledger_rows(reports: Any) -> pd.DataFrame:
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
    ]
    return pd.DataFrame(rows, columns=MODEL_LEDGER.column_names)
