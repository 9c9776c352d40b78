"""Learners that only add a batch: logistic regression by stochastic gradient descent on hashed features, and the
baselines that everything is compared with.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bigdata_assets.crimes.logic import features

SGD = "online_sgd"
MAJORITY = "majority"
LOOK_UP = "iucr_rate"
BASELINES = (MAJORITY, LOOK_UP)
TRUSTED_TYPES = ["sklearn.linear_model._sgd_fast.Log", "sklearn._loss._loss.CyHalfBinomialLoss"]
LEARNING_RATE = 0.01
"""Constant, so that the model goes on following what changes. Of .01 to .2 and of the schedule `optimal`, .01 had the
best log loss on 2015."""
PENALTY = 3e-5


@dataclass
class OnlineModels:
    """Models that learn batch by batch; what they know is all that they have learnt, never what they are to score."""

    sgd: Any = None
    rates: dict[str, list[int]] = field(default_factory=dict)
    """Reports and arrests by IUCR code."""
    reports: int = 0
    arrests: int = 0
    _hashed: Any = field(default=(None, None), init=False, repr=False, compare=False)
    """The rows that were scored or learnt last, and their features."""

    def predict(self, rows: pd.DataFrame) -> dict[str, np.ndarray]:
        """Probability of an arrest for each report, by model.

        The look-up is the code's arrest rate with one report's weight of the overall rate, which alone is what a code
        that was never seen gets; both start from one half.
        """
        overall = (self.arrests + 1) / (self.reports + 2)
        known = [self.rates.get(code, (0, 0)) for code in rows["iucr"]]
        counts = np.array(known, np.float64).reshape(-1, 2)
        probabilities = {
            MAJORITY: np.full(len(rows), overall),
            LOOK_UP: (counts[:, 1] + overall) / (counts[:, 0] + 1),
        }
        if self.sgd is None or not len(rows):
            probabilities[SGD] = np.full(len(rows), overall)
        else:
            probabilities[SGD] = self.sgd.predict_proba(self._features(rows))[:, 1]
        return probabilities

    def learn(self, rows: pd.DataFrame) -> None:
        """Add a batch."""
        from sklearn.linear_model import SGDClassifier

        if not len(rows):
            return
        labels = rows["arrest"].to_numpy(bool)
        if self.sgd is None:
            self.sgd = SGDClassifier(
                loss="log_loss", alpha=PENALTY, learning_rate="constant", eta0=LEARNING_RATE, random_state=0
            )
        self.sgd.partial_fit(self._features(rows), labels, classes=[False, True])
        for code, arrest in zip(rows["iucr"], labels, strict=True):
            counts = self.rates.setdefault(code, [0, 0])
            counts[0] += 1
            counts[1] += int(arrest)
        self.reports += len(rows)
        self.arrests += int(labels.sum())

    def _features(self, rows: pd.DataFrame) -> Any:
        """Hashed once for the two: a batch is scored and then learnt."""
        if self._hashed[0] is not rows:
            self._hashed = rows, features.hashed(rows)
        return self._hashed[1]

    def dump(self) -> bytes:
        """As a skops file."""
        import zipfile

        import skops.io

        # As arrays: skops has a node for each number of a dictionary, which takes longer than all the rest.
        rates = {"codes": np.array(list(self.rates), str), "counts": np.array(list(self.rates.values()), np.int64)}
        state = {"sgd": self.sgd, "rates": rates, "reports": self.reports, "arrests": self.arrests}
        return skops.io.dumps(state, compression=zipfile.ZIP_DEFLATED, compresslevel=1)

    @classmethod
    def load(cls, data: bytes) -> "OnlineModels":
        """From a skops file, which may build no other types than these models need."""
        import skops.io

        state = skops.io.loads(data, trusted=TRUSTED_TYPES)
        rates = dict(zip(state["rates"]["codes"].tolist(), state["rates"]["counts"].tolist(), strict=True))
        return cls(**state | {"rates": rates})
