"""Serves BIGDATA_STORAGE/reports over HTTP, read-only, for the pictures in the Dagster UI.

On loopback; as a script, on the address that is its argument: a container is not reached on its loopback.
"""

import sys
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from bigdata_assets import settings as settings_module
from bigdata_assets.services.own_hosts import OwnHosts
from bigdata_assets.services.supervisor import Process, port_answers
from bigdata_assets.settings import Settings

HEADERS = [
    ("Content-Security-Policy", "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
]


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
    folder = Path(loaded.storage) / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    uvicorn.run(
        # Files below the folder: no listing, no symbolic link out of it.
        Starlette(
            routes=[Mount("/", StaticFiles(directory=folder))],
            middleware=[Middleware(OwnHosts, hosts=loaded.ui_host_names)],
        ),
        host=sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1",
        port=urlsplit(loaded.reports_url).port or 80,
        log_level="warning",
        headers=HEADERS,
    )
