"""Versions of what a step loads and stores: its tables' of Delta, its models' by their cards.

Of what is stored Dagster is told, which knows by it what is stale. What was loaded is noted until the step's model or
report is stored, and is named there.
"""

import contextlib
from typing import Any
from weakref import WeakKeyDictionary

import dagster as dg

_LOADED: WeakKeyDictionary[Any, dict[str, int | str]] = WeakKeyDictionary()
"""Versions by asset, of each step that is being executed."""


def loaded(context: dg.InputContext, version: int | str) -> None:
    """Note the version of an input."""
    if (step := _step(context)) is not None:
        _LOADED.setdefault(step, {})[context.asset_key.to_user_string()] = version


def inputs(context: dg.OutputContext) -> dict[str, int | str]:
    """Versions of what the output's step has loaded, by asset."""
    step = _step(context)
    return {} if step is None else dict(_LOADED.get(step, {}))


def stored(context: dg.OutputContext, version: int | str) -> None:
    """Tell Dagster the version of an output."""
    if (step := _step(context)) is not None:
        step.set_data_version(context.asset_key, dg.DataVersion(str(version)))


def _step(context: dg.InputContext | dg.OutputContext) -> Any:
    """None of a context that was built outside of any run."""
    with contextlib.suppress(dg.DagsterInvariantViolationError):
        return context.step_context
    return None
