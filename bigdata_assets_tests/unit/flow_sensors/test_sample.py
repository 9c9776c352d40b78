"""The sample: what it has on purpose is there, and is found by who reads it."""

from collections import Counter

import pandas as pd
import pytest

from bigdata_assets.flow_sensors import sample
from bigdata_assets.flow_sensors.logic import channel_files, series
from bigdata_assets.flow_sensors.logic.channel_files import AGAIN


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    sample.write_sample(folder)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    known = channel_files.sites(folder)
    return {path.name: list(channel_files.read(path, known)) for path in channel_files.files(folder)}


def samples(parts):
    return pd.concat([part.samples.to_pandas() for part in parts])


def aligned(parts):
    ((site, told),) = parts[0].sites.items()
    return series.align(site, samples(parts), told.labelled_by)


def test_same_seed_gives_same_bytes_and_another_seed_does_not(folder, tmp_path):
    written = {}
    for name, seed in {"again": 3, "other": 4}.items():
        (tmp_path / name).mkdir()
        sample.write_sample(tmp_path / name, seed)
        written[name] = [path.read_bytes() for path in channel_files.files(tmp_path / name)]
    assert written["again"] == [path.read_bytes() for path in channel_files.files(folder)]
    assert all(one != other for one, other in zip(written["again"], written["other"], strict=True))


def test_sites_have_names_places_zones_and_labels(found):
    sites = {name: site for parts in found.values() for name, site in parts[0].sites.items()}
    assert {name: site.labelled_by for name, site in sites.items()} == {
        "sewer_north": "edited",
        "MillWeir": "quality",
        "MillBridge": "quality",
    }
    assert {site.time_zone for site in sites.values()} == {"America/Denver", "Etc/GMT+7"}
    assert all(site.name for site in sites.values())
    for place in ("latitude_deg", "longitude_deg"):
        degrees = [getattr(site, place) for site in sites.values()]
        assert 0 < max(degrees) - min(degrees) < 0.05


def test_samples_are_few_enough_and_anomalies_are_in_every_split(found):
    assert 20_000 < sum(len(samples(parts)) for parts in found.values()) < 30_000
    for parts in found.values():
        site = aligned(parts)
        assert site.season.max() == 0
        assert 0.03 < (site.labels == 1).mean() < 0.08
        assert all(0.03 < (site.labels[site.split == split] == 1).mean() < 0.12 for split in range(3))


def test_the_rule_finds_only_some_of_the_sewers_anomalies(found):
    sewer = samples(found["anomalies.csv"])
    anomalous = series.anomalous(sewer, "edited") == 1
    zeros = (sewer["value"] <= 0).to_numpy()
    assert anomalous[zeros].all()
    assert 0.2 < zeros.sum() / anomalous.sum() < 0.5


def test_the_sewers_refused_lines_are_an_hour_twice_and_one_cut_off(found):
    refused = Counter(reason for part in found["anomalies.csv"] for reason in part.refused["reason"].to_pylist())
    assert refused == {AGAIN: 12, "1 fields in place of 3": 1}
    assert aligned(found["anomalies.csv"]).stretch.max() == 0, "the hour's first readings stay"


def test_the_brook_has_a_gap_codes_of_all_kinds_and_a_lag(found):
    weir, bridge = (aligned(found[f"{site}2016.csv.gz"]) for site in ("MillWeir", "MillBridge"))
    assert (weir.channels, bridge.channels) == (("flow", "level"), ("level", "velocity"))
    assert (weir.stretch.max(), bridge.stretch.max()) == (0, 1)
    assert len(weir) - len(bridge) == 20
    read = samples(found["MillWeir2016.csv.gz"])
    assert set(read["quality"].dropna()) == {"10", "2", "4", "5", "-9999"}
    assert read.loc[read["quality"] == "5", "value"].isna().all()
    levels = [pd.Series(site.values[:, site.channels.index("level")], site.times) for site in (weir, bridge)]
    by_lag = {lag: levels[0].shift(lag).corr(levels[1], "spearman") for lag in range(7)}
    assert max(by_lag, key=by_lag.get) == 3, "45 minutes"
