import numpy as np
import pytest

from bigdata_assets.flow_sensors.logic import features
from bigdata_assets.flow_sensors.logic.series import TRAIN, SiteSeries

T = 12


def series(values, stretch=None, site="a", channels=None, interval_s=900):
    values = np.asarray(values, np.float32).reshape(len(values), -1)
    n = len(values)
    return SiteSeries(
        site,
        tuple(channels or "abcdefgh"[: values.shape[1]]),
        interval_s,
        np.datetime64("2024-01-01", "ms") + np.arange(n) * np.timedelta64(interval_s * 1000, "ms"),
        values,
        np.zeros(n, np.int8),
        np.zeros(n, np.int32) if stretch is None else np.asarray(stretch, np.int32),
        np.zeros(n, np.int32),
        np.full(n, TRAIN, np.int8),
    )


def statistics(one, rows=None):
    """All rows' statistics; NaN where they were not asked for."""
    scalers = {one.site: dict.fromkeys(one.channels, (0.0, 1.0))}
    reach = features.statistics_reach(T, one.interval_s)
    found = np.full((len(one), len(features.statistic_names(one.channels, T))), np.nan)
    for piece in features.pieces(one, one.channels, scalers, reach, rows):
        found[piece.rows] = features.window_statistics(piece, T)
    return found


def test_a_scaler_is_median_and_quartiles_of_what_is_known():
    values = np.array(
        [[1, 5, np.nan, 0], [2, 5, np.nan, 0], [3, 5, np.nan, 0], [4, 5, np.nan, 0], [np.nan, 5, np.nan, 9]]
    )
    assert features.scaler(values) == [(2.5, 1.5), (5, 5), (0, 1), (0, pytest.approx(3.6))]


def test_channels_are_those_of_the_model_and_the_rest_is_missing():
    one = series([[1.0, 10.0], [3.0, 20.0]], channels=("level", "new"))
    apply = features.scaling(one, ("flow", "level"), {"a": {"level": (1, 2), "flow": (0, 1)}})
    scaled, raw = apply(one.values)
    np.testing.assert_array_equal(scaled, [[np.nan, 0], [np.nan, 1]])
    np.testing.assert_array_equal(raw, [[np.nan, 1], [np.nan, 3]])
    # A channel that the model has of other sites has no scale at this one.
    np.testing.assert_array_equal(
        features.scaling(one, ("level", "new"), {"a": {"level": (1, 2)}})(one.values)[0], [[0, np.nan], [1, np.nan]]
    )


def test_a_site_that_was_not_trained_on_is_scaled_by_its_own_values():
    one = series([1.0, 2, 3, 4, 5], site="unseen")
    scaled, _ = features.scaling(one, ("a",), {"other": {"a": (100, 1)}})(one.values)
    np.testing.assert_array_equal(scaled[:, 0], [-1, -0.5, 0, 0.5, 1])


def test_runs_end_with_another_value_and_with_a_stretch():
    values = np.array([[1, 1, 1, 2, 2, np.nan, np.nan, 2]], np.float32).T
    stretch = np.array([0, 0, 1, 1, 1, 1, 1, 1], np.int32)
    np.testing.assert_array_equal(features.run_lengths(values, stretch)[:, 0], [2, 2, 1, 2, 2, 0, 0, 1])


@pytest.mark.parametrize(
    ("by", "expected"), [(1, [2, np.nan, 4, np.nan]), (-1, [np.nan, 1, np.nan, 3]), (9, [np.nan] * 4)]
)
def test_a_shift_stays_in_its_stretch(by, expected):
    values = np.array([[1.0, 2, 3, 4]], np.float32).T
    np.testing.assert_array_equal(features.shifted(values, np.array([0, 0, 1, 1]), by)[:, 0], expected)


def test_windows_are_cut_at_the_ends_of_a_stretch():
    around = features.Around(np.array([0, 0, 0, 1, 1]), 1, 1)
    np.testing.assert_array_equal(around.low, [0, 0, 1, 3, 3])
    np.testing.assert_array_equal(around.high, [2, 3, 3, 5, 5])


def test_the_cycle_of_the_day():
    times = np.array(["2024-01-01T06:00", "1969-12-31T18:00"], "datetime64[ms]")
    np.testing.assert_allclose(features.cycles(times), [[1, 0], [-1, 0]], atol=1e-6)


def test_the_rule_is_told_of_values_that_are_not_positive_and_of_flat_lines():
    one = series([1, 0, -1, *[7] * T, 8])
    (piece,) = features.pieces(one, ("a",), {}, T)
    not_positive, flat = features.rule_features(piece, T).T
    assert list(np.flatnonzero(not_positive)) == [1, 2]
    assert list(np.flatnonzero(flat)) == list(range(3, 3 + T))


def test_robust_z_is_in_median_absolute_deviations():
    values = np.tile([-1.0, 0, 1], 20)
    values[30] = 21
    one = series(values)
    (piece,) = features.pieces(one, ("a",), {"a": {"a": (0, 1)}}, 60)
    z = features.robust_z(piece, 60)[:, 0]
    assert z[30] == pytest.approx(20 / (1.4826 + features.FLOOR), rel=1e-5)  # cut at CLIP
    assert np.delete(z, 30).max() == pytest.approx(1 / (1.4826 + features.FLOOR), rel=1e-5)


def test_statistics_have_a_name_each_and_say_what_it_says():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.1, (400, 2))
    values[200, 1] += 8
    names = features.statistic_names(("a", "b"), T)
    found = dict(zip(names, statistics(series(values)).T, strict=True))
    assert len(set(names)) == len(names)
    for name in ("spike, b", "window off, b", "window off, most"):
        assert np.nanargmax(found[name]) == 200
        assert found[name][200] == pytest.approx(8, abs=0.5)
    np.testing.assert_allclose(found["step from before, b"][1:], np.diff(values[:, 1]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["step to next, b"][:-1], np.diff(values[:, 1]), rtol=1e-4, atol=1e-6)
    assert np.isnan(found["step from before, a"][0])


def test_statistics_never_look_over_the_end_of_a_stretch():
    values = np.random.default_rng(0).normal(size=(300, 2))
    stretch = np.repeat([0, 1], 150)
    before = statistics(series(values, stretch))
    values[150:] += 5
    np.testing.assert_array_equal(statistics(series(values, stretch))[:150], before[:150])


def test_pieces_give_what_the_whole_gives(monkeypatch):
    values = np.random.default_rng(0).normal(size=(3_000, 2))
    values[700:1_900, 0] = 3
    one = series(values, np.repeat([0, 1], [2_200, 800]))
    whole = statistics(one)
    monkeypatch.setattr(features, "PIECE", 256)
    np.testing.assert_allclose(statistics(one), whole, rtol=1e-4, atol=1e-4)
    wanted = np.zeros(len(one), bool)
    wanted[1_300] = True
    some = statistics(one, wanted)
    np.testing.assert_array_equal(some[1_280:1_536], statistics(one)[1_280:1_536])
    assert np.isnan(some[:1_280]).all()


def test_networks_read_values_steps_and_what_is_missing():
    windows = np.array([[[1.0], [3.0], [np.nan], [2.0]]], np.float32)
    found = features.network_inputs(windows, np.zeros((1, 4), "datetime64[ms]"))
    assert found.shape == (1, 4, 5)
    np.testing.assert_array_equal(found[0, :, :3], [[1, 0, 0], [3, 2, 0], [0, 0, 1], [2, 0, 0]])
