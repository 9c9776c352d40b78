"""Where the branch's rows come from: predictions of a URL, the URL of a line of a landed file."""

from pathlib import Path

from upath import UPath

from bigdata_assets.malicious_urls.logic.lists import lists
from bigdata_assets.malicious_urls.partitions import landed_file, landing_folder
from bigdata_assets.malicious_urls.source import SOURCE
from bigdata_assets.malicious_urls.tables import (
    LABELLED_URLS,
    PREDICTION_MART,
    PREDICTIONS,
    QUARANTINED_BATCH_URLS,
    QUARANTINED_URLS,
    TOP_DOMAINS,
    URL_BATCHES,
)
from bigdata_assets.runs.ranges import FILE_VERSION
from bigdata_assets.tracing.lineage import Lineage, Link, Model, Raw, Row, Within, same
from bigdata_assets.tracing.places import Places

DAY_S = 86_400


def landed_line(row: Row, places: Places) -> Raw:
    """The line of a landed file."""
    path = landing_folder(places.storage) / row["batch"]
    made = places.history.newest(URL_BATCHES.path, row["batch"])
    read, now = made and made.metadata.get(FILE_VERSION), landed_file(path).fingerprint
    notes = ("the file was written again since it was read: this is what it has there now",) if read != now else ()
    return _record(path, row, notes if read else ())


def list_line(row: Row, places: Places) -> Raw:
    """The line of a list that was refused."""
    return _record(UPath(places.folder(SOURCE) / row["source"]), row, ())


def _record(path: UPath, row: Row, notes: tuple[str, ...]) -> Raw:
    from bigdata_assets.malicious_urls.logic.locating import record

    found = record(path, row["position"])
    return Raw({"file": str(path), "line": found.line, "position": row["position"]}, found.data, notes=notes)


def list_file(row: Row, places: Places) -> Raw:
    """The file of a list; which of its lines a URL is from is not kept, as it may be several."""
    path: Path = lists(places.folder(SOURCE))[row["list"]]
    return Raw({"file": str(path), "lines": row["copies"]}, notes=("a list's rows are known by their URL alone",))


LINEAGE = Lineage(
    links=(
        Link(PREDICTIONS, URL_BATCHES, same("batch", "position")),
        Link(
            PREDICTION_MART,
            PREDICTIONS,
            same("registered_domain", "predicted_class"),
            span=Within("day", "landed_at", 0, DAY_S),
        ),
        Link(TOP_DOMAINS, PREDICTION_MART, same("registered_domain")),
    ),
    models=(
        Model(
            PREDICTIONS,
            folder="malicious_urls/url_classifier/{model_version}",
            asset="malicious_urls/url_classifier",
        ),
    ),
    sources={
        URL_BATCHES.path: landed_line,
        QUARANTINED_BATCH_URLS.path: landed_line,
        QUARANTINED_URLS.path: list_line,
        LABELLED_URLS.path: list_file,
    },
)
