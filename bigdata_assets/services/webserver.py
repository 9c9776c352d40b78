"""Dagster's webserver, with Dagster's own options, answering to its own names alone."""

import sys

from dagster_webserver import app
from dagster_webserver.cli import main
from dagster_webserver.webserver import DagsterWebserver
from starlette.middleware import Middleware

from bigdata_assets import settings
from bigdata_assets.services.own_hosts import OwnHosts


class GuardedWebserver(DagsterWebserver):
    """The webserver behind `OwnHosts`."""

    def build_middleware(self) -> list[Middleware]:
        hosts = settings.load().ui_host_names
        return [Middleware(OwnHosts, hosts=hosts), *super().build_middleware()]


if __name__ == "__main__":
    app.DagsterWebserver = GuardedWebserver  # type: ignore[misc]  # there is no argument for it
    sys.exit(main())
