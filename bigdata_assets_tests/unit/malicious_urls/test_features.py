import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigdata_assets.malicious_urls.logic import features
from bigdata_assets.malicious_urls.logic.features import HandMadeFeatures, HashedNgrams, HashedWords

ODD_URLS = ["", "a", "http://пример.испытание/путь", "x" * 10_000, "\udcff bad surrogate", "a.com/é?b=c#d"]


def _naive(url: str, low: int, high: int, n_bits: int) -> dict[int, float]:
    """The same hashed n-grams one by one, in plain Python integers."""
    text = b"\xff" + features.normalise(url).lower().encode("utf-8", "replace") + b"\xff"
    stops = [at for at in (text.find(stop) for stop in (b"/", b"?", b"#")) if at >= 0]
    host_end = min(stops, default=len(text))
    counts: dict[int, int] = {}
    for n in range(low, high + 1):
        for start in range(len(text) - n + 1):
            value = 0
            for byte in text[start : start + n]:
                value = (value * 0x01000193 + byte + 1) % 2**32
            if start >= host_end:
                value ^= 0x9E3779B9
            value = ((value ^ (value >> 15)) * 0x85EBCA6B) % 2**32
            column = value >> (32 - n_bits)
            counts[column] = counts.get(column, 0) + 1
    weights = {column: 1 + np.log(count) for column, count in counts.items()}
    length = np.sqrt(sum(weight**2 for weight in weights.values()))
    return {column: weight / length for column, weight in weights.items()}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=40), min_size=1, max_size=5))
def test_hashed_ngrams_are_those_of_a_plain_loop(urls):
    matrix = HashedNgrams(low=2, high=4, n_bits=12).transform(urls)
    for row, url in enumerate(urls):
        expected = _naive(url, 2, 4, 12)
        found = dict(zip(matrix[row].indices.tolist(), matrix[row].data.tolist(), strict=True))
        assert found.keys() == expected.keys()
        assert found == pytest.approx(expected, rel=1e-4)


def test_chunks_do_not_change_the_rows(monkeypatch):
    urls = [f"host{number}.com/{'p' * number}" for number in range(20)]
    whole = HashedNgrams().transform(urls)
    monkeypatch.setattr(features, "CHUNK_URLS", 3)
    assert (HashedNgrams().transform(urls) != whole).nnz == 0


@pytest.mark.parametrize(
    "transformer", [HashedNgrams(), HashedNgrams("host"), HashedNgrams("path"), HashedWords(), HandMadeFeatures()]
)
def test_odd_urls_have_finite_rows(transformer):
    rows = transformer.transform(ODD_URLS)
    assert rows.shape[0] == len(ODD_URLS)
    assert np.isfinite(rows.sum())
    assert transformer.transform([]).shape == (0, rows.shape[1])


@pytest.mark.parametrize("make", [HashedNgrams, HashedWords, HandMadeFeatures])
def test_a_stripped_scheme_leaves_no_trace_and_a_kept_one_does(make):
    urls = ["a.com/login", "http://a.com/login", "https://www.a.com/login"]
    stripped, kept = make(strip_scheme=True).transform(urls), make(strip_scheme=False).transform(urls)
    for row in (1, 2):
        assert abs(stripped[row] - stripped[0]).max() == 0
        assert abs(kept[row] - kept[0]).max() > 0


def test_host_and_path_are_read_apart():
    one, two = HashedNgrams("host").transform(["a.com/x", "a.com/completely?other"])
    assert abs(one - two).max() == 0
    one, two = HashedNgrams("path").transform(["a.com/x?y", "http://quite.other/x?y"])
    assert abs(one - two).max() == 0


def test_hand_made_features_of_a_known_url():
    row = dict(
        zip(
            HandMadeFeatures.names(),
            HandMadeFeatures().transform(["http://1.2.3.4:80/a/login.php?x=1"])[0],
            strict=True,
        )
    )
    assert row["is ip"] == 1
    assert row["has port"] == 1
    assert row["has login"] == 1
    assert row["path depth"] == 2
    assert row["parameters"] == 1
    assert row["query length"] == 3
    assert row["extension length"] == 3
    assert row["scheme length"] == 0


def test_entropy_of_known_texts():
    assert features.entropy_bits("") == 0
    assert features.entropy_bits("aaaa") == 0
    assert features.entropy_bits("abcd") == pytest.approx(2)
