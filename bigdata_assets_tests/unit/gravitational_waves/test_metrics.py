import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigdata_assets.gravitational_waves.logic.classifiers.metrics import (
    interval,
    recall_at,
    repeated_folds,
    roc_auc,
    threshold,
    told,
)


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), min_size=1, max_size=60).filter(
        lambda rows: not all(signal for _, signal in rows)
    ),
    st.sampled_from([0.01, 0.1, 0.5]),
)
def test_a_threshold_lets_through_no_more_than_it_may(rows, max_fpr):
    scores, is_signal = (np.array(column) for column in zip(*rows, strict=True))
    others = scores[~is_signal.astype(bool)]
    assert np.mean(others > threshold(scores, is_signal, max_fpr)) <= max_fpr


def test_few_others_give_their_highest_score():
    assert threshold([5, 1, 2, 3], [True, False, False, False], 0.01) == 3
    assert recall_at([5, 2.5, 1, 2, 3], [True, True, False, False, False], 0.01) == 0.5


def test_signals_alone_give_no_threshold():
    with pytest.raises(ValueError, match="signals alone"):
        threshold([1, 2], [True, True], 0.01)


def test_auc_of_one_kind_is_no_number():
    assert roc_auc([1, 2, 3], [False, False, True]) == 1
    assert np.isnan(roc_auc([1, 2], [True, True]))


def test_each_repeat_deals_all_rows_into_folds_alike_in_signals():
    is_signal = np.arange(90) < 6
    first, second = repeated_folds(is_signal, 3, 2, seed=0)
    assert [np.bincount(fold[is_signal]).tolist() for fold in (first, second)] == [[2, 2, 2]] * 2
    assert [np.bincount(fold).tolist() for fold in (first, second)] == [[30, 30, 30]] * 2
    assert (first != second).any()


def test_one_repeat_has_no_percentiles():
    assert interval([0.5, 0.7]) == pytest.approx((0.6, 0.51, 0.69))
    mean, low, high = interval([0.5])
    assert mean == 0.5
    assert np.isnan([low, high]).all()
    assert told({"auc": 0.6, "auc_p5": 0.51, "auc_p95": 0.69}, "auc") == "0.600 (0.510 to 0.690)"
    assert told({"auc": 0.5, "auc_p5": low, "auc_p95": high}, "auc") == "0.500"
