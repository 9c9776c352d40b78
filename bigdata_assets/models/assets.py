"""The models group: the ledger of all evaluations of all branches, and the page that is drawn of it."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa

from bigdata_assets.branch import Branch
from bigdata_assets.catalogue import table_asset
from bigdata_assets.io_managers.delta import arrow_table
from bigdata_assets.io_managers.report import StoredReports
from bigdata_assets.models.tables import MODEL_LEDGER
from bigdata_assets.reports import Report
from bigdata_assets.runtime import REFRESHED_BY_INPUT
from bigdata_assets.settings import Settings

MOST_SHOWN = 50
"""Figures that the check names; the page has all."""
MODEL_PAGE = dg.AssetKey([MODEL_LEDGER.branch, "model_page"])


def ledger_branch(branches: Sequence[Branch]) -> Branch:
    """The ledger of all evaluations that the branches' reports have, and its page."""
    keys = {"_".join(key.path): key for branch in branches for key in branch.evaluations}

    # One step: a run more after each refresh of a stream's report would cost more than the page does.
    @dg.multi_asset(
        name="model_ledger",
        outs={
            MODEL_LEDGER.name: dg.AssetOut(
                **table_asset(MODEL_LEDGER, "3", kinds=["pandas"]), automation_condition=REFRESHED_BY_INPUT
            ),
            "model_page": dg.AssetOut(
                key=MODEL_PAGE,
                group_name=MODEL_LEDGER.branch,
                owners=[f"team:{MODEL_LEDGER.branch}"],
                io_manager_key="report",
                kinds={"pandas", "matplotlib"},
                code_version="1",
                description="All models of all branches beside their baselines, and what became worse since the "
                "version before. Source: the ledger.",
            ),
        },
        ins={name: dg.AssetIn(key) for name, key in keys.items()},
        internal_asset_deps={MODEL_LEDGER.name: set(keys.values()), "model_page": {MODEL_LEDGER.key}},
        required_resource_keys={"delta"},
    )
    def model_ledger(
        context: dg.AssetExecutionContext, **reports: StoredReports
    ) -> Iterator[dg.Output[pa.Table] | dg.Output[Report]]:
        """Every evaluation of every report: those that were in it, and those of the reports that it has no run of."""
        from bigdata_assets.models import model_page

        stored = context.resources.delta.read_arrow(MODEL_LEDGER)
        known = set(zip(stored["report"].to_pylist(), stored["run_id"].to_pylist(), strict=True))
        new = [
            numbers
            for name, its in reports.items()
            for numbers in its.numbers({run for report, run in known if report == keys[name].to_user_string()})
        ]
        ledger = pa.concat_tables([stored, arrow_table(MODEL_LEDGER, ledger_rows(new))], promote_options="permissive")
        yield dg.Output(ledger, MODEL_LEDGER.name)
        yield dg.Output(model_page.report(ledger.to_pandas()), "model_page")

    return Branch(
        name=MODEL_LEDGER.branch,
        tables=[MODEL_LEDGER],
        assets=[model_ledger],
        checks=[models_hold_their_ground] if keys else [],
    )


@dg.asset_check(
    asset=MODEL_PAGE,
    required_resource_keys={"delta", "settings"},
    description="No model is below its baseline, or below its own version before, by more than the interval of its "
    "figure. Of invented sources it only tells which are: their figures mean nothing.",
)
def models_hold_their_ground(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Warn of figures that are lower than they should be."""
    from bigdata_assets.models import model_page

    settings: Settings = context.resources.settings
    ledger = context.resources.delta.read_arrow(MODEL_LEDGER).to_pandas()
    fallen = model_page.fallen(model_page.newest(ledger)).to_dict("records")
    shown = [", ".join(f"{name}: {value}" for name, value in row.items() if value) for row in fallen[:MOST_SHOWN]]
    return dg.AssetCheckResult(
        passed=not fallen or settings.sources == "sample",
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"figures": len(fallen), "lower than they should be": shown or ["none"], "sources": settings.sources},
    )


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
