"""Labels, chips and predictions: as the assets make them, the bare library on the same cores, and the classic way.

The classic way of predicting makes the network anew for each row; it is measured on few rows.
"""

import io
import multiprocessing
import random
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from PIL import Image

from benchmarks.gravitational_waves import _best
from bigdata_assets import settings as settings_module
from bigdata_assets.big_cats.logic import annotations, chips, images, pictures, predictions
from bigdata_assets.big_cats.tables import (
    BOXES,
    CAT_CHIPS,
    CAT_IMAGE_IDS,
    CHIP_PREDICTIONS,
    IMAGE_LABELS,
    IMAGE_SOURCES,
    IMAGES,
    QUARANTINED_BOXES,
    QUARANTINED_IMAGES,
    QUARANTINED_LABELS,
    TABLES,
)
from bigdata_assets.io_managers.delta import DeltaIOManager
from bigdata_assets.resources import networks
from bigdata_assets.resources.spark import SparkResource

CORES = 2
LABEL_ROWS = 9_000_000
PICTURES = 2_500
CHIPS_OF_A_PICTURE = 2
NETWORK_CHIPS = 600
CLASSIC_CHIPS = 5
CLASSES = ("/m/07dm6", "/m/096mb")
TIGER, LION = CLASSES
SUBSET = "train"


def run() -> dict[str, float]:
    """Rows, chips and pictures a second of each way, best of several, and their ratios; needs a server that is up."""
    settings = settings_module.load()
    spark = SparkResource(remote=settings.spark_remote)
    sources = Path(settings.sources) / "big_cats"
    with tempfile.TemporaryDirectory() as name:
        delta = DeltaIOManager(f"{name}/storage", spark, TABLES)
        try:
            return {
                **_labels(delta, spark, Path(name)),
                **_pictures_and_chips(delta, Path(name), sources),
                **_predictions(delta, sources),
            }
        finally:
            spark.stop()


def _labels(delta: DeltaIOManager, spark: SparkResource, folder: Path) -> dict[str, float]:
    path = folder / f"{SUBSET}-annotations-human-imagelabels-boxable.csv"
    _write_labels(path)

    def ours() -> None:
        parts = annotations.plan(path, SUBSET, annotations.LABELS)
        tables = IMAGE_LABELS, QUARANTINED_LABELS
        staged = annotations.stage(spark.spark_session, parts, annotations.LABELS, *map(delta.staging, tables))
        for table, files in zip(tables, staged, strict=True):
            delta.write(table, files, [SUBSET], run_id="bench")
        ids = images.cat_image_ids(delta.read(IMAGE_LABELS, [SUBSET]), CLASSES)
        delta.write(CAT_IMAGE_IDS, ids, [SUBSET], run_id="bench")

    def bare() -> None:
        pa.set_cpu_count(CORES)
        types = pa.csv.ConvertOptions(column_types={"ImageID": pa.string(), "LabelName": pa.string()})
        with pa.csv.open_csv(path, convert_options=types) as batches:
            for rows in batches:
                of_classes = pc.is_in(rows["LabelName"], pa.array(CLASSES))
                rows.filter(pc.and_(of_classes, pc.equal(rows["Confidence"], 1)))

    with _peak_of_workers() as peak:
        our_s = _best(ours, 2)
    bare_s = _best(bare, 2)
    return {
        "million label rows a second, CSV to cat_image_ids": LABEL_ROWS / our_s / 1e6,
        "million label rows a second, bare pyarrow filter": LABEL_ROWS / bare_s / 1e6,
        "labels, ours : bare": bare_s / our_s,
        "labels, MB of the largest worker": peak[0] / 1e6,
    }


def _write_labels(path: Path) -> None:
    rng = random.Random(0)
    names = [f"/m/0{number:05d}" for number in range(598)] + list(CLASSES)
    with path.open("w") as file:
        file.write("ImageID,Source,LabelName,Confidence\n")
        for first in range(0, LABEL_ROWS, 5):  # five labels of each picture
            image_id = f"{first:016x}"
            file.writelines(
                f"{image_id},verification,{rng.choice(names)},{rng.randrange(2)}\n"
                for _ in range(min(5, LABEL_ROWS - first))
            )


def _photos(sources: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((sources / "images").glob("*.jpg"))]


def _corners(number: int) -> list[tuple[float, float, float, float]]:
    rng = random.Random(number)
    found = []
    for _ in range(CHIPS_OF_A_PICTURE):
        left, top = rng.uniform(0, 0.5), rng.uniform(0, 0.5)
        found.append((left, left + rng.uniform(0.2, 0.5), top, top + rng.uniform(0.2, 0.5)))
    return found


def _pictures_and_chips(delta: DeltaIOManager, folder: Path, sources: Path) -> dict[str, float]:
    photos = _photos(sources)
    (folder / "images").mkdir()
    names = [f"{number:016x}" for number in range(PICTURES)]
    boxes = []
    for number, name in enumerate(names):
        # A byte behind the end makes the pictures differ.
        data = photos[number % len(photos)] + number.to_bytes(4, "big")
        (folder / "images" / f"{name}.jpg").write_bytes(data)
        boxes += [
            {"subset": SUBSET, "image_id": name, "source": "xclick", "label": TIGER, "confidence": 1.0}
            | dict(zip(chips.CORNERS, corners, strict=True))
            for corners in _corners(number)
        ]
    ids = [{"subset": SUBSET, "image_id": name, "classes": [TIGER], "labels": [TIGER]} for name in names]
    for table, rows in ((BOXES, boxes), (CAT_IMAGE_IDS, ids)):
        delta.write(table, pa.Table.from_pylist(rows, table.arrow_schema), [SUBSET], run_id="bench")

    def read() -> None:
        place, tables = images.Place(str(folder)), (IMAGES, QUARANTINED_IMAGES)
        staged = images.stage(delta.read(CAT_IMAGE_IDS, [SUBSET]), place, *map(delta.staging, tables))
        for table, files in zip(tables, staged, strict=True):
            delta.write(table, files, [SUBSET], run_id="bench")

    def ours() -> None:
        frames = [delta.read(table, [SUBSET]) for table in (IMAGES, BOXES, CAT_IMAGE_IDS, IMAGE_SOURCES)]
        tables = CAT_CHIPS, QUARANTINED_BOXES
        staged = chips.stage_chips(*frames, [TIGER], chips.ChipSettings(), *map(delta.staging, tables))
        for table, files in zip(tables, staged, strict=True):
            delta.write(table, files, [SUBSET], run_id="bench")

    read_s = _best(read, 2)
    with _peak_of_workers() as peak:
        our_s = _best(ours, 2)
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        files = [(str(folder / "images" / f"{name}.jpg"), _corners(number)) for number, name in enumerate(names)]
        bare_s = _best(lambda: pool.map(_bare_chips, files, chunksize=10), 2)
    n_chips = PICTURES * CHIPS_OF_A_PICTURE
    return {
        "pictures a second, files to images": PICTURES / read_s,
        "chips a second, images to cat_chips": n_chips / our_s,
        "chips a second, bare PIL: decode, crop, PNG": n_chips / bare_s,
        "chips, ours : bare": bare_s / our_s,
        "chips, MB of the largest worker": peak[0] / 1e6,
    }


def _bare_chips(file: tuple[str, list[tuple[float, float, float, float]]]) -> int:
    path, corners = file
    picture = Image.open(path).convert("RGB")
    n_bytes = 0
    for left, right, top, bottom in corners:
        box = (left * picture.width, top * picture.height, right * picture.width, bottom * picture.height)
        out = io.BytesIO()
        picture.crop(tuple(map(round, box))).save(out, "PNG", compress_level=pictures.PNG_LEVEL)
        n_bytes += len(out.getvalue())
    return n_bytes


def _predictions(delta: DeltaIOManager, sources: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    some = delta.read_arrow(CAT_CHIPS).slice(0, NETWORK_CHIPS)
    delta.write(CAT_CHIPS, some, [SUBSET], run_id="bench")
    for name, file in (("MobileNetV2", "mobilenet_v2_1_0_224"), ("ResNet50", "resnet50")):
        weights = sources / "weights" / f"{file}.weights.h5"
        network = networks.Network.of(name, str(weights) if weights.is_file() else networks.NONE)
        labels = networks.class_names(sources / "weights" / networks.CLASS_NAMES)

        def ours(network: networks.Network = network, labels: Any = labels) -> None:
            rows = predictions.predict(delta.read(CAT_CHIPS), network, labels, 5, CORES * 2)
            delta.write(CHIP_PREDICTIONS, rows, [network.name], run_id="bench")

        with _peak_of_workers() as peak:
            our_s = _best(ours, 3)  # the first loads the network
        bare_s, classic_s = _in_a_process(_bare_predictions, network, some["chip"].to_pylist())
        found |= {
            f"{name}: chips a second, cat_chips to chip_predictions": NETWORK_CHIPS / our_s,
            f"{name}: chips a second, bare Keras, batches of 32, decoding": NETWORK_CHIPS / bare_s,
            f"{name}: chips a second, classic: a model a row": CLASSIC_CHIPS / classic_s,
            f"{name}: ours : bare": bare_s / our_s,
            f"{name}: ours : classic": (NETWORK_CHIPS / our_s) / (CLASSIC_CHIPS / classic_s),
            f"{name}: MB of the largest worker": peak[0] / 1e6,
        }
    return found


def _bare_predictions(network: networks.Network, data: list[bytes]) -> tuple[float, float]:
    """Seconds of Keras' own predict for all chips, and of a model made for each of a few."""
    import keras
    import numpy as np

    module = next(
        value
        for value in vars(keras.applications).values()
        if hasattr(value, network.name) and hasattr(value, "preprocess_input")
    )

    def model() -> Any:
        made = getattr(keras.applications, network.name)(weights=None)
        if network.weights != networks.NONE:
            made.load_weights(network.weights)
        return made

    def batch(some: list[bytes]) -> Any:
        pictures = [
            Image.open(io.BytesIO(one)).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR) for one in some
        ]
        return module.preprocess_input(np.stack([np.asarray(one, np.float32) for one in pictures]))

    whole = model()
    whole.predict(batch(data[:32]), verbose=0)

    def bare() -> None:
        for first in range(0, len(data), 32):
            whole.predict(batch(data[first : first + 32]), verbose=0)

    def classic() -> None:
        for one in data[:CLASSIC_CHIPS]:
            model().predict(batch([one]), verbose=0)

    return _best(bare, 2), _best(classic, 1)


def _in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """TensorFlow keeps its memory and threads: they go with the process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


@contextmanager
def _peak_of_workers() -> Iterator[list[int]]:
    """The most memory that one of Spark's Python workers has meanwhile, bytes."""
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            for process in psutil.process_iter(["cmdline"]):
                try:
                    if "pyspark.worker" in " ".join(process.info["cmdline"] or []):
                        peak[0] = max(peak[0], process.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()
