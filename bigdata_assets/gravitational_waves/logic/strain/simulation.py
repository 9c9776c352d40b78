"""Detector noise and what is put into it for the sample: chirps of compact binaries, and glitches of a few classes.

Noise is Gaussian with the spectrum that Advanced LIGO's first runs were expected to have (LIGO-P1200087, "early, high
sensitivity"): the training set is from these. Chirps are IMRPhenomD waveforms (both from LALSuite, by PyCBC), glitches
the simplest signals that look as their class does in a Q-scan.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float64]
LOW_HZ = 9.0
"""Where the noise begins; below, detectors measure nothing."""
HEARD_HZ = 20.0
"""From where on signals are whole; down to LOW_HZ they fade out, as nothing may stand where there is no noise."""


@cache
def pycbc() -> Any:
    """PyCBC. What it adds to numpy's table of types is taken away again: skops cannot be imported after it."""
    before = dict(np.sctypeDict)
    import pycbc.filter
    import pycbc.psd
    import pycbc.types
    import pycbc.vetoes
    import pycbc.waveform

    for name in np.sctypeDict.keys() - before.keys():
        del np.sctypeDict[name]
    return pycbc


@cache
def psd(n_samples: int, rate_hz: float) -> Signal:
    """One-sided power spectral density (1/Hz) at the frequencies of an n-sample real FFT, 0 below LOW_HZ."""
    density = pycbc().psd.aLIGOEarlyHighSensitivityP1200087(n_samples // 2 + 1, rate_hz / n_samples, LOW_HZ)
    return np.asarray(density.numpy())


def noise(rng: np.random.Generator, n_samples: int, rate_hz: float) -> Signal:
    """Stationary Gaussian noise with the detector's spectrum, dimensionless strain."""
    scale = np.sqrt(psd(n_samples, rate_hz) * n_samples * rate_hz / 4)
    spectrum = scale * (rng.normal(size=scale.size) + 1j * rng.normal(size=scale.size))
    return np.fft.irfft(spectrum, n_samples)


def optimal_snr(signal: Signal, rate_hz: float) -> float:
    """Signal-to-noise ratio of the matched filter that knows the signal: 4 ∫ |h(f)|² / S(f) df, its root."""
    density = psd(len(signal), rate_hz)
    spectrum = np.fft.rfft(signal) / rate_hz
    heard = density > 0
    return float(np.sqrt(4 * np.sum(np.abs(spectrum[heard]) ** 2 / density[heard]) * rate_hz / len(signal)))


def chirp(rng: np.random.Generator, n_samples: int, rate_hz: float, at_s: float) -> Signal:
    """A binary black hole's plus polarisation, of any of the first detections' masses, merging at `at_s`."""
    masses = np.exp(rng.uniform(np.log(MASSES[0]), np.log(MASSES[1]), size=2))
    return binary((max(masses), min(masses)), (rng.uniform(-0.4, 0.4), 0.0), n_samples, rate_hz, at_s)


def binary(
    masses: tuple[float, float], spins: tuple[float, float], n_samples: int, rate_hz: float, at_s: float
) -> Signal:
    """The plus polarisation of two black holes (solar masses, spins along the orbit's axis) that merge at `at_s`."""
    plus, cross = pycbc().waveform.get_td_waveform(
        approximant="IMRPhenomD",
        mass1=masses[0],
        mass2=masses[1],
        spin1z=spins[0],
        spin2z=spins[1],
        delta_t=1 / rate_hz,
        f_lower=1.5 * LOW_HZ,
    )
    wave = np.asarray(plus.numpy())
    # The merger is where it is strongest; the series' time 0 is a convention of the model's.
    merger = int(np.argmax(np.hypot(wave, cross.numpy())))
    return _placed(wave, -merger, n_samples, at_s, rate_hz)


def _faded(signal: Signal, rate_hz: float) -> Signal:
    """The signal without what lies below LOW_HZ."""
    spectrum = np.fft.rfft(signal)
    frequency_hz = np.arange(spectrum.size) * rate_hz / len(signal)
    part = np.clip((frequency_hz - LOW_HZ) / (HEARD_HZ - LOW_HZ), 0, 1)
    return np.fft.irfft(spectrum * np.sin(np.pi / 2 * part) ** 2, len(signal))


def _placed(wave: Signal, first: int, n_samples: int, at_s: float, rate_hz: float) -> Signal:
    """A wave whose sample 0 stands at `first` from the time `at_s`, in an otherwise empty series."""
    signal = np.zeros(n_samples)
    start = round(at_s * rate_hz) + first
    into, out_of = max(start, 0), min(start + len(wave), n_samples)
    signal[into:out_of] = wave[into - start : out_of - start]
    return signal


def _blip(rng: np.random.Generator, t: Signal) -> Signal:
    frequency_hz = rng.uniform(120, 260)
    return np.exp(-((t / rng.uniform(0.002, 0.004)) ** 2)) * np.cos(2 * np.pi * frequency_hz * t)


def _koi_fish(rng: np.random.Generator, t: Signal) -> Signal:
    """A loud blip with a body of low frequencies."""
    body = np.exp(-((t / 0.05) ** 2)) * np.cos(2 * np.pi * rng.uniform(25, 45) * t)
    return 0.6 * body + _blip(rng, t)


def _whistle(rng: np.random.Generator, t: Signal) -> Signal:
    """A tone that comes down and goes up again: beats of radio signals."""
    lowest_hz, rise = rng.uniform(150, 400), rng.uniform(4_000, 12_000)
    return np.exp(-((t / 0.25) ** 4)) * np.cos(2 * np.pi * (lowest_hz * t + rise * t**3 / 3 * 4))


def _scattered_light(rng: np.random.Generator, t: Signal) -> Signal:
    """Arches: light that comes back from a moving surface, its phase the surface's position."""
    period_s, top_hz = rng.uniform(2.5, 4), rng.uniform(30, 60)
    swing = top_hz * period_s / np.pi
    return np.exp(-((t / 2.5) ** 4)) * np.cos(2 * np.pi * swing / 2 * np.sin(2 * np.pi * t / period_s))


def _low_frequency_burst(rng: np.random.Generator, t: Signal) -> Signal:
    return np.exp(-((t / rng.uniform(0.1, 0.3)) ** 2)) * np.cos(2 * np.pi * rng.uniform(16, 24) * t)


def _power_line(rng: np.random.Generator, t: Signal) -> Signal:
    """Mains at 60 Hz for part of a second."""
    return np.exp(-((t / rng.uniform(0.2, 0.4)) ** 4)) * np.cos(2 * np.pi * 60 * t)


GLITCHES: Mapping[str, tuple[Callable[[np.random.Generator, Signal], Signal], tuple[float, float]]] = {
    "Blip": (_blip, (10, 40)),
    "Koi_Fish": (_koi_fish, (100, 300)),
    "Whistle": (_whistle, (12, 40)),
    "Scattered_Light": (_scattered_light, (15, 50)),
    "Low_Frequency_Burst": (_low_frequency_burst, (15, 50)),
    "Power_Line": (_power_line, (12, 30)),
}
"""Signals by class, with the range of their signal-to-noise ratios."""
MASSES = (7.0, 50.0)
"""Solar masses of the black holes of the first two observing runs, about (GWTC-1)."""
CHIRP_SNR = (7.5, 25.0)
"""From Gravity Spy's own threshold on."""


def simulated(
    rng: np.random.Generator, label: str, n_samples: int, rate_hz: float, at_s: float
) -> tuple[Signal, float]:
    """Noise with a signal of the class at a time, and the signal's optimal signal-to-noise ratio.

    Args:
        rng: source of everything random.
        label: Chirp, No_Glitch, or one of GLITCHES.
        n_samples: length of the strain.
        rate_hz: its sampling rate.
        at_s: when the signal is, in seconds from the first sample.
    """
    strain = noise(rng, n_samples, rate_hz)
    if label == "No_Glitch":
        return strain, 0.0
    if label == "Chirp":
        signal, (low, high) = chirp(rng, n_samples, rate_hz, at_s), CHIRP_SNR
    else:
        make, (low, high) = GLITCHES[label]
        signal = make(rng, np.arange(n_samples) / rate_hz - at_s)
    signal = _faded(signal, rate_hz)
    snr = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return strain + signal * snr / optimal_snr(signal, rate_hz), snr
