"""How well the head names the classes, by grouped cross-validation, beside networks as they are and the majority."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bigdata_assets.big_cats.logic import head
from bigdata_assets.big_cats.logic.classes import CatClass
from bigdata_assets.big_cats.logic.figures import matrix
from bigdata_assets.big_cats.logic.head import Crossed, Start
from bigdata_assets.big_cats.logic.prediction_report import wilson
from bigdata_assets.reports import FIGURE_IN, Evaluation, Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODEL, MAJORITY, CROSSED = "cat_head", "majority", "cross-validation"
ZERO_SHOT = "zero-shot"
BEGUN = "head as it begins"
"""Before it has learnt anything: the network's own logits, of the classes only."""
METRICS = ("accuracy", "balanced_accuracy")
WRONG = -1
"""Code of an answer that is none of the classes."""


def report(
    features: pd.DataFrame,
    predictions: pd.DataFrame,
    classes: Sequence[CatClass],
    begin: Start,
    card: Mapping[str, Any],
    repeats: int,
    folds: int,
    why: str = "",
) -> Report:
    """Figures of heads like the stored one by cross-validation over all chips of one class.

    Args:
        features: rows of cat_features.
        predictions: rows of chip_predictions, of several networks: columns network, chip_id, top_indices.
        classes: the chosen classes.
        begin: what the network knows of them.
        card: the stored head's model.json.
        repeats: how often all groups are dealt out into folds anew.
        folds: how many.
        why: a sentence that says why there are so many of these.

    Raises:
        ValueError: the head and cat_features are not of the same classes, network and weights, or nothing can be split.
    """
    rows = head.rows(features, classes)
    _made_together(features, classes, card)
    crossed = head.cross_validate(rows, begin, head.from_parameters(card["parameters"]), repeats, folds)
    chips = crossed.rows.codes >= 0
    truth = crossed.rows.codes[chips]
    answers = crossed.answers[:, chips]
    networks, partial = zero_shot(predictions, crossed.rows.names[chips], classes)
    begun = (crossed.rows.features[chips] @ begin.kernel + begin.bias).argmax(axis=1)
    found = {MODEL: measured(truth, answers), MAJORITY: majority(truth)} | {
        name: measured(truth, called[None]) for name, called in ({BEGUN: begun} | networks).items()
    }
    none = none_of_them(crossed)
    low, high = wilson(round(found[MODEL]["accuracy"] * len(truth)), len(truth))  # repeats add no chips
    several = len(set(rows.names[rows.codes == head.SEVERAL]))
    plain = rows.plain
    counts = {
        "chips": len(truth),
        "negative pictures": int((~chips).sum()),
        "chips of several classes, left out": several,
        "groups": len(set(plain.groups)),
        "pictures and chips in a group with others": int((np.bincount(plain.groups)[plain.groups] > 1).sum()),
    }
    others = [f"{name} {it['accuracy']:.3f}" for name, it in found.items() if name != MODEL]
    summary = (
        f"{folds}-fold cross-validation by groups of near-duplicates, repeated {repeats} times, over {len(truth):,} "
        f"chips: accuracy {found[MODEL]['accuracy']:.3f} ({low:.3f} to {high:.3f}, 95 %), balanced "
        f"{found[MODEL]['balanced_accuracy']:.3f}. On the same chips: {', '.join(others)}. "
        f"{_told(none, counts['negative pictures'])} The stored head's fit was stopped on "
        f"{card['parameters']['stopped_on']}; its threshold is of {card['parameters']['threshold_of']}."
    )
    if several:
        summary += f" {several:,} chips of several classes are left out."
    if partial:
        summary += f" Not compared, for they have not seen all of these chips: {', '.join(partial)}."
    return Report(
        title="The head over frozen features",
        summary=f"{summary} {why}".strip(),
        numbers={"accuracy": found[MODEL]["accuracy"], "balanced accuracy": found[MODEL]["balanced_accuracy"]}
        | {f"accuracy, {name}": it["accuracy"] for name, it in found.items() if name != MODEL}
        | none
        | counts,
        tables={
            "Cross-validated head, and others on the same chips": pd.DataFrame(
                {"model": name} | it for name, it in found.items()
            ),
            "By class": by_class(truth, answers, networks, classes, crossed.rows.groups[chips]),
        },
        figures={
            "Training of the stored head, by epoch": _curves(card["history"]),
            "What each class is called, all repeats": matrix(confusion(truth, answers, classes), "called", "chips of"),
        }
        | ({"None of them: mean scores over repeats": _none_figure(crossed, none)} if none else {}),
        evaluations=tuple(
            Evaluation(
                MODEL,
                CROSSED,
                metric,
                found[MODEL][metric],
                baseline,
                found[baseline][metric],
                *((low, high, "95 %, of a share") if metric == "accuracy" else ()),
            )
            for baseline in found
            if baseline != MODEL
            for metric in METRICS
        ),
        untold="not among its chips",
    )


def _made_together(features: pd.DataFrame, classes: Sequence[CatClass], card: Mapping[str, Any]) -> None:
    versions, labels = set(features["model_version"]), [one.label for one in classes]
    if versions != {card["parameters"]["network_version"]} or list(card["classes"]) != labels:
        raise ValueError(
            f"the stored head is of {card['parameters']['network_version']} and {', '.join(card['classes'])}, "
            f"cat_features of {', '.join(sorted(versions))}, the classes are {', '.join(labels)}: materialise cat_head"
        )


def zero_shot(
    predictions: pd.DataFrame, chips: NDArray[np.str_], classes: Sequence[CatClass]
) -> tuple[dict[str, NDArray[np.int64]], list[str]]:
    """What networks call the chips without a head, as class codes; and those that have not seen all of the chips.

    There are two answers of each network: the class that its likeliest of ImageNet's thousand is a synset of, WRONG
    where it is of none; and, as the head has only the classes to choose from, that of the likeliest synset of any
    class among those that are stored.
    """
    code_of = {index: code for code, one in enumerate(classes) for index in one.synsets}
    found: dict[str, NDArray[np.int64]] = {}
    partial = []
    for network, its in predictions.groupby("network"):
        tops = its.set_index("chip_id")["top_indices"]
        if not np.isin(chips, tops.index).all():
            partial.append(str(network))
            continue
        codes = [[code_of.get(int(index), WRONG) for index in top] for top in tops.loc[chips.tolist()]]
        found[f"{network} {ZERO_SHOT}"] = np.array([of_chip[0] for of_chip in codes])
        among = [next((code for code in of_chip if code != WRONG), WRONG) for of_chip in codes]
        found[f"{network} {ZERO_SHOT} among the classes"] = np.array(among)
    return found, partial


def measured(truth: NDArray[np.int64], answers: NDArray[np.int64]) -> dict[str, float]:
    """METRICS of answers (r, n), means over repeats; the mean over classes is over those that are there."""
    right = answers == truth
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean([right[:, truth == code].mean() for code in np.unique(truth)])),
    }


def majority(truth: NDArray[np.int64]) -> dict[str, float]:
    """METRICS of the most frequent class."""
    return measured(truth, np.full((1, len(truth)), np.bincount(truth).argmax()))


def by_class(
    truth: NDArray[np.int64],
    answers: NDArray[np.int64],
    networks: Mapping[str, NDArray[np.int64]],
    classes: Sequence[CatClass],
    groups: NDArray[np.int64],
) -> pd.DataFrame:
    """Chips, groups, precision and recall of each class that is there, and the networks' recall."""
    table = []
    for code in np.unique(truth):
        its, called = truth == code, answers == code
        table.append(
            {
                "class": classes[code].name,
                "chips": int(its.sum()),
                "groups": len(set(groups[its])),
                "precision": float(called[:, its].sum() / called.sum()) if called.any() else float("nan"),
                "recall": float(called[:, its].mean()),
                **{f"recall, {name}": float((of[its] == code).mean()) for name, of in networks.items()},
            }
        )
    return pd.DataFrame(table)


def confusion(truth: NDArray[np.int64], answers: NDArray[np.int64], classes: Sequence[CatClass]) -> pd.DataFrame:
    """Chips by class and answer, over all repeats."""
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (np.broadcast_to(truth, answers.shape), answers), 1)
    names = [one.name for one in classes]
    return pd.DataFrame(counts, names, names)


def none_of_them(crossed: Crossed) -> dict[str, float]:
    """Share of unseen negatives that are rejected and of unseen chips that are not, and the area under the ROC curve;
    nothing where there is no negative.
    """
    from sklearn.metrics import roc_auc_score

    chips = crossed.rows.codes >= 0
    if chips.all():
        return {}
    return {
        "negatives rejected": float(1 - crossed.accepted[:, ~chips].mean()),
        "chips kept": float(crossed.accepted[:, chips].mean()),
        "area under ROC, chips against negatives": float(roc_auc_score(chips, crossed.scores.mean(axis=0))),
    }


def _told(none: Mapping[str, float], negatives: int) -> str:
    if not none:
        return "There is no negative picture: how well it knows what is none of them cannot be told."
    return (
        f"None of them: thresholds that at most {head.PASSED:.0%} of the other folds' negative pictures exceed reject "
        f"{none['negatives rejected']:.3f} of {negatives:,} and keep {none['chips kept']:.3f} of the chips."
    )


def _curves(history: Mapping[str, Sequence[float]]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(FIGURE_IN, 2.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for key, label in ((name, "fitted on, all views"), (f"val_{name}", "stopped on")):
            if key in history:
                axes.plot(np.arange(len(history[key])) + 1, history[key], ".-", label=label)
        axes.set(xlabel="epoch", ylabel=f"{name}, each class alike")
        axes.legend()
    return figure


def _none_figure(crossed: Crossed, none: Mapping[str, float]) -> "Figure":
    from matplotlib.figure import Figure
    from sklearn.metrics import roc_curve

    chips, scores = crossed.rows.codes >= 0, crossed.scores.mean(axis=0)
    figure = Figure(figsize=(FIGURE_IN, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    passed, kept, _ = roc_curve(chips, scores)
    left.plot(passed, kept)
    left.plot(1 - none["negatives rejected"], none["chips kept"], "o", label="at the folds' thresholds")
    left.set(xlabel="negatives taken for a class", ylabel="chips kept", xlim=(-0.02, 1), ylim=(0, 1.02))
    left.legend()
    bins = np.linspace(scores.min(), scores.max(), 21)
    for label, which in (("negatives", ~chips), ("chips", chips)):
        right.hist(scores[which], bins, alpha=0.6, label=label)
    right.axvline(crossed.thresholds.mean(), color="#5a6070", linewidth=1)
    right.set(xlabel="score, and the mean threshold", ylabel="pictures")
    right.legend()
    return figure
