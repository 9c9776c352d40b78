import gzip

import pytest
from upath import UPath

from bigdata_assets.malicious_urls.logic.layout import HEAD_BYTES, URL_NAMES, find_layout
from bigdata_assets.malicious_urls.logic.reading import plan_splits, read_split
from bigdata_assets_tests.integration.conftest import REAL_DATA


def rows_of(tmp_path, content, name="a.csv"):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [row for split in plan_splits(UPath(path)) for batch in read_split(split) for row in batch.to_pylist()]


def told(rows):
    return [(row["url"], row["label"]) for row in rows]


@pytest.mark.parametrize("name", ["url", "URL", '"Url"', " urls ", "Link", "Domain Name", "IOC", "ioc-value", "# url"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_columns_are_found_by_their_names_in_any_case(tmp_path, name, separator):
    head = separator.join(("id", name, "Type"))
    lines = [head, *(separator.join((str(n), f'"http://a.com/{separator}{n}"', "x")) for n in range(2))]
    kept = separator.strip()  # a browser takes tabs out of URLs
    assert told(rows_of(tmp_path, "\n".join(lines))) == [(f"http://a.com/{kept}{n}", "x") for n in range(2)]


def test_of_several_columns_that_may_hold_urls_the_first_of_the_table_is_read():
    layout = find_layout(b"domain,Link,host,url,label\n", True)
    assert (layout.url_at, layout.label_at) == (3, 4)
    assert find_layout(b"domain,Link,host\n", True).url_at == 1
    assert len(set(URL_NAMES)) == len(URL_NAMES)


FEED = """\
################
# A feed; it's "quoted, and so on
#
"""


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_feed_with_comments_and_a_commented_header(tmp_path, name):
    lines = [
        "# id,dateadded,url,threat,tags,link",
        '"1","2024-01-01","http://192.0.2.7:41020/bin.sh#x","m","32-bit,elf","https://feed.example/1"',
        '"2","2024-01-01","http://example.net/a,b.exe","m","","https://feed.example/2"',
        "# 2 entries, so far",
    ]
    content = (FEED + "\n".join(lines)).replace("\n", "\r\n").encode()
    rows = rows_of(tmp_path, gzip.compress(content) if name.endswith("gz") else content, name)
    assert told(rows) == [("http://192.0.2.7:41020/bin.sh#x", None), ("http://example.net/a,b.exe", None)]
    assert content[rows[1]["position"] :].startswith(b'"2"')


def test_a_header_that_is_commented_field_by_field(tmp_path):
    lines = [
        '"# id","dateadded","url","ioc_type"',
        '"1", "2024-01-01", "http://a.com/x", "url"',
        '"2", "2024-01-01", "http://b.com/y", "domain"',
    ]
    assert told(rows_of(tmp_path, FEED + "\n".join(lines))) == [("http://a.com/x", None), ("http://b.com/y", None)]


def test_values_that_are_names_of_columns_make_no_header(tmp_path):
    lines = ['# "first_seen", "ioc_value", "ioc_type"', '"2024-01-01", "http://a.com/x", "url"']
    assert told(rows_of(tmp_path, "\n".join(lines))) == [("http://a.com/x", None)]


@pytest.mark.parametrize("head", ["", "# url\n", "# source, url\n", FEED, "\ufeff", "\n\n"])
def test_a_list_of_one_url_a_line(tmp_path, head):
    urls = ["https://login.example.net/a", "b.example.org/x,y;z|w", "http://c.example.com/#top", 'http://d.com/"q']
    assert told(rows_of(tmp_path, head + "\n".join(urls) + "\n")) == [(url, None) for url in urls]


@pytest.mark.parametrize("url", ["http://example.net/a,b.exe", "http://a.com/?x=1;y=2", "http://a.com/a|b"])
def test_one_url_alone_is_a_list(tmp_path, url):
    assert told(rows_of(tmp_path, url)) == [(url, None)]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["1,google.com", "2,b.co.uk"], [("google.com", None), ("b.co.uk", None)]),
        (["http://a.com/x,benign"], [("http://a.com/x", "benign")]),
        (["a.com\tfirst\t1.5", "b.com\tsecond\t2.5"], [("a.com", None), ("b.com", None)]),
        (
            [f'2024-01-0{n};"hxxp://a[.]com/{n};";{n}.example.com;phishing' for n in (1, 2)],
            [("http://a.com/1;", "phishing"), ("http://a.com/2;", "phishing")],
        ),
        (
            ["what,where", "a,http://a.com", "b,http://b.com", "c,http://c.com"],
            [(None, None), ("http://a.com", None), ("http://b.com", None), ("http://c.com", None)],
        ),
    ],
)
def test_without_a_header_columns_are_found_by_what_they_hold(tmp_path, lines, expected):
    assert told(rows_of(tmp_path, "\n".join(lines))) == expected


def test_comments_before_the_first_record_may_be_long(tmp_path):
    comments = "# " + "x" * 70_000 + "\n" + "# text\n" * 20_000
    assert len(comments) < HEAD_BYTES
    assert told(rows_of(tmp_path, comments + "http://a.com\n")) == [("http://a.com", None)]


@pytest.mark.parametrize("content", ["# nothing today\n", "\n\r\n", "url\n", "# id,url\n"])
def test_a_file_without_records_gives_no_rows(tmp_path, content):
    assert rows_of(tmp_path, content) == []


@pytest.mark.parametrize("content", ["Dear all,\nplease see below.\n", "12345\n67890\n", "1.5,2.5\n3.5,4.5\n"])
def test_what_has_no_urls_is_one_row_that_says_so(tmp_path, content):
    (row,) = rows_of(tmp_path, content)
    assert row["reason"].startswith(f"there is no column `url` but {content.splitlines()[0]!r}")


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"no folder with the official files at {REAL_DATA}")
@pytest.mark.parametrize(
    ("file", "urls"),
    [
        ("U01/cr_only", ["http://a.com/x", "http://b.com/y"]),
        ("U01/cr_inside", ["http://a.com", "http://b.com", "http://c.com"]),
        ("U03/openphish_feed", ["https://login.example.net/a", "https://b.example.org/"]),
        ("U03/urlhaus_recent", ["http://192.0.2.7:41020/bin.sh", "http://example.net/a,b.exe"]),
        ("U06/newline_in_quotes", ["http://a.com/xy=1", "http://b.com/"]),
    ],
)
def test_files_as_people_write_them(tmp_path, file, urls):
    assert [row["url"] for row in rows_of(tmp_path, (REAL_DATA / f"field/{file}.csv").read_bytes())] == urls
