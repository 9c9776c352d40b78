"""How a text file of URLs is laid out: its encoding, its separator, its header, and which columns are read.

Files come as lists download: with comment lines, a header that is a comment, none at all, one URL a line. What tells is
the file's beginning.
"""

import codecs
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from bigdata_assets.malicious_urls.logic.records import BOM, MAX_LINE_BYTES, fields
from bigdata_assets.malicious_urls.logic.urls import usable_url
from bigdata_assets.malicious_urls.tables import CLASSES

URL_NAMES = (
    "url", "urls", "full_url", "phish_url", "malware_url", "uri", "link", "links", "website", "indicator", "indicators",
    "ioc", "iocs", "ioc_value", "indicator_value", "observable", "domain", "domains", "domain_name", "host", "hosts",
    "hostname", "fqdn",
)  # fmt: skip
"""Columns that hold a file's URLs, as publishers name them, in any case; the first of these that a file has is read."""
LABEL_NAMES = ("type", "label")
SEPARATORS = (b",", b"\t", b";", b"|")
HEAD_BYTES = 1 << 18
"""Read of a file to find its layout; comments before its first record may take as much."""
SAMPLE_LINES = 200
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|\Z)")


@dataclass(frozen=True)
class Layout:
    """Where a file's URLs are.

    Attributes:
        separator: of fields; empty where each line is one URL.
        n_columns: fields of a record.
        url_at: number of the URL's column.
        label_at: number of the label's, if there is one.
        start: offset of the first record after the header.
        header: the columns' names, as `column_name` has them; none where the file has no header.
        first_line: of a file with a header: the header, or the first of the comments before it.
    """

    separator: bytes
    n_columns: int
    url_at: int
    label_at: int | None
    start: int
    header: tuple[str, ...] = ()
    first_line: bytes = b""

    @property
    def mark(self) -> bytes:
        """What begins another file within this one; see `blocks`."""
        return BOM + self.first_line if self.first_line else b""

    def is_header(self, found: list[bytes]) -> bool:
        """Whether a record's fields are the header, as where files were put one after the other."""
        return bool(self.header) and tuple(map(column_name, found)) == self.header


def find_layout(head: bytes, whole: bool) -> Layout:
    """The layout of a text whose first bytes are `head`, in UTF-8 or what has ASCII in common with it.

    Raises:
        ValueError: there are no URLs to be found; the message says what is there instead.
    """
    lines = [
        (at, end, text) for at, end, text in _lines(head) if whole or end < len(head) or len(text) > MAX_LINE_BYTES
    ]
    records = [(at, end, text) for at, end, text in lines if text.strip() and not text.startswith(b"#")]
    if not records and not whole:
        raise ValueError(f"there is nothing but comments in its first {len(head)} bytes")
    if not records:
        return Layout(b"", 1, 0, None, len(head))
    first, end, line = records[0]
    if len(line) > MAX_LINE_BYTES and _is_utf8(head, whole):
        raise ValueError(f"the header is longer than {MAX_LINE_BYTES} bytes")
    if len(line) > MAX_LINE_BYTES:
        raise ValueError("the file is not text")
    before = [text for at, _, text in lines if at < first]
    found = _header(line, end) or _commented_header(before, line, first)
    if found:
        return replace(found, first_line=lines[0][2])
    if found := _by_content([text for _, _, text in records[:SAMPLE_LINES]], first):
        return found
    if b"\0" in line or not _is_utf8(head, whole):
        raise ValueError("the file is not text")
    told = line[:200].decode("utf-8", "replace")
    raise ValueError(f"there is no column `url` but {told!r}: name the URLs' column `url`, or leave one URL a line")


def column_of(names: Iterable[str], wanted: tuple[str, ...]) -> int | None:
    """Number of the column that has the first of the wanted names that is there."""
    numbers = {name: number for number, name in reversed(list(enumerate(map(_normal, names))))}
    return next((numbers[name] for name in wanted if name in numbers), None)


def column_name(field: bytes) -> str:
    """A header's field as names are compared: no case, no quotes, no mark of a comment, `_` for blanks and hyphens."""
    return _normal(field.removeprefix(BOM).decode("utf-8", "replace"))


def _normal(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip(" \t\"'#").lower())


def _lines(head: bytes) -> Iterable[tuple[int, int, bytes]]:
    """Begin, end, and text of each line, after a byte-order mark."""
    at = len(BOM) if head.startswith(BOM) else 0
    while at < len(head) and (match := _LINE.match(head, at)):
        yield at, match.end(), match[0].rstrip(b"\r\n")
        at = match.end()


def _header(line: bytes, start: int) -> Layout | None:
    """The layout, if a line names columns: one of `URL_NAMES` is there, and no field is a URL itself."""
    best: Layout | None = None
    for separator in SEPARATORS:
        found = fields(line.removeprefix(b"#"), separator)
        if found is None or any(usable_url(field).url for field in found):
            continue
        names = tuple(map(column_name, found))
        url_at = column_of(names, URL_NAMES)
        if url_at is not None and (best is None or len(names) > best.n_columns):
            best = Layout(separator, len(names), url_at, column_of(names, LABEL_NAMES), start, names)
    return best


def _commented_header(comments: list[bytes], line: bytes, start: int) -> Layout | None:
    """The layout that a comment names, the last one before the first record, if that has as many fields."""
    for comment in reversed(comments):
        header = _header(comment, start)
        if header and header.n_columns == 1:
            return replace(header, separator=b"")
        if header and len(fields(line, header.separator) or []) == header.n_columns:
            return header
    return None


def _by_content(lines: list[bytes], start: int) -> Layout | None:
    """The layout of records without a header: the column that holds URLs, or each line is one."""
    for separator in SEPARATORS:
        rows = [found for line in lines if (found := fields(line, separator)) is not None]
        n_columns, count = Counter(map(len, rows)).most_common(1)[0] if rows else (1, 0)
        if n_columns == 1 or count < 0.9 * len(lines):
            continue
        columns = list(zip(*(row for row in rows if len(row) == n_columns), strict=True))
        url_at = _url_column(columns)
        label_at = next((n for n, column in enumerate(columns) if all(map(_is_class, column))), None)
        # A comma may belong to a URL: of few lines it must be plain that it does not.
        plain = url_at or label_at is not None or separator == b"\t" or lines[0].startswith(b'"') or count > 2
        if url_at is not None and plain:
            return Layout(separator, n_columns, url_at, label_at, start)
    if _url_column([lines]) is None:
        return None
    return Layout(b"", 1, 0, None, start)


def _url_column(columns: list[tuple[bytes, ...]] | list[list[bytes]]) -> int | None:
    """Number of the first column with most URLs that have a scheme, else with most at all; more than half must be."""
    scores = []
    for column in columns:
        urls = [url for field in column if (url := usable_url(field).url)]
        scores.append((sum("://" in url for url in urls), len(urls)))
    best = max(range(len(scores)), key=scores.__getitem__)
    return best if 2 * scores[best][1] > len(columns[best]) else None


def _is_class(field: bytes) -> bool:
    return field.decode("utf-8", "replace").strip().lower() in CLASSES


def _is_utf8(head: bytes, whole: bool) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, whole)
    except UnicodeDecodeError:
        return False
    return True
