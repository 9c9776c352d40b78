"""The training set to its tables: as the asset spectrograms does it, bare h5py and pyarrow, and the classic layout.

The classic way makes a frame of one row for each image and appends it to a folder of Parquet files of its own; it is
measured on few images, because it would take hours on all.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bigdata_assets import settings as settings_module
from bigdata_assets.gravitational_waves.logic.training import training_set
from bigdata_assets.gravitational_waves.logic.training.gravity_spy import CLASSES, VIEWS_S
from bigdata_assets.gravitational_waves.tables import QUARANTINED_SPECTROGRAMS, SPECTROGRAMS, TABLES
from bigdata_assets.io_managers.delta import DeltaIOManager
from bigdata_assets.resources.spark import SparkResource

CORES = 2
GLITCHES = 1_100
CLASSIC_IMAGES = 30


def run() -> dict[str, float]:
    """Images a second of each way, best of three, and their ratios; needs a Spark Connect server that is up."""
    settings = settings_module.load()
    spark = SparkResource(remote=settings.spark_remote)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / training_set.FILE
        images = _write(path, Path(settings.sources) / "gravitational_waves" / training_set.FILE)
        delta = DeltaIOManager(f"{folder}/storage", spark, TABLES)
        try:
            ours = images / _best(lambda: _ours(delta, spark, path))
            classic = CLASSIC_IMAGES / _best(lambda: _classic(spark, path, folder / "classic"), 1)
        finally:
            spark.stop()
        bare = images / _best(lambda: _bare(path, folder / "bare"))
    return {
        "images a second, HDF5 to table": ours,
        "images a second, bare h5py and pyarrow on two cores": bare,
        "images a second, classic: a Parquet folder per row": classic,
        "ours : bare": ours / bare,
        "ours : classic": ours / classic,
    }


def _write(path: Path, real: Path) -> int:
    """A training set of real spectrograms, or of noise where there are none, 4 views a glitch; how many images."""
    pool = [np.random.default_rng(0).random((1, 140, 170), np.float32) for _ in range(50)]
    if real.is_file():
        with h5py.File(real) as file:
            pool = [
                view[()]
                for label in file.values()
                for group in label.values()
                for glitch in group.values()
                for view in glitch.values()
            ]
    with h5py.File(path, "w") as out:
        for number in range(GLITCHES):
            group = out.create_group(f"{CLASSES[number % len(CLASSES)]}/train/{number:010}")
            for place, view_s in enumerate(VIEWS_S):
                group[f"{view_s}.png"] = pool[(4 * number + place) % len(pool)]
    return GLITCHES * len(VIEWS_S)


def _ours(delta: DeltaIOManager, spark: SparkResource, path: Path) -> None:
    tables = SPECTROGRAMS, QUARANTINED_SPECTROGRAMS
    staged = training_set.stage_images(spark.spark_session, path, CLASSES, *map(delta.staging, tables))
    for table, files in zip(tables, staged, strict=True):
        delta.write(table, files, CLASSES, run_id="bench")


def _bare(path: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with multiprocessing.get_context("fork").Pool(CORES) as pool:
        pool.starmap(_bare_half, [(path, folder, number) for number in range(CORES)])


def _bare_half(path: Path, folder: Path, number: int) -> None:
    """Every other class to one Parquet file, a class at a time."""
    with h5py.File(path) as file, pq.ParquetWriter(folder / f"{number}.parquet", SPECTROGRAMS.arrow_schema) as out:
        for label in sorted(file)[number::CORES]:
            rows = [
                (name, label, sample_type, float(view.removesuffix(".png")), glitch[view][()].ravel())
                for sample_type, group in file[label].items()
                for name, glitch in group.items()
                for view in glitch
            ]
            ids, labels, sample_types, views, images = zip(*rows, strict=True)
            offsets = pa.array(np.arange(0, 23_800 * len(rows) + 1, 23_800), pa.int32())
            pixels = pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(images)))
            sizes = [pa.array([size] * len(rows), pa.int32()) for size in (140, 170)]
            columns = [pa.array(column) for column in (ids, labels, sample_types, views)]
            out.write(
                pa.Table.from_arrays([*columns, pixels, *sizes], names=SPECTROGRAMS.column_names).cast(out.schema)
            )


def _classic(spark: SparkResource, path: Path, folder: Path) -> None:
    session = spark.spark_session
    done = 0
    with h5py.File(path) as file:
        for label, sample_types in file.items():
            for sample_type, group in sample_types.items():
                for name, glitch in group.items():
                    for view in glitch:
                        pixels = glitch[view][()].ravel().tolist()
                        row = session.createDataFrame([(name, label, sample_type, view, pixels)])
                        row.write.mode("append").parquet(str(folder / label / name / view))
                        done += 1
                        if done == CLASSIC_IMAGES:
                            return


def _best(action: Callable[[], None], times: int = 3) -> float:
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
