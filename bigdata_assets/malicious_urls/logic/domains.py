"""Parts of a URL: its scheme stripped, its host, its registered domain. Any text is taken; nothing here raises."""

import ipaddress
import re
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{0,15}:/{2,}")
_WWW = re.compile(r"www\d?\.", re.IGNORECASE)
_HOST_END = re.compile(r"[/?#\\]")
_PORT = re.compile(r":\d*$")
_BARE_HOST_SLASH = re.compile(r"[^/?#\\]+/")


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
    """Host of a URL in lower case, without user, port and trailing dot; an IPv6 address without its brackets."""
    url = url.strip().strip("'\"")
    if match := _SCHEME.match(url):
        url = url[match.end() :]
    name = _HOST_END.split(url, maxsplit=1)[0].rpartition("@")[2]
    if name.startswith("["):
        return name[1:].partition("]")[0].lower()
    return _PORT.sub("", name).rstrip(".").lower()


def registered_domain(url: str) -> str:
    """The domain below a URL's public suffix: `b.co.uk` of `http://a.b.co.uk/x`.

    Only the ICANN section of the public suffix list counts: `x.blogspot.com` and `y.blogspot.com` are one domain, the
    coarser grouping, which is the stricter one where a split is made by it. An IP address is its own domain; a host
    that is itself a public suffix, or has no dot, is returned as it is.
    Source: publicsuffix.org, as packaged by `publicsuffixlist`.
    """
    return domain_of_host(host(url))


def registered_domains(urls: Iterable[str]) -> list[str]:
    """`registered_domain` of each."""
    return [domain_of_host(host(url)) for url in urls]


def scheme_length(url: str) -> int:
    """Characters of a URL's scheme with its `://`; 0 where it has none."""
    match = _SCHEME.match(url)
    return match.end() if match else 0


def is_ip_address(name: str) -> bool:
    """Whether a host is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=200_000)
def domain_of_host(name: str) -> str:
    """`registered_domain` of what `host` returned."""
    if name.startswith("www.") and name.count(".") > 1:
        name = name[4:]
    if is_ip_address(name):
        return name
    return _suffixes().privatesuffix(name) or name


@cache
def _suffixes() -> "PublicSuffixList":
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList(only_icann=True)
