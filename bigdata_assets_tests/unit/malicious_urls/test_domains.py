import csv
from pathlib import Path

import pytest
from ada_url import URL
from hypothesis import example, given
from hypothesis import strategies as st

from bigdata_assets.malicious_urls.logic.domains import (
    host,
    host_of_authority,
    is_ip_address,
    normalise,
    registered_domain,
    registered_domains,
    scheme_length,
    scheme_name,
    written_host,
)
from bigdata_assets_tests.integration.conftest import REAL_DATA

ODD_URLS = REAL_DATA / "field/U04/urls_with_browser_hosts.csv"


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


@given(st.text(alphabet="abc./?#w-", max_size=30))
def test_a_scheme_changes_neither_host_nor_domain(text):
    if "." in host(text):
        assert registered_domain("http://" + text) == registered_domain(text)


@given(st.lists(st.text(alphabet="abc./:?#@w-0123", max_size=30)))
def test_many_are_as_one_by_one(urls):
    assert registered_domains(urls) == [registered_domain(url) for url in urls]


@pytest.mark.parametrize(("url", "length"), [("http://a", 7), ("HTTPS:///a", 9), ("a.com/http://b", 0), ("", 0)])
def test_scheme_length(url, length):
    assert scheme_length(url) == length


@pytest.mark.skipif(not ODD_URLS.is_file(), reason=f"there is no {ODD_URLS}")
def test_hosts_of_odd_urls_are_those_that_a_browser_opens():
    with Path(ODD_URLS).open(encoding="utf-8", newline="") as lines:
        expected = {row["url"]: row["whatwg_hostname"].strip("[]") for row in csv.DictReader(lines)}
    assert len(expected) == 274
    assert {url: host(url) for url in expected} == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http:\\\\a.example.com\\x", "a.example.com"),
        ("https:/\\/a.example.com/x", "a.example.com"),
        ("http:a.example.com", "a.example.com"),
        ("HTTP://user:p@ss@A.Example.com:8080/@b.com", "a.example.com"),
        ("http://3232235521/", "192.168.0.1"),
        ("http://0xC0.0250.1/", "192.168.0.1"),
        ("http://%61.example.com", "a.example.com"),
        ("http://bücher.example/", "xn--bcher-kva.example"),
        ("http://\uff21\uff22\uff23.example", "abc.example"),
        ("http://a\u00ad.exam\u200bple.com/", "a.example.com"),
        ("http://a.com\ufeff/x", "a.com"),
        ("ht\ntp://a.c\tom/", "a.com"),
        ("http://[::FFFF:1.2.3.4]:80/", "::ffff:102:304"),
        ("[2001:db8::1]:80/x", "2001:db8::1"),
        ("//a.example.com/x", "a.example.com"),
        ("a.example.com:8080/x", "a.example.com"),
        ("localhost:8080/x", "localhost"),
        ("1.2.3.4/x", "1.2.3.4"),
        ("ftp://a.example.com/x", "a.example.com"),
        ("http://1.2.3.4.5/", ""),
        ("http://a b.com/", ""),
        ("http://a.com:99999/", ""),
        ("mailto:me@a.com", ""),
        ("javascript:alert(1)", ""),
        ("data:text/html,a.com", ""),
        ("tel:5551234", ""),
        ("/a.com/x", ""),
        ("word", ""),
        ("3.5", ""),
        ("12345", ""),
        ("..", ""),
    ],
)
def test_host(url, expected):
    assert host(url) == expected


@given(st.from_regex(r"([a-zA-Z0-9_.-]|xn--|0x){1,12}(:[0-9]{0,5})?", fullmatch=True))
@example("1.2.3.4")
@example("01.2.3.4")
@example("a.0x1")
@example("a..b")
@example("a.XN--a")
@example("xn--bcher-kva.example")
def test_what_is_left_to_no_parser_is_what_the_parser_gives(authority):
    try:
        expected = URL(f"http://{authority}/").hostname
    except ValueError:
        expected = ""
    assert host_of_authority(authority) == expected


def test_private_suffixes_are_suffixes_only_where_they_are_asked_for():
    assert registered_domain("http://x.y.github.io/a") == "github.io"
    assert registered_domain("http://x.y.github.io/a", private=True) == "y.github.io"
    assert registered_domain("http://a.b.co.uk/a", private=True) == "b.co.uk"


def test_features_of_the_text_have_the_host_as_written():
    assert written_host("http://0x7f.1:80/a") == "0x7f.1"
    assert written_host("http://user@Bücher.example./") == "bücher.example"
    assert written_host("[2001:DB8::1]:80/x") == "2001:db8::1"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("1.2.3.4", True), ("::1", True), ("2001:db8::a", True), ("1.2.3", False), ("a.b4", False), ("", False)],
)
def test_is_ip_address(name, expected):
    assert is_ip_address(name) is expected


@pytest.mark.parametrize(
    ("url", "scheme"),
    [("HTTP://a", "http"), ("a.com:80/x", ""), ("localhost:80", ""), ("tel:80", "tel"), ("a/b:c", "")],
)
def test_scheme_name(url, scheme):
    assert scheme_name(url) == scheme
