import numpy as np
import pytest
import skops.io

from bigdata_assets.flow_sensors.logic import estimators

DETECTORS = {
    "rule": estimators.Rule,
    "largest": estimators.Largest,
    "random cuts": lambda: estimators.random_cuts(20, 0, 1),
    "centre distance": lambda: estimators.centre_distance(3, 0),
    "support vectors": lambda: estimators.support_vectors(20, 0),
    "boosted trees": lambda: estimators.BoostedTrees(trees=20, seeds=2, threads=1),
}


def rows(n=400, seed=0):
    """Rows of six figures; of the anomalous ones two are far out."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 50 == 0).astype(np.int8)
    figures = rng.normal(size=(n, 6)).astype(np.float32)
    figures[labels == 1, :2] += 8
    figures[7, 3] = np.nan
    return figures, labels


@pytest.mark.parametrize("name", [name for name in DETECTORS if name != "rule"])
def test_anomalous_rows_score_higher_and_a_stored_detector_says_the_same(name):
    figures, labels = rows()
    detector = DETECTORS[name]().fit(figures, labels)
    scores = detector.decision_function(figures)
    assert scores[labels == 1].min() > np.quantile(scores[labels == 0], 0.99)
    data = skops.io.dumps(detector)
    assert set(skops.io.get_untrusted_types(data=data)) <= set(estimators.TRUSTED_TYPES)
    loaded = skops.io.loads(data, trusted=list(estimators.TRUSTED_TYPES))
    np.testing.assert_array_equal(loaded.decision_function(figures), scores)


def test_the_rule_counts_what_is_rare():
    # Two channels: the first is 0 or less in half of the rows, the second in one of 40; then flat lines.
    figures = np.zeros((40, 4), np.float32)
    figures[:20, 0] = 1
    figures[5, 1] = 1
    figures[10:30, 2] = 1
    scores = estimators.Rule().fit(figures).decision_function(figures)
    assert list(np.flatnonzero(scores)) == [5, *range(10, 30)]
    loaded = skops.io.loads(skops.io.dumps(estimators.Rule().fit(figures)), trusted=list(estimators.TRUSTED_TYPES))
    np.testing.assert_array_equal(loaded.decision_function(figures), scores)


def test_seeds_are_averaged_and_kept_as_text():
    figures, labels = rows()
    both = estimators.BoostedTrees(trees=10, seeds=2, seed=3, threads=1).fit(figures, labels)
    each = [estimators.BoostedTrees(trees=10, seed=seed, threads=1).fit(figures, labels) for seed in (3, 4)]
    apart = [one.decision_function(figures) for one in each]
    assert not np.array_equal(*apart)
    np.testing.assert_allclose(both.decision_function(figures), np.mean(apart, axis=0))
    assert all(isinstance(text, str) for text in both.texts_)


def test_the_largest_of_nothing_is_nothing():
    assert np.isnan(estimators.Largest().fit(np.zeros((1, 2))).decision_function(np.full((1, 2), np.nan))).all()
