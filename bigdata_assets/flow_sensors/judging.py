"""Reads what models have said of sites, side by side with the samples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from bigdata_assets.flow_sensors.logic import series as logic
from bigdata_assets.flow_sensors.logic.anomaly_report import Judged, placed
from bigdata_assets.flow_sensors.logic.series import SiteSeries
from bigdata_assets.flow_sensors.tables import ANOMALY_SCORES, HELD_OUT_SCORES, WINDOWS
from bigdata_assets.io_managers.delta.reading import DeltaReader
from bigdata_assets.io_managers.model_card import threshold_of


def series_of(delta: DeltaReader) -> list[SiteSeries]:
    """All sites' series."""
    return logic.from_rows(delta.read_arrow(WINDOWS))


def stored(
    delta: DeltaReader, series: Sequence[SiteSeries], order: Sequence[str], models: Mapping[str, Any]
) -> list[Judged]:
    """What the stored models have said of the batches; of a sample that came in several, what is said of the last."""
    position = pa.array(order, pa.string())
    found = []
    for name, model in models.items():
        columns = ["batch", "site", "observed_at", "score", "flag"]
        version = str(model.card["version"])  # of another one's scores the threshold would be another
        of_model = (ds.field("model") == name) & (ds.field("model_version") == version)
        rows = delta.read_arrow(ANOMALY_SCORES, None, columns, of_model)
        rows = rows.append_column("place", pc.index_in(rows["batch"], position)).filter(pc.field("place").is_valid())
        found.append(_judged(name, version, threshold_of(model.card), rows, series, model.card))
    return found


def held_out(delta: DeltaReader, series: Sequence[SiteSeries]) -> list[Judged]:
    """What models have said of sites that they have seen nothing of."""
    rows = delta.read_arrow(HELD_OUT_SCORES)
    rows = rows.append_column("place", pa.array(np.zeros(rows.num_rows, np.int64)))
    names = sorted(pc.unique(rows["model"]).to_pylist())
    return [_judged(name, "held out", None, rows.filter(pc.field("model") == name), series, {}) for name in names]


def _judged(
    name: str,
    version: str,
    threshold: float | None,
    rows: pa.Table,
    series: Sequence[SiteSeries],
    card: Mapping[str, Any],
) -> Judged:
    by_site = dict(tuple(rows.sort_by("place").to_pandas().groupby("site")))
    scores, flags = {}, {}
    for one in series:
        its: pd.DataFrame | None = by_site.get(one.site)
        if its is not None:
            times = its["observed_at"].dt.tz_convert(None).to_numpy("datetime64[ms]")
            said = its["score"].to_numpy(np.float64), its["flag"].to_numpy(object) == True  # noqa: E712 -- or null
            scores[one.site], flags[one.site] = placed(one, times, *said)
    settings = str(card.get("parameters", {}).get("settings", ""))
    return Judged(name, version, threshold, scores, flags, card.get("history", {}), settings)
