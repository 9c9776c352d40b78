"""How well chirps are told from glitches, and the real classes from each other, by repeated cross-validation.

On the real glitches and on simulated ones; figures go to results_gravitational_waves_quality.json. Needs Spark Connect,
up, and real glitches where BIGDATA_SOURCES says. The classic setting is cross-validated here and not in
the report: on the whole training set its 23,800 pixels take hours.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from bigdata_assets import settings as settings_module
from bigdata_assets.gravitational_waves import sample
from bigdata_assets.gravitational_waves.logic.classifiers import cnn, cnn_report, features, rbf, svc
from bigdata_assets.gravitational_waves.logic.training import metadata, training_set
from bigdata_assets.gravitational_waves.logic.training.gravity_spy import CLASSES
from bigdata_assets.gravitational_waves.tables import GLITCH_FEATURES, QUARANTINED_SPECTROGRAMS, SPECTROGRAMS, TABLES
from bigdata_assets.io_managers.delta import DeltaIOManager
from bigdata_assets.resources.spark import SparkResource

RESULTS = Path(__file__).with_name("results_gravitational_waves_quality.json")
REPEATS = 5
SEED = 100
"""Not that of the report, whose folds were seen while settings were chosen."""
SIMULATED: Mapping[str, int] = {"Chirp": 120, "No_Glitch": 60} | dict.fromkeys(sample.simulation.GLITCHES, 30)
LOUD_SNR = 10.0
"""Chirps are learnt down to the sample's lowest signal-to-noise ratio, and scored from here on too."""


def main() -> None:
    """Print a table for each set of glitches, and keep all."""
    settings, found = settings_module.load(), dict[str, object]()
    spark = SparkResource(remote=settings.spark_remote)
    with tempfile.TemporaryDirectory() as name:
        simulated = Path(name) / "simulated"
        simulated.mkdir()
        sample.write_sample(simulated, seed=1, glitches=SIMULATED)
        try:
            for title, folder in (("simulated", simulated), ("real", Path(settings.sources) / "gravitational_waves")):
                if folder.is_dir():
                    delta = DeltaIOManager(f"{name}/storage/{title}", spark, TABLES)
                    print(f"\n{title}", flush=True)
                    found[title] = _measure(spark.spark_session, delta, folder, with_classes=title == "real")
        finally:
            spark.stop()
    RESULTS.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")


def _measure(spark: SparkSession, delta: DeltaIOManager, folder: Path, with_classes: bool) -> dict[str, object]:
    """Figures of chirps, of the loud ones, and of the classes, which on simulated glitches say nothing."""
    measured: dict[str, object] = {}
    spectrograms, glitches = _tables(spark, delta, folder / training_set.FILE)
    rows = rbf.with_pixels(glitches.toPandas())
    settings = svc.SvcSettings()
    kernel = rbf.cross_validated(rows, REPEATS, SEED)
    scored = {
        "rbf_svm": kernel,
        "chirp_svc": svc.cross_validated(spark, svc.vectors(glitches, settings), settings, REPEATS, SEED),
        "brightness": kernel.assign(margin=kernel["brightness"]),
        "classic": svc.cross_validated(spark, svc.whole_pictures(spectrograms, svc.CLASSIC), svc.CLASSIC, 1, SEED),
    }
    official, _ = metadata.read(folder / metadata.FILE)
    snr = official.to_pandas().set_index("gravityspy_id")["snr"]
    faint = set(rows["id"][rows["is_signal"]]) & set(snr.index[snr < LOUD_SNR])
    for what, without in {"all chirps": set(), f"chirps of a ratio from {LOUD_SNR:g} on": faint}.items():
        kept = {model: found[~found["id"].isin(without)] for model, found in scored.items()}
        figures = {model: svc.fold_figures(found) for model, found in kept.items()}
        n_chirps = int(rows["is_signal"].sum()) - len(without)
        title = f"{what}: {n_chirps} of {len(rows) - len(without)}, {REPEATS} repeats (classic: 1)"
        print(f"{title}\n{pd.DataFrame(figures).T.round(3).to_string()}", flush=True)
        measured[title] = _without_nan(figures)
    if not with_classes:
        return measured
    views = cnn.glitches(cnn.glitch_views(spectrograms).toPandas())
    coarse = np.stack(rows["pixels"].to_list())
    crossed = cnn_report.cross_validated(views, coarse, cnn.CnnSettings(seed=SEED), REPEATS, svc.MAX_FOLDS)
    for minus in (None, cnn_report.LINEAR):
        title, of_classes = f"classes{f', less {minus}' if minus else ''}", cnn_report.over_repeats(crossed, minus)
        print(f"\n{title}\n{pd.DataFrame(of_classes).T.round(3).to_string()}", flush=True)
        measured[title] = _without_nan(of_classes)
    return measured


def _without_nan(figures: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """JSON has no NaN, which percentiles of a single repeat are."""
    return {model: {name: its[name] for name in its if np.isfinite(its[name])} for model, its in figures.items()}


def _tables(spark: SparkSession, delta: DeltaIOManager, path: Path) -> tuple[DataFrame, DataFrame]:
    """Spectrograms and features: tables, because a frame that reads the file would be read again by each fit."""
    staging = map(delta.staging, (SPECTROGRAMS, QUARANTINED_SPECTROGRAMS))
    images, _ = training_set.stage_images(spark, path, CLASSES, *staging)
    delta.write(SPECTROGRAMS, images, CLASSES, run_id="quality")
    delta.write(GLITCH_FEATURES, features.features(delta.read(SPECTROGRAMS)), None, run_id="quality")
    return delta.read(SPECTROGRAMS), delta.read(GLITCH_FEATURES)


if __name__ == "__main__":
    main()
