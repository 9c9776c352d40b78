"""Reports as Kafka messages: JSON keyed by report ID.

Version 1 has the columns of tables.REPORT under their own names; times are ISO 8601 with their offset from UTC.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from bigdata_assets.crimes.logic.exports import TIME_ZONE
from bigdata_assets.crimes.tables import REPORT
from bigdata_assets.streams.envelope import VERSION, JsonEnvelope, Whole


def encode(reports: pd.DataFrame) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each report's message."""
    for name in ("occurred_at", "updated_at"):
        local = reports[name].dt.tz_convert(TIME_ZONE)
        reports = reports.assign(**{name: local.map(lambda time: time.isoformat(), na_action="ignore")})
    for row in reports.astype(object).to_dict("records"):
        report = {name: None if pd.isna(value) else value for name, value in row.items()}
        yield str(report["report_id"]).encode(), json.dumps({VERSION: REPORTS.version, **report}).encode()


def versions(report_ids: Iterable[int], known: Mapping[int, int]) -> list[int]:
    """The version of each report in the order of its messages; `known`: how many versions of an ID came before."""
    seen, found = Counter(known), []
    for report_id in report_ids:
        seen[report_id] += 1
        found.append(seen[report_id])
    return found


def _code(value: Any) -> str:
    if not isinstance(value, str) or not (len(value) == 4 and value.isalnum() and value.isascii()):
        raise ValueError("is no code of four characters")
    return value


REPORTS = JsonEnvelope(
    version=1,
    key=("report_id",),
    columns=REPORT,
    readers={
        "report_id": Whole(1, 2**63 - 1),
        "iucr": _code,
        **dict.fromkeys(("beat", "district", "ward", "community_area"), Whole(0, 2**31 - 1)),
    },
)
