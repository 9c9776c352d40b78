import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bigdata_assets import settings as settings_module
from bigdata_assets.flow_sensors.logic import anomaly_models, estimators, features, series
from bigdata_assets.flow_sensors.logic.anomaly_models import FAST, MODELS, NETWORKS, SUPERVISED
from bigdata_assets.flow_sensors.logic.series import EDITED, TEST, TRAIN, UNKNOWN, VALIDATION, SiteSeries

TINY = replace(FAST, length=12, step=6, windows=300, epochs=4, rows=2_000, few_rows=500, trees=30, seeds=1, threads=1)
COUNTED = [name for name in MODELS if name not in NETWORKS]


def site(name="a", n=1_500, seed=0, channels=("flow", "level"), every=29):
    """A daily wave of which each 29th sample is 0, which is known to be anomalous."""
    rng = np.random.default_rng(seed)
    wave = 5 + np.sin(np.arange(n)[:, None] / 15) + rng.normal(0, 0.1, (n, len(channels)))
    labels = (np.arange(n) % every == 7).astype(np.int8)
    wave[labels == 1, 0] = 0
    return SiteSeries(
        name,
        channels,
        900,
        np.datetime64("2024-01-01", "ms") + np.arange(n) * np.timedelta64(900_000, "ms"),
        wave.astype(np.float32),
        labels,
        np.repeat([0, 1], [n // 3, n - n // 3]).astype(np.int32),
        np.zeros(n, np.int32),
        np.digitize(np.arange(n) / n, (0.6, 0.8)).astype(np.int8),
    )


def with_values(one, rows, values):
    changed = one.values.copy()
    changed[rows] = values
    return replace(one, values=changed)


@pytest.fixture(scope="module")
def fitted():
    """The models that are fitted, once each."""
    known = {}

    def get(name):
        if name not in known:
            known[name] = anomaly_models.fit(name, [site(), site("b", seed=1, channels=("level", "turbidity"))], TINY)
        return known[name]

    return get


@pytest.mark.parametrize("name", MODELS)
def test_a_model_scores_every_sample_of_sites_whose_channels_differ(name, fitted):
    model = fitted(name)
    assert model.parameters["channels"] == ["flow", "level", "turbidity"]
    assert json.loads(json.dumps(dict(model.parameters))) == model.parameters
    assert json.loads(json.dumps(dict(model.metrics))) == model.metrics
    assert model.metrics["threshold"] == model.threshold
    assert (model.network is None, model.estimator is None) == (name not in NETWORKS, name in NETWORKS)
    assert bool(model.history) == (name in NETWORKS)
    for one in (site(seed=2), site("unseen", seed=3)):
        scores = anomaly_models.scores(model, one)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", [name for name in MODELS if name != "kmeans"])
def test_what_is_plain_is_found(name, fitted):
    """By spectra not as well, and by centres not at all: a value is one of many figures that these weigh alike."""
    one = site(seed=2)
    truth = one.labels[one.split == TEST]
    scores = anomaly_models.scores(fitted(name), one.taken(one.split == TEST))
    found = anomaly_models.figures(truth, scores, fitted(name).threshold)
    assert found["baseline_average_precision"] < 0.05
    if name == "spectrogram_cnn":
        assert found["average_precision"] > 0.25
    else:
        assert min(found["average_precision"], found["f1"]) > 0.9


@pytest.mark.parametrize("name", MODELS)
def test_wanted_rows_have_the_scores_that_all_have(name, fitted, monkeypatch):
    monkeypatch.setattr(features, "PIECE", 128)
    one, model = site(seed=2), fitted(name)
    model = replace(model, parameters={**model.parameters, "smoothing": 5})
    wanted = np.zeros(len(one), bool)
    wanted[[3, 900, 901, 1_499]] = True
    some = anomaly_models.scores(model, one, wanted)
    np.testing.assert_allclose(some[wanted], anomaly_models.scores(model, one)[wanted], rtol=1e-4, atol=1e-5)
    assert np.isnan(some[~wanted]).all()


@pytest.mark.parametrize("name", ["lightgbm", "fcn"])
def test_only_what_wanted_rows_need_is_worked_on(name, fitted, monkeypatch):
    monkeypatch.setattr(features, "PIECE", 128)
    one, asked = site(seed=2), []
    inputs, statistics = anomaly_models._inputs, features.window_statistics
    monkeypatch.setattr(
        anomaly_models, "_inputs", lambda *args: asked.append(len(args[1]) * TINY.length) or inputs(*args)
    )
    monkeypatch.setattr(
        features, "window_statistics", lambda *args: asked.append(args[0].rows.stop) or statistics(*args)
    )
    wanted = np.zeros(len(one), bool)
    wanted[100] = True
    anomaly_models.scores(replace(fitted(name), parameters={**fitted(name).parameters, "smoothing": 1}), one, wanted)
    assert len(asked) == 1
    assert asked[0] <= 128


@pytest.mark.parametrize("name", ["z_score", "svm", "lightgbm", "fcn"])
def test_nothing_of_the_test_split_is_learnt(name):
    one = site()
    held = one.split == TEST
    other = with_values(one, held, 77)
    other = replace(other, labels=np.where(held, 1 - one.labels, one.labels).astype(np.int8))
    first, second = (anomaly_models.fit(name, [each], TINY) for each in (one, other))
    assert first.parameters == second.parameters
    assert first.metrics == second.metrics
    np.testing.assert_array_equal(anomaly_models.scores(first, one), anomaly_models.scores(second, one))


@pytest.mark.parametrize("name", ["isolation_forest", "lightgbm"])
def test_the_threshold_alone_is_told_by_validation_samples(name):
    one = site()
    held = one.split == VALIDATION
    other = replace(one, labels=np.where(held, np.roll(one.labels, 3), one.labels).astype(np.int8))
    first, second = (anomaly_models.fit(name, [each], TINY) for each in (one, other))
    assert first.threshold != second.threshold
    first, second = (replace(each, parameters={**each.parameters, "smoothing": 1}) for each in (first, second))
    np.testing.assert_array_equal(anomaly_models.scores(first, one), anomaly_models.scores(second, one))


def test_samples_of_unknown_label_are_neither_learnt_nor_judged():
    one = site()
    hidden = np.arange(len(one)) % 2 == 0
    labels = np.where(hidden, UNKNOWN, one.labels).astype(np.int8)
    model = anomaly_models.fit("lightgbm", [replace(one, labels=labels)], TINY)
    rows, learnt, _ = anomaly_models._rows("lightgbm", [replace(one, labels=labels)], model.parameters, 10_000, 0)
    assert len(rows) == (~hidden).sum()
    assert set(learnt) == {0, 1}
    assert model.metrics["samples"] == ((one.split == VALIDATION) & ~hidden).sum()


def test_half_of_few_rows_may_be_anomalous():
    parameters = anomaly_models.fit("z_score", [site()], TINY).parameters
    _, labels, _ = anomaly_models._rows("svm", [site()], parameters, 20, 0)
    assert len(labels) == 20
    assert labels.sum() == 10


def test_what_learns_from_labels_says_that_there_are_none():
    one = replace(site(), labels=np.full(1_500, UNKNOWN, np.int8))
    for name in SUPERVISED:
        with pytest.raises(ValueError, match=f"{name} learns from those.*rule, z_score"):
            anomaly_models.fit(name, [one], TINY)


@pytest.mark.parametrize("name", ["z_score", "kmeans"])
def test_without_labels_the_threshold_is_a_quantile_of_the_training_scores(name):
    one = site()
    one = replace(one, labels=np.full(len(one), UNKNOWN, np.int8))
    model = anomaly_models.fit(name, [one], TINY)
    scores = anomaly_models.scores(model, one.taken(one.split == TRAIN))
    assert (scores >= model.threshold).mean() == pytest.approx(0.01, abs=0.002)
    assert model.parameters["threshold_of"].startswith("no validation sample is anomalous: quantile 0.99")
    assert model.metrics["samples"] == 0


def test_nothing_can_be_fitted_on_nothing():
    with pytest.raises(ValueError, match="no training sample is there"):
        anomaly_models.fit("rule", [], TINY)
    with pytest.raises(ValueError, match="no model 'forest'; there are rule, "):
        anomaly_models.fit("forest", [site()], TINY)


def test_a_sample_of_which_nothing_can_be_told_has_no_score(fitted):
    one = with_values(site(), [40], np.nan)
    assert list(np.flatnonzero(np.isnan(anomaly_models.scores(fitted("z_score"), one)))) == [40]
    short = site(n=30).taken(np.arange(30) < TINY.length - 1)  # shorter than a window
    assert np.isnan(anomaly_models.scores(fitted("fcn"), short)).all()
    assert np.isfinite(anomaly_models.scores(fitted("lightgbm"), short)).all()
    assert len(anomaly_models.scores(fitted("fcn"), short.taken(np.zeros(len(short), bool)))) == 0
    assert len(anomaly_models.scores(fitted("lightgbm"), short.taken(np.zeros(len(short), bool)))) == 0


def test_windows_cover_stretches_that_are_long_enough():
    one = site(n=60)  # stretches of 20 and 40
    assert list(anomaly_models.covering(one, 12, 6)) == [0, 6, 8, 20, 26, 32, 38, 44, 48]
    assert list(anomaly_models.covering(one, 25, 25)) == [20, 35]


def test_smoothing_is_a_mean_within_a_stretch():
    of = np.array([0, 3, np.nan, 6, 1, 5], np.float32)
    stretch = np.array([0, 0, 0, 0, 1, 1])
    np.testing.assert_allclose(anomaly_models.smoothed(of, stretch, 3), [1.5, 1.5, np.nan, 6, 3, 3])
    np.testing.assert_array_equal(anomaly_models.smoothed(of, stretch, 1), of)


def test_smoothing_is_chosen_where_labels_come_in_runs():
    one = site(n=3_000)
    labels = (np.arange(3_000) % 300 < 100).astype(np.int8)
    noise = np.random.default_rng(0).normal(size=(3_000, 2)).astype(np.float32)
    runs = replace(one, labels=labels, values=noise + 5 * labels[:, None] * (noise > 0.5))
    assert anomaly_models.fit("lightgbm", [runs], TINY).parameters["smoothing"] > 1
    assert anomaly_models.fit("lightgbm", [one], TINY).parameters["smoothing"] == 1


def test_the_best_threshold_is_that_of_the_best_f1():
    labels = np.array([0, 0, 0, 1, 1], bool)
    assert anomaly_models.best_threshold(labels, np.array([0, 1, 2, 6, 9], np.float32)) == 6
    assert anomaly_models.best_threshold(labels, np.array([0, 1, 7, 6, 9], np.float32)) == 6
    assert anomaly_models.best_threshold(labels, np.array([7, 7, 7, 6, 9], np.float32)) == 9


def test_figures_have_known_values():
    labels = np.array([1, 1, 0, 0, UNKNOWN], np.int8)
    found = anomaly_models.figures(labels, np.array([0.9, np.nan, 0.8, 0.1, 1], np.float32), 0.5)
    assert found == {
        "samples": 4,
        "anomalous": 2,
        "flagged": 2,
        "average_precision": 0.75,
        "baseline_average_precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
        "precision": 0.5,
    }
    assert anomaly_models.figures(np.zeros(2, np.int8), np.zeros(2, np.float32), 1) == {
        "samples": 2,
        "anomalous": 0,
        "flagged": 0,
    }


def test_the_rule_on_a_real_channel():
    place = settings_module.load().sources
    path = f"{place}/flow_sensors/carldata_velocity/anomalies.csv.gz"
    if place == "sample":
        pytest.skip("BIGDATA_SOURCES names no folder with real data")
    rows = pd.read_csv(path)
    samples = pd.DataFrame(
        {
            "channel": "velocity",
            "observed_at": pd.to_datetime(rows["time"], utc=True),
            "value": rows["velocity"],
            "quality": None,
            "edited": rows["velocity_edited"],
        }
    )
    one = series.align("sewer", samples, EDITED)
    model = anomaly_models.fit("rule", [one], FAST)
    found = anomaly_models.figures(one.labels, anomaly_models.scores(model, one), model.threshold)
    assert found["precision"] > 0.995  # the first row is a start artefact that nobody has edited
    assert found["recall"] == pytest.approx(0.916, abs=0.001)
    assert isinstance(model.estimator, estimators.Rule)
