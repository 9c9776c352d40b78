"""The City of Chicago Data Portal's exports of reported crimes: which file has which month, and typed reports.

Source: data.cityofchicago.org, data set ijzp-q8t2, "Crimes - 2001 to Present". Times are Chicago's wall clock; stored
is the instant. An hour that the clock shows twice in autumn is taken for the first.
"""

import json
import re
from collections.abc import Iterable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bigdata_assets.crimes.tables import HISTORIC_REPORTS, QUARANTINED_HISTORIC_REPORTS
from bigdata_assets.reading import InputFile
from bigdata_assets.tables import row_schema, to_arrow

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

TIME_ZONE = "America/Chicago"
FIRST_YEAR = 2001
CHUNK_ROWS = 100_000
TEXT = pd.StringDtype("pyarrow")
"""Arrow-backed: several times as quick as strings of Python objects."""
OFFSET_TIME = r".*\d:\d\d.*(?:[Zz]|[+-]\d\d(?::?\d\d)?)"
"""ISO 8601 that says its offset from UTC; without one it is Chicago's wall clock."""
PORTAL_TIME = "%m/%d/%Y %I:%M:%S %p"
MONTH_OR_YEAR = re.compile(r"crimes_(\d{4})(?:-(\d{2}))?(?:_portal_export)?\.(?:parquet|csv|csv\.gz)")
WHOLE = re.compile(r"crimes_-_2001_to_present.*\.csv(\.gz)?", re.IGNORECASE)
TEXTS = {
    "block": "Block",
    "primary_type": "Primary Type",
    "description": "Description",
    "location_description": "Location Description",
    "fbi_code": "FBI Code",
}
INTEGERS = {"beat": "Beat", "district": "District", "ward": "Ward", "community_area": "Community Area"}
FEET = {"x_coordinate_ft": "X Coordinate", "y_coordinate_ft": "Y Coordinate"}
ROWS = row_schema(
    *HISTORIC_REPORTS.columns, *(column for column in QUARANTINED_HISTORIC_REPORTS.columns if column.name != "source")
)
"""What is read of an export: a typed report, or else `reason` and `raw`."""
NEEDED = ("ID", "Date", "IUCR", "Arrest", "Domestic")


class ExportError(RuntimeError):
    """There is no export file of a month, or it lacks columns; the message says what to put where."""


def export_file(folder: Path, month: str) -> Path:
    """The file that has a month (`2016-01`): the month's own, else the year's, else the whole export.

    Raises:
        ExportError: there is none.
    """
    found = {_covers(path.name): path for path in sorted(folder.iterdir()) if _covers(path.name)}
    names = sorted(path.name for path in found.values())
    for wanted in (month, month[:4], "all"):
        if wanted in found:
            return found[wanted]
    raise ExportError(
        f"{folder} has no export of {month}: put the portal's Crimes_-_2001_to_Present.csv there, or "
        f"crimes_{month[:4]}.csv or .parquet with its columns. There is: {', '.join(names) or 'none'}."
    )


def months(folder: Path, today: date) -> list[str]:
    """The months that the folder's export files are for, oldest first, up to the last whole one."""
    every = [f"{year}-{month:02d}" for year in range(FIRST_YEAR, today.year + 1) for month in range(1, 13)]
    named = {_covers(path.name) for path in folder.iterdir()} if folder.is_dir() else set()
    covered = [month for month in every if {month, month[:4], "all"} & named]
    return [month for month in covered if month < f"{today:%Y-%m}"]


def _covers(name: str) -> str | None:
    """The month or year that a file is named after, `all` for the whole export."""
    if match := MONTH_OR_YEAR.fullmatch(name):
        return f"{match[1]}-{match[2]}" if match[2] else match[1]
    return "all" if WHOLE.fullmatch(name) else None


def typed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of an export, all text, as typed reports, with the columns `month`, `reason` and `raw` beside them.

    `reason` says why a row is none, and is null for the others; `raw` is the row as JSON where there is a reason.
    """
    texts = {name: _text(rows, name) for name in (*NEEDED, *TEXTS.values(), *INTEGERS.values(), *FEET.values())}
    reasons = pd.Series(None, index=rows.index, dtype=object)

    def refuse(bad: pd.Series, name: str, what: str) -> None:
        chosen = bad.fillna(True) & reasons.isna()
        reasons[chosen] = [f"{name} is {what}: {value!r}" for value in texts[name][chosen].fillna("").str[:40]]

    typed: dict[str, Any] = {"report_id": _integer(texts["ID"], 1, 2**63 - 1)}
    refuse(typed["report_id"].isna(), "ID", "no number")
    typed["occurred_at"] = _instant(texts["Date"])
    refuse(typed["occurred_at"].isna(), "Date", "no time")
    typed["iucr"] = texts["IUCR"].str.upper().str.zfill(4)
    refuse(~typed["iucr"].str.fullmatch(r"[0-9A-Z]{4}"), "IUCR", "no code")
    for name in ("Arrest", "Domestic"):
        typed[name.lower()] = texts[name].str.lower().map({"true": True, "false": False}).astype("boolean")
        refuse(typed[name.lower()].isna(), name, "neither true nor false")
    for column, name in INTEGERS.items():
        typed[column] = _integer(texts[name], 0, 2**31 - 1)
        refuse(typed[column].isna() & texts[name].notna(), name, "no number")
    for column, name in FEET.items():
        typed[column] = pd.to_numeric(texts[name], errors="coerce").astype("Float64")
        refuse(typed[column].isna() & texts[name].notna(), name, "no number")
    typed |= {column: texts[name] for column, name in TEXTS.items()}
    typed["updated_at"] = _instant(_text(rows, "Updated On"))
    local = typed["occurred_at"].dt.tz_convert(TIME_ZONE)
    numbers = local.dt.year * 100 + local.dt.month
    # strftime on each row would take longer than all the rest.
    month = numbers.map({n: f"{int(n) // 100:04d}-{int(n) % 100:02d}" for n in numbers.dropna().unique()})
    raw = pd.Series(None, index=rows.index, dtype=object)
    raw[reasons.notna()] = [json.dumps(row) for row in rows[reasons.notna()].fillna("").to_dict("records")]
    return pd.DataFrame({"month": month, **typed, "reason": reasons, "raw": raw})


def read_month(folder: Path, month: str) -> pd.DataFrame:
    """A month's usable reports in this process, typed, by time and ID: for the stream's producer.

    Raises:
        ExportError: there is no export of the month.
        FileChangedError: it was written while it was read.
    """
    parts, path = [], export_file(folder, month)
    for chunk in InputFile.planned(path).unchanged(_chunks(path)):
        rows = typed(chunk)
        parts.append(rows[rows["reason"].isna() & (rows["month"] == month)])
    reports = pd.concat(parts, ignore_index=True).drop(columns=["month", "reason", "raw"])
    return reports.drop_duplicates("report_id").sort_values(["occurred_at", "report_id"], ignore_index=True)


def _chunks(path: Path) -> Iterator[pd.DataFrame]:
    """An export's rows as text."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(path).iter_batches(CHUNK_ROWS):
            yield _as_text(batch)
    else:
        yield from pd.read_csv(path, dtype=TEXT, chunksize=CHUNK_ROWS)


def historic_rows(spark: "SparkSession", folder: Path, wanted: list[str]) -> "DataFrame":
    """Every row of the wanted months on Spark, typed, with `month`, `source`, `reason` and `raw`.

    A row without a usable time, or of a time that its file is not for, belongs to no month that is read from the file:
    it is quarantined with the first wanted month that its file is for.
    """
    from pyspark.sql import functions as F

    by_file: dict[Path, list[str]] = {}
    for month in wanted:
        by_file.setdefault(export_file(folder, month), []).append(month)
    frames = []
    for path, its_months in by_file.items():
        frame = _typed_on_spark(spark, path)
        covers = _covers(path.name) or "all"
        inside = F.col("month").startswith("" if covers == "all" else covers)
        misfiled = F.col("reason").isNull() & ~inside
        frame = _refused(frame, misfiled, f"Date is not in {covers}, which the file is for")
        belongs = F.when(inside, F.col("month"))
        frames.append(
            frame.withColumn("month", F.coalesce(belongs, F.lit(its_months[0])))
            .where(F.col("month").isin(its_months))
            .withColumn("source", F.lit(path.name))
        )
    union = frames[0]
    for frame in frames[1:]:
        union = union.unionByName(frame)
    return _without_repeats(union)


def _without_repeats(rows: "DataFrame") -> "DataFrame":
    """Gives a reason to all but one, the last updated, of the rows with one ID."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    same = Window.partitionBy("month", "report_id", F.col("reason").isNull())
    latest = same.orderBy(F.desc_nulls_last("updated_at"), F.hash(*rows.columns))
    repeated = F.col("reason").isNull() & (F.row_number().over(latest) > 1)
    return _refused(rows, repeated, "repeats the ID of another row")


def _refused(rows: "DataFrame", condition: "Column", reason: str) -> "DataFrame":
    """Rows of which those that meet a condition have a reason, and their columns as JSON."""
    from pyspark.sql import functions as F

    columns = F.to_json(F.struct(*[name for name in rows.columns if name not in ("reason", "raw", "source", "month")]))
    return (
        rows.withColumn("refused", condition)
        .withColumn("reason", F.when(F.col("refused"), F.lit(reason)).otherwise(F.col("reason")))
        .withColumn("raw", F.when(F.col("refused"), columns).otherwise(F.col("raw")))
        .drop("refused")
    )


def _typed_on_spark(spark: "SparkSession", path: Path) -> "DataFrame":
    """An export's rows, typed by Spark's Python workers."""
    from pyspark.sql import functions as F

    file = InputFile.planned(path)

    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        # Read by the workers themselves: Spark's own reader lacks an encoding (BYTE_STREAM_SPLIT) that pandas writes.
        parquet = pq.ParquetFile(path)
        _require_columns(path, parquet.schema_arrow.names)
        groups = spark.range(0, parquet.num_row_groups, 1, max(parquet.num_row_groups, 1))
        return groups.mapInArrow(partial(_typed_row_groups, file=file), ROWS)
    rows = spark.read.csv(str(path), header=True, quote='"', escape='"')
    _require_columns(path, rows.columns)
    rows = rows.select([F.col(f"`{name}`") for name in rows.columns])
    return rows.mapInArrow(partial(_typed_batches, file=file), ROWS)


def _require_columns(path: Path, names: list[str]) -> None:
    if missing := [name for name in NEEDED if name not in names]:
        raise ExportError(f"{path} lacks the columns {missing}; it has {names}.")


def _typed_row_groups(groups: Iterator[pa.RecordBatch], file: InputFile) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    for group in (number for batch in groups for number in batch.column(0).to_pylist()):
        batches = pq.ParquetFile(file.path).iter_batches(CHUNK_ROWS // 10, row_groups=[group])
        yield from _typed_batches(batches, file)


def _typed_batches(batches: Iterable[pa.RecordBatch], file: InputFile) -> Iterator[pa.RecordBatch]:
    for batch in file.unchanged(batches):
        yield pa.RecordBatch.from_pandas(typed(_as_text(batch)), to_arrow(ROWS), preserve_index=False)


def _as_text(batch: pa.RecordBatch) -> pd.DataFrame:
    texts = pa.table(batch).cast(pa.schema([(name, pa.string()) for name in batch.schema.names]))
    return texts.to_pandas(types_mapper={pa.string(): TEXT}.get)


def _text(rows: pd.DataFrame, name: str) -> pd.Series:
    """A column without surrounding white space; nothing at all is null, as is a column that is not there."""
    if name not in rows:
        return pd.Series(pd.NA, index=rows.index, dtype=TEXT)
    return rows[name].astype(TEXT).str.strip().replace("", pd.NA)


def _integer(texts: pd.Series, low: int, high: int) -> pd.Series:
    """Whole numbers within bounds; 12.0 is one, as pandas writes a column with gaps."""
    digits = texts.str.replace(r"\.0+$", "", regex=True)
    usable = digits.str.fullmatch(r"\d{1,18}").fillna(False)
    numbers = digits.where(usable).astype("Int64")
    return numbers.where((numbers >= low) & (numbers <= high))


def _instant(texts: pd.Series) -> pd.Series:
    """The instants of Chicago wall clock times, as the portal writes them (with AM and PM) or in ISO 8601."""
    times = pd.to_datetime(texts, format=PORTAL_TIME, errors="coerce")
    others = texts.where(times.isna())
    with_offset = others.str.fullmatch(OFFSET_TIME).fillna(False)
    times = times.fillna(pd.to_datetime(others.where(~with_offset), format="ISO8601", errors="coerce"))
    first = np.ones(len(times), bool)
    local = times.dt.tz_localize(TIME_ZONE, ambiguous=first, nonexistent="shift_forward")
    instants = pd.to_datetime(others.where(with_offset), format="ISO8601", errors="coerce", utc=True)
    return local.dt.tz_convert("UTC").fillna(instants).dt.as_unit("us")
