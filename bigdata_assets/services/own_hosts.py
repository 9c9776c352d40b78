"""Servers that ask nobody who they are answer only those who call them by a name of their own.

A page in the user's browser may have its own name resolve to 127.0.0.1 (DNS rebinding), or just send a form there: it
could then launch runs and read tables by the UI's GraphQL API. Its own name stands in the Host header of the first, and
in the Origin header of the second.
"""

from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")


class OwnHosts:
    """ASGI middleware: 403 for requests and web sockets of other names.

    Args:
        app: that is guarded.
        hosts: names, without ports, beside those of the loopback.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self.app = app
        self.hosts = {*LOOPBACK_NAMES, *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and (why := self._refusal(Headers(scope=scope))):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": "host"})
            else:
                await PlainTextResponse(why, status_code=403)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _refusal(self, headers: Headers) -> str:
        host, origin = headers.get("host", ""), headers.get("origin")
        if _parts(f"//{host}").hostname not in self.hosts:
            return f"This server does not answer to the name {host[:200]!r}. Add it to BIGDATA_UI_HOSTS if it is yours."
        # A page of another port of this machine is another's too.
        if origin is not None and _parts(origin).netloc.lower() != host.lower() and not self._is_named(origin):
            return f"A page of {origin[:200]!r} may not call this server."
        return ""

    def _is_named(self, origin: str) -> bool:
        """Whether a proxy's name was set for it, which then asks us by another one."""
        return _parts(origin).hostname in self.hosts.difference(LOOPBACK_NAMES)


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # such as a bracket that is not closed
        return urlsplit("")
