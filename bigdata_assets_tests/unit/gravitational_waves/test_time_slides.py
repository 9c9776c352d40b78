import numpy as np
import pytest

from bigdata_assets.gravitational_waves.logic.strain.time_slides import Triggers, slide, triggers, window_s

START_S = 1_000_000_000.0


def noise(seed: int, n: int = 60) -> Triggers:
    rng = np.random.default_rng(seed)
    return Triggers(START_S + np.sort(rng.uniform(0, 16, n)), 3 + rng.exponential(0.4, n))


def with_event(background: Triggers, at_s: float, statistic: float) -> Triggers:
    gps_s = np.append(background.gps_s, START_S + at_s)
    order = np.argsort(gps_s)
    return Triggers(gps_s[order], np.append(background.statistic, statistic)[order])


def test_of_each_tenth_of_a_second_the_loudest_moment_is_a_trigger():
    gps_s = START_S + np.arange(0, 1, 0.01)
    statistic = np.ones(100)
    statistic[[3, 7, 55]] = 5, 6, 4
    found = triggers(gps_s, statistic)
    assert found.statistic.tolist() == [6, 4]
    np.testing.assert_allclose(found.gps_s - START_S, [0.07, 0.55], atol=1e-6)


def test_an_event_in_both_is_louder_than_all_slides():
    found = slide(with_event(noise(0), 9.0, 15.0), with_event(noise(1), 9.007, 12.0), START_S, START_S + 16, 0.015)
    assert found.loudest == pytest.approx(np.hypot(15, 12))
    assert found.at_gps_s == pytest.approx(START_S + 9, abs=1e-6)
    assert (found.louder, found.slides.size) == (0, 159)
    assert found.slides.max() > 15, "the event in one with noise in the other is background too"
    assert found.false_alarms_per_s == pytest.approx(1 / (159 * 16))


def test_what_is_in_one_alone_is_no_event():
    found = slide(with_event(noise(0), 9.0, 15.0), with_event(noise(1), 9.3, 12.0), START_S, START_S + 16, 0.015)
    assert found.loudest < 15
    assert found.louder > 0
    assert found.slides.max() == pytest.approx(np.hypot(15, 12)), "shifted by .3 s they fall together"


def test_light_needs_longer_to_virgo():
    assert window_s(("L1", "H1")) == pytest.approx(0.015)
    assert window_s(("H1", "V1")) > window_s(("H1", "L1"))


def test_no_common_time_is_no_background():
    found = slide(noise(0), noise(1), START_S + 10, START_S + 4, 0.015)
    assert (found.loudest, found.slides.size, found.false_alarms_per_s) == (0.0, 0, float("inf"))
