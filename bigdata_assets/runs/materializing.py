"""Materialising a selection from the command line: in as few runs as its partitionings allow, in order."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click
import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.events import RunFailureReason
from dagster._core.execution.api import create_execution_plan, execute_run_iterator
from dagster._utils.interrupts import check_captured_interrupt
from tqdm import tqdm

from bigdata_assets import definitions
from bigdata_assets.branch import Available
from bigdata_assets.run_launcher import this_process
from bigdata_assets.runs.alerts import reason
from bigdata_assets.runs.ranges import UNFINISHED, contiguous, tags_for

ASSET_JOB = "__ASSET_JOB"
INTERRUPTED = RunFailureReason.UNEXPECTED_TERMINATION


class SelectionError(ValueError):
    """The selection or a partition does not exist."""


def materialize(log: Path, select: str, partitions: Sequence[str], missing: bool) -> bool:
    """Materialise a selection; whether every run succeeded. Details go to the file `log`.

    Raises:
        SelectionError: nothing is selected, or a named partition does not exist.
    """
    graph, resources = definitions.defs.resolve_asset_graph(), definitions.defs.resources or {}
    with dg.DagsterInstance.get() as instance:
        selected = _selected(graph, select)
        if missing:
            not_used = _not_used(resources)
            selected = {key for key in selected if key.path[0] not in not_used}
        available = dict(definitions.available_partitions(resources, instance, selected))
        # What a publisher has and could not be had is no reason to end well.
        leaves_out = missing and resources["sources"].location != "official"
        wanted, failed, left_out, n_runs = selected, set[dg.AssetKey](), set[dg.AssetKey](), 0
        if missing:
            empty = of_nothing(graph, instance, selected, available) if leaves_out else set()
            wanted = _missing(graph, instance, selected, available, empty)
        for assets in in_order(graph, wanted):
            runnable = _without_what_failed(graph, assets, failed)
            if leaves_out:
                left_out |= runnable & of_nothing(graph, instance, selected, available)
            if runnable := runnable - left_out:
                if graph.get(min(runnable)).partitions_def in definitions.SENT_HERE:
                    # What was run before may have sent what these batches are of.
                    available |= definitions.available_partitions(resources, instance, runnable)
                runs = _ranges(graph, instance, runnable, available, partitions, missing)
                n_runs += len(runs)
                succeeded = [_run(instance, log, runnable, *ends) for ends in runs]
                failed |= set() if all(succeeded) else runnable
        if left_out:
            names = ", ".join(sorted(key.to_user_string() for key in left_out))
            click.echo(f"left out, there being nothing to make them of: {names}")
        if missing:
            return _refresh(graph, instance, log, selected, failed)
        if not n_runs:
            click.echo("nothing was made: what is selected has no partition yet", err=True)
        return bool(n_runs) and not failed


def _refresh(
    graph: BaseAssetGraph,
    instance: dg.DagsterInstance,
    log: Path,
    selected: set[dg.AssetKey],
    failed: set[dg.AssetKey],
) -> bool:
    """Make again what is older than its inputs, as a sensor does that `make run` holds back; whether all succeeded."""
    stale = outdated(graph, instance, selected) - failed
    for assets in in_order(graph, _whole_steps(graph, stale)):
        if (runnable := _without_what_failed(graph, assets, failed)) and not _run(instance, log, runnable, None, None):
            failed = failed | runnable
    return not failed


def _without_what_failed(graph: BaseAssetGraph, assets: set[dg.AssetKey], failed: set[dg.AssetKey]) -> set[dg.AssetKey]:
    skipped = assets & _descendants(graph, failed)
    for key in sorted(skipped):
        click.echo(f"skipped {key.to_user_string()}: something it needs failed", err=True)
    return assets - skipped


def _not_used(resources: Mapping[str, Any]) -> set[str]:
    """Branches that nothing can be made of, since BIGDATA_SOURCES has no folder of theirs. They are told."""
    found = {one.name for one in definitions.BRANCHES if one.source and resources["sources"].lacks(one.source)}
    for name in sorted(found):
        click.echo(f"not used: {name}, of which {resources['sources'].location} has no folder")
    return found


def of_nothing(
    graph: BaseAssetGraph, instance: dg.DagsterInstance, keys: set[dg.AssetKey], available: Available
) -> set[dg.AssetKey]:
    """Those of `keys` that have no partitions and are made of nothing: no input has a partition, or is not such itself.

    What another asset of the branch needs that is made of something is none of them.
    """
    needed: set[dg.AssetKey] = set()
    while True:
        found: set[dg.AssetKey] = set()

        def is_empty(key: dg.AssetKey, found: set[dg.AssetKey] = found) -> bool:
            of = graph.get(key).partitions_def
            if of is None:
                return key in found
            return of in available and not available[of] and not instance.get_materialized_partitions(key)

        for key in graph.toposorted_asset_keys:
            node = graph.get(key)
            is_candidate = key in keys - needed and node.partitions_def is None and bool(node.parent_keys)
            if is_candidate and all(map(is_empty, node.parent_keys)):
                found.add(key)
        now = {
            key
            for key in found
            for child in graph.get(key).child_keys & keys
            if child.path[0] == key.path[0] and not is_empty(child)
        }
        if not now:
            return found
        needed |= now


def outdated(graph: BaseAssetGraph, instance: dg.DagsterInstance, keys: set[dg.AssetKey]) -> set[dg.AssetKey]:
    """Those of `keys` that a sensor refreshes by their inputs, that are older than one of these and not being made."""
    every = {parent for key in keys for parent in graph.get(key).parent_keys} | keys
    ids = {
        record.asset_entry.asset_key: record.asset_entry.last_materialization_record.storage_id
        for record in instance.get_asset_records(list(every))
        if record.asset_entry.last_materialization_record
    }
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    busy = {key for run in runs for key in run.asset_selection or ()}
    found: set[dg.AssetKey] = set()
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        is_refreshed = key in keys and key in ids and node.automation_condition and node.partitions_def is None
        if is_refreshed and any(ids.get(parent, 0) > ids[key] or parent in found for parent in node.parent_keys):
            found.add(key)
    return found - busy


def in_order(graph: BaseAssetGraph, wanted: set[dg.AssetKey]) -> Iterable[set[dg.AssetKey]]:
    """Sets of assets that one run each can materialise: alike in partitions and in how many a run may take, and after
    all that they need.
    """

    def kind(key: dg.AssetKey) -> tuple[dg.PartitionsDefinition | None, dg.BackfillPolicy | None]:
        return graph.get(key).partitions_def, graph.get(key).backfill_policy

    remaining = set(wanted)
    while remaining:
        candidates = []
        for alike in {kind(key) for key in remaining}:
            ready: set[dg.AssetKey] = set()
            for key in graph.toposorted_asset_keys:
                needed = graph.get(key).parent_keys & remaining
                if key in remaining and kind(key) == alike and needed <= ready:
                    ready.add(key)
            candidates.append(ready)
        largest = max(candidates, key=lambda keys: (len(keys), sorted(keys)))
        remaining -= largest
        yield largest


def _selected(graph: BaseAssetGraph, select: str) -> set[dg.AssetKey]:
    try:
        keys = dg.AssetSelection.from_string(select).resolve(graph)
    except Exception as error:
        raise SelectionError(f"the selection {select!r} cannot be read: {error}") from error
    keys = {key for key in keys if graph.get(key).is_materializable}
    if not keys:
        raise SelectionError(f"the selection {select!r} has no asset; `dg list defs` shows all")
    return _whole_steps(graph, keys)


def _whole_steps(graph: BaseAssetGraph, keys: set[dg.AssetKey]) -> set[dg.AssetKey]:
    """With each asset those that the same step makes."""
    together = (graph.get(key).execution_set_asset_keys for key in keys)
    return {key for keys_of_step in together for key in keys_of_step}


def _missing(
    graph: BaseAssetGraph,
    instance: dg.DagsterInstance,
    keys: set[dg.AssetKey],
    available: Available,
    empty: set[dg.AssetKey],
) -> set[dg.AssetKey]:
    """Those of `keys` without a materialisation (of every partition), and those of them that depend on these.

    `empty`: of what is made of nothing none is missing, unless it depends on what is.
    """
    lacking = set()
    for key in keys - empty:
        partitions = graph.get(key).partitions_def
        if partitions is None:
            complete = instance.get_latest_materialization_event(key) is not None
        else:
            complete = set(available[partitions]) <= instance.get_materialized_partitions(key)
        if not complete:
            lacking.add(key)
    return _whole_steps(graph, lacking | (_descendants(graph, lacking) & keys))


def _descendants(graph: BaseAssetGraph, keys: set[dg.AssetKey]) -> set[dg.AssetKey]:
    below: set[dg.AssetKey] = set()
    frontier = set(keys)
    while frontier:
        frontier = {child for key in frontier for child in graph.get(key).child_keys} - below
        below |= frontier
    return below


def _ranges(
    graph: BaseAssetGraph,
    instance: dg.DagsterInstance,
    keys: set[dg.AssetKey],
    available: Available,
    named: Sequence[str],
    missing: bool,
) -> list[tuple[str | None, str | None]]:
    """The partition ranges to run `keys` for, one run each; (None, None) where they have no partitions."""
    partitions = graph.get(min(keys)).partitions_def
    if partitions is None:
        return [(None, None)]
    existing = list(partitions.get_partition_keys(dynamic_partitions_store=instance))
    if named:
        wanted: set[str] = set()
        for name in named:
            first, _, last = name.partition("..") if name not in existing else (name, "", name)
            if first not in existing or last not in existing:
                raise SelectionError(f"there is no partition {name!r}; there are {len(existing)}: {existing[:10]}")
            if existing.index(first) > existing.index(last):
                raise SelectionError(
                    f"{name}: {first} comes after {last} in the order of the partitions: {existing[:10]}"
                )
            wanted |= set(existing[existing.index(first) : existing.index(last) + 1])
    else:
        wanted = set(available[partitions])
        if missing:
            wanted = {name for key in keys for name in wanted - set(instance.get_materialized_partitions(key))}
    policies = [policy for key in keys if (policy := graph.get(key).backfill_policy) is not None]
    most = min((policy.max_partitions_per_run or len(existing) for policy in policies), default=1)
    return list(contiguous(existing, wanted, most))


def _run(instance: dg.DagsterInstance, log: Path, keys: set[dg.AssetKey], first: str | None, last: str | None) -> bool:
    """One run, with a bar of its steps; whether it succeeded.

    Raises:
        KeyboardInterrupt: a signal has ended it, so that no further one is to be begun.
    """
    repository = ReconstructableRepository.for_module("bigdata_assets.definitions", "defs")
    job = repository.get_reconstructable_job(ASSET_JOB).get_subset(asset_selection=frozenset(keys))
    tags = this_process() | ({} if first is None else tags_for(first, str(last)))
    n_steps = len(create_execution_plan(job, tags=tags, instance_ref=instance.get_ref()).step_keys_to_execute)
    run = instance.create_run_for_job(
        job.get_definition(),
        asset_selection=frozenset(keys),
        tags=tags,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        job_code_origin=job.get_python_origin(),
    )
    what = f" {first}" if first == last and first else f" {first}..{last}" if first else ""
    click.echo(f"run {run.run_id[:8]}{what}: {', '.join(sorted(key.to_user_string() for key in keys))}")
    stopping = False
    with (
        _quiet(log) as terminal,
        tqdm(total=n_steps, unit="step", dynamic_ncols=True, file=terminal, disable=None, leave=False) as bar,
    ):
        lines = _Lines(terminal, bar)
        for event in execute_run_iterator(job, run, instance):
            if not stopping and (check_captured_interrupt() or _is_told_of_a_signal(event)):
                stopping = True
                if (begun := instance.get_run_by_id(run.run_id)) and not begun.is_finished:
                    instance.report_run_canceling(run)  # or Dagster marks it as failed, and an alert is sent
            if event.event_type == dg.DagsterEventType.RUN_CANCELED or (
                event.is_run_failure and event.job_failure_data.failure_reason == INTERRUPTED
            ):
                raise KeyboardInterrupt  # what Dagster has made of it, so as to mark the run
            lines.tell(event, stopping)
    if stopping:  # whatever became of the run
        raise KeyboardInterrupt
    ended = instance.get_run_by_id(run.run_id)
    if ended and ended.status == dg.DagsterRunStatus.SUCCESS:
        return True
    click.echo(f"details: {log}", err=True)
    return False


class _Lines:
    """A line a step with its seconds, and one for what failed."""

    def __init__(self, terminal: TextIO, bar: Any) -> None:
        self._terminal, self._bar = terminal, bar
        self._began: dict[str, float] = {}
        self._checks: set[str] = set()

    def tell(self, event: dg.DagsterEvent, stopping: bool) -> None:
        step, now = event.step_key or "run", time.monotonic()
        name, line = step.replace("__", "/"), ""
        if event.is_step_start:
            self._began[step] = now
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            self._checks.add(step)
            line = told_of_check(event.asset_check_evaluation_data)
        elif event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            self._checks.discard(step)  # one of those that make an asset and look at it
        elif event.is_step_success:
            self._bar.update()
            line = f"  {now - self._began.pop(step, now):6.1f} s  {'check ' * (step in self._checks)}{name}"
        elif event.is_step_failure and not stopping:
            self._began.pop(step, None)
            line = f"FAILED {name}: {reason(event)}"
        if line:
            tqdm.write(line, self._terminal)
        self._bar.set_postfix_str(", ".join(name.replace("__", "/") for name in self._began))


def told_of_check(check: dg.AssetCheckEvaluation) -> str:
    """A line where a check has not passed; empty where it has."""
    if check.passed:
        return ""
    outcome = "WARNED" if check.severity == dg.AssetCheckSeverity.WARN else "FAILED"
    why = f": {check.description}" if check.description else ""
    return f"CHECK {outcome} {check.asset_key.to_user_string()}, {check.check_name}{why}"


def _is_told_of_a_signal(event: dg.DagsterEvent) -> bool:
    """Whether an event says that a signal has come, and goes on to the processes of the steps.

    Where these have got it too and are gone, there may be nothing left to tell, and Dagster forgets it with the run.
    """
    if event.event_type != dg.DagsterEventType.ENGINE_EVENT:
        return False
    return event.engine_event_data.error is None and "steps_interrupted" in event.engine_event_data.metadata


@contextmanager
def _quiet(log: Path) -> Iterator[TextIO]:
    """Send what Dagster and its step processes print to a log file; gives the terminal, for the bar and the lines."""
    outputs = (sys.stdout, sys.stderr)
    for output in outputs:
        output.flush()
    kept = [os.dup(1), os.dup(2)]
    with os.fdopen(kept[1], "w", buffering=1) as terminal, log.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            yield terminal
        finally:
            for output, number, was in zip(outputs, (1, 2), kept, strict=True):
                output.flush()
                os.dup2(was, number)
            os.close(kept[0])
