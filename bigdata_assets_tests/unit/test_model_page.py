"""The page of all models: what is better than its baseline, and what became worse."""

import pandas as pd
import pytest

from bigdata_assets.models import model_page
from bigdata_assets.models.model_page import ALIKE, BETTER, WORSE
from bigdata_assets.models.tables import MODEL_LEDGER


def row(**changes):
    return {
        "branch": "toy",
        "report": "toy/report",
        "model": "m",
        "split": "test",
        "metric": "accuracy",
        "value": 0.9,
        "baseline": "majority",
        "baseline_value": 0.7,
        "low": 0.85,
        "high": 0.95,
        "interval": "95 %",
        "better": "more",
        "data_version": "{}",
        "code_version": "1",
        "run_id": "r0",
        "evaluated_at": pd.Timestamp("2026-01-01", tz="UTC"),
    } | changes


def ledger(*rows):
    return pd.DataFrame([row(**changes) for changes in rows], columns=MODEL_LEDGER.column_names)


def later(days, **changes):
    return {
        "run_id": f"r{days}",
        "evaluated_at": pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(days=days),
    } | changes


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [
        ({}, BETTER),
        ({"baseline_value": 0.86}, ALIKE),
        ({"baseline_value": 0.96}, WORSE),
        ({"better": "less"}, WORSE),
        ({"better": "less", "baseline_value": 0.96}, BETTER),
        ({"better": None}, BETTER),
        ({"low": None, "high": None, "baseline_value": 0.89}, BETTER),
        ({"low": None, "high": None, "baseline_value": 0.91}, WORSE),
        ({"low": None, "high": None, "baseline_value": 0.9}, ALIKE),
        # A bias: nearer to nothing is better, on either side.
        ({"better": "near 0", "value": -0.01, "low": -0.02, "high": -0.005, "baseline_value": 0.03}, BETTER),
        ({"better": "near 0", "value": -0.05, "low": -0.06, "high": -0.04, "baseline_value": 0.03}, WORSE),
        ({"better": "near 0", "value": -0.01, "low": -0.04, "high": 0.02, "baseline_value": 0.03}, ALIKE),
        ({"better": "near 0", "value": -0.04, "low": -0.09, "high": 0.01, "baseline_value": 0.001}, ALIKE),
    ],
)
def test_a_figure_is_told_from_its_baseline_outside_of_its_interval(figures, verdict):
    (found,) = model_page.newest(ledger(figures)).to_dict("records")
    assert found["against_baseline"] == verdict
    assert found["against_previous"] is None


def test_the_strongest_baseline_counts():
    rows = model_page.newest(ledger({}, {"baseline": "rule", "baseline_value": 0.88}, {"baseline": "none"}))
    assert rows[["baseline", "baseline_value"]].to_numpy().tolist() == [["rule", 0.88]]
    less = {"better": "less", "value": 0.3, "low": 0.2, "high": 0.4}
    rows = model_page.newest(ledger(less, less | {"baseline": "rule", "baseline_value": 0.5}))
    assert rows["baseline"].tolist() == ["rule"]


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        (0.9, {}, ALIKE),
        (0.96, {}, WORSE),
        (0.84, {}, BETTER),
        (0.94, {}, ALIKE),
        (0.99, {"low": None, "high": None}, ALIKE),
        (0.5, {"better": "less"}, WORSE),
    ],
)
def test_a_model_is_told_from_its_version_before(before, now, verdict):
    rows = model_page.newest(ledger(now | {"value": before}, now | later(1, data_version='{"a": 2}')))
    assert rows[["value", "previous", "versions", "against_previous"]].to_numpy().tolist() == [
        [0.9, before, 2, verdict]
    ]


def test_the_same_data_and_code_again_are_no_new_version():
    rows = model_page.newest(ledger({"value": 0.1}, later(1), later(2)))
    assert rows["versions"].tolist() == [1]
    assert rows["run_id"].tolist() == ["r2"]
    assert rows["against_previous"].tolist() == [None]


def test_a_model_that_the_newest_report_no_longer_has_is_not_on_the_page():
    rows = model_page.newest(ledger({"model": "gone"}, {}, later(1, data_version='{"a": 2}')))
    assert rows["model"].tolist() == ["m"]


def test_what_has_fallen_is_named_with_what_it_fell_below():
    fallen = model_page.fallen(
        model_page.newest(
            ledger(
                {"value": 0.99, "model": "old"},
                {"model": "fine"},
                later(1, model="old", data_version='{"a": 2}'),
                later(1, model="fine", data_version='{"a": 2}'),
                later(1, model="low", baseline_value=0.97, data_version='{"a": 2}'),
            )
        )
    )
    assert fallen.drop(columns=["report", "of"]).to_numpy().tolist() == [
        ["old", "0.9 (0.85 to 0.95)", "", "0.99"],
        ["low", "0.9 (0.85 to 0.95)", "majority 0.97", ""],
    ]


def test_the_page_has_every_model_once_its_verdict_and_its_versions():
    rows = ledger(
        {"value": 0.99},
        {"report": "other/report", "branch": "other", "low": None, "high": None, "interval": None},
        later(1, data_version='{"a": 2}'),
        later(1, data_version='{"a": 2}', model="<b>"),
    )
    report = model_page.report(rows)
    assert report.numbers == {
        "models": 3,
        "better than their baselines": 3,
        "worse than their baselines": 0,
        "figures below the version before": 1,
    }
    assert list(report.tables) == [
        "Below its baseline, or below the version before",
        "other: report",
        "toy: report",
        "Versions",
        "What they were made from",
    ]
    assert report.tables["toy: report"]["is"].tolist() == [BETTER, BETTER]
    assert report.tables["Versions"]["figure"].tolist() == ["0.99 (0.85 to 0.95)", "0.9 (0.85 to 0.95)"]
    pngs = report.pngs()
    assert len(pngs) == 2
    page = report.to_html(pngs)
    assert "&lt;b&gt;" in page
    assert "<td><b>" not in page


def test_a_page_without_any_model_says_so():
    assert model_page.report(ledger()).numbers == {"models": 0}
    assert model_page.newest(ledger()).empty
