"""Events to look at, and their strain files: in a folder, or fetched from the Gravitational Wave Open Science Center.

A folder `strain` has events.json as the open-data tutorials have it (`tevent`, `m1`, `m2`, `a1`, `a2` where known) and
GWOSC's files beside it, which are found by their GPS time.
"""

import contextlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from bigdata_assets.gravitational_waves.logic.strain.strain import FILE_NAME, StrainFileError, find

LOG = logging.getLogger(__name__)
FOLDER = "strain"
FILE = "events.json"
DETECTORS = ("H1", "L1", "V1")
NAME = re.compile(r"[A-Za-z0-9_]{1,40}(-v\d{1,3})?")
"""Of an event, perhaps with its version in GWOSC's catalogue: safe in a partition key, a path and SQL alike."""
NAMED = "an event's name is 1 to 40 letters, digits and _, and may end in a version such as -v3;"


@dataclass(frozen=True)
class Event:
    """A detection, or a moment to look at.

    Attributes:
        name: such as GW150914.
        gps_s: GPS time of its merger, as far as it is known.
        masses: of the two bodies in the detector's frame, the heavier first, solar masses; None where unknown.
        spins: along the orbit's axis, in the same order.
    """

    name: str
    gps_s: float
    masses: tuple[float, float] | None = None
    spins: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise StrainFileError(f"{NAMED} {self.name!r} is not")
        if self.masses and not all(0 < mass < 1_000 for mass in self.masses):
            raise StrainFileError(f"{self.name}: masses are between 0 and 1,000 solar masses, not {self.masses}")
        if not all(-1 < spin < 1 for spin in self.spins):
            raise StrainFileError(f"{self.name}: spins are between -1 and 1, not {self.spins}")


def read(folder: Path) -> dict[str, Event]:
    """The events of a branch's folder by name; none where there is no list. An odd entry is left out, with a warning.

    Raises:
        StrainFileError: the list cannot be read at all.
    """
    found = {}
    for name, entry in _entries(folder).items():
        try:
            masses = (float(entry["m1"]), float(entry["m2"])) if {"m1", "m2"} <= entry.keys() else None
            spins = (float(entry.get("a1", 0)), float(entry.get("a2", 0)))
            found[name] = Event(name, float(entry["tevent"]), masses, spins)
        except (StrainFileError, ValueError, KeyError, AttributeError, TypeError) as error:
            LOG.warning("%s: the entry %r is left out: %r", FILE, name, error)
    return found


def _entries(folder: Path) -> dict[str, Any]:
    path = folder / FOLDER / FILE
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StrainFileError(f"{path} cannot be read as a list of events: {error}") from error
    if not isinstance(entries, dict):
        raise StrainFileError(f"{path} is no object with an entry for each event.")
    return entries


def named(listed: Mapping[str, Event], name: str) -> Event:
    """The event of a name.

    Raises:
        StrainFileError: the list has none.
    """
    if name not in listed:
        raise StrainFileError(f"there is no event {name} in {FILE}")
    return listed[name]


def add(folder: Path, event: Event) -> None:
    """Put an event into the list; of one that is there already, what is not given stays.

    Raises:
        StrainFileError: the list cannot be read.
    """
    path = folder / FOLDER / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        entries = _entries(folder)
        entry = {"tevent": event.gps_s}
        if event.masses:
            entry |= dict(zip(("m1", "m2", "a1", "a2"), (*event.masses, *event.spins), strict=True))
        known = entries.get(event.name)
        entries[event.name] = (known if isinstance(known, dict) else {}) | entry
        aside = path.with_suffix(".part")
        aside.write_text(json.dumps(entries, indent=2), encoding="utf-8")
        aside.rename(path)


def detectors(folder: Path, event: Event) -> list[str]:
    """Those that have a file of the event's time."""
    found = []
    for detector in DETECTORS:
        with contextlib.suppress(StrainFileError):
            find(folder / FOLDER, detector, event.gps_s)
            found.append(detector)
    return found


def keys(folder: Path) -> list[str]:
    """Partition keys `<event>-<detector>`: of each event the detectors that have a file."""
    return [f"{event.name}-{detector}" for event in read(folder).values() for detector in detectors(folder, event)]


def without_files(folder: Path) -> list[str]:
    """Events of the list that no file is there for."""
    return [event.name for event in read(folder).values() if not detectors(folder, event)]


def file_of(folder: Path, key: str) -> Path:
    """The strain file of a partition key.

    Raises:
        StrainFileError: there is no such event, or no file of its time.
    """
    name, detector = parse(key)
    return find(folder / FOLDER, detector, named(read(folder), name).gps_s)


def version(path: Path) -> str:
    """What changes when a file is written again, also to the same size or with an old time."""
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def parse(key: str) -> tuple[str, str]:
    """Event and detector of a partition key."""
    event, _, detector = key.rpartition("-")
    return event, detector


def fetch(folder: Path, name: str, masses: tuple[float, float] | None = None, host: str = "https://gwosc.org") -> None:
    """Fetch an event's strain from GWOSC, all detectors, 4,096 Hz, and add it to the list.

    Files of 32 s where GWOSC has them, of 4,096 s for newer releases. What is here already is not fetched again.

    Raises:
        StrainFileError: GWOSC has no such event, or cannot be reached.
    """
    import pooch
    import requests
    from gwosc import datasets, locate
    from tenacity import RetryError

    if not NAME.fullmatch(name):
        raise StrainFileError(f"{NAMED} {name!r} is not")
    try:
        event = Event(name, float(datasets.event_gps(name, host=host)), masses)
        urls = locate.get_event_urls(name, sample_rate=4096, duration=32, host=host)
        files = {Path(urlsplit(url).path).name: url for url in urls}
        files = {file: url for file, url in files.items() if FILE_NAME.fullmatch(file)}
        for file, url in files.items():
            pooch.retrieve(url, known_hash=None, fname=file, path=folder / FOLDER, progressbar=True)
    except (requests.RequestException, RetryError, ValueError, OSError) as error:
        raise StrainFileError(f"GWOSC ({host}) gave no strain of {name}: {error}") from error
    if not files:
        raise StrainFileError(f"GWOSC ({host}) has no HDF5 file of {name} at 4,096 Hz.")
    add(folder, event)
