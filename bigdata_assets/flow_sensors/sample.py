"""A small, seeded, true-to-format input of the branch: six weeks of a sewer and of two places at a brook.

Days, storms and faults follow rules of this file's own, so that **scores on this sample mean nothing**; it is there for
the pipeline to be seen at work without any download. What it has on purpose:

- sewer_north/anomalies.csv in carldata's layout, every 5 minutes: zeros, spikes, and hours of a choked pipe that only
  who knows the time of day can tell; the hour of the change to summer time written twice, with other values; a line
  that was cut off;
- MillWeir2016.csv.gz and MillBridge2016.csv.gz in the Logan River Observatory's layout, every 15 minutes: stuck sensors
  (for hours, and for longer than a window), drifts, spikes, -9999 with a quality code and once without; water takes 45
  minutes from the weir to the bridge, where five hours are missing;
- sites.csv: the sewer's logger keeps summer time, the brook's do not. The places are made up.
"""

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

VERSION = 1
START = "2016-03-01"
DAYS = 42
SEWER = "sewer_north"
SEWER_ZONE, BROOK_ZONE = "America/Denver", "Etc/GMT+7"
SITES = f"""site,name,latitude,longitude,time_zone,labelled_by
{SEWER},"Northern collector, manhole 7",40.0612,-105.2071,{SEWER_ZONE},
MillWeir,Mill Brook at the weir,40.0457,-105.2318,{BROOK_ZONE},
MillBridge,Mill Brook at the road bridge,40.0391,-105.1984,{BROOK_ZONE},
"""
CHANGE = "2016-03-13 03"
"""Hour after the clocks were put forward."""
CUT_AT, CUT_TO = 5_000, 15
"""The line of the sewer's that comes a second time, and how many characters of it."""
GAP = slice(2_030, 2_050)
"""Rows that the bridge has not."""
LAG = 3
STUCK, DRIFT, SPIKE, NO_DATA = "4", "10", "2", "5"


@dataclass
class _Signal:
    """A channel: what is true, what was measured, and a code where they differ."""

    true: NDArray[np.float64]
    measured: NDArray[np.float64]
    code: NDArray[np.object_]

    def spoil(self, rows: slice, measured: NDArray[np.float64] | float, code: str) -> None:
        self.measured[rows] = measured
        self.code[rows] = code


def write_sample(folder: Path, seed: int = 3) -> None:
    """Write the sites' files and sites.csv, byte for byte the same for a seed."""
    rng = np.random.default_rng(seed)
    storms = [(day * 24 + rng.uniform(0, 60), rng.uniform(0.3, 1)) for day in range(2, DAYS, 5)]
    _write_sewer(folder / SEWER, rng, storms)
    level = _level(DAYS * 96 + LAG, storms, rng)
    at_weir, at_bridge = level[LAG:], 0.8 * level[:-LAG] + 0.07
    weir = {"flow": 1.8 * at_weir**1.6, "level": at_weir}
    bridge = {"level": at_bridge, "velocity": 0.9 * at_bridge**0.6}
    for number, (site, channels) in enumerate({"MillWeir": weir, "MillBridge": bridge}.items()):
        signals = {name: _signal(true, 0.006, rng) for name, true in channels.items()}
        _spoil_brook(signals, rng, shift=150 * number)
        _write_brook(folder / f"{site}2016.csv.gz", signals, GAP if site == "MillBridge" else slice(0))
    (folder / "sites.csv").write_text(SITES, encoding="utf-8")


def _signal(true: NDArray[np.float64], noise: float, rng: np.random.Generator) -> _Signal:
    true = np.round(true * (1 + noise * rng.standard_normal(len(true))), 3)
    return _Signal(true, true.copy(), np.full(len(true), "NULL", object))


def _storms(hours: NDArray[np.float64], storms: Sequence[tuple[float, float]], lasting_h: float) -> NDArray[np.float64]:
    """How much of the storms, each with an hour and a height, is there: a quick rise and a slow fall."""
    since = [np.clip((hours - begins) / lasting_h, 0, None) for begins, _ in storms]
    return np.sum([height * x * np.exp(1 - x) for x, (_, height) in zip(since, storms, strict=True)], axis=0)


def _level(n: int, storms: Sequence[tuple[float, float]], rng: np.random.Generator) -> NDArray[np.float64]:
    """The brook's, in metres: melt water by the day, storms, and a slow change."""
    hours = np.arange(n) / 4
    slow = np.cumsum(rng.standard_normal(n)) * 0.0008
    return (
        0.45 + 0.03 * np.sin(2 * np.pi * (hours - 9) / 24) + 0.35 * _storms(hours, storms, 9) + np.clip(slow, -0.1, 0.1)
    )


def _write_sewer(folder: Path, rng: np.random.Generator, storms: Sequence[tuple[float, float]]) -> None:
    n = DAYS * 288
    times = pd.date_range(START, periods=n, freq="5min", tz=SEWER_ZONE)
    hours = np.arange(n) / 12
    day = np.sin(2 * np.pi * (hours - 8) / 24) + 0.5 * np.sin(4 * np.pi * (hours - 6) / 24)
    velocity = _signal(0.75 + 0.16 * day + 0.5 * _storms(hours, storms, 3), 0.015, rng)
    for begins in range(0, n - 200, 168):  # faults of all kinds from the first days to the last
        at = begins + int(rng.integers(0, 40))
        velocity.spoil(slice(at, at + int(rng.integers(1, 5))), 0.0, SPIKE)
        at = begins + 60 + int(rng.integers(0, 20))
        velocity.spoil(slice(at, at + 1), round(velocity.true[at] * rng.uniform(1.6, 3), 3), SPIKE)
        if begins % 504 == 0:
            choked = slice(begins + 100, begins + 100 + int(rng.integers(8, 20)))
            velocity.spoil(choked, np.round(velocity.true[choked] * rng.uniform(0.4, 0.6), 3), DRIFT)
    texts = times.strftime("%Y-%m-%d %H:%M:%S")
    lines = [f"{at},{x:g},{true:g}" for at, x, true in zip(texts, velocity.measured, velocity.true, strict=True)]
    first = next(i for i, text in enumerate(texts) if text.startswith(CHANGE))
    again = [f"{at},{x + 0.1:.3f},{x + 0.1:.3f}" for at, x in zip(texts, velocity.true, strict=True)][
        first : first + 12
    ]
    cut = lines[CUT_AT][:CUT_TO]
    lines = [*lines[: first + 12], *again, *lines[first + 12 : CUT_AT], cut, *lines[CUT_AT:]]
    folder.mkdir()
    (folder / "anomalies.csv").write_text("\n".join(["time,velocity,velocity_edited", *lines, ""]), encoding="utf-8")


def _spoil_brook(signals: dict[str, _Signal], rng: np.random.Generator, shift: int) -> None:
    """Faults of all kinds, in the first, the middle and the last part of the time, in one channel after the other."""
    turns = [*signals.values()] * 4
    n = DAYS * 96
    for part, begins in enumerate(range(shift, n - 500, 670)):
        stuck, drifting = turns[part], turns[part + 1]
        stuck.spoil(slice(begins, begins + (66 if part % 3 == 2 else 10)), stuck.true[begins], STUCK)
        rows = slice(begins + 150, begins + 164)
        drifting.spoil(rows, np.round(drifting.true[rows] * np.linspace(1.1, 1.5, 14), 3), DRIFT)
        for at in begins + 220 + rng.choice(200, 4, replace=False):
            stuck.spoil(slice(at, at + 1), round(stuck.true[at] * rng.uniform(1.5, 2.5), 3), SPIKE)
        drifting.spoil(slice(begins + 440, begins + 443), -9999, NO_DATA)
    last = next(iter(signals.values()))
    last.spoil(slice(n - 40, n - 39), -9999, "NULL")


def _write_brook(path: Path, signals: dict[str, _Signal], left_out: slice) -> None:
    """In the layout of the Logan River Observatory: as measured, corrected, and a code or NULL."""
    times = pd.date_range(START, periods=DAYS * 96, freq="15min").strftime("%Y-%m-%d %H:%M:%S.000")
    columns: dict[str, Iterable[str]] = {"datetime": times}
    for name, signal in signals.items():
        corrected = [f"{x:g}" if code != NO_DATA else "NULL" for x, code in zip(signal.true, signal.code, strict=True)]
        columns |= {name: [f"{x:g}" for x in signal.measured], f"{name}_cor": corrected, f"{name}_qual": signal.code}
    rows = [",".join(columns), *map(",".join, zip(*columns.values(), strict=True))]
    del rows[left_out]
    # Without a time of writing the same sample has the same bytes.
    path.write_bytes(gzip.compress("\n".join([*rows, ""]).encode(), mtime=0))
