"""Where the branch's rows come from: scores of a report, the report of a Kafka message."""

from bigdata_assets.crimes.source import SOURCE
from bigdata_assets.crimes.tables import (
    ARREST_SCORES,
    BATCH_METRICS,
    CRIME_MESSAGES,
    CRIME_REPORTS,
    HISTORIC_REPORTS,
    QUARANTINED_HISTORIC_REPORTS,
    QUARANTINED_MESSAGES,
)
from bigdata_assets.tracing.lineage import Lineage, Link, Model, Raw, Row, same
from bigdata_assets.tracing.places import Places, kafka_message

MESSAGE = same("batch", "kafka_partition", "kafka_offset")


def export_files(row: Row, places: Places) -> Raw:
    """The export's files of a month's year; in which line of them a report is, is not kept."""
    folder, year = places.folder(SOURCE), row["month"][:4]
    files = sorted(path.name for path in folder.glob(f"crimes_{year}*") if path.is_file())
    gone = () if files else (f"no longer there: {folder} has no file of {year}",)
    return Raw({"folder": str(folder), "files": ", ".join(files), "report": row.get("report_id")}, notes=gone)


def refused_line(row: Row, places: Places) -> Raw:
    """The export file of a row that was refused, and what it was."""
    path = places.folder(SOURCE) / row["source"]
    gone = () if path.is_file() else ("no longer there: the file; this is what is stored of it",)
    return Raw({"file": str(path)}, row["raw"].encode(), notes=gone)


LINEAGE = Lineage(
    links=(
        Link(CRIME_REPORTS, CRIME_MESSAGES, MESSAGE),
        Link(QUARANTINED_MESSAGES, CRIME_MESSAGES, MESSAGE),
        Link(ARREST_SCORES, CRIME_REPORTS, MESSAGE),
        Link(BATCH_METRICS, ARREST_SCORES, same("batch", "model")),
    ),
    models=(
        Model(
            ARREST_SCORES,
            folder="crimes/arrest_models/snapshots/{snapshot}",
            asset="crimes/arrest_models",
            partition="{snapshot}",
            note="{model}, as of the snapshot {snapshot}",
        ),
    ),
    sources={
        CRIME_MESSAGES.path: kafka_message,
        HISTORIC_REPORTS.path: export_files,
        QUARANTINED_HISTORIC_REPORTS.path: refused_line,
    },
)
