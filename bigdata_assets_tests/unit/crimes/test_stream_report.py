import pandas as pd

from bigdata_assets.crimes.logic import stream_report
from bigdata_assets.crimes.logic.online import LOOK_UP, MAJORITY
from bigdata_assets.crimes.tables import BATCH_METRICS


def test_a_stream_without_a_report_that_counts_has_a_report():
    row = {"batch": "b0", "model": LOOK_UP, "scored_reports": 0, "correct": 0, "left_out": 9}
    metrics = pd.DataFrame([row, {**row, "model": "online_sgd"}]).reindex(columns=BATCH_METRICS.column_names)
    assert "1 batches" in stream_report.report(metrics, pd.DataFrame(), ["b0"], {}).summary


def test_a_model_is_beside_the_look_up_on_its_own_batches():
    order = ["b0", "b1", "b2", "b3"]
    right = {
        MAJORITY: [50, 50, 50, 50],
        LOOK_UP: [100, 100, 80, 80],  # at first it was easy
        "late": [None, None, 85, 85],
        "online_sgd": [95, 95, 81, 81],
    }
    rows = [
        {"batch": batch, "model": model, "scored_reports": 100, "correct": n, "log_loss": 0.1, "bias": 0.0}
        for model, counts in right.items()
        for batch, n in zip(order, counts, strict=True)
        if n is not None
    ]
    metrics = pd.DataFrame(rows).reindex(columns=BATCH_METRICS.column_names)
    report = stream_report.report(metrics, pd.DataFrame(), order, {})
    found = {e.model: (e.value, e.baseline_value) for e in report.evaluations if e.metric == "accuracy"}
    assert found == {"late": (0.85, 0.8), "online_sgd": (0.88, 0.9)}
    assert "late is the best: accuracy 0.8500, the look-up on the same batches 0.8000" in report.summary
