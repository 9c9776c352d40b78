"""Chirp against the rest by a support vector machine with a Gaussian kernel, on the principal components of pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bigdata_assets.gravitational_waves.logic.classifiers import metrics
from bigdata_assets.gravitational_waves.logic.classifiers.features import COLUMNS
from bigdata_assets.gravitational_waves.logic.classifiers.svc import MAX_FOLDS, SIGNAL

CLASSES = ("rest", SIGNAL)
COMPONENTS = 50
TRUSTED_TYPES: Sequence[str] = ()


def with_pixels(glitches: pd.DataFrame) -> pd.DataFrame:
    """Rows of glitch_features by id, with `is_signal` and, in place of the four views, their `pixels` side by side."""
    rows = glitches.sort_values("id", ignore_index=True)
    stacked = np.hstack([np.stack(rows[name].to_list()) for name in COLUMNS.values()]).astype(np.float32)
    return rows[["id", "label", "sample_type"]].assign(is_signal=rows["label"] == SIGNAL, pixels=list(stacked))


def fit(rows: pd.DataFrame, seed: int) -> Any:
    """A scikit-learn pipeline, fitted on rows of `with_pixels`."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC

    pixels = np.stack(rows["pixels"].to_list())
    components = min(COMPONENTS, len(rows) - 1)
    reduced = PCA(components, svd_solver="randomized", random_state=seed)
    return make_pipeline(reduced, SVC(class_weight="balanced")).fit(pixels, rows["is_signal"])


def margins(model: Any, rows: pd.DataFrame) -> NDArray[np.float64]:
    """Signed distance of each row of `with_pixels`, above 0 on the chirps' side."""
    return np.asarray(model.decision_function(np.stack(rows["pixels"].to_list())))


def cross_validated(rows: pd.DataFrame, repeats: int, seed: int) -> pd.DataFrame:
    """As svc.cross_validated, with the brightness of the pictures beside it: columns `margin`, `brightness`."""
    n_folds = min(MAX_FOLDS, int(rows["is_signal"].sum()))
    found = []
    for repeat, fold in enumerate(metrics.repeated_folds(rows["is_signal"], n_folds, repeats, seed)):
        for number in range(n_folds):
            held_out = rows[fold == number]
            margin = margins(fit(rows[fold != number], seed), held_out)
            brightness = [float(pixels.mean()) for pixels in held_out["pixels"]]
            columns = {"repeat": repeat, "fold": number, "margin": margin, "brightness": brightness}
            found.append(held_out[["id", "is_signal"]].assign(**columns))
    return pd.concat(found, ignore_index=True)
