import numpy as np
import pytest

from bigdata_assets.gravitational_waves.logic.classifiers.features import pooled, rank, resampled
from bigdata_assets.gravitational_waves.logic.strain.qscans import BACKGROUND
from bigdata_assets.gravitational_waves.logic.training.gravity_spy import VIEWS_S

TIMES = (np.arange(170) + 0.5) / 170 - 0.5
"""Of columns, in parts of the view."""


def picture(view_s):
    """A view of something that depends on time alone, smooth over a column."""
    return np.tile(0.3 + 0.2 * np.sin(TIMES * view_s * 6), (140, 1)).astype(np.float32)


@pytest.mark.parametrize(("view_s", "wanted_s"), [(1.0, 0.5), (4.0, 0.5), (2.0, 1.0)])
def test_a_longer_view_shows_the_shorter_one_in_its_middle(view_s, wanted_s):
    np.testing.assert_allclose(resampled(picture(view_s), view_s, wanted_s), picture(wanted_s), atol=0.02)


def test_a_shorter_view_shows_the_middle_of_the_longer_one_and_background_beside_it():
    shown = resampled(picture(1.0), 1.0, 2.0)
    np.testing.assert_allclose(shown[:, 43:127], picture(2.0)[:, 43:127], atol=0.02)
    assert (shown[:, :40] == np.float32(BACKGROUND)).all()
    assert (shown[:, 130:] == np.float32(BACKGROUND)).all()


def test_the_nearest_longer_view_stands_in_first():
    order = {wanted: sorted(VIEWS_S, key=lambda view_s: rank(view_s, wanted)) for wanted in VIEWS_S}
    assert order == {
        0.5: [0.5, 1.0, 2.0, 4.0],
        1.0: [1.0, 2.0, 4.0, 0.5],
        2.0: [2.0, 4.0, 1.0, 0.5],
        4.0: [4.0, 2.0, 1.0, 0.5],
    }


def test_pooling_is_the_mean_of_squares():
    image = np.arange(140 * 170, dtype=np.float32).reshape(140, 170)
    means = pooled(np.stack([image, image + 1]), 10)
    assert means.shape == (2, 14 * 17)
    assert means[0, 18] == pytest.approx(image[10:20, 10:20].mean())
    np.testing.assert_allclose(means[1] - means[0], 1, atol=1e-2)
