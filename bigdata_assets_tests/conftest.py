"""Fixtures of all tests: settings of the session, its real engines, and a check that nothing is left.

`make test` runs several processes (pytest-xdist), each with a session, and so with engines, of its own.
"""

import contextlib
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from dagster._core.storage.defs_state.base import _current_storage

from bigdata_assets import settings as settings_module
from bigdata_assets.definitions import BRANCHES
from bigdata_assets.resources.kafka import KafkaResource
from bigdata_assets.resources.spark import SparkResource
from bigdata_assets.services.supervisor import free_port, read_state
from bigdata_assets.settings import PROJECT_ROOT, Settings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it
# Engines that live for minutes: with the second compiler Spark's server takes three times the processor time, 83 s for
# two small tables in place of 26.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m")

pytest_plugins = ["bigdata_assets_tests.drills"]


PATIENCE = 3 if os.environ.get("CI") else 1
"""CI's machine may be a shared one, a third as fast as a quiet one; what comes in time is not waited for any longer."""


def wait_for(condition: Callable[[], Any], within_s: float, what: str) -> Any:
    """The condition's value as soon as it is true; the test fails when that takes too long."""
    deadline = time.monotonic() + within_s * PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.05)
    return value


class Engines:
    """The local engines as a user has them: by the command line, in a process of their own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def command(self, *arguments: str, timeout_s: float = 180, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `bigdata-assets` with these settings."""
        return subprocess.run(
            [sys.executable, "-m", "bigdata_assets.cli", *arguments],
            env={**os.environ, **self.settings.environment(), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s * PATIENCE,
        )

    @property
    def state(self) -> dict[str, Any]:
        return read_state(self.settings.services_dir, "services")

    def ensure_up(self) -> None:
        """Start the engines where an earlier test has ended them, and wait for one that is being restarted."""
        if not self.state:
            result = self.command("services", "up")
            assert result.returncode == 0, result.stderr
        wait_for(self.ready, 120, "engines ready")

    def ready(self) -> bool:
        return bool(self.state) and all(process["state"] == "ready" for process in self.state["processes"].values())

    def pid(self, name: str) -> int:
        return int(self.state["processes"][name]["pid"])

    @contextlib.contextmanager
    def dead(self, name: str, port: int) -> Iterator[None]:
        """Kill an engine and keep it dead: its supervisor is held back, its port taken by one that never listens."""
        supervisor, place = psutil.Process(self.state["pid"]), socket.socket()
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        supervisor.suspend()
        try:
            old = self.pid(name)
            kill_9(old)
            # A process's last threads may keep its port open when it already counts as gone.
            wait_for(lambda: _bound(place, port), 30, f"port {port} is left")
            yield
        finally:
            place.close()
            supervisor.resume()
        wait_for(lambda: self.pid(name) != old and self.ready(), 120, f"{name} is back")

    def processes(self) -> list[psutil.Process]:
        """The supervisor and all below it."""
        if not (state := self.state):
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor = psutil.Process(state["pid"])
            return [supervisor, *supervisor.children(recursive=True)]
        return []

    def strays(self) -> list[psutil.Process]:
        """Processes with these settings that belong neither to the engines nor to this test session."""
        known = {process.pid for process in self.processes()} | {os.getpid()}
        known |= {process.pid for process in psutil.Process().children(recursive=True)}
        return [process for process in psutil.process_iter() if process.pid not in known and self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("BIGDATA_SERVICES") == str(self.settings.services_dir)
        except psutil.Error:
            return False


def _bound(place: socket.socket, port: int) -> bool:
    with contextlib.suppress(OSError):
        place.bind(("127.0.0.1", port))
        return True
    return False


def kill_9(pid: int) -> None:
    """End a process as the kernel would when memory is short, and wait until it is gone."""
    process = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive([process]), 10, f"{pid} is gone")


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie does not, and where init reaps no orphans it stays one."""
    left = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
    return left


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run of the tests share: samples are made once."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    (folder / "sources").mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of the session: free ports, and folders whose names have a space and a letter beyond ASCII."""
    given = settings_module.load()
    folder = tmp_path_factory.mktemp("Straße nach Süden")
    (folder / "sources").symlink_to(shared_folder(tmp_path_factory) / "sources")
    session = Settings(
        BIGDATA_SOURCES=given.sources,
        BIGDATA_STORAGE=str(folder / "storage"),
        DAGSTER_HOME=folder / "dagster",
        BIGDATA_SERVICES=folder / "services",
        BIGDATA_JARS=given.jars_dir,  # the jars of `make env`: not fetched again for every session
        SPARK_REMOTE=f"sc://localhost:{free_port()}",
        KAFKA_BOOTSTRAP_SERVERS=f"localhost:{free_port()}",
        CASSANDRA_CONTACT_POINTS=f"localhost:{free_port()}",
        BIGDATA_REPORTS_URL=f"http://127.0.0.1:{free_port()}",
        DAGSTER_WEBSERVER_PORT=free_port(),
    )
    session.dagster_home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SPARK_CONNECT_AUTHENTICATE_TOKEN", raising=False)
        for name, value in session.environment().items():
            patch.setenv(name, value)
        yield session


KINDS = ("unit", "integration", "browser")
BUDGET_MIN = 20 + 3 * (len(BRANCHES) - 3)
"""Of `make test` on two quiet cores: a branch more may take three minutes more."""


ALONE = {
    "test_soak": "soak",
    "test_standalone": "standalone",
    "test_s3": "s3",
    "test_services": "services",
    "test_big_cats": "big_cats",
}
"""Files whose tests keep one process busy for minutes, or share what takes minutes to make; at the end the other one
would have nothing to do."""


def kind(path: Path) -> str:
    return path.relative_to(Path(__file__).parent).parts[0]


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, and together what shares costly fixtures: a process takes one group after the other."""
    order = {name: number for number, name in enumerate(("browser", "trained", "sampled", *ALONE.values()))}

    def group(item: pytest.Item) -> str | None:
        names = set(getattr(item, "fixturenames", ()))
        if kind(item.path) == "unit":
            return item.path.stem
        if kind(item.path) == "browser":
            return "browser"
        if item.path.stem in ALONE:
            return ALONE[item.path.stem]
        return next((name for name in ("trained", "sampled") if name in names), None)

    for item in items:
        if name := group(item):
            item.add_marker(pytest.mark.xdist_group(name))
    last = len(order)
    items.sort(key=lambda item: last + 1 if kind(item.path) == "unit" else order.get(group(item) or "", last))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How long each kind of test took: from its first to its last test, and the sum over the processes."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for report in [r for reports in terminalreporter.stats.values() for r in reports if hasattr(r, "start")]:
        spans.setdefault(kind(PROJECT_ROOT / report.nodeid.partition("::")[0]), []).append((report.start, report.stop))
    for name in KINDS:
        if its := spans.get(name):
            first, last = min(start for start, _ in its), max(stop for _, stop in its)
            in_all = sum(stop - start for start, stop in its)
            terminalreporter.write_line(f"stage {name}: {last - first:.0f} s of wall time, {in_all:.0f} s of tests")
    terminalreporter.write_line(f"budget of all tests on two quiet cores: {BUDGET_MIN} min")


@pytest.fixture(scope="session")
def _engines(settings: Settings) -> Iterator[Engines]:
    if shutil.which("java") is None and not os.environ.get("CI"):
        pytest.skip("there is no Java")
    engines = Engines(settings)
    yield engines
    engines.command("services", "down")
    assert not engines.strays(), "`services down` left processes"


@pytest.fixture
def engines(_engines: Engines) -> Engines:
    """The session's engines, up and ready, whatever the test before did to them."""
    _engines.ensure_up()
    return _engines


@pytest.fixture
def spark_server(engines: Engines) -> Settings:
    """The settings of a running Spark Connect server, one for the whole session."""
    return engines.settings


@pytest.fixture
def kafka(engines: Engines) -> KafkaResource:
    """The running broker, one for the whole session; tests use topics of their own."""
    return KafkaResource(servers=engines.settings.kafka_servers)


@pytest.fixture
def spark(spark_server: Settings) -> Iterator[Any]:
    """A Spark session of this test alone."""
    resource = SparkResource(remote=spark_server.spark_remote)
    yield resource.spark_session
    resource.stop()


@pytest.fixture(autouse=True)
def _no_instance_of_an_earlier_test() -> None:
    """Dagster keeps the last instance's storage in a context variable, also when that instance is gone."""
    _current_storage.set(None)


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a process or an open Spark session behind; the session's engines may stay."""
    before = set(_children())
    sessions_before = {id(session) for session in _open_sessions()}
    yield
    ending = [child for child in _children() if child not in before]
    _, left = psutil.wait_procs(ending, timeout=5 * PATIENCE)
    assert not left, f"the test left processes: {[described(process) for process in left]}"
    if "_engines" in request.fixturenames:
        engines = request.getfixturevalue("_engines")
        psutil.wait_procs(engines.strays(), timeout=5 * PATIENCE)
        assert not (left := engines.strays()), f"the test left processes: {[described(process) for process in left]}"
    assert not [s for s in _open_sessions() if id(s) not in sessions_before], "the test left a Spark session open"


def _children() -> list[psutil.Process]:
    """This process's children, but for multiprocessing's own tracker, which lives as long as the process."""
    return [child for child in psutil.Process().children(recursive=True) if "resource_tracker" not in described(child)]


def described(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return f"{process.pid} {' '.join(process.cmdline())[:120]}"
    return f"{process.pid}"


_sessions: "weakref.WeakSet[Any] | None" = None
"""Spark's sessions as they are made; None before any could be."""


def _open_sessions() -> list[Any]:
    """Looking through all objects for them would take .15 s before and after each test; it is done once."""
    global _sessions  # noqa: PLW0603
    module = sys.modules.get("pyspark.sql.connect.session")
    if module is None:
        return []
    if _sessions is None:
        kind = module.SparkSession
        _sessions = sessions = weakref.WeakSet(item for item in gc.get_objects() if type(item) is kind)
        made = kind.__init__

        def noted(self: Any, *args: Any, **options: Any) -> None:
            made(self, *args, **options)
            sessions.add(self)

        kind.__init__ = noted
    return [session for session in _sessions if not session.is_stopped]


def log_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and ".log" in path.name]
