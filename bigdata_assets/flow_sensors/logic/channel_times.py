"""Times of channel files as instants, read from the whole file: what a time means depends on the rows around it.

A zone in the file wins over the site's, and that over UTC. Loggers that keep summer time write an hour of autumn twice:
by the order in the file it is summer time's first. Days and months are told apart by all dates of a file.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bigdata_assets.flow_sensors.logic.channel_layouts import (
    Block,
    ChannelFileError,
    Layout,
    blocks,
    channel_name,
    fields,
)

DAY_MS = 86_400_000
NO_TIME = np.iinfo(np.int64).min
REASONS = (
    "the time is none that is understood",
    "the zone of the time is not known",
    "the local time does not exist: the clock was put forward then",
    "the year is not in 1900 to 2199",
)
"""Of rows whose instant is NO_TIME plus the number here."""
UNCLEAR, NO_ZONE, SKIPPED, TOO_FAR = (NO_TIME + number for number in range(len(REASONS)))
FIRST_MS, END_MS = (int(np.datetime64(f"{year}-01-01", "ms").astype(np.int64)) for year in (1900, 2200))
ISO = r"^(?P<y>\d{4})[-/.](?P<a>\d{1,2})[-/.](?P<b>\d{1,2})"
SLASHED = r"^(?P<a>\d{1,2})(?P<mark>[-/.])(?P<b>\d{1,2})[-/.](?P<y>\d{4})"
CLOCK = (
    r"(?:[T ]\s*(?P<h>\d{1,2}):(?P<mi>\d{1,2})(?::(?P<s>\d{1,2})(?:[.,](?P<f>\d{1,9}))?)?\s*(?P<half>[AaPp][Mm])?"
    r"\s*(?P<zone>[Zz]|[A-Za-z]{3,4}|[+-]\d{2}(?::?\d{2})?)?)?$"
)
_STANDARD_H = {"A": -4, "E": -5, "C": -6, "M": -7, "P": -8, "AK": -9, "H": -10, "HA": -10}
ZONES_H = {
    **{f"{letters}ST": hours for letters, hours in _STANDARD_H.items()},
    **{f"{letters}DT": hours + 1 for letters, hours in _STANDARD_H.items()},
    "UTC": 0,
    "GMT": 0,
    "Z": 0,
    "SST": -11,
    "CHST": 10,
    "GST": 10,
}
"""Hours before UTC by the abbreviations that are used in the United States."""


@dataclass(frozen=True)
class Times:
    """Of a file's records, in their order.

    Attributes:
        instants: (n,) milliseconds since 1970, UTC; NO_TIME and a few above it where there is none, see REASONS.
        groups: (n,) number of the site (and channel) that it is of; -1: none.
        names: site and channel by that number.
        labelled_by: by site, what the layout tells of it.
        repeated: records of times that a group has several times, ascending.
        sets: for each of them the number of its group and time.
    """

    instants: NDArray[np.int64]
    groups: NDArray[np.int32]
    names: list[tuple[str, str]]
    labelled_by: dict[str, str | None]
    repeated: NDArray[np.int64]
    sets: NDArray[np.int64]


class Groups:
    """Which site, and in a long layout which channel, a record is of; numbers for them."""

    MOST = 10_000
    MAX_NAME = 200

    def __init__(self, path: Path) -> None:
        self._path = path
        self._codes: dict[tuple[str, str], int] = {}

    @property
    def names(self) -> list[tuple[str, str]]:
        """Site and channel (empty where columns are channels) of each number."""
        return list(self._codes)

    def of(self, block: Block, columns: dict[int, pa.Array]) -> NDArray[np.int32]:
        """The number of each row; -1 where it names no site or no channel."""
        layout = block.layout
        if not layout.sites and layout.channel is None:
            return np.full(len(block), self._code(layout, [layout.site]), np.int32)
        parts = [columns[i] for i in layout.sites] or [pa.repeat(layout.site, len(block))]
        if layout.channel is not None:
            parts.append(columns[layout.channel])
        encoded = pc.binary_join_element_wise(*parts, "\x1f").dictionary_encode()
        codes = [self._code(layout, text.split("\x1f")) for text in encoded.dictionary.to_pylist()]
        return np.array([*codes, -1], np.int32)[encoded.indices.fill_null(len(codes)).to_numpy()]

    def _code(self, layout: Layout, parts: list[str]) -> int:
        parts = [part.strip() for part in parts]
        *sites, channel = parts if layout.channel is not None else [*parts, "-"]
        if layout.channel is not None and layout.named:
            channel = channel_name(channel)
        site = "-".join(sites)
        if len(sites) != max(len(layout.sites), 1) or not all(
            name and len(name) <= self.MAX_NAME and name.isprintable() for name in (*sites, site, channel)
        ):
            return -1
        code = self._codes.setdefault((site, channel if layout.channel is not None else ""), len(self._codes))
        if code >= self.MOST:
            raise ChannelFileError(
                f"{self._path} has more than {self.MOST:,} sites or channels: see whether its columns site and channel "
                "are those, and split it if so."
            )
        return code


def read_times(path: Path, zone_of: Callable[[str], str | None], rows: int) -> Times:
    """The instants of all records of a file.

    Args:
        path: the file.
        zone_of: IANA's name of the zone that a site's loggers write; None: UTC.
        rows: records that are read at a time.

    Raises:
        ChannelFileError: it is no channel file, cannot be unpacked, or its days cannot be told from its months.
    """
    reader, groups = _Reader(), Groups(path)
    read, absolute, numbers = [np.empty((1, 0), np.int64)], [np.empty(0, bool)], [np.empty(0, np.int32)]
    labelled_by: dict[str, str | None] = {}
    for block in blocks(path, rows):
        columns, _ = fields(block)
        numbers.append(groups.of(block, columns))
        labelled_by |= {site: block.layout.labelled_by for site, _ in groups.names if site not in labelled_by}
        if len(block):
            times, known = reader.read(block, columns)
            read.append(times)
            absolute.append(known)
    height = max(map(len, read))
    times = np.concatenate([np.broadcast_to(part, (height, part.shape[1])) for part in read], axis=1)
    instants, group = _by_order_of_days(path, times, reader.dotted), np.concatenate(numbers)
    _to_utc(instants, np.concatenate(absolute), group, [zone_of(site) for site, _ in groups.names])
    far = (instants >= NO_TIME + len(REASONS)) & ((instants < FIRST_MS) | (instants >= END_MS))
    instants[far] = TOO_FAR
    return Times(instants, group, groups.names, labelled_by, *_repeated(instants, group))


class _Reader:
    """Reads times block by block; whether a file's dates begin by the year is told by the first that are dates."""

    def __init__(self) -> None:
        self.slashed: bool | None = None
        self.dotted = False

    def read(self, block: Block, columns: Mapping[int, pa.Array]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Milliseconds, (1, n), or (2, n) with the day or the month first; and whether they are UTC's already."""
        layout = block.layout
        texts = [pc.utf8_trim_whitespace(columns[i]) for i in layout.time]
        times, zones = self._parsed(_one_text(texts))
        if layout.zone is not None and zones is None:
            zones = columns[layout.zone]
        if zones is None:
            return times, np.full(len(block), layout.utc)
        offsets, known = _offsets_ms(zones)
        usable = times > NO_TIME + len(REASONS)
        times = np.where(usable, np.where(offsets == NO_TIME, NO_ZONE, times - np.where(known, offsets, 0)), times)
        return times, known | layout.utc

    def _parsed(self, texts: pa.Array) -> tuple[NDArray[np.int64], pa.Array | None]:
        """Milliseconds as `read` has them, and the zones in the texts, where there are any."""
        if not self.slashed:
            for zone in (None, "UTC"):
                try:
                    cast = texts.cast(pa.timestamp("us", zone))
                except pa.ArrowInvalid:
                    continue
                self.slashed = False
                times = np.floor_divide(cast.cast(pa.int64()).fill_null(0).to_numpy(), 1_000)
                times = np.where(cast.is_valid().to_numpy(zero_copy_only=False), times, UNCLEAR)
                return times[None], pa.repeat("Z", len(times)) if zone else None
            found = pc.extract_regex(texts, ISO + CLOCK)
            if self.slashed is False or found.null_count < len(texts):
                self.slashed = False
                y, a, b, clock = _parts(found)
                return _instants(y, a, b, clock)[None], found.field("zone")
        found = pc.extract_regex(texts, SLASHED + CLOCK)
        if found.null_count < len(texts):
            self.slashed = True
        self.dotted |= pc.any(pc.equal(found.field("mark"), ".")).as_py() or False
        y, a, b, clock = _parts(found)
        return np.stack([_instants(y, b, a, clock), _instants(y, a, b, clock)]), found.field("zone")


def _one_text(texts: list[pa.Array]) -> pa.Array:
    """A time as one text: of one column, of date and time, or of year, month, day, hour and minute."""
    if len(texts) < 3:
        return texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, " ")
    date, clock = pc.binary_join_element_wise(*texts[:3], "-"), pc.binary_join_element_wise(*texts[3:], ":")
    return pc.binary_join_element_wise(date, clock, " ")


def _parts(found: pa.StructArray) -> tuple[NDArray[np.int64], ...]:
    """Year, the two numbers after or before it, and milliseconds of the day; -1 where they are no time."""

    def number(texts: pa.Array) -> NDArray[np.int64]:
        return pc.if_else(pc.equal(texts, ""), "0", texts).cast(pa.int64()).to_numpy()

    h, mi, s = (number(found.field(name)) for name in ("h", "mi", "s"))
    f = number(pc.utf8_slice_codeunits(pc.utf8_rpad(found.field("f"), 3, "0"), 0, 3))
    half = pc.utf8_upper(found.field("half")).to_numpy(zero_copy_only=False)
    good = (h < 24) & (mi < 60) & (s < 60) & ((half == "") | ((h >= 1) & (h <= 12)))
    h = np.where(half == "", h, h % 12 + 12 * (half == "PM"))
    good &= found.is_valid().to_numpy(zero_copy_only=False)
    clock = np.where(good, ((h * 60 + mi) * 60 + s) * 1_000 + f, -1)
    return (*(number(found.field(name)) for name in ("y", "a", "b")), clock)


def _instants(
    y: NDArray[np.int64], m: NDArray[np.int64], d: NDArray[np.int64], clock: NDArray[np.int64]
) -> NDArray[np.int64]:
    months = (y - 1970) * 12 + m - 1
    first, end = (
        each.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) for each in (months, months + 1)
    )
    good = (m >= 1) & (m <= 12) & (d >= 1) & (d <= end - first) & (clock >= 0)
    return np.where(good, (first + d - 1) * DAY_MS + clock, UNCLEAR)


def _offsets_ms(zones: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Milliseconds before UTC, NO_TIME where a zone is not known; and whether there is one."""
    encoded = zones.fill_null("").dictionary_encode()
    texts = [text.strip() for text in encoded.dictionary.to_pylist()]
    offsets = np.array([_offset_ms(text) for text in texts], np.int64)
    indices = encoded.indices.to_numpy()
    return offsets[indices], np.array([text != "" for text in texts], bool)[indices]


def _offset_ms(text: str) -> int:
    if match := re.fullmatch(r"([+-])(\d\d):?(\d\d)?", text):
        return (1 if match[1] == "+" else -1) * (int(match[2]) * 60 + int(match[3] or 0)) * 60_000
    hours = ZONES_H.get(text.upper(), None if text else 0)
    return int(NO_TIME) if hours is None else hours * 3_600_000


def _by_order_of_days(path: Path, times: NDArray[np.int64], dotted: bool) -> NDArray[np.int64]:
    """Of dates with the day and with the month first those of which more are dates."""
    day_first, month_first = times[0], times[-1]
    missed = [int((each == UNCLEAR).sum()) for each in (day_first, month_first)]
    if dotted or missed[0] < missed[1] or np.array_equal(day_first, month_first):
        return day_first.copy()
    if missed[0] == missed[1]:
        raise ChannelFileError(
            f"{path}: days cannot be told from months in its dates, none of which has a number above 12 in one place. "
            "Write them as 2016-03-31."
        )
    return month_first.copy()


def _to_utc(
    times: NDArray[np.int64], absolute: NDArray[np.bool_], groups: NDArray[np.int32], zones: list[str | None]
) -> None:
    """Local times to UTC in place, each in the zone of its group."""
    for zone in {zone for zone in zones if zone}:
        its = np.array([each == zone for each in [*zones, None]])  # group -1 is the last
        rows = np.flatnonzero(its[groups] & ~absolute & (times >= FIRST_MS) & (times < END_MS))
        local = pd.DatetimeIndex(times[rows].view("datetime64[ms]"))
        summer, winter = (
            local.tz_localize(zone, ambiguous=np.full(len(rows), first), nonexistent="NaT")
            .to_numpy("datetime64[ms]")
            .view(np.int64)
            for first in (True, False)
        )
        twice = np.flatnonzero(summer != winter)
        later = _second_time(times[rows], twice, groups[rows])
        summer = np.where(summer == NO_TIME, SKIPPED, summer)
        summer[twice[later]] = winter[twice[later]]
        times[rows] = summer


def _second_time(local: NDArray[np.int64], twice: NDArray[np.int64], groups: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether ambiguous times, at `twice`, are the hour's second ones: they follow one that is not before them."""
    if not len(twice):
        return np.zeros(0, bool)
    newest_first = np.sign(np.diff(local)).sum() < 0
    order = twice[::-1] if newest_first else twice
    hours = pd.DataFrame({"time": local[order], "group": groups[order], "day": local[order] // DAY_MS})
    back = hours.groupby(["group", "day"])["time"].diff() <= 0
    # By turns: a file may have been written twice, one after the other.
    later = (back.groupby([hours["group"], hours["day"]]).cumsum() % 2 == 1).to_numpy()
    return later[::-1] if newest_first else later


def _repeated(instants: NDArray[np.int64], groups: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows whose group has their time several times, ascending, and a number for each group and time."""
    usable = np.flatnonzero((instants >= FIRST_MS) & (groups >= 0))
    order = usable[np.lexsort((instants[usable], groups[usable]))]
    same = (np.diff(instants[order]) == 0) & (np.diff(groups[order]) == 0)
    again, before = np.append(False, same), np.append(same, False)
    if not len(order):
        return order, order
    rows = order[again | before]
    numbers = np.cumsum(~again[again | before]) - 1
    by_row = np.argsort(rows)
    return rows[by_row], numbers[by_row]
