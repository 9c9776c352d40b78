"""What Spark starts for Python functions: pyspark's own daemon, without the server's token, and not for ever.

Spark Connect has a daemon for each session, of 47 MB, and keeps it until the server ends: a stack that runs for days
would fill the machine with them. One whose workers have ended, and that nobody asks for another, ends too; should its
session ask again, Spark starts it anew.
"""

import os
import runpy
import select
import sys
import time
from typing import Any

IDLE_S = 30
"""Longer than between two steps of a run. Spark ends a worker that has had nothing to do for a minute."""
TOKEN = "SPARK_CONNECT_AUTHENTICATE_TOKEN"  # noqa: S105 -- its name


class IdlePoll:
    """A `select.poll` that ends its process once that has had neither children nor events for `idle_s`."""

    def __init__(self, poll: Any, idle_s: float = IDLE_S) -> None:
        self._poll, self._idle_s, self._busy_at = poll, idle_s, time.monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poll, name)

    def poll(self, timeout_ms: float) -> list[tuple[int, int]]:
        events: list[tuple[int, int]] = self._poll.poll(timeout_ms)
        if events or _has_children():
            self._busy_at = time.monotonic()
        elif time.monotonic() - self._busy_at > self._idle_s:
            sys.exit(0)
        return events


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _first_poll() -> IdlePoll:
    """The daemon's own; what workers poll is theirs."""
    select.poll = POLL  # type: ignore[misc]
    return IdlePoll(POLL())


POLL = select.poll
if __name__ == "__main__":
    if os.environ.pop(TOKEN, None) is not None:
        # Another program in the same process, so that /proc/PID/environ has lost the token too.
        os.execv(sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]])  # noqa: S606 -- no shell is wanted
    select.poll = _first_poll  # type: ignore[assignment, misc]
    runpy.run_module("pyspark.daemon", run_name="__main__", alter_sys=True)
