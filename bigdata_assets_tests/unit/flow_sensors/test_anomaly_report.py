import dataclasses

import numpy as np
import pytest

from bigdata_assets.flow_sensors.logic import anomaly_figures, anomaly_report
from bigdata_assets.flow_sensors.logic.anomaly_report import HELD_OUT, RULE, TIME_ORDERED, Judged
from bigdata_assets.flow_sensors.logic.series import TEST, UNKNOWN, SiteSeries


def series(site, n=1_000, anomalous=(), unknown=False):
    """One season of quarter hours; TEST are the last fifth."""
    labels = np.full(n, UNKNOWN if unknown else 0, np.int8)
    labels[list(anomalous)] = 1
    values = np.stack([np.sin(np.arange(n) / 20), np.full(n, np.nan)], axis=1).astype(np.float32)
    return SiteSeries(
        site,
        ("flow", "level"),
        900,
        np.datetime64("2020-01-01", "ms") + np.arange(n) * np.timedelta64(900, "s"),
        values,
        labels,
        np.zeros(n, np.int32),
        np.zeros(n, np.int32),
        np.digitize(np.arange(n) / n, (0.6, 0.8)).astype(np.int8),
    )


def judged(model, sites, scored=lambda one: one.labels == 1, **fields):
    scores = {one.site: scored(one).astype(np.float32) for one in sites}
    return Judged(model, f"{model}-1", 0.5, scores, {site: its >= 0.5 for site, its in scores.items()}, **fields)


def half(one):
    """Every second anomalous sample, and one that is not."""
    found = one.labels == 1
    found[np.flatnonzero(found)[::2]] = False
    found[-1] = True
    return found


@pytest.fixture
def sites():
    return [series("a", anomalous=[*range(100, 120), *range(850, 870)]), series("b $x$", anomalous=[900, 901])]


def test_the_rule_is_first_and_beside_every_figure(sites):
    models = [judged("perfect", sites), judged("blind", sites, lambda one: one.labels > 1), judged(RULE, sites, half)]
    report = anomaly_report.report(sites, models, [])
    table = report.tables[f"{TIME_ORDERED}, all sites"]
    assert table["model"].tolist() == [RULE, "perfect", "blind"]
    assert table["AP"].tolist()[1:] == [1, pytest.approx(22 / 400)]
    found = {(e.model, e.metric): e for e in report.evaluations}
    assert {e.baseline for e in report.evaluations} == {RULE}
    assert RULE not in {e.model for e in report.evaluations}
    perfect = found["perfect", "F1"]
    # Of 22 anomalous samples of both tests the rule flags 11, and two that are not.
    assert (perfect.value, perfect.split, perfect.baseline_value) == (1, TIME_ORDERED, pytest.approx(22 / 35))
    assert found["blind", "F1"].value == 0
    by_site = report.tables[f"{TIME_ORDERED}, by site"]
    assert by_site["site"].tolist() == ["a"] * 3 + ["b $x$"] * 3
    assert by_site["model"].tolist()[::3] == [RULE, RULE]


def test_only_the_test_is_judged_and_the_rule_on_everything(sites):
    def wrong_before_the_test(one):
        return np.where(one.split == TEST, one.labels == 1, one.labels == 0)

    report = anomaly_report.report(sites, [judged(RULE, sites, wrong_before_the_test)], [])
    assert report.numbers[f"F1 {RULE}"] == 1
    rule = report.tables[f"The {RULE} over all labelled samples"].set_index("site")
    assert rule.loc["a", "recall"] == 0.5
    assert rule.loc["b $x$", "recall"] == 1
    sites_table = report.tables["Sites"].set_index("site")
    assert sites_table.loc["a", ["anomalous", "anomalous in test", "events in test"]].tolist() == [40, 20, 1]


def test_held_out_sites_are_judged_over_all_their_samples(sites):
    models = [judged(RULE, sites, half), judged("perfect", sites)]
    report = anomaly_report.report(sites, models, [dataclasses.replace(one, threshold=None) for one in models])
    found = {(e.split, e.model, e.metric): e for e in report.evaluations}
    assert found[HELD_OUT, "perfect", "F1"].baseline_value == pytest.approx(2 * 21 / (42 + 23))
    table = report.tables[f"{HELD_OUT}, all sites"]
    assert (table["AP from"] <= table["AP"]).all()
    assert f"{HELD_OUT}, all sites: AP and F1" in report.figures


def test_what_cannot_be_judged_is_said(sites):
    sites = [*sites, series("c", unknown=True)]
    seen = [one for one in sites if one.site != "b $x$"]
    report = anomaly_report.report(sites, [judged(RULE, sites, half), judged("partial", seen)], [])
    assert "c: no labels." in report.summary
    assert "b $x$: too few events in its test (1) for its figures to say much." in report.summary
    assert "partial has not scored b $x$, which counts as nothing found." in report.summary
    assert "Over all labelled samples of a the rule has precision 0.952 and recall 0.500." in report.summary
    assert [e.value for e in report.evaluations if e.metric == "F1"] == [pytest.approx(2 * 20 / 42)]


def test_without_models_or_labels_a_report_says_what_to_do(sites):
    assert "materialise anomaly_models" in anomaly_report.report(sites, [], []).summary
    unlabelled = [series("c", unknown=True)]
    assert "sites.csv" in anomaly_report.report(unlabelled, [judged(RULE, unlabelled)], []).summary


def test_where_nothing_is_anomalous_there_are_no_figures_and_a_report():
    sites = [series("a"), series("b")]
    report = anomaly_report.report(sites, [judged(RULE, sites), judged("net", sites)], [judged(RULE, sites)])
    assert "too few events in its test (0)" in report.summary
    assert [e.metric for e in report.evaluations if e.metric in ("AP", "F1")] == []
    assert all(report.pngs(50).values())


def test_no_model_is_judged_without_the_rule_or_on_other_rows(sites):
    with pytest.raises(ValueError, match="without the rule"):
        anomaly_report.report(sites, [judged("perfect", sites)], [])
    others = [series("a", 999, [100]), sites[1]]
    with pytest.raises(ValueError, match=r"perfect has 999 scores of a.* 1,000 rows"):
        anomaly_report.report(sites, [judged(RULE, sites), judged("perfect", others)], [])


def test_pictures_are_drawn_of_networks_and_stretches(sites):
    history = {"loss": [1.0, 0.5], "val_loss": [1.1, 0.7]}
    models = [judged(RULE, sites, half), judged("net", sites, half, history=history), judged("plain", sites)]
    report = anomaly_report.report(sites, models, [])
    captions = " ".join(report.figures)
    assert "Training by epoch" in captions
    assert "a, most missed by plain" not in captions
    assert "random stretch" in captions
    assert all(report.pngs(50).values())


def test_the_worst_stretches_are_of_the_best_model(sites):
    models = [judged(RULE, sites, half), judged("net", sites, half)]
    captions = anomaly_figures.stretches(sites, models, models[1], 0)
    assert "a, most missed by net, 10 samples, from 2020-01-09 08:00" in captions
    assert "b $x$, most falsely flagged by net, 1 samples, from 2020-01-09 08:00" in captions


def test_of_each_site_the_one_worst_stretch_is_shown():
    one = series("a", 4_000, [*range(3_300, 3_310), *range(3_500, 3_530)])
    blind = judged("blind", [one], lambda one: one.labels > 1)
    missed = [caption for caption in anomaly_figures.stretches([one], [blind], blind, 0) if "missed" in caption]
    assert [caption.split(", ")[2] for caption in missed] == ["30 samples"]


def test_pieces_are_of_the_test_and_of_one_stretch():
    one = series("a", 4_000)
    one.stretch[3_900:] = 1
    pieces = anomaly_figures.candidates([one])
    assert [(piece.first, piece.end) for piece in pieces] == [(3_200, 3_488), (3_488, 3_776)]
    short = anomaly_figures.candidates([series("b", 50)])
    assert [(piece.first, piece.end) for piece in short] == [(40, 50)]


def test_scores_are_placed_at_their_times(sites):
    one = sites[0]
    at = np.append(one.times[[5, 3, 5]], np.datetime64("1999-01-01", "ms")).astype("datetime64[us]")
    scores, flags = anomaly_report.placed(one, at, np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, True, True, True]))
    assert np.flatnonzero(np.isfinite(scores)).tolist() == [3, 5]
    assert (scores[3], scores[5], np.flatnonzero(flags).tolist()) == (2, 3, [3, 5])
    assert len(anomaly_report.placed(one.taken(one.labels > 1), at, np.ones(4), np.ones(4, bool))[0]) == 0
