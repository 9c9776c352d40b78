"""Strain of a detector, as GWOSC's HDF5 files hold it: h(t) at 4,096 Hz, with the quality of each second.

File names are <observatory>-<detector>_<set>-<GPS start>-<duration>.hdf5, such as H-H1_LOSC_4_V2-1126259446-32.hdf5.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE_NAME = re.compile(r"[A-Z]-(?P<detector>[A-Z]\d)_[A-Za-z0-9_]+-(?P<start>\d+)-(?P<duration>\d+)\.hdf5")
MAX_SAMPLES = 4_096 * 4_096
"""GWOSC's longest files: 4,096 s at 4,096 Hz."""


class StrainFileError(RuntimeError):
    """A file cannot be used; the message says which one, and why."""


class StrainError(ValueError):
    """The strain does not cover what is asked of it; the message says where."""


@dataclass(frozen=True)
class Strain:
    """Strain of one detector.

    Attributes:
        detector: such as H1.
        gps_start_s: GPS time of the first sample.
        rate_hz: samples a second.
        values: dimensionless strain; NaN where there are no data.
        quality: a bit mask for each second.
        flags: names of the mask's bits, from the lowest on.
    """

    detector: str
    gps_start_s: int
    rate_hz: int
    values: NDArray[np.float64]
    quality: NDArray[np.uint32]
    flags: tuple[str, ...]

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """Begin and end of each stretch without data, in seconds from the first sample."""
        edges = np.flatnonzero(np.diff(np.isnan(self.values), prepend=False, append=False)) / self.rate_hz
        return [(float(begin), float(end)) for begin, end in edges.reshape(-1, 2)]


def find(folder: Path, detector: str, gps_s: float) -> Path:
    """The file of a detector that covers a GPS time.

    Raises:
        StrainFileError: there is none.
    """
    for path in sorted(folder.glob("*.hdf5")):
        named = FILE_NAME.fullmatch(path.name)
        if named and named["detector"] == detector:
            start = int(named["start"])
            if start <= gps_s < start + int(named["duration"]):
                return path
    raise StrainFileError(f"{folder} has no file of {detector} that covers GPS time {gps_s:.2f}.")


def read(path: Path) -> Strain:
    """A GWOSC file.

    Raises:
        StrainFileError: it is absent, cut off, no HDF5 file, or lacks a group; or what it says of itself does not fit.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            strain = file["strain/Strain"]
            if strain.ndim != 1 or strain.dtype.kind != "f" or not 0 < strain.size <= MAX_SAMPLES:
                raise StrainFileError(f"{path}: strain/Strain is {strain.dtype} {strain.shape}, no series of floats.")
            spacing_s = float(strain.attrs["Xspacing"])
            meta, quality = file["meta"], file["quality/simple"]
            found = Strain(
                detector=_text(meta["Detector"][()]),
                gps_start_s=int(meta["GPSstart"][()]),
                rate_hz=round(1 / spacing_s),
                values=strain[()].astype(np.float64),
                quality=quality["DQmask"][()].astype(np.uint32),
                flags=tuple(_text(name) for name in quality["DQShortnames"][()]),
            )
            duration_s = int(meta["Duration"][()])
    except (OSError, KeyError, ValueError, ZeroDivisionError, TypeError) as error:
        raise StrainFileError(f"{path} cannot be read as a GWOSC file: {error}") from error
    if found.values.size != duration_s * found.rate_hz or found.quality.size != duration_s:
        raise StrainFileError(
            f"{path}: {found.values.size} samples and {found.quality.size} quality words are not what "
            f"{duration_s} s at {found.rate_hz} Hz have."
        )
    return found


def seconds_of(flag: str, strain: Strain) -> NDArray[np.bool_]:
    """For each second whether a flag, such as DATA or CBC_CAT3, is set.

    Raises:
        StrainFileError: the file has no such flag.
    """
    if flag not in strain.flags:
        raise StrainFileError(f"there is no quality flag {flag}; there are {', '.join(strain.flags)}")
    return (strain.quality >> strain.flags.index(flag) & 1).astype(bool)


def refuse_gaps(values: NDArray[np.float64]) -> None:
    """Raises: StrainError, where a sample is no number."""
    if n_missing := np.count_nonzero(~np.isfinite(values)):
        raise StrainError(f"{n_missing} samples of the strain are no numbers: a gap.")


def gapless_around(gaps: Iterable[tuple[float, float]], length_s: float, around_s: float) -> tuple[float, float]:
    """The stretch with data around a moment, in seconds from the first sample.

    Raises:
        StrainFileError: the moment is in a gap.
    """
    begin, end = 0.0, length_s
    for gap_begin, gap_end in gaps:
        if gap_begin <= around_s < gap_end:
            raise StrainFileError(f"second {around_s:g} is in a gap from {gap_begin:g} to {gap_end:g} s.")
        if gap_end <= around_s:
            begin = max(begin, gap_end)
        else:
            end = min(end, gap_begin)
    return begin, end


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
