"""Where the branch's rows come from: predictions of a glitch or Q-scan, its pixels, the HDF5 file that has them."""

import contextlib
import math
from pathlib import Path

from bigdata_assets.gravitational_waves.logic.strain import events
from bigdata_assets.gravitational_waves.logic.training import metadata, training_set
from bigdata_assets.gravitational_waves.source import SOURCE
from bigdata_assets.gravitational_waves.tables import (
    CHIRP_PREDICTIONS,
    EVENT_PREDICTIONS,
    GLITCH_FEATURES,
    GLITCH_METADATA,
    GLITCH_VIEWS,
    QSCANS,
    QUARANTINED_QSCANS,
    QUARANTINED_SPECTROGRAMS,
    QUARANTINED_STRAIN,
    SPECTROGRAMS,
    STRAIN,
)
from bigdata_assets.tracing.lineage import Lineage, Link, Model, Raw, Row, Within, same
from bigdata_assets.tracing.pictures import grey
from bigdata_assets.tracing.places import Places

HALF_SPAN_S = 4.0
"""Of what a Q-scan is transformed of around its time: half of qscans.SPAN_S, whose module loads gwpy."""
MOST_PIXELS = 1_000_000
MACHINES = ("chirp_svc", "rbf_svm")
GLITCH = same("id", "label", "sample_type")


def dataset(row: Row, places: Places) -> Raw:
    """The dataset of a view in the training set's file."""
    name = f"/{row['label']}/{row['sample_type']}/{row['id']}/{row['view_s']}.png"
    path = places.folder(SOURCE) / training_set.FILE
    with training_set.open_file(path) as file:
        if (size := file[name].size) > MOST_PIXELS:
            raise ValueError(f"{path}: {name} has {size:,} values")
        pixels = file[name][()]
    same_pixels = pixels.ravel().tolist() == row["pixels"]
    return Raw(
        {"file": str(path), "dataset": name},
        pixels.tobytes(),
        {"type": str(pixels.dtype), "shape": str(pixels.shape)},
        grey(pixels.reshape(row["height"], row["width"])),
        () if same_pixels else ("the file has other pixels there than were read",),
    )


def refused_dataset(row: Row, places: Places) -> Raw:
    """Where in the file something is that could not be used."""
    path = places.folder(SOURCE) / training_set.FILE
    with training_set.open_file(path) as file:
        found = file.get(row["path"])
        told = {"found": str(found)}
    return Raw({"file": str(path), "dataset": row["path"]}, values=told)


def metadata_file(_row: Row, places: Places) -> Raw:
    """The file of metadata."""
    path = places.folder(SOURCE) / metadata.FILE
    return Raw({"file": str(path)}, notes=() if path.is_file() else ("no longer there",))


def second(row: Row, places: Places) -> Raw:
    """A second of a strain file."""
    return _strain(row, places, row["gps_s"], row["gps_s"] + 1)


def scanned(row: Row, places: Places) -> Raw:
    """What of a strain file a Q-scan was transformed of."""
    return _strain(row, places, row["gps_s"] - HALF_SPAN_S, row["gps_s"] + HALF_SPAN_S)


def not_scanned(row: Row, places: Places) -> Raw:
    """The same of a Q-scan that could not be made; its name ends in its time."""
    return scanned({**row, "gps_s": float(row["scan"].rpartition("@")[2])}, places)


def refused_file(row: Row, places: Places) -> Raw:
    """A strain file that could not be used."""
    path = places.folder(SOURCE) / events.FOLDER / row["path"]
    return Raw({"file": str(path)}, notes=() if row["path"] and path.is_file() else ("no longer there",))


def _strain(row: Row, places: Places, begin_s: float, end_s: float) -> Raw:
    import h5py

    folder = places.folder(SOURCE)
    path: Path | None = folder / events.FOLDER / row["file"] if row.get("file") else None
    path = path or events.file_of(folder, row["event_detector"])
    with h5py.File(path, "r") as file:
        strain = file["strain/Strain"]
        start_s, rate_hz = int(file["meta/GPSstart"][()]), round(1 / float(strain.attrs["Xspacing"]))
        first, end = (round((at - start_s) * rate_hz) for at in (begin_s, end_s))
        samples = strain[max(first, 0) : max(end, 0)]
    place = {"file": str(path), "dataset": "/strain/Strain", "gps_begin_s": begin_s, "gps_end_s": end_s}
    notes = []
    made = places.history.newest(STRAIN.path, row["event_detector"])
    with contextlib.suppress(OSError):
        read = made and made.metadata.get("landed_file")
        if read and read != events.version(path):
            notes.append("the file was written again since it was read")
    told = {"samples": f"{first} to {end - 1}", "rate_hz": rate_hz, "type": str(samples.dtype)}
    return Raw(place, samples.tobytes(), told, notes=tuple(notes))


def pixels_of(row: Row) -> bytes:
    """A row's picture."""
    import numpy as np

    return grey(np.array(row["pixels"], np.float32).reshape(row["height"], row["width"]))


LINEAGE = Lineage(
    links=(
        Link(CHIRP_PREDICTIONS, GLITCH_FEATURES, GLITCH, only={"model": MACHINES}),
        Link(CHIRP_PREDICTIONS, GLITCH_VIEWS, GLITCH, only={"model": ("glitch_cnn",)}),
        Link(GLITCH_FEATURES, SPECTROGRAMS, GLITCH),
        Link(GLITCH_VIEWS, SPECTROGRAMS, GLITCH),
        Link(EVENT_PREDICTIONS, QSCANS, same("event_detector", "scan")),
        Link(
            QSCANS,
            STRAIN,
            same("event_detector"),
            span=Within("gps_s", "gps_s", math.nextafter(HALF_SPAN_S + 1, 0), HALF_SPAN_S),
            note="what is whitened is the whole stretch without a gap around these seconds",
        ),
    ),
    models=tuple(
        Model(table, folder=f"{table.branch}/{{model}}/{{model_version}}", asset=f"{table.branch}/{{model}}")
        for table in (CHIRP_PREDICTIONS, EVENT_PREDICTIONS)
    ),
    sources={
        SPECTROGRAMS.path: dataset,
        QUARANTINED_SPECTROGRAMS.path: refused_dataset,
        GLITCH_METADATA.path: metadata_file,
        STRAIN.path: second,
        QSCANS.path: scanned,
        QUARANTINED_QSCANS.path: not_scanned,
        QUARANTINED_STRAIN.path: refused_file,
    },
    covered={STRAIN.path: QSCANS.path},
    pictures={SPECTROGRAMS.path: pixels_of, QSCANS.path: pixels_of},
)
