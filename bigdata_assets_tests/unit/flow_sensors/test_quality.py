import numpy as np
import pandas as pd
import pytest

from bigdata_assets.flow_sensors.logic import quality, quality_report
from bigdata_assets.flow_sensors.logic.series import EDITED, QUALITY
from bigdata_assets.flow_sensors.tables import CHANNEL_QUALITY
from bigdata_assets_tests.integration.conftest import REAL_DATA

REAL = REAL_DATA / "flow_sensors/carldata_velocity/anomalies.csv.gz"
T0 = pd.Timestamp("2020-01-01", tz="UTC")


def samples(minutes, values, site="a", channel="flow", **columns):
    observed_at = T0 + pd.to_timedelta(pd.Series(list(minutes), dtype=float), unit="min")
    rows = pd.DataFrame({"observed_at": observed_at, "value": pd.Series(list(values), dtype=float)})
    return rows.assign(**{"site": site, "channel": channel, "version": 1, "quality": None, "edited": None, **columns})


def one(rows, length=4, labelled_by=None, repeated=None):
    found = quality.channel_quality(rows, repeated or {}, length, {"a": labelled_by})
    assert tuple(found.columns) == tuple(CHANNEL_QUALITY.column_names)
    assert len(found) == 1
    return found.iloc[0]


def test_gaps_what_they_miss_and_what_is_off_the_grid():
    found = one(samples([0, 5, 10, 25, 30, 32, 35, 43, 48], range(9)))
    assert (found["interval_s"], found["samples"], found["values"]) == (300, 9, 9)
    # 10 to 25 misses two; 35 to 43 is 1.6 intervals, a gap that one sample would fill; 30, 32 is off the grid.
    assert (found["gaps"], found["missing"], found["longest_gap_s"], found["off_grid"]) == (2, 3, 900, 1)
    assert (found["first_at"], found["last_at"]) == (T0, T0 + pd.Timedelta(minutes=48))


def test_one_and_a_half_intervals_are_no_gap_and_half_of_one_is_on_the_grid():
    found = one(samples([0, 4, 8, 14, 16], range(5)))
    assert (found["gaps"], found["missing"], found["longest_gap_s"], found["off_grid"]) == (0, 0, 0, 0)


def test_a_channel_with_one_sample_and_one_without_a_value():
    found = one(samples([0], [7]))
    assert np.isnan(found["interval_s"])
    assert (found["samples"], found["gaps"], found["minimum"], found["median"], found["maximum"]) == (1, 0, 7, 7, 7)
    empty = one(samples([0, 5, 10, 15, 20, 25, 30, 35], [np.nan] * 8))
    assert (empty["samples"], empty["values"], empty["flat_runs"], empty["spikes"]) == (8, 0, 0, 0)
    assert np.isnan([empty["minimum"], empty["median"], empty["maximum"]]).all()


def test_no_samples_have_no_rows():
    assert quality.channel_quality(samples([], []), {}, 4, {}).empty
    assert quality.daily_values(samples([], [])).empty


def test_the_last_version_counts_in_any_order_and_is_told():
    first = samples([10, 0, 5], [3, 1, 2])
    later = samples([5, 5], [9, 8], version=[3, 2], quality="x")
    once = samples([10], [4], version=2)
    found = one(pd.concat([later, once, first]), labelled_by=QUALITY)
    assert (found["samples"], found["corrected"], found["maximum"], found["median"]) == (3, 2, 9, 4)
    assert (found["labelled"], found["anomalous"]) == (3, 1)


def test_labels_by_edited_values_are_known_where_there_is_one():
    rows = samples([0, 5, 10, 15], [1, 2, 3, np.nan], edited=[1, 5, None, 4])
    assert tuple(one(rows, labelled_by=EDITED)[["labelled", "anomalous"]]) == (2, 1)
    assert one(rows)["labelled"] == 0


def test_repeated_hours_are_the_channels_own():
    rows = samples([0, 5], [1, -2])
    assert one(rows, repeated={("a", "flow"): 12, ("a", "level"): 7})["repeated_hours"] == 12
    assert one(rows)["not_positive"] == 1
    assert one(samples([0, 5, 10], [0, 1, -1]))["not_positive"] == 2


@pytest.mark.parametrize(
    ("minutes", "values", "expected"),
    [
        (range(0, 45, 5), [1, 2, 2, 2, 2, 3, 3, 3, 4], (1, 4)),  # three are too few
        (range(0, 40, 5), [2] * 8, (1, 8)),
        ([0, 5, 10, 30, 35, 40], [2] * 6, (0, 0)),  # a gap in between: no window has four
        (range(0, 40, 5), [2, 2, 2, np.nan, 2, 2, 2, 2], (1, 4)),
        (range(0, 40, 5), [2, 2, 2, 2, 5, 5, 5, 5], (2, 8)),
        (range(0, 40, 5), [np.nan] * 8, (0, 0)),
    ],
)
def test_flat_runs_are_as_long_as_a_window_without_a_gap_or_a_null(minutes, values, expected):
    found = one(samples(minutes, values))
    assert (found["flat_runs"], found["flat_samples"]) == expected


def spikes(values, minutes=None):
    rows = samples(minutes or range(0, 5 * len(values), 5), values)
    times = rows["observed_at"].to_numpy("datetime64[us]")
    return np.flatnonzero(quality.spikes(times, rows["value"].to_numpy(), 300)).tolist()


def test_spikes_are_outliers_of_their_window_and_neighbours():
    wave = np.sin(np.arange(40) / 6)
    assert spikes(wave) == []
    assert spikes([*wave[:20], wave[20] + 3, *wave[21:]]) == [20]
    assert spikes([*wave[:20], *(wave[20:] + 3)]) == []  # a step
    assert spikes([*wave[:20], *(wave[20:22] + 3), *wave[22:]]) == []  # two that are alike
    assert spikes([1] * 10 + [9] + [1] * 10) == [10]  # a flat signal's deviation is 0


def test_no_spike_is_seen_without_samples_on_both_sides():
    values = [1.0] * 12
    values[2] = values[9] = 8.0
    assert spikes(values) == []  # two samples are before it, two after
    values = [1.0] * 21
    values[10] = 8.0
    assert spikes(values, [*range(0, 40, 5), *range(100, 165, 5)]) == []  # two after a gap
    assert spikes([*values[:8], np.nan, *values[9:]]) == []


def test_the_last_digit_of_a_coarse_sensor_is_no_spike():
    slow = np.round(np.sin(np.arange(400) / 60), 1)
    flicker = slow.copy()
    flicker[200] += 0.1
    assert spikes(flicker) == spikes(slow) == []
    flicker[200] += 0.4
    assert spikes(flicker) == [200]


def test_spikes_do_not_depend_on_how_many_windows_are_sorted_at_once(monkeypatch):
    values = np.random.default_rng(0).standard_t(2, 500)
    at_once = spikes(values)
    assert len(at_once) > 5
    monkeypatch.setattr(quality, "ROWS", 7)
    assert spikes(values) == at_once


def test_an_example_is_where_the_most_is_wrong():
    values = np.sin(np.arange(300) / 6)
    values[200] += 5
    found = quality.example(samples(range(0, 1500, 5), values), 4, 20)
    assert len(found) == 20
    assert found.loc[found["spike"], "observed_at"].tolist() == [T0 + pd.Timedelta(minutes=1000)]
    short = quality.example(samples([0, 5], [1, 2]), 4, 20)
    assert short["value"].tolist() == [1, 2]


def test_values_are_counted_by_day():
    rows = samples([0, 5, 1439, 1440], [1, np.nan, 2, 3])
    assert quality.daily_values(rows)["values"].tolist() == [2, 1]


@pytest.mark.skipif(not REAL.is_file(), reason=f"no folder with the official files at {REAL_DATA}")
def test_a_real_channel():
    rows = pd.read_csv(REAL, parse_dates=["time"]).rename(
        columns={"time": "observed_at", "velocity": "value", "velocity_edited": "edited"}
    )
    rows = rows.assign(observed_at=rows["observed_at"].dt.tz_localize("UTC"), site="a", channel="velocity", version=1)
    found = one(rows.assign(quality=None), length=60, labelled_by=EDITED)
    assert tuple(found[["samples", "interval_s", "gaps", "labelled", "anomalous"]]) == (59_042, 300, 0, 59_042, 758)
    assert 400 < found["spikes"] < 600  # 326 anomalies are of one sample


def test_a_report_without_samples_says_what_to_do():
    refused = pd.DataFrame({"source": ["f.csv", "g.csv", "f.csv"], "line": [9, 2, 3], "reason": ["no time", "b", "b"]})
    nothing = quality.channel_quality(samples([], []), {}, 4, {})
    report = quality_report.report(nothing, refused, {}, quality.daily_values(samples([], [])))
    for step in ("load", "channel_export", "channel_messages"):
        assert step in report.summary
    (table,) = report.tables.values()
    assert table.to_dict("list") == {
        "reason": ["b", "no time"],
        "rows": [2, 1],
        "sources": [2, 1],
        "first": ["g.csv, line 2", "f.csv, line 9"],
    }


def test_the_worst_channels_are_drawn():
    wave = np.sin(np.arange(300) / 6)
    spiked = wave.copy()
    spiked[[50, 100]] += 5
    rows = pd.concat([samples(range(0, 1500, 5), wave), samples(range(0, 1500, 5), spiked, channel="level")])
    rows = pd.concat([rows, samples([3], [1], site="b $x$")])
    found = quality.channel_quality(rows, {}, 60, {})
    assert quality_report.worst(found) == [("a", "level")]
    examples = {("a", "level"): quality.example(rows[rows["channel"] == "level"], 60, 200)}
    report = quality_report.report(found, pd.DataFrame(), examples, quality.daily_values(rows))
    assert report.numbers["spikes"] == 2
    assert "Most spikes: a level with 0.7%" in report.summary
    assert len(report.pngs(60)) == 3
