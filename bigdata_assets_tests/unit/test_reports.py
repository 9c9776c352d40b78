import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from bigdata_assets.models.assets import ledger_rows
from bigdata_assets.models.tables import MODEL_LEDGER
from bigdata_assets.reports import Evaluation, Report, shown


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
    assert "inputs toy/rows version 3" in page
    assert "http" not in page.replace("<!doctype html>", "")


def test_a_figure_is_a_png():
    (png,) = _report().pngs().values()
    assert png.startswith(b"\x89PNG")


def test_a_figure_fits_the_width_it_is_given_with_what_lies_outside_its_axes():
    figure = Figure(figsize=(9, 3))
    axes = figure.subplots()
    axes.plot([0, 1], label="a legend beside the axes")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    report = Report("t", "s", figures={"wide": figure})

    def width(**options):
        (png,) = report.pngs(**options).values()
        return int.from_bytes(png[16:20])

    assert 410 <= width(dpi=90, most_px=420) <= 420
    assert width(dpi=90) > 9 * 90
    assert width(dpi=20, most_px=420) < 300, "what fits is not made larger"


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


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (23180, "23,180"),
        (np.int64(23180), "23,180"),
        (23180.0, "23,180"),
        (23180.56, "23,180.6"),
        (1191000016.6, "1191000016.6"),
        (np.float64(1126259462.4247), "1126259462.4247"),
        (0.81372, "0.8137"),
        (np.float32(0.1), "0.1"),
        (-3.2e-7, "-3.2·10⁻⁷"),
        (1.2346e-21, "1.235·10⁻²¹"),
        (999.96, "1,000"),
        (0.0, "0"),
        (float("nan"), "-"),
        (None, "-"),
        (float("inf"), "inf"),
        (np.True_, "True"),
        ("2.318e+04", "2.318e+04"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_a_number_reads_as_what_it_is(value, text):
    assert shown(value) == text


def test_tables_show_each_cell_as_what_it_is():
    mixed = pd.DataFrame(
        {"what": ["reports", "time", "lost"], "value": pd.Series([23180, 1191000016.6, None], dtype=object)}
    )
    page = Report("t", "s", numbers={"reports": 23180, "share": 0.81372}, tables={"mixed": mixed}).to_html({})
    cells = page.replace("</td>", "<td>").split("<td>")
    assert {"23,180", "1191000016.6", "0.8137", "-"} <= set(cells)
    assert "e+" not in page


def test_a_year_has_no_commas_and_is_known_by_its_name():
    table = pd.DataFrame({"year": [2016, 2017], "first_year": [2001.0, None], "events_per_year": [2014, 2015]})
    table["year_count"] = [1998, 23180]
    page = Report("t", "s", numbers={"last_year": np.int64(2026), "reports": 2025}, tables={"t": table}).to_html({})
    cells = page.replace("</td>", "<td>").split("<td>")
    assert {"2016", "2017", "2001", "2026"} <= set(cells)
    assert {"2,014", "2,015", "1,998", "2,025", "-"} <= set(cells), "no year by name"
    assert ">12,016<" in Report("t", "s", tables={"t": pd.DataFrame({"year": [12016]})}).to_html({}), "or by size"


def test_a_column_that_tells_nothing_is_a_note():
    table = pd.DataFrame({"model": ["a", "b"], "at .1%": [None, None], "at 1%": [0.5, np.nan]})
    page = Report("t", "s", tables={"rates": table}, untold="too few <rows>").to_html({})
    assert "<th>at .1%</th>" not in page
    assert "at .1%: too few &lt;rows&gt;." in page
    assert "<th>at 1%</th>" in page
    assert "-: too few &lt;rows&gt;." in page
    assert "too few" not in Report("t", "s", tables={"rates": table[["model"]], "none": table[:0]}).to_html({})
