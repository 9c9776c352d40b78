from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from bigdata_assets.big_cats.logic import head, head_report
from bigdata_assets.big_cats.logic.classes import CatClass
from bigdata_assets.big_cats.logic.head import NONE, SEVERAL, HeadSettings, Rows, Start
from bigdata_assets.resources.networks import Network

CLASSES = (CatClass("/m/a", "Ant", (1, 2)), CatClass("/m/b", "Bee", (3,)), CatClass("/m/c", "Cat", ()))
SIZE = 12
QUICK = HeadSettings(epochs=12)
NOTHING = Start(np.zeros((SIZE, 3), np.float32), np.zeros(3, np.float32))


def head_probabilities(model, features):
    return softmax(head.logits(model, features).astype(float), axis=1)


class Loaded:
    """Its last layer: class i has i everywhere, and a bias of -i."""

    def __init__(self, weights):
        self.network = Network("N", weights, "")

    def top_weights(self, indices):
        return np.tile(np.array(indices, np.float32), (SIZE, 1)), -np.array(indices, np.float32)


def made(counts, seed=0, views=2, groups=None):
    """Rows whose class is the place of their largest feature; those of NONE have none."""
    rng, codes = np.random.default_rng(seed), np.repeat(list(counts), list(counts.values()))
    features = rng.random((len(codes), SIZE)).astype(np.float32)
    features[codes >= 0, codes[codes >= 0]] += 4
    own = np.arange(len(codes)) if groups is None else groups
    return Rows(
        np.repeat([f"c{number:03}" for number in range(len(codes))], views),
        np.repeat(codes, views),
        np.tile(np.arange(views), len(codes)),
        np.repeat(own, views),
        np.repeat(features, views, axis=0) + np.tile(np.arange(views) * 0.01, len(codes))[:, None].astype(np.float32),
    )


def table(rows, classes=CLASSES):
    labels = {code: [one.label] for code, one in enumerate(classes)} | {NONE: [], SEVERAL: ["/m/a", "/m/b"]}
    return pd.DataFrame(
        {
            "subset": "test",
            "image_id": [
                f"i{name}" if code != NONE else name for name, code in zip(rows.names, rows.codes, strict=True)
            ],
            "chip_id": [None if code == NONE else name for name, code in zip(rows.names, rows.codes, strict=True)],
            "labels": [labels[code] for code in rows.codes],
            "view": rows.views,
            "perceptual_hash": np.random.default_rng(1).integers(-(2**63), 2**63 - 1, 999)[rows.groups],
            "network": "N",
            "model_version": "N-none",
            "features": list(rows.features),
        }
    )


def test_a_class_begins_as_the_mean_of_its_synsets():
    begin = head.start(Loaded("imagenet"), CLASSES)
    assert begin.kernel[0].tolist() == [1.5, 3, 0]
    assert begin.bias.tolist() == [-1.5, -3, 0]
    features = np.random.default_rng(0).random((4, SIZE)).astype(np.float32)
    found = head.logits(head.build(begin, made({0: 3}), QUICK), features)
    np.testing.assert_allclose(found, features @ begin.kernel + begin.bias, rtol=1e-5)


def test_random_weights_are_nothing_to_begin_with():
    begin = head.start(Loaded("none"), CLASSES)
    assert not begin.kernel.any()
    assert not begin.bias.any()
    assert begin.kernel.shape == (SIZE, 3)


def test_what_is_separable_is_learnt_and_a_seed_makes_the_same_head():
    rows = made({0: 20, 1: 10, 2: 10})
    first, again, other = (head.fit(rows, NOTHING, replace(QUICK, seed=seed)) for seed in (0, 0, 1))
    unseen = made({0: 10, 1: 10, 2: 10}, seed=9).plain
    found = head_probabilities(first.model, unseen.features)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found.argmax(axis=1) == unseen.codes).mean() > 0.9
    np.testing.assert_array_equal(found, head_probabilities(again.model, unseen.features))
    assert (found != head_probabilities(other.model, unseen.features)).any()
    assert first.stopped_on == "8 chips of other groups"
    assert len(first.history["val_loss"]) == len(first.history["loss"])


def test_features_that_differ_little_or_are_large_are_learnt_alike():
    rows = made({0: 8, 1: 8, 2: 8})
    for features in (rows.features * 0.01 + 5, rows.features * 1000):
        fitted = head.fit(replace(rows, features=features.astype(np.float32)), NOTHING, QUICK)
        assert (head.logits(fitted.model, features.astype(np.float32)).argmax(axis=1) == rows.codes).mean() > 0.9


def test_a_class_without_pictures_keeps_what_imagenet_knew():
    begin = Start(np.random.default_rng(0).normal(size=(SIZE, 3)).astype(np.float32), np.ones(3, np.float32))
    rows = made({0: 10, 1: 10})
    fitted = head.fit(rows, begin, QUICK)
    before, after = rows.features @ begin.kernel + begin.bias, head.logits(fitted.model, rows.features)
    np.testing.assert_allclose(after[:, 2], before[:, 2], rtol=1e-4, atol=1e-5)
    assert np.abs(after[:, :2] - before[:, :2]).max() > 0.1


def test_a_head_is_stored_and_loaded_in_safe_mode(tmp_path):
    fitted = head.fit(made({0: 4, 1: 4, 2: 4}), NOTHING, replace(QUICK, epochs=1))
    fitted.model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    features = made({0: 2}).features
    np.testing.assert_allclose(head.logits(loaded, features), head.logits(fitted.model, features), rtol=1e-6)


def test_negatives_and_chips_of_several_classes_are_not_fitted_on():
    rows = made({0: 6, 1: 6, NONE: 30, SEVERAL: 5})
    only = rows.where(rows.codes >= 0)
    both = [head.fit(its, NOTHING, QUICK) for its in (rows, only)]
    np.testing.assert_array_equal(*(head.logits(fitted.model, rows.features) for fitted in both))
    assert both[0].threshold_of == "30 negative pictures"
    scores = head.scores(both[0].model, rows.where(rows.codes == NONE).plain.features)
    assert (scores > both[0].threshold).sum() == 1, "5 % of 30"
    with pytest.raises(ValueError, match="nothing to fit on"):
        head.fit(rows.where(rows.codes < 0), NOTHING, QUICK)


def test_groups_join_pictures_and_what_looks_alike():
    ids = np.array(["a", "a", "b", "c", "d", "e"])
    hashes = np.array([0, -1, 0b111111, 0b111111_000000_000000, -1, -(2**63)], np.int64)
    # a and b are alike, and a's other chip has d's hash; e differs from 0 in the sign alone; c in 6 from 0, 12 from b.
    assert len(set(head.groups(ids, hashes)[[0, 1, 2, 3, 4, 5]])) == 1
    apart = np.array([0, 0, 0b1111111, 0b1111111 << 20, 0b1111111 << 40, -1], np.int64)
    assert head.groups(ids, apart).tolist()[0] == head.groups(ids, apart).tolist()[1]
    assert len(set(head.groups(ids, apart))) == 5


def test_groups_of_thousands_are_those_of_a_plain_search():
    rng = np.random.default_rng(0)
    seeds = rng.integers(-(2**63), 2**63 - 1, 40)
    hashes = np.concatenate([seeds, seeds ^ (1 << rng.integers(0, 62, 40)), rng.integers(-(2**63), 2**63 - 1, 120)])
    found = head.groups(np.arange(len(hashes)).astype(str), hashes)
    assert len(set(found)) == 160
    np.testing.assert_array_equal(found[:40], found[40:80])


def test_a_group_is_in_one_fold_and_classes_are_spread():
    groups = np.repeat(np.arange(30), 2)
    rows = made({0: 40, 1: 10, NONE: 10}, groups=groups)
    fold = head.folds(rows, 5, seed=0)
    for group in range(30):
        assert len(set(fold[rows.groups == group])) == 1
    assert [len(set(rows.groups[(fold == number) & (rows.codes == 0)])) for number in range(5)] == [4] * 5
    assert [len(set(rows.groups[(fold == number) & (rows.codes == 1)])) for number in range(5)] == [1] * 5
    assert (fold != head.folds(rows, 5, seed=1)).any()
    with pytest.raises(ValueError, match="near-duplicates"):
        head.folds(rows.where(rows.groups == 0), 5, 0)


def test_what_is_stopped_on_is_of_other_groups_and_of_most_classes():
    rows = made({0: 20, 1: 20, 2: 1}, groups=np.arange(41) // 2)
    fitted_on, stopping, _ = head.to_stop_on(rows, 0)
    assert not set(fitted_on.groups) & set(stopping.groups)
    assert set(stopping.views) == {0}
    assert set(fitted_on.codes) == {0, 1, 2}
    few = made({0: 20, 1: 4, 2: 4})
    fitted_on, stopping, told = head.to_stop_on(few, 0)
    assert (len(fitted_on), len(stopping)) == (len(few), 0)
    assert told.startswith("nothing")


def test_classes_weigh_the_same():
    codes = np.array([0, 0, 0, 2])
    weights = head.class_weights(codes)
    assert weights.tolist() == pytest.approx([2 / 3] * 3 + [2])


def test_thresholds_of_known_scores():
    assert head.threshold(np.arange(100), [])[0] == 94
    assert head.threshold([3, 1, 2], [9]) == (
        3,
        "3 negative pictures, too few for a share: the highest of their scores",
    )
    found, of = head.threshold([], np.arange(101))
    assert found == 5
    assert "no negative" in of


def test_energy_is_low_where_all_logits_are():
    found = head.energy(np.array([[0, 0], [10, -10], [1000, 0]], np.float32))
    assert found.tolist() == pytest.approx([np.log(2), 10, 1000])


def test_every_row_is_answered_by_a_head_that_has_not_seen_its_group(monkeypatch):
    rows = made({0: 12, 1: 6, 2: 1, NONE: 8, SEVERAL: 3}, groups=np.append(np.arange(28) // 2, [90, 91]))
    seen = []

    class Model:
        output_shape = (None, 3)

        def __call__(self, features):
            seen[-1]["scored"] = features
            return features[:, :3]

    def fit(learnt, _, settings):
        seen.append({"learnt": learnt.features, "seed": settings.seed})
        return head.Fitted(Model(), {}, 3.0, "", "", 1.0)

    monkeypatch.setattr(head, "fit", fit)
    crossed = head.cross_validate(rows, NOTHING, QUICK, repeats=2, n_folds=3)
    assert crossed.logits.shape == (2, 27, 3)
    np.testing.assert_array_equal(crossed.logits[1], crossed.rows.features[:, :3])
    assert crossed.accepted.all(axis=0)[crossed.rows.codes >= 0].all()
    assert not crossed.accepted[:, crossed.rows.codes == NONE].any()
    group_of = {row.tobytes(): group for row, group in zip(rows.features, rows.groups, strict=True)}
    for fold in seen:
        groups = [{group_of[row.tobytes()] for row in fold[which]} for which in ("learnt", "scored")]
        assert not groups[0] & groups[1]
    assert len({fold["seed"] for fold in seen}) == 6


def test_rows_of_the_table():
    rows = made({0: 2, SEVERAL: 1, NONE: 2})
    found = head.rows(table(rows).sample(frac=1, random_state=0), CLASSES)
    np.testing.assert_array_equal(found.codes, rows.codes)
    np.testing.assert_array_equal(found.features, rows.features)
    assert len(set(found.groups)) == 5
    assert head.rows(table(rows), CLASSES).names.tolist() == rows.names.tolist()
    with pytest.raises(ValueError, match="/m/a"):
        head.rows(table(rows), CLASSES[1:])
    mixed = table(rows).assign(model_version=["N-none"] * 9 + ["N-imagenet"])
    with pytest.raises(ValueError, match="N-imagenet, N-none"):
        head.rows(mixed, CLASSES)


def test_zero_shot_answers_are_read_off_the_stored_ones():
    predictions = pd.DataFrame(
        {
            "network": ["N", "N", "N", "M"],
            "chip_id": ["c1", "c2", "c3", "c1"],
            "top_indices": [np.array([7, 3]), np.array([2, 1]), np.array([8, 9]), np.array([1, 2])],
        }
    )
    found, partial = head_report.zero_shot(predictions, np.array(["c2", "c1", "c3"]), CLASSES)
    assert {name: of.tolist() for name, of in found.items()} == {
        "N zero-shot": [0, -1, -1],
        "N zero-shot among the classes": [0, 1, -1],
    }
    assert partial == ["M"]


def test_figures_of_known_answers():
    truth, answers = np.array([0, 0, 0, 1]), np.array([[0, 0, 1, 1], [0, 0, 0, 0]])
    assert head_report.measured(truth, answers) == {"accuracy": 0.75, "balanced_accuracy": pytest.approx(2 / 3)}
    assert head_report.majority(truth) == {"accuracy": 0.75, "balanced_accuracy": 0.5}
    assert head_report.confusion(truth, answers, CLASSES).to_numpy().tolist() == [[5, 1, 0], [1, 1, 0], [0, 0, 0]]
    by_class = head_report.by_class(truth, answers, {"N": np.array([0, -1, -1, 1])}, CLASSES, np.array([5, 5, 6, 7]))
    assert by_class.to_dict("records") == [
        {"class": "Ant", "chips": 3, "groups": 2, "precision": 5 / 6, "recall": 5 / 6, "recall, N": 1 / 3},
        {"class": "Bee", "chips": 1, "groups": 1, "precision": 0.5, "recall": 0.5, "recall, N": 1.0},
    ]


def test_the_report_has_the_baselines_on_the_same_chips():
    rows = made({0: 8, 1: 6, 2: 4, NONE: 22, SEVERAL: 2})
    fitted = head.fit(rows, NOTHING, QUICK)
    card = {
        "parameters": head.parameters(QUICK, fitted, "N", "N-none"),
        "history": fitted.history,
        "classes": [one.label for one in CLASSES],
    }
    chips = sorted(set(rows.names[rows.codes >= 0]))
    tops = [np.array([3, 1])] * len(chips)
    predictions = pd.DataFrame({"network": "N", "chip_id": chips, "top_indices": tops})
    page = head_report.report(table(rows), predictions, CLASSES, NOTHING, card, 1, 2, why="So few.")
    assert page.summary.endswith("2 chips of several classes are left out. So few.")
    assert {(e.model, e.baseline) for e in page.evaluations} == {
        ("cat_head", baseline)
        for baseline in ("majority", "head as it begins", "N zero-shot", "N zero-shot among the classes")
    }
    values = {e.baseline: e.baseline_value for e in page.evaluations if e.metric == "accuracy"}
    assert values["N zero-shot"] == pytest.approx(6 / 18)
    assert values["majority"] == values["head as it begins"] == pytest.approx(8 / 18), "it begins with zeros"
    assert (page.numbers["chips"], page.numbers["negative pictures"], page.numbers["groups"]) == (18, 22, 42)
    assert page.numbers["accuracy"] > 0.8
    assert 0 <= page.numbers["negatives rejected"] <= 1
    assert len(page.pngs()) == 3
    without = rows.where(rows.codes != NONE)
    page = head_report.report(table(without), predictions, CLASSES, NOTHING, card, 1, 2)
    assert "There is no negative picture" in page.summary
    assert len(page.pngs()) == 2
    with pytest.raises(ValueError, match="materialise cat_head"):
        head_report.report(table(rows).assign(model_version="other"), predictions, CLASSES, NOTHING, card, 1, 2)
    assert head.from_parameters(card["parameters"]) == QUICK
