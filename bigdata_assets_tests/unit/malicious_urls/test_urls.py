import csv

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bigdata_assets.malicious_urls.logic.domains import host
from bigdata_assets.malicious_urls.logic.refanging import refanged
from bigdata_assets.malicious_urls.logic.urls import MAX_URL_BYTES, Url, judged, usable_url
from bigdata_assets_tests.integration.conftest import REAL_DATA

FIELD = REAL_DATA / "field"


@pytest.mark.parametrize(
    ("defanged", "meant"),
    [
        ("hxxp://a[.]example[.]com/x[.]exe", "http://a.example.com/x.exe"),
        ("hXXps://a.example.com", "https://a.example.com"),
        ("h**p://a.example.com", "http://a.example.com"),
        ("hxtps://a.example.com", "https://a.example.com"),
        ("hxxp[:]//a.example.com:80/", "http://a.example.com:80/"),
        ("http[://]a.example.com/", "http://a.example.com/"),
        ("hxxps[:][/][/]a[dot]example(dot)com[/]x", "https://a.example.com/x"),
        ("http://a(.)example{.}com/?q=1", "http://a.example.com/?q=1"),
        ("a[.]example [.] com[:]8080/x", "a.example.com:8080/x"),
        ("http://user[@]a[.]com", "http://user@a.com"),
        ("me[at]a[DOT]com", "me@a.com"),
        ("fxp://a[.com", "ftp://a.com"),
        ("a.]com/x", "a.com/x"),
        ("1[.]2[.]3[.]4", "1.2.3.4"),
        ("hxxp://[2001:db8::1]:80/x", "http://[2001:db8::1]:80/x"),
        ("hxxp://2.example.com/?a[]=1&b[x]=(2)", "http://2.example.com/?a[]=1&b[x]=(2)"),
    ],
)
def test_a_defanged_url_is_refanged(defanged, meant):
    assert refanged(defanged) == meant
    found = usable_url(defanged.encode())
    assert (found.url, found.as_given, found.reason) == (meant, defanged, None)


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1]/x",
        "http://[::ffff:1.2.3.4]:80/",
        "[::]/x",
        "http://a.com/x[.]php?b[]=1&c=(dot)#[at]",
        "HTTPS:\\\\a.com",
        "http:a.com",
        "a.com/[dot]",
        "ftp://a.com/(.)",
    ],
)
def test_a_url_that_is_not_defanged_stays_as_it_is(url):
    assert refanged(url) == url
    assert usable_url(url.encode())[:2] == (url, None)


@pytest.mark.skipif(not FIELD.is_dir(), reason=f"there is no {FIELD}")
def test_real_defanged_indicators_have_the_hosts_that_are_meant():
    lines = (FIELD / "U02/defanged_200.csv").read_text().splitlines()[1:]
    assert len(lines) == 200
    for line in lines:
        found = usable_url(line.encode())
        assert found.url == line.replace("hxxp", "http", 1).replace("[.]", ".")
        assert found.as_given == line
        assert found.registered_domain
        assert not set("[]") & set(found.registered_domain)


@pytest.mark.skipif(not FIELD.is_dir(), reason=f"there is no {FIELD}")
def test_of_odd_urls_those_without_a_host_have_a_reason():
    with (FIELD / "U04/urls_with_browser_hosts.csv").open(encoding="utf-8", newline="") as lines:
        rows = [(row["url"], row["whatwg_hostname"]) for row in csv.DictReader(lines)]
    for url, hostname in rows:
        found = usable_url(url.encode())
        if found.reason is None:
            assert host(found.url) == hostname.strip("[]")
        else:
            assert not hostname or found.reason == "characters that are no text"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"mailto:me@a.com", "no host after mailto:"),
        (b"data:text/html,x", "no host after data:"),
        (b"JavaScript:alert(1)", "no host after javascript:"),
        (b"http://", "no host"),
        (b"http://1.2.3.256/", "no host"),
        (b"benign", "no host"),
        (b" \t ", "empty"),
        (b"http://a.com/\xe9", "not UTF-8"),
        (b"http://a.com/\x07", "characters that are no text"),
        ("http://a.com/\ue000".encode(), "characters that are no text"),
        (b"a.com/" + b"x" * MAX_URL_BYTES, f"longer than {MAX_URL_BYTES} bytes"),
        (b"http://a.\ncom/x", "a line break within the host, or between URLs"),
        (b"http://a.com\nhttp://b.com", "a line break within the host, or between URLs"),
        (b"http://a.com/x\r\nhxxp://b.com", "a line break within the host, or between URLs"),
    ],
)
def test_what_is_no_url_has_its_reason(raw, reason):
    assert usable_url(raw) == Url(None, None, None, reason)


@pytest.mark.parametrize(
    ("given_", "url", "domain"),
    [
        ("http://a.example.com/x\ny=1", "http://a.example.com/xy=1", "example.com"),
        ("http://a.exa\tmple.com/", "http://a.example.com/", "example.com"),
        ("\ufeffhttp://exam\u00adple.com/\u00ad", "http://example.com/", "example.com"),
        ("http://exam\u200bple.com/x\u200by", "http://example.com/x\u200by", "example.com"),
        ("\u2060a.com\ufeff", "a.com", "a.com"),
    ],
)
def test_what_nobody_sees_makes_no_other_host(given_, url, domain):
    assert usable_url(given_.encode()) == Url(url, given_, domain, None)


PARTS = st.sampled_from(
    [
        *"http:// https:// HTTP:// http: / \\ hxxp:// // a.com A.b.co.uk x.github.io 1.2.3.4 3.5 word".split(),
        *"localhost [::1] [.] (dot) xn--bcher-kva.example bücher.example ' \" : :80 :99999 @".split(),
        *"user: . .. - _ %61 ? # & /path?q=1 [ ] { \u00ad \ufeff \ufffd é mailto: ftp://".split(),
        *" \t\n",
    ]
)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.lists(PARTS, max_size=6).map("".join).map(str.encode) | st.binary(max_size=8), max_size=12),
    st.booleans(),
)
@example([b"", b"http://a.com'", b"'a.com'", b"a.com ", b"a.com:80", b"http:///a.com"], False)
def test_many_together_are_as_one_by_one(texts, private):
    lengths = np.array([len(text) for text in texts], np.int64)
    stops = np.cumsum(lengths + 1) - 1  # something stands between them
    data = np.frombuffer(b"".join(text + b"\n" for text in texts) or b"\0", np.uint8)
    columns = judged(data, stops - lengths, stops, private).columns()
    found = [Url(*values) for values in zip(*(column.to_pylist() for column in columns), strict=True)]
    assert found == [usable_url(text, private) for text in texts]
