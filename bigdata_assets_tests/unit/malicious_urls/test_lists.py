import numpy as np
import pandas as pd
import pytest

from bigdata_assets.malicious_urls.logic import training
from bigdata_assets.malicious_urls.logic.classifier import KnownKinds
from bigdata_assets.malicious_urls.logic.lists import lists, meanings_of, pooled
from bigdata_assets.malicious_urls.tables import CLASSES


def _touch(folder, *names):
    for name in names:
        (folder / name).write_text("url,type\n")


def test_each_file_is_a_list_but_samples_of_the_published_one_are_that_one(tmp_path, caplog):
    _touch(
        tmp_path,
        "malicious_phish_first_41980.csv.gz",
        "malicious_phish_stratified_28k.csv.gz",
        "ebbu2017_pdd.parquet",
        "own.csv",
        "own.parquet",
        "malicious_phish_of_mine.csv",
        "with space.csv",
        "notes.txt",
        ".hidden.csv",
    )
    found = {name: path.name for name, path in lists(tmp_path).items()}
    assert found == {
        "ebbu2017_pdd": "ebbu2017_pdd.parquet",
        "malicious_phish": "malicious_phish_stratified_28k.csv.gz",
        "malicious_phish_of_mine": "malicious_phish_of_mine.csv",
        "own": "own.csv",
    }
    for told in (
        "with space.csv cannot be a list of that name",
        "own.parquet is not read: the list own is read from own.csv",
        "malicious_phish_first_41980.csv.gz is not read",
        "notes.txt is no list",
    ):
        assert told in caplog.text
    assert ".hidden" not in caplog.text
    _touch(tmp_path, "malicious_phish.csv")
    assert lists(tmp_path)["malicious_phish"].name == "malicious_phish.csv"
    assert lists(tmp_path / "none") == {}


def _rows(*rows):
    frame = pd.DataFrame(rows, columns=["list", "url", "type"])
    return frame.assign(registered_domain=frame["url"], copies=1, as_given=None)


def test_a_url_of_several_lists_stands_once_with_its_kind_and_a_contradicted_one_not_at_all():
    labelled = _rows(
        ("a", "http://www.x.org/", "malicious"),
        ("b", "x.org", "phishing"),
        ("a", "y.org/p", "benign"),
        ("b", "https://y.org/p", "malware"),
        ("b", "z.org", "benign"),
        ("a", "z.org", "benign"),
    )
    pool = pooled(labelled, 10, seed=0)
    assert pool.rows[["list", "url", "type"]].to_numpy().tolist() == [
        ["a", "z.org", "benign"],
        ["b", "x.org", "phishing"],
    ]
    assert (pool.repeated, pool.contradicting, pool.not_drawn) == (2, 2, 0)


def test_no_list_rules_the_others():
    labelled = _rows(*[("big", f"{n}.org", "benign") for n in range(50)], ("small", "s.org", "benign"))
    pool = pooled(labelled, 5, seed=1)
    assert pool.rows["list"].value_counts().to_dict() == {"big": 5, "small": 1}
    assert pool.not_drawn == 45
    assert pool.rows.equals(pooled(labelled.sample(frac=1, random_state=0), 5, seed=1).rows)
    assert not pool.rows.equals(pooled(labelled, 5, seed=2).rows)


class _Fixed:
    """Answers as told; what was fitted on is left out."""

    def __init__(self, answers):
        self.answers = answers

    def fit(self, _urls, labels):
        self.classes_ = np.unique(labels)
        return self

    def predict_proba(self, _urls):
        return np.array(self.answers)


def test_an_unknown_kind_is_shared_out_among_the_kinds():
    labels = list(CLASSES)
    model = KnownKinds(_Fixed([[0.2, 0.1, 0.4, 0.0, 0.3], [1, 0, 0, 0, 0], [0.5, 0, 0.5, 0, 0]])).fit(labels, labels)
    assert list(model.classes_) == ["benign", "defacement", "malware", "phishing"]
    answers = model.predict_proba(labels)
    np.testing.assert_allclose(answers[:2], [[0.2, 0.2, 0.0, 0.6], [1, 0, 0, 0]])
    assert answers[2, 0] == 0.5


def test_what_adds_up_to_one_is_not_more():
    labels = ["benign", "malicious", "malware", "phishing"]
    answers = np.random.default_rng(0).dirichlet([1, 1, 1], 1_000)
    model = KnownKinds(_Fixed(np.insert(answers, 0, 0, axis=1))).fit(labels, labels)
    assert model.predict_proba(labels).max() <= 1


def test_labels_that_a_known_list_means_otherwise():
    assert meanings_of("PhiUSIIL_Phishing_URL_Dataset") == {"1": "benign", "0": "phishing"}
    assert meanings_of("ebbu2017_pdd") == {"1": "phishing"}
    assert meanings_of("own") == {}


def test_where_no_list_tells_kinds_the_unknown_one_is_an_answer():
    labels = ["benign", "malicious"]
    model = KnownKinds(_Fixed([[0.2, 0.8]])).fit(labels, labels)
    assert list(model.classes_) == labels
    np.testing.assert_array_equal(model.predict(["x"]), ["malicious"])


def test_without_lists_the_classifier_says_what_to_do():
    with pytest.raises(ValueError, match=r"labelled_urls has 0 rows.*Put lists of labelled URLs"):
        training.fit(_rows(), "lightgbm", strip_scheme=True, seed=0)


def _list(name, n, kind, seed):
    generator = np.random.default_rng(seed)
    rows = []
    for number, bad in enumerate(generator.integers(2, size=n)):
        path = f"{'login' if bad else 'news'}/{generator.integers(1 << 30)}"
        rows.append((name, f"{name}{number}.org/{path}", kind if bad else "benign"))
    return rows


def test_each_list_is_held_out_and_what_one_gives_alone_is_told():
    rows = [*_list("a", 300, "phishing", 0), *_list("b", 300, "malicious", 1), *_list("c", 300, "malware", 2)]
    report = training.report(_rows(*rows), "lightgbm", strip_scheme=True, seed=0, repeats=1)
    table = report.tables["Each list held out, fitted on the others"]
    assert set(table["list"]) == {"a", "b", "c"}
    shown = table[table["model"] == "lightgbm, scheme stripped"]
    assert (shown["ROC AUC"] > 0.99).all()
    assert (shown["low"] <= shown["ROC AUC"] + 1e-9).all()
    assert (shown["ROC AUC"] <= shown["high"] + 1e-9).all()
    assert (table[table["model"] == "majority"]["ROC AUC"] == 0.5).all()
    alone = report.tables["ROC AUC of lightgbm, scheme stripped, fitted on one list"].set_index("fitted on")
    assert np.isnan(alone.loc["b", "b"])
    assert alone.loc["b", "a"] > 0.99
    assert "fitted on lightgbm" in report.summary
    assert {e.split for e in report.evaluations} == {"domain", "random", "list a", "list b", "list c"}
    assert report.numbers["ROC AUC, worst list held out"] > 0.99


def test_a_list_too_small_to_learn_from_is_told_and_the_report_is_made():
    small = [("tiny", "x.org/login/1", "phishing"), ("tiny", "x.org/news/2", "benign")]
    report = training.report(_rows(*_list("a", 300, "phishing", 0), *small), "ensemble", True, 0, repeats=1, folds=2)
    assert "Not held out: a, which" in report.summary
    assert set(report.tables["Each list held out, fitted on the others"]["list"]) == {"tiny"}


def test_of_lists_that_tell_no_kinds_malicious_rows_count_as_well():
    report = training.report(_rows(*_list("a", 300, "malicious", 0)), "lightgbm", True, 0, repeats=1)
    assert 0.3 < report.numbers["accuracy of the majority"] < 0.7


def test_a_list_is_never_fitted_on_where_it_is_held_out(monkeypatch):
    fitted = []
    real = KnownKinds.fit
    monkeypatch.setattr(KnownKinds, "fit", lambda self, urls, y: fitted.append(set(urls)) or real(self, urls, y))
    rows = _rows(*_list("a", 200, "phishing", 0), *_list("b", 200, "phishing", 1))
    pool = pooled(rows, 1000, 0).rows
    from bigdata_assets.malicious_urls.logic.classifier import build

    held = list(training.lists_held_out(pool, ["benign", "phishing"], {"m": lambda: build("lightgbm")}))
    assert [row["list"] for row in held if row["model"] == "m"] == ["a", "b"]
    of_list = [set(pool["url"][pool["list"] == name]) for name in "ab"]
    assert fitted == [of_list[1], of_list[0]]
