"""Indicators as lists have them, made so that nobody opens them by a click, back to URLs: `hxxp://a[.]com`."""

import re

_OPEN, _CLOSE = r"\s*[\[({<]\s*", r"\s*[\])}>]\s*"
_WORDS = {"dot": ".", "at": "@"}
_SCHEME = re.compile(
    rf"(h(?:tt|[xz*_+~#%-]{{2}}|t[x*]|[x*]t)p|f[tx*]p)(s?)((?:{_OPEN}:(?://)?{_CLOSE}|:)(?:{_OPEN}//?{_CLOSE}|[/\\])*)",
    re.IGNORECASE,
)
_TOKEN = rf"{_OPEN}(\.|://|:|//|/|@|dot|at){_CLOSE}"
_ANYWHERE = re.compile(_TOKEN, re.IGNORECASE)
_IN_HOST = re.compile(rf"{_TOKEN}|[\[({{]\.|\.[\])}}]", re.IGNORECASE)
"""A bracket on one side of a dot too."""
_HOST = re.compile(rf"(?:{_TOKEN}|[^/?#\\])*", re.IGNORECASE)


def refanged(url: str) -> str:
    """The URL that was meant; one that is no defanged one as it is.

    `hxxp`, `h**p` and the like are schemes; `[.]`, `(.)`, `{.}`, `[dot]`, `[:]`, `[://]`, `[@]`, `[/]` and the like are
    what they have inside. Brackets after the host are looked at only where the scheme or the host was defanged: a path
    or a query has brackets of its own. A host in brackets is an IPv6 address.
    """
    scheme, rest = "", url
    if match := _SCHEME.match(url):
        rest = url[match.end() :]
        name = ("http" if match[1][0] in "hH" else "ftp") + match[2].lower()
        plain = match[1].lower() in ("http", "ftp") and match[3].strip("/\\") == ":"
        scheme = match[0] if plain else f"{name}://"
    host = _HOST.match(rest)
    written = host[0] if host else ""
    meant = _IN_HOST.sub(_meant, written)
    if scheme + meant + rest[len(written) :] == url:
        return url
    return scheme + meant + _ANYWHERE.sub(_meant, rest[len(written) :])


def _meant(match: re.Match[str]) -> str:
    inside = (match[1] or ".").lower()
    return _WORDS.get(inside, inside)
