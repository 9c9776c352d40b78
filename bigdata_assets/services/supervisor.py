# ruff: noqa: PLW1509 -- preexec_fn is unsafe beside threads; the supervisor has none.
"""Starts local processes, waits until each is ready, restarts what crashes, and leaves nothing behind.

A process's readiness is a real request, awaited, never a pause. Processes run in groups of their own, are killed by the
kernel when the supervisor dies (Linux), and carry a mark in their environment, by which left-overs of a supervisor that
was killed are found and ended by the next one.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

MARK = "BIGDATA_SUPERVISED_BY"
POLL_S = 0.2
STOP_GRACE_S = 10
MAX_RESTARTS = 5
RESTART_WINDOW_S = 300
_PR_SET_PDEATHSIG = 1


class ServiceError(RuntimeError):
    """A process could not be started or kept up; the message says which, why, and what to do."""


@dataclass(frozen=True)
class Process:
    """A process to keep up.

    Attributes:
        environment: added to this process's own; None takes a variable away.
        ready: whether it answers a real request; called again and again, must return within seconds.
        alive: whether it is as it should be while it runs, beyond its process being there.
        port: checked to be free before the start; the message of a busy one names `port_setting`.
        awaited: whether what is started after it needs it.
    """

    name: str
    command: list[str]
    ready: Callable[[], bool]
    environment: Mapping[str, str | None] = field(default_factory=dict)
    port: int = 0
    port_setting: str = ""
    ready_within_s: float = 120
    awaited: bool = False
    alive: Callable[[int], bool] = lambda _pid: True


class Supervisor:
    """Keeps processes up; used as a context, it stops them all at the end."""

    def __init__(self, folder: Path, name: str) -> None:
        """Take the lock of `folder` and end what an earlier supervisor of this name left.

        Raises:
            ServiceError: another supervisor of this name is at work there.
        """
        self.folder = folder
        self.name = name
        self.stopping = False
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "logs").mkdir(exist_ok=True)
        self._lock = _locked(folder / f"{name}.lock")
        self._mark = f"{folder}:{name}"
        end_marked(self._mark)
        self._processes: dict[str, Process] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._restarts: dict[str, list[float]] = {}
        self._states: dict[str, str] = {}
        self._all_started = False

    def __enter__(self) -> "Supervisor":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Set even where it was inherited as ignored, as a shell's background job inherits SIGINT.
            signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_error: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not cut the stopping short
        for name in reversed(list(self._running)):
            _end_group(self._running.pop(name))
        end_marked(self._mark)
        self._state_path.unlink(missing_ok=True)
        self._lock.close()

    def start(self, process: Process) -> None:
        """Start a process and wait until it is ready.

        Raises:
            ServiceError: its port is taken, it exits, or it is not ready in time.
        """
        self.spawn(process)
        self.await_ready(process)

    def spawn(self, process: Process) -> None:
        """Start a process, without waiting for it.

        Raises:
            ServiceError: its port is taken.
        """
        if process.port and not port_is_free(process.port):
            raise ServiceError(
                f"{process.name}: port {process.port} is taken by another program; end that, or set "
                f"{process.port_setting} to a free one."
            )
        self._processes[process.name] = process
        self._spawn(process)

    def all_started(self) -> None:
        """Say in the state file that no further process will be started."""
        self._all_started = True
        self._write_state()

    def run(self, command: list[str], environment: Mapping[str, str | None]) -> int:
        """Run a command to its end, in the foreground, ended with everything else on a signal; its exit code."""
        child = subprocess.Popen(
            command, env=self._environment(environment), preexec_fn=_in_own_group, stdin=subprocess.DEVNULL
        )
        while child.poll() is None and not self.stopping:
            time.sleep(POLL_S)
            self._revive()
        if child.poll() is None:
            _end_group(child)
        return child.returncode

    def watch(self) -> None:
        """Keep the processes up until a signal asks to stop.

        Raises:
            ServiceError: one of them keeps crashing.
        """
        while not self.stopping:
            time.sleep(POLL_S)
            self._revive()

    def log_path(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    @property
    def _state_path(self) -> Path:
        return self.folder / f"{self.name}.json"

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping = True

    def _environment(self, extra: Mapping[str, str | None]) -> dict[str, str]:
        merged = {**os.environ, **extra, MARK: self._mark}
        return {name: value for name, value in merged.items() if value is not None}

    def _spawn(self, process: Process) -> None:
        with self.log_path(process.name).open("ab") as log:
            self._running[process.name] = subprocess.Popen(
                process.command,
                env=self._environment(process.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_in_own_group,
            )
        self._set_state(process.name, "starting")

    def await_ready(self, process: Process) -> None:
        """Wait until a process that was started is ready, or a signal asks to stop.

        Raises:
            ServiceError: it exits, or it is not ready in time.
        """
        deadline = time.monotonic() + process.ready_within_s
        child = self._running[process.name]
        while not process.ready():
            if self.stopping:
                return
            if child.poll() is not None:
                raise ServiceError(
                    f"{process.name} ended with code {child.returncode} before it was ready; its log "
                    f"{self.log_path(process.name)} ends with: {_last_lines(self.log_path(process.name))}"
                )
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"{process.name} was not ready within {process.ready_within_s:.0f} s; "
                    f"see {self.log_path(process.name)}."
                )
            time.sleep(POLL_S)
        self._set_state(process.name, "ready")

    def _revive(self) -> None:
        for name, process in self._processes.items():
            child = self._running[name]
            if child.poll() is None and process.alive(child.pid):
                continue
            if self.stopping:
                return
            now = time.monotonic()
            recent = [at for at in self._restarts.get(name, []) if now - at < RESTART_WINDOW_S]
            if len(recent) >= MAX_RESTARTS:
                raise ServiceError(
                    f"{name} crashed {MAX_RESTARTS} times in {RESTART_WINDOW_S} s; see {self.log_path(name)}."
                )
            if recent and now - recent[-1] < 2 ** len(recent):
                continue  # backing off: 2 s after the second crash in a row, then 4, 8, 16
            self._restarts[name] = [*recent, now]
            _end_group(child)
            self._spawn(process)
            with contextlib.suppress(ServiceError):  # it is tried again until it has crashed too often
                self.await_ready(process)

    def _set_state(self, name: str, state: str) -> None:
        self._states[name] = state
        self._write_state()

    def _write_state(self) -> None:
        processes = {
            name: {
                "state": state,
                "pid": self._running[name].pid,
                "port": self._processes[name].port,
                "log": str(self.log_path(name)),
            }
            for name, state in self._states.items()
        }
        aside = self._state_path.with_suffix(".tmp")
        aside.write_text(json.dumps({"pid": os.getpid(), "all_started": self._all_started, "processes": processes}))
        aside.replace(self._state_path)


def read_state(folder: Path, name: str) -> dict[str, Any]:
    """What a living supervisor says of its processes; empty where none is at work."""
    path = folder / f"{name}.json"
    try:
        state = json.loads(path.read_text())
        os.kill(state["pid"], 0)
    except (OSError, ValueError):
        return {}
    with contextlib.suppress(OSError), (folder / f"{name}.lock").open("a") as lock:
        # A lock that can be had means that the process with this pid is not the supervisor any more.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return {}
    return state


def port_is_free(port: int) -> bool:
    """Whether a server could listen on a loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def port_answers(port: int) -> bool:
    """Whether something listens on a loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def marked(mark: str) -> Iterator[int]:
    """Processes that carry a mark in their environment (Linux; elsewhere none is found)."""
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*") if sys.platform == "linux" else []:
        with contextlib.suppress(OSError):
            if int(entry.name) != os.getpid() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)


def end_marked(mark: str) -> None:
    """Kill every process that carries a mark, and wait until none is left."""
    deadline = time.monotonic() + STOP_GRACE_S
    while (left := [pid for pid in marked(mark) if not is_gone(pid)]) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S / 4)


def is_gone(pid: int) -> bool:
    """Whether a process has ended and only waits for its parent to notice; true also where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _locked(path: Path) -> IO[str]:
    lock = path.open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ServiceError(f"already up: another process holds {path}.") from None
    return lock


def _in_own_group() -> None:
    """In the child, before exec: own process group, default signals, death with the supervisor."""
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_group(child: "subprocess.Popen[bytes]") -> None:
    """SIGTERM to a process and its group, SIGKILL to what is left of them after a grace."""
    with contextlib.suppress(OSError):
        os.killpg(child.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(STOP_GRACE_S)
    with contextlib.suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _last_lines(path: Path, count: int = 5) -> str:
    return " | ".join(path.read_text(errors="replace").splitlines()[-count:])
