import shutil

import h5py
import numpy as np
import pytest

from bigdata_assets.gravitational_waves.logic.strain.strain import (
    StrainError,
    StrainFileError,
    find,
    of_rows,
    read,
    rows,
)
from bigdata_assets_tests.integration.conftest import REAL_DATA

RATE_HZ, DURATION_S, START_S = 256, 8, 1_000_000_000
NAME = f"H-H1_LOSC_4_V2-{START_S}-{DURATION_S}.hdf5"
REAL = REAL_DATA / "gravitational_waves" / "strain"
FLAGS = ["DATA", "CBC_CAT1", "CBC_CAT2"]


@pytest.fixture
def file(tmp_path):
    """A function that writes a GWOSC file, some datasets replaced or (None) left out."""

    def write(**changes):
        datasets = {
            "strain/Strain": np.arange(RATE_HZ * DURATION_S) * 1e-21,
            "meta/Detector": b"H1",
            "meta/GPSstart": START_S,
            "meta/Duration": DURATION_S,
            "quality/simple/DQmask": np.array([7, 7, 3, 1, 0, 7, 7, 7], np.uint32),
            "quality/simple/DQShortnames": np.array(FLAGS, "S10"),
        } | {name.replace("__", "/"): value for name, value in changes.items()}
        with h5py.File(tmp_path / NAME, "w") as out:
            for name, value in datasets.items():
                if value is not None:
                    out[name] = value
            if "strain/Strain" in out:
                out["strain/Strain"].attrs["Xspacing"] = 1 / RATE_HZ
        return tmp_path / NAME

    return write


def test_a_file_says_what_it_holds(file):
    strain = read(file())
    assert (strain.detector, strain.gps_start_s, strain.rate_hz) == ("H1", START_S, RATE_HZ)
    assert strain.values[3] == pytest.approx(3e-21, rel=1e-12, abs=0)
    assert (strain.quality.tolist(), strain.flags) == ([7, 7, 3, 1, 0, 7, 7, 7], tuple(FLAGS))


IN_ORDER = (
    "LOSC_CLN_4_V1",
    "GWOSC_4KHZ_R2",
    "GWOSC_O2_4KHZ_R1",
    "LOSC_C02_4_V1",
    "LOSC_C01_4_V2",
    "LOSC_C01_4_V1",
    "LOSC_C00_4_V10",
    "LOSC_CLN_16_V1",
    "GWOSC_16KHZ_R10",
    "GWOSC_16KHZ_R9",
)


def test_of_several_releases_of_a_time_the_best_is_taken(tmp_path):
    paths = [tmp_path / f"H-H1_{name}-{START_S}-32.hdf5" for name in IN_ORDER]
    for path in paths:
        path.touch()
    (tmp_path / f"L-L1_LOSC_CLN_4_V9-{START_S}-32.hdf5").touch()
    for path in paths:
        assert find(tmp_path, "H1", START_S + 16) == path
        path.unlink()


def test_of_files_of_one_release_that_with_more_around_the_time_is_taken(tmp_path):
    for start, duration in ((START_S, 32), (START_S - 2000, 4096)):
        (tmp_path / f"H-H1_GWOSC_4KHZ_R1-{start}-{duration}.hdf5").touch()
    assert find(tmp_path, "H1", START_S + 3).name.endswith("-4096.hdf5")


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no folder with the official files at {REAL_DATA}")
def test_the_file_stands_with_its_seconds(tmp_path):
    source = find(REAL, "H1", 1_126_259_462.4)
    for name in ("LOSC_CLN_4_V1", "LOSC_4_V2", "GWOSC_16KHZ_R3"):
        shutil.copy(source, tmp_path / f"H-H1_{name}-1126259446-32.hdf5")
    found = read(find(tmp_path, "H1", 1_126_259_462.4))
    assert found.file == "H-H1_LOSC_CLN_4_V1-1126259446-32.hdf5"
    seconds = rows(found, 1_126_259_462.4)
    assert set(seconds["file"].to_pylist()) == {found.file}
    assert of_rows(seconds, "H1").file == found.file


def test_gaps_are_found_and_what_is_around_a_moment(file):
    values = np.ones(RATE_HZ * DURATION_S)
    values[: RATE_HZ // 2] = np.nan
    values[3 * RATE_HZ : 4 * RATE_HZ] = np.nan
    strain = read(file(strain__Strain=values))
    assert strain.gaps == [(0.0, 0.5), (3.0, 4.0)]
    assert strain.stretches == [(0.5, 3.0), (4.0, 8.0)]
    assert strain.stretch_around(2.0) == (0.5, 3.0)
    assert np.isfinite(strain.between(0.5, 3.0)).all()
    assert strain.between(4.0, 8.0).size == 4 * RATE_HZ
    with pytest.raises(StrainError, match=r"second 3\.5 is in a gap"):
        strain.stretch_around(3.5)


def test_seconds_around_an_event_are_rows_and_strain_again(file, monkeypatch):
    values = np.arange(RATE_HZ * DURATION_S) * 1e-21
    values[: RATE_HZ // 2] = np.nan
    strain = read(file(strain__Strain=values))
    seconds = rows(strain, START_S + 4.3)
    assert seconds["gps_s"].to_pylist() == list(range(START_S, START_S + DURATION_S))
    assert seconds["strain"].null_count == 0
    again = of_rows(seconds.take(list(reversed(range(DURATION_S)))), "H1")
    np.testing.assert_array_equal(again.values, strain.values)
    assert (again.gps_start_s, again.flags) == (START_S, tuple(FLAGS))
    np.testing.assert_array_equal(again.quality, strain.quality)
    monkeypatch.setattr("bigdata_assets.gravitational_waves.logic.strain.strain.KEPT_S", 2)
    assert rows(strain, START_S + 4.3)["gps_s"].to_pylist() == [START_S + second for second in (2, 3, 4, 5)]
    with pytest.raises(StrainFileError, match="do not cover 1000000008"):
        rows(strain, START_S + 8)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strain__Strain": None}, "cannot be read as a GWOSC file"),
        ({"quality__simple__DQmask": None}, "cannot be read as a GWOSC file"),
        ({"strain__Strain": np.arange(RATE_HZ * DURATION_S)}, "int64"),
        ({"strain__Strain": np.ones((2, 5))}, "no series of at most"),
        ({"meta__Duration": 9}, "are not what 9 s at 256 Hz have"),
        ({"quality__simple__DQmask": np.zeros(3, np.uint32)}, "3 quality words"),
    ],
)
def test_what_is_no_strain_is_named(file, changes, said):
    with pytest.raises(StrainFileError, match=said) as raised:
        read(file(**changes))
    assert NAME in str(raised.value)


def test_a_file_that_is_cut_off_or_absent_is_named(file):
    path = file()
    path.write_bytes(path.read_bytes()[:4_000])
    with pytest.raises(StrainFileError, match="truncated"):
        read(path)
    path.unlink()
    with pytest.raises(StrainFileError, match=NAME):
        read(path)


def test_the_file_of_a_moment_is_found_by_its_name(file):
    path = file()
    shutil.copy(path, path.with_name(f"L-L1_LOSC_4_V2-{START_S}-{DURATION_S}.hdf5"))
    shutil.copy(path, path.with_name("notes-1-2.hdf5"))
    assert find(path.parent, "H1", START_S + 7.9) == path
    with pytest.raises(StrainFileError, match="no file of V1"):
        find(path.parent, "V1", START_S + 1)
    with pytest.raises(StrainFileError, match="covers GPS time 1000000008"):
        find(path.parent, "H1", START_S + 8)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no folder with the official files at {REAL_DATA}")
def test_real_files_are_read():
    for path in REAL.glob("*.hdf5"):
        strain = read(path)
        assert (strain.rate_hz, strain.values.size, strain.gaps) == (4_096, 131_072, [])
        assert find(REAL, strain.detector, strain.gps_start_s + 16) == path
