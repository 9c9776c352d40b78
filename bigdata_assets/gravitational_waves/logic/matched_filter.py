"""Matched filter of strain with a binary's waveform: signal-to-noise ratio over time, and the χ² test of its peak.

By PyCBC, as the open-data tutorials do it. Sources: Allen et al. 2012, doi 10.1103/PhysRevD.85.122006 (the filter);
Allen 2005, doi 10.1103/PhysRevD.71.062001 (χ²).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigdata_assets.gravitational_waves.logic.signals import pycbc
from bigdata_assets.gravitational_waves.logic.strain import StrainError, refuse_gaps

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


@dataclass(frozen=True)
class Found:
    """What a matched filter says of a stretch of strain.

    Attributes:
        time_s: of each value, in seconds from the strain's first sample.
        snr: signal-to-noise ratio, the modulus of the complex filter's output.
        reduced_chi2: χ² by degree of freedom; near 1 where the loud part is like the waveform.
    """

    time_s: NDArray[np.float64]
    snr: NDArray[np.float64]
    reduced_chi2: NDArray[np.float64]

    @property
    def peak(self) -> int:
        """Index of the highest signal-to-noise ratio."""
        return int(np.argmax(self.snr))


def matched_filter(strain: NDArray[np.float64], rate_hz: float, mass1: float, mass2: float, spin: float = 0.0) -> Found:
    """Filter strain with the waveform of two black holes.

    Args:
        strain: h(t), dimensionless, without gaps, at least MIN_STRAIN_S; the answer is without its first BEFORE_S and
            its last AFTER_S.
        rate_hz: sampling rate, at least 2,048 Hz.
        mass1: of the heavier one in the detector's frame, solar masses.
        mass2: of the other.
        spin: of the heavier one along the orbit's axis, from -1 to 1.

    Raises:
        StrainError: there is a gap, or too little strain.
    """
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
    density = _density(data)
    template, _ = library.waveform.get_fd_waveform(
        approximant=APPROXIMANT, mass1=mass1, mass2=mass2, spin1z=spin, f_lower=LOW_HZ, delta_f=data.delta_f
    )
    template.resize(len(density))
    snr = library.filter.matched_filter(template, data, psd=density, low_frequency_cutoff=LOW_HZ)
    chi2 = library.vetoes.power_chisq(template, data, CHI2_BINS, density, low_frequency_cutoff=LOW_HZ)
    # The spectrum's filter wraps around at both ends, the waveform's own length at the beginning.
    kept = slice(round((BEFORE_S - EDGE_S) * RATE_HZ), -round((AFTER_S - EDGE_S) * RATE_HZ))
    return Found(
        time_s=np.asarray(snr.sample_times)[kept] - float(series.start_time),
        snr=np.abs(np.asarray(snr))[kept],
        reduced_chi2=np.asarray(chi2)[kept] / (2 * CHI2_BINS - 2),
    )


def _density(data: Any) -> Any:
    """Power spectral density of the data themselves: Welch's method with medians, smooth enough to divide by."""
    psd = pycbc().psd
    density = psd.interpolate(data.psd(PSD_SEGMENT_S), data.delta_f)
    return psd.inverse_spectrum_truncation(
        density, round(PSD_SEGMENT_S * RATE_HZ), low_frequency_cutoff=HIGH_PASS_HZ, trunc_method="hann"
    )
