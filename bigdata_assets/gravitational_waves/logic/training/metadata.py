"""The training set's metadata file: one row per glitch, the 28 columns of Zenodo record 1486046, typed."""

import csv
from pathlib import Path

import pandas as pd
import pyarrow as pa

FILE = "trainingset_v1d1_metadata.csv"
TEXT, NUMBER, WHOLE = pa.string(), pa.float64(), pa.int64()
COLUMNS: dict[str, pa.DataType] = {
    "event_time": NUMBER,
    "ifo": TEXT,
    "peak_time": WHOLE,
    "peak_time_ns": WHOLE,
    "start_time": WHOLE,
    "start_time_ns": WHOLE,
    "duration": NUMBER,
    "search": TEXT,
    "process_id": TEXT,
    "event_id": TEXT,
    "peak_frequency": NUMBER,
    "central_freq": NUMBER,
    "bandwidth": NUMBER,
    "channel": TEXT,
    "amplitude": NUMBER,
    "snr": NUMBER,
    "confidence": NUMBER,
    "chisq": NUMBER,
    "chisq_dof": NUMBER,
    "param_one_name": TEXT,
    "param_one_value": NUMBER,
    "gravityspy_id": TEXT,
    "label": TEXT,
    "sample_type": TEXT,
    "url1": TEXT,
    "url2": TEXT,
    "url3": TEXT,
    "url4": TEXT,
}
NEEDED = ("gravityspy_id", "label", "sample_type")


class MetadataError(RuntimeError):
    """The file cannot be used at all; the message says why."""


def read(path: Path) -> tuple[pa.Table, pa.Table]:
    """The rows that can be used, typed; and those that cannot: `row`, `reason`, `raw`.

    A cell that is empty is unknown. A row is refused where a number is none, the glitch has no name, label or split, or
    its name was there before.

    Raises:
        MetadataError: there is no such file, or it lacks columns.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            header, *lines = list(csv.reader(file)) or [[]]
    except (OSError, csv.Error) as error:
        raise MetadataError(f"{path} cannot be read: {error}") from error
    if missing := [name for name in COLUMNS if name not in header]:
        raise MetadataError(f"{path} lacks the columns {', '.join(missing)}.")
    lines = [line for line in lines if line]
    # Cells beyond the header's make the line unusable below; so do cells that are not there.
    fitting = pd.Series([len(line) == len(header) for line in lines], dtype=bool)
    rows = pd.DataFrame([(line + [""] * len(header))[: len(header)] for line in lines], columns=header, dtype=str)
    rows = rows[list(COLUMNS)].apply(lambda column: column.str.strip())
    reason = pd.Series("", index=rows.index, dtype=str).mask(~fitting, f"not {len(header)} cells")
    typed = {}
    for name, kind in COLUMNS.items():
        if kind == TEXT:
            typed[name] = rows[name].where(rows[name] != "")
            continue
        numbers = pd.to_numeric(rows[name], errors="coerce")
        if kind == WHOLE:
            numbers = numbers.where(numbers.abs() < 2**62)
            wrong = (rows[name] != "") & (numbers.isna() | (numbers % 1 != 0))
        else:
            wrong = (rows[name] != "") & numbers.isna()
        reason = reason.mask((reason == "") & wrong, f"{name} is no {'whole ' if kind == WHOLE else ''}number")
        typed[name] = numbers
    for name in NEEDED:
        reason = reason.mask((reason == "") & (rows[name] == ""), f"{name} is missing")
    again = rows["gravityspy_id"].duplicated()
    reason = reason.mask((reason == "") & again, "gravityspy_id was there before")
    good = reason == ""
    table = pa.table({name: pa.array(typed[name][good], kind, from_pandas=True) for name, kind in COLUMNS.items()})
    refused = rows.index[~good]
    return table, pa.table(
        {
            "row": pa.array(refused + 1, pa.int64()),
            "reason": pa.array(reason[~good], pa.string()),
            "raw": pa.array([",".join(lines[number])[:65_536] for number in refused], pa.string()),
        }
    )
