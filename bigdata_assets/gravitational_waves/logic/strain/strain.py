"""Strain of a detector, as GWOSC's HDF5 files hold it: h(t) at 4,096 Hz, with the quality of each second.

File names are <observatory>-<detector>_<set>-<GPS start>-<duration>.hdf5, such as H-H1_LOSC_4_V2-1126259446-32.hdf5.
The set has the rate in kHz (4 or 16KHZ), how the strain was calibrated or cleaned (C00, C01, CLN) and the release (V2,
R1), in any order; some have the run (O2) too.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FILE_NAME = re.compile(r"[A-Z]-(?P<detector>[A-Z]\d)_(?P<set>[A-Za-z0-9_]+)-(?P<start>\d+)-(?P<duration>\d+)\.hdf5")
MAX_SAMPLES = 4_096 * 4_096
"""GWOSC's longest files: 4,096 s at 4,096 Hz."""
KEPT_S = 16
"""Of a file, what is kept before and after the second of an event: the whole of GWOSC's short files."""


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
        file: name of the file that it is from; empty where that is not known.
    """

    detector: str
    gps_start_s: int
    rate_hz: int
    values: NDArray[np.float64]
    quality: NDArray[np.uint32]
    flags: tuple[str, ...]
    file: str = ""

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """Begin and end of each stretch without data, in seconds from the first sample."""
        edges = np.flatnonzero(np.diff(np.isnan(self.values), prepend=False, append=False)) / self.rate_hz
        return [(float(begin), float(end)) for begin, end in edges.reshape(-1, 2)]

    @property
    def stretches(self) -> list[tuple[float, float]]:
        """Begin and end of each stretch with data, in seconds from the first sample."""
        edges = [0.0, *(edge for gap in self.gaps for edge in gap), len(self.values) / self.rate_hz]
        return [(begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True) if end > begin]

    def stretch_around(self, time_s: float) -> tuple[float, float]:
        """The stretch with data that a moment is in.

        Raises:
            StrainError: it is in a gap.
        """
        for begin, end in self.stretches:
            if begin <= time_s < end:
                return begin, end
        raise StrainError(f"second {time_s:g} is in a gap.")

    def between(self, begin_s: float, end_s: float) -> NDArray[np.float64]:
        """Samples of a stretch, in seconds from the first sample."""
        return self.values[round(begin_s * self.rate_hz) : round(end_s * self.rate_hz)]


def find(folder: Path, detector: str, gps_s: float) -> Path:
    """The file of a detector that covers a GPS time; of several, that whose `_preference` comes first.

    Raises:
        StrainFileError: there is none.
    """
    found = []
    for path in folder.glob("*.hdf5"):
        named = FILE_NAME.fullmatch(path.name)
        if named and named["detector"] == detector:
            start, end = int(named["start"]), int(named["start"]) + int(named["duration"])
            if start <= gps_s < end:
                around_s = min(gps_s - start, end - gps_s, KEPT_S)
                found.append((*_preference(named["set"]), -around_s, path.name, path))
    if not found:
        raise StrainFileError(f"{folder} has no file of {detector} that covers GPS time {gps_s:.2f}.")
    return min(found)[-1]


def _preference(told: str) -> tuple[int, int, int]:
    """The order of releases of one time: at 4 kHz, all that is needed here; cleaned; the highest version."""
    parts = told.upper().split("_")
    rate = next((int(match[1]) for part in parts if (match := re.fullmatch(r"(\d+)(?:KHZ)?", part))), 4)
    calibration = next((int(match[1]) for part in parts if (match := re.fullmatch(r"C(\d\d)", part))), None)
    version = max((int(match[1]) for part in parts if (match := re.fullmatch(r"[VR](\d+)", part))), default=0)
    # What names none is as published with the event, after the last calibration.
    uncleaned = 0 if "CLN" in parts else 1 if calibration is None else 100 - calibration
    return abs(rate - 4), uncleaned, -version


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
                raise StrainFileError(
                    f"{path}: strain/Strain is {strain.dtype} {strain.shape}, no series of at most "
                    f"{MAX_SAMPLES:,} floats."
                )
            spacing_s = float(strain.attrs["Xspacing"])
            meta, quality = file["meta"], file["quality/simple"]
            found = Strain(
                detector=_text(meta["Detector"][()]),
                gps_start_s=int(meta["GPSstart"][()]),
                rate_hz=round(1 / spacing_s),
                values=strain[()].astype(np.float64),
                quality=quality["DQmask"][()].astype(np.uint32),
                flags=tuple(_text(name) for name in quality["DQShortnames"][()]),
                file=path.name,
            )
            duration_s = int(meta["Duration"][()])
    except StrainFileError:
        raise
    except (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise StrainFileError(f"{path} cannot be read as a GWOSC file: {error}") from error
    if found.values.size != duration_s * found.rate_hz or found.quality.size != duration_s:
        raise StrainFileError(
            f"{path}: {found.values.size} samples and {found.quality.size} quality words are not what "
            f"{duration_s} s at {found.rate_hz} Hz have."
        )
    return found


def rows(strain: Strain, around_gps_s: float) -> pa.Table:
    """The seconds around a GPS time, one row each: gps_s, rate_hz, strain, dq_mask, dq_names, file.

    Raises:
        StrainFileError: the strain does not cover that time.
    """
    first = int(around_gps_s) - KEPT_S - strain.gps_start_s
    n_seconds = len(strain.quality)
    if not 0 <= around_gps_s - strain.gps_start_s < n_seconds:
        raise StrainFileError(
            f"GPS times {strain.gps_start_s} to {strain.gps_start_s + n_seconds} do not cover {around_gps_s:.2f}."
        )
    seconds = range(max(first, 0), min(first + 2 * KEPT_S, n_seconds))
    rate_hz = strain.rate_hz
    values = strain.values[seconds.start * rate_hz : seconds.stop * rate_hz]
    offsets = pa.array(np.arange(0, len(values) + 1, rate_hz), pa.int32())
    return pa.table(
        {
            "gps_s": pa.array([strain.gps_start_s + second for second in seconds], pa.int64()),
            "rate_hz": pa.array([rate_hz] * len(seconds), pa.int32()),
            # NaN is a value here, not a null.
            "strain": pa.ListArray.from_arrays(offsets, pa.array(values, from_pandas=False)),
            "dq_mask": pa.array(strain.quality[seconds.start : seconds.stop], pa.int64()),
            "dq_names": pa.array([",".join(strain.flags)] * len(seconds)),
            "file": pa.array([strain.file] * len(seconds)),
        }
    )


def of_rows(seconds: pa.Table, detector: str) -> Strain:
    """What `rows` was made of, in whatever order its rows are."""
    seconds = seconds.sort_by("gps_s")
    return Strain(
        detector=detector,
        gps_start_s=seconds["gps_s"][0].as_py(),
        rate_hz=seconds["rate_hz"][0].as_py(),
        values=seconds["strain"].combine_chunks().flatten().to_numpy(zero_copy_only=False),
        quality=seconds["dq_mask"].to_numpy().astype(np.uint32),
        flags=tuple(seconds["dq_names"][0].as_py().split(",")),
        file=seconds["file"][0].as_py() or "",
    )


def refuse_gaps(values: NDArray[np.float64]) -> None:
    """Raises: StrainError, where a sample is no number."""
    if n_missing := np.count_nonzero(~np.isfinite(values)):
        raise StrainError(f"{n_missing} samples of the strain are no numbers: a gap.")


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
