import numpy as np
import pandas as pd
import pytest

from bigdata_assets.crimes.logic import features
from bigdata_assets.crimes.logic.online import LOOK_UP, MAJORITY, SGD, OnlineModels


def reports(n=400, seed=0):
    rng = np.random.default_rng(seed)
    iucr = rng.choice(["0486", "1811"], n)
    return pd.DataFrame(
        {
            "occurred_at": pd.Timestamp("2016-01-01", tz="UTC") + pd.to_timedelta(rng.integers(0, 40_000, n), "min"),
            "iucr": iucr,
            "block": [f"{number:03d}XX N EXAMPLE ST" for number in rng.integers(0, 99, n)],
            "location_description": rng.choice(["STREET", None], n),
            "fbi_code": "08B",
            "domestic": rng.random(n) < 0.2,
            "beat": rng.integers(100, 130, n).astype(float),
            "district": 1.0,
            "ward": np.nan,
            "community_area": 5.0,
            "arrest": (iucr == "1811") ^ (rng.random(n) < 0.05),
        }
    )


def test_hashes_are_the_same_in_every_process_and_differ_by_column():
    one = pd.concat([reports(1)] * 2).assign(beat=[10.0, np.nan], district=[np.nan, 10.0])
    matrix = features.hashed(one)
    assert matrix.shape == (2, 2**features.BITS)
    assert (matrix[0] != matrix[1]).nnz > 0
    # Fixed for good: a snapshot of last year must mean the same columns.
    assert sorted(features.hashed(reports(1)).indices)[:3] == sorted(features.hashed(reports(1)).indices)[:3]
    assert features.hashed(reports(0)).shape == (0, 2**features.BITS)


def test_probabilities_do_not_depend_on_the_rows_beside():
    models = OnlineModels()
    models.learn(reports(400))
    rows = reports(50, seed=1)
    together = models.predict(rows)
    alone = models.predict(rows.iloc[[7]])
    for name, values in together.items():
        assert values[7] == pytest.approx(alone[name][0], abs=1e-12)


def test_predicting_learns_nothing():
    models = OnlineModels()
    models.learn(reports(200))
    untouched = OnlineModels.load(models.dump())
    models.predict(reports(50, seed=2).assign(iucr="9999"))
    assert (models.rates, models.reports, models.arrests) == (untouched.rates, untouched.reports, untouched.arrests)
    assert (models.sgd.coef_ == untouched.sgd.coef_).all()
    assert models.sgd.t_ == untouched.sgd.t_


def test_the_label_of_what_is_scored_is_not_looked_at():
    models = OnlineModels()
    models.learn(reports(200))
    rows = reports(50, seed=3)
    flipped = models.predict(rows.assign(arrest=~rows["arrest"]))
    for name, values in models.predict(rows).items():
        assert (values == flipped[name]).all()


def test_the_look_up_is_the_smoothed_rate_of_each_code():
    models = OnlineModels()
    rows = reports(4).assign(iucr=["a", "a", "a", "b"], arrest=[True, True, False, False])
    models.learn(rows)
    overall = (2 + 1) / (4 + 2)
    found = models.predict(reports(3).assign(iucr=["a", "b", "never seen"]))
    assert found[LOOK_UP] == pytest.approx([(2 + overall) / 4, overall / 2, overall])
    assert found[MAJORITY] == pytest.approx([overall] * 3)


def test_nothing_learnt_says_one_half():
    assert {name: values.tolist() for name, values in OnlineModels().predict(reports(2)).items()} == {
        MAJORITY: [0.5, 0.5],
        LOOK_UP: [0.5, 0.5],
        SGD: [0.5, 0.5],
    }


def test_a_stored_state_goes_on_as_the_original_would():
    models = OnlineModels()
    models.learn(reports(200))
    again = OnlineModels.load(models.dump())
    for one in (models, again):
        one.learn(reports(200, seed=5))
    rows = reports(50, seed=6)
    for name, values in models.predict(rows).items():
        assert (values == again.predict(rows)[name]).all()


def test_it_learns():
    models = OnlineModels()
    for seed in range(10):
        models.learn(reports(400, seed))
    rows = reports(400, seed=99)
    assert ((models.predict(rows)[SGD] > 0.5) == rows["arrest"]).mean() > 0.9
