"""Dagster's webserver, with Dagster's own options, answering to its own names alone."""

import sys

from dagster_webserver import app
from dagster_webserver.cli import main
from dagster_webserver.webserver import DagsterWebserver
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from bigdata_assets import settings
from bigdata_assets.services.own_hosts import OwnHosts


class GuardedWebserver(DagsterWebserver):
    """The webserver behind `OwnHosts`, which takes queries by POST alone.

    A picture in any page asks by GET, with the right Host and without an Origin, and a query may be a mutation.
    """

    def build_middleware(self) -> list[Middleware]:
        hosts = settings.load().ui_host_names
        return [Middleware(OwnHosts, hosts=hosts), *super().build_middleware()]

    async def graphql_http_endpoint(self, request: Request) -> Response:
        if request.method != "POST" and "text/html" not in request.headers.get("Accept", ""):  # what GraphiQL is for
            return PlainTextResponse("Queries are taken by POST.", status_code=405)
        response: Response = await super().graphql_http_endpoint(request)
        return response


if __name__ == "__main__":
    app.DagsterWebserver = GuardedWebserver  # type: ignore[misc]  # there is no argument for it
    sys.exit(main())
