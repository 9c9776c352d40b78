"""Bytes of exactly the pictures that are asked for, from files or from the publisher, staged by Spark's workers.

No byte passes the driver. A download is a file of its own before it is a row, so that a worker that is killed has
lost one picture at most.
"""

import contextlib
import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bigdata_assets import reading
from bigdata_assets.big_cats.logic import pictures
from bigdata_assets.big_cats.logic.annotations import IMAGE_ID
from bigdata_assets.big_cats.tables import IMAGE_LABELS, IMAGES, QUARANTINED_IMAGES
from bigdata_assets.io_managers.staging import StagedFiles, Staging
from bigdata_assets.tables import row_schema, to_arrow

if TYPE_CHECKING:
    import requests
    from pyspark.sql import DataFrame, SparkSession

USER_AGENT = "bigdata-assets (an asset graph that reads Open Images)"
TIMEOUT_S = 30
ATTEMPTS = 5
BACKOFF_S = 0.5
CHUNK_BYTES = 1 << 20
TASK_IMAGES = 100
LOCATED = row_schema(*(c for c in QUARANTINED_IMAGES.columns if c.name != "sha256"))
ROWS = to_arrow(row_schema(*IMAGES.columns, *QUARANTINED_IMAGES.columns))
"""What reading yields: a picture, or else `reason` and `place`."""


@dataclass(frozen=True)
class Place:
    """Where pictures are, and what is taken of them.

    Attributes:
        folder: with images/<id>.jpg, images/<subset>/<id>.jpg or <subset>/<id>.jpg.
        url: below it, at <subset>/<id>.jpg, is what the folder lacks: it is downloaded into images/<subset>. None:
            nothing is.
        max_bytes: of a file; a larger one is not read.
        max_pixels: of a picture; a larger one is not decoded.
        pause_s: between two downloads of a worker.
    """

    folder: str
    url: str | None = None
    max_bytes: int = 64 << 20
    max_pixels: int = pictures.MAX_PIXELS
    pause_s: float = 0.02

    def candidates(self, subset: str, image_id: str) -> Iterator[Path]:
        if not re.fullmatch(IMAGE_ID, image_id):
            raise ValueError(f"{image_id!r} is no name of a picture")
        for below in (("images",), ("images", subset), (subset,)):
            yield Path(self.folder, *below, f"{image_id}.jpg")

    def found(self, subset: str, image_id: str) -> Path | None:
        return next((path for path in self.candidates(subset, image_id) if path.is_file()), None)


def negatives(labels: "DataFrame", classes: Iterable[str], at_most: int) -> "DataFrame":
    """Names (subset, image_id) of pictures that were looked at for some of the classes, and none was found.

    A repeatable draw. Nobody has looked for every class on every picture.

    Args:
        labels: rows of IMAGE_LABELS.
        classes: MIDs.
        at_most: how many of each subset.
    """
    from pyspark.sql import Window, functions

    known = labels.where(functions.col("label").isin(list(classes)))
    highest = known.groupBy("subset", "image_id").agg(functions.max("confidence").alias("highest"))
    order = Window.partitionBy("subset").orderBy(functions.xxhash64("image_id"), "image_id")
    drawn = highest.where("highest = 0").withColumn("number", functions.row_number().over(order))
    return drawn.where(functions.col("number") <= at_most).select("subset", "image_id")


def cat_image_ids(labels: "DataFrame", classes: Iterable[str]) -> "DataFrame":
    """One row per picture that is verified to show one of the classes; columns as in CAT_IMAGE_IDS.

    Args:
        labels: rows of IMAGE_LABELS.
        classes: MIDs.
    """
    from pyspark.sql import functions

    verified = labels.where("confidence > 0.99").select(IMAGE_LABELS.column_names)
    of_classes = functions.col("label").isin(list(classes))
    chosen = verified.where(of_classes).select("subset", "image_id").distinct()
    return (
        # The chosen ones go to the labels, which are a hundred times as many and stay where they are.
        verified.join(functions.broadcast(chosen), ["subset", "image_id"], "left_semi")
        .groupBy("subset", "image_id")
        .agg(
            functions.sort_array(functions.collect_set(functions.when(of_classes, functions.col("label")))).alias(
                "classes"
            ),
            functions.sort_array(functions.collect_set("label")).alias("labels"),
        )
    )


def stage(ids: "DataFrame", place: Place, usable: Staging, refused: Staging) -> tuple[StagedFiles, StagedFiles]:
    """Files of pictures and of those that cannot be had, by their names (subset, image_id).

    The same bytes under several names are the publisher's stand-in for pictures that are gone: all of them are refused.
    """
    from pyspark.sql import functions

    n_tasks = max(-(-ids.count() // TASK_IMAGES), 2)
    spread = ids.select("subset", "image_id").repartition(n_tasks, "image_id")
    located_once = reading.once(spread.mapInArrow(lambda batches: locate(batches, place), LOCATED))
    with _progress(ids.sparkSession), located_once as located:
        # Only files of one size can be the same.
        sizes = located.where("reason IS NULL").groupBy("image_bytes").count().where("count > 1").drop("count")
        suspects = located.join(functions.broadcast(sizes), "image_bytes").select("place")
        hashed = suspects.mapInArrow(_hashes, "sha256 string").groupBy("sha256").count().where("count > 1")
        repeated = frozenset(hashed.toArrow()["sha256"].to_pylist())
        ordered = located.sortWithinPartitions("subset")
        return reading.stage_rows(ordered, lambda batches: read(batches, place, repeated), usable, refused)


@contextlib.contextmanager
def _progress(spark: "SparkSession") -> Iterator[None]:
    """A line every ten seconds of how many of Spark's tasks are done: pictures may be downloaded for hours."""
    from tqdm import tqdm

    done: dict[int, tuple[int, int]] = {}
    with tqdm(desc="pictures", unit="task", mininterval=10) as bar:

        def told(stages: Any, **_: Any) -> None:
            done.update({stage.stage_id: (stage.num_completed_tasks, stage.num_tasks) for stage in stages or ()})
            bar.n, bar.total = (sum(numbers) for numbers in zip(*done.values(), strict=True)) if done else (0, 0)
            bar.update(0)

        spark.registerProgressHandler(told)  # type: ignore[arg-type]
        try:
            yield
        finally:
            spark.removeProgressHandler(told)  # type: ignore[arg-type]


def locate(batches: Iterable[pa.RecordBatch], place: Place) -> Iterator[pa.RecordBatch]:
    """Where pictures (subset, image_id) are, downloaded first where that is to be; columns as in LOCATED."""
    session = _session()
    for batch in batches:
        rows = [_locate(row["subset"], row["image_id"], place, session) for row in batch.to_pylist()]
        yield pa.RecordBatch.from_pylist(rows, to_arrow(LOCATED))


def _locate(subset: str, image_id: str, place: Place, session: "requests.Session") -> dict[str, Any]:
    """Where a picture is and how large, downloaded first where that is to be; or the reason why it is not there."""
    row: dict[str, Any] = {"subset": subset, "image_id": image_id}
    path = place.found(subset, image_id)
    if path is None and place.url is not None:
        url, path = f"{place.url}/{subset}/{image_id}.jpg", Path(place.folder, "images", subset, f"{image_id}.jpg")
        time.sleep(place.pause_s)
        if reason := _download(session, url, path, place.max_bytes):
            return row | {"place": url, "reason": reason}
    if path is None:
        looked = ", ".join(str(candidate) for candidate in place.candidates(subset, image_id))
        return row | {"place": looked, "reason": "absent: there is no such file"}
    return row | {"place": str(path), "image_bytes": path.stat().st_size}


def _session() -> "requests.Session":
    """Asks again, with growing waits or as long as the server says, where a server is busy or cannot be reached."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    session = requests.Session()
    session.headers["User-Agent"] = USER_AGENT
    retries = Retry(
        ATTEMPTS, backoff_factor=BACKOFF_S, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))
    return session


def _download(session: "requests.Session", url: str, path: Path, max_bytes: int) -> str:
    """Fetch a file, seen whole or not at all; again where a connection breaks in the middle of it.

    Returns:
        Why it cannot be had; empty where it is there.

    Raises:
        requests.RequestException: the server does not answer, or not to the end: that says nothing of the picture.
    """
    import requests

    for attempt in range(ATTEMPTS):
        try:
            return _fetched(session, url, path, max_bytes)
        except (requests.exceptions.ChunkedEncodingError, requests.ConnectionError, requests.Timeout):
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(BACKOFF_S * 2**attempt)
    raise AssertionError("unreachable")


def _fetched(session: "requests.Session", url: str, path: Path, max_bytes: int) -> str:
    with session.get(url, stream=True, timeout=TIMEOUT_S) as answer:
        if answer.status_code in (403, 404, 410):
            return f"absent: the publisher answers {answer.status_code}"
        answer.raise_for_status()
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with aside.open("wb") as file:
                for chunk in answer.iter_content(CHUNK_BYTES):
                    file.write(chunk)
                    if file.tell() > max_bytes:
                        return f"oversized: more than {max_bytes:,} bytes"
                if not file.tell():
                    return "absent: the publisher answers with nothing"
            os.replace(aside, path)  # noqa: PTH105
        finally:
            with contextlib.suppress(FileNotFoundError):
                aside.unlink()
    return ""


def _hashes(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield pa.RecordBatch.from_arrays([pa.array([_sha256(Path(path)) for path in batch[0].to_pylist()])], ["sha256"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(batches: Iterable[pa.RecordBatch], place: Place, repeated: Set[str]) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Pictures of rows as LOCATED has them, columns as in ROWS, with the subset that all of a batch are of.

    Args:
        batches: the rows, sorted by subset.
        place: what is taken of them.
        repeated: SHA-256 of files that several pictures have.
    """
    rows = (_picture(row, place, repeated) for batch in batches for row in batch.to_pylist())
    return reading.by_partition(rows, "subset", "image", ROWS)


def _picture(row: dict[str, Any], place: Place, repeated: Set[str]) -> dict[str, Any]:
    """A row of IMAGES, or of QUARANTINED_IMAGES."""
    if row["reason"] is not None:
        return row
    if row["image_bytes"] > place.max_bytes:
        return row | {"reason": f"oversized: {row['image_bytes']:,} bytes of {place.max_bytes:,} at most"}
    data = Path(row["place"]).read_bytes()
    found = row | {"image_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if found["sha256"] in repeated:
        return found | {"reason": "a stand-in: other pictures have the same bytes"}
    try:
        picture = pictures.inspect(data, place.max_pixels)
    except pictures.PictureError as error:
        return found | {"reason": str(error)}
    return found | {"image": data, **vars(picture)}
