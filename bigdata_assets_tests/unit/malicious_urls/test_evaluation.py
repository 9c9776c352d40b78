import numpy as np
import pytest

from bigdata_assets.malicious_urls.logic import evaluation as ev

CLASSES = ["benign", "malware"]


def test_measures_of_known_answers():
    truth = np.array(["benign", "benign", "malware", "malware"])
    p = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]])
    found = ev.measures(truth, p, CLASSES)
    assert found["accuracy"] == 0.75
    assert found["balanced accuracy"] == 0.75
    assert found["ROC AUC"] == 1.0
    assert found["PR AUC"] == 1.0
    assert found["Brier"] == pytest.approx((0.01 + 0.36 + 0.09 + 0.04) / 4)
    assert np.isnan(found["TPR at FPR 0.10%"])


def test_a_row_of_unknown_kind_counts_as_malicious_and_for_no_class():
    truth = np.array(["benign", "malware", "malicious"])
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.95, 0.05]])
    found = ev.measures(truth, p, CLASSES)
    assert found["accuracy"] == 1
    assert found["ROC AUC"] == 0.5
    assert ev.per_class(truth, p, CLASSES)["rows"].tolist() == [1, 1]
    truth[1] = "malicious"
    assert ev.measures(truth, p, ["benign", "malicious"])["accuracy"] == pytest.approx(2 / 3)


def test_the_interval_of_auc_is_wide_where_rows_come_from_few_domains():
    generator = np.random.default_rng(0)
    positive = generator.integers(2, size=2_000) == 1
    score = positive + generator.normal(scale=2, size=2_000)
    auc = ev.measures(
        np.where(positive, "malware", "benign"), np.stack([9 - score, score - 8], axis=1), CLASSES
    )["ROC AUC"]  # fmt: skip
    many, few = (ev.auc_interval(positive, score, np.arange(2_000) // size) for size in (1, 400))
    assert many[0] < auc < many[1]
    assert 0.02 < many[1] - many[0] < 0.08
    alone = ev.auc_interval(positive, score, np.where(positive, 0, np.arange(2_000) % 3 + 1))
    assert alone != many
    assert ev.auc_interval(positive, positive * 1.0, np.arange(2_000)) == (1, 1)
    assert few != many


def test_tpr_at_a_false_positive_rate():
    score = np.concatenate([np.arange(1000) / 1000, [0.9985, 0.99, 0.5, 2.0]])
    positive = np.concatenate([np.zeros(1000, bool), np.ones(4, bool)])
    # One negative in a thousand, .999, may be exceeded: the threshold is .998, and .9985 and 2 are above it.
    assert ev.tpr_at_fpr(positive, score, 1e-3) == 0.5
    assert np.isnan(ev.tpr_at_fpr(positive, score, 1e-4))


def test_calibration_error_is_zero_for_a_calibrated_score_and_large_for_a_sure_wrong_one():
    positive = np.array([True] * 3 + [False] * 7)
    assert ev.expected_calibration_error(positive, np.full(10, 0.3)) == pytest.approx(0)
    assert ev.expected_calibration_error(positive, np.full(10, 1.0)) == pytest.approx(0.7)


def test_baselines_come_from_the_training_rows_alone():
    train_urls = ["http://a", "http://b", "c", "d", "e"]
    train = np.array(["malware", "malware", "benign", "benign", "malware"])
    majority = ev.majority_probabilities(train, 2, CLASSES)
    np.testing.assert_allclose(majority, [[0.4, 0.6]] * 2)
    rule = ev.scheme_probabilities(train_urls, train, ["http://x", "y", "ftp://z"], CLASSES)
    np.testing.assert_allclose(rule, [[0, 1], [2 / 3, 1 / 3], [0.4, 0.6]])


@pytest.mark.parametrize(("url", "expected"), [("HTTP://a", "http"), ("https://a", "https"), ("a.com/x", ""), ("", "")])
def test_scheme(url, expected):
    assert ev.scheme(url) == expected


def test_interval():
    mean, half = ev.interval([0.8, 0.9])
    assert mean == pytest.approx(0.85)
    assert half == pytest.approx(12.706 * 0.0707107 / 2**0.5, rel=1e-3)
    assert np.isnan(ev.interval([0.5])[1])
