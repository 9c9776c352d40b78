import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from bigdata_assets.flow_sensors.logic import correlations
from bigdata_assets.flow_sensors.logic.series import SiteSeries
from bigdata_assets.flow_sensors.tables import SITE_CORRELATIONS

T0 = np.datetime64("2020-01-01", "ms")


def series(site, columns, interval_s=900, begin=T0, labels=None):
    values = np.stack([np.asarray(its, np.float32) for its in columns.values()], axis=1)
    n = len(values)
    return SiteSeries(
        site,
        tuple(columns),
        interval_s,
        begin + np.arange(n) * np.timedelta64(interval_s, "s"),
        values,
        np.zeros(n, np.int8) if labels is None else np.asarray(labels, np.int8),
        np.zeros(n, np.int32),
        np.zeros(n, np.int32),
        np.zeros(n, np.int8),
    )


def smooth(n, seed=0):
    return np.convolve(np.random.default_rng(seed).normal(size=n + 20), np.ones(21), "valid")


def only(*of, **options):
    found = correlations.correlations(of, **options)
    assert tuple(found.columns) == tuple(SITE_CORRELATIONS.column_names)
    return found.iloc[0]


def test_a_lag_is_of_the_second_behind_the_first():
    flow = smooth(1_000)
    found = only(series("a", {"flow": flow, "level": np.exp(np.roll(flow, 8))}))
    assert (found["channel_a"], found["channel_b"], found["samples"]) == ("flow", "level", 1_000)
    assert (found["best_lag_s"], found["best_correlation"]) == (8 * 900, pytest.approx(1, abs=1e-3))
    assert found["correlation"] == pytest.approx(spearmanr(flow, np.roll(flow, 8))[0], abs=1e-3)
    other = only(series("a", {"level": np.roll(flow, 8), "flow": -flow}))
    assert (other["best_lag_s"], other["best_correlation"]) == (-8 * 900, pytest.approx(-1, abs=1e-3))


def test_lags_beyond_the_bound_are_not_tried():
    flow = smooth(1_000)
    assert abs(only(series("a", {"flow": flow, "level": np.roll(flow, 30)}), most_lag_s=3_600)["best_lag_s"]) <= 3_600


def test_without_a_lag_the_best_is_the_one_at_none():
    flow = smooth(500)
    found = only(series("a", {"flow": flow, "level": flow**3}))
    assert (found["best_lag_s"], found["correlation"], found["best_correlation"]) == (0, 1, 1)


def test_two_sites_are_put_on_common_times():
    flow = smooth(1_000)
    first = series("a", {"flow": flow}, 300, T0)
    # Every third of them, a minute late, from the 30th on.
    second = series("b", {"flow": flow[30::3]}, 900, T0 + np.timedelta64(30 * 300 + 60, "s"))
    found = only(first, second)
    assert (found["site_a"], found["site_b"], found["best_lag_s"]) == ("a", "b", 0)
    assert found["correlation"] > 0.99
    assert 315 <= found["samples"] <= 324


def test_a_gap_is_not_filled_from_far_away():
    flow = smooth(1_000)
    first = series("a", {"flow": flow})
    rows = np.ones(1_000, bool)
    rows[300:500] = False
    assert only(first, series("b", {"flow": flow}).taken(rows))["samples"] == 800


def test_anomalous_samples_and_nulls_are_left_out():
    flow, level = smooth(1_000), smooth(1_000)
    labels = np.zeros(1_000, np.int8)
    labels[200:400] = 1
    level[200:400] = 99
    level[500:510] = np.nan
    found = only(series("a", {"flow": flow, "level": level}, labels=labels))
    assert (found["samples"], found["correlation"]) == (790, pytest.approx(1))


def test_what_is_not_defined_is_null():
    constant = only(series("a", {"flow": smooth(500), "level": np.ones(500)}))
    assert np.isnan([constant["correlation"], constant["best_lag_s"], constant["best_correlation"]]).all()
    few = only(series("a", {"flow": smooth(50), "level": smooth(50)}))
    assert (few["samples"], np.isnan(few["correlation"])) == (50, True)
    apart = series("b", {"flow": smooth(500)}, begin=T0 + np.timedelta64(900, "D"))
    assert correlations.correlations([series("a", {"flow": smooth(500)}), apart]).empty
    assert correlations.correlations([]).empty


def test_pairs_and_samples_are_bounded():
    many = [series(site, {name: smooth(2_000, number) for number, name in enumerate("pqr")}) for site in "ab"]
    found = correlations.correlations(many, most_pairs=7, most_samples=600)
    assert len(found) == 7
    assert found["samples"].unique().tolist() == [500]  # every fourth of 2,000
    assert (found["site_a"] == found["site_b"]).tolist() == [True] * 6 + [False]
    assert (found["best_lag_s"] % 3_600 == 0).all()


def test_a_report_of_the_strongest():
    flow = smooth(500)
    sites = [series("a $x$", {"flow": flow, "level": np.roll(flow, 4)}), series("b", {"flow": smooth(500, 1)})]
    report = correlations.report(correlations.correlations(sites), sites)
    assert "a $x$ flow and a $x$ level: 0.99 at a lag of 1 h" in report.summary.replace("1.00", "0.99")
    assert report.numbers["pairs"] == 3
    assert all(report.pngs(50).values())
    nothing = correlations.report(pd.DataFrame(columns=SITE_CORRELATIONS.column_names), [])
    assert "materialise windows" in nothing.summary
