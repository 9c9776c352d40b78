"""What the learning needs from storage: snapshots, reports of a batch, the window that Spark models are fitted on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pandas as pd
import pyarrow.compute as pc
from filelock import FileLock, Timeout
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from bigdata_assets.crimes.logic.exports import TIME_ZONE
from bigdata_assets.crimes.logic.online import OnlineModels
from bigdata_assets.crimes.logic.prequential import Snapshot, TestThenTrain, online_scores, window_scores
from bigdata_assets.crimes.partitions import ARREST_MODELS, CRIMES
from bigdata_assets.crimes.tables import ARREST_SCORES, CRIME_REPORTS, HISTORIC_REPORTS, REPORT
from bigdata_assets.io_managers.delta import DeltaIOManager
from bigdata_assets.resources.snapshots import SnapshotStore
from bigdata_assets.runs.ranges import tell_partitions
from bigdata_assets.streams.batches import parse, topic_of

LEAST_WINDOW = 100
"""Reports without which no Spark model is fitted."""
LEARNT_ON = 200
"""Batches that a run learns beyond its own, where they had to wait."""
REPORT_COLUMNS = [column.name for column in REPORT]


class MissingReportsError(RuntimeError):
    """A batch is to be scored or learnt whose reports are not stored."""


@dataclass(frozen=True)
class StoredSnapshots:
    """Snapshots of arrest_models as the prequential logic wants them."""

    store: SnapshotStore
    run_id: str
    code_version: str

    def names(self) -> set[str]:
        return self.store.names(ARREST_MODELS)

    def load(self, name: str) -> Snapshot:
        card, state = self.store.load(ARREST_MODELS, name)
        # Spark models that other code has fitted read other columns: they are fitted anew after the next batch.
        is_of_this_code = card["code_version"] == self.code_version
        return Snapshot(
            name,
            OnlineModels.load(state),
            card["position"],
            card["fit"] if is_of_this_code else "",
            card["fitted_reports"] if is_of_this_code else 0,
            datetime.fromisoformat(card["history_ends"]),
        )

    def save(self, snapshot: Snapshot) -> None:
        card = {
            "asset": ARREST_MODELS.to_user_string(),
            "snapshot": snapshot.name,
            "position": snapshot.position,
            "history_ends": snapshot.history_ends.isoformat(),
            "reports_learnt": snapshot.models.reports,
            "arrests_learnt": snapshot.models.arrests,
            "fit": snapshot.fit,
            "fitted_reports": snapshot.fitted_reports,
            "run_id": self.run_id,
            "code_version": self.code_version,
        }
        self.store.save(ARREST_MODELS, snapshot.name, card, snapshot.models.dump())


@dataclass(frozen=True)
class Reports:
    """Stored reports, of the stream and of the history before it.

    Attributes:
        order: keys of all batches, in their order.
        stored: those whose reports are stored.
    """

    delta: DeltaIOManager
    order: Sequence[str]
    stored: set[str]

    def of(self, key: str) -> pd.DataFrame | None:
        """A batch's reports; None while they are not stored."""
        return self.delta.read_arrow(CRIME_REPORTS, [key]).to_pandas() if key in self.stored else None

    def learn_history(self, models: OnlineModels, ends: datetime, months: int) -> None:
        """Have models learn the last months before an instant, a month at a time."""
        for month in self._months(ends)[-months:]:
            rows = self.delta.read_arrow(HISTORIC_REPORTS, [month], REPORT_COLUMNS).to_pandas()
            models.learn(rows.sort_values(["occurred_at", "report_id"]))

    def window(self, key: str | None, rows: int, history_ends: datetime) -> DataFrame | None:
        """The last reports up to and with a batch, on Spark; where those are too few, the history's last besides.

        None where there are hardly any.
        """
        keys: list[str] = []
        n = 0
        for earlier in reversed(self.order[: self.order.index(key) + 1] if key else []):
            if n >= rows:
                break
            keys.append(earlier)
            n += len(parse(earlier))
        frames = [self.delta.read(CRIME_REPORTS, keys).select(*REPORT_COLUMNS)] if keys else []
        counts, months, n_older = self.delta.rows_by_partition(HISTORIC_REPORTS), [], 0
        for month in reversed(self._months(history_ends)):
            if n + n_older >= rows:
                break
            months.append(month)
            n_older += counts[month]
        if months:
            tail = self.delta.read(HISTORIC_REPORTS, months).select(*REPORT_COLUMNS)
            frames.append(tail.orderBy(F.desc("occurred_at"), F.desc("report_id")).limit(rows - n))
        if n + n_older < LEAST_WINDOW:
            return None
        return frames[0].unionByName(frames[1]) if len(frames) > 1 else frames[0]

    def ids_up_to(self, ids: pd.Series) -> Callable[[str], pd.Index]:
        """Which of some report IDs are in the stored batches up to and with one."""
        numbers = {key: number for number, key in enumerate(self.order)}
        wanted = pc.field("report_id").isin(ids.unique().tolist())
        rows = self.delta.read_arrow(CRIME_REPORTS, None, ["batch", "report_id"], wanted).to_pandas()
        first = rows["batch"].map(numbers).groupby(rows["report_id"]).min()
        return lambda key: first.index[first <= numbers.get(key, -1)]

    def _months(self, ends: datetime) -> list[str]:
        """Stored months that are over by an instant, oldest first."""
        stored = self.delta.rows_by_partition(HISTORIC_REPORTS)
        return sorted(month for month in stored if month < f"{ends.astimezone(ZoneInfo(TIME_ZONE)):%Y-%m}")


def end_of_history(rows: pd.DataFrame) -> datetime:
    """Midnight, Chicago time, of the first day of the month in which the first of a stream's first reports occurred.

    At most a month before the middle one's: a single report of long ago would leave no history to learn.
    """

    def month(occurred_at: pd.Timestamp) -> pd.Period:
        return occurred_at.tz_convert(TIME_ZONE).tz_localize(None).to_period("M")

    times = rows["occurred_at"].sort_values()
    first = max(month(times.iloc[0]), month(times.iloc[len(times) // 2]) - 1)
    return first.to_timestamp().tz_localize(TIME_ZONE).to_pydatetime()


def scored_by(delta: DeltaIOManager, table: Any, keys: Sequence[str]) -> dict[str, str]:
    """The snapshot that gave each batch's stored scores."""
    used = delta.read_arrow(table, keys, ["batch", "snapshot"]).group_by(["batch", "snapshot"]).aggregate([])
    return dict(zip(used["batch"].to_pylist(), used["snapshot"].to_pylist(), strict=True))


@dataclass(frozen=True)
class Outcome:
    """What a run of the learning step did: scores, and whether all its batches were learnt."""

    scores: pd.DataFrame
    learnt_all: bool


def test_then_train(context: dg.AssetExecutionContext, rows: pd.DataFrame, config: Any) -> Outcome:
    """As `_test_then_train`; one run at a time, since each goes on from what the one before has learnt."""
    lock = FileLock(Path(context.instance.root_directory) / "arrest_models.lock")
    while True:
        try:
            with lock.acquire(timeout=60):
                return _test_then_train(context, rows, config)
        except Timeout:
            context.log.info("another run learns; this one waits for it")


def _test_then_train(context: dg.AssetExecutionContext, rows: pd.DataFrame, config: Any) -> Outcome:
    """Score the run's batches in their order, each before it is learnt; then learn on what had waited for them.

    Only what the run selects is done. Batches that are learnt beyond the run's own are reported as materialised too.
    """
    from bigdata_assets.crimes.logic import window

    delta, snapshots = context.resources.delta, context.resources.snapshots
    keys = context.partition_keys
    topic, order = topic_of(keys), CRIMES.order_for(context.instance, keys)
    wanted = sorted(keys, key=order.index)
    stored = context.instance.get_materialized_partitions(CRIME_REPORTS.key)
    if absent := [key for key in wanted if key not in stored]:
        # Nothing was read of them: learnt as empty batches, they would be a gap that was jumped.
        raise MissingReportsError(
            f"{CRIME_REPORTS.path} was not materialised for {absent[0]}: do that first, or in the same run."
        )
    reports = Reports(delta, order, stored)
    own = dict(iter(rows.groupby("batch")))
    empty = rows.iloc[:0]

    def fit(key: str | None, history_ends: datetime) -> str:
        n_rows = config.window_rows + config.rate_rows
        frame = reports.window(key, n_rows, history_ends) if config.window_models else None
        if frame is None:
            return ""
        location = snapshots.fit_location(ARREST_MODELS, f"{key or f'{topic}-start'}-{context.run.run_id[:8]}")
        context.log.info("fitting the Spark models on up to %d reports before the end of %s", n_rows, key)
        window.fit(frame, config.window_trees, config.window_rows).write().overwrite().save(location)
        return location

    def start(first: pd.DataFrame) -> Snapshot:
        ends, models = end_of_history(first), OnlineModels()
        reports.learn_history(models, ends, config.history_months)
        n_older = int((first["occurred_at"] < ends).sum())
        told = "learnt %d reports of the history before %s; %d of the first batch are older and count in no figure"
        context.log.info(told, models.reports, ends, n_older)
        return Snapshot(f"{topic}-start", models, {}, fit(None, ends), models.reports, ends)

    learner = TestThenTrain(
        order=order,
        reports=lambda key: own.get(key, empty) if key in wanted else reports.of(key),
        ends=lambda key: (parse(key).partition, parse(key).end),
        store=StoredSnapshots(
            snapshots, context.run.run_id, str(context.assets_def.code_versions_by_key[ARREST_MODELS])
        ),
        start_name=f"{topic}-start",
        start=start,
        refit=lambda snapshot: fit(snapshot.name, snapshot.history_ends),
        refit_rows=config.refit_rows or context.resources.settings.crimes_refit_rows,
        most=len(wanted) + LEARNT_ON,
    )
    training = ARREST_MODELS in context.selected_asset_keys
    used = scored_by(delta, ARREST_SCORES, wanted)
    learnt_ids = reports.ids_up_to(rows["report_id"])
    parts: list[pd.DataFrame] = []
    by_fit: dict[str, list[pd.DataFrame]] = {}
    missing = None
    for key in wanted:
        if training:
            learner.learn_before(key)
        if ARREST_SCORES.key in context.selected_asset_keys:
            snapshot = learner.before(key, used.get(key))
            scores = list(online_scores(own.get(key, empty), snapshot, learnt_ids(snapshot.name)))
            parts += scores
            by_fit.setdefault(snapshot.fit, []).append(scores[0])
        if training:
            missing = learner.learn_up_to(key)
    parts += _window_scores(context, by_fit)
    if training:
        learner.learn_on()
        _tell(context, learner, reports, wanted, missing)
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=ARREST_SCORES.column_names)
    return Outcome(table, learnt_all=training and missing is None)


def _window_scores(
    context: dg.AssetExecutionContext, by_fit: Mapping[str, Sequence[pd.DataFrame]]
) -> Iterator[pd.DataFrame]:
    """Scores of the Spark models, in one query for all batches that have the same.

    Where there are none any more, as other code has fitted them, what they said before stays.
    """
    from bigdata_assets.crimes.logic import window

    delta = context.resources.delta
    for location, places in by_fit.items():
        place = pd.concat(places)
        batches = sorted(place["batch"].unique())
        if not location:
            kept = delta.read_arrow(ARREST_SCORES, batches, where=pc.field("model").isin(window.MODELS))
            if len(kept):
                yield kept.to_pandas()
        elif batches:
            yield from window_scores(place, window.score(location, delta.read(CRIME_REPORTS, batches)), window.MODELS)


def _tell(
    context: dg.AssetExecutionContext,
    learner: TestThenTrain,
    reports: Reports,
    wanted: Sequence[str],
    missing: str | None,
) -> None:
    """What was learnt, as metadata of its partitions; for batches that are not the run's own, as materialisations.

    Also of what a run had learnt that was killed before it could tell.
    """
    if missing is not None:
        context.log.warning(
            "not learnt: batch %s comes first. Where it is not stored, run it again, and what waited for it is learnt; "
            "`bigdata-assets batches` shows its state. Where many have waited, the next runs go on.",
            missing,
        )
    told = context.instance.get_materialized_partitions(ARREST_MODELS)
    untold: dict[str, dict[str, int]] = {key: {} for key in learner.known() if key in reports.stored - told}
    learnt = {key: {"reports_learnt": known} for key, known in learner.learnt.items()}
    own: dict[str, dict[str, Any]] = {}
    for key, figures in {**untold, **learnt}.items():
        by = context.run.run_id if figures else "a run that ended before it could say so"
        metadata: dict[str, Any] = {**figures, "learnt_by_run": by}
        if key in wanted and missing is None:
            own[key] = metadata
        else:
            context.log_event(dg.AssetMaterialization(ARREST_MODELS, partition=key, metadata=metadata))
    tell_partitions(context.get_step_execution_context(), ARREST_MODELS, own)
