"""All of it on one machine, as `make run` has it: engines, first materialisation, reports, Dagster's UI and daemon."""

import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import dagster as dg
import psutil
from filelock import FileLock

from bigdata_assets import storage
from bigdata_assets.resources.kafka import KafkaResource, KafkaUnreachableError
from bigdata_assets.run_launcher import PROCESS, process_lives
from bigdata_assets.services import template
from bigdata_assets.services.cassandra import cassandra
from bigdata_assets.services.kafka import kafka
from bigdata_assets.services.reports_server import reports_server
from bigdata_assets.services.spark_connect import spark_connect
from bigdata_assets.services.supervisor import (
    POLL_S,
    Process,
    Supervisor,
    free_port,
    holder,
    is_alive,
    port_answers,
    refuse_busy_port,
)
from bigdata_assets.settings import REFRESH_SENSOR, Settings, SettingsError

IN_PROGRESS = [
    dg.DagsterRunStatus.NOT_STARTED,  # made by a `materialize` that was ended before the run began
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

LOCATION = "bigdata_assets"
"""The code location's name."""
RELEASE_ATTEMPTS = 30
DAEMON_HEALTH = '{ instance { daemonHealth { daemonStatus(daemonType: "SENSOR") { healthy } } } }'


def engines(settings: Settings) -> Iterator[Process]:
    """The engines that this machine has to run itself."""
    if settings.kafka_is_local:
        if _another_broker_answers(settings):
            click.echo(f"using the Kafka broker that answers at {settings.kafka_servers}: it is not of this project")
        else:
            yield kafka(settings)
    if settings.cassandra_is_local:
        if "cassandra_points" in settings.model_fields_set and port_answers(settings.cassandra_port):
            click.echo(
                f"using the Cassandra node that answers at {settings.cassandra_points}: it is not of this project"
            )
        else:
            yield cassandra(settings)
    if settings.spark_is_local:
        yield from spark_connect(settings)


def _another_broker_answers(settings: Settings) -> bool:
    """Whether a broker that the user has named is there already, and is not one that this project has made."""
    if "kafka_servers" not in settings.model_fields_set:
        return False
    try:
        return KafkaResource.of(settings).cluster_id() != settings.own_kafka_cluster
    except KafkaUnreachableError:
        return False


def run(settings: Settings, *, materialize: bool = True) -> int:
    """Bring everything up, the UI first, materialise what is missing, go on until a signal; nothing is left behind.

    Raises:
        ServiceError: a port is taken, or a process does not come up or keeps crashing.
        SettingsError: the storage is the user's own, and the sources were left to be the sample.
        StorageError: the storage cannot be used.
    """
    if settings.sample_refusal:
        raise SettingsError(settings.sample_refusal)
    storage.check(settings.storage)
    with Supervisor(settings.services_dir, "stack") as supervisor:
        own_engines: list[Process] = []
        if not holder(settings.services_dir, "services"):
            supervisor.take("services")  # before an engine's files are touched: `services up` beside us is refused
            own_engines += engines(settings)
        reports = [process for process in [reports_server(settings)] if process]
        code_server, webserver, daemon = user_interface(settings)
        for process in [*own_engines, *reports, webserver]:
            refuse_busy_port(process)
        prepare_dagster_home(settings)
        click.echo(f"starting {', '.join(['the UI', *(process.name for process in own_engines)])} ...")
        # What takes longest first: the webserver waits for the code server.
        supervisor.spawn(code_server)
        for process in own_engines:
            supervisor.spawn(process)
            if process.awaited:
                supervisor.await_ready(process)
        supervisor.await_ready(code_server)
        for process in [webserver, *reports]:
            supervisor.spawn(process)
        supervisor.await_ready(webserver)
        if not supervisor.stopping:
            click.echo(f"\n  Dagster UI: http://127.0.0.1:{settings.ui_port}   (Ctrl-C stops everything)\n")
            _hold_refresh(settings)
        supervisor.spawn(daemon)
        for process in [*own_engines, daemon, *reports]:
            supervisor.await_ready(process)
        if not supervisor.stopping:
            _materialize_missing(supervisor, settings, wanted=materialize)
        try:
            supervisor.watch()
        finally:
            supervisor.stopping = True
    end_unfinished_runs(settings, "the services were stopped")
    return 0


def _materialize_missing(supervisor: Supervisor, settings: Settings, *, wanted: bool) -> None:
    """What is missing, while the sensor that refreshes marts and reports is held back: they are made here too."""
    failed = 0
    if wanted:
        click.echo(f"materialising what is missing, from the {settings.sources} sources ...")
        command = [sys.executable, "-m", "bigdata_assets.cli", "materialize", "--missing"]
        failed = supervisor.run(command, settings.environment())
    # Where we are being stopped, one attempt: the next `make run` lets the sensor go otherwise.
    held = _release_refresh(settings, 1 if supervisor.stopping else RELEASE_ATTEMPTS)
    if supervisor.stopping:
        return
    if held:
        click.echo(f"the sensor `{REFRESH_SENSOR}` could not be started again: switch it on in the UI", err=True)
    if failed:
        click.echo("some assets could not be materialised; the UI shows which and why", err=True)
    elif wanted:
        click.echo("everything is materialised; README.md has what to look at first")


def _hold_refresh(settings: Settings) -> None:
    """Stop the sensor that refreshes what is made of others, unless somebody has; a file says that it was us."""
    sensor = _sensor(settings.ui_port, "query", "sensorOrError")
    if sensor and sensor["sensorState"]["status"] == "RUNNING":
        _held(settings).touch()
        graphql(settings.ui_port, "mutation ($id: String!) { stopSensor(id: $id) { __typename } }", id=sensor["id"])


def _release_refresh(settings: Settings, attempts: int) -> bool:
    """Give a sensor that we hold, or that a killed run of ours held, its default status; whether it stays stopped."""
    for number in range(attempts if _held(settings).exists() else 0):
        if number:
            time.sleep(1)  # the code server may be coming back
        sensor = _sensor(settings.ui_port, "mutation", "resetSensor")
        if sensor and sensor["sensorState"]["status"] == "RUNNING":
            _held(settings).unlink()
            break
    return _held(settings).exists()


def _held(settings: Settings) -> Path:
    return settings.dagster_home / "refresh.held"


def _sensor(port: int, kind: str, field: str) -> Any:
    """The refreshing sensor's id and state, as a query or a mutation gives it; None where that fails."""
    selector = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__", "sensorName": REFRESH_SENSOR}
    fields = "... on Sensor { id sensorState { status } }"
    query = f"{kind} ($s: SensorSelector!) {{ {field}(sensorSelector: $s) {{ {fields} }} }}"
    answer = json.loads(graphql(port, query, s=selector) or "{}")
    return (answer.get("data") or {}).get(field) or None


def prepare_dagster_home(settings: Settings, *, end_runs: bool = True) -> None:
    """Write dagster.yaml where there is none; `end_runs`: end the runs that a killed instance left as running."""
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    # One at a time: of two commands that are the first to open an instance, SQLite refuses one its tables.
    with FileLock(home / ".lock"):
        if not (home / "dagster.yaml").exists():
            (home / "dagster.yaml").write_text(template("dagster.yaml", max_concurrent=settings.max_concurrent))
        with dg.DagsterInstance.from_config(str(home)):
            pass
    if end_runs:
        if "run_launcher" not in (home / "dagster.yaml").read_text():
            click.echo(f"{home}/dagster.yaml does not have runs noticed whose process died: see CHANGELOG.md", err=True)
        end_unfinished_runs(settings, "its process ended with the services that ran it")


def unfinished_runs(settings: Settings) -> list[str]:
    """Ids of the runs that are said to be under way."""
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        return [run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS))]


def end_runs_once_served(settings: Settings, port: int, runs: list[str]) -> None:
    """Wait for the code server, then end those of the runs that no process works on.

    Not before: the daemon tries a failed run again within seconds and once alone, which takes the code server.
    """
    while not _code_server_answers(port):
        time.sleep(POLL_S)
    end_unfinished_runs(settings, "its process ended with its code server", runs)


def end_unfinished_runs(settings: Settings, why: str, only: list[str] | None = None) -> None:
    """Mark runs as failed or cancelled that no process works on any more: they would stay STARTED for ever.

    Of all runs, or of those named.

    Cancelled are those of a `bigdata-assets materialize`: whoever ended it knows, and no alert is to tell of it at the
    next start. The others the daemon tries again. Only called while none of the supervisor's processes lives; a
    `materialize` beside it may.
    """
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        for run in instance.get_runs(dg.RunsFilter(run_ids=only, statuses=IN_PROGRESS)) if only != [] else []:
            if process_lives(instance, run):
                continue
            if run.status == dg.DagsterRunStatus.CANCELING or PROCESS in run.tags:
                instance.report_run_canceled(run, f"Marked as cancelled: {why}.")
            else:
                instance.report_run_failed(run, f"Marked as failed: {why}.")


def user_interface(settings: Settings) -> Iterator[Process]:
    """Code server, webserver and daemon.

    The code server is a process of its own, shared by the other two: when it is killed it comes back on the same port
    and both go on; one that they had started themselves would stay unreachable.
    """
    code_port = free_port()
    workspace = settings.services_dir / "workspace.yaml"
    location = {"host": "127.0.0.1", "port": code_port, "location_name": LOCATION}
    workspace.write_text(json.dumps({"load_from": [{"grpc_server": location}]}))  # JSON is YAML
    environment = settings.environment()
    workers: list[psutil.Process] = []

    def has_worker(pid: int) -> bool:
        """Whether the code server's own worker lives; the server itself does not restart it."""
        if not any(map(is_alive, workers)):  # children() reads all of the machine's processes: not five times a second
            workers[:] = psutil.Process(pid).children()
        return any(map(is_alive, workers))

    dagster = [sys.executable, "-m", "dagster"]
    guarded_webserver = [sys.executable, "-m", "bigdata_assets.services.webserver"]
    code = ["-m", "bigdata_assets.definitions", "-h", "127.0.0.1", "-p", str(code_port)]
    yield Process(
        "code-server",
        [*dagster, "code-server", "start", *code, "--location-name", LOCATION],
        environment=environment,
        ready=lambda: _code_server_answers(code_port),
        alive=has_worker,
    )
    yield Process(
        "webserver",
        [*guarded_webserver, "-h", "127.0.0.1", "-p", str(settings.ui_port), "-w", str(workspace)],
        environment=environment,
        ready=lambda: "RepositoryConnection" in graphql(settings.ui_port, "{ repositoriesOrError { __typename } }"),
        port=settings.ui_port,
        port_setting="DAGSTER_WEBSERVER_PORT",
    )
    yield Process(
        "daemon",
        [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-w", str(workspace)],
        environment=environment,
        ready=lambda: '"healthy": true' in graphql(settings.ui_port, DAEMON_HEALTH),
    )


def _code_server_answers(port: int) -> bool:
    from dagster._grpc.client import DagsterGrpcClient

    if not port_answers(port):
        return False
    try:
        return DagsterGrpcClient(host="127.0.0.1", port=port).health_check_query() == "SERVING"
    except Exception:  # noqa: BLE001 -- any failure means: not yet
        return False


def graphql(port: int, query: str, **variables: Any) -> str:
    """The webserver's answer as JSON text; empty while there is none."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 -- a fixed loopback address
            return json.dumps(json.load(answer))
    except (OSError, ValueError):
        return ""
