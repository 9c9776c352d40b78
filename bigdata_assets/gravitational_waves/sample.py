"""A small, seeded, true-to-format input of the branch: simulated glitches and chirps through the project's own Q-scans.

Noise of a detector with nothing, a chirp of two merging black holes, or a glitch of one of six classes in it. The
signals are physical, but glitches are simpler than real ones, so that **scores on this sample flatter**. What it has on
purpose: a glitch without its shortest view, a view of another size, a view with pixels that are no numbers.
"""

import csv
import random
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bigdata_assets.gravitational_waves.logic import metadata, qscans, signals
from bigdata_assets.gravitational_waves.logic.training_set import FILE, VIEWS_S

VERSION = 1
GLITCHES: Mapping[str, int] = {"Chirp": 15, "No_Glitch": 10} | dict.fromkeys(signals.GLITCHES, 5)
SAMPLE_TYPES = ("train", "test", "train", "validation", "train")
"""Repeated over the glitches of a class."""
DURATION_S = qscans.MIN_STRAIN_S
GPS_START = 1_187_008_882


def write_sample(folder: Path, seed: int = 5, glitches: Mapping[str, int] = GLITCHES) -> None:
    """Write trainingsetv1d1.h5 and its metadata into a folder, in the publisher's layout."""
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


def simulated_views(rng: np.random.Generator, label: str) -> tuple[np.ndarray, float]:
    """The four views of a simulated glitch, shape (4, 140, 170), and its signal-to-noise ratio."""
    n_samples = round(DURATION_S * qscans.RATE_HZ)
    strain, snr = signals.simulated(rng, label, n_samples, qscans.RATE_HZ, DURATION_S / 2)
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
