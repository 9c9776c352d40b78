"""Train and test rows of an evaluation, and why they are split so."""

import numpy as np

TEST_FOLDS = 5
REASONS = {
    "domain": (
        "Domain-grouped: no registered domain is on both sides, as new URLs mostly come from domains never seen. "
        "This is the figure to believe."
    ),
    "random": (
        "Random, stratified by class: URLs of one site stand on both sides, which a model can learn by heart. "
        "Only shown to tell by how much it flatters."
    ),
}


def domain_grouped(domains: np.ndarray, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of train and test, a fifth in test, class shares alike, no registered domain in both."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(TEST_FOLDS, shuffle=True, random_state=seed)
    return next(iter(folds.split(labels, labels, domains)))


def random_rows(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of train and test, a fifth in test, class shares alike."""
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(TEST_FOLDS, shuffle=True, random_state=seed)
    return next(iter(folds.split(labels, labels)))
