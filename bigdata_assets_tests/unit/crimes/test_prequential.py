from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bigdata_assets.crimes.logic.online import OnlineModels
from bigdata_assets.crimes.logic.prequential import NOTHING, NoSnapshotError, Snapshot, TestThenTrain, online_scores
from bigdata_assets_tests.unit.crimes.test_online import reports

ORDER = [f"b{number}" for number in range(6)]


class Store:
    def __init__(self):
        self.kept = {}

    def names(self):
        return set(self.kept)

    def load(self, name):
        snapshot, data = self.kept[name]
        return replace(snapshot, models=OnlineModels.load(data))

    def save(self, snapshot):
        self.kept[snapshot.name] = (snapshot, snapshot.models.dump())


def batch(number):
    rows = reports(30, seed=number)
    positions = range(30 * number, 30 * number + 30)
    return rows.assign(batch=f"b{number}", kafka_partition=0, kafka_offset=positions, report_id=positions)


BATCHES = {key: batch(number) for number, key in enumerate(ORDER)}


def learner(store, stored=tuple(ORDER), refit_rows=10**9, refits=None):
    def start(rows):
        return Snapshot("start", OnlineModels(), history_ends=rows["occurred_at"].min().to_pydatetime())

    def refit(snapshot):
        (refits if refits is not None else []).append(snapshot.name)
        return f"fit after {snapshot.name}"

    return TestThenTrain(
        order=ORDER,
        reports=lambda key: BATCHES[key] if key in stored else None,
        ends=lambda key: (0, 30 * (int(key[1:]) + 1)),
        store=store,
        start_name="start",
        start=start,
        refit=refit,
        refit_rows=refit_rows,
        most=100,
    )


def run(store, keys, stored=tuple(ORDER), used=None):
    """As the asset does it: what each batch is scored by, and its scores."""
    one, by, scores = learner(store, stored), {}, {}
    for key in keys:
        one.learn_before(key)
        snapshot = one.before(key, (used or {}).get(key))
        by[key] = snapshot.name
        scores[key] = pd.concat(online_scores(BATCHES[key], snapshot, ()))["probability"].to_numpy()
        one.learn_up_to(key)
    one.learn_on()
    return by, scores


def test_each_batch_is_scored_by_what_stood_before_it():
    store = Store()
    by, scores = run(store, ORDER)
    assert by == {"b0": "start", "b1": "b0", "b2": "b1", "b3": "b2", "b4": "b3", "b5": "b4"}
    expected = OnlineModels()
    for key in ORDER:
        probabilities = np.concatenate(list(expected.predict(BATCHES[key]).values()))
        assert (scores[key] == probabilities).all()
        expected.learn(BATCHES[key])
    assert store.load("b5").position == {"0": 180}


def test_one_run_or_many_make_the_same_scores():
    together, one_by_one = run(Store(), ORDER)[1], {}
    store = Store()
    for key in ORDER:
        one_by_one |= run(store, [key], stored=ORDER[: ORDER.index(key) + 1])[1]
    assert all((together[key] == one_by_one[key]).all() for key in ORDER)


def test_an_old_batch_is_scored_again_as_it_was():
    store = Store()
    by, scores = run(store, ORDER)
    again_by, again = run(store, ["b2"], used=by)
    assert again_by == {"b2": "b1"}
    assert (again["b2"] == scores["b2"]).all()


def test_an_old_batch_without_its_snapshot_is_not_scored_by_a_later_one():
    store = Store()
    by, _ = run(store, ORDER)
    del store.kept["b1"]
    with pytest.raises(NoSnapshotError, match="b2 was scored by snapshot b1, which is not kept any more"):
        run(store, ["b2"], used=by)
    with pytest.raises(NoSnapshotError, match="later ones have learnt it"):
        run(store, ["b2"])


def test_a_gap_is_not_jumped_and_heals():
    store = Store()
    run(store, ["b0"], stored=["b0"])
    by, _ = run(store, ["b2", "b3"], stored=["b0", "b2", "b3"])
    assert by == {"b2": "b0", "b3": "b0"}  # scored all the same, by what stands
    assert store.names() == {"start", "b0"}
    assert learner(store, ["b0", "b2", "b3"]).learn_up_to("b3") == "b1"  # and it is told what is missing
    by, _ = run(store, ["b1"], stored=ORDER[:4])
    assert by == {"b1": "b0"}
    assert store.names() == {"start", "b0", "b1", "b2", "b3"}
    straight = Store()
    run(straight, ORDER[:4])
    rows = reports(50, seed=77)
    healed, never_broken = (s.load("b3").models.predict(rows) for s in (store, straight))
    assert all((healed[name] == never_broken[name]).all() for name in healed)


def test_while_the_first_batch_is_missing_nothing_is_known():
    store = Store()
    by, scores = run(store, ["b1"], stored=["b1"])
    assert by == {"b1": NOTHING}
    assert set(scores["b1"]) == {0.5}
    assert store.names() == set()


def test_a_run_killed_after_any_write_can_be_repeated():
    whole = Store()
    run(whole, ORDER)

    class KilledError(Exception):
        pass

    for survives in range(7):
        store = Store()
        save = store.save

        def dying(snapshot, store=store, save=save, survives=survives):
            if len(store.kept) == survives:
                raise KilledError
            save(snapshot)

        store.save = dying
        with pytest.raises(KilledError):
            run(store, ORDER)
        store.save = save
        run(store, ORDER)
        rows = reports(20, seed=5)
        assert store.names() == whole.names()
        for name in ORDER:
            a, b = (s.load(name).models.predict(rows) for s in (store, whole))
            assert all((a[model] == b[model]).all() for model in a)


def test_spark_models_are_fitted_once_enough_was_learnt():
    store, refits = Store(), []
    one = learner(store, refit_rows=60, refits=refits)
    one.learn_up_to("b5")
    assert refits == ["b1", "b3", "b5"]
    assert [store.load(key).fit for key in ORDER] == [
        "", *(f"fit after {key}" for key in ("b1", "b1", "b3", "b3", "b5"))
    ]  # fmt: skip
    assert store.load("b5").fitted_reports == 180
    again, one_by_one = Store(), []
    for key in ORDER:
        learner(again, refit_rows=60, refits=one_by_one).learn_up_to(key)
    assert one_by_one == refits, "whatever run learns them"


def test_corrections_and_the_history_are_told_apart():
    first = BATCHES["b0"].iloc[:5].assign(report_id=[1, 1, 2, 3, 4])
    ends = first["occurred_at"].iloc[2].to_pydatetime()
    occurred = [ends, ends, ends.replace(year=2015), ends, ends]
    snapshot = Snapshot("start", OnlineModels(), history_ends=ends)
    scores = next(online_scores(first.assign(occurred_at=pd.to_datetime(occurred, utc=True)), snapshot, {3}))
    assert scores["is_new"].tolist() == [True, False, False, False, True]


def test_what_waited_long_is_learnt_bit_by_bit():
    store = Store()
    one = replace(learner(store), most=2)
    assert one.learn_up_to("b5") == "b2"
    one.learn_on()
    assert store.names() == {"start", "b0", "b1"}
    assert replace(learner(store), most=100).learn_up_to("b5") is None


def test_a_first_batch_without_a_report_does_not_cost_the_history(monkeypatch):
    monkeypatch.setitem(BATCHES, "b0", BATCHES["b0"].iloc[:0])
    store = Store()
    by, _ = run(store, ["b0"], stored=["b0"])
    assert by == {"b0": NOTHING}
    assert store.names() == set()
    by, _ = run(store, ["b1"], stored=["b0", "b1"])
    assert by == {"b1": "b0"}
    assert store.names() == {"start", "b0", "b1"}
    assert store.load("b0").history_ends == BATCHES["b1"]["occurred_at"].min().to_pydatetime()
