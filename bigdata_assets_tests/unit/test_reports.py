import json

import pandas as pd
from matplotlib.figure import Figure

from bigdata_assets.models.assets import ledger_rows
from bigdata_assets.models.tables import MODEL_LEDGER
from bigdata_assets.reports import Evaluation, Report


def _report() -> Report:
    figure = Figure()
    figure.subplots().plot([0, 1])
    return Report(
        title="<script>alert(1)</script>",
        summary="a < b",
        numbers={"accuracy": 0.5},
        tables={"rows & columns": pd.DataFrame({"url": ["<img src=x>"], "n": [1.0]})},
        figures={"ROC <b>": figure},
        evaluations=(Evaluation("m", "domain", "accuracy", 0.9, "majority", 0.7),),
        provenance={"inputs": {"toy/rows": 3}},
    )


def test_a_page_is_self_contained_and_escapes_what_it_is_given():
    report = _report()
    page = report.to_html(report.pngs())
    assert "<script" not in page
    assert "<img src=x>" not in page
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("<!doctype html>", "")


def test_a_figure_is_a_png():
    (png,) = _report().pngs().values()
    assert png.startswith(b"\x89PNG")


def test_the_ledger_has_a_row_per_evaluation_with_its_baseline_and_versions():
    stored = _report().to_json() | {
        "asset": "toy/report",
        "run_id": "r",
        "code_version": "1",
        "evaluated_at": "2026-01-01T00:00:00+00:00",
    }
    (row,) = ledger_rows([json.loads(json.dumps(stored))]).to_dict("records")
    assert list(row) == MODEL_LEDGER.column_names
    assert (row["branch"], row["value"], row["baseline"], row["baseline_value"]) == ("toy", 0.9, "majority", 0.7)
    assert row["data_version"] == '{"toy/rows": 3}'


def test_an_empty_ledger_has_its_columns():
    assert list(ledger_rows([]).columns) == MODEL_LEDGER.column_names
