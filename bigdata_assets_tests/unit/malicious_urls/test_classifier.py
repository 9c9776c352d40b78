import hashlib
import json

import numpy as np
import pandas as pd
import pytest
import skops.io
from scipy import sparse
from sklearn.linear_model import LogisticRegression, SGDClassifier

from bigdata_assets.io_managers.sklearn_model import CARD, FILE, ModelFileError, StoredModel
from bigdata_assets.malicious_urls.logic import classifier, training
from bigdata_assets.malicious_urls.logic.classifier import (
    FAMILIES,
    TRUSTED_TYPES,
    BoostedTrees,
    HashedLinear,
    build,
)


def _urls(n=600, seed=0):
    generator = np.random.default_rng(seed)
    urls, labels = [], []
    for number in range(n):
        token = generator.integers(1 << 30)
        label = ("benign", "defacement", "malware", "phishing")[number % 4]
        path = {"benign": "news", "defacement": "index.php?option=com_", "malware": "bin.exe?", "phishing": "login/"}[
            label
        ]
        urls.append(f"site{number}.example{number % 30}.org/{path}{token}")
        labels.append(label)
    return urls, np.array(labels)


def _build(family, n_jobs=1, seed=0):
    """A classifier with small hash spaces: tests fit two dozen linear models on a hundred URLs."""
    model = build(family, n_jobs=n_jobs, seed=seed)
    return model.set_params(classifier__n_bits=14) if family == "ensemble" else model


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_learns_and_survives_its_file(family):
    urls, labels = _urls()
    model = _build(family).fit(urls, labels)
    new_urls, new_labels = _urls(seed=1)
    n_urls = len(urls)
    probabilities = model.predict_proba(new_urls)
    assert probabilities.shape == (n_urls, 4)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert list(model.classes_) == ["benign", "defacement", "malware", "phishing"]
    assert (model.classes_[probabilities.argmax(axis=1)] == new_labels).mean() > 0.9
    data = skops.io.dumps(model)
    assert set(skops.io.get_untrusted_types(data=data)) <= set(TRUSTED_TYPES)
    loaded = skops.io.loads(data, trusted=list(TRUSTED_TYPES))
    np.testing.assert_array_equal(loaded.predict_proba(new_urls), probabilities)
    np.testing.assert_array_equal(loaded.predict(new_urls), model.predict(new_urls))


def test_the_same_seed_gives_the_same_model():
    urls, labels = _urls()
    one, two = (_build("ensemble", n_jobs=2, seed=3).fit(urls, labels).predict_proba(urls) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_a_stripped_scheme_cannot_be_learnt():
    urls, _ = _urls()
    labels = np.array(["benign", "malware"] * (len(urls) // 2))
    leaking = [("http://" if label == "malware" else "") + url for url, label in zip(urls, labels, strict=True)]
    kept = build("ngram_linear", strip_scheme=False, n_jobs=1).fit(leaking[:400], labels[:400])
    stripped = build("ngram_linear", strip_scheme=True, n_jobs=1).fit(leaking[:400], labels[:400])
    assert (kept.predict(leaking[400:]) == labels[400:]).mean() == 1
    np.testing.assert_array_equal(stripped.predict_proba(leaking), stripped.predict_proba(urls))


def test_stacked_trees_are_fitted_on_answers_to_domains_that_the_linear_models_had_not_seen(monkeypatch):
    from bigdata_assets.malicious_urls.logic import classifier
    from bigdata_assets.malicious_urls.logic.domains import registered_domains

    urls, labels = _urls()
    domains = np.array(registered_domains(urls))
    seen = []
    real = classifier.StratifiedGroupKFold.split
    monkeypatch.setattr(
        classifier.StratifiedGroupKFold,
        "split",
        lambda *args: (seen.append(pair) or pair for pair in real(*args)),
    )
    _build("ensemble").fit(urls, labels)
    assert len(seen) == 5
    for fitted, held in seen:
        assert not set(domains[fitted]) & set(domains[held])


def test_stacked_trees_read_nothing_that_the_linear_models_learnt_by_heart(monkeypatch):
    generator = np.random.default_rng(0)
    urls = [f"{generator.integers(1 << 40):x}.org/{generator.integers(1 << 40):x}" for _ in range(200)]
    labels = generator.permutation(["benign", "phishing"] * 100)
    fitted = {}
    real = BoostedTrees.fit
    monkeypatch.setattr(BoostedTrees, "fit", lambda self, rows, y: fitted.update(rows=rows) or real(self, rows, y))
    model = _build("ensemble").fit(urls, labels)
    whole_url = slice(-8, -6)  # four linear models of two classes each; the first reads the whole URL
    accuracies = [
        (model.classes_[rows[:, whole_url].argmax(axis=1)] == labels).mean()
        for rows in (model.classifier.tree_rows(urls), fitted["rows"])
    ]
    # The labels are noise: a model knows them of rows it was fitted on, and can only guess them of others.
    assert accuracies[0] > 0.95
    assert accuracies[1] < 0.65


def test_a_class_without_rows_stays_last_and_two_classes_mirror_each_other():
    rows, labels = sparse.csr_matrix([[0.0, 1], [1, 0]] * 20), np.array([0, 2] * 20)
    model = HashedLinear().fit(rows, labels, np.arange(3))
    odds = model.decision_function(rows)
    np.testing.assert_allclose(odds[:, 0], -odds[:, 2], rtol=1e-5)
    assert (odds[:, 1] == -10).all()
    np.testing.assert_array_equal(model.predict(rows), labels)


def test_a_list_of_hosts_alone_is_learnt():
    hosts = [f"http://{'login' * (n % 2)}{n}.example" for n in range(400)]
    model = build("ensemble", n_folds=2).fit(hosts, ["benign", "phishing"] * 200)
    assert (model.predict(hosts) == ["benign", "phishing"] * 200).mean() > 0.9


def test_too_few_domains_are_told():
    with pytest.raises(ValueError, match="1 registered domains: the ensemble is fitted on 5 parts"):
        build("ensemble").fit([f"http://a.example/{n}" for n in range(10)], ["benign", "phishing"] * 5)


def test_columns_that_no_row_has_are_left_out_and_nothing_changes():
    rng = np.random.default_rng(0)
    rows = sparse.random(200, 5_000, 0.002, "csr", rng=rng)
    labels = rng.integers(0, 3, 200)
    model = HashedLinear(epochs=3).fit(rows, labels)
    whole = SGDClassifier(loss="log_loss", alpha=3e-6, max_iter=3, tol=None, average=True, random_state=0)
    whole.fit(rows, labels)
    np.testing.assert_array_equal(model.weights_, whole.coef_.T.astype(np.float32))
    assert (model.weights_ != 0).any(axis=1).sum() == len(np.unique(rows.indices)) < 3_000


def test_no_family_of_that_name():
    with pytest.raises(ValueError, match="no family"):
        build("oracle")


def _stored(tmp_path, data: bytes) -> StoredModel:
    (tmp_path / FILE).write_bytes(data)
    card = {"version": "v", "sha256": hashlib.sha256(data).hexdigest()}
    (tmp_path / CARD).write_text(json.dumps(card))
    return StoredModel(str(tmp_path), card)


def test_a_model_file_that_was_altered_is_refused(tmp_path):
    stored = _stored(tmp_path, skops.io.dumps(LogisticRegression()))
    assert isinstance(stored.load(()), LogisticRegression)
    altered = bytearray((tmp_path / FILE).read_bytes())
    altered[len(altered) // 2] ^= 1
    (tmp_path / FILE).write_bytes(bytes(altered))
    with pytest.raises(ModelFileError, match="SHA-256 differs"):
        stored.load(())


def test_a_model_file_of_unknown_types_is_refused_although_its_hash_is_right(tmp_path):
    stored = _stored(tmp_path, skops.io.dumps(build("ngram_linear")))
    assert stored.load(TRUSTED_TYPES)
    with pytest.raises(ModelFileError, match="HashedNgrams"):
        stored.load(())


def test_a_missing_or_foreign_model_file_is_named(tmp_path):
    with pytest.raises(ModelFileError, match="cannot be read as a skops file"):
        _stored(tmp_path, b"PK not a model").load(())
    (tmp_path / FILE).unlink()
    with pytest.raises(ModelFileError, match="is missing"):
        StoredModel(str(tmp_path), {"sha256": ""}).load(())


def _frame(urls, labels):
    domains = [url.split("/")[0][-14:] for url in urls]
    return pd.DataFrame({"list": "one", "url": urls, "type": labels, "registered_domain": domains})


def test_the_report_has_both_splits_both_scheme_settings_and_both_baselines():
    urls, labels = _urls(400)
    frame = _frame(urls, labels)
    report = training.report(frame, "lightgbm", strip_scheme=True, seed=0, repeats=2)
    table = report.tables["Models and baselines, mean and half of the 95 % interval"]
    assert set(table["split"]) == {"domain", "random"}
    models = {"lightgbm, scheme stripped", "lightgbm, scheme kept", "ngram_linear, scheme stripped"}
    assert set(table["model"]) == {"majority", "scheme rule", *models}
    assert {(e.split, e.baseline) for e in report.evaluations} == {
        (split, baseline) for split in ("domain", "random") for baseline in ("majority", "scheme rule")
    }
    assert len(report.figures) == 4
    assert table["TPR at FPR 0.10%"].isna().all()
    page = report.to_html({})
    assert "<th>TPR at FPR 0.10%</th>" not in page
    assert page.count("TPR at FPR 1.00%, TPR at FPR 0.10%: too few benign rows to tell.") == 1
    assert "There is one list: how the classifier does on another is not known" in report.summary
    assert "nan" not in report.summary
    assert "over 2 domain-grouped splits" in report.summary


def test_one_split_has_no_interval_and_says_why_it_is_one():
    urls, labels = _urls(400)
    frame = _frame(urls, labels)
    report = training.report(frame, "lightgbm", strip_scheme=True, seed=0, repeats=1, why="The inputs are generated.")
    assert "over 1 domain-grouped split of all lists;" in report.summary
    assert "The inputs are generated." in report.summary
    assert "nan" not in report.to_html({})
    assert "±" not in report.to_html({})


def test_threads_do_not_change_the_trees():
    rows = np.random.default_rng(0).normal(size=(600, 20))
    codes = (rows[:, 0] > 0).astype(int) + (rows[:, 1] > 0)

    def trees(n_jobs):
        return BoostedTrees(n_estimators=5, n_jobs=n_jobs).fit(rows, codes).model_text_.split("parameters:")[0]

    one = trees(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "ROWS_OF_ONE_THREAD", 0)
        assert trees(2) == one
