import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from bigdata_assets.gravitational_waves import sample
from bigdata_assets.gravitational_waves.logic.strain import events, scans, simulation, strain, strain_report
from bigdata_assets_tests.integration.conftest import REAL_DATA

REAL = REAL_DATA / "gravitational_waves" / "strain"
EVENT, DETECTORS, GAP = sample.STRAIN_EVENTS[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two of the sample's events: one with strain and a gap in it, one without."""
    place = tmp_path_factory.mktemp("sky")
    for event in (EVENT, events.Event("NOTHING", 1_100_000_000.0)):
        events.add(place, event)
    sample._write_strain(place / events.FOLDER, np.random.default_rng(0), EVENT, "H1", 0.0, 20.0, GAP)
    return place


@pytest.fixture(scope="module")
def found(folder):
    (seconds,), _ = scans.read_strain(folder, [f"{EVENT.name}-H1"])
    return scans.by_detector(seconds)["H1"]


def test_strain_is_read_and_what_cannot_be_is_said(folder):
    broken = folder / events.FOLDER / f"L-L1_SIMULATED_4_V1-{int(EVENT.gps_s) - 16}-32.hdf5"
    broken.write_bytes(b"no HDF5")
    keys = [f"{EVENT.name}-{detector}" for detector in ("H1", "L1", "V1")] + ["NOTHING-H1", "UNKNOWN-H1"]
    rows, refused = scans.read_strain(folder, keys)
    assert [table["event_detector"][0].as_py() for table in rows] == [f"{EVENT.name}-H1"]
    assert rows[0].num_rows == 32
    assert {row["event_detector"].split("-")[1] for row in refused} == {"L1", "V1", "H1"}
    reasons = {row["event_detector"]: row["reason"] for row in refused}
    assert "cannot be read as a GWOSC file" in reasons[f"{EVENT.name}-L1"]
    assert "has no file of V1" in reasons[f"{EVENT.name}-V1"]
    assert "has no file of H1" in reasons["NOTHING-H1"]
    assert "no event UNKNOWN" in reasons["UNKNOWN-H1"]


def test_a_file_of_another_detector_is_refused(folder, tmp_path):
    events.add(tmp_path, EVENT)
    (name,) = (path for path in (folder / events.FOLDER).glob("H-*.hdf5"))
    (tmp_path / events.FOLDER / name.name.replace("H-H1", "L-L1")).write_bytes(name.read_bytes())
    _, (refused,) = scans.read_strain(tmp_path, [f"{EVENT.name}-L1"])
    assert "says that it is of H1" in refused["reason"]


def test_background_is_away_from_the_event_and_from_gaps():
    times = scans.background_times([(0.0, 25.0), (27.5, 32.0)], 16.6, 6)
    assert len(times) == 6
    assert all(abs(second - 16.6) >= 4 and 4 <= second <= 21 for second in times)
    assert scans.background_times([(0.0, 25.0)], 16.6, 0) == []
    assert len(scans.background_times([(0.0, 25.0)], 16.6, 100)) == 10
    assert scans.background_times([(0.0, 15.0)], 7.0, 3) == [], "too little to whiten"


def test_the_event_and_its_background_are_scanned(found):
    rows = list(scans.scans(found, EVENT.gps_s, 2))
    assert [row["is_event"] for row in rows] == [True, False, False]
    assert all(row["views"].shape == (4, 140, 170) for row in rows)
    loudest = [row["views"][1].max() for row in rows]
    assert loudest[0] > max(loudest[1:]) + 0.1


def test_an_event_in_a_gap_has_a_reason_and_its_background_is_scanned(found):
    rows = list(scans.scans(found, found.gps_start_s + 26.0, 1))
    assert "is in a gap" in rows[0]["reason"]
    assert rows[1]["views"].shape == (4, 140, 170)


def test_every_scan_has_a_score_of_every_model():
    rows = pd.DataFrame(
        {
            "event_detector": "E-H1",
            "event": "E",
            "detector": "H1",
            "scan": ["E-H1@1.000", "E-H1@9.000"],
            "gps_s": [1.0, 9.0],
            "is_event": [True, False],
        }
    )
    judges = {"a": ("a1", 0.5), "b": ("b7", -1.0)}
    margins = {
        "a": pd.DataFrame({"id": ["E-H1@9.000", "E-H1@1.000"], "margin": [0.1, 0.7]}),
        "b": pd.DataFrame({"id": ["E-H1@1.000", "E-H1@9.000"], "margin": [-2.0, 0.0]}),
    }
    table = scans.predictions(rows, margins, judges)
    assert table.set_index(["model", "scan"])["is_chirp"].to_dict() == {
        ("a", "E-H1@1.000"): True,
        ("a", "E-H1@9.000"): False,
        ("b", "E-H1@1.000"): False,
        ("b", "E-H1@9.000"): True,
    }
    assert table.groupby("model")["model_version"].unique().map(list).to_dict() == {"a": ["a1"], "b": ["b7"]}
    assert scans.agreement(table) == {
        "a": {"events": "1 of 1", "background": "0 of 1"},
        "b": {"events": "0 of 1", "background": "1 of 1"},
    }
    with pytest.raises(ValueError, match="a has scores for 1 of 2"):
        scans.predictions(rows, {"a": margins["a"][:1]}, judges)
    assert scans.predictions(rows[:0], {}, judges).empty


def test_a_report_of_an_event_in_one_detector(found):
    report = strain_report.report({"H1": found}, "H1", EVENT)
    assert report.numbers["SNR"] == pytest.approx(20, abs=2.5)
    assert abs(report.numbers["ms from the listed time"]) < 3
    assert len(report.figures) == 6
    assert {row["flag"]: row["seconds"] for row in report.tables["Data quality"].to_dict("records")}["gaps"] == 2.5


def test_the_files_that_were_read_stand_in_the_report(found):
    for event in (EVENT, events.Event("N", EVENT.gps_s, (1.5, 1.3))):
        table = strain_report.report({"H1": found, "L1": replace(found, file="")}, "H1", event).tables["Strain files"]
        assert table["file"].tolist() == [found.file, "not known"]
    assert found.file.startswith("H-H1_SIMULATED")


@pytest.mark.parametrize(
    ("masses", "doubt"), [((1.5, 1.3), "no estimate of its masses"), ((36.0, 29.0), ""), (None, "no estimate")]
)
def test_without_listed_masses_none_that_the_bank_does_not_reach_is_found(masses, doubt):
    n_samples = 32 * 4_096
    values = simulation.noise(np.random.default_rng(8), n_samples, 4_096)
    if masses:
        wave = simulation.binary(masses, (0.0, 0.0), n_samples, 4_096, 16.5)
        values += wave * 40 / simulation.optimal_snr(wave, 4_096)
    seen = strain.Strain("H1", 1_000_000_000, 4_096, values, np.full(32, 7, np.uint32), ("DATA",))
    report = strain_report.report({"H1": seen}, "H1", events.Event("E", 1_000_000_016.5))
    assert "The masses are not listed: of 48 waveforms, 9 to 80, that of " in report.summary
    assert (doubt in report.summary) if doubt else ("estimate" not in report.summary)
    assert (doubt in report.provenance["masses"]) if doubt else ("estimate" not in report.provenance["masses"])


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no folder with the official files at {REAL_DATA}")
def test_a_neutron_star_binary_in_a_short_file_is_shown_without_a_matched_filter(tmp_path):
    """GW170817 lasts a minute from 30 Hz on; its files are not here, so that another event's stand for them."""
    (tmp_path / events.FOLDER).mkdir()
    gps_s = 1_126_259_462.4
    for version in ("LOSC_4_V1", "LOSC_CLN_4_V1"):
        shutil.copy(strain.find(REAL, "H1", gps_s), tmp_path / events.FOLDER / f"H-H1_{version}-1126259446-32.hdf5")
    events.add(tmp_path, events.Event("GW170817-v3", gps_s, (1.46, 1.27)))
    (key,) = events.keys(tmp_path)
    assert key == "GW170817-v3-H1"
    found, refused = scans.read_strain(tmp_path, [key])
    assert not refused
    event = events.read(tmp_path)["GW170817-v3"]
    report = strain_report.report(scans.by_detectors(found), "H1", event)
    assert report.title == "GW170817-v3 in H1"
    assert "No matched filter: the waveform of 1.46 and 1.27 solar masses lasts" in report.summary
    assert list(report.figures) == [strain_report.VIEWS, "Amplitude spectral density", strain_report.QUALITY]
    assert report.tables["Strain files"]["file"].tolist() == ["H-H1_LOSC_CLN_4_V1-1126259446-32.hdf5"]


def test_labels_of_the_views_do_not_touch(found):
    figure = strain_report.report({"H1": found}, "H1", EVENT).figures["Q-transform: the views that the models see"]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    labels = [label for axes in figure.axes for label in axes.get_xticklabels()]
    boxes = [label.get_window_extent(canvas.get_renderer()) for label in labels]
    for left, right in pairwise(boxes):
        assert right.x0 - left.x1 > 0.3 * left.height, "a third of a letter's height"


def test_a_report_says_what_it_cannot_look_at(found):
    in_gap = strain_report.report({"H1": found}, "H1", events.Event("G", found.gps_start_s + 26.0))
    assert "is in a gap" in in_gap.summary
    assert list(in_gap.figures) == ["Strain, and what its quality flags say of each second"]
    late = strain_report.report({"H1": found}, "H1", events.Event("L", found.gps_start_s + 5.0))
    assert "5.0 s of strain before it" in late.summary
    assert next(iter(late.figures)) == strain_report.VIEWS
    early = strain_report.report({"H1": found}, "H1", events.Event("E", found.gps_start_s + 0.5))
    assert "No Q-transform" in early.summary
    assert list(early.figures) == ["Amplitude spectral density", strain_report.QUALITY]
    light = strain_report.report({"H1": found}, "H1", events.Event("N", EVENT.gps_s, (1.5, 1.3)))
    assert "No matched filter: the waveform of 1.5 and 1.3 solar masses lasts 178 s" in light.summary
    assert list(light.figures) == [strain_report.VIEWS, "Amplitude spectral density", strain_report.QUALITY]
    assert light.numbers == {}
    nothing = strain_report.report({}, "H1", EVENT)
    assert "quarantined_strain" in nothing.summary


def test_seconds_of_two_detectors_are_told_apart(found):
    seconds = strain.rows(found, EVENT.gps_s)
    rows = [seconds.append_column("detector", pa.array([detector] * seconds.num_rows)) for detector in ("H1", "L1")]
    assert set(scans.by_detector(pa.concat_tables(rows))) == {"H1", "L1"}
