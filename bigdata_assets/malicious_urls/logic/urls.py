"""What stands in a file as a URL: the URL that is meant, its registered domain, or the reason why it is none.

Most are plain: those are judged together, on one buffer of bytes, and only their hosts one by one, each once. The rest
is taken one by one; both ways give the same.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigdata_assets.malicious_urls.logic.domains import (
    KEPT_HOSTS,
    domain_of_host,
    domain_of_new_host,
    host,
    host_of_authority,
    scheme_name,
)
from bigdata_assets.malicious_urls.logic.refanging import refanged

MAX_URL_BYTES = 8_192
"""Browsers and servers cut off between 2,000 and 8,192 bytes; the longest labelled URL has under 2,200."""

_LINE_BREAK = re.compile(r"[\r\n]+")
_BREAKS = dict.fromkeys(map(ord, "\t\r\n"))
_UNSEEN = dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff"))
"""Soft hyphen, zero width space, word joiner, byte-order mark: left over from pages that a URL was copied from."""
_UNSEEN_TEXT = "".join(map(chr, _UNSEEN))
_BEGIN = re.compile(r"(?:[^/?#\\]*:[/\\]+)?[^/?#\\]*")
"""A URL up to the end of its host."""
_STARTS_ANEW = re.compile(r"\s*[a-z][a-z0-9+.*-]*(?:://|\[:)", re.IGNORECASE)

_HOST_ENDS = np.zeros(256, bool)
_HOST_ENDS[list(b"/?#\\")] = True
_TEXT = np.zeros(256, bool)
_TEXT[32:127] = True
_PLAIN_AUTHORITY = bytes(range(ord("a"), ord("z") + 1)) + b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:@%~!$&*+,;="
_BARE_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.(?!xn--)[A-Za-z][A-Za-z0-9_-]*|(?:[0-9]+\.){3}[0-9]+")


class Url(NamedTuple):
    """What a text is: a URL and its registered domain, or nothing but a reason why it is none."""

    url: str | None
    as_given: str | None
    """The text, where the URL is not what was written: defanged, broken over lines, with characters nobody sees."""
    registered_domain: str | None
    reason: str | None

    @classmethod
    def refused(cls, reason: str) -> "Url":
        return cls(None, None, None, reason)


@dataclass(frozen=True)
class Urls:
    """The same of many, as columns."""

    url: pa.StringArray
    as_given: pa.StringArray
    registered_domain: pa.StringArray
    reason: pa.StringArray

    @classmethod
    def of(cls, rows: list[Url]) -> "Urls":
        return cls(*(pa.array([row[column] for row in rows], pa.string()) for column in range(4)))

    def columns(self) -> list[pa.StringArray]:
        return [self.url, self.as_given, self.registered_domain, self.reason]


def usable_url(raw: bytes, private: bool = False) -> Url:
    """A text's URL, or the reason why it is none.

    Tabs and line breaks go, as a browser removes them; a text broken within its host, or where another URL begins, is
    more than one. Broken bytes are not guessed at: which encoding a file is in that is not UTF-8, nothing tells.

    Args:
        raw: the text as it stands in the file.
        private: see `registered_domain`.
    """
    raw = raw.strip()
    if not raw:
        return Url.refused("empty")
    if len(raw) > MAX_URL_BYTES:
        return Url.refused(f"longer than {MAX_URL_BYTES} bytes")
    try:
        given = raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        return Url.refused("not UTF-8")
    url = given.translate(_BREAKS)
    if not _is_text(url):
        return Url.refused("characters that are no text")
    if url != given and _LINE_BREAK.search(given) and _is_several(given):
        return Url.refused("a line break within the host, or between URLs")
    url = refanged(_seen(url))
    name = host(url)
    if not name:
        scheme = scheme_name(url)
        return Url.refused("no host" if scheme in ("", "http", "https") else f"no host after {scheme[:32]}:")
    return Url(url, given if url != given else None, domain_of_host(name, private), None)


def judged(data: np.ndarray, starts: np.ndarray, stops: np.ndarray, private: bool = False) -> Urls:
    """`usable_url` of each of data[starts:stops], in their order, none overlapping another.

    Args:
        data: (bytes,) uint8, 2 GiB at most.
        starts: (texts,) where each begins.
        stops: (texts,) where each ends.
        private: see `registered_domain`.
    """
    plain, first, last, has_scheme = _authorities(data, starts, stops)
    hosts = slices(data, np.where(plain, first, starts), np.where(plain, last, starts)).dictionary_encode()
    known = [_domain(name, private) for name in hosts.dictionary.to_pylist()]
    domains = pa.array([domain for domain, _ in known], pa.string()).take(hosts.indices)
    bare = np.array([is_bare for _, is_bare in known], bool)[hosts.indices.to_numpy()]
    plain &= domains.is_valid().to_numpy(zero_copy_only=False) & (has_scheme | bare)
    urls = slices(data, starts, stops).view(pa.string())
    nulls = pa.nulls(len(urls), pa.string())
    if plain.all():
        return Urls(urls, nulls, domains, nulls)
    odd = np.flatnonzero(~plain)
    texts = zip(starts[odd].tolist(), stops[odd].tolist(), strict=True)
    columns = Urls.of([usable_url(data[start:stop].tobytes(), private) for start, stop in texts]).columns()
    mask = pa.array(~plain)
    return Urls(
        *(
            pc.replace_with_mask(all_, mask, few)
            for all_, few in zip((urls, nulls, domains, nulls), columns, strict=True)
        )
    )


def slices(data: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> pa.BinaryArray:
    """Pieces of a buffer of less than 2 GiB, in order and none overlapping another."""
    n = len(starts)
    if not n:
        return pa.array([], pa.binary())
    # Pieces, and what is between them, are the elements of one array over the buffer as it is.
    offsets = np.empty(2 * n, np.int32)
    offsets[::2], offsets[1::2] = starts, stops
    whole = pa.BinaryArray.from_buffers(pa.binary(), 2 * n - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    return whole.take(pa.array(np.arange(0, 2 * n, 2)))


def _authorities(
    data: np.ndarray, starts: np.ndarray, stops: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each text: whether it may be plain, where host and port begin and end, whether http is before them."""
    n = len(data)
    lengths = stops - starts
    plain = (lengths > 0) & (lengths <= MAX_URL_BYTES)
    at = np.minimum(starts, n - 1)
    plain &= (data[at] != ord(" ")) & (data[np.maximum(stops - 1, 0)] != ord(" "))
    odd = np.flatnonzero(~_TEXT[data])
    plain &= np.searchsorted(odd, starts) == np.searchsorted(odd, stops)
    scheme = np.zeros(len(starts), np.int64)
    for text in (b"http://", b"https://"):
        fits = lengths > len(text)
        for offset, byte in enumerate(text):
            found = data[np.minimum(at + offset, n - 1)]
            fits &= (found | 32 if chr(byte).isalpha() else found) == byte
        scheme[fits] = len(text)
    first = starts + scheme
    ends = np.flatnonzero(_HOST_ENDS[data])
    last = np.minimum(np.append(ends, n)[np.searchsorted(ends, first)], stops)
    return plain & (last > first), first, last, scheme > 0


@lru_cache(maxsize=KEPT_HOSTS)
def _domain(authority: bytes, private: bool) -> tuple[str | None, bool]:
    """Registered domain of what is between `http://` and the path, None where it is not plain; and whether it is plain
    where no scheme is before it.
    """
    if not authority or authority.translate(None, _PLAIN_AUTHORITY):
        return None, False
    text = authority.decode("ascii")
    name = host_of_authority(text)
    return (domain_of_new_host(name, private) if name else None), bool(_BARE_NAME.fullmatch(text))


def _seen(url: str) -> str:
    """Without characters that nobody sees, at its ends and up to the end of its host."""
    if url.isascii():
        return url
    url = url.strip(_UNSEEN_TEXT).strip()
    begin = _BEGIN.match(url)
    assert begin is not None  # noqa: S101 -- an empty text matches
    return begin[0].translate(_UNSEEN) + url[begin.end() :]


def _is_several(text: str) -> bool:
    """Whether a line break is within the host, or another URL begins after one."""
    first, *others = _LINE_BREAK.split(text)
    begin = _BEGIN.match(first)
    return begin is None or begin.end() == len(first) or any(map(_STARTS_ANEW.match, others))


def _is_text(text: str) -> bool:
    if text.isascii() and text.isprintable():
        return True
    # Cc control, Cn unassigned, Co private use, Cs surrogate; U+FFFD is what an earlier reader put for broken bytes.
    return "\ufffd" not in text and {"Cc", "Cn", "Co", "Cs"}.isdisjoint(map(unicodedata.category, text))
