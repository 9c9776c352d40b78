"""Events to look at, and their strain files: in a folder, or fetched from the Gravitational Wave Open Science Center.

A folder `strain` has events.json as the open-data tutorials have it (`tevent`, `m1`, `m2`, `a1`, `a2` where known) and
GWOSC's files beside it, which are found by their GPS time.
"""

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bigdata_assets.gravitational_waves.logic.strain import FILE_NAME, StrainFileError, find

FOLDER = "strain"
FILE = "events.json"
DETECTORS = ("H1", "L1", "V1")
NAME = re.compile(r"[A-Za-z0-9_]{1,40}")
"""Of an event: safe in a partition key, a path and SQL alike."""


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


def read(folder: Path) -> dict[str, Event]:
    """The events of a branch's folder by name; none where there is no list.

    Raises:
        StrainFileError: the list cannot be read, or an entry lacks its time.
    """
    path = folder / FOLDER / FILE
    if not path.is_file():
        return {}
    try:
        return {name: _event(name, entry) for name, entry in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise StrainFileError(f"{path} cannot be read as a list of events: {error!r}") from error


def _event(name: str, entry: dict[str, float]) -> Event:
    _refuse_name(name)
    masses = (float(entry["m1"]), float(entry["m2"])) if {"m1", "m2"} <= entry.keys() else None
    return Event(name, float(entry["tevent"]), masses, (float(entry.get("a1", 0)), float(entry.get("a2", 0))))


def _refuse_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise StrainFileError(f"an event's name is 1 to 40 letters, digits and _; {name!r} is not")


def add(folder: Path, event: Event) -> None:
    """Put an event into the list, or in place of the one of its name.

    Raises:
        StrainFileError: its name cannot be a partition's.
    """
    _refuse_name(event.name)
    path = folder / FOLDER / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    entry: dict[str, float] = {"tevent": event.gps_s, "a1": event.spins[0], "a2": event.spins[1]}
    entries[event.name] = entry | ({"m1": event.masses[0], "m2": event.masses[1]} if event.masses else {})
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

    _refuse_name(name)
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
