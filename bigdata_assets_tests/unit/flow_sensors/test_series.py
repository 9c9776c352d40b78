"""Samples of a site side by side: stretches, splits, labels, and windows that are views."""

import numpy as np
import pandas as pd
import pyarrow as pa

from bigdata_assets.flow_sensors.logic import series
from bigdata_assets.flow_sensors.tables import WINDOWS


def samples(minutes, channel="flow", values=None, quality=None, edited=None):
    times = pd.Timestamp("2016-01-01", tz="UTC") + pd.to_timedelta(minutes, unit="min")
    n = len(times)
    columns = {"value": values or [1.0] * n, "quality": quality or [None] * n, "edited": edited or [None] * n}
    return pd.DataFrame({"channel": channel, "observed_at": times, **columns})


def test_a_window_goes_over_no_gap():
    of = series.align("a", samples([0, 5, 10, 15, 40, 45, 50]), None)
    assert of.interval_s == 300
    assert of.stretch.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert of.starts(3).tolist() == [0, 1, 4]
    assert of.starts(3, 2).tolist() == [0, 4]
    assert of.starts(8).tolist() == []


def test_rows_left_out_end_a_stretch():
    of = series.align("a", samples(range(0, 50, 5)), None)
    part = of.taken(np.arange(10) != 4)
    assert part.starts(3).tolist() == [0, 1, 4, 5, 6]
    assert part.stretch.tolist() == [0] * 4 + [1] * 5


def test_each_season_is_split_by_time():
    season = np.arange(10) * 5
    of = series.align("a", samples([*season, *(season + 60 * 24 * 30)]), None)
    assert of.season.tolist() == [0] * 10 + [1] * 10
    assert of.split.tolist() == [0] * 6 + [1] * 2 + [2] * 2 + [0] * 6 + [1] * 2 + [2] * 2


def test_channels_stand_side_by_side_and_one_that_is_sampled_less_often_holds():
    often = samples(range(0, 60, 5), "flow", values=list(map(float, range(12))))
    seldom = samples([0, 15, 30, 45], "level", values=[1.0, 2.0, 3.0, 4.0])
    of = series.align("a", pd.concat([often, seldom]), None)
    assert of.channels == ("flow", "level")
    assert of.values[:, 1].tolist() == [1.0] * 3 + [2.0] * 3 + [3.0] * 3 + [4.0] * 3
    gone = series.align("a", pd.concat([often, seldom.iloc[:3]]), None)
    assert np.isnan(gone.values[9:, 1]).all()


def test_labels_are_of_codes_or_of_edits_and_unknown_where_nobody_said():
    by_quality = samples([0, 5, 10, 15], quality=[None, "7", "-9999", "-9999.00"])
    assert series.align("a", by_quality, series.QUALITY).labels.tolist() == [0, 1, 0, 0]
    edited = samples([0, 5, 10, 15], values=[1.0, 2.0, 3.0, None], edited=[1.0, 0.0, None, 4.0])
    assert series.align("a", edited, series.EDITED).labels.tolist() == [0, 1, series.UNKNOWN, series.UNKNOWN]
    assert set(series.align("a", edited, None).labels) == {series.UNKNOWN}
    other = samples([0, 5, 10, 15], "level", quality=["1", None, None, None])
    both = series.align("a", pd.concat([by_quality, other]), series.QUALITY)
    assert both.labels.tolist() == [1, 1, 0, 0]


def test_rows_come_back_as_they_were_and_windows_are_labelled():
    n = 30
    labels = [None] * n
    labels[7] = "4"
    first = samples(range(0, n * 5, 5), values=[float(i) if i % 4 else None for i in range(n)], quality=labels)
    of = [series.align("b", first, series.QUALITY), series.align("a", first, None)]
    rows = pa.concat_tables([series.to_rows(one, 5, 2) for one in of]).cast(WINDOWS.arrow_schema)
    found = {one.site: one for one in series.from_rows(rows)}
    for one in of:
        for name in ("times", "values", "labels", "stretch", "season", "split"):
            np.testing.assert_array_equal(getattr(found[one.site], name), getattr(one, name))
        assert (found[one.site].channels, found[one.site].interval_s) == (one.channels, one.interval_s)
    labelled = rows.filter(pa.compute.field("site") == "b").filter(pa.compute.field("begins_window"))
    assert labelled["window_label"].to_pylist() == [start <= 7 < start + 5 for start in range(0, 26, 2)]
    unknown = rows.filter(pa.compute.field("site") == "a")
    assert unknown["window_label"].null_count == unknown["label"].null_count == n


def test_the_highest_version_of_a_sample_counts():
    rows = pd.concat([samples([0, 5]), samples([0], values=[9.0])]).assign(site="a", version=[1, 1, 2])
    assert sorted(series.current(rows.iloc[::-1])["value"]) == [1.0, 9.0]


def test_windows_take_no_memory_until_they_are_copied():
    values = np.arange(20, dtype=np.float32).reshape(10, 2)
    found = series.windows(values, [0, 7], 3)
    assert found.shape == (2, 3, 2)
    np.testing.assert_array_equal(found[1], values[7:10])


def test_a_site_with_one_sample_has_a_series():
    of = series.align("a", samples([0]), None)
    assert (len(of), of.interval_s, of.starts(2).tolist()) == (1, 1, [])
    assert series.from_rows(series.to_rows(of, 2, 1).cast(WINDOWS.arrow_schema))[0].site == "a"
    assert series.from_rows(WINDOWS.arrow_schema.empty_table()) == []


def test_channels_that_are_seconds_apart_stand_in_one_row():
    apart = samples([m + 2 / 60 for m in range(0, 50, 5)], "level", values=[2.0] * 10)
    of = series.align("a", pd.concat([samples(range(0, 50, 5)), apart]), None)
    assert (len(of), of.interval_s, len(of.starts(5))) == (10, 300, 6)
    assert not np.isnan(of.values).any()
    late = apart["observed_at"].iloc[[3]].dt.tz_localize(None).to_numpy("datetime64[ms]")
    assert np.flatnonzero(series.rows_of(of, late)).tolist() == [3]


def test_a_value_holds_over_no_gap():
    often = samples([*range(0, 60, 5), *range(600, 660, 5)])
    seldom = samples([0, 30, 630], "level", values=[1.0, 2.0, 3.0])
    level = series.align("a", pd.concat([often, seldom]), None).values[:, 1]
    assert level[:12].tolist() == [1.0] * 6 + [2.0] * 6
    assert np.isnan(level[12:18]).all()
    assert level[18:].tolist() == [3.0] * 6
