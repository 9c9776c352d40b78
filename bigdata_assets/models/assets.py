"""Assets of the models group: the ledger of all evaluations of all branches."""

import json
from collections.abc import Sequence
from typing import Any

import dagster as dg
import pandas as pd

from bigdata_assets.checks import schema_checks
from bigdata_assets.models.tables import MODEL_LEDGER, TABLES
from bigdata_assets.runtime import REFRESHED_BY_INPUT

REPORTS = {
    "crimes_stream_report": dg.AssetKey(["crimes", "stream_report"]),
    "gravitational_waves_chirp_svc_report": dg.AssetKey(["gravitational_waves", "chirp_svc_report"]),
    "gravitational_waves_glitch_cnn_report": dg.AssetKey(["gravitational_waves", "glitch_cnn_report"]),
    "malicious_urls_classifier_report": dg.AssetKey(["malicious_urls", "classifier_report"]),
}
"""Reports with evaluations, by input name. By key: a branch is not imported by another."""


@dg.asset(
    **MODEL_LEDGER.asset("1"),
    ins={name: dg.AssetIn(key) for name, key in REPORTS.items()},
    automation_condition=REFRESHED_BY_INPUT,
)
def model_ledger(**reports: list[dict[str, Any]]) -> pd.DataFrame:
    """Every evaluation of every stored report, made anew each time."""
    return ledger_rows(report for stored in reports.values() for report in stored)


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


ASSETS: Sequence[dg.AssetsDefinition] = (model_ledger,)
CHECKS: Sequence[dg.AssetChecksDefinition] = schema_checks(TABLES)
