"""Commands `services` and `run`."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Mapping

import click
import psutil

from bigdata_assets import settings as settings_module
from bigdata_assets.services.jars import fetch, pinned
from bigdata_assets.services.supervisor import ServiceError, Supervisor, holder, is_alive, read_state


@click.group()
def services() -> None:
    """The local engines alone."""


@services.command()
@click.option("--foreground", is_flag=True, help="Stay here and stop the engines on Ctrl-C.")
def up(foreground: bool) -> None:
    """Start the engines; returns when each has answered a query."""
    settings = settings_module.load()
    if not (settings.spark_is_local or settings.kafka_is_local or settings.cassandra_is_local):
        click.echo(
            f"nothing to start: SPARK_REMOTE is {settings.spark_remote}, KAFKA_BOOTSTRAP_SERVERS "
            f"{settings.kafka_servers} and CASSANDRA_CONTACT_POINTS {settings.cassandra_points}, which are not on this "
            "machine"
        )
        return
    if running := holder(settings.services_dir, "services"):
        raise click.ClickException(f"the engines are up already, kept by process {running}")
    if foreground:
        from bigdata_assets.services import stack

        with Supervisor(settings.services_dir, "services") as supervisor:
            for process in stack.engines(settings):
                supervisor.spawn(process)
                supervisor.await_ready(process)
                click.echo(f"{process.name} is ready")
            supervisor.all_started()
            supervisor.watch()
        return
    log = settings.services_dir / "logs" / "services.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "bigdata_assets.cli", "services", "up", "--foreground"],
            env={**os.environ, **settings.environment()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    while child.poll() is None:
        state = read_state(settings.services_dir, "services")
        processes = state.get("processes", {}) if state.get("pid") == child.pid else {}
        if state.get("all_started") and all(process["state"] == "ready" for process in processes.values()):
            _print_status(processes)
            return
        time.sleep(0.2)
    raise click.ClickException(log.read_text(errors="replace").strip().removeprefix("Error: "))


@services.command()
def status() -> None:
    """Which engines are up; exit code 1 where none or not all is."""
    settings = settings_module.load()
    processes: dict[str, dict[str, object]] = {}
    for name in ("services", "stack"):
        processes |= read_state(settings.services_dir, name).get("processes", {})
    _print_status(processes)
    if not processes or any(p["state"] != "ready" for p in processes.values()):
        sys.exit(1)


@services.command()
def down() -> None:
    """Stop the engines that `services up` started; returns when nothing of them is left."""
    settings = settings_module.load()
    state = read_state(settings.services_dir, "services")
    if not state:
        stack = read_state(settings.services_dir, "stack")
        click.echo(f"kept up by `bigdata-assets run`, process {stack['pid']}" if stack else "no engines are up")
        return
    supervisor = psutil.Process(state["pid"])
    supervisor.terminate()
    while is_alive(supervisor):
        time.sleep(0.1)
    click.echo("stopped")


@services.command()
def spark() -> None:
    """Become the Spark Connect server, without anything that keeps it up: for a container, whose engine does that."""
    from bigdata_assets.services.spark_connect import spark_connect

    settings = settings_module.load()
    (settings.services_dir / "logs").mkdir(parents=True, exist_ok=True)
    *cluster, server = spark_connect(settings)
    if cluster:
        raise ServiceError("SPARK_MASTER is standalone, which takes more than one process: use `services up`.")
    _become(server.command, server.environment)


@services.command("code-server")
@click.option("--host", default=settings_module.LOOPBACK, show_default=True, help="Address to listen on.")
@click.option("--port", default=4000, show_default=True, help="Port to listen on.")
def code_server(host: str, port: int) -> None:
    """Become the code server, for a webserver and a daemon elsewhere; runs that its last one left are ended."""
    from bigdata_assets.services import stack

    settings = settings_module.load()
    stack.prepare_dagster_home(settings, end_runs=False)
    if runs := stack.unfinished_runs(settings):
        # Beside the server, which this process is to become; what ends the one ends the other's container.
        multiprocessing.Process(target=stack.end_runs_once_served, args=(settings, port, runs)).start()
    # Not `dagster code-server`: that one stays, unusable, when the server it has started dies.
    command = [sys.executable, "-m", "dagster", "api", "grpc", "-h", host, "-p", str(port)]
    _become([*command, "-m", "bigdata_assets.definitions", "--location-name", stack.LOCATION], settings.environment())


@services.command("take-over-cassandra")
def take_over_cassandra() -> None:
    """Make CASSANDRA_USERNAME on a new node of yours, and close the login that every new node has."""
    from bigdata_assets.resources.keyspaces import CassandraError
    from bigdata_assets.services.cassandra import take_over

    try:
        take_over(settings_module.load())
    except CassandraError as error:
        raise click.ClickException(str(error)) from error


def _become(command: list[str], environment: Mapping[str, str | None]) -> None:
    merged = {**os.environ, **environment}
    os.execvpe(command[0], command, {n: value for n, value in merged.items() if value is not None})  # noqa: S606


@click.command()
@click.option("--materialize/--no-materialize", default=True, show_default=True, help="What is missing, at the start.")
def run(*, materialize: bool) -> None:
    """Everything: engines, first materialisation, the Dagster UI. Ctrl-C stops all of it."""
    from bigdata_assets.services import stack

    sys.exit(stack.run(settings_module.load(), materialize=materialize))


@click.command()
def jars() -> None:
    """Fetch the Java archives of the local engines, and Spark's for S3 where BIGDATA_STORAGE is there."""
    settings = settings_module.load()
    for engine in pinned():
        if engine != "s3" or settings.storage_is_s3:
            for path in fetch(engine, settings.jars_dir):
                click.echo(path.name)


def _print_status(processes: dict[str, dict[str, object]]) -> None:
    if not processes:
        click.echo("no engine is up")
        return
    click.echo(f"{'process':<16}{'state':<10}{'pid':<9}{'port':<7}log")
    for name, process in processes.items():
        click.echo(f"{name:<16}{process['state']:<10}{process['pid']:<9}{process['port'] or '-':<7}{process['log']}")
