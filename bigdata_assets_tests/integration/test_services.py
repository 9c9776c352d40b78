"""The local engines, really started, killed and stopped. Tests run in file order and share one Spark Connect server."""

import contextlib
import os
import platform
import shutil
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import psutil
import pytest
from dagster._core.events import EngineEventData
from pyspark.errors.exceptions.connect import SparkConnectGrpcException
from pyspark.sql import SparkSession
from pyspark.sql.functions import udf

from bigdata_assets import run_launcher
from bigdata_assets.run_launcher import PROCESS
from bigdata_assets.services import jars, stack
from bigdata_assets.services.reports_server import reports_server
from bigdata_assets.services.supervisor import end_marked, free_port, port_answers
from bigdata_assets.settings import Settings
from bigdata_assets_tests.conftest import Engines, alive, described, kill_9, log_files, wait_for
from bigdata_assets_tests.integration.conftest import Project
from bigdata_assets_tests.stack import Stack

pytestmark = pytest.mark.integration

LOOPBACK = {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def python_workers(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Spark's Python workers among them; one that has just ended has no command line any more."""
    return [process for process in alive(processes) if "pyspark.worker" in described(process)]


def answers(remote: str) -> bool:
    session = SparkSession.builder.remote(remote).create()
    try:
        return [row[0] for row in session.sql("SELECT 1").collect()] == [1]
    finally:
        session.stop()


@pytest.mark.parametrize("token", ["not-the-token", None], ids=["wrong", "none"])
def test_a_client_without_the_token_is_refused(
    spark_server: Settings, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    monkeypatch.delenv("SPARK_CONNECT_AUTHENTICATE_TOKEN", raising=False)
    if token:
        monkeypatch.setenv("SPARK_CONNECT_AUTHENTICATE_TOKEN", token)
    started = time.monotonic()
    with pytest.raises(SparkConnectGrpcException, match="UNAUTHENTICATED"):
        answers(spark_server.spark_remote)
    assert time.monotonic() - started < 10


def test_a_session_leaves_the_token_out_of_the_environment(spark: SparkSession) -> None:
    """What this process starts would take it for its own server's: a second cluster would have the first's."""
    assert spark.range(1).count() == 1
    assert "SPARK_CONNECT_AUTHENTICATE_TOKEN" not in os.environ


@pytest.mark.parametrize("name", ["spark-connect", "kafka", "cassandra"])
def test_the_server_listens_on_loopback_only(engines: Engines, name: str) -> None:
    connections = psutil.Process(engines.pid(name)).net_connections("tcp")
    listening = [connection.laddr for connection in connections if connection.status == psutil.CONN_LISTEN]
    settings = engines.settings
    ports = {"spark-connect": settings.spark_port, "kafka": settings.kafka_port, "cassandra": settings.cassandra_port}
    port = ports[name]
    assert port in {address.port for address in listening}
    assert {address.ip for address in listening} <= LOOPBACK


def test_the_token_is_seen_by_nobody_else(engines: Engines, spark: SparkSession) -> None:
    @udf("string")
    def environment(_number: int) -> str:
        import os

        return ",".join(os.environ)

    seen = spark.range(2).select(environment("id")).collect()
    assert all("TOKEN" not in row[0] for row in seen)
    server = psutil.Process(engines.pid("spark-connect"))
    workers = python_workers(server.children(recursive=True))
    assert workers
    found = []
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            found.append(worker.environ())
    assert found
    assert all("SPARK_CONNECT_AUTHENTICATE_TOKEN" not in environ for environ in found)

    file = engines.settings.token_file
    secret = file.read_bytes().strip()
    assert len(secret) >= 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not [path for path in log_files(engines.settings.services_dir) if secret in path.read_bytes()]
    for process in psutil.process_iter():
        try:
            assert secret.decode() not in " ".join(process.cmdline())
        except psutil.Error:
            continue  # it has ended meanwhile


def test_a_second_up_is_refused(engines: Engines) -> None:
    pid = engines.state["pid"]
    for arguments in (["services", "up"], ["services", "up", "--foreground"]):
        result = engines.command(*arguments)
        assert result.returncode == 1
        assert "already" in result.stderr
    assert engines.state["pid"] == pid
    assert engines.command("services", "status").returncode == 0


def test_up_beside_a_running_stack_is_refused(settings: Settings, tmp_path: Path) -> None:
    """The broker is elsewhere, so that the files of Spark's server are the first that another one would touch."""
    own = {
        "services_dir": tmp_path / "services",
        "spark_remote": f"sc://localhost:{free_port()}",
        "kafka_servers": "kafka.invalid:9092",
        "cassandra_points": "cassandra.invalid",
        "reports_url": f"http://127.0.0.1:{free_port()}",
        "ui_port": free_port(),
    }
    project = Project(tmp_path, settings.model_copy(update=own))
    running = Stack(project, tmp_path / "stack.log", "--no-materialize")
    try:
        running.wait_for(lambda: port_answers(project.settings.spark_port), 120, "Spark's server listens")
        in_use = tmp_path / "services" / "spark" / "scratch" / "shuffle file"
        in_use.touch()
        printed, _ = (up := project.cli("services", "up")).communicate(timeout=120)
        assert in_use.exists(), printed
        assert up.returncode == 1
        assert f"the engines are up already, kept by process {running.process.pid}" in printed
    finally:
        running.kill()
        end_marked(f"{project.settings.services_dir}:stack")


def test_a_busy_port_is_named(engines: Engines, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        result = engines.command(
            *("services", "up"),
            BIGDATA_SERVICES=str(tmp_path / "other"),
            SPARK_REMOTE=f"sc://localhost:{port}",
            KAFKA_BOOTSTRAP_SERVERS="kafka.invalid:9092",
            CASSANDRA_CONTACT_POINTS="cassandra.invalid",
        )
    assert result.returncode == 1
    assert f"port {port} is taken" in result.stderr
    assert "SPARK_REMOTE" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_server_elsewhere_is_not_started_here(engines: Engines, tmp_path: Path) -> None:
    result = engines.command(
        *("services", "up"),
        BIGDATA_SERVICES=str(tmp_path / "other"),
        SPARK_REMOTE="sc://spark.invalid:15002",
        KAFKA_BOOTSTRAP_SERVERS="kafka.invalid:9092",
        CASSANDRA_CONTACT_POINTS="cassandra.invalid",
    )
    assert result.returncode == 0
    assert "nothing to start" in result.stdout
    assert not (tmp_path / "other" / "services.json").exists()


def test_a_corrupt_jar_is_fetched_again_by_two_at_once(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "jars"
    folder.mkdir()
    jars.fetch("spark", settings.jars_dir)
    for path in settings.jars_dir.glob("*.jar"):
        shutil.copyfile(path, folder / path.name)
    spoilt = folder / "commons-pool2-2.13.1.jar"
    whole = spoilt.read_bytes()
    spoilt.write_bytes(whole[:1000])
    environment = {**os.environ, "BIGDATA_JARS": str(folder)}
    command = [sys.executable, "-m", "bigdata_assets.cli", "jars"]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert spoilt.read_bytes() == whole
    assert not list(folder.glob(".fetch-*"))


def test_a_download_that_is_not_the_pinned_file_is_refused(tmp_path: Path) -> None:
    other = jars.Jar("org.apache.commons", "commons-pool2", "2.13.1", "0" * 64)
    with pytest.raises(jars.JarsError, match=r"commons-pool2-2\.13\.1\.jar .* not have the pinned SHA-256"):
        jars._fetch_with_ivy([other], tmp_path, "spark")
    assert not list(tmp_path.glob("*.jar"))


def test_a_missing_java_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(jars.JarsError, match=r"Java 17 or newer is needed, .* install openjdk-17-jre-headless"):
        jars.require_java()


def test_reports_are_served_read_only(settings: Settings, tmp_path: Path) -> None:
    reports = Path(settings.storage) / "reports"
    (reports / "sub").mkdir(parents=True, exist_ok=True)
    (reports / "sub" / "page.html").write_text("<p>figures</p>")
    outside = tmp_path / "outside.txt"
    outside.write_text("not for reading")
    (reports / "link.txt").symlink_to(outside)
    url = f"http://127.0.0.1:{free_port()}"
    process = reports_server(settings.model_copy(update={"reports_url": url}))
    assert process is not None
    environment = {**os.environ, **{k: v for k, v in process.environment.items() if v}, "BIGDATA_REPORTS_URL": url}
    server = subprocess.Popen(process.command, env=environment)
    try:
        wait_for(lambda: port_answers(urlsplit(url).port or 0), 30, "reports are served")
        with urllib.request.urlopen(f"{url}/sub/page.html") as answer:
            assert answer.read() == b"<p>figures</p>"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert "script-src" not in answer.headers["Content-Security-Policy"]
        for path in ("/", "/sub/", "/link.txt", "/..%2f..%2fservices/spark-connect.token", "/%2e%2e/storage"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(url + path)
        with pytest.raises(urllib.error.HTTPError, match="405"):
            urllib.request.urlopen(urllib.request.Request(f"{url}/sub/page.html", b"x", method="PUT"))
        listening = [c.laddr.ip for c in psutil.Process(server.pid).net_connections("tcp") if c.status == "LISTEN"]
        assert listening == ["127.0.0.1"]
    finally:
        server.terminate()
        server.wait(20)
        (reports / "link.txt").unlink()


def test_only_runs_without_a_process_are_ended(settings: Settings) -> None:
    home = settings.dagster_home.with_name("dagster of some runs")
    home.mkdir()
    own = settings.model_copy(update={"dagster_home": home})
    stack.prepare_dagster_home(own)
    worker = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:

            def started(pid: int = 0, tag: str = "") -> dg.DagsterRun:
                tags = {PROCESS: tag} if tag else None
                run = instance.create_run_for_job(dg.GraphDefinition(name="job").to_job(), tags=tags)
                if pid:
                    pid_of = {"pid": dg.MetadataValue.text(str(pid))}
                    instance.report_engine_event("parent process", run, EngineEventData(metadata=pid_of))
                begun = dg.DagsterEvent(dg.DagsterEventType.PIPELINE_START.value, job_name=run.job_name)
                instance.report_dagster_event(begun, run.run_id)
                return instance.get_run_by_id(run.run_id)  # type: ignore[return-value]

            here = platform.node()
            expected = [
                (started(dead.pid), "NOT_FOUND", "FAILURE"),
                (started(worker.pid), "RUNNING", "STARTED"),
                (started(), "RUNNING", "FAILURE"),  # nobody has said who executes it: run monitoring gives it time
                (started(tag=f"{dead.pid}@{here}"), "NOT_FOUND", "CANCELED"),
                (started(tag=f"{worker.pid}@{here}"), "RUNNING", "STARTED"),
                (started(tag=f"{dead.pid}@a name of before"), "NOT_FOUND", "CANCELED"),
                (
                    started(worker.pid, f"{dead.pid}@{here}"),
                    "RUNNING",
                    "STARTED",
                ),  # made again, with the first one's tags
            ]
            stopped = started(dead.pid)
            instance.report_run_canceling(stopped)
            for run, health, _ in expected:
                assert instance.run_launcher.check_run_worker_health(run).status.value == health
            stack.end_unfinished_runs(own, "test")
            for run, _, status in [*expected, (stopped, "", "CANCELED")]:
                assert instance.get_run_by_id(run.run_id).status.value == status  # type: ignore[union-attr]
            with pytest.MonkeyPatch.context() as patch:  # another process, with the number of one that is gone
                patch.setattr(run_launcher, "CLOCK_S", -3_600)
                assert run_launcher.process_lives(instance, expected[1][0]) is False
                patch.setattr(run_launcher, "SqliteRunStorage", ())  # as if other machines shared the storage
                assert run_launcher.process_lives(instance, expected[5][0]) is True
    finally:
        worker.communicate(timeout=10)


def test_a_killed_server_comes_back(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    old = engines.pid("spark-connect")
    kill_9(old)
    # The supervisor may still say that the killed one is ready.
    wait_for(lambda: engines.pid("spark-connect") != old and engines.ready(), 90, "the server is back")
    monkeypatch.setenv("SPARK_CONNECT_AUTHENTICATE_TOKEN", engines.settings.token() or "")
    assert answers(engines.settings.spark_remote)


def test_down_leaves_nothing(engines: Engines) -> None:
    processes = engines.processes()
    assert len(processes) >= 2
    result = engines.command("services", "down", timeout_s=30)
    assert result.returncode == 0, result.stderr
    assert not alive(processes)
    assert not port_answers(engines.settings.spark_port)
    assert engines.command("services", "status").returncode == 1


def test_a_killed_supervisor_leaves_nothing_and_can_start_again(engines: Engines, spark: SparkSession) -> None:
    spark.range(2).select(udf(str)("id")).collect()  # Python workers are there to be left behind
    processes = engines.processes()
    assert python_workers(processes)
    kill_9(engines.state["pid"])
    wait_for(lambda: not alive(processes), 10, "all are gone")
    assert engines.state == {}
    assert engines.command("services", "status").returncode == 1
    engines.ensure_up()
