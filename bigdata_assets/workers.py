"""What a Spark worker process keeps between tasks."""

from collections.abc import Callable
from typing import Any

_kept: dict[str, Any] = {}
"""In a module, not a closure: a closure is copied for every task."""


def once_per_process(version: str, load: Callable[[], Any]) -> Any:
    """A model, loaded at its first use in this process; one of another version is forgotten for it."""
    if version not in _kept:
        from threadpoolctl import threadpool_limits

        # A worker for each core: threads of their own would make them wait for each other.
        threadpool_limits(1)
        _kept.clear()
        _kept[version] = load()
    return _kept[version]
