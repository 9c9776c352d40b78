"""Channel files as people have them to samples, in parts: what is no sample is counted and has a reason.

A file is read twice, first for its times (see channel_times.py): 13 bytes of each record are kept, and 8 of each sample
whose time comes again. Layouts are in channel_layouts.py.
"""

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import fields as attributes
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bigdata_assets.flow_sensors.logic import channel_times
from bigdata_assets.flow_sensors.logic.channel_layouts import (
    Block,
    Channel,
    ChannelFileError,
    Layout,
    blocks,
    fields,
    stem,
)
from bigdata_assets.flow_sensors.logic.channel_times import NO_TIME, Times, read_times
from bigdata_assets.flow_sensors.logic.series import EDITED, QUALITY
from bigdata_assets.flow_sensors.tables import SAMPLE
from bigdata_assets.tables import row_schema, to_arrow

ENDINGS = tuple(f".{kind}{packed}" for kind in ("csv", "txt", "rdb", "tsv") for packed in ("", ".gz"))
SITES_FILE = "sites.csv"
SITES_HEADER = ("site", "name", "latitude", "longitude", "time_zone", "labelled_by")
SAMPLES = to_arrow(row_schema(*SAMPLE))
REFUSED = pa.schema(
    [
        ("source", pa.string()),
        ("line", pa.int64()),
        ("reason", pa.string()),
        ("raw", pa.string()),
        ("site", pa.string()),
        ("channel", pa.string()),
    ]
)
RAW_CHARACTERS = 1_000
QUALITY_CHARACTERS = 100
NOTHING = pa.array(["", "NULL", "Null", "null", "NaN", "nan", "NAN"])
"""No value, and nothing more."""
MARKERS = pa.array(["NA", "N/A", "na", "n/a"])
"""No value, and kept as its quality code where the file has none of its own."""
NO_DATA = pa.array([-9999.0])
"""The same, however it is written."""
USGS_MARKERS = pa.array(["Bkw", "Dis", "Dry", "Eqp", "Fld", "Ice", "Mnt", "Rat", "Ssn", "ZFl", "Zfl", "***", "--"])
USGS_NO_DATA = pa.array([-999_999.0])
NUMBER = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?$"
AGAIN = "the same local time again with other values"


@dataclass(frozen=True)
class Site:
    """A site: what sites.csv, or the layout of its file, tells of it; see tables.SITES."""

    site: str
    name: str | None = None
    latitude_deg: float | None = None
    longitude_deg: float | None = None
    time_zone: str | None = None
    labelled_by: str | None = None

    def told(self, other: "Site | None") -> "Site":
        """This one with what the other knows."""
        known = {a.name: getattr(other, a.name) for a in attributes(Site) if getattr(other, a.name, None) is not None}
        return Site(**{**vars(self), **known})


@dataclass(frozen=True)
class Part:
    """Of some lines of a file.

    Attributes:
        samples: with the columns of tables.SAMPLE, each site's, channel's and time's once in a file.
        refused: source (file name), line, reason, raw (the line), site, channel; one row for each channel.
        sites: of the file.
        repeats: samples that were left out as the file has had them already with the same values.
    """

    samples: pa.Table
    refused: pa.Table
    sites: Mapping[str, Site]
    repeats: int


def files(folder: Path) -> list[Path]:
    """The channel files below a folder, sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.name.lower().endswith(ENDINGS)
        and path.name != SITES_FILE
        and stem(path).upper() not in ("LICENSE", "README")
        and not any(name.startswith(".") for name in path.relative_to(folder).parts)
        and path.is_file()
    )


def sites(folder: Path) -> dict[str, Site]:
    """What the folder's sites.csv tells, by site; nothing where there is none.

    Raises:
        ChannelFileError: it has other columns, or a value that is none of its column.
    """
    path = folder / SITES_FILE
    if not path.is_file():
        return {}
    found: dict[str, Site] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restkey="", restval="")
        if "site" not in (names := reader.fieldnames or []) or not set(names) <= set(SITES_HEADER):
            raise ChannelFileError(f"{path}: its header is {','.join(names)}; write {','.join(SITES_HEADER)}.")
        try:
            for row in reader:
                site = _site({name: (text or "").strip() for name, text in row.items() if name})
                if site.site in found:
                    raise ValueError(f"site {site.site!r} is there twice: leave one")
                found[site.site] = site
        except (ValueError, csv.Error) as error:
            raise ChannelFileError(f"{path}, line {reader.line_num}: {error}.") from error
    return found


def _site(row: Mapping[str, str]) -> Site:
    if not row["site"]:
        raise ValueError("no site: name it as its file or its column site does")
    zone, labelled_by = row.get("time_zone") or None, row.get("labelled_by") or None
    if zone:
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"time_zone is {zone!r}: write a name of IANA's, such as America/Denver") from error
    if labelled_by not in (None, QUALITY, EDITED):
        raise ValueError(f"labelled_by is {labelled_by!r}: write {QUALITY}, {EDITED} or nothing")
    position = (_degrees(row, "latitude", 90), _degrees(row, "longitude", 180))
    return Site(row["site"], row.get("name") or None, *position, zone, labelled_by)


def _degrees(row: Mapping[str, str], name: str, most: float) -> float | None:
    if not (text := row.get(name)):
        return None
    try:
        degrees = float(text)
    except ValueError:
        degrees = math.nan
    if not abs(degrees) <= most:
        raise ValueError(f"{name} is {text!r}: write degrees from -{most} to {most}, or nothing")
    return degrees


def read(path: Path, sites: Mapping[str, Site], rows: int = 50_000) -> Iterator[Part]:
    """A file's samples, part by part; records x channels = samples + refused + repeats.

    Args:
        path: the file.
        sites: what is known of sites, see `sites`; it wins over what the file tells.
        rows: lines of a part, at most; fewer of many channels.

    Raises:
        ChannelFileError: it is no channel file, cannot be unpacked, or was written while it was read.
    """
    times = read_times(path, lambda site: sites[site].time_zone if site in sites else None, rows)
    told = {site: Site(site, labelled_by=by).told(sites.get(site)) for site, by in times.labelled_by.items()}
    seen: dict[str, NDArray[np.int64]] = {}
    first = 0
    for block in blocks(path, rows):
        end = first + len(block)
        if end > len(times.instants):
            raise _changed(path)
        samples, refused, repeats = _block(path.name, block, times, first, seen)
        yield Part(samples, refused, told, repeats)
        first = end
    if first != len(times.instants):
        raise _changed(path)


def _changed(path: Path) -> ChannelFileError:
    return ChannelFileError(f"{path} was written while it was read: load it again when it has settled.")


def _block(
    source: str, block: Block, times: Times, first: int, seen: dict[str, NDArray[np.int64]]
) -> tuple[pa.Table, pa.Table, int]:
    """Samples and refused ones of a block, and the number of repeats.

    Args:
        source: the file's name.
        block: records.
        times: of the whole file.
        first: number of the block's first record.
        seen: by channel, for each of `times.sets` what its first sample was, as a hash, or 0.
    """
    columns, reasons = fields(block)
    rows = slice(first, first + len(block))
    instants, groups = times.instants[rows], times.groups[rows]
    for row in np.flatnonzero(groups < 0).tolist():
        reasons.setdefault(row, "the record names no site or no channel")
    for row in np.flatnonzero(instants < channel_times.FIRST_MS).tolist():
        reasons.setdefault(row, channel_times.REASONS[int(instants[row] - NO_TIME)])
    low, high = np.searchsorted(times.repeated, [rows.start, rows.stop])
    again = (times.repeated[low:high] - first, times.sets[low:high])
    of_names = np.where(groups < 0, len(times.names), groups)
    site = pa.array([*(site for site, _ in times.names), None], pa.string()).take(of_names)
    named = pa.array([*(channel or None for _, channel in times.names), None], pa.string()).take(of_names)
    at = pa.array(np.maximum(instants, channel_times.FIRST_MS) * 1_000).cast(SAMPLES.field("observed_at").type)
    good, bad, repeats = [SAMPLES.empty_table()], [REFUSED.empty_table()], 0
    for channel in block.layout.channels:
        name = pa.repeat(channel.name, len(block)) if channel.name else named
        refusals = dict(reasons)
        values = _values(columns, channel, block.layout, refusals)
        if len(again[0]):
            repeated = _again(
                values, *again, seen.setdefault(channel.name, np.zeros(len(times.sets), np.int64)), refusals
            )
        else:
            repeated = []
        samples = pa.Table.from_arrays([site, name, at, *values], schema=SAMPLES)
        if refusals or repeated:
            keep = np.ones(len(block), bool)
            keep[[*refusals, *repeated]] = False
            samples = samples.filter(pa.array(keep))
            bad.append(_refused(source, block, refusals, site, name))
        good.append(samples)
        repeats += len(repeated)
    return pa.concat_tables(good), pa.concat_tables(bad), repeats


def _values(
    columns: Mapping[int, pa.Array], channel: Channel, layout: Layout, refusals: dict[int, str]
) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Value, quality and edited value of a channel; reasons are added of rows where they are none."""
    value, quality = _numbers(columns[channel.value], layout, "value", refusals)
    if channel.quality is not None:
        code = pc.utf8_trim_whitespace(columns[channel.quality])
        code = pc.if_else(pc.is_in(code, value_set=NOTHING), pa.scalar(None, pa.string()), code)
        for row in _where(pc.greater(pc.utf8_length(code), QUALITY_CHARACTERS)):
            refusals.setdefault(row, f"the quality code has more than {QUALITY_CHARACTERS} characters")
        quality = pc.coalesce(code, quality)
    if channel.edited is None:
        return value, quality, pa.nulls(len(value), pa.float64())
    return value, quality, _numbers(columns[channel.edited], layout, "edited value", refusals)[0]


def _numbers(texts: pa.Array, layout: Layout, what: str, refusals: dict[int, str]) -> tuple[pa.Array, pa.Array]:
    """Numbers, null where there is none, and the markers that say so; reasons are added of rows that have neither."""
    none = pa.scalar(None, pa.string())
    texts = pc.utf8_trim_whitespace(texts)
    marker = pc.is_in(texts, value_set=USGS_MARKERS if layout.usgs else MARKERS)
    plain = pc.if_else(pc.or_(marker, pc.is_in(texts, value_set=NOTHING)), none, texts)
    if layout.separator == ";":
        plain = pc.replace_substring(plain, ",", ".")
    try:
        numbers = plain.cast(pa.float64())
    except pa.ArrowInvalid:
        number = pc.match_substring_regex(plain, NUMBER)
        numbers = pc.if_else(number, plain, none).cast(pa.float64())
    finite = pc.is_finite(numbers)
    for row in _where(pc.and_(plain.is_valid(), pc.invert(pc.fill_null(finite, False)))):
        refusals.setdefault(row, f"the {what} is no finite number: {texts[row].as_py()[:40]!r}")
    no_data = pc.is_in(numbers, value_set=USGS_NO_DATA if layout.usgs else NO_DATA)
    marker = pc.or_(marker, no_data)
    return pc.if_else(no_data, pa.scalar(None, pa.float64()), numbers), pc.if_else(marker, texts, none)


def _where(mask: pa.Array) -> list[int]:
    return pc.indices_nonzero(mask).to_pylist()


def _again(
    values: tuple[pa.Array, ...],
    rows: NDArray[np.int64],
    sets: NDArray[np.int64],
    seen: NDArray[np.int64],
    refusals: dict[int, str],
) -> list[int]:
    """Rows that repeat what was seen of their time; those that have other values get a reason."""
    repeated = []
    read = zip(*(column.take(rows).to_pylist() for column in values), strict=True)
    for row, number, sample in zip(rows.tolist(), sets.tolist(), read, strict=True):
        if row in refusals:
            continue
        hashed = hash(repr(sample)) or 1  # hash(-1.0) is that of -2.0
        if not seen[number]:
            seen[number] = hashed
        elif seen[number] == hashed:
            repeated.append(row)
        else:
            refusals[row] = AGAIN
    return repeated


def _refused(source: str, block: Block, refusals: dict[int, str], site: pa.Array, channel: pa.Array) -> pa.Table:
    rows = sorted(refusals)
    raw = [block.lines[row][: 4 * RAW_CHARACTERS].decode("utf-8", "replace").rstrip("\r\n") for row in rows]
    columns = [
        pa.repeat(source, len(rows)),
        pa.array([block.numbers[row] for row in rows], pa.int64()),
        pa.array([refusals[row] for row in rows], pa.string()),
        pa.array([line[:RAW_CHARACTERS] for line in raw], pa.string()),
        site.take(pa.array(rows, pa.int64())),
        channel.take(pa.array(rows, pa.int64())),
    ]
    return pa.Table.from_arrays(columns, schema=REFUSED)
