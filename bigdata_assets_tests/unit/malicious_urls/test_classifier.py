import hashlib
import json

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from bigdata_assets.io_managers.sklearn_model import CARD, FILE, ModelFileError, StoredModel
from bigdata_assets.malicious_urls.logic import splits, training
from bigdata_assets.malicious_urls.logic.classifier import TRUSTED_TYPES, build

FAMILIES = ("forest", "ngram_linear", "lightgbm", "ensemble")


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


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_learns_and_survives_its_file(family):
    urls, labels = _urls()
    model = build(family, n_jobs=1).fit(urls, labels)
    new_urls, new_labels = _urls(seed=1)
    n_urls = len(urls)
    probabilities = model.predict_proba(new_urls)
    assert probabilities.shape == (n_urls, 4)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert list(model.classes_) == ["benign", "defacement", "malware", "phishing"]
    assert (model.classes_[probabilities.argmax(axis=1)] == new_labels).mean() > 0.9
    loaded = skops.io.loads(skops.io.dumps(model), trusted=list(TRUSTED_TYPES))
    np.testing.assert_array_equal(loaded.predict_proba(new_urls), probabilities)


def test_the_same_seed_gives_the_same_model():
    urls, labels = _urls()
    one, two = (build("ensemble", n_jobs=2, seed=3).fit(urls, labels).predict_proba(urls) for _ in range(2))
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
    build("ensemble", n_jobs=1).fit(urls, labels)
    assert len(seen) == 5
    for fitted, held in seen:
        assert not set(domains[fitted]) & set(domains[held])


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


def test_splits_keep_domains_apart_and_class_shares_alike():
    urls, labels = _urls(400)
    domains = np.array([url.split("/")[0].split(".", 1)[1] for url in urls])
    train, test = splits.domain_grouped(domains, labels, seed=1)
    assert not set(domains[train]) & set(domains[test])
    assert sorted([*train, *test]) == list(range(400))
    train, test = splits.random_rows(labels, seed=1)
    assert abs((labels[test] == "benign").mean() - 0.25) < 0.02
    assert not np.array_equal(
        splits.domain_grouped(domains, labels, 1)[1], splits.domain_grouped(domains, labels, 2)[1]
    )


def test_the_report_has_both_splits_both_scheme_settings_and_both_baselines():
    urls, labels = _urls(400)
    frame = pd.DataFrame({"url": urls, "type": labels, "registered_domain": [url.split("/")[0][-14:] for url in urls]})
    report = training.report(frame, "lightgbm", strip_scheme=True, seed=0, repeats=2)
    table = report.tables["Models and baselines, mean and half of the 95 % interval"]
    assert set(table["split"]) == {"domain", "random"}
    assert set(table["model"]) == {"majority", "scheme rule", "lightgbm, scheme stripped", "lightgbm, scheme kept"}
    assert {(e.split, e.baseline) for e in report.evaluations} == {
        (split, baseline) for split in ("domain", "random") for baseline in ("majority", "scheme rule")
    }
    assert len(report.figures) == 4
    assert "too few benign rows to tell" in set(table["TPR at FPR 0.01%"])
