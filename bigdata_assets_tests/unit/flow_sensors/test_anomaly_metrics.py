import numpy as np
import pytest

from bigdata_assets.flow_sensors.logic import anomaly_metrics as metrics

NAN = float("nan")


def times(n, interval_s=300):
    return np.datetime64("2020-01-01", "ms") + np.arange(n) * np.timedelta64(interval_s, "s")


def events(labels, flags, stretch=None):
    n = len(labels)
    stretch = np.zeros(n, int) if stretch is None else np.array(stretch)
    return metrics.by_event(
        np.array(labels, np.int8), np.array(flags, bool), stretch, times(n), np.full(n, 300, np.int64)
    )


def test_figures_of_samples():
    labels = np.array([0, 0, 1, 1, -1, 0], np.int8)
    scores = np.array([0.1, 0.4, 0.35, 0.8, 9.0, 0.0])
    flags = np.array([False, True, False, True, True, False])
    found = metrics.by_sample(labels, scores, flags)
    assert found["AP"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert (found["precision"], found["recall"], found["F1"]) == (0.5, 0.5, 0.5)
    assert (found["samples"], found["anomalous"]) == (5, 2)


def test_without_a_score_a_sample_is_the_least_anomalous():
    labels = np.array([1, 0, 0, 0], np.int8)
    none = np.zeros(4, bool)
    assert metrics.by_sample(labels, np.array([NAN, -5, -7, -9.0]), none)["AP"] == 0.25
    assert metrics.by_sample(labels, np.array([NAN] * 4), none)["AP"] == 0.25


def test_figures_that_are_not_defined_are_none():
    nothing = metrics.by_sample(np.zeros(3, np.int8), np.arange(3.0), np.ones(3, bool))
    assert np.isnan([nothing["AP"], nothing["recall"], nothing["F1"]]).all()
    unflagged = metrics.by_sample(np.ones(3, np.int8), np.arange(3.0), np.zeros(3, bool))
    assert np.isnan(unflagged["precision"])
    assert unflagged["F1"] == 0
    empty = events([], [])
    assert (empty["events"], np.isnan(empty["event F1"])) == (0, True)


def test_events_alarms_and_delay():
    #         event of 3            event of 1   event of 2, missed
    labels = [0, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 1]
    flags_ = [0, 0, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0]
    found = events(labels, flags_)
    assert (found["events"], found["event recall"]) == (3, pytest.approx(2 / 3))
    # Alarms: half right, all right, false.
    assert found["event precision"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["event F1"] == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3))
    # Delays of two samples and none.
    assert (found["delay, samples"], found["delay, s"]) == (1, 300)
    assert found["false alarms a day"] == pytest.approx(1 / (12 * 300 / 86_400))


def test_a_flag_before_an_event_is_not_in_it_and_a_gap_ends_both():
    assert events([0, 0, 1, 1], [1, 1, 0, 0])["event recall"] == 0
    assert events([1, 1], [1, 1])["events"] == 1
    apart = events([1, 1], [0, 1], stretch=[0, 1])
    assert (apart["events"], apart["event recall"]) == (2, 0.5)


def test_unknown_labels_are_neither_right_nor_wrong():
    found = events([-1, -1, 1, 0, -1], [1, 0, 1, 0, 1])
    assert (found["event precision"], found["event recall"], found["false alarms a day"]) == (1, 1, 0)
    mixed = events([-1, 1, 0], [1, 1, 1])
    assert mixed["event precision"] == 0.5


def test_what_is_always_flagged_earns_no_more_than_the_share_of_anomalous_samples():
    labels = np.zeros(1_000, np.int8)
    labels[500:520] = 1
    found = events(labels, np.ones(1_000))
    assert (found["event precision"], found["event recall"]) == (0.02, 1)


def test_uniform_noise_is_not_rewarded():
    """With point adjustment, an event counts as wholly found once one of its samples is flagged."""
    rng = np.random.default_rng(0)
    labels = np.zeros(50_000, np.int8)
    for begin in range(2_000, 50_000, 5_000):
        labels[begin : begin + 600] = 1
    scores = rng.random(len(labels))
    flags = scores > 0.99
    adjusted = flags.copy()
    for begin in range(2_000, 50_000, 5_000):
        adjusted[begin : begin + 600] |= flags[begin : begin + 600].any()
    assert metrics.by_sample(labels, scores, adjusted)["F1"] > 0.9
    found = metrics.by_sample(labels, scores, flags) | events(labels, flags)
    assert found["F1"] < 0.05
    assert found["AP"] < 0.15  # 0.12 are anomalous
    assert found["event F1"] < 0.3


def test_an_event_is_of_one_block():
    labels = np.zeros(4, np.int8)
    labels[1:3] = 1
    at = np.array(["2020-01-01", "2020-01-08", "2020-01-09", "2020-01-09"], "datetime64[ms]")
    at[1] = np.datetime64("2020-01-01T12", "ms")
    block = metrics.blocks(labels, np.zeros(4, int), at)
    assert block[0] == block[1] == block[2] != block[3]


def test_intervals_hold_the_value_and_are_the_same_each_time():
    rng = np.random.default_rng(1)
    n = 20_000
    labels = (rng.random(n) < 0.1).astype(np.int8)
    scores = labels + rng.normal(size=n)
    flags = scores > 1.5
    block = np.arange(n) // 400
    found = metrics.intervals(labels, scores, flags, block)
    assert found == metrics.intervals(labels, scores, flags, block)
    value = metrics.by_sample(labels, scores, flags)
    for name in ("AP", "F1"):
        low, high = found[name]
        assert low < value[name] < high
        assert 0.005 < high - low < 0.1
    assert all(np.isnan(metrics.intervals(np.zeros(n, np.int8), scores, flags, block)["AP"]))


def test_one_block_has_no_width_and_is_the_value_itself():
    labels = np.array([0, 1, 0, 1, -1], np.int8)
    scores, flags = np.array([0.1, 0.2, 0.9, 0.9, 0.4]), np.array([0, 0, 1, 1, 1], bool)
    found = metrics.intervals(labels, scores, flags, np.zeros(5, int))
    value = metrics.by_sample(labels, scores, flags)
    assert found["AP"] == (pytest.approx(value["AP"]),) * 2
    assert found["F1"] == (pytest.approx(value["F1"]),) * 2


def test_draws_without_an_anomalous_sample_say_nothing():
    labels, flags = np.array([1, 0, 0], np.int8), np.array([1, 0, 0], bool)
    found = metrics.intervals(labels, np.array([0.9, 0.1, 0.2]), flags, np.arange(3))
    assert found == {"AP": (1, 1), "F1": (1, 1)}


def test_the_curve_goes_through_its_thresholds():
    labels = np.array([1, 0, 1, 0], np.int8)
    recall, precision = metrics.precision_recall(labels, np.array([0.9, 0.8, 0.7, 0.1]), 50)
    assert recall.tolist() == [0.5, 1.0]
    assert precision.tolist() == pytest.approx([1, 2 / 3])
    assert len(metrics.precision_recall(np.zeros(3, np.int8), np.arange(3.0), 50)[0]) == 0
