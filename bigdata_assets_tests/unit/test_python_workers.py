"""The daemon of Spark's Python workers: it ends by itself, and not too early."""

import subprocess
import sys

SCRIPT = """
import select, signal, subprocess, sys, time
from bigdata_assets.services.python_workers import IdlePoll

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as the daemon has it
began = time.monotonic()
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"])
poll = IdlePoll(select.poll(), 0.2)
poll.register(0, select.POLLIN)
try:
    while True:
        assert poll.poll(20) == []
except SystemExit:
    print(time.monotonic() - began)
"""


def test_a_daemon_ends_when_its_workers_have_and_nobody_asks_for_another() -> None:
    # Its input is open and silent, as Spark's is.
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as one:
        assert one.stdout is not None
        lived_s = float(one.stdout.readline())
    assert one.returncode == 0
    assert lived_s > 1.2
