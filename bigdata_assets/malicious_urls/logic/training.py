"""Fitting the classifier, and the report on classifiers fitted as it is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from bigdata_assets.malicious_urls.logic import evaluation, splits
from bigdata_assets.malicious_urls.logic.classifier import KnownKinds, StackedUrlClassifier, build
from bigdata_assets.malicious_urls.logic.lists import Pooled, pooled
from bigdata_assets.malicious_urls.tables import BENIGN, MOST_OF_A_LIST, UNKNOWN_KIND
from bigdata_assets.reports import Better, Evaluation, Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAJORITY, SCHEME_RULE = "majority", "scheme rule"
COMPARED = ("ngram_linear", "lightgbm")
"""Families beside the chosen one: the plain linear one, and trees of lexical features."""
LEAST_DOMAINS = 50
"""Of benign URLs, and of others, that a model of the report is fitted on."""
PERMUTED_ROWS = 2_000
PERMUTED_FEATURES = 40

Makers = Mapping[str, Callable[[], KnownKinds]]


def fit(labelled: pd.DataFrame, family: str, strip_scheme: bool, seed: int, folds: int = 5) -> KnownKinds:
    """A classifier fitted on all rows of `labelled` (columns url, type), whatever their order.

    Raises:
        ValueError: there are no rows, or of one class alone.
    """
    if labelled["type"].nunique() < 2:
        raise ValueError(
            f"labelled_urls has {len(labelled)} rows of {labelled['type'].nunique()} classes: a classifier needs "
            "benign and malicious ones. Put lists of labelled URLs (columns url and type or label) into the folder "
            "malicious_urls of BIGDATA_SOURCES and materialise labelled_urls."
        )
    rows = labelled.sort_values("url")
    model = build(family, strip_scheme=strip_scheme, n_folds=folds, seed=seed)
    return model.fit(rows["url"].tolist(), rows["type"].to_numpy())


def report(
    labelled: pd.DataFrame,
    family: str,
    strip_scheme: bool,
    seed: int,
    repeats: int,
    folds: int = 5,
    most: int = MOST_OF_A_LIST,
    why: str = "",
) -> Report:
    """Each list held out, repeated domain-grouped splits of all, and a random one; with and without the scheme.

    Every model is fitted on one side of a split and measured on the other; baselines are made from the same training
    rows and measured on the same test rows. `folds` are the ensemble's; `most` is of the rows of a list; `why` says why
    there are so many of the first two.
    """
    pool = pooled(labelled, most, seed)
    rows = pool.rows
    truth, domains = rows["type"].to_numpy(), rows["registered_domain"].to_numpy()
    kinds = sorted(set(truth) - {UNKNOWN_KIND})
    classes = kinds if len(kinds) > 1 else [BENIGN, UNKNOWN_KIND]

    def make(name: str, strip: bool) -> Callable[[], KnownKinds]:
        return lambda: build(name, strip_scheme=strip, n_folds=folds, seed=seed)

    shown = _name(family, strip_scheme)
    compared = {_name(name, strip_scheme): make(name, strip_scheme) for name in (family, *COMPARED)}
    every = {**compared, _name(family, not strip_scheme): make(family, not strip_scheme)}
    figures_of: dict[tuple[str, str, str], list[float]] = {}
    first: dict[str, Any] = {}
    for repeat in range(repeats):
        for split in ("domain", "random") if repeat == 0 else ("domain",):
            train, test = (
                splits.domain_grouped(domains, truth, seed + repeat)
                if split == "domain"
                else splits.random_rows(truth, seed)
            )
            # Others are there for comparison: one split of each kind tells.
            answers, models = _answers(rows, train, test, classes, {shown: every[shown]} if repeat else every)
            if split == "domain" and not repeat:
                first = {
                    "model": models[shown], "truth": truth[test], "urls": rows["url"][test].tolist(), "answers": answers
                }  # fmt: skip
            for name, answer in answers.items():
                for metric, value in evaluation.measures(truth[test], answer, classes).items():
                    figures_of.setdefault((split, name, metric), []).append(value)
    held_out = pd.DataFrame(lists_held_out(rows, classes, compared))
    main = {
        metric: values for (split, name, metric), values in figures_of.items() if (split, name) == ("domain", shown)
    }
    baseline = np.mean(figures_of["domain", SCHEME_RULE, "accuracy"])
    of_lists = held_out[held_out["model"] == shown] if len(held_out) else held_out
    return Report(
        title="URL classifier on lists and domains it has not seen",
        summary=(
            _told_of_lists(of_lists, shown, set(rows["list"]))
            + f"{shown}: accuracy {_told(main['accuracy'], 3)}, ROC AUC {_told(main['ROC AUC'], 3)} over {repeats} "
            f"domain-grouped split{'s' if repeats > 1 else ''} of all lists; the scheme rule alone has accuracy "
            f"{baseline:.3f}. " + " ".join([*splits.REASONS.values(), _told_of_pool(pool, most), why]).strip()
        ),
        numbers={
            **({"ROC AUC, worst list held out": float(of_lists["ROC AUC"].min())} if len(of_lists) else {}),
            "accuracy, new domains": float(np.mean(main["accuracy"])),
            "ROC AUC, new domains": float(np.mean(main["ROC AUC"])),
            "accuracy, random split": figures_of["random", shown, "accuracy"][0],
            "accuracy of the scheme rule": float(baseline),
            "accuracy of the majority": float(np.mean(figures_of["domain", MAJORITY, "accuracy"])),
        },
        tables={
            **({"Each list held out, fitted on the others": held_out} if len(held_out) else {}),
            **(
                {f"ROC AUC of {shown}, fitted on one list": of_one_list(rows, classes, compared[shown])}
                if len(held_out) and rows["list"].nunique() > 2  # of two, all but one are one
                else {}
            ),
            "Models and baselines" + (", mean and half of the 95 % interval" if repeats > 1 else ""): _summary(
                figures_of
            ),
            f"Classes, {shown}, first domain-grouped split": evaluation.per_class(
                first["truth"], first["answers"][shown], classes
            ),
            "Most telling hand-made features: loss of accuracy when one is shuffled": telling_features(
                first["model"], first["urls"], first["truth"], seed
            ),
        },
        figures={
            **({"ROC AUC on each list, fitted on the others": _held_out_figure(held_out)} if len(held_out) else {}),
            **evaluation.figures(first["truth"], first["answers"], classes, shown),
        },
        evaluations=(*_evaluations(figures_of, list(every)), *_evaluations_of_lists(held_out)),
        untold="too few benign rows to tell",
    )


def _answers(
    rows: pd.DataFrame, train: np.ndarray, test: np.ndarray, classes: Sequence[str], makers: Makers
) -> tuple[dict[str, np.ndarray], dict[str, KnownKinds]]:
    """What each model, fitted on the rows of `train`, and each baseline say of those of `test`; and the models."""
    urls, truth = rows["url"].to_numpy(), rows["type"].to_numpy()
    answers = {
        MAJORITY: evaluation.majority_probabilities(truth[train], len(test), classes),
        SCHEME_RULE: evaluation.scheme_probabilities(urls[train], truth[train], urls[test], classes),
    }
    models = {name: make().fit(urls[train].tolist(), truth[train]) for name, make in makers.items()}
    answers |= {name: _answer(model, urls[test].tolist(), classes) for name, model in models.items()}
    return answers, models


def _answer(model: KnownKinds, urls: list[str], classes: Sequence[str]) -> np.ndarray:
    """(n, classes): the model's probabilities; of a class that it was not fitted on, 0."""
    found = dict(zip(model.classes_, model.predict_proba(urls).T, strict=True))
    kinds = sum(name != BENIGN for name in classes)
    # One that was fitted on unknown kinds alone has all of them as probable.
    untold = 0.0 if UNKNOWN_KIND in classes else found.pop(UNKNOWN_KIND, 0.0) / kinds
    columns = [found.get(name, np.zeros(len(urls))) + (untold if name != BENIGN else 0.0) for name in classes]
    return np.stack(columns, axis=1)


def _both_sides(truth: np.ndarray, *sides: np.ndarray) -> bool:
    """Whether each side has benign rows and others."""
    return all(len(set(truth[side] == BENIGN)) == 2 for side in sides)


def _can_be_fitted(truth: np.ndarray, domains: np.ndarray, train: np.ndarray) -> bool:
    """Whether there are domains enough, of benign rows and of others, for each fold to have some of both."""
    of_benign, of_others = (domains[train][(truth[train] == BENIGN) == which] for which in (True, False))
    return min(len(np.unique(of_benign)), len(np.unique(of_others))) >= LEAST_DOMAINS


def lists_held_out(rows: pd.DataFrame, classes: Sequence[str], makers: Makers) -> Iterator[dict[str, Any]]:
    """Figures of models fitted on all lists but one, on that one."""
    truth, lists, domains = (rows[name].to_numpy() for name in ("type", "list", "registered_domain"))
    for held in np.unique(lists):
        train, test = np.flatnonzero(lists != held), np.flatnonzero(lists == held)
        if not _can_be_fitted(truth, domains, train) or not _both_sides(truth, test):
            continue
        malicious, new = truth[test] != BENIGN, ~np.isin(domains[test], np.unique(domains[train]))
        for name, answer in _answers(rows, train, test, classes, makers)[0].items():
            score = evaluation.malicious_probability(answer, classes)
            low, high = evaluation.auc_interval(malicious, score, domains[test])
            yield {
                "list": held,
                "model": name,
                "rows": len(test),
                "ROC AUC": roc_auc_score(malicious, score),
                "low": low,
                "high": high,
                "ROC AUC, new domains": (
                    roc_auc_score(malicious[new], score[new]) if _both_sides(truth[test], new) else np.nan
                ),
                **{
                    f"TPR at FPR {rate:.1%}": evaluation.tpr_at_fpr(malicious, score, rate)
                    for rate in evaluation.FALSE_POSITIVE_RATES
                },
                "calibration error": evaluation.expected_calibration_error(malicious, score),
            }


def of_one_list(rows: pd.DataFrame, classes: Sequence[str], make: Callable[[], KnownKinds]) -> pd.DataFrame:
    """ROC AUC on each other list of a model that was fitted on one alone."""
    urls, truth, lists, domains = (rows[name].to_numpy() for name in ("url", "type", "list", "registered_domain"))
    names = np.unique(lists)
    table = []
    for alone in names:
        train = lists == alone
        if not _can_be_fitted(truth, domains, train):
            continue
        model = make().fit(urls[train].tolist(), truth[train])
        row: dict[str, Any] = {"fitted on": alone}
        for other in names:
            test = lists == other
            if other != alone and _both_sides(truth, test):
                score = evaluation.malicious_probability(_answer(model, urls[test].tolist(), classes), classes)
                row[other] = roc_auc_score(truth[test] != BENIGN, score)
        table.append(row)
    return pd.DataFrame(table)


def _told_of_lists(of_lists: pd.DataFrame, shown: str, lists: set[str]) -> str:
    if len(lists) == 1:
        return "There is one list: how the classifier does on another is not known, and often it is far worse. "
    left_out = sorted(lists - set(of_lists["list"])) if len(of_lists) else sorted(lists)
    told = (
        f"Not held out: {', '.join(left_out)}, which have no benign or no malicious URLs, or beside which there are "
        "too few domains to learn from. "
        if left_out
        else ""
    )
    if not len(of_lists):
        return told
    worst = of_lists.loc[of_lists["ROC AUC"].idxmin()]
    return told + (
        f"On a list that it was not fitted on {shown} has a ROC AUC of {of_lists['ROC AUC'].mean():.3f} in the mean, "
        f"{worst['ROC AUC']:.3f} ({worst['low']:.3f} to {worst['high']:.3f}) on the worst, {worst['list']}. "
    )


def _told_of_pool(pool: Pooled, most: int) -> str:
    return (
        f"Of all lists' rows {pool.repeated:,} repeat another's URL and {pool.contradicting:,} contradict another "
        f"list; {pool.not_drawn:,} are beyond the {most:,} that are taken of a list."
    )


def _held_out_figure(held_out: pd.DataFrame) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    models, names = list(dict.fromkeys(held_out["model"])), list(dict.fromkeys(held_out["list"]))
    for number, model in enumerate(models):
        its = held_out[held_out["model"] == model].set_index("list").loc[names]
        places = np.arange(len(names)) + (number - (len(models) - 1) / 2) * 0.12
        around = [its["ROC AUC"] - its["low"], its["high"] - its["ROC AUC"]]
        axes.errorbar(its["ROC AUC"], places, xerr=np.maximum(around, 0), fmt="o", capsize=2, label=model)
    axes.axvline(0.5, color="0.7", linestyle="--")
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel="ROC AUC on the list, with 95 % interval")
    axes.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return figure


def telling_features(
    model: KnownKinds, urls: Sequence[str], truth: np.ndarray, seed: int, most: int = 15
) -> pd.DataFrame:
    """The hand-made features whose shuffling costs a fitted model most accuracy, on rows it was not fitted on.

    Only those are shuffled that the trees use most. Empty for a model without hand-made features: a hashed n-gram has
    no name.
    """
    inner = model.classifier
    if isinstance(inner, StackedUrlClassifier):
        rows, trees, names = inner.tree_rows(urls[:PERMUTED_ROWS]), inner.trees_, inner.hand_made_.names()
    elif hasattr(inner, "steps") and hasattr(inner.steps[0][1], "names"):
        hand_made, trees = (step for _, step in inner.steps)
        rows, names = hand_made.transform(urls[:PERMUTED_ROWS]), hand_made.names()
    else:
        return pd.DataFrame(columns=["feature", "accuracy lost"])
    codes = np.searchsorted(inner.classes_, truth[:PERMUTED_ROWS])
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


def _evaluations(figures_of: dict[tuple[str, str, str], list[float]], models: Sequence[str]) -> list[Evaluation]:
    """Ledger rows: the mean of each metric beside both baselines' on the same rows, of the first split where a model
    was fitted on no other.
    """
    found = []
    for (split, name, metric), values in figures_of.items():
        if name not in models or np.isnan(values).any():
            continue
        mean, half = evaluation.interval(values)
        for baseline in (MAJORITY, SCHEME_RULE):
            beside = float(np.mean(figures_of[split, baseline, metric][: len(values)]))
            ends = (mean - half, mean + half, "95 %, over splits")
            better: Better = "less" if metric in evaluation.LESS_IS_BETTER else "more"
            found.append(Evaluation(name, split, metric, mean, baseline, beside, *ends, better=better))
    return found


def _evaluations_of_lists(held_out: pd.DataFrame) -> list[Evaluation]:
    """Ledger rows: ROC AUC of each list held out, beside the scheme rule's."""
    if not len(held_out):
        return []
    rule = held_out[held_out["model"] == SCHEME_RULE].set_index("list")["ROC AUC"]
    models = held_out[~held_out["model"].isin([MAJORITY, SCHEME_RULE])]
    return [
        Evaluation(
            row["model"],
            f"list {row['list']}",
            "ROC AUC",
            row["ROC AUC"],
            SCHEME_RULE,
            float(rule[row["list"]]),
            low=row["low"],
            high=row["high"],
            interval="95 %, over registered domains",
        )
        for _, row in models.iterrows()
    ]
