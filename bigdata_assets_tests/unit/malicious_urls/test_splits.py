import numpy as np
import pytest

from bigdata_assets.malicious_urls.logic import splits

DOMAINS = np.array([f"d{number % 60}.org" for number in range(400)])
LABELS = np.array(["benign", "defacement", "malware", "phishing"] * 100)


@pytest.mark.parametrize("seed", range(5))
def test_a_domain_grouped_split_has_each_domain_on_one_side(seed):
    train, test = splits.domain_grouped(DOMAINS, LABELS, seed)
    assert not set(DOMAINS[train]) & set(DOMAINS[test])
    assert sorted([*train, *test]) == list(range(400))
    assert 0.15 < len(test) / 400 < 0.25
    assert abs((LABELS[test] == "benign").mean() - 0.25) < 0.05


def test_a_random_split_has_domains_on_both_sides_and_class_shares_alike():
    train, test = splits.random_rows(LABELS, seed=1)
    assert set(DOMAINS[train]) & set(DOMAINS[test])
    assert sorted([*train, *test]) == list(range(400))
    assert (LABELS[test] == "benign").mean() == 0.25


@pytest.mark.parametrize(
    "split", [lambda seed: splits.domain_grouped(DOMAINS, LABELS, seed), lambda seed: splits.random_rows(LABELS, seed)]
)
def test_a_seed_names_a_split(split):
    np.testing.assert_array_equal(split(1)[1], split(1)[1])
    assert not np.array_equal(split(1)[1], split(2)[1])


def test_each_split_says_why_it_is_made():
    assert set(splits.REASONS) == {"domain", "random"}
    assert "no registered domain is on both sides" in splits.REASONS["domain"]
