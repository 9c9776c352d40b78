import itertools
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigdata_assets.malicious_urls.logic import features
from bigdata_assets.malicious_urls.logic.domains import scheme_length
from bigdata_assets.malicious_urls.logic.features import HandMadeFeatures, HashedNgrams, HashedWords

ODD_URLS = ["", "a", "http://пример.испытание/путь", "x" * 10_000, "\udcff bad surrogate", "a.com/é?b=c#d"]


def _mixed(value: int, n_bits: int) -> int:
    value = ((value ^ (value >> 15)) * 0x85EBCA6B) % 2**32
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) % 2**32
    return value >> (32 - n_bits)


def _hash(data: bytes) -> int:
    value = 0
    for byte in data:
        value = (value * 0x01000193 + byte + 1) % 2**32
    return value


def _laid_out(url: str, strip_scheme: bool) -> tuple[bytes, int]:
    """The URL's bytes between end marks, and where its host ends."""
    text = features.normalise(url, strip_scheme=strip_scheme)
    data = b"\xff" + text.encode("utf-8", "replace") + b"\xff"
    stops = [at for at in range(1 + scheme_length(text), len(data) - 1) if data[at] in b"/?#\\"]
    return data, min(stops, default=len(data) - 1)


def _naive_ngrams(url: str, low: int, high: int, n_bits: int, strip_scheme: bool) -> Counter:
    """The same hashed n-grams one by one, in plain Python integers."""
    data, path = _laid_out(url, strip_scheme)
    data = data.lower()
    return Counter(
        _mixed(_hash(data[start : start + n]), n_bits - 1) + (start >= path) * 2 ** (n_bits - 1)
        for n in range(low, high + 1)
        for start in range(len(data) - n + 1)
    )


def _naive_words(url: str, n_bits: int) -> set[int]:
    data, path = _laid_out(url, True)
    found = [(m.start(), m.group().lower()) for m in re.finditer(rb"[0-9A-Za-z\x80-\xfe]+", data)]
    shapes = [_hash(re.sub(rb"[0-9]", b"0", word)) for _, word in found]
    columns = set()
    for (start, word), shape in zip(found, shapes, strict=True):
        region = 0x9E3779B9 if start >= path else 0
        columns.add(_mixed(_hash(word) ^ region ^ 1, n_bits))
        columns.add(_mixed(((shape ^ region ^ 2) + data[start - 1] * 7919) % 2**32, n_bits))
    for one, two in itertools.pairwise(shapes):
        columns.add(_mixed(((one + two * 31) % 2**32) ^ 3, n_bits))
    return columns


URLS = st.lists(
    st.one_of(
        st.text(alphabet=st.characters(codec="utf-8"), max_size=40),
        st.text(alphabet="aZ09:/?#.@\\é", max_size=40),
        st.text(alphabet="aZ09/?#.", max_size=20).map("https://www.".__add__),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=50, deadline=None)
@given(URLS, st.booleans())
def test_hashed_ngrams_are_those_of_a_plain_loop(urls, strip_scheme):
    matrix = HashedNgrams(low=2, high=4, n_bits=12, strip_scheme=strip_scheme).transform(urls)
    for row, url in enumerate(urls):
        expected = _naive_ngrams(url, 2, 4, 12, strip_scheme)
        assert Counter(matrix[row].indices.tolist()) == expected
        np.testing.assert_allclose(matrix[row].data, expected.total() ** -0.5 if expected else 0, rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(URLS)
def test_hashed_words_are_those_of_a_plain_loop(urls):
    matrix = HashedWords(n_bits=16).transform(urls)
    for row, url in enumerate(urls):
        assert set(matrix[row].indices.tolist()) == _naive_words(url, 16)


@pytest.mark.parametrize("make", [HashedNgrams, HashedWords, HandMadeFeatures])
def test_chunks_do_not_change_the_rows(make, monkeypatch):
    urls = [f"host{number}.com/{'p' * number}?login{number}" for number in range(20)]
    whole = make().transform(urls)
    monkeypatch.setattr(features, "CHUNK_URLS", 3)
    assert abs(make().transform(urls) - whole).max() == 0


@pytest.mark.parametrize("transformer", [HashedNgrams(), HashedWords(), HandMadeFeatures()])
def test_odd_urls_have_finite_rows(transformer):
    rows = transformer.transform(ODD_URLS)
    assert rows.shape[0] == len(ODD_URLS)
    assert np.isfinite(rows.sum())
    assert transformer.transform([]).shape == (0, rows.shape[1])
    alone = transformer.transform(ODD_URLS[3:4])
    assert abs(alone[0] - rows[3]).max() == 0


@pytest.mark.parametrize("make", [HashedNgrams, HashedWords, HandMadeFeatures])
def test_a_stripped_scheme_leaves_no_trace_and_a_kept_one_does(make):
    urls = ["a.com/login", "http://a.com/login", "https://www.a.com/login"]
    stripped, kept = make(strip_scheme=True).transform(urls), make(strip_scheme=False).transform(urls)
    for row in (1, 2):
        assert abs(stripped[row] - stripped[0]).max() == 0
        assert abs(kept[row] - kept[0]).max() > 0


def test_host_and_path_are_read_apart():
    ngrams = HashedNgrams()
    rows = ngrams.transform(["a.com/x", "a.com?completely-other", "other.org/x", ""])
    hosts, paths = ngrams.regions(rows)
    # n-grams that run over the host's end tell the two hosts apart; all others are the same.
    assert set(hosts[0].indices) & set(hosts[1].indices)
    np.testing.assert_array_equal(paths[0].indices, paths[2].indices)
    for row in range(4):
        both = [*hosts[row].indices, *(paths[row].indices + hosts.shape[1])]
        assert sorted(both) == sorted(rows[row].indices)
    np.testing.assert_allclose((hosts.power(2).sum(axis=1), paths.power(2).sum(axis=1))[0][:3], 1, rtol=1e-5)


def _row(url, strip_scheme=True):
    values = HandMadeFeatures(strip_scheme).transform([url])[0]
    return dict(zip(HandMadeFeatures.names(), values.tolist(), strict=True))


def test_hand_made_features_of_a_known_url():
    row = _row("http://user@1.2.3.4:80/a/Login-99x.php?x=1&yy=2#z")
    expected = {
        "is ip": 1,
        "has port": 1,
        "has user": 1,
        "path has login": 1,
        "host has login": 0,
        "path depth": 2,
        "path length": 16,
        "query length": 11,
        "query '='": 2,
        "extension php": 1,
        "extension none": 0,
        "extension length": 3,
        "file name length": 13,
        "path capitals": 1,
        "path longest number": 2,
        "path mixed words": 1,
        "path letter-digit switches": 1,
        "scheme length": 0,
        "host alone": 0,
    }
    assert {name: row[name] for name in expected} == expected
    assert row["path digit share"] == pytest.approx(2 / 16)


def test_a_brand_counts_before_the_domain_alone():
    assert _row("paypal.com.login.example.co.uk/")["brand before domain"] == 1
    assert _row("paypal.com/signin")["brand before domain"] == 0
    row = _row("paypal.com.login.example.co.uk/")
    assert (row["domain length"], row["subdomains"], row["suffix uk"], row["suffix com"]) == (13, 3, 1, 0)
    assert row["host alone"] == 1


def test_a_kept_scheme_is_no_path_and_no_port():
    row = _row("https://www.example.com/a", strip_scheme=False)
    assert (row["scheme length"], row["has port"], row["path depth"]) == (8, 0, 1)


@pytest.mark.parametrize("word", features.WORDS)
def test_each_word_is_found(word):
    assert _row("example.ch/q" + word)[f"path has {word}"] == 1
    assert _row("example.ch/zzz")[f"path has {word}"] == 0


@pytest.mark.parametrize(("text", "bits"), [("", 0), ("aaaa", 0), ("abcd", 2), ("aabb", 1)])
def test_entropy_of_known_texts(text, bits):
    assert _row(text)["entropy"] == pytest.approx(bits, abs=1e-6)
