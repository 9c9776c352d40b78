"""What models are fitted on, and what of an export is in memory."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from bigdata_assets.flow_sensors import exporting, fitting, loading
from bigdata_assets.flow_sensors.logic import series
from bigdata_assets_tests.unit.flow_sensors.test_series import samples


def site(name, n=400, labelled=True):
    rows = samples(range(0, n * 5, 5), values=[5 + np.sin(i / 20) for i in range(n)])
    for i in range(0, n, 29):
        rows.loc[i, "value"] = -1.0
    of = series.align(name, rows.assign(edited=5.0), None)
    labels = (of.values[:, 0] < 0).astype(np.int8) if labelled else np.full(n, series.UNKNOWN, np.int8)
    return replace(of, labels=labels)


def test_of_a_long_series_the_newest_of_each_part_is_taken():
    of = site("a")
    newest = fitting._newest(of, 0.25)
    assert np.bincount(newest.split).tolist() == [60, 20, 20]
    assert newest.times[59] == of.times[239]
    assert fitting._newest(of, 2) is of


def test_a_model_that_cannot_be_fitted_takes_no_other_one_down():
    unlabelled = [site("a", labelled=False)]
    models, refused = fitting.trained(["rule", "lightgbm"], unlabelled, fitting.SAMPLE, 0, "sample")
    assert (set(models), set(refused)) == ({"rule"}, {"lightgbm"})
    assert "anomalous" in refused["lightgbm"]
    assert models["rule"].parameters["settings"] == "sample"
    with pytest.raises(ValueError, match="anomalous"):
        fitting.trained(["lightgbm"], unlabelled, fitting.SAMPLE, 0, "sample")


def test_a_held_out_site_is_scored_by_the_others_alone():
    sites = [site("a"), site("b"), site("c", labelled=False)]
    rows = fitting.held_out(["rule"], sites, 5, fitting.SAMPLE, 0)
    assert set(rows["site"].to_pylist()) == {"a", "b"}
    assert rows.num_rows == 800
    flags = np.array(rows["flag"].to_pylist(), object)
    assert flags[:400].astype(bool).tolist() == (sites[0].labels == 1).tolist()
    assert fitting.held_out(["rule"], sites[:1], 5, fitting.SAMPLE, 0).num_rows == 0


def test_months_that_are_read_at_once_are_bounded_in_memory(monkeypatch):
    monkeypatch.setattr(exporting, "GROUP_ROWS", 10)
    monkeypatch.setattr(exporting, "MOST_ROWS", 12)
    page = pa.RecordBatch.from_pydict({"value": [0.0] * 4})
    pages = [(f"2016-{month:02}", page) for month in (1, 2, 1, 3, 1, 1)]
    found = [(month, len(batch)) for month, batch in exporting.joined(pages)]
    assert found == [("2016-01", 8), ("2016-02", 4), ("2016-01", 8), ("2016-03", 4)]


@pytest.mark.parametrize("name", ["..", "a/b", ".", "a-b", "x%2Ey", "ü"])
def test_a_name_leaves_no_folder(tmp_path, name):
    path = tmp_path / exporting._escaped(name)
    assert path.parent == tmp_path
    assert path.resolve().parent == tmp_path.resolve()


def test_sites_are_those_of_the_sources_and_of_the_files_own_folder(tmp_path):
    header = "site,name,latitude,longitude,time_zone,labelled_by\n"
    (tmp_path / "a").mkdir()
    (tmp_path / "sites.csv").write_text(header + "x,Old,,,America/Denver,\ny,Y,,,UTC,\n")
    (tmp_path / "a" / "sites.csv").write_text(header + "x,New,,,Europe/Berlin,\n")
    found = loading._sites(tmp_path / "a" / "x.csv", tmp_path)
    assert (found["x"].name, found["x"].time_zone, found["y"].name) == ("New", "Europe/Berlin", "Y")
    assert loading._name(tmp_path / "a" / "x.csv", tmp_path) == "a/x.csv"
    assert set(loading._sites(tmp_path / "a" / "x.csv", None)) == {"x"}
