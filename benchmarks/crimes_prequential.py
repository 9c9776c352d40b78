"""How good the arrest models are, each report scored before a model learns it: January 2016 in batches of 120, and
2015 to 2016 in batches of 5,000, where a model that does not go on learning drifts away.

Takes half an hour; not part of `make bench`. Needs the real exports in BIGDATA_SOURCES/crimes and a Spark Connect
server that is up. Figures go to benchmarks/results_crimes_prequential.json.
"""

import json
import sys
import tempfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from pyspark.sql import functions as F

from bigdata_assets import settings as settings_module
from bigdata_assets.crimes.logic import exports, metrics, window
from bigdata_assets.crimes.logic.online import LOOK_UP, OnlineModels
from bigdata_assets.crimes.logic.prequential import Snapshot, TestThenTrain, online_scores, window_scores
from bigdata_assets.resources.spark import SparkResource

RESULTS = Path(__file__).with_name("results_crimes_prequential.json")
WINDOW_ROWS = 20_000
RATE_ROWS = 300_000


class InMemory:
    """The snapshots as they are: what is measured is the models, not their storage."""

    def __init__(self) -> None:
        self.kept: dict[str, Snapshot] = {}

    def names(self) -> set[str]:
        return set(self.kept)

    def load(self, name: str) -> Snapshot:
        return self.kept[name]

    def save(self, snapshot: Snapshot) -> None:
        # Learning goes on in the same object: only the newest is as it was when it was kept.
        self.kept = {snapshot.name: snapshot}


def prequential(
    spark: SparkResource, folder: Path, history: list[str], months: list[str], batch_rows: int, refit_rows: int
) -> pd.DataFrame:
    """Rows of batch_metrics over the months, with the model `static` that learnt the history alone."""
    stream = pd.concat([exports.read_month(folder, month).reports for month in months], ignore_index=True)
    past = [exports.read_month(folder, month).reports for month in history]
    names = [f"b{number:06d}" for number in range(0, len(stream), batch_rows)]
    stream = stream.assign(
        batch=[names[number // batch_rows] for number in range(len(stream))],
        kafka_partition=0,
        kafka_offset=range(len(stream)),
        version=1,
        broker_timestamp=stream["occurred_at"],
    )
    batches = dict(iter(stream.groupby("batch")))
    frozen = OnlineModels()
    for month in past:
        frozen.learn(month)
    with tempfile.TemporaryDirectory() as aside:
        before = pd.concat(past, ignore_index=True).sort_values(["occurred_at", "report_id"])
        every = pd.concat([before, stream], ignore_index=True)
        every = every.assign(number=range(-len(before), len(stream)))
        pa.parquet.write_table(
            pa.Table.from_pandas(every, preserve_index=False), f"{aside}/reports.parquet", use_dictionary=False
        )
        reports = spark.spark_session.read.parquet(f"{aside}/reports.parquet")

        def fit(learnt: int) -> str:
            location = f"{aside}/fit-{learnt}"
            last = reports.where(F.col("number").between(learnt - WINDOW_ROWS - RATE_ROWS, learnt - 1))
            window.fit(last, n_newest=WINDOW_ROWS).write().overwrite().save(location)
            sys.stderr.write(f"fitted before report {learnt}\n")
            return location

        def start(rows: pd.DataFrame) -> Snapshot:
            models = OnlineModels.load(frozen.dump())
            return Snapshot("start", models, {}, fit(0), models.reports, rows["occurred_at"].min())

        learner = TestThenTrain(
            order=names,
            reports=batches.get,
            ends=lambda name: (0, int(batches[name]["kafka_offset"].max()) + 1),
            store=InMemory(),
            start_name="start",
            start=start,
            refit=lambda snapshot: fit(snapshot.position["0"]),
            refit_rows=refit_rows,
            most=len(names),
        )
        scores, places = [], {}
        for name in names:
            snapshot = learner.before(name, None)
            parts = list(online_scores(batches[name], snapshot, ()))
            static = frozen.predict(batches[name])["online_sgd"]
            scores += [*parts, parts[0].assign(model="static", probability=static)]
            places.setdefault(snapshot.fit, []).append(parts[0])
            learner.learn_up_to(name)
        for location, parts in places.items():
            place = pd.concat(parts)
            frame = reports.where(F.col("batch").isin(sorted(place["batch"].unique())))
            scores += window_scores(place, window.score(location, frame), window.MODELS)
    columns = ["batch", "model", "first_broker_timestamp", "scored_reports", "correct", "accuracy", "roc_auc"]
    columns += ["log_loss", "bias"]
    return metrics.by_batch(pd.concat(scores), stream, columns)


def overall(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Figures over all batches, by model."""
    last = metrics.cumulative(rows, 20).groupby("model").last()
    auc = rows.groupby("model")["roc_auc"].mean()
    return {
        model: {
            "accuracy": figures["cumulative_accuracy"],
            "log_loss": figures["cumulative_log_loss"],
            "bias": figures["cumulative_bias"],
            "roc_auc, mean of batches": auc[model],
        }
        for model, figures in last.iterrows()
    }


def months_won(rows: pd.DataFrame) -> dict[str, float]:
    """Share of months in which a model's log loss is below the look-up's; a batch is of the month that it begins in."""
    month = rows["first_broker_timestamp"].dt.tz_convert(exports.TIME_ZONE).dt.strftime("%Y-%m")
    summed = (rows["log_loss"] * rows["scored_reports"]).groupby([month, rows["model"]]).sum().unstack()
    return {str(model): float((summed[model] < summed[LOOK_UP]).mean()) for model in summed}


def main() -> None:
    """Both streams."""
    settings = settings_module.load()
    folder = Path(settings.sources) / "crimes"
    months = [f"{year}-{month:02d}" for year in range(2012, 2017) for month in range(1, 13)]
    spark = SparkResource(remote=settings.spark_remote)
    try:
        january = prequential(spark, folder, months[24:48], ["2016-01"], 120, 2_000)
        figures = {"January 2016, batches of 120, history 2014-2015": overall(january)}
        _write(figures)
        two_years = prequential(spark, folder, months[12:36], months[36:], 5_000, 20_000)
        figures["2015-2016, batches of 5,000, history 2013-2014"] = overall(two_years)
        figures["2015-2016, share of months with a log loss below the look-up's"] = {
            model: {"share": share} for model, share in months_won(two_years).items()
        }
        half = two_years[two_years["batch"] > two_years["batch"].sort_values().iloc[len(two_years) * 3 // 4]]
        figures["its last quarter"] = overall(half)
        _write(figures)
    finally:
        spark.stop()


def _write(figures: dict[str, dict[str, dict[str, float]]]) -> None:
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")
    for name, models in figures.items():
        sys.stdout.write(f"{name}\n{pd.DataFrame(models).T.round(4).to_string()}\n")


if __name__ == "__main__":
    main()
