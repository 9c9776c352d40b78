"""From strain files to Q-scans of events and of the background beside them, and what models say of these."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bigdata_assets.gravitational_waves.logic.classifiers.svc import SIGNAL
from bigdata_assets.gravitational_waves.logic.strain import events, qscans, strain
from bigdata_assets.gravitational_waves.logic.strain.strain import StrainError, StrainFileError
from bigdata_assets.gravitational_waves.logic.training.gravity_spy import CLASSES, HEIGHT, VIEWS_S, WIDTH
from bigdata_assets.gravitational_waves.tables import QSCANS, QUARANTINED_QSCANS
from bigdata_assets.tables import row_schema, to_arrow

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

AWAY_S = qscans.SPAN_S / 2
"""Background is at least so far from the event that no view of it is transformed together with the event."""
SCANS = to_arrow(row_schema(*QSCANS.columns, *QUARANTINED_QSCANS.columns))
"""A row per view, or one with a reason per Q-scan that could not be made."""


def read_strain(folder: Path, keys: Sequence[str]) -> tuple[list[pa.Table], list[dict[str, str]]]:
    """The seconds of each key's file, and why a key has none (event_detector, path, reason).

    Args:
        folder: the branch's folder.
        keys: partition keys `<event>-<detector>`.

    Raises:
        StrainFileError: the list of events itself cannot be read.
    """
    found, refused = [], []
    listed = events.read(folder)
    for key in keys:
        name, detector = events.parse(key)
        path = ""
        try:
            gps_s = events.named(listed, name).gps_s
            file = strain.find(folder / events.FOLDER, detector, gps_s)
            path = file.name
            read = strain.read(file)
            if read.detector != detector:
                raise StrainFileError(f"{file} says that it is of {read.detector}")
            seconds = strain.rows(read, gps_s)
        except StrainFileError as error:
            refused.append({"event_detector": key, "path": path, "reason": str(error)[:500]})
            continue
        found.append(_named(seconds, key, event_gps_s=gps_s))
    return found, refused


def _named(rows: pa.Table, key: str, **more: Any) -> pa.Table:
    name, detector = events.parse(key)
    for column, value in {"event_detector": key, "event": name, "detector": detector, **more}.items():
        rows = rows.append_column(column, pa.array([value] * rows.num_rows))
    return rows


def scan(seconds: "DataFrame", n_keys: int, background: int) -> pa.Table:
    """Q-scans of rows of the table `strain`, computed by Spark's workers a key at a time: columns of SCANS.

    Args:
        seconds: rows of `strain`.
        n_keys: how many keys these have.
        background: how many scans of the background beside each event.
    """
    from pyspark.sql.pandas.types import from_arrow_schema

    def of_key(rows: pa.Table) -> pa.Table:
        return _scan_rows(rows, background)

    # By number: what Spark chose from the few bytes would be one task.
    keyed = seconds.repartition(n_keys, "event_detector").groupBy("event_detector")
    return keyed.applyInArrow(of_key, from_arrow_schema(SCANS)).toArrow()


def _scan_rows(seconds: pa.Table, background: int) -> pa.Table:
    key, event_gps_s = seconds["event_detector"][0].as_py(), seconds["event_gps_s"][0].as_py()
    name, detector = events.parse(key)
    rows = []
    for scanned in scans(strain.of_rows(seconds, detector), event_gps_s, background):
        views = scanned.pop("views", None)
        row = {"event_detector": key, "event": name, "detector": detector, "scan": f"{key}@{scanned['gps_s']:.3f}"}
        row |= scanned
        if views is None:
            rows.append(row)
            continue
        for view_s, image in zip(VIEWS_S, views, strict=True):
            rows.append(row | {"view_s": view_s, "pixels": image.ravel(), "height": HEIGHT, "width": WIDTH})
    return pa.Table.from_pylist(rows, schema=SCANS)


def scans(found: strain.Strain, event_gps_s: float, background: int) -> Iterator[dict[str, Any]]:
    """The event's Q-scan and those of the background beside it: gps_s, is_event, and `views` or else a `reason`."""
    event_s = event_gps_s - found.gps_start_s
    whites: dict[tuple[float, float], Any] = {}
    for time_s in [event_s, *background_times(found.stretches, event_s, background)]:
        row = {"gps_s": round(found.gps_start_s + time_s, 3), "is_event": time_s == event_s}
        try:
            stretch = found.stretch_around(time_s)
            if stretch not in whites:
                whites[stretch] = qscans.whitened(found.between(*stretch), found.rate_hz)
            yield row | {"views": qscans.views(whites[stretch], time_s - stretch[0])}
        except StrainError as error:
            yield row | {"reason": str(error)}


def background_times(stretches: Sequence[tuple[float, float]], event_s: float, number: int) -> list[float]:
    """At most `number` seconds, spread over all that a Q-scan can be made of and that are away from the event."""
    margin = qscans.SPAN_S / 2
    times = [
        second
        for begin, end in stretches
        if end - begin >= qscans.MIN_STRAIN_S
        for second in np.arange(np.ceil(begin + margin), end - margin + 1e-9).tolist()
        if abs(second - event_s) >= AWAY_S
    ]
    if number >= len(times):
        return times
    return [times[place] for place in np.linspace(0, len(times) - 1, number).round().astype(int)] if number else []


def as_glitches(scanned: "DataFrame") -> "DataFrame":
    """Rows of `qscans` as if they were of `spectrograms`, their `scan` being the `id`."""
    return scanned.selectExpr("scan AS id", "'' AS label", "'' AS sample_type", "view_s", "pixels")


def by_detector(seconds: pa.Table) -> dict[str, strain.Strain]:
    """The strain of each detector that there are rows of; all of one event."""
    return {
        detector: strain.of_rows(seconds.filter(pc.equal(seconds["detector"], detector)), detector)
        for detector in pc.unique(seconds["detector"]).to_pylist()
    }


def by_detectors(tables: Sequence[pa.Table]) -> dict[str, strain.Strain]:
    """The same of tables as `read_strain` returns them."""
    return {detector: found for table in tables for detector, found in by_detector(table).items()}


def scans_of(views: "DataFrame") -> pd.DataFrame:
    """One row per Q-scan of rows of `qscans`, without its pixels."""
    return views.select("event_detector", "event", "detector", "scan", "gps_s", "is_event").distinct().toPandas()


def of_network(scans: NDArray[np.str_], probabilities: NDArray[np.float32]) -> pd.DataFrame:
    """What the network says of each scan: id, margin (its probability of a chirp), label (the most likely class)."""
    label = np.array(CLASSES)[probabilities.argmax(axis=1)]
    return pd.DataFrame({"id": scans, "margin": probabilities[:, CLASSES.index(SIGNAL)].astype(float), "label": label})


def predictions(
    scans: pd.DataFrame, margins: Mapping[str, pd.DataFrame], judges: Mapping[str, tuple[str, float]]
) -> pd.DataFrame:
    """Rows of event_predictions.

    Args:
        scans: as `scans_of` returns them.
        margins: by model one row per Q-scan: id (its `scan`), margin, and of the network label.
        judges: by model its version and threshold.

    Raises:
        ValueError: a model has no score for a Q-scan, or two.
    """
    found = [scans.iloc[:0].assign(model="", model_version="", score=0.0, label=None, threshold=0.0)]
    for model, rows in margins.items():
        scored = rows.rename(columns={"id": "scan", "margin": "score"}).reindex(columns=["scan", "score", "label"])
        merged = scans.merge(scored, on="scan", validate="one_to_one")
        if len(merged) != len(scans):
            raise ValueError(f"{model} has scores for {len(merged)} of {len(scans)} Q-scans")
        version, threshold = judges[model]
        found.append(merged.assign(model=model, model_version=version, threshold=threshold))
    return pd.concat(found, ignore_index=True).assign(is_chirp=lambda rows: rows["score"] > rows["threshold"])


def agreement(predicted: pd.DataFrame) -> dict[str, dict[str, str]]:
    """By model how many of the events, and of the seconds of background, it calls chirps."""
    return {
        str(model): {
            what: f"{int(part['is_chirp'].sum())} of {len(part)}"
            for what, part in (("events", rows[rows["is_event"]]), ("background", rows[~rows["is_event"]]))
        }
        for model, rows in predicted.groupby("model")
    }
