"""Fits anomaly models on windows, as they are stored and with sites held out."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from tqdm import tqdm

from bigdata_assets.flow_sensors.logic import anomaly_models, series
from bigdata_assets.flow_sensors.logic.estimators import TRUSTED_TYPES
from bigdata_assets.flow_sensors.logic.series import SiteSeries
from bigdata_assets.flow_sensors.scoring import Scorer, said
from bigdata_assets.flow_sensors.tables import HELD_OUT_SCORES, MODELS_CODE, WINDOWS
from bigdata_assets.io_managers.delta.reading import DeltaReader
from bigdata_assets.io_managers.keras_model import StoredKerasModel, TrainedKerasModel
from bigdata_assets.io_managers.model_card import AGAIN, THRESHOLD, ModelFileError, threshold_of
from bigdata_assets.io_managers.sklearn_model import StoredModel, TrainedModel
from bigdata_assets.settings import Settings
from bigdata_assets.sources import Sources

LOG = logging.getLogger(__name__)
NETWORKS = anomaly_models.NETWORKS
CLASSES = ("usual", "anomalous")
SAMPLE = anomaly_models.Effort(windows=300, epochs=3, rows=20_000, few_rows=3_000, trees=60, seeds=1, components=50)
"""Figures of generated samples mean nothing: enough to see that all of it works."""


def series_of(delta: DeltaReader, most_samples: int) -> list[SiteSeries]:
    """Sites' series, of each its newest samples, so that all are at most so many; a site at a time is read."""
    names = sorted(set(delta.read_arrow(WINDOWS, None, ["site"])["site"].unique().to_pylist()))
    found = []
    for name in names:
        (one,) = series.from_rows(delta.read_arrow(WINDOWS, where=ds.field("site") == name))
        found.append(_newest(one, most_samples / len(names) / max(len(one), 1)))
    return found


def _newest(of: SiteSeries, share: float) -> SiteSeries:
    """The newest share of each part of the split, so that there is something to fit on, to choose by and to test on."""
    if share >= 1:
        return of
    rows = np.zeros(len(of), bool)
    for split in range(len(series.SPLITS)):
        its = np.flatnonzero(of.split == split)
        rows[its[len(its) - int(len(its) * share) :]] = True
    return of.taken(rows)


def effort(name: str, settings: Settings, sources: Sources) -> anomaly_models.Effort:
    """What a fit may take."""
    chosen = anomaly_models.FULL if name == "full" else anomaly_models.FAST
    if sources.is_sample:
        chosen = SAMPLE
    return replace(chosen, length=settings.window)


def trained(
    names: Sequence[str], of: Sequence[SiteSeries], effort: anomaly_models.Effort, seed: int, settings: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Models as their IO manager stores them, and why others could not be fitted.

    Args:
        names: of the models.
        of: the sites.
        effort: what a fit may take.
        seed: of everything random.
        settings: what the effort is called.

    Raises:
        ValueError: none could be fitted.
    """
    models, refused = {}, {}
    for name in tqdm(names, desc="anomaly models", unit="model", disable=None):
        try:
            models[name] = _trained(name, of, effort, seed, settings)
        except ValueError as error:  # of this one alone, such as one that learns from labels where there are none
            refused[name] = str(error)
    if not models:
        raise ValueError("; ".join(refused.values()))
    return models, refused


def _trained(name: str, of: Sequence[SiteSeries], effort: anomaly_models.Effort, seed: int, settings: str) -> Any:
    fitted = anomaly_models.fit(name, of, effort, seed)
    parameters = {**fitted.parameters, "settings": settings}
    metrics = {**fitted.metrics, THRESHOLD: fitted.threshold}
    if fitted.network is not None:
        return TrainedKerasModel(fitted.network, CLASSES, parameters, metrics, fitted.history)
    return TrainedModel(fitted.estimator, CLASSES, parameters, metrics)


def scorer(name: str, stored: StoredModel | StoredKerasModel) -> tuple[str, float, Scorer]:
    """A stored model's version, threshold, and what scores by it.

    Raises:
        ModelFileError: it was fitted by another version of this code.
    """
    if stored.card["code_version"] != MODELS_CODE:
        raise ModelFileError(f"{stored.folder} was fitted by another version of anomaly_models. {AGAIN}")
    parameters = stored.card["parameters"]
    if isinstance(stored, StoredKerasModel):
        model = anomaly_models.Scorer(name, parameters, network=stored.load())
    else:
        model = anomaly_models.Scorer(name, parameters, estimator=stored.load(TRUSTED_TYPES))
    return str(stored.card["version"]), threshold_of(stored.card), partial(anomaly_models.scores, model)


def held_out(
    names: Sequence[str], of: Sequence[SiteSeries], most_sites: int, effort: anomaly_models.Effort, seed: int
) -> pa.Table:
    """Each labelled site, those with most anomalous samples first, scored by models of the others.

    Returns:
        Rows of tables.HELD_OUT_SCORES.
    """
    labelled = sorted((one for one in of if (one.labels == 1).any()), key=lambda one: -int((one.labels == 1).sum()))
    parts = [HELD_OUT_SCORES.arrow_schema.empty_table()]
    rounds = [(out, name) for out in labelled[:most_sites] if len(labelled) > 1 for name in names]
    for out, name in tqdm(rounds, desc="sites held out", unit="fit", disable=None):
        try:
            fitted = anomaly_models.fit(name, [one for one in of if one.site != out.site], effort, seed)
        except ValueError as error:  # the other sites have nothing that this one could be fitted on
            LOG.warning("%s, without %s: %s", name, out.site, error)
            continue
        scores = anomaly_models.scores(fitted, out)
        parts.append(said(HELD_OUT_SCORES, out, np.ones(len(out), bool), name, scores, fitted.threshold, {}))
    return pa.concat_tables(parts)
