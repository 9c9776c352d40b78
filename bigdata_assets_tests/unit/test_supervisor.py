import contextlib
import os
import signal
import subprocess
import sys

import psutil
import pytest

from bigdata_assets.services import stack, supervisor
from bigdata_assets.services.supervisor import Process, ServiceError, Supervisor, free_port, holder, read_state
from bigdata_assets.settings import Settings
from bigdata_assets_tests.conftest import alive, kill_9, wait_for

SUPERVISED = """
import subprocess, sys
from pathlib import Path
from bigdata_assets.services.supervisor import Process, Supervisor
child = "import subprocess, sys; subprocess.run(['sleep', '600'], start_new_session=True)"
with Supervisor(Path(sys.argv[1]), "some") as supervisor:
    supervisor.spawn(Process("child", [sys.executable, "-c", child], ready=lambda: True))
    supervisor.all_started()
    supervisor.watch()
"""


@contextlib.contextmanager
def supervising(folder, name):
    """A supervisor in this process, which has its own handlers of signals back afterwards."""
    handlers = {number: signal.getsignal(number) for number in supervisor.SIGNALS}
    try:
        with Supervisor(folder, name) as some:
            yield some
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.fixture
def some(tmp_path):
    with supervising(tmp_path, "some") as some:
        yield some


@pytest.fixture
def running(tmp_path):
    """A supervisor in a process of its own, its child, and what that one has started in a session of its own."""
    with subprocess.Popen([sys.executable, "-c", SUPERVISED, str(tmp_path)]) as process:
        wait_for(lambda: read_state(tmp_path, "some").get("all_started"), 30, "all is started")
        child = psutil.Process(read_state(tmp_path, "some")["processes"]["child"]["pid"])
        (grandchild,) = wait_for(child.children, 30, "the child's own process")
        yield process, child, grandchild
        process.kill()
    supervisor.end_marked(f"{tmp_path}:some")


def test_what_a_killed_supervisor_left_is_ended_by_the_next_one(tmp_path, running):
    process, child, grandchild = running
    refused = pytest.raises(ServiceError, match=f"already up: process {process.pid} holds .*some.lock")
    with refused, supervising(tmp_path, "some"):
        pass
    assert os.getpgid(child.pid) == child.pid
    kill_9(process.pid)
    wait_for(lambda: not alive([child]), 10, "the kernel has ended the child")
    assert alive([grandchild])
    assert (holder(tmp_path, "some"), read_state(tmp_path, "some")) == (0, {})
    with supervising(tmp_path, "another"):
        assert alive([grandchild])
    with supervising(tmp_path, "some"):
        assert not alive([grandchild])


def test_a_signal_ends_all(tmp_path, running):
    process, child, grandchild = running
    process.terminate()
    assert process.wait(20) == 0
    assert not alive([child, grandchild])
    assert not (tmp_path / "some.json").exists()


def test_what_keeps_crashing_is_given_up(some, monkeypatch):
    monkeypatch.setattr(supervisor, "MAX_RESTARTS", 2)
    some.spawn(Process("crash", ["false"], ready=lambda: True))
    with pytest.raises(ServiceError, match=r"crash crashed 2 times in 300 s; see .*crash\.log"):
        some.watch()


def test_what_ends_before_it_is_ready_is_named_with_its_last_words(some):
    process = Process("short", ["sh", "-c", "echo no luck; exit 3"], ready=lambda: False)
    some.spawn(process)
    with pytest.raises(ServiceError, match=r"short ended with code 3 before it was ready; .* ends with: no luck"):
        some.await_ready(process)


def test_a_code_server_without_its_worker_is_not_as_it_should_be(tmp_path):
    code_server = next(stack.user_interface(Settings(BIGDATA_SERVICES=tmp_path)))
    server = "import subprocess, sys; subprocess.run(['sleep', '600']); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", server], stdin=subprocess.PIPE) as process:
        (worker,) = wait_for(psutil.Process(process.pid).children, 30, "the worker is there")
        try:
            assert code_server.alive(process.pid)
        finally:
            worker.kill()
        wait_for(lambda: not code_server.alive(process.pid), 10, "its end is noticed")
        assert process.poll() is None


def test_what_is_not_as_it_should_be_is_started_anew(some, tmp_path):
    port = free_port()
    process = Process("asleep", ["sleep", "600"], ready=lambda: True, alive=lambda pid: pid != first, port=port)
    some.spawn(process)
    first = process.child.pid
    some.watch(lambda: process.child.pid != first)
    assert read_state(tmp_path, "some")["processes"]["asleep"] == {
        "state": "ready",
        "pid": process.child.pid,
        "port": port,
        "log": str(tmp_path / "logs" / "asleep.log"),
    }
    assert not psutil.pid_exists(first)
