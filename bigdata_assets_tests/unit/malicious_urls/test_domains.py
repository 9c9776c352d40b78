import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigdata_assets.malicious_urls.logic.domains import (
    host,
    normalise,
    registered_domain,
    registered_domains,
    scheme_length,
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://www.a.b.co.uk/x?y", "b.co.uk"),
        ("a.b.co.uk", "b.co.uk"),
        ("HTTP://Example.COM:80/", "example.com"),
        ("x.blogspot.com/p", "blogspot.com"),
        ("http://user:pass@h.example.org/", "example.org"),
        ("http://1.2.3.4:8080/a", "1.2.3.4"),
        ("http://[2001:db8::1]/a", "2001:db8::1"),
        ("localhost/x", "localhost"),
        ("co.uk", "co.uk"),
        ("", ""),
        ("'example.com/x'", "example.com"),
        ("example.com.", "example.com"),
        ("example.com#http://other.org", "example.com"),
    ],
)
def test_registered_domain(url, expected):
    assert registered_domain(url) == expected


@pytest.mark.parametrize("prefix", ["http://", "https://", "HTTPS://", "http://www.", "www.", "ftp://"])
def test_scheme_and_www_are_stripped(prefix):
    assert normalise(prefix + "a.com/Path") == "a.com/Path"
    assert normalise(prefix + "a.com/Path", strip_scheme=False) == prefix + "a.com/Path"


def test_left_overs_of_html_go_in_either_case():
    assert normalise("'a.com/?x=1&amp;y=2'", strip_scheme=False) == "a.com/?x=1&y=2"


@pytest.mark.parametrize("strip_scheme", [True, False])
def test_a_bare_host_is_one_with_and_without_its_slash(strip_scheme):
    for scheme in ("", "https://", "http://www."):
        with_slash, without = (normalise(f"{scheme}a.com{end}", strip_scheme=strip_scheme) for end in ("/", ""))
        assert with_slash == without
        assert without.endswith("a.com")
    for other in ("a.com/b/", "a.com//", "a.com?x=/", "a.com#/"):
        assert normalise(other) == other


@given(st.text())
def test_any_text_has_a_host_and_a_domain(text):
    assert isinstance(host(text), str)
    assert isinstance(registered_domain(text), str)


@given(st.text(alphabet="abc./:?#@w-", max_size=30))
def test_a_scheme_changes_neither_host_nor_domain(text):
    if "://" not in text and not text.startswith("/"):
        assert registered_domain("http://" + text) == registered_domain(text)


@given(st.lists(st.text(alphabet="abc./:?#@w-0123", max_size=30)))
def test_many_are_as_one_by_one(urls):
    assert registered_domains(urls) == [registered_domain(url) for url in urls]


@pytest.mark.parametrize(("url", "length"), [("http://a", 7), ("HTTPS:///a", 9), ("a.com/http://b", 0), ("", 0)])
def test_scheme_length(url, length):
    assert scheme_length(url) == length
