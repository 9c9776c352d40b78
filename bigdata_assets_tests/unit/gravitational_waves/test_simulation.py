import subprocess
import sys

import numpy as np
import pytest

from bigdata_assets.gravitational_waves.logic.strain import simulation

RATE_HZ = 2_048
N_SAMPLES = 16 * RATE_HZ


def test_noise_has_the_detectors_spectrum():
    from scipy.signal import welch

    rng = np.random.default_rng(0)
    strain = [simulation.noise(rng, N_SAMPLES, RATE_HZ) for _ in range(4)]
    frequency_hz, densities = welch(np.stack(strain), RATE_HZ, nperseg=4 * RATE_HZ)
    density = densities.mean(axis=0)
    wanted = np.interp(frequency_hz, np.fft.rfftfreq(N_SAMPLES, 1 / RATE_HZ), simulation.psd(N_SAMPLES, RATE_HZ))
    band = (frequency_hz > 30) & (frequency_hz < 900)
    assert np.mean(density[band] / wanted[band]) == pytest.approx(1, abs=0.03)


def test_a_matched_filter_of_the_noise_has_unit_variance_and_the_snr_is_its_mean():
    rng = np.random.default_rng(1)
    signal = simulation.chirp(rng, N_SAMPLES, RATE_HZ, 8.0)
    density = simulation.psd(N_SAMPLES, RATE_HZ)
    heard = density > 0
    template = np.fft.rfft(signal)[heard] / RATE_HZ

    def filtered(strain):
        overlap = np.sum((np.fft.rfft(strain)[heard] / RATE_HZ) * template.conj() / density[heard])
        return 4 * overlap.real * RATE_HZ / N_SAMPLES / simulation.optimal_snr(signal, RATE_HZ)

    of_noise = [filtered(simulation.noise(rng, N_SAMPLES, RATE_HZ)) for _ in range(400)]
    assert np.std(of_noise) == pytest.approx(1, abs=0.1)
    assert filtered(signal) == pytest.approx(simulation.optimal_snr(signal, RATE_HZ))


def test_a_chirp_rises_in_frequency_and_ends_at_its_time():
    signal = simulation.chirp(np.random.default_rng(2), N_SAMPLES, RATE_HZ, 8.0)
    loudest_s = np.argmax(np.abs(signal)) / RATE_HZ
    assert loudest_s == pytest.approx(8.0, abs=0.01)
    crossings = np.flatnonzero(np.diff(np.sign(signal[: round(8.0 * RATE_HZ)]))) / RATE_HZ
    late, early = crossings[crossings > 7.9], crossings[(crossings > 7.5) & (crossings < 7.6)]
    assert np.diff(late).min() < 0.6 * np.diff(early).mean()


@pytest.mark.parametrize("label", ["Chirp", *simulation.GLITCHES])
def test_what_is_put_in_has_the_snr_that_is_said(label):
    strain, snr = simulation.simulated(np.random.default_rng(7), label, N_SAMPLES, RATE_HZ, 8.0)
    alone, _ = simulation.simulated(np.random.default_rng(7), "No_Glitch", N_SAMPLES, RATE_HZ, 8.0)
    assert simulation.optimal_snr(strain - alone, RATE_HZ) == pytest.approx(snr)
    low, high = simulation.CHIRP_SNR if label == "Chirp" else simulation.GLITCHES[label][1]
    assert low <= snr <= high


def test_models_can_be_kept_after_pycbc_was_imported():
    module = "bigdata_assets.gravitational_waves.logic.strain.simulation"
    code = f"import {module}\n{module}.psd(4096, 1024.0)\nimport skops.io"
    subprocess.run([sys.executable, "-c", code], check=True)
