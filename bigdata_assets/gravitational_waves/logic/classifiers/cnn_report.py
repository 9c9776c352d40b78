"""How well the network tells the classes apart: the publisher's split and cross-validation, beside simpler models."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from bigdata_assets.gravitational_waves.logic.classifiers import cnn, rbf
from bigdata_assets.gravitational_waves.logic.classifiers.cnn import CnnSettings, Glitches
from bigdata_assets.gravitational_waves.logic.classifiers.metrics import OVER_REPEATS, interval, told, told_repeats
from bigdata_assets.gravitational_waves.logic.training.gravity_spy import CLASSES
from bigdata_assets.reports import FIGURE_IN, Evaluation, Report

if TYPE_CHECKING:
    import keras

MODEL, LINEAR, MAJORITY = "glitch_cnn", "linear", "majority"
BASELINES = {MODEL: (LINEAR, MAJORITY), LINEAR: (MAJORITY,)}
METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
CROSSED, ON_TEST = "cross-validation", "publisher's test"
NOT_SCORED = -1
LINEAR_C = 1.0
"""Of the linear model, its best in sum of accuracy and balanced accuracy on 186 real glitches, three repeats of three
folds: .69 and .60 at 0.3, .75 and .59 at 1, .78 and .53 at 3; .56 and .51 at 0.1, .77 and .46 at 10."""


def report(
    views: pd.DataFrame,
    features: pd.DataFrame,
    model: "keras.Model",
    card: Mapping[str, Any],
    repeats: int,
    folds: int,
    epochs: int | None = None,
    why: str = "",
) -> Report:
    """Figures of the stored network on test rows, and of networks like it by cross-validation over all rows.

    Args:
        views: rows of glitch_views.
        features: rows of glitch_features, for the linear model.
        model: the stored network.
        card: its model.json; its seed is that of the folds too.
        repeats: how often all rows are dealt out into folds anew.
        folds: how many; a class with fewer glitches is in fewer.
        epochs: of the folds' networks, where not as many as the stored one's.
        why: a sentence that says why there are so many of these.

    Raises:
        ValueError: there are no test rows or no training rows, or the two tables' glitches are not the same.
    """
    rows, pixels = cnn.glitches(views), rbf.with_pixels(features)
    if pixels["id"].tolist() != rows.ids.tolist():
        raise ValueError("glitch_views and glitch_features have other glitches: materialise both")
    training, test = rows.sample_types == "train", rows.sample_types == "test"
    if not test.any() or not training.any():
        raise ValueError("no glitch is a test row, or none is a training row: there is nothing to report")
    coarse = np.stack(pixels["pixels"].to_list())
    truth = rows.labels[test]
    answers = {
        MODEL: called(cnn.probabilities(model, rows.views[test])),
        LINEAR: linear(coarse[training], rows.labels[training], coarse[test]),
        MAJORITY: majority(rows.labels[training], len(truth)),
    }
    on_test = {name: figures(truth, found) for name, found in answers.items()}
    settings = cnn.from_parameters(card["parameters"])
    settings = replace(settings, epochs=epochs or settings.epochs)
    crossed = cross_validated(rows, coarse, settings, repeats, folds)
    by_model = over_repeats(crossed)
    left_out = sorted(set(rows.labels) - set(crossed["label"]))
    lead = over_repeats(crossed, minus=LINEAR)[MODEL]
    stopped = f"The stored network's fit was stopped on: {card['parameters']['stopped_on']}."
    return Report(
        title="Glitches by class",
        summary=(
            f"{folds}-fold cross-validation, {told_repeats(repeats)}, over {len(rows)} glitches of "
            f"{len(set(rows.labels))} classes, at most {settings.epochs} epochs each; means, and the 5th and 95th "
            f"percentile over repeats where there are some: accuracy "
            f"{told(by_model[MODEL], 'accuracy')}, balanced {told(by_model[MODEL], 'balanced_accuracy')}; "
            f"multinomial logistic regression on coarser views {told(by_model[LINEAR], 'accuracy')}, balanced "
            f"{told(by_model[LINEAR], 'balanced_accuracy')}; the network's lead "
            f"{told(lead, 'accuracy')}, balanced {told(lead, 'balanced_accuracy')}. {_of_one(left_out)}{stopped} {why}"
        ),
        numbers={
            f"{metric.replace('_', ' ')}{by}, {split}": found[name][metric]
            for split, found in (("cross-validated", by_model), ("test", on_test))
            for name, by in ((MODEL, ""), (LINEAR, " of the linear model"))
            for metric in METRICS[:2]
        },
        tables={
            f"Cross-validated {told_repeats(repeats)}, {folds} folds: means, 5th and 95th percentile": (
                _table(by_model)
            ),
            "The network less the linear model, repeat by repeat": _table({f"{MODEL} - {LINEAR}": lead}),
            f"The publisher's {len(truth)} test rows": _table(on_test),
            "By class, test rows": by_class(truth, answers[MODEL], answers[LINEAR]),
            "By class, cross-validation, all repeats": by_class(
                crossed["label"].to_numpy(str), crossed[MODEL].to_numpy(str), crossed[LINEAR].to_numpy(str)
            ),
        },
        figures={
            "Training of the stored network, by epoch": _curves(card["history"]),
            "Confusion on the test rows": _confusion(truth, answers[MODEL]),
            "Confusion by cross-validation, all repeats": _confusion(
                crossed["label"].to_numpy(str), crossed[MODEL].to_numpy(str)
            ),
        },
        evaluations=tuple(_evaluations({CROSSED: by_model, ON_TEST: on_test})),
    )


def called(probabilities: NDArray[np.float32]) -> NDArray[np.str_]:
    """Names of the likeliest classes."""
    return np.asarray(CLASSES)[probabilities.argmax(axis=1)]


def linear(
    pixels: NDArray[np.float32], labels: NDArray[np.str_], unseen: NDArray[np.float32], c: float = LINEAR_C
) -> NDArray[np.str_]:
    """Classes of unseen rows by multinomial logistic regression, each class weighing the same as a whole."""
    from sklearn.linear_model import LogisticRegression

    if len(set(labels)) == 1:
        return majority(labels, len(unseen))
    model = LogisticRegression(C=c, class_weight="balanced", max_iter=500).fit(pixels, labels)
    return np.asarray(model.predict(unseen), str)


def majority(labels: NDArray[np.str_], n: int) -> NDArray[np.str_]:
    """The most frequent class, n times."""
    names, counts = np.unique(labels, return_counts=True)
    return np.repeat(names[counts.argmax()], n)


def figures(truth: NDArray[np.str_], answers: NDArray[np.str_]) -> dict[str, float]:
    """METRICS of answers; means over classes are over those that are there."""
    from sklearn.metrics import f1_score, recall_score

    present = sorted(set(truth))
    of_classes = {"labels": present, "average": "macro", "zero_division": 0}
    return {
        "accuracy": float(np.mean(truth == answers)),
        "balanced_accuracy": float(recall_score(truth, answers, **of_classes)),
        "macro_f1": float(f1_score(truth, answers, **of_classes)),
    }


def dealt(labels: NDArray[np.str_], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of every row, each class spread over the folds as evenly as it goes.

    A class with a single row is NOT_SCORED: it is learnt in every fold, for what it says of the others.
    """
    rng, first = np.random.default_rng(seed), 0
    fold = np.full(len(labels), NOT_SCORED)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        if len(rows) > 1:
            # Each class goes on where the one before has ended, or the first folds would be the largest.
            fold[rows] = (first + np.arange(len(rows))) % folds
            first += len(rows)
    return fold


def cross_validated(
    rows: Glitches, pixels: NDArray[np.float32], settings: CnnSettings, repeats: int, folds: int
) -> pd.DataFrame:
    """Answers by models that have not seen the row: columns repeat, id, label, and one of each model.

    Raises:
        ValueError: no class has two glitches.
    """
    if (dealt(rows.labels, folds, 0) == NOT_SCORED).all():
        raise ValueError("no class has two glitches: cross-validation would score what nothing was learnt of")
    found = []
    for number in tqdm(range(repeats * folds), "cross-validation", unit="fold", disable=None):
        repeat = number // folds
        fold = dealt(rows.labels, folds, settings.seed + repeat)
        seen, scored = fold != number % folds, fold == number % folds
        if not scored.any():
            continue
        nothing = rows.where(np.zeros(0, int))
        fitted = cnn.fit(rows.where(seen), nothing, replace(settings, seed=settings.seed + number))
        found.append(
            pd.DataFrame(
                {
                    "repeat": repeat,
                    "id": rows.ids[scored],
                    "label": rows.labels[scored],
                    MODEL: called(cnn.probabilities(fitted.model, rows.views[scored])),
                    LINEAR: linear(pixels[seen], rows.labels[seen], pixels[scored]),
                    MAJORITY: majority(rows.labels[seen], int(scored.sum())),
                }
            )
        )
    return pd.concat(found, ignore_index=True)


def over_repeats(crossed: pd.DataFrame, minus: str | None = None) -> dict[str, dict[str, float]]:
    """By model: means over repeats of METRICS, with 5th and 95th percentile; less those of the model `minus`."""

    def by_repeat(model: str) -> pd.DataFrame:
        return pd.DataFrame(
            figures(rows["label"].to_numpy(str), rows[model].to_numpy(str)) for _, rows in crossed.groupby("repeat")
        )

    found: dict[str, dict[str, float]] = {}
    for model in (MODEL, LINEAR, MAJORITY):
        measured = by_repeat(model) - by_repeat(minus) if minus else by_repeat(model)
        found[model] = {}
        for metric in METRICS:
            mean, low, high = interval(measured[metric].tolist())
            found[model] |= {metric: mean, f"{metric}_p5": low, f"{metric}_p95": high}
    return found


def by_class(truth: NDArray[np.str_], ours: NDArray[np.str_], linears: NDArray[np.str_]) -> pd.DataFrame:
    """Precision, recall and F1 of each class that is there, the linear model's beside them, and its rows."""
    from sklearn.metrics import precision_recall_fscore_support

    present = sorted(set(truth))
    columns: dict[str, Any] = {"class": present}
    for by, answers in (("", ours), (" linear", linears)):
        *measures, support = precision_recall_fscore_support(truth, answers, labels=present, zero_division=0)
        columns |= {f"{name}{by}": value for name, value in zip(("precision", "recall", "F1"), measures, strict=True)}
    return pd.DataFrame({**columns, "support": support})


def _table(found: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    return pd.DataFrame([{"model": model, **measured} for model, measured in found.items()])


def _of_one(labels: Sequence[str]) -> str:
    if not labels:
        return ""
    return (
        f"Of {', '.join(labels)} there is a single glitch, which cannot be both learnt and scored: it is learnt in "
        "every fold and scored in none. "
    )


def _evaluations(splits: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Evaluation]:
    return [
        Evaluation(
            model,
            split,
            metric,
            found[model][metric],
            baseline,
            found[baseline][metric],
            low=found[model].get(f"{metric}_p5"),
            high=found[model].get(f"{metric}_p95"),
            interval=OVER_REPEATS,
        )
        for split, found in splits.items()
        for model, baselines in BASELINES.items()
        for baseline in baselines
        for metric in METRICS
    ]


def _curves(history: Mapping[str, Sequence[float]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(FIGURE_IN, 2.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for key, label in ((name, "fitted on, moved in time"), (f"val_{name}", "stopped on")):
            if key in history:
                axes.plot(np.arange(len(history[key])) + 1, history[key], label=label)
        axes.set(xlabel="epoch", ylabel=f"{name}, each class alike")
        axes.legend()
    return figure


def _confusion(truth: NDArray[np.str_], answers: NDArray[np.str_]) -> Any:
    from matplotlib.figure import Figure
    from sklearn.metrics import confusion_matrix

    present = sorted(set(truth) | set(answers))
    counts = confusion_matrix(truth, answers, labels=present)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    side = 2 + 0.27 * len(present)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.4)
    for row, column in np.argwhere(counts):
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7)
    axes.set(xticks=range(len(present)), yticks=range(len(present)), xlabel="called", ylabel="class")
    axes.set_xticklabels(present, rotation=90, fontsize=7)
    axes.set_yticklabels(present, fontsize=7)
    return figure
