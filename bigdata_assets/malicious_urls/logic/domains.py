"""Parts of a URL: its scheme stripped, its host, its registered domain. Any text is taken; nothing here raises."""

import ipaddress
import re
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

KEPT_HOSTS = 120_000
"""Whose domains a process keeps; some 40 MB."""

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{0,15}:/{2,}")
_WWW = re.compile(r"www\d?\.", re.IGNORECASE)
_HOST_END = re.compile(r"[/?#\\]")
_PORT = re.compile(r":\d*$")
_BARE_HOST_SLASH = re.compile(r"[^/?#\\]+/")

_WEB = re.compile(r"https?:[/\\]*", re.IGNORECASE)
_ANY_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")
_HOST_AND_PORT = re.compile(r"(?:[^/?#\\@:]*\.[^/?#\\@:]*|localhost):\d*(?:[/?#\\]|$)", re.IGNORECASE)
_REMOVED = dict.fromkeys(map(ord, "\t\r\n"))
_NAME = re.compile(r"(?!(?:.*\.)?xn--)(?:[a-z0-9_-]+\.)*[a-z_][a-z0-9_-]*(?=\Z|:\d{1,4}\Z)", re.IGNORECASE | re.ASCII)
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_DOTTED = re.compile(rf"(?:{_BYTE}\.){{3}}{_BYTE}(?=\Z|:\d{{1,4}}\Z)", re.ASCII)
"""Hosts, of http, that a browser leaves as they are but for capitals."""


def normalise(url: str, *, strip_scheme: bool = True) -> str:
    """A URL as the classifier reads it.

    Quotes around the whole and `&amp;` for `&` are left-overs of the pages that a URL was copied from, not part of it,
    and stand in some sources for all classes, in others for one: both go always. So does the slash after a bare host:
    `a.com` and `a.com/` name one page (RFC 3986, 6.2.3), and which of them a list has tells who made the list.

    Args:
        url: any text.
        strip_scheme: leave out `http://`, `www.` and the like, which tell how a list was made rather than what it has.
    """
    url = url.strip().strip("'\"").replace("&amp;", "&")
    if strip_scheme:
        if match := _SCHEME.match(url):
            url = url[match.end() :]
        if match := _WWW.match(url):
            url = url[match.end() :]
    if _BARE_HOST_SLASH.fullmatch(url, scheme_length(url)):
        url = url[:-1]
    return url


def host(url: str) -> str:
    """Host that a browser opens, an IPv6 address without its brackets; empty where there is none, or no URL.

    A text without a scheme is taken as http, if its host has a dot or is `localhost`: other words are no URLs, and a
    number is an IPv4 address only with all its dots.
    Source: URL Standard of the WHATWG (url.spec.whatwg.org), with host names by UTS 46, as implemented by Ada.
    """
    url = url.strip().strip("'\"").translate(_REMOVED)
    if match := _WEB.match(url):
        return host_of_authority(_HOST_END.split(url[match.end() :], maxsplit=1)[0])
    if scheme_name(url):
        return _parsed(url)
    if url.startswith("//"):
        url = url[2:]
    authority = _HOST_END.split(url, maxsplit=1)[0]
    name = host_of_authority(authority)
    if "." not in name:
        return name if ":" in name or name == "localhost" else ""
    if not any(map(str.isalnum, name)) or (is_ip_address(name) and authority.count(".") < 3):
        return ""
    return name


def scheme_name(url: str) -> str:
    """A URL's scheme in lower case; empty where it has none: `a.com:80` is a host with its port."""
    match = _ANY_SCHEME.match(url)
    return match[1].lower() if match and not _HOST_AND_PORT.match(url) else ""


def host_of_authority(authority: str) -> str:
    """`host` of what stands in an http URL between `//` and the path."""
    if match := _NAME.match(authority) or _DOTTED.match(authority):
        return match[0].lower()
    return _parsed(f"http://{authority}/") if authority else ""


def written_host(url: str) -> str:
    """Host of a URL as its text has it, in lower case, without user, port and trailing dot, for features of the text.

    An IPv6 address is without its brackets.
    """
    url = url.strip().strip("'\"")
    if match := _SCHEME.match(url):
        url = url[match.end() :]
    name = _HOST_END.split(url, maxsplit=1)[0].rpartition("@")[2]
    if name.startswith("["):
        return name[1:].partition("]")[0].lower()
    return _PORT.sub("", name).rstrip(".").lower()


def registered_domain(url: str, *, private: bool = False) -> str:
    """The domain below a URL's public suffix: `b.co.uk` of `http://a.b.co.uk/x`.

    By default only the ICANN section of the public suffix list counts: `x.blogspot.com` and `y.blogspot.com` are one
    domain, the coarser grouping, which is the stricter one where a split is made by it. An IP address is its own
    domain; a host that is itself a public suffix, or has no dot, is returned as it is.
    Source: publicsuffix.org, as packaged by `publicsuffixlist`.

    Args:
        url: any text.
        private: suffixes below which a company lets anybody have names, such as `github.io`, count too.
    """
    return domain_of_host(host(url), private)


def registered_domains(urls: Iterable[str]) -> list[str]:
    """`registered_domain` of each."""
    return [domain_of_host(host(url)) for url in urls]


def scheme_length(url: str) -> int:
    """Characters of a URL's scheme with its `://`; 0 where it has none."""
    match = _SCHEME.match(url)
    return match.end() if match else 0


def is_ip_address(name: str) -> bool:
    """Whether a host is an IPv4 or IPv6 address."""
    if not name[-1:].isdigit() and ":" not in name:
        return False  # quicker than an exception, by which most hosts would be told
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=KEPT_HOSTS)
def domain_of_host(name: str, private: bool = False) -> str:
    """`registered_domain` of what `host` returned; kept for the hosts seen last."""
    return domain_of_new_host(name, private)


def domain_of_new_host(name: str, private: bool = False) -> str:
    """`domain_of_host`, for who keeps what it returned."""
    name = name.rstrip(".").lower() or name
    if name.startswith("www.") and name.count(".") > 1:
        name = name[4:]
    if is_ip_address(name):
        return name
    return _suffixes(private).privatesuffix(name) or name


def _parsed(url: str) -> str:
    from ada_url import URL

    try:
        return str(URL(url).hostname).removeprefix("[").removesuffix("]")
    except ValueError:
        return ""


@cache
def _suffixes(private: bool) -> "PublicSuffixList":
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList(only_icann=not private)
