"""Matched filter of strain with a binary's waveform: signal-to-noise ratio over time, and the χ² test of its peak.

By PyCBC, as the open-data tutorials do it. Sources: Allen et al. 2012, doi 10.1103/PhysRevD.85.122006 (the filter);
Allen 2005, doi 10.1103/PhysRevD.71.062001 (χ²).
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigdata_assets.gravitational_waves.logic.strain.simulation import pycbc
from bigdata_assets.gravitational_waves.logic.strain.strain import StrainError, refuse_gaps

RATE_HZ = 2_048
LOW_HZ = 20.0
HIGH_PASS_HZ = 15.0
PSD_SEGMENT_S = 4.0
EDGE_S = 2.0
"""Spoilt at each end by filtering and resampling."""
BEFORE_S, AFTER_S = EDGE_S + 2 * PSD_SEGMENT_S, EDGE_S + PSD_SEGMENT_S
"""Of the strain, what the answer leaves out at its beginning and end: the filter wraps around there."""
MIN_STRAIN_S = BEFORE_S + AFTER_S + 4
CHI2_BINS = 16
APPROXIMANT = "IMRPhenomD"
FOUND_SNR = 8.0
"""Of the re-weighted ratio: searches take what is less loud in one detector for noise (Usman et al. 2016)."""


WHITENED_BAND_HZ = (30.0, 300.0)
MAX_WAVEFORM_S = BEFORE_S - EDGE_S
"""From LOW_HZ to the merger: of a longer one, what wraps around would reach into the answer."""
BANK = tuple((mass, mass * ratio) for mass in np.geomspace(9, 80, 24).round(2).tolist() for ratio in (1.0, 0.5))
"""Masses that are tried where an event's are not known, solar masses."""


NO_SPINS = (0.0, 0.0)


@dataclass(frozen=True)
class Found:
    """What a matched filter says of a stretch of strain.

    Attributes:
        masses: of the waveform, solar masses.
        time_s: when the waveform of each value merges, is strongest, in seconds from the strain's first sample.
        snr: signal-to-noise ratio, the modulus of the complex filter's output.
        reduced_chi2: χ² by degree of freedom; near 1 where the loud part is like the waveform.
        white_time_s: of each of the next two.
        white: the strain, whitened and band-passed, in its own standard deviations.
        white_waveform: the waveform as it fits the loudest moment, likewise.
    """

    masses: tuple[float, float]
    time_s: NDArray[np.float64]
    snr: NDArray[np.float64]
    reduced_chi2: NDArray[np.float64]
    white_time_s: NDArray[np.float64]
    white: NDArray[np.float64]
    white_waveform: NDArray[np.float64]

    @property
    def peak(self) -> int:
        """Index of the highest signal-to-noise ratio."""
        return int(np.argmax(self.snr))

    @property
    def reweighted_snr(self) -> NDArray[np.float64]:
        """The ratio, less where χ² says that it is no binary: Usman et al. 2016, 10.1088/0264-9381/33/21/215004."""
        return self.snr / np.maximum((1 + self.reduced_chi2**3) / 2, 1) ** (1 / 6)


def matched_filter(
    strain: NDArray[np.float64], rate_hz: float, masses: tuple[float, float], spins: tuple[float, float] = NO_SPINS
) -> Found:
    """Filter strain with the waveform of two black holes.

    Args:
        strain: h(t), dimensionless, without gaps, at least MIN_STRAIN_S; the answer is without its first BEFORE_S and
            its last AFTER_S.
        rate_hz: sampling rate, at least 2,048 Hz.
        masses: in the detector's frame, the heavier first, solar masses.
        spins: along the orbit's axis, from -1 to 1, in the same order.

    Raises:
        StrainError: there is a gap, or too little strain, or the waveform is longer than MAX_WAVEFORM_S.
    """
    library = pycbc()
    if (length_s := waveform_s(masses)) > MAX_WAVEFORM_S:
        raise StrainError(
            f"the waveform of {masses[0]:g} and {masses[1]:g} solar masses lasts {length_s:.0f} s from "
            f"{LOW_HZ:g} Hz on: more than {MAX_WAVEFORM_S:g} s are not looked for."
        )
    data, density = _prepared(strain, rate_hz)
    template = _template(data, density, masses, spins)
    snr = library.filter.matched_filter(template, data, psd=density, low_frequency_cutoff=LOW_HZ)
    chi2 = library.vetoes.power_chisq(template, data, CHI2_BINS, density, low_frequency_cutoff=LOW_HZ)
    complex_snr = np.asarray(snr)[_KEPT]
    # From the data's first sample, which is EDGE_S after the strain's.
    time_s = np.asarray(snr.sample_times)[_KEPT] - float(data.start_time)
    peak = int(np.argmax(np.abs(complex_snr)))
    sigma = library.filter.sigma(template, psd=density, low_frequency_cutoff=LOW_HZ)
    frequency_hz = np.asarray(template.sample_frequencies)
    shift = np.exp(-2j * np.pi * frequency_hz * time_s[peak])
    white, white_waveform = (
        _white(spectrum, frequency_hz, density)
        for spectrum in (data.to_frequencyseries(), np.asarray(template) * shift * complex_snr[peak] / sigma)
    )
    return Found(
        masses=masses,
        time_s=EDGE_S + time_s + _merger_s(template),
        snr=np.abs(complex_snr),
        reduced_chi2=np.asarray(chi2)[_KEPT] / (2 * CHI2_BINS - 2),
        white_time_s=EDGE_S + np.arange(white.size) / RATE_HZ,
        white=white / white.std(),
        white_waveform=white_waveform / white.std(),
    )


def loudest_masses(strain: NDArray[np.float64], rate_hz: float) -> tuple[float, float]:
    """The masses of BANK whose waveform has the highest signal-to-noise ratio; arguments as of `matched_filter`."""
    data, density = _prepared(strain, rate_hz)

    def loudness(masses: tuple[float, float]) -> float:
        template = _template(data, density, masses, NO_SPINS)
        snr = pycbc().filter.matched_filter(template, data, psd=density, low_frequency_cutoff=LOW_HZ)
        return float(np.abs(np.asarray(snr)[_KEPT]).max())

    return max(_tried(), key=loudness)


def is_edge(masses: tuple[float, float]) -> bool:
    """Whether `loudest_masses` has tried none lighter, or none heavier, of that ratio: what is louder may be beyond."""
    heavier = [each[0] for each in _tried() if np.isclose(each[1] / each[0], masses[1] / masses[0])]
    return masses[0] in (min(heavier), max(heavier))


@cache
def _tried() -> tuple[tuple[float, float], ...]:
    return tuple(masses for masses in BANK if waveform_s(masses) <= MAX_WAVEFORM_S)


def waveform_s(masses: tuple[float, float]) -> float:
    """How long two bodies without spin are heard from LOW_HZ on, s."""
    length_of = pycbc().waveform.get_waveform_filter_length_in_time
    return float(length_of(APPROXIMANT, mass1=masses[0], mass2=masses[1], f_lower=LOW_HZ))


_KEPT = slice(round((BEFORE_S - EDGE_S) * RATE_HZ), -round((AFTER_S - EDGE_S) * RATE_HZ))
"""The spectrum's filter wraps around at both ends, the waveform's own length at the beginning."""


def _prepared(strain: NDArray[np.float64], rate_hz: float) -> tuple[Any, Any]:
    """The strain without its edges at RATE_HZ, and its power spectral density."""
    refuse_gaps(strain)
    if len(strain) < MIN_STRAIN_S * rate_hz or rate_hz < RATE_HZ:
        raise StrainError(
            f"{len(strain) / rate_hz:g} s at {rate_hz:g} Hz do not do for a matched filter: "
            f"{MIN_STRAIN_S:g} s at {RATE_HZ} Hz are needed."
        )
    library = pycbc()
    series = library.types.TimeSeries(strain, delta_t=1 / rate_hz)
    series = library.filter.resample_to_delta_t(library.filter.highpass(series, HIGH_PASS_HZ), 1 / RATE_HZ)
    data = series.crop(EDGE_S, EDGE_S)
    return data, _density(data)


def _template(data: Any, density: Any, masses: tuple[float, float], spins: tuple[float, float]) -> Any:
    """The waveform's spectrum at the data's frequencies, its merger at time 0."""
    template, _ = pycbc().waveform.get_fd_waveform(
        approximant=APPROXIMANT,
        mass1=masses[0],
        mass2=masses[1],
        spin1z=spins[0],
        spin2z=spins[1],
        f_lower=LOW_HZ,
        delta_f=data.delta_f,
    )
    template.resize(len(density))
    return template


def _merger_s(template: Any) -> float:
    """When the waveform is strongest, from its time 0, which is a convention of the model's and up to 10 ms off."""
    spectrum = np.asarray(template)
    positive_frequencies_alone = np.zeros(2 * (spectrum.size - 1), complex)
    positive_frequencies_alone[: spectrum.size] = spectrum
    envelope = np.abs(np.fft.ifft(positive_frequencies_alone))
    peak = int(np.argmax(envelope))
    return (peak if peak < envelope.size / 2 else peak - envelope.size) / RATE_HZ


def _white(spectrum: Any, frequency_hz: NDArray[np.float64], density: Any) -> NDArray[np.float64]:
    low, high = WHITENED_BAND_HZ
    band = (frequency_hz >= low) & (frequency_hz <= high)
    scaled = np.zeros(frequency_hz.size, complex)
    scaled[band] = np.asarray(spectrum)[band] / np.sqrt(np.asarray(density)[band])
    return np.fft.irfft(scaled)


def _density(data: Any) -> Any:
    """Power spectral density of the data themselves: Welch's method with medians, smooth enough to divide by."""
    psd = pycbc().psd
    density = psd.interpolate(data.psd(PSD_SEGMENT_S), data.delta_f)
    return psd.inverse_spectrum_truncation(
        density, round(PSD_SEGMENT_S * RATE_HZ), low_frequency_cutoff=HIGH_PASS_HZ, trunc_method="hann"
    )
