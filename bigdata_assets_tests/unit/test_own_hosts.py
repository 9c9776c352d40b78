"""Servers without a login answer only to names of their own."""

import asyncio

import pytest

from bigdata_assets.services.own_hosts import OwnHosts
from bigdata_assets.settings import load

HOSTS = load({"BIGDATA_UI_HOSTS": "ui.example.org, Other.example"}).ui_host_names


async def app(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"answered"})


def asked(host, origin=None, kind="http"):
    sent = []
    headers = [(b"host", host.encode())] if host is not None else []
    headers += [(b"origin", origin.encode())] if origin is not None else []

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "headers": headers, "method": "POST", "path": "/graphql"}
    asyncio.run(OwnHosts(app, HOSTS)(scope, None, send))
    return sent[0].get("status", sent[0]["type"])


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:3000", None),
        ("localhost:3000", "http://localhost:3000"),
        ("LOCALHOST:3000", "http://LocalHost:3000"),
        ("[::1]:3000", None),
        ("ui.example.org", "https://ui.example.org"),
        ("other.example", None),
        # A proxy that asks by the loopback's name for a browser that knows it by its own.
        ("127.0.0.1:3000", "https://ui.example.org"),
    ],
)
def test_its_own_names_are_answered(host, origin):
    assert asked(host, origin) == 200


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example", None),
        ("evil.example:3000", "http://evil.example:3000"),
        ("127.0.0.1.evil.example", None),
        ("localhost.evil.example:3000", None),
        ("127.0.0.1:3000@evil.example", None),
        ("127.0.0.1:3000", "http://evil.example"),
        ("127.0.0.1:3000", "null"),
        ("127.0.0.1:3000", "http://127.0.0.1:8888"),
        ("127.0.0.1:3000", ""),
        ("127.0.0.1:3000", "http://["),
        ("sub.ui.example.org", None),
        ("", None),
        (None, None),
        ("[::1", None),
    ],
)
def test_others_are_refused(host, origin):
    assert asked(host, origin) == 403
    assert asked(host, origin, "websocket") == "websocket.close"


def test_what_is_no_request_passes():
    async def lifespan(_scope, _receive, send):
        await send({"type": "lifespan.startup.complete"})

    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(OwnHosts(lifespan, hosts=[])({"type": "lifespan"}, None, send))
    assert sent
