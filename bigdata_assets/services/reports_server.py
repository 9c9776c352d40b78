"""Serves BIGDATA_STORAGE/reports over HTTP, read-only, for the pictures in the Dagster UI.

On loopback; as a script, on the address that is its argument: a container is not reached on its loopback.
"""

import mimetypes
import sys
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from bigdata_assets import settings as settings_module
from bigdata_assets.services.own_hosts import OwnHosts
from bigdata_assets.services.supervisor import Process, port_answers
from bigdata_assets.settings import Settings
from bigdata_assets.storage import StorageError, place

HEADERS = [
    ("Content-Security-Policy", "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
]


def reports_server(settings: Settings) -> Process | None:
    """The server as a process to keep up; none where reports are served elsewhere."""
    url = urlsplit(settings.reports_url)
    if url.hostname not in ("127.0.0.1", "localhost"):
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


def served(storage: str) -> BaseRoute:
    """Files below the storage's reports: no listing, no symbolic link out of the folder."""
    if "://" not in storage:
        folder = Path(storage) / "reports"
        folder.mkdir(parents=True, exist_ok=True)
        return Mount("/", StaticFiles(directory=folder))

    def read(request: Request) -> Response:
        """One object, whole: a page has megabytes. Starlette calls it in a thread."""
        name = request.path_params["name"]
        kind, _ = mimetypes.guess_type(name)  # of a folder none, which some stores have as an empty object
        if kind is None or {"", ".", ".."} & set(name.split("/")):
            return Response(status_code=404)
        try:
            body = (place(storage) / "reports" / name).read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            return Response(status_code=404)
        except StorageError as error:
            return Response(str(error), status_code=503)
        return Response(body, media_type=kind)

    return Route("/{name:path}", read)


if __name__ == "__main__":
    loaded = settings_module.load()
    uvicorn.run(
        Starlette(routes=[served(loaded.storage)], middleware=[Middleware(OwnHosts, hosts=loaded.ui_host_names)]),
        host=sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1",
        port=urlsplit(loaded.reports_url).port or 80,
        log_level="warning",
        headers=HEADERS,
    )
