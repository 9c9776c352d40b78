"""Materialising a selection from the command line: in as few runs as its partitionings allow, in order."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

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
from bigdata_assets.runs.ranges import contiguous, tags_for

ASSET_JOB = "__ASSET_JOB"
INTERRUPTED = RunFailureReason.UNEXPECTED_TERMINATION


class SelectionError(ValueError):
    """The selection or a partition does not exist."""


def materialize(log: Path, select: str, partitions: Sequence[str], missing: bool) -> bool:
    """Materialise a selection; whether every run succeeded. Details go to the file `log`.

    Raises:
        SelectionError: nothing is selected, or a named partition does not exist.
    """
    graph = definitions.defs.resolve_asset_graph()
    with dg.DagsterInstance.get() as instance:
        wanted = _selected(graph, select)
        available = definitions.available_partitions(definitions.defs.resources or {}, instance, wanted)
        if missing:
            wanted = _missing(graph, instance, wanted, available)
        failed: set[dg.AssetKey] = set()
        for assets in in_order(graph, wanted):
            runnable = assets - _descendants(graph, failed)
            for key in sorted(assets - runnable):
                click.echo(f"skipped {key.to_user_string()}: something it needs failed", err=True)
            if not runnable:
                continue
            if graph.get(min(runnable)).partitions_def in definitions.SENT_HERE:
                # What was run before may have sent what these batches are of.
                now = definitions.available_partitions(definitions.defs.resources or {}, instance, runnable)
                available = {**available, **now}
            for first, last in _ranges(graph, instance, runnable, available, partitions, missing):
                if not _run(instance, log, runnable, first, last):
                    failed |= runnable
        return not failed


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
    graph: BaseAssetGraph, instance: dg.DagsterInstance, keys: set[dg.AssetKey], available: Available
) -> set[dg.AssetKey]:
    """Those of `keys` without a materialisation (of every partition), and those of them that depend on these."""
    lacking = set()
    for key in keys:
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
    began, stopping = {}, False
    with (
        _quiet(log) as terminal,
        tqdm(total=n_steps, unit="step", dynamic_ncols=True, file=terminal, disable=None, leave=False) as bar,
    ):
        for event in execute_run_iterator(job, run, instance):
            step, now = event.step_key or "run", time.monotonic()
            if not stopping and (check_captured_interrupt() or _is_told_of_a_signal(event)):
                stopping = True
                if (begun := instance.get_run_by_id(run.run_id)) and not begun.is_finished:
                    instance.report_run_canceling(run)  # or Dagster marks it as failed, and an alert is sent
            if event.is_step_start:
                began[step] = now
            elif event.is_step_success:
                bar.update()
                tqdm.write(f"  {now - began.pop(step, now):6.1f} s  {step.replace('__', '/')}", terminal)
            elif event.is_step_failure and not stopping:
                tqdm.write(f"FAILED {step.replace('__', '/')}: {reason(event)}", terminal)
                began.pop(step, None)
            elif event.event_type == dg.DagsterEventType.RUN_CANCELED or (
                event.is_run_failure and event.job_failure_data.failure_reason == INTERRUPTED
            ):
                raise KeyboardInterrupt  # what Dagster has made of it, so as to mark the run
            bar.set_postfix_str(", ".join(name.replace("__", "/") for name in began))
    if stopping:  # whatever became of the run
        raise KeyboardInterrupt
    ended = instance.get_run_by_id(run.run_id)
    if ended and ended.status == dg.DagsterRunStatus.SUCCESS:
        return True
    click.echo(f"details: {log}", err=True)
    return False


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
