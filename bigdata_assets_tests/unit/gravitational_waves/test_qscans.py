import numpy as np
import pytest

from bigdata_assets.gravitational_waves.logic.strain import simulation
from bigdata_assets.gravitational_waves.logic.strain.qscans import (
    BACKGROUND,
    BAND_HZ,
    MIN_STRAIN_S,
    Q_RANGE,
    RATE_HZ,
    SEARCH_S,
    SPAN_S,
    grey,
    qscan,
    views,
    whitened,
)
from bigdata_assets.gravitational_waves.logic.strain.strain import StrainError
from bigdata_assets.gravitational_waves.logic.training import gravity_spy, training_set
from bigdata_assets_tests.integration.conftest import REAL_DATA

MIDDLE_S = MIN_STRAIN_S / 2
N_SAMPLES = round(MIN_STRAIN_S * RATE_HZ)
REAL = REAL_DATA / "gravitational_waves"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no folder with the official files at {REAL_DATA}")


def row_of(frequency_hz):
    """The row of a frequency between 2,048 and 10 Hz."""
    return (1 - np.log(frequency_hz / 10) / np.log(2048 / 10)) * 139


def burst(frequency_hz, offset_s, snr):
    t = np.arange(N_SAMPLES) / RATE_HZ - MIDDLE_S - offset_s
    wave = np.exp(-((t / 0.02) ** 2)) * np.cos(2 * np.pi * frequency_hz * t)
    return wave * snr / simulation.optimal_snr(wave, RATE_HZ)


def test_grey_is_viridis_luminance():
    assert grey(np.array([0.0, 1.0, 25.5, 1e9, -1.0])) == pytest.approx(
        [0.084, BACKGROUND, 0.870, 0.870, 0.084], abs=5e-4
    )


@pytest.mark.parametrize(("frequency_hz", "offset_s"), [(60, 0.1), (150, -0.15), (700, 0.05)])
def test_a_burst_is_seen_at_its_time_and_frequency_in_every_view(frequency_hz, offset_s):
    strain = simulation.noise(np.random.default_rng(3), N_SAMPLES, RATE_HZ) + burst(frequency_hz, offset_s, 25)
    found = qscan(strain, RATE_HZ, MIDDLE_S)
    assert found.shape == (4, 140, 170)
    for view, view_s in zip(found, gravity_spy.VIEWS_S, strict=True):
        bright = np.argwhere(view > 0.8)
        row, column = bright.mean(axis=0)
        assert row == pytest.approx(row_of(frequency_hz), abs=5)
        assert column == pytest.approx((offset_s / view_s + 0.5) * 170, abs=3)


@pytest.mark.parametrize("label", ["Chirp", "Scattered_Light", "No_Glitch"])
def test_views_are_those_of_gwpys_transform(label):
    from gwpy.signal.qtransform import q_scan

    strain, _ = simulation.simulated(np.random.default_rng(6), label, N_SAMPLES, RATE_HZ, MIDDLE_S)
    white, time_s = whitened(strain, RATE_HZ), MIDDLE_S + 1 / 64
    span, search = (time_s - SPAN_S / 2, time_s + SPAN_S / 2), (time_s - SEARCH_S / 2, time_s + SEARCH_S / 2)
    gram, _ = q_scan(white.crop(*span), qrange=Q_RANGE, frange=BAND_HZ, search=search)
    for view, view_s in zip(views(white, time_s), gravity_spy.VIEWS_S, strict=True):
        between = (time_s - view_s / 2, time_s + view_s / 2)
        energy = gram.interpolate(tres=view_s / 170, fres=140, logf=True, outseg=between).value.T[::-1, :170]
        np.testing.assert_allclose(view, grey(energy), atol=2e-3)


def test_a_lower_rate_shows_the_same():
    strain = simulation.noise(np.random.default_rng(4), N_SAMPLES, RATE_HZ) + burst(150, 0, 25)
    from scipy.signal import decimate

    full, half = qscan(strain, RATE_HZ, MIDDLE_S), qscan(decimate(strain, 2, ftype="fir"), RATE_HZ / 2, MIDDLE_S)
    low = slice(round(row_of(1_200)), None)
    assert np.corrcoef(full[:, low].ravel(), half[:, low].ravel())[0, 1] > 0.95


def test_too_little_strain_and_gaps_are_refused():
    strain = simulation.noise(np.random.default_rng(5), N_SAMPLES, RATE_HZ)
    with pytest.raises(StrainError, match="4 s of strain do not do"):
        qscan(strain[: 4 * RATE_HZ], RATE_HZ, 2.0)
    with pytest.raises(StrainError, match="at second 15"):
        qscan(strain, RATE_HZ, 15.0)
    with pytest.raises(StrainError, match="the same for long: no detector was on"):
        qscan(np.zeros(N_SAMPLES), RATE_HZ, MIDDLE_S)
    strain[100:200] = np.nan
    with pytest.raises(StrainError, match="100 samples of the strain are no numbers"):
        qscan(strain, RATE_HZ, MIDDLE_S)


@needs_real
def test_background_is_as_in_the_training_set():
    """Quantiles of pixels, seconds without an event against Gravity Spy's No_Glitch."""
    from gwpy.timeseries import TimeSeries

    real = _real_views("No_Glitch")
    ours = np.concatenate(
        [
            qscan(series.value, series.sample_rate.value, second)
            for path in sorted((REAL / "strain").glob("*.hdf5"))
            for series in [TimeSeries.read(path, format="hdf5.gwosc")]
            for second in (7.0, 24.0)
        ]
    )
    for quantile, tolerance in ((0.1, 0.008), (0.5, 0.015), (0.9, 0.03), (0.99, 0.06)):
        assert np.quantile(ours, quantile) == pytest.approx(np.quantile(real, quantile), abs=tolerance)


@needs_real
def test_gw150914_looks_like_the_training_sets_chirps_and_like_nothing_else():
    """Nearest picture: the correlation of its view with every real glitch's same view is highest with a chirp."""
    from gwpy.timeseries import TimeSeries

    series = TimeSeries.read(REAL / "strain" / "H-H1_LOSC_4_V2-1126259446-32.hdf5", format="hdf5.gwosc")
    view = qscan(series.value, series.sample_rate.value, 1126259462.42 - 1126259446)[1].ravel()
    alike = {
        label: max(np.corrcoef(view, other.ravel())[0, 1] for other in _real_views(label, 1.0))
        for label in gravity_spy.CLASSES
    }
    assert max(alike, key=alike.__getitem__) == "Chirp", alike


def _real_views(label, view_s=None):
    path = REAL / training_set.FILE
    found = [
        np.float32(row["pixels"]).reshape(140, 170)
        for part in training_set.plan(path, [label])
        for batch in training_set.read_range(path, part)
        for row in batch.to_pylist()
        if view_s in (None, row["view_s"])
    ]
    return np.stack(found)
