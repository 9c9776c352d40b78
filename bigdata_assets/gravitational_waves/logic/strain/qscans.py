"""Q-scans in the geometry of Gravity Spy's training set, so that a model trained there can read them.

Four views around a time, each 140 by 170: rows from 2,048 Hz down to 10 Hz (logarithmic), columns in time, the grey of
normalised energy from 0 to 25.5 in matplotlib's viridis. Energy is that of the Q plane (Q from 4 to 64) with the
loudest tile near the time, normalised by each row's median.

Source of the settings: Zevin et al. 2017 (Gravity Spy), doi 10.1088/1361-6382/aa5cea; Q-transform: Chatterji et al.
2004, doi 10.1088/0264-9381/21/20/024, as gwpy computes it.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bigdata_assets.gravitational_waves.logic.strain.strain import StrainError, refuse_gaps
from bigdata_assets.gravitational_waves.logic.training.gravity_spy import HEIGHT, VIEWS_S, WIDTH

if TYPE_CHECKING:
    from gwpy.timeseries import TimeSeries

RATE_HZ = 8_192
"""At less, tiles of low Q would not reach 2,048 Hz."""
Q_RANGE = (4.0, 64.0)
BAND_HZ = (10.0, 2048.0)
ROWS_HZ = np.geomspace(*BAND_HZ, HEIGHT)
MAX_ENERGY = 25.5
SEARCH_S = 0.5
"""Width around the time in which the loudest tile chooses the Q plane."""
SPAN_S = 8.0
"""What is transformed around the time."""
WHITENING_FFT_S = 4.0
MIN_STRAIN_S = SPAN_S + 2 * WHITENING_FFT_S
"""Whitening spoils half a filter at each end, and the spectrum is a median over several pieces."""


def qscan(strain: NDArray[np.float64], rate_hz: float, time_s: float) -> NDArray[np.float32]:
    """The four views around a time: `views` of `whitened`.

    Args:
        strain: strain h(t), dimensionless, evenly sampled, without gaps.
        rate_hz: sampling rate.
        time_s: middle of the views, in seconds from the first sample.

    Returns:
        Grey values, shape (4, 140, 170), views of 0.5, 1, 2 and 4 s.

    Raises:
        StrainError: there is a gap, or too little strain around the time.
    """
    return views(whitened(strain, rate_hz), time_s)


def whitened(strain: NDArray[np.float64], rate_hz: float) -> "TimeSeries":
    """Strain at RATE_HZ, divided by the noise's amplitude spectral density (Welch's method with medians).

    Raises:
        StrainError: there is a gap, or too little strain.
    """
    from gwpy.timeseries import TimeSeries

    refuse_gaps(strain)
    if len(strain) < MIN_STRAIN_S * rate_hz:
        raise StrainError(
            f"{len(strain) / rate_hz:g} s of strain do not do for a Q-scan: {MIN_STRAIN_S:g} s are needed."
        )
    series = TimeSeries(strain, sample_rate=rate_hz)
    if rate_hz != RATE_HZ:
        series = series.resample(RATE_HZ)
    return series.whiten(WHITENING_FFT_S, WHITENING_FFT_S / 2)


def views(white: "TimeSeries", time_s: float) -> NDArray[np.float32]:
    """The four views of whitened strain around a time, as `qscan` returns them.

    Raises:
        StrainError: there is too little strain on one side of the time, or it is constant.
    """
    from scipy.interpolate import RectBivariateSpline

    half, length_s = SPAN_S / 2, float(white.duration.value)
    if not half <= time_s <= length_s - half:
        raise StrainError(
            f"{length_s:g} s of strain are too few for a Q-scan at second {time_s:g}: {half:g} s on either side."
        )
    first = round((time_s - half) * RATE_HZ)
    around = white.value[first : first + round(SPAN_S * RATE_HZ)]
    if not np.isfinite(around).all() or not around.any():
        raise StrainError(f"the strain around second {time_s:g} is the same for long: no detector was on.")
    spectrum, middle_s = np.fft.rfft(around), time_s - first / RATE_HZ
    planes = [(plane, [_energy(spectrum, row) for row in plane.rows]) for plane in _planes()]
    plane, energies = max(planes, key=lambda found: _loudest(found[1], middle_s))
    times = np.array([middle_s + view_s * (np.arange(WIDTH) / WIDTH - 0.5) for view_s in VIEWS_S])
    by_frequency = np.stack([_at(times, energy) for energy in energies], axis=-1)
    found = []
    for view_times, rows in zip(times, by_frequency, strict=True):
        energy = RectBivariateSpline(view_times, plane.frequencies, rows)(view_times, ROWS_HZ)
        found.append(grey(energy.T[::-1]))
    return np.stack(found)


class _Row(NamedTuple):
    """Tiles of one frequency: the bins of the spectrum that they take, their window, and how many there are."""

    bins: NDArray[np.int64]
    window: NDArray[np.float64]
    n_tiles: int


class _Plane(NamedTuple):
    """Tiles of one Q."""

    frequencies: NDArray[np.float64]
    rows: list[_Row]


@cache
def _planes() -> list[_Plane]:
    """The tiling, gwpy's, which wraps each row into a series of its own when it transforms: four times slower."""
    from gwpy.signal.qtransform import QTiling

    return [
        _Plane(plane.frequencies, [_Row(tile.get_data_indices(), tile.get_window(), tile.ntiles) for tile in plane])
        for plane in QTiling(SPAN_S, RATE_HZ, Q_RANGE, BAND_HZ)
    ]


def _energy(spectrum: NDArray[np.complex128], row: _Row) -> NDArray[np.float32]:
    """A row's energy over SPAN_S, its median 1."""
    # Where the bins stand among zeros is a phase.
    tiles = np.fft.ifft(spectrum[row.bins] * row.window, row.n_tiles)
    energy = tiles.real**2 + tiles.imag**2
    return (energy / np.median(energy)).astype(np.float32)


def _loudest(energies: Sequence[NDArray[np.float32]], time_s: float) -> float:
    """Energy of the loudest tile near a time; the one in which the search ends is in it, which gwpy leaves out."""
    found = []
    for energy in energies:
        first, last = ((time_s + side * SEARCH_S / 2) / SPAN_S * len(energy) for side in (-1, 1))
        found.append(float(energy[int(first) : int(last) + 1].max()))
    return max(found)


def _at(times_s: NDArray[np.float64], energy: NDArray[np.float32]) -> NDArray[np.float64]:
    """A row's energy at times, by a cubic spline through the tiles from a little before to a little after them."""
    from scipy.interpolate import make_interp_spline

    per_s = len(energy) / SPAN_S
    first, last = max(int(times_s.min() * per_s) - 16, 0), int(times_s.max() * per_s) + 16
    tiles = energy[first:last]
    return np.asarray(make_interp_spline((first + np.arange(len(tiles))) / per_s, tiles)(times_s))


def grey(energy: NDArray[np.floating]) -> NDArray[np.float32]:
    """Luminance of viridis at normalised energies, as skimage's rgb2gray weighs it: .084 at 0, .870 from 25.5 on."""
    table = _viridis_grey()
    places = np.linspace(0, MAX_ENERGY, len(table))
    return np.interp(np.clip(energy, 0, MAX_ENERGY), places, table).astype(np.float32)


BACKGROUND = 0.1316
"""Grey of energy 1, the median of every row: what is seen where nothing is. A test compares it with `grey(1)`."""


@cache
def _viridis_grey() -> NDArray[np.float64]:
    import matplotlib as mpl

    colours = mpl.colormaps["viridis"](np.linspace(0, 1, 256))[:, :3]
    luminance: NDArray[np.float64] = colours @ np.array([0.2125, 0.7154, 0.0721])
    return luminance
