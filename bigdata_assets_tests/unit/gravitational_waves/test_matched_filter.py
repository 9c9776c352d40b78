import numpy as np
import pytest

from bigdata_assets.gravitational_waves.logic.strain import simulation
from bigdata_assets.gravitational_waves.logic.strain.matched_filter import (
    AFTER_S,
    BEFORE_S,
    MIN_STRAIN_S,
    is_edge,
    loudest_masses,
    matched_filter,
)
from bigdata_assets.gravitational_waves.logic.strain.strain import StrainError, find, read
from bigdata_assets_tests.integration.conftest import REAL_DATA

RATE_HZ = 4_096
REAL = REAL_DATA / "gravitational_waves" / "strain"
GW150914_S = 1_126_259_462.42


@pytest.mark.parametrize("snr", [20.0, 60.0])
def test_an_injection_is_found_with_its_snr_and_at_its_time(snr):
    n_samples = 64 * RATE_HZ
    merger_s = 40 + 123 / RATE_HZ
    wave = simulation.binary((36, 29), (0.1, -0.2), n_samples, RATE_HZ, merger_s)
    strain = simulation.noise(np.random.default_rng(2), n_samples, RATE_HZ)
    strain += wave * snr / simulation.optimal_snr(wave, RATE_HZ)
    found = matched_filter(strain, RATE_HZ, (36, 29), (0.1, -0.2))
    assert found.time_s[found.peak] == pytest.approx(merger_s, abs=0.002)
    # One by one the noise adds or takes about 1.
    assert found.snr[found.peak] == pytest.approx(snr, abs=max(0.05 * snr, 2))
    # The louder, the more is seen of what the estimated spectrum and the waveform's beginning leave unlike.
    assert found.reduced_chi2[found.peak] < 3
    assert np.median(found.snr) == pytest.approx(np.sqrt(2 * np.log(2)), abs=0.1), "of noise: Rayleigh's median"


def test_the_waveform_is_laid_over_the_strain():
    n_samples = 32 * RATE_HZ
    wave = simulation.binary((36, 29), (0.0, 0.0), n_samples, RATE_HZ, 20.0)
    strain = simulation.noise(np.random.default_rng(3), n_samples, RATE_HZ)
    strain += wave * 40 / simulation.optimal_snr(wave, RATE_HZ)
    found = matched_filter(strain, RATE_HZ, (36, 29))
    near = np.abs(found.white_time_s - found.time_s[found.peak]) < 0.05
    assert np.corrcoef(found.white[near], found.white_waveform[near])[0, 1] > 0.9
    mass1, mass2 = loudest_masses(strain, RATE_HZ)
    chirp_mass = (mass1 * mass2) ** 0.6 / (mass1 + mass2) ** 0.2
    assert chirp_mass == pytest.approx((36 * 29) ** 0.6 / (36 + 29) ** 0.2, rel=0.1), "what a waveform mostly tells"


def test_a_mass_at_the_banks_edge_is_told_from_one_within():
    n_samples = 32 * RATE_HZ
    edges = []
    for masses in ((36, 29), (7, 6.5), (140, 130)):
        wave = simulation.binary(masses, (0.0, 0.0), n_samples, RATE_HZ, 18.0)
        strain = simulation.noise(np.random.default_rng(6), n_samples, RATE_HZ)
        strain += wave * 40 / simulation.optimal_snr(wave, RATE_HZ)
        edges.append(is_edge(loudest_masses(strain, RATE_HZ)))
    assert edges == [False, True, True]


def test_something_loud_that_is_no_binary_fails_the_chi2_test():
    n_samples = 32 * RATE_HZ
    t = np.arange(n_samples) / RATE_HZ - 20
    pulse = np.exp(-((t / 0.003) ** 2)) * np.cos(2 * np.pi * 180 * t)
    strain = simulation.noise(np.random.default_rng(4), n_samples, RATE_HZ)
    strain += pulse * 60 / simulation.optimal_snr(pulse, RATE_HZ)
    found = matched_filter(strain, RATE_HZ, (36, 29))
    assert found.snr[found.peak] > 8
    assert found.reduced_chi2[found.peak] > 4


def test_the_shortest_strain_has_an_answer():
    strain = simulation.noise(np.random.default_rng(0), round(MIN_STRAIN_S * RATE_HZ), RATE_HZ)
    found = matched_filter(strain, RATE_HZ, (36, 29))
    assert found.time_s[0] == pytest.approx(BEFORE_S, abs=0.02)
    assert found.time_s[-1] == pytest.approx(MIN_STRAIN_S - AFTER_S, abs=0.02)


def test_gaps_and_short_strain_are_refused():
    with pytest.raises(StrainError, match="8 s at 4096 Hz do not do"):
        matched_filter(np.zeros(8 * RATE_HZ), RATE_HZ, (36, 29))
    with pytest.raises(StrainError, match="1 samples of the strain are no numbers"):
        matched_filter(np.array([*np.zeros(32 * RATE_HZ - 1), np.nan]), RATE_HZ, (36, 29))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no folder with the official files at {REAL_DATA}")
def test_gw150914_is_found_in_both_detectors():
    """Network signal-to-noise ratio 23.6 by PyCBC and 24.4 by GstLAL (GWTC-1), in Livingston 7 ms before Hanford.

    In Hanford at GPS 1126259462.4248 by PyCBC's tutorial on matched filters, with another waveform.
    """
    seen = {}
    for detector in ("H1", "L1"):
        strain = read(find(REAL, detector, GW150914_S))
        found = matched_filter(strain.values, strain.rate_hz, (41.743, 29.237), (0.355, -0.769))
        seen[detector] = (strain.gps_start_s + found.time_s[found.peak], found.snr[found.peak])
        assert found.reduced_chi2[found.peak] < 2
    (h1_s, h1_snr), (l1_s, l1_snr) = seen["H1"], seen["L1"]
    assert h1_s - l1_s == pytest.approx(0.0069, abs=0.001)
    assert h1_s == pytest.approx(1_126_259_462.4248, abs=0.005)
    assert 23.6 - 0.5 < np.hypot(h1_snr, l1_snr) < 24.4 + 0.5
