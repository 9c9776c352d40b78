"""The City of Chicago Data Portal's exports of reported crimes: which file has which month, and typed reports.

Source: data.cityofchicago.org, data set ijzp-q8t2, "Crimes - 2001 to Present". Times are Chicago's wall clock; stored
is the instant. An hour that the clock shows twice in autumn is taken for the first.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bigdata_assets.crimes.logic import export_files
from bigdata_assets.crimes.logic.export_files import ExportError, Part
from bigdata_assets.crimes.tables import HISTORIC_REPORTS, QUARANTINED_HISTORIC_REPORTS, REPORT
from bigdata_assets.tables import row_schema, to_arrow

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TIME_ZONE = "America/Chicago"
FIRST_YEAR = 2001
TEXT = pd.StringDtype("pyarrow")
"""Arrow-backed: several times as quick as strings of Python objects."""
NOTHING = pa.array(["", "NULL", "null", "NaN", "nan", "NA", "N/A", "None", r"\N"])
"""How programs write that there is no value."""
OFFSET_TIME = r".*\d:\d\d.*(?:[Zz]|[+-]\d\d(?::?\d\d)?)"
"""ISO 8601 that says its offset from UTC; without one it is Chicago's wall clock."""
PORTAL_TIME = "%m/%d/%Y %I:%M:%S %p"
WALL_CLOCK_TIMES = (
    PORTAL_TIME,
    "ISO8601",
    "%m/%d/%Y %H:%M",  # this and what follows by spreadsheets
    "%m/%d/%y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %I:%M %p",
    "%m/%d/%Y",
)
TRUTH = dict.fromkeys("true t yes y 1".split(), True) | dict.fromkeys("false f no n 0".split(), False)
MONTH_OR_YEAR = re.compile(r"crimes_(\d{4})(?:-(\d{2}))?(?:_portal_export)?\.(?:parquet|csv|csv\.gz)")
WHOLE = re.compile(r"crimes_-_2001_to_present.*\.csv(\.gz)?", re.IGNORECASE)
TEXTS = {
    "block": "Block",
    "primary_type": "Primary Type",
    "description": "Description",
    "location_description": "Location Description",
}
INTEGERS = {"beat": "Beat", "district": "District", "ward": "Ward", "community_area": "Community Area"}
FEET = {"x_coordinate_ft": "X Coordinate", "y_coordinate_ft": "Y Coordinate"}
ROWS = row_schema(
    *HISTORIC_REPORTS.columns, *(column for column in QUARANTINED_HISTORIC_REPORTS.columns if column.name != "source")
).add("position", "long")
"""What is read of an export: a typed report, or else `reason` and `raw`; and its place in the file."""
SCHEMA = to_arrow(ROWS)
PANDAS_TYPES = {
    pa.string(): TEXT,
    pa.bool_(): pd.BooleanDtype(),
    pa.int32(): pd.Int64Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.float64(): pd.Float64Dtype(),
}
REPEATS = "repeats the ID of another row"
EXAMPLES = 1_000


@dataclass(frozen=True)
class Month:
    """What an export has of a month.

    Attributes:
        reports: typed, by time and ID.
        n_refused: how many rows are none.
        refused: `reason` and `raw` of the first EXAMPLES of these.
    """

    reports: pd.DataFrame
    n_refused: int
    refused: pd.DataFrame


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


def typed(rows: pa.Table) -> pd.DataFrame:
    """Rows of an export, all text, as typed reports, with the columns `month`, `reason` and `raw` beside them.

    `reason` says why a row is none, and is null for the others; `raw` is the row as JSON where there is a reason.
    """
    columns = ("ID", "Date", "IUCR", "Arrest", "Domestic", "FBI Code", "Updated On")
    texts = {name: _text(rows, name) for name in (*columns, *TEXTS.values(), *INTEGERS.values(), *FEET.values())}
    reasons = pd.Series(None, index=range(len(rows)), dtype=object)

    def refuse(bad: pd.Series, name: str, what: str) -> None:
        if bad.any():
            chosen = bad & reasons.isna()
            reasons[chosen] = [f"{name} is {what}: {value!r}" for value in texts[name][chosen].fillna("").str[:40]]

    typed: dict[str, Any] = {"report_id": _integer(texts["ID"], 1, 2**63 - 1)}
    refuse(typed["report_id"].isna(), "ID", "no number")
    typed["occurred_at"] = _by_value(texts["Date"], _instant)
    refuse(typed["occurred_at"].isna(), "Date", "no time")
    typed["iucr"] = _by_value(texts["IUCR"], partial(_code, width=4))
    refuse(~typed["iucr"].str.fullmatch(r"[0-9A-Z]{4}").fillna(False), "IUCR", "no code")
    for name in ("Arrest", "Domestic"):
        typed[name.lower()] = _by_value(texts[name], _truth)
        refuse(typed[name.lower()].isna(), name, "neither true nor false")
    for column, name in INTEGERS.items():
        typed[column] = _by_value(texts[name], partial(_integer, low=0, high=2**31 - 1))
        refuse(typed[column].isna() & texts[name].notna(), name, "no number")
    for column, name in FEET.items():
        typed[column] = _number(texts[name])
        refuse(typed[column].isna() & texts[name].notna(), name, "no number")
    typed |= {column: texts[name] for column, name in TEXTS.items()}
    typed["fbi_code"] = _by_value(texts["FBI Code"], partial(_code, width=2))
    typed["updated_at"] = _by_value(texts["Updated On"], _instant)
    refuse(typed["updated_at"].isna() & texts["Updated On"].notna(), "Updated On", "no time")
    local = typed["occurred_at"].dt.tz_convert(TIME_ZONE)
    numbers = local.dt.year * 100 + local.dt.month
    # strftime on each row would take longer than all the rest.
    month = numbers.map({n: f"{int(n) // 100:04d}-{int(n) % 100:02d}" for n in numbers.dropna().unique()}).astype(TEXT)
    raw = pd.Series(None, index=reasons.index, dtype=object)
    raw[reasons.notna()] = _as_json(rows, reasons.notna())
    return pd.DataFrame({"month": month, **typed, "reason": reasons, "raw": raw})


def _as_json(rows: pa.Table, which: pd.Series) -> list[str]:
    chosen = rows.filter(pa.array(which)).to_pylist()
    return [json.dumps({name: text or "" for name, text in row.items()}) for row in chosen]


def read_month(folder: Path, month: str) -> Month:
    """A month of an export in this process, for the stream's producer: the rows that `historic_rows` has of it.

    Raises:
        ExportError: there is no export of the month, or no row of its file is a report.
        FileChangedError: it was written while it was read.
    """
    path = export_file(folder, month)
    good, bad, n_refused, understood = [SCHEMA.empty_table()], [SCHEMA.empty_table()], 0, False
    for part in export_files.plan(path):
        for rows in _typed_chunks(part, _covers(path.name) or "all"):
            understood = understood or rows["reason"].null_count > 0
            its = _of_months(rows, [month])
            good.append(its.filter(pc.is_null(its["reason"])))
            refused = its.filter(pc.is_valid(its["reason"]))
            bad.append(refused.slice(0, max(EXAMPLES - n_refused, 0)))
            n_refused += len(refused)
    examples = pa.concat_tables(bad).select(["reason", "raw"]).to_pandas()
    if n_refused and not understood:
        raise ExportError(
            f"{path} has no report: none of its {n_refused} rows is understood. {examples['reason'][0]}, in "
            f"{examples['raw'][0][:300]!r}. Export it again as the portal has it."
        )
    # The last updated one of an ID, and then the last, as in _without_repeats.
    whole = pa.concat_tables(good).sort_by([("updated_at", "descending"), ("position", "descending")])
    repeated = whole["report_id"].to_pandas().duplicated()
    raw = _reports_as_json(whole.filter(pa.array(repeated)))
    reports = whole.filter(pa.array(~repeated)).sort_by([("occurred_at", "ascending"), ("report_id", "ascending")])
    return Month(
        reports.select([column.name for column in REPORT]).to_pandas(types_mapper=PANDAS_TYPES.get),
        n_refused + len(raw),
        pd.concat([examples, pd.DataFrame({"reason": REPEATS, "raw": raw})], ignore_index=True)[:EXAMPLES],
    )


def historic_rows(spark: "SparkSession", folder: Path, wanted: list[str]) -> "DataFrame":
    """Every row of the wanted months on Spark, typed, with `month`, `source`, `reason` and `raw`.

    A row without a usable time, or of a time that its file is not for, belongs to no month that is read from the file:
    it is quarantined with the first wanted month that its file is for. `refused_rows` has what `raw` lacks.

    Raises:
        ExportError: there is no export of a month, or it lacks columns.
    """
    from pyspark.sql import functions as F

    by_file: dict[Path, list[str]] = {}
    for month in wanted:
        by_file.setdefault(export_file(folder, month), []).append(month)
    frames = []
    for path, its_months in by_file.items():
        parts = export_files.plan(path)
        numbers = spark.range(0, len(parts), 1, max(len(parts), 1))
        read = partial(_read_parts, parts=parts, covers=_covers(path.name) or "all", wanted=its_months)
        frames.append(numbers.mapInArrow(read, ROWS).withColumn("source", F.lit(path.name)))
    union = frames[0]
    for frame in frames[1:]:
        union = union.unionByName(frame)
    return _without_repeats(union)


def refused_rows(rows: "DataFrame") -> "DataFrame":
    """What `historic_rows` has refused, each with `raw`."""
    return rows.where("reason IS NOT NULL").mapInArrow(_with_raw, rows.schema)


def _without_repeats(rows: "DataFrame") -> "DataFrame":
    """Gives a reason to all but one, the last updated and then the last, of the rows with one ID."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    same = Window.partitionBy("month", "report_id", F.col("reason").isNull())
    latest = same.orderBy(F.desc_nulls_last("updated_at"), F.desc("position"))
    repeated = F.col("reason").isNull() & (F.row_number().over(latest) > 1)
    return rows.withColumn("reason", F.when(repeated, F.lit(REPEATS)).otherwise(F.col("reason")))


def _with_raw(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        raw = [text or made for text, made in zip(batch["raw"].to_pylist(), _reports_as_json(batch), strict=True)]
        field = batch.schema.field("raw")
        yield batch.set_column(batch.schema.names.index("raw"), field, pa.array(raw, field.type))


def _reports_as_json(rows: pa.RecordBatch | pa.Table) -> list[str]:
    """Typed reports as JSON: what is kept of a row that repeats another one's ID."""
    reports = rows.select([column.name for column in REPORT]).to_pylist()
    return [json.dumps({k: v for k, v in report.items() if v is not None}, default=_as_iso) for report in reports]


def _as_iso(value: datetime) -> str:
    return value.astimezone(UTC).isoformat()


def _read_parts(
    numbers: Iterable[pa.RecordBatch], parts: Sequence[Part], covers: str, wanted: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    for number in (number for batch in numbers for number in batch.column(0).to_pylist()):
        for rows in _typed_chunks(parts[number], covers):
            yield from _of_months(rows, wanted).to_batches()


def _of_months(rows: pa.Table, wanted: Sequence[str]) -> pa.Table:
    """The rows of the wanted months, the first of which has those of none."""
    months = pc.fill_null(rows["month"], wanted[0])
    rows = rows.set_column(rows.column_names.index("month"), SCHEMA.field("month"), months)
    return rows.filter(pc.is_in(months, pa.array(wanted, pa.string())))


def _typed_chunks(part: Part, covers: str) -> Iterator[pa.Table]:
    """The rows of a part, columns as in ROWS; `month` is null where it is none that the file is for."""
    for chunk in export_files.read(part):
        rows = typed(chunk.texts).assign(position=chunk.positions)
        inside = rows["month"].notna() if covers == "all" else rows["month"].str.startswith(covers).fillna(False)
        rows["month"] = rows["month"].where(inside)
        if (misfiled := rows["reason"].isna() & ~inside).any():
            rows.loc[misfiled, "reason"] = f"Date is not in {covers}, which the file is for"
            rows.loc[misfiled, "raw"] = _as_json(chunk.texts, misfiled)
        yield pa.Table.from_pandas(rows, SCHEMA, preserve_index=False)
        if chunk.refused:
            yield pa.Table.from_pylist([vars(line) for line in chunk.refused], SCHEMA)


def _text(rows: pa.Table, name: str) -> pd.Series:
    """A column without surrounding white space; nothing at all is null, as is a column that is not there."""
    if name not in rows.column_names:
        return pd.Series(pd.NA, index=range(len(rows)), dtype=TEXT)
    texts = pc.utf8_trim_whitespace(rows[name])
    texts = pc.if_else(pc.is_in(texts, NOTHING), pa.scalar(None, pa.string()), texts)
    return texts.to_pandas(types_mapper={pa.string(): TEXT}.get)


def _by_value(texts: pd.Series, convert: Callable[[pd.Series], pd.Series]) -> pd.Series:
    """What is made of texts of which many are the same; of nothing, nothing."""
    numbers, values = pd.factorize(texts)
    return pd.Series(convert(pd.Series(values, dtype=TEXT)).array.take(numbers, allow_fill=True))


def _code(texts: pd.Series, width: int) -> pd.Series:
    """Codes whose leading zeros a spreadsheet took away, or to which pandas gave a decimal point."""
    return texts.str.upper().str.replace(r"\.0+$", "", regex=True).str.zfill(width).astype(TEXT)


def _truth(texts: pd.Series) -> pd.Series:
    return texts.str.lower().map(TRUTH).astype("boolean")


def _number(texts: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(texts, errors="coerce").astype("Float64")
    return numbers.where(np.isfinite(numbers))


def _integer(texts: pd.Series, low: int, high: int) -> pd.Series:
    """Whole numbers within bounds; 12.0 is one, as pandas writes a column with gaps."""
    digits = texts.str.replace(r"\.0+$", "", regex=True)
    usable = digits.str.fullmatch(r"\d{1,18}").fillna(False)
    numbers = digits.where(usable).astype("Int64")
    return numbers.where((numbers >= low) & (numbers <= high))


def _instant(texts: pd.Series) -> pd.Series:
    """The instants of Chicago wall clock times, as the portal (with AM and PM), its API and spreadsheets write them."""
    with_offset = texts.str.fullmatch(OFFSET_TIME).fillna(False)
    left = texts[~with_offset].dropna()
    times = pd.Series(pd.NaT, index=texts.index, dtype="datetime64[ns]")
    for form in WALL_CLOCK_TIMES:
        if len(left):
            found = pd.to_datetime(left, format=form, errors="coerce").dropna()
            times[found.index] = found
            left = left.drop(found.index)
    first = np.ones(len(times), bool)
    local = times.dt.tz_localize(TIME_ZONE, ambiguous=first, nonexistent="shift_forward")
    instants = pd.to_datetime(texts.where(with_offset), format="ISO8601", errors="coerce", utc=True)
    return local.dt.tz_convert("UTC").fillna(instants).dt.as_unit("us")
