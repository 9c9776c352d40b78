"""Layouts of channel files, and their records as columns of text, a block of lines at a time.

What the texts mean is told in channel_files.py and channel_times.py. A record is one physical line.
"""

import csv
import gzip
import itertools
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from bigdata_assets.flow_sensors.logic.series import EDITED, QUALITY

MAX_LINE_BYTES = 65_536
MAX_EXPANDED_BYTES = 8 << 30
"""A file that unpacks to more is a bomb or a mistake."""
CHUNK_BYTES = 1 << 20
BLOCK_BYTES = 16 << 20
BLOCK_SAMPLES = 300_000
"""However many channels a record has: a block is what is in memory."""
MAX_COLUMNS = 1_000
SEPARATORS = ",;\t"
ODD = frozenset(b"# \t\r\v\f")
"""How lines begin that may be no records."""
TIME_NAMES = ("time", "datetime", "date_time", "timestamp", "ts", "date")
EDITED_SUFFIXES = ("_edited", "_cor")
QUALITY_SUFFIXES = ("_qual", "_quality", "_flag")
YEAR_TO_MINUTE = ("year", "month", "day", "hour", "minute")
ZONE_NAMES = ("tz_cd", "tz", "timezone", "time_zone")
COPIED = "site,channel,month,ts,value,quality,edited"
"""Columns of Cassandra's table samples as cqlsh's COPY writes them, without this header by default."""
RDB = b"agency_cd\tsite_no\t"
RDB_WIDTHS = re.compile(rb"(\d+[sdn]\t)*\d+[sdn]\s*")
RDB_SERIES = re.compile(r"(\d+)_(\d{5})(?:_\d{5})?")
"""Number of a time series, the parameter's code and, of daily values, that of a statistic."""
PARAMETERS = {
    "00010": "temp",
    "00045": "rain",
    "00055": "velocity",
    "00060": "flow",
    "00065": "level",
    "00095": "cond",
    "00300": "do",
    "00400": "ph",
    "63680": "turb",
    "72254": "velocity",
    "72255": "velocity",
}
"""Channels by USGS's parameter codes; all others are `p` and the code."""


class ChannelFileError(ValueError):
    """A file is no channel file, or cannot be read; the message says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Channel:
    """A channel's columns by their numbers; `edited` and `quality` may not be there."""

    name: str
    value: int
    edited: int | None = None
    quality: int | None = None


@dataclass(frozen=True)
class Layout:
    """What the columns of a record are, by their numbers.

    Attributes:
        separator: between fields.
        width: fields of a record.
        time: a column, a date's and a time's, or YEAR_TO_MINUTE.
        channels: in a long layout one without a name.
        site: name where no column has it.
        sites: columns that name the site, a hyphen between; none where `site` does.
        channel: column that names the channel in a long layout.
        zone: column of the time's zone.
        utc: whether the time's column is named as UTC's.
        labelled_by: what tells anomalous samples in this layout, where that is known.
        usgs: whether it is USGS's RDB.
        named: whether there is a header.
    """

    separator: str
    width: int
    time: tuple[int, ...]
    channels: tuple[Channel, ...]
    site: str = ""
    sites: tuple[int, ...] = ()
    channel: int | None = None
    zone: int | None = None
    utc: bool = False
    labelled_by: str | None = None
    usgs: bool = False
    named: bool = True

    @property
    def used(self) -> list[int]:
        """The columns that have a meaning, ascending."""
        of_channels = [i for c in self.channels for i in (c.value, c.edited, c.quality)]
        return sorted({i for i in (*self.time, *self.sites, self.channel, self.zone, *of_channels) if i is not None})


@dataclass(frozen=True)
class Block:
    """Records of one layout, as lines with their numbers in the file."""

    layout: Layout
    numbers: list[int] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lines)

    def take(self, number: int, lines: list[bytes], limit: int) -> int:
        """Take lines, of which the first has that number, until there are `limit`; how many were taken."""
        taken = min(limit - len(self.lines), len(lines))
        self.lines.extend(lines[:taken])
        self.numbers.extend(range(number, number + taken))
        return taken


def blocks(path: Path, rows: int) -> Iterator[Block]:
    """The records of a file, `rows` of them at most at a time; blank lines and comments (`#`) are none.

    Raises:
        ChannelFileError: it is no channel file, or cannot be unpacked.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            yield from _blocks(path, gzip.GzipFile(fileobj=raw) if packed else raw, rows)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ChannelFileError(f"{path} cannot be unpacked ({error}): fetch or pack it again.") from error


def _blocks(path: Path, file: BinaryIO | gzip.GzipFile, rows: int) -> Iterator[Block]:
    block, size, widths_next = None, 0, False
    for number, lines in _runs(path, file):
        if block is None or lines[0].startswith(RDB):
            if block is not None and len(block):
                yield block
            block, size = Block(_layout(path, number, lines[0])), 0
            widths_next = block.layout.usgs
            if block.layout.named:
                number, lines = number + 1, lines[1:]  # noqa: PLW2901 -- what is left of them
        if widths_next and lines:
            _check_widths(path, number, lines[0])
            widths_next, number, lines = False, number + 1, lines[1:]  # noqa: PLW2901
        limit = min(rows, BLOCK_SAMPLES // len(block.layout.channels))
        while lines:
            if len(block) >= limit or size >= BLOCK_BYTES:
                yield block
                block, size = Block(block.layout), 0
            taken = block.take(number, lines, limit)
            size += sum(map(len, block.lines[-taken:]))
            number, lines = number + taken, lines[taken:]  # noqa: PLW2901
    if block is None:
        raise ChannelFileError(f"{path} is empty: fetch it again, or delete it.")
    yield block


def _runs(path: Path, file: BinaryIO | gzip.GzipFile) -> Iterator[tuple[int, list[bytes]]]:
    """Lines one after the other, with the first one's number; a header of RDB begins new ones.

    Without line feeds, a byte order mark, blank lines and comments.
    """
    number, size, rest = 1, 0, b""
    for data in itertools.chain(iter(lambda: file.read(CHUNK_BYTES), b""), [b"\n"]):
        if not size:
            _check_encoding(path, data)
            data = data.removeprefix(b"\xef\xbb\xbf")  # noqa: PLW2901 -- what is left of it
        text = rest + data
        lines = text.split(b"\n")
        rest = lines.pop()
        size += len(data)
        if size > MAX_EXPANDED_BYTES or len(rest) > MAX_LINE_BYTES or max(map(len, lines), default=0) > MAX_LINE_BYTES:
            raise ChannelFileError(
                f"{path} has more than {MAX_EXPANDED_BYTES:,} bytes, or a line of more than {MAX_LINE_BYTES:,} after "
                f"line {number:,}: no record is so long. Split it by years, and end its lines by line feeds."
            )
        left_out = {i for i, line in enumerate(lines) if not line or (line[0] in ODD and _is_none(line))}
        headers = [i for i, line in enumerate(lines) if line.startswith(RDB)] if RDB in text else []
        start = 0
        for end in sorted([*left_out, *headers, len(lines)]):
            if end > start:
                yield number + start, lines[start:end]
            start = end + (end in left_out)
        number += len(lines)


def _is_none(line: bytes) -> bool:
    return line.startswith(b"#") or line.isspace()


def _check_encoding(path: Path, data: bytes) -> None:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ChannelFileError(f"{path} is written in UTF-16: save it as UTF-8.")


def _check_widths(path: Path, number: int, line: bytes) -> None:
    if not RDB_WIDTHS.fullmatch(line):
        raise ChannelFileError(
            f"{path}, line {number}: an RDB file has its columns' widths (5s 15s 20d …) under its header, and this has "
            "not. Fetch it again."
        )


def stem(path: Path) -> str:
    """A file's name without its endings."""
    return re.sub(r"(?i)(\.(csv|txt|rdb|tsv))?(\.gz)?$", "", path.name)


def channel_name(text: str) -> str:
    """A channel's name: lower-case letters, digits and `_`; of a unit in brackets its letters stay."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")


def _layout(path: Path, number: int, line: bytes) -> Layout:
    """What the first line says of the records."""
    try:
        text = line.decode().strip("\r\n")
    except UnicodeDecodeError:
        text = line.decode("latin-1").strip("\r\n")  # a degree sign in a header, as loggers' programs write it
    where = f"{path}, line {number}"
    if "\r" in text:
        raise ChannelFileError(f"{where}: its lines end by bare carriage returns. Save it with line feeds.")
    if line.startswith(RDB):
        return _rdb(where, text.split("\t"))
    separator = max(SEPARATORS, key=lambda each: len(_split(text, each)))
    fields = _split(text, separator)
    if _is_copied(fields):
        return replace(_long(COPIED.split(","), ",", (3,), ""), named=False)
    names = [channel_name(each) for each in fields]
    time, utc = _time_columns(names)
    if {"channel", "value"} <= set(names):
        layout = replace(_long(names, separator, time, stem(path)), utc=utc)
    else:
        layout = _wide(path, names, separator, time, utc)
    if not time or not layout.channels or len(names) > MAX_COLUMNS:
        raise ChannelFileError(
            f"{where}: {text[:200]!r} is no header of channels. It names the time's column (`time`, `datetime`, "
            "`timestamp`, `date` and `time`, or Month, Day, Year, Hour, Minute) and each channel, up to "
            f"{MAX_COLUMNS:,}; or site, channel, time, value. Write such a line above the records."
        )
    if doubled := sorted(name for name, times in Counter(names).items() if times > 1 or not name):
        raise ChannelFileError(
            f"{where}: {', '.join(map(repr, doubled))} names two columns, as letters and digits go, or none. Name each "
            "by itself, and let no line end by a separator."
        )
    return layout


def _split(text: str, separator: str) -> list[str]:
    return next(csv.reader([text], delimiter=separator), [])


def _is_copied(fields: Sequence[str]) -> bool:
    return (
        len(fields) == COPIED.count(",") + 1
        and bool(re.fullmatch(r"\d{4}-\d{2}", fields[2]))
        and fields[3].startswith(fields[2])
    )


def _time_columns(names: Sequence[str]) -> tuple[tuple[int, ...], bool]:
    """Columns of the time, and whether their name says UTC."""
    if set(YEAR_TO_MINUTE) <= set(names):
        return tuple(names.index(name) for name in YEAR_TO_MINUTE), False
    if {"date", "time"} <= set(names):
        return (names.index("date"), names.index("time")), False
    for name in TIME_NAMES:
        for wanted in (name, f"{name}_utc"):
            if wanted in names:
                return (names.index(wanted),), wanted != name
    return (), False


def _position(names: Sequence[str], wanted: Iterable[str]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _long(names: Sequence[str], separator: str, time: tuple[int, ...], site: str) -> Layout:
    sites = tuple(i for i, name in enumerate(names) if name == "site")
    value = Channel("", names.index("value"), _position(names, ["edited"]), _position(names, ["quality"]))
    zone = _position(names, ZONE_NAMES)
    return Layout(separator, len(names), time, (value,), site, sites, names.index("channel"), zone)


def _wide(path: Path, names: Sequence[str], separator: str, time: tuple[int, ...], utc: bool) -> Layout:
    zone, site = _position(names, ZONE_NAMES), _position(names, ["site"])
    channels = _channels({name: i for i, name in enumerate(names) if i not in (*time, zone, site)})
    layout = Layout(
        separator,
        len(names),
        time,
        channels,
        stem(path),
        sites=() if site is None else (site,),
        zone=zone,
        utc=utc,
    )
    return _published(path, names, layout)


def _published(path: Path, names: Sequence[str], layout: Layout) -> Layout:
    """Layouts of which it is known what their site is and how it is labelled."""
    if layout.sites:
        return layout
    if len(layout.channels) == 1 and list(names) == ["time", (x := layout.channels[0].name), f"{x}_edited"]:
        return replace(layout, site=path.absolute().parent.name, labelled_by=EDITED)
    year = re.fullmatch(r"(.*\D)\d{4}", layout.site)
    if year and all({f"{c.name}_cor", f"{c.name}_qual"} <= set(names) for c in layout.channels):
        return replace(layout, site=year[1], labelled_by=QUALITY)
    return layout


def _channels(positions: dict[str, int]) -> tuple[Channel, ...]:
    """Channels of a wide layout: columns that are not another one's edited values or quality codes."""
    channels, second = [], set[int]()
    for name in sorted(positions, key=len):
        if positions[name] in second:
            continue
        found = [
            next((positions[name + suffix] for suffix in suffixes if name + suffix in positions), None)
            for suffixes in (EDITED_SUFFIXES, QUALITY_SUFFIXES)
        ]
        second |= {index for index in found if index is not None}
        channels.append(Channel(name, positions[name], *found))
    return tuple(sorted(channels, key=lambda channel: channel.value))


def _rdb(where: str, names: Sequence[str]) -> Layout:
    series = {i: match for i, name in enumerate(names) if (match := RDB_SERIES.fullmatch(name))}
    if "datetime" not in names or not series:
        raise ChannelFileError(
            f"{where}: the RDB file has no columns datetime and of values, such as 69928_00060. Fetch instantaneous "
            "values."
        )
    known = {i: PARAMETERS.get(match[2], f"p{match[2]}") for i, match in series.items()}
    times = Counter(known.values())
    channels = tuple(
        Channel(
            name if times[name] == 1 else f"{name}_{series[i][1]}",
            i,
            quality=_position(names, [f"{names[i]}_cd"]),
        )
        for i, name in known.items()
    )
    return Layout(
        "\t",
        len(names),
        (names.index("datetime"),),
        channels,
        sites=(0, 1),
        zone=_position(names, ["tz_cd"]),
        usgs=True,
    )


def fields(block: Block) -> tuple[dict[int, pa.Array], dict[int, str]]:
    """The columns that have a meaning, as text, and why rows are no records: these have nulls.

    Returns:
        columns by their numbers, reasons by rows of the block.
    """
    layout = block.layout
    names = [str(i) for i in range(layout.width)]
    used = [names[i] for i in layout.used]
    text = b"\n".join(block.lines)
    # A carriage return within a line would be read as its end.
    if b"\r" in text and text.count(b"\r") != sum(line.endswith(b"\r") for line in block.lines):
        return _one_by_one(block)
    odd: list[int] = []

    def skip(row: pacsv.InvalidRow) -> str:
        odd.append(row.number - 1)
        return "skip"

    try:
        table = pacsv.read_csv(
            pa.BufferReader(text),
            pacsv.ReadOptions(use_threads=False, column_names=names, block_size=2 * BLOCK_BYTES),
            pacsv.ParseOptions(delimiter=layout.separator, invalid_row_handler=skip),
            pacsv.ConvertOptions(include_columns=used, column_types=dict.fromkeys(used, pa.string())),
        )
    except pa.ArrowInvalid:
        return _one_by_one(block)
    # A quote that does not end takes in the lines after it, and is not told where there are none.
    if len(table) + len(odd) != len(block) or (b'"' in block.lines[-1] and _fields(block.lines[-1], layout)[1]):
        return _one_by_one(block)
    if odd:
        is_odd = np.isin(np.arange(len(block)), odd)
        table = table.take(pa.array(np.maximum(np.cumsum(~is_odd) - 1, 0), mask=is_odd))
    reasons = {row: _fields(block.lines[row], layout)[1] or "no record" for row in odd}
    return {int(name): _joined(table[name]) for name in used}, reasons


def _joined(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _one_by_one(block: Block) -> tuple[dict[int, pa.Array], dict[int, str]]:
    rows, reasons = zip(*(_fields(line, block.layout) for line in block.lines), strict=True) if len(block) else ((), ())
    columns = {i: pa.array([row[i] for row in rows], pa.string()) for i in block.layout.used}
    return columns, {row: reason for row, reason in enumerate(reasons) if reason}


def _fields(line: bytes, layout: Layout) -> tuple[Sequence[str | None], str]:
    """A line's fields, or as many nulls and why it is no record."""
    try:
        # A second line is asked for only where a quote goes on.
        reader = csv.reader([line.decode().rstrip("\r"), ""], delimiter=layout.separator)
        found = next(reader)
    except UnicodeDecodeError:
        reason = "no UTF-8"
    except csv.Error as error:
        reason = "a carriage return within the line" if b"\r" in line.rstrip(b"\r") else f"no record: {error}"
    else:
        if len(found) == layout.width and reader.line_num == 1:
            return found, ""
        reason = "a quote does not end" if reader.line_num > 1 else f"{len(found)} fields in place of {layout.width}"
    return [None] * layout.width, reason
