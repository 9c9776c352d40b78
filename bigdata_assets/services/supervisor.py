"""Starts local processes, waits until each is ready, restarts what crashes, and leaves nothing behind.

A process's readiness is a real request, awaited, never a pause. Processes run in groups of their own, are killed by the
kernel when the supervisor dies (Linux), and carry a mark in their environment, by which left-overs of a supervisor that
was killed are found and ended by the next one.
"""

import contextlib
import ctypes
import fcntl
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

MARK = "BIGDATA_SUPERVISED_BY"
POLL_S = 0.2
STOP_GRACE_S = 10
MAX_RESTARTS = 5
RESTART_WINDOW_S = 300
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1
die_with_parent = (
    functools.partial(ctypes.CDLL(None).prctl, PR_SET_PDEATHSIG, signal.SIGKILL) if sys.platform == "linux" else None
)


class ServiceError(RuntimeError):
    """A process could not be started or kept up; the message says which, why, and what to do."""


@dataclass
class Process:
    """A process to keep up.

    Attributes:
        environment: added to this process's own; None takes a variable away.
        ready: whether it answers a real request; called again and again, must return within seconds.
        alive: whether it is as it should be while it runs, beyond its process being there.
        port: checked to be free before the start; the message of a busy one names `port_setting`.
        awaited: whether what is started after it needs it.
        child, state, crashes: its supervisor's; crashes are those of the last RESTART_WINDOW_S.
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
    child: "subprocess.Popen[bytes]" = field(init=False)
    state: str = field(default="starting", init=False)
    crashes: list[float] = field(default_factory=list, init=False)


class Supervisor:
    """Keeps processes up; used as a context, it stops them all at the end."""

    def __init__(self, folder: Path, name: str) -> None:
        """Take the lock of `folder` and end what an earlier supervisor of this name left.

        Raises:
            ServiceError: another supervisor of this name is at work there.
        """
        self.folder = folder
        self.stopping = False
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        self._locks = contextlib.ExitStack()
        self.take(name)
        self._mark = f"{folder}:{name}"
        end_marked(self._mark)
        self._state_path = folder / f"{name}.json"
        self._processes: list[Process] = []
        self._all_started = False

    def __enter__(self) -> "Supervisor":
        for number in SIGNALS:
            # Set even where it was inherited as ignored, as a shell's background job inherits SIGINT.
            signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_error: object) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not cut the stopping short
        for process in reversed(self._processes):
            _end_group(process.child)
        end_marked(self._mark)
        self._state_path.unlink(missing_ok=True)
        self._locks.close()

    def _on_signal(self, *_: object) -> None:
        self.stopping = True

    def take(self, name: str) -> None:
        """Keep a name until the end: no other supervisor has it meanwhile.

        Raises:
            ServiceError: another one has it.
        """
        path = self.folder / f"{name}.lock"
        lock = self._locks.enter_context(path.open("a"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceError(
                f"already up: process {holder(self.folder, name)} holds {path}. End that one (Ctrl-C) or use it."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()

    def spawn(self, process: Process) -> None:
        """Start a process, without waiting for it.

        Raises:
            ServiceError: its port is taken.
        """
        refuse_busy_port(process)
        self._start(process)
        self._processes.append(process)
        self._write_state()

    def all_started(self) -> None:
        """Say in the state file that no further process will be started."""
        self._all_started = True
        self._write_state()

    def run(self, command: list[str], environment: Mapping[str, str | None]) -> int:
        """Run a command to its end, in the foreground, ended with everything else on a signal; its exit code."""
        child = self._popen(command, environment)
        self.watch(lambda: child.poll() is not None)
        if child.poll() is None:
            _end_group(child)
        return child.returncode

    def watch(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Keep the processes up until a signal asks to stop.

        Raises:
            ServiceError: one of them keeps crashing.
        """
        while not self.stopping and not is_over():
            time.sleep(POLL_S)
            for process in self._processes:
                if process.child.poll() is not None or not process.alive(process.child.pid):
                    self._restart(process)

    def await_ready(self, process: Process) -> None:
        """Wait until a process that was started is ready, or a signal asks to stop.

        Raises:
            ServiceError: it exits, or it is not ready in time.
        """
        deadline = time.monotonic() + process.ready_within_s
        log = self._log(process)
        while not process.ready():
            if self.stopping:
                return
            if process.child.poll() is not None:
                raise ServiceError(
                    f"{process.name} ended with code {process.child.returncode} before it was ready; its log "
                    f"{log} ends with: {' | '.join(log.read_text(errors='replace').splitlines()[-5:])}"
                )
            if time.monotonic() > deadline:
                raise ServiceError(f"{process.name} was not ready within {process.ready_within_s:.0f} s; see {log}.")
            time.sleep(POLL_S)
        process.state = "ready"
        self._write_state()

    def _log(self, process: Process) -> Path:
        return self.folder / "logs" / f"{process.name}.log"

    def _start(self, process: Process) -> None:
        with self._log(process).open("ab") as log:
            process.child = self._popen(process.command, process.environment, stdout=log, stderr=subprocess.STDOUT)
        process.state = "starting"

    def _popen(
        self, command: list[str], environment: Mapping[str, str | None], **output: Any
    ) -> "subprocess.Popen[bytes]":
        merged = {**os.environ, **environment, MARK: self._mark}
        return subprocess.Popen(
            command,
            env={name: value for name, value in merged.items() if value is not None},
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=die_with_parent,  # noqa: PLW1509 -- unsafe beside threads; the supervisor has none
            **output,
        )

    def _restart(self, process: Process) -> None:
        if self.stopping:
            return
        now = time.monotonic()
        process.crashes = crashes = [at for at in process.crashes if now - at < RESTART_WINDOW_S]
        if len(crashes) >= MAX_RESTARTS:
            raise ServiceError(
                f"{process.name} crashed {MAX_RESTARTS} times in {RESTART_WINDOW_S} s; see {self._log(process)}."
            )
        if crashes and now - crashes[-1] < 2 ** len(crashes):
            return  # backing off: 2 s after the second crash in a row, then 4, 8, 16
        crashes.append(now)
        _end_group(process.child)
        self._start(process)
        self._write_state()
        with contextlib.suppress(ServiceError):  # it is tried again until it has crashed too often
            self.await_ready(process)

    def _write_state(self) -> None:
        processes = {
            p.name: {"state": p.state, "pid": p.child.pid, "port": p.port, "log": str(self._log(p))}
            for p in self._processes
        }
        aside = self._state_path.with_suffix(".tmp")
        aside.write_text(json.dumps({"pid": os.getpid(), "all_started": self._all_started, "processes": processes}))
        aside.replace(self._state_path)


def holder(folder: Path, name: str) -> int:
    """The process whose supervisor has a name; 0 where none has."""
    with contextlib.suppress(FileNotFoundError), (folder / f"{name}.lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(lock.read() or -1)
    return 0


def read_state(folder: Path, name: str) -> dict[str, Any]:
    """What a living supervisor says of its processes; empty where none is at work."""
    try:
        state = json.loads((folder / f"{name}.json").read_text())
    except (OSError, ValueError):
        return {}
    return state if state["pid"] == holder(folder, name) else {}


def refuse_busy_port(process: Process) -> None:
    """Check that a server could listen on the process's loopback port now.

    Raises:
        ServiceError: the port is taken.
    """
    try:
        socket.create_server(("127.0.0.1", process.port)).close()  # 0, no port: any that is free
    except OSError:
        raise ServiceError(
            f"{process.name}: port {process.port} is taken by another program; end that, or set "
            f"{process.port_setting} to a free one."
        ) from None


def port_answers(port: int) -> bool:
    """Whether something listens on a loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def end_marked(mark: str) -> None:
    """Kill every process that carries a mark, and wait until none is left; a zombie has no environment any more."""
    deadline = time.monotonic() + STOP_GRACE_S
    while time.monotonic() < deadline:
        environments = {p: p.info["environ"] or {} for p in psutil.process_iter(["environ"]) if p.pid != os.getpid()}
        if not (left := [process for process, has in environments.items() if has.get(MARK) == mark]):
            return
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(POLL_S / 4)


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs: one that has ended and waits for its parent to notice does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _end_group(child: "subprocess.Popen[bytes]") -> None:
    """SIGTERM to a process and its group, SIGKILL to what is left of them after a grace."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            os.killpg(child.pid, number)
            child.wait(STOP_GRACE_S)
    child.wait()
