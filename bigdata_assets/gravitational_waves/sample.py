"""A small, seeded, true-to-format input of the branch: simulated glitches and chirps through the project's own Q-scans.

Noise of a detector with nothing, a chirp of two merging black holes, or a glitch of one of six classes in it. The
signals are physical, but glitches are simpler than real ones, so that **scores on this sample flatter**. What it has on
purpose: a glitch without its shortest view, a view of another size, a view with pixels that are no numbers; strain of
an event in two detectors, of another in one with a gap beside it, and a third event without strain.
"""

import csv
import random
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bigdata_assets.gravitational_waves.logic.strain import events, qscans, simulation
from bigdata_assets.gravitational_waves.logic.training import metadata
from bigdata_assets.gravitational_waves.logic.training.gravity_spy import VIEWS_S
from bigdata_assets.gravitational_waves.logic.training.training_set import FILE

VERSION = 3
GLITCHES: Mapping[str, int] = {"Chirp": 84, "No_Glitch": 42} | dict.fromkeys(simulation.GLITCHES, 12)
SAMPLE_TYPES = ("train", "test", "train", "train", "validation", "train", "train")
"""Repeated over the glitches of a class."""
DURATION_S = qscans.MIN_STRAIN_S
GPS_START = 1_187_008_882
STRAIN_RATE_HZ = 4_096
STRAIN_S = 32
STRAIN_EVENTS: Sequence[tuple[events.Event, Mapping[str, tuple[float, float]], tuple[float, float] | None]] = (
    # The first's waves reach Livingston 7 ms before Hanford, upside down.
    (
        events.Event("SIM170901", 1_188_300_016.4, (36.0, 29.0), (0.1, 0.0)),
        {"H1": (0.0, 16.0), "L1": (-0.007, -13.0)},
        None,
    ),
    (events.Event("SIM171002", 1_190_980_016.6, (24.0, 20.0)), {"H1": (0.0, 14.0)}, (25.0, 27.5)),
    (events.Event("SIM171103", 1_193_745_600.1), {}, None),
)
"""Events; by detector the delay (s) and the signal-to-noise ratio; a gap (s from the first sample)."""
FLAGS = ("DATA", "CBC_CAT1", "CBC_CAT2", "CBC_CAT3", "BURST_CAT1", "BURST_CAT2", "BURST_CAT3")


def write_sample(folder: Path, seed: int = 5, glitches: Mapping[str, int] = GLITCHES) -> None:
    """Write trainingsetv1d1.h5, its metadata, and strain with its events into a folder, in the publishers' layouts."""
    import h5py

    rng, names = np.random.default_rng(seed), random.Random(seed)
    rows: list[dict[str, str | float | int]] = []
    with h5py.File(folder / FILE, "w") as file:
        labels = [(label, number) for label, count in glitches.items() for number in range(count)]
        for label, number in tqdm(labels, "simulating glitches", unit="glitch", disable=None):
            sample_type = SAMPLE_TYPES[number % len(SAMPLE_TYPES)]
            name = "".join(names.choices(string.ascii_letters + string.digits, k=10))
            views, snr = simulated_views(rng, label)
            group = file.create_group(f"{label}/{sample_type}/{name}")
            for view_s, image in zip(VIEWS_S, views, strict=True):
                group.create_dataset(f"{view_s}.png", data=image[None], compression="gzip", shuffle=True)
            rows.append(_metadata(name, label, sample_type, snr, GPS_START + 64.0 * len(rows)))
        _spoil(file)
    with (folder / metadata.FILE).open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, metadata.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    for event, detectors, gap in STRAIN_EVENTS:
        events.add(folder, event)
        for detector, (delay_s, snr) in detectors.items():
            _write_strain(folder / events.FOLDER, rng, event, detector, delay_s, snr, gap)


def _write_strain(
    folder: Path,
    rng: np.random.Generator,
    event: events.Event,
    detector: str,
    delay_s: float,
    snr: float,
    gap: tuple[float, float] | None,
) -> None:
    """A file of noise with a binary's waves in it, as GWOSC's are."""
    import h5py

    start, n_samples = int(event.gps_s) - STRAIN_S // 2, STRAIN_S * STRAIN_RATE_HZ
    masses = event.masses or (30.0, 30.0)
    wave = simulation.binary(masses, event.spins, n_samples, STRAIN_RATE_HZ, event.gps_s - start + delay_s)
    strain = simulation.noise(rng, n_samples, STRAIN_RATE_HZ)
    strain += wave * snr / simulation.optimal_snr(wave, STRAIN_RATE_HZ)
    mask = np.full(STRAIN_S, 2 ** len(FLAGS) - 1, np.uint32)
    if gap:
        begin, end = gap
        strain[round(begin * STRAIN_RATE_HZ) : round(end * STRAIN_RATE_HZ)] = np.nan
        mask[int(begin) : int(np.ceil(end))] = 0
    with h5py.File(folder / f"{detector[0]}-{detector}_SIMULATED_4_V1-{start}-{STRAIN_S}.hdf5", "w") as file:
        series = file.create_dataset("strain/Strain", data=strain, compression="gzip", shuffle=True)
        series.attrs["Xspacing"] = 1 / STRAIN_RATE_HZ
        file["meta/Detector"], file["meta/GPSstart"], file["meta/Duration"] = detector.encode(), start, STRAIN_S
        file["quality/simple/DQmask"] = mask
        file["quality/simple/DQShortnames"] = np.array(FLAGS, "S10")


def simulated_views(rng: np.random.Generator, label: str) -> tuple[np.ndarray, float]:
    """The four views of a simulated glitch, shape (4, 140, 170), and its signal-to-noise ratio."""
    n_samples = round(DURATION_S * qscans.RATE_HZ)
    strain, snr = simulation.simulated(rng, label, n_samples, qscans.RATE_HZ, DURATION_S / 2)
    # Omicron's trigger times are within a few hundredths of a second of a glitch's loudest moment.
    return qscans.qscan(strain, qscans.RATE_HZ, DURATION_S / 2 + rng.normal(scale=0.01)), snr


def _spoil(file: Any) -> None:
    """What a loader must live with."""
    del _view(file, "Blip", 0)["0.5.png"]
    odd = _view(file, "Whistle", 0)
    del odd["2.0.png"]
    odd.create_dataset("2.0.png", data=np.zeros((1, 70, 85), np.float32))
    _view(file, "No_Glitch", 0)["4.0.png"][0, :3, 0] = np.nan


def _view(file: Any, label: str, number: int) -> Any:
    group = file[label]["train"]
    return group[sorted(group)[number]]


def _metadata(name: str, label: str, sample_type: str, snr: float, gps_s: float) -> dict[str, str | float | int]:
    return {
        "event_time": gps_s,
        "ifo": "H1",
        "peak_time": int(gps_s),
        "peak_time_ns": 0,
        "search": "simulated",
        "channel": "H1:SIMULATED",
        "snr": round(snr, 3),
        "gravityspy_id": name,
        "label": label,
        "sample_type": sample_type,
    }
