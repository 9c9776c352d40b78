import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from bigdata_assets.crimes.logic import metrics


def test_figures_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels = rng.random(500) < 0.3
    probabilities = np.clip(labels * 0.3 + rng.random(500) * 0.6, 0, 1)
    found = metrics.batch_metrics(labels, probabilities)
    decided = probabilities > 0.5
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, decided))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, decided))
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(labels, probabilities))
    assert found["log_loss"] == pytest.approx(sk.log_loss(labels, probabilities))
    assert found["precision"] == pytest.approx(sk.precision_score(labels, decided))
    assert found["recall"] == pytest.approx(sk.recall_score(labels, decided))
    assert found["bias"] == pytest.approx(probabilities.mean() - labels.mean())


@pytest.mark.parametrize("labels", [[True, True], [False, False], []])
def test_what_is_not_defined_is_null(labels):
    found = metrics.batch_metrics(np.array(labels, bool), np.array([0.1] * len(labels)))
    assert found["roc_auc"] is None
    assert found["balanced_accuracy"] is None
    assert found["precision"] is None


def test_a_certain_mistake_costs_a_finite_log_loss():
    assert metrics.batch_metrics(np.array([True, False]), np.array([0.0, 1.0]))["log_loss"] == pytest.approx(
        34.5, abs=0.1
    )


def test_calibration_error_of_known_bins():
    labels = np.array([True] * 8 + [False] * 2 + [True] * 1 + [False] * 9)
    probabilities = np.array([0.85] * 10 + [0.25] * 10)
    assert metrics.calibration_error(labels, probabilities) == pytest.approx((0.05 + 0.15) / 2)


def test_cumulative_figures_are_those_of_all_reports_together():
    rows = pd.DataFrame(
        {
            "batch": ["a", "b", "c"],
            "model": "m",
            "scored_reports": [10, 0, 30],
            "correct": [5, 0, 30],
            "log_loss": [1.0, None, 0.5],
            "bias": [0.2, None, 0.0],
        }
    )
    found = metrics.cumulative(rows, 2)
    assert found["cumulative_accuracy"].tolist() == [0.5, 35 / 40]
    assert found["cumulative_log_loss"].iloc[-1] == pytest.approx((10 + 15) / 40)
    assert found["rolling_bias"].iloc[-1] == pytest.approx(2 / 40)


def test_half_an_interval_is_students_where_batches_weigh_the_same():
    from scipy.stats import sem, t

    values = np.random.default_rng(0).random(9)
    expected = t.ppf(0.975, 8) * sem(values)
    rows = pd.DataFrame({"value": [*values, np.nan, 0.5], "weight": [*[40.0] * 9, 40.0, 0.0]})
    assert metrics.half_width(rows["value"], rows["weight"]) == pytest.approx(expected), "none and weightless left out"
    assert np.isnan(metrics.half_width(rows["value"][:1], rows["weight"][:1]))
