from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bigdata_assets.gravitational_waves.logic.classifiers import cnn, cnn_report
from bigdata_assets.gravitational_waves.logic.classifiers.cnn import (
    BACKGROUND_BYTE,
    COLS,
    SHAPE,
    CnnSettings,
    Glitches,
    batches,
    class_codes,
    class_weights,
    from_images,
    held_out,
    pooled_bytes,
    shifted,
    to_stop_on,
)
from bigdata_assets.gravitational_waves.logic.classifiers.features import COLUMNS, resampled, stand_ins_of
from bigdata_assets.gravitational_waves.logic.training.gravity_spy import CLASSES, VIEWS_S

TINY = CnnSettings(epochs=6, batch_size=8, seed=3)
NOTHING = np.zeros(0, int)
LINE_ROWS = {"Helix": 10, "Power_Line": 40, "Violin_Mode": 58}
"""Of a horizontal line that a class has, and no other."""


def lines(counts, sample_type="train", seed=0):
    """Glitches that are a line at their class's frequency, in noise."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(list(counts), list(counts.values()))
    views = rng.normal(BACKGROUND_BYTE, 8, (len(labels), *SHAPE))
    for view, label in zip(views, labels, strict=True):
        view[:, LINE_ROWS[label] - 2 : LINE_ROWS[label] + 2] += 120
    ids = np.array([f"{sample_type}{seed}{number:04}" for number in range(len(labels))])
    return Glitches(ids, np.clip(views, 0, 255).astype(np.uint8), labels, np.repeat(sample_type, len(labels)))


def pictures(n, seed=0):
    """Whole views, (n, 4, 140, 170), that a glitch's other views agree with: they depend on frequency alone."""
    rows = np.random.default_rng(seed).random((n, 1, 140, 1), np.float32)
    return np.broadcast_to(rows, (n, 4, 140, 170)).copy()


@pytest.fixture(scope="module")
def fitted():
    return cnn.fit(lines(dict.fromkeys(LINE_ROWS, 12)), lines({}), replace(TINY, epochs=12))


def test_what_is_separable_is_learnt(fitted):
    unseen = lines(dict.fromkeys(LINE_ROWS, 10), seed=1)
    found = cnn.probabilities(fitted.model, unseen.views)
    assert found.shape == (30, len(CLASSES))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert np.mean(cnn_report.called(found) == unseen.labels) > 0.9


def test_nothing_is_printed_of_a_fit(capfd):
    rows = lines(dict.fromkeys(LINE_ROWS, 5))
    found = cnn.fit(rows, rows, replace(TINY, epochs=2))
    assert len(found.history["val_loss"]) == 2
    assert capfd.readouterr().out == ""


def test_a_seed_makes_the_same_network():
    rows = lines(dict.fromkeys(LINE_ROWS, 5))
    first, again = (
        cnn.probabilities(cnn.fit(rows, rows.where(NOTHING), replace(TINY, epochs=2)).model, rows.views)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)


def test_whole_views_are_answered_as_the_tables_are(fitted):
    views = pictures(3)
    table = pooled_bytes(views).reshape(-1, *SHAPE)
    np.testing.assert_array_equal(cnn.predict(fitted.model, views), cnn.probabilities(fitted.model, table))


def test_workers_pool_as_predict_does():
    images = np.random.default_rng(5).random((4, 140, 170), np.float32)
    batch = pa.RecordBatch.from_pydict(
        {
            "id": ["a"] * 4,
            "label": ["Blip"] * 4,
            "sample_type": ["train"] * 4,
            "view_s": list(VIEWS_S),
            "pixels": pa.array([image.ravel() for image in images], pa.list_(pa.float32())),
        }
    )
    rows = stand_ins_of(batch, pooled_bytes).to_pandas()
    own = {name: rows.loc[rows[f"rank_{name}"] == 0, name].item() for name in COLUMNS.values()}
    table = pd.DataFrame([{"id": "a", "label": "Blip", "sample_type": "train", **own}])
    np.testing.assert_array_equal(cnn.glitches(table).views, from_images(images[None]))
    assert stand_ins_of(batch.slice(0, 0), pooled_bytes).num_rows == 0


def test_a_view_that_is_missing_is_taken_from_the_others():
    views = np.random.default_rng(6).random((2, 4, 140, 170), np.float32)
    whole = from_images(views)
    views[0, 1] = np.nan
    found = from_images(views)
    np.testing.assert_array_equal(found[0, [0, 2, 3]], whole[0, [0, 2, 3]])
    np.testing.assert_array_equal(found[1], whole[1])
    np.testing.assert_array_equal(found[0, 1].ravel(), pooled_bytes(resampled(views[0, 2], 2.0, 1.0)))


def test_views_that_cannot_be_read_are_refused():
    views = pictures(2)
    with pytest.raises(ValueError, match=r"not \(n, 4, 140, 170\)"):
        from_images(views[0])
    views[1, 2, 5, 5] = np.nan
    with pytest.raises(ValueError, match="no numbers"):
        from_images(views)
    with pytest.raises(ValueError, match="no view"):
        from_images(np.full((1, 4, 140, 170), np.nan, np.float32))


def test_a_shift_is_in_time_alone_and_longer_in_a_shorter_view():
    views = np.full((1, *SHAPE), 7, np.uint8)
    views[:, :, 20, 40:45] = 200
    for shift_s in (0.1, -0.1):
        moved = shifted(views, np.array([shift_s]))[0]
        for view, view_s in zip(moved, VIEWS_S, strict=True):
            columns = round(shift_s / view_s * COLS)
            bright_rows, bright_columns = np.nonzero(view == 200)
            assert set(bright_rows) == {20}, "a row is a frequency"
            assert sorted(set(bright_columns)) == list(range(40 + columns, 45 + columns))
            new = view[:, :columns] if columns > 0 else view[:, COLS + columns :]
            assert new.shape[1] == abs(columns) > 0
            assert (new == BACKGROUND_BYTE).all()
    np.testing.assert_array_equal(shifted(views, np.zeros(1)), views)


def test_all_classes_are_drawn_equally_often():
    rows = lines({"Helix": 50, "Power_Line": 10, "Violin_Mode": 2})
    drawn = batches(rows, replace(TINY, batch_size=31), np.random.default_rng(0))
    labels = np.concatenate([next(drawn)[1] for _ in range(4 * 3)])
    counts = np.bincount(labels)[class_codes(np.array(list(LINE_ROWS)))]
    assert counts.sum() == 3 * 4 * 31
    assert counts.max() - counts.min() <= 3
    weights = class_weights(class_codes(rows.labels))
    assert weights.mean() == pytest.approx(1)
    assert [weights[rows.labels == label].sum() for label in LINE_ROWS] == pytest.approx([62 / 3] * 3)


def test_a_fit_stops_on_validation_rows_and_never_sees_test_rows():
    training, validation = lines(dict.fromkeys(LINE_ROWS, 6)), lines(dict.fromkeys(LINE_ROWS, 2), "validation", 1)
    rows, stopping, told = to_stop_on(training, validation, 0)
    assert (rows, stopping, told) == (training, validation, "6 validation rows")
    hopeless = replace(validation, labels=np.roll(validation.labels, 2))
    found = cnn.fit(training, hopeless, replace(TINY, epochs=20, patience=2))
    losses = found.history["val_loss"]
    assert len(losses) < 20, "no epoch gets better on rows that contradict what is learnt"
    kept = cnn.probabilities(found.model, hopeless.views)
    at_best = -np.log(kept[np.arange(6), class_codes(hopeless.labels)]).mean()
    assert at_best == pytest.approx(min(losses), rel=1e-3)


def test_too_few_validation_rows_are_replaced_by_a_part_of_each_class():
    training = lines({"Helix": 10, "Power_Line": 5, "Violin_Mode": 2})
    one = lines({"Helix": 1}, "validation", 1)
    rows, stopping, told = to_stop_on(training, one, 0)
    assert sorted(stopping.labels) == ["Helix", "Helix", "Power_Line"]
    assert sorted([*rows.ids, *stopping.ids]) == sorted(training.ids)
    assert told == "3 of the training rows"
    pairs = lines(dict.fromkeys(LINE_ROWS, 2))
    rows, stopping, told = to_stop_on(pairs, one, 0)
    assert (rows, len(stopping)) == (pairs, 0)
    assert told.startswith("none")
    assert not held_out(pairs.labels, np.random.default_rng(0)).any()


def test_no_training_row_is_said():
    with pytest.raises(ValueError, match="no training row"):
        cnn.fit(lines({}), lines({}), TINY)


def test_settings_come_back_as_they_were_kept(fitted):
    settings = CnnSettings(epochs=7, dropout=0.1, shift_s=0.01)
    assert cnn.from_parameters(cnn.parameters(settings, fitted)) == settings


def test_every_row_is_dealt_once_and_a_class_of_one_is_learnt_alone():
    labels = np.array(["a"] * 7 + ["b"] * 2 + ["c"] + ["d"] * 3)
    fold = cnn_report.dealt(labels, 3, seed=0)
    assert np.bincount(fold[labels == "a"]).tolist() in ([3, 2, 2], [2, 3, 2], [2, 2, 3])
    assert len(set(fold[labels == "b"])) == 2
    assert fold[labels == "c"].tolist() == [cnn_report.NOT_SCORED]
    assert sorted(np.bincount(fold[fold >= 0])) == [4, 4, 4]
    assert (cnn_report.dealt(labels, 3, seed=1) != fold).any()


def test_no_model_is_fitted_on_what_it_scores(monkeypatch):
    rows = lines({"Helix": 5, "Power_Line": 4, "Violin_Mode": 1})
    seen = []

    class Model:
        def predict(self, views, **_):
            seen[-1] |= {"scored": views}
            return np.eye(len(CLASSES))[np.zeros(len(views), int)]

    def fit(training, validation, settings, **_):
        seen.append({"learnt": training.views, "seed": settings.seed, "validation": len(validation)})
        return cnn.Fitted(Model(), {}, "")

    monkeypatch.setattr(cnn, "fit", fit)
    pixels = np.random.default_rng(0).random((10, 4), np.float32)
    crossed = cnn_report.cross_validated(rows, pixels, TINY, repeats=2, folds=3)
    assert crossed.groupby("repeat")["id"].nunique().tolist() == [9, 9]
    assert "Violin_Mode" not in set(crossed["label"]), "there is one"
    for fold in seen:
        assert not {view.tobytes() for view in fold["learnt"]} & {view.tobytes() for view in fold["scored"]}
        assert len(fold["learnt"]) + len(fold["scored"]) == 10
    assert len({fold["seed"] for fold in seen}) == 6
    with pytest.raises(ValueError, match="no class has two"):
        cnn_report.cross_validated(lines(dict.fromkeys(LINE_ROWS, 1)), pixels[:3], TINY, 1, 3)


def test_figures_of_known_answers():
    truth, answers = np.array(["a", "a", "a", "b"]), np.array(["a", "a", "c", "a"])
    found = cnn_report.figures(truth, answers)
    assert (found["accuracy"], found["balanced_accuracy"]) == (0.5, pytest.approx(1 / 3))
    assert found["macro_f1"] == pytest.approx(2 / 3 / 2)
    assert cnn_report.majority(truth, 2).tolist() == ["a", "a"]
    table = cnn_report.by_class(truth, answers, truth).set_index("class")
    assert table.loc["a", ["recall", "recall linear", "support"]].tolist() == pytest.approx([2 / 3, 1, 3])


def test_the_report_has_the_baselines_on_the_same_rows(fitted, monkeypatch):
    parts = [lines(dict.fromkeys(LINE_ROWS, 4), kind, seed) for seed, kind in enumerate(("train", "test"))]
    rows = [
        {"id": name, "label": label, "sample_type": kind}
        | {column: view.tobytes() for column, view in zip(COLUMNS.values(), views, strict=True)}
        for part in parts
        for name, label, kind, views in zip(part.ids, part.labels, part.sample_types, part.views, strict=True)
    ]
    table = pd.DataFrame(rows)
    pixels = [np.frombuffer(view, np.uint8)[:238].astype(np.float32) for view in table[COLUMNS[0.5]]]
    features = table[["id", "label", "sample_type"]].assign(**dict.fromkeys(COLUMNS.values(), pd.Series(pixels)))
    monkeypatch.setattr(cnn, "fit", lambda *_, **__: fitted)
    card = {"parameters": cnn.parameters(TINY, fitted), "history": fitted.history}
    page = cnn_report.report(table, features, fitted.model, card, 2, 2, epochs=3, why="So few.")
    assert "2-fold cross-validation, 2 times, over 24 glitches" in page.summary
    assert "at most 3 epochs each" in page.summary
    assert page.summary.endswith("So few.")
    assert {(e.model, e.split, e.baseline) for e in page.evaluations} == {
        (model, split, baseline)
        for split in ("cross-validation", "publisher's test")
        for model, baseline in (("glitch_cnn", "linear"), ("glitch_cnn", "majority"), ("linear", "majority"))
    }
    assert page.numbers["accuracy, test"] > 0.9
    (majority,) = {e.baseline_value for e in page.evaluations if e.baseline == "majority" and e.metric == "accuracy"}
    assert majority == pytest.approx(1 / 3)
    assert len(page.pngs()) == 3
    with pytest.raises(ValueError, match="other glitches"):
        cnn_report.report(table[1:], features, fitted.model, card, 1, 2)
