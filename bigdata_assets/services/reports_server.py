"""Serves BIGDATA_STORAGE/reports over HTTP on loopback, read-only, for the pictures in the Dagster UI."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from bigdata_assets import settings as settings_module
from bigdata_assets.services.supervisor import Process, port_answers
from bigdata_assets.settings import Settings

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


async def _add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers.update(HEADERS)
    return response


def application(folder: Path) -> Starlette:
    """The server: files below `folder`, no listing, no symbolic link out of it, no script on any page."""
    folder.mkdir(parents=True, exist_ok=True)
    return Starlette(
        routes=[Mount("/", StaticFiles(directory=folder))],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=_add_headers)],
    )


def reports_server(settings: Settings) -> Process | None:
    """The server as a process to keep up; none where reports are not in a local folder, or are served elsewhere."""
    url = urlsplit(settings.reports_url)
    if "://" in settings.storage or url.hostname not in ("127.0.0.1", "localhost"):
        return None
    port = url.port or 80
    return Process(
        name="reports",
        command=[sys.executable, "-m", __spec__.name],
        environment=settings.environment(),
        ready=lambda: port_answers(port),
        port=port,
        port_setting="BIGDATA_REPORTS_URL",
    )


if __name__ == "__main__":
    loaded = settings_module.load()
    uvicorn.run(
        application(Path(loaded.storage) / "reports"),
        host="127.0.0.1",
        port=urlsplit(loaded.reports_url).port or 80,
        log_level="warning",
    )
