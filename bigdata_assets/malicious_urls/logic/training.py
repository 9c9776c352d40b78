"""Fitting the classifier, and the report on classifiers fitted as it is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bigdata_assets.malicious_urls.logic import evaluation, splits
from bigdata_assets.malicious_urls.logic.classifier import build
from bigdata_assets.reports import Evaluation, Report

MAJORITY, SCHEME_RULE = "majority", "scheme rule"
PERMUTED_ROWS = 2_000
PERMUTED_FEATURES = 40


def fit(labelled: pd.DataFrame, family: str, strip_scheme: bool, seed: int, folds: int = 5) -> Any:
    """A classifier fitted on all rows of `labelled` (columns url, type), whatever their order."""
    rows = labelled.sort_values("url")
    model = build(family, strip_scheme=strip_scheme, n_folds=folds, seed=seed)
    return model.fit(rows["url"].tolist(), rows["type"].to_numpy())


def report(
    labelled: pd.DataFrame, family: str, strip_scheme: bool, seed: int, repeats: int, folds: int = 5, why: str = ""
) -> Report:
    """Repeated domain-grouped splits, a random one beside them, each with and without the scheme.

    Every model is fitted on one side of a split and measured on the other; baselines are made from the same training
    rows and measured on the same test rows. `folds` are the ensemble's; `why` says why there are so many of both.
    """
    rows = labelled.sort_values("url", ignore_index=True)
    urls, truth, domains = rows["url"].to_numpy(), rows["type"].to_numpy(), rows["registered_domain"].to_numpy()
    classes = sorted(np.unique(truth))
    models = {_name(family, strip_scheme): strip_scheme, _name(family, not strip_scheme): not strip_scheme}
    shown = _name(family, strip_scheme)
    figures_of: dict[tuple[str, str, str], list[float]] = {}
    first: dict[str, Any] = {}
    for repeat in range(repeats):
        for split in ("domain", "random") if repeat == 0 else ("domain",):
            train, test = (
                splits.domain_grouped(domains, truth, seed + repeat)
                if split == "domain"
                else splits.random_rows(truth, seed)
            )
            answers = {
                MAJORITY: evaluation.majority_probabilities(truth[train], len(test), classes),
                SCHEME_RULE: evaluation.scheme_probabilities(urls[train], truth[train], urls[test], classes),
            }
            for name, strip in models.items():
                # The other scheme setting is there for comparison: one split of each kind tells.
                if name != shown and repeat:
                    continue
                model = build(family, strip_scheme=strip, n_folds=folds, seed=seed)
                model.fit(urls[train].tolist(), truth[train])
                answers[name] = model.predict_proba(urls[test].tolist())
                if name == shown and split == "domain" and not repeat:
                    first = {"model": model, "truth": truth[test], "urls": urls[test].tolist(), "answers": answers}
            for name, answer in answers.items():
                for metric, value in evaluation.measures(truth[test], answer, classes).items():
                    figures_of.setdefault((split, name, metric), []).append(value)
    table = _summary(figures_of)
    main = {
        metric: values for (split, name, metric), values in figures_of.items() if (split, name) == ("domain", shown)
    }
    baseline = np.mean(figures_of["domain", SCHEME_RULE, "accuracy"])
    return Report(
        title="URL classifier on domains it has not seen",
        summary=(
            f"{shown}: accuracy {_told(main['accuracy'], 3)}, ROC AUC {_told(main['ROC AUC'], 3)} over {repeats} "
            f"domain-grouped split{'s' if repeats > 1 else ''}; the scheme rule alone has accuracy {baseline:.3f}. "
            + " ".join([*splits.REASONS.values(), why])
        ),
        numbers={
            "accuracy, new domains": float(np.mean(main["accuracy"])),
            "ROC AUC, new domains": float(np.mean(main["ROC AUC"])),
            "accuracy, random split": figures_of["random", shown, "accuracy"][0],
            "accuracy of the scheme rule": float(baseline),
            "accuracy of the majority": float(np.mean(figures_of["domain", MAJORITY, "accuracy"])),
        },
        tables={
            "Models and baselines" + (", mean and half of the 95 % interval" if repeats > 1 else ""): table,
            f"Classes, {shown}, first domain-grouped split": evaluation.per_class(
                first["truth"], first["answers"][shown], classes
            ),
            "Most telling hand-made features: loss of accuracy when one is shuffled": telling_features(
                first["model"], first["urls"], first["truth"], seed
            ),
        },
        figures=evaluation.figures(first["truth"], first["answers"], classes, shown),
        evaluations=tuple(_evaluations(figures_of, models)),
        untold="too few benign rows to tell",
    )


def telling_features(model: Any, urls: Sequence[str], truth: np.ndarray, seed: int, most: int = 15) -> pd.DataFrame:
    """The hand-made features whose shuffling costs a fitted model most accuracy, on rows it was not fitted on.

    Only those are shuffled that the trees use most. Empty for a model without hand-made features: a hashed n-gram has
    no name.
    """
    from bigdata_assets.malicious_urls.logic.classifier import StackedUrlClassifier

    if isinstance(model, StackedUrlClassifier):
        rows, trees, names = model.tree_rows(urls[:PERMUTED_ROWS]), model.trees_, model.hand_made_.names()
    elif hasattr(model, "steps") and hasattr(model.steps[0][1], "names"):
        hand_made, trees = (step for _, step in model.steps)
        rows, names = hand_made.transform(urls[:PERMUTED_ROWS]), hand_made.names()
    else:
        return pd.DataFrame(columns=["feature", "accuracy lost"])
    codes = np.searchsorted(model.classes_, truth[:PERMUTED_ROWS])
    before = (trees.predict_proba(rows).argmax(axis=1) == codes).mean()
    generator = np.random.default_rng(seed)
    lost = {}
    for column in np.argsort(-trees.feature_importances_[: len(names)], kind="stable")[:PERMUTED_FEATURES]:
        kept = rows[:, column].copy()
        rows[:, column] = generator.permutation(kept)
        lost[names[column]] = before - (trees.predict_proba(rows).argmax(axis=1) == codes).mean()
        rows[:, column] = kept
    table = pd.DataFrame({"feature": list(lost), "accuracy lost": list(lost.values())})
    return table.sort_values("accuracy lost", ascending=False).head(most)


def _name(family: str, strip_scheme: bool) -> str:
    return f"{family}, scheme {'stripped' if strip_scheme else 'kept'}"


def _told(values: Sequence[float], digits: int) -> str:
    """The mean, and half of its interval where there is one."""
    mean, half = evaluation.interval(values)
    return f"{mean:.{digits}f}" if np.isnan(half) else f"{mean:.{digits}f} ± {half:.{digits}f}"


def _summary(figures_of: dict[tuple[str, str, str], list[float]]) -> pd.DataFrame:
    """One row per split and model, one column per metric."""
    rows: dict[tuple[str, str], dict[str, str | None]] = {}
    for (split, name, metric), values in figures_of.items():
        rows.setdefault((split, name), {})[metric] = None if np.isnan(values).any() else _told(values, 4)
    return pd.DataFrame([{"split": split, "model": name, **row} for (split, name), row in rows.items()])


def _evaluations(figures_of: dict[tuple[str, str, str], list[float]], models: dict[str, bool]) -> list[Evaluation]:
    """Ledger rows: the mean of each metric beside both baselines' on the same rows."""
    return [
        Evaluation(
            name, split, metric, float(np.mean(values)), baseline, float(np.mean(figures_of[split, baseline, metric]))
        )
        for (split, name, metric), values in figures_of.items()
        if name in models and not np.isnan(values).any()
        for baseline in (MAJORITY, SCHEME_RULE)
    ]
