"""How well networks that learnt ImageNet name the chosen classes: counted on Spark, beside the majority.

A chip is right if one of the network's answers is among the synsets of any class that the chip is said to show. Chips
of which no class has a synset are not scored. Beside it stands the majority: the answer is always the class that most
of the same chips show.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bigdata_assets.big_cats.logic.chip_gallery import credit_line, credited, with_thumbnails
from bigdata_assets.big_cats.logic.classes import NEAR_MISSES, CatClass
from bigdata_assets.big_cats.logic.figures import cut, matrix, sheet
from bigdata_assets.big_cats.tables import TOP
from bigdata_assets.reports import FIGURE_IN, Evaluation, Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pyspark.sql import Column, DataFrame

MAJORITY = "majority"
OTHER = "other"
BINS = 20
"""Of the probability of the first answer."""
WORST = 9
"""Wrong chips that are shown of each network."""
NO_WEIGHTS = "-none"
"""How the version of a model without weights ends."""
ALL = "all chips"
SPLITS: Mapping[str, bool | None] = {ALL: None, "boxes": False, "whole pictures": True}
METRICS = ("top-1 accuracy", f"top-{TOP} accuracy")


def prediction_report(
    predictions: "DataFrame",
    chips: "DataFrame",
    sources: "DataFrame",
    classes: Sequence[CatClass],
) -> Report:
    """Counts and the surest wrong answers on Spark, and what is drawn of them.

    Args:
        predictions: rows of chip_predictions, of one network or of several.
        chips: rows of cat_chips; the bytes of the wrong ones that are shown are read.
        sources: rows of image_sources.
        classes: the chosen classes, in the order that they are shown in.
    """
    wrong = with_thumbnails(worst(predictions, classes), chips, sources)
    return report(counts(predictions, classes), wrong, classes, images_per_second(predictions))


def images_per_second(predictions: "DataFrame") -> dict[str, float]:
    """Of a worker of each network, decoding included."""
    from pyspark.sql import functions as F

    speeds = predictions.groupBy("network").agg((F.count("*") / F.sum("seconds")).alias("speed"))
    return {row["network"]: row["speed"] for row in speeds.toArrow().to_pylist() if row["speed"] is not None}


def counts(predictions: "DataFrame", classes: Sequence[CatClass]) -> pd.DataFrame:
    """Answers that are alike, counted: as many rows as there are kinds of them, whatever the number of chips.

    Returns:
        Columns network, model_version, labels (MIDs, with blanks between), is_whole_image, right and right_in_top
        (whether the first answer, or any, is a synset of a label), called (MID of the class whose synset the first
        answer is, one of NEAR_MISSES, or OTHER), bin (of the first answer's probability, 0 to BINS - 1), chips.
    """
    from pyspark.sql import functions as F

    probability = F.col("top_probabilities")[0]
    return (
        predictions.select(
            *("network", "model_version", "is_whole_image"),
            F.array_join("labels", " ").alias("labels"),
            _right(classes, 1).alias("right"),
            _right(classes, TOP).alias("right_in_top"),
            _called(classes).alias("called"),
            F.least(F.floor(probability * BINS), F.lit(BINS - 1)).alias("bin"),
        )
        .groupBy("network", "model_version", "labels", "is_whole_image", "right", "right_in_top", "called", "bin")
        .agg(F.count("*").alias("chips"))
        .toPandas()
    )


def worst(predictions: "DataFrame", classes: Sequence[CatClass]) -> pd.DataFrame:
    """Of each network the WORST wrong answers of which it is surest; no more than these are collected.

    Returns:
        Columns network, number (1 for the surest), subset, image_id, chip_id, labels, name, probability.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    probability = F.col("top_probabilities")[0]
    known = [one.label for one in classes if one.synsets]
    wrong = predictions.where(F.arrays_overlap("labels", _strings(known)) & ~_right(classes, 1))
    number = F.row_number().over(Window.partitionBy("network").orderBy(F.desc(probability), "chip_id"))
    return (
        wrong.withColumn("number", number)
        .where(F.col("number") <= WORST)
        .select(
            *("network", "number", "subset", "image_id", "chip_id", "labels"),
            F.col("top_names")[0].alias("name"),
            probability.alias("probability"),
        )
        .toPandas()
    )


def _strings(values: Sequence[str]) -> "Column":
    from pyspark.sql import functions as F

    return F.array(*map(F.lit, values)).cast("array<string>")


def _right(classes: Sequence[CatClass], top: int) -> "Column":
    """Whether one of the first answers is a synset of one of the chip's labels."""
    from pyspark.sql import functions as F

    answers = F.slice("top_indices", 1, top)
    of_class = [
        F.array_contains("labels", one.label) & F.arrays_overlap(answers, F.array(*map(F.lit, one.synsets)))
        for one in classes
        if one.synsets
    ]
    return reduce(or_, of_class, F.lit(False))


def _called(classes: Sequence[CatClass]) -> "Column":
    from pyspark.sql import functions as F

    first = F.col("top_indices")[0]
    names = [(one.synsets, one.label) for one in classes if one.synsets]
    names += [((index,), name) for index, name in NEAR_MISSES.items()]
    return F.coalesce(*(F.when(first.isin(*synsets), F.lit(name)) for synsets, name in names), F.lit(OTHER))


def report(
    counted: pd.DataFrame,
    wrong: pd.DataFrame,
    classes: Sequence[CatClass],
    images_per_second: Mapping[str, float],
) -> Report:
    """What is drawn of counts and of wrong answers.

    Args:
        counted: what `counts` returns.
        wrong: what `worst` returns, with thumbnails and credits.
        classes: the chosen classes, in the order that they are shown in.
        images_per_second: by network, where it was measured.
    """
    known = [one for one in classes if one.synsets]
    flags = {name: counted[name].astype(bool) for name in ("right", "right_in_top", "is_whole_image")}
    rows = counted.assign(labels=counted["labels"].str.split(), **flags)
    scored = rows[[any(one.label in labels for one in known) for labels in rows["labels"]]]
    by_network = {str(network): its for network, its in scored.groupby("network")}
    measured = {network: _by_split(its, known) for network, its in by_network.items()}
    best_first = sorted(measured, key=lambda network: -measured[network][ALL][METRICS[0]])
    return Report(
        title="What networks call the chips",
        summary=" ".join(_sentences(rows, measured, best_first, classes)),
        numbers={f"{name}, {metric}": measured[name][ALL][metric] for name in best_first for metric in METRICS}
        | {f"{MAJORITY}, same chips as {name}": measured[name][ALL][MAJORITY] for name in best_first},
        tables={
            "Share of the chips that are right, and its 95 % interval": pd.DataFrame(
                {"network": network, "of": split} | found
                for network in best_first
                for split, found in measured[network].items()
            ),
            "Networks": pd.DataFrame(
                {
                    "network": network,
                    "model": ", ".join(sorted(by_network[network]["model_version"].unique())),
                    "images per second and worker": images_per_second.get(network),
                }
                for network in best_first
            ),
            "By class, all chips": pd.DataFrame(
                {"network": network, "class": one.name} | _scores(its)
                for network in best_first
                for one in known
                if len(its := _of(by_network[network], one.label))
            ),
            "Pictures that are shown": credited(wrong),
        },
        figures={
            **{f"{name}: what each class is called": _confusion(by_network[name], known) for name in best_first},
            **({"Probability of the first answer": _histogram(by_network, best_first)} if best_first else {}),
            **{
                f"{name}: surest of its wrong answers": _wrong_ones(its, classes)
                for name in best_first
                if len(its := wrong[wrong["network"] == name])
            },
        },
        evaluations=tuple(
            Evaluation(
                network,
                split,
                metric,
                found[metric],
                MAJORITY,
                found[MAJORITY],
                low=found[f"{_short(metric)}, from"],
                high=found[f"{_short(metric)}, to"],
                interval="95 %, of a share",
            )
            for network in best_first
            for split, found in measured[network].items()
            for metric in METRICS
        ),
        untold="not measured",
    )


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson's formula: also for few chips, and for none or all right.

    Chips of one picture are taken to be independent, so that it is rather too narrow.
    """
    from scipy.stats import binomtest

    found = binomtest(int(right), int(n)).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def _scores(rows: pd.DataFrame) -> dict[str, float]:
    n = int(rows["chips"].sum())
    found: dict[str, float] = {"chips": n}
    for metric, column in zip(METRICS, ("right", "right_in_top"), strict=True):
        right = int(rows.loc[rows[column], "chips"].sum())
        low, high = wilson(right, n)
        found |= {metric: right / n, f"{_short(metric)}, from": low, f"{_short(metric)}, to": high}
    return found


def _short(metric: str) -> str:
    return metric.removesuffix(" accuracy")


def _by_split(rows: pd.DataFrame, known: Sequence[CatClass]) -> dict[str, dict[str, float]]:
    found = {}
    for split, is_whole in SPLITS.items():
        its = rows if is_whole is None else rows[rows["is_whole_image"] == is_whole]
        if len(its):
            most = max(_of(its, one.label)["chips"].sum() for one in known)
            found[split] = _scores(its) | {MAJORITY: float(most / its["chips"].sum())}
    return found


def _of(rows: pd.DataFrame, label: str) -> pd.DataFrame:
    return rows[[label in labels for labels in rows["labels"]]]


def confusion(rows: pd.DataFrame, known: Sequence[CatClass]) -> pd.DataFrame:
    """Chips by class and by what they were called: the classes, NEAR_MISSES that are none of them, and OTHER.

    Of a chip of several classes a right answer counts for the class that it names, a wrong one for each of them.
    """
    taken = {index for one in known for index in one.synsets}
    names = {one.label: one.name for one in known}
    columns = [*names, *(name for index, name in NEAR_MISSES.items() if index not in taken), OTHER]
    table = pd.DataFrame(0, index=list(names), columns=columns)
    for row in rows.to_dict("records"):
        labels = [label for label in names if label in row["labels"]]
        if row["right"]:
            # Two classes may have a synset in common: the answer is that of the chip's own.
            label = row["called"] if row["called"] in labels else labels[0]
            table.loc[label, label] += row["chips"]
        else:
            table.loc[labels, row["called"]] += row["chips"]
    return table.rename(index=names, columns=names)


def _confusion(rows: pd.DataFrame, known: Sequence[CatClass]) -> "Figure":
    return matrix(confusion(rows, known), "called", "chips of", rule_before=len(known))


def _histogram(by_network: Mapping[str, pd.DataFrame], networks: Sequence[str]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(FIGURE_IN, 0.6 + 1.2 * len(networks)), layout="constrained")
    places = figure.subplots(len(networks), squeeze=False, sharex=True).ravel()
    for place, network in zip(places, networks, strict=True):
        rows, below = by_network[network], np.zeros(BINS)
        for name, its in (("right", rows[rows["right"]]), ("wrong", rows[~rows["right"]])):
            chips = its.groupby("bin")["chips"].sum().reindex(range(BINS), fill_value=0).to_numpy()
            place.bar((np.arange(BINS) + 0.5) / BINS, chips, 0.9 / BINS, below, label=name)
            below += chips
        place.set_title(network, fontsize=9, parse_math=False)
        place.set(ylabel="chips", xlim=(0, 1))
    places[0].legend()
    places[-1].set_xlabel("probability of the first answer")
    return figure


def _wrong_ones(rows: pd.DataFrame, classes: Sequence[CatClass]) -> "Figure":
    names = {one.label: one.name for one in classes}
    rows = rows.sort_values("number")
    texts = []
    for _, row in rows.iterrows():
        truth = " and ".join(names.get(label, label) for label in row["labels"])
        called = f"{row['probability']:.2f} {row['name'].replace('_', ' ')}"
        texts.append(f"{cut(truth)}\n{cut(called)}\n{row['image_id']}\n{credit_line(row)}")
    return sheet(rows["thumbnail"].tolist(), texts)


def _sentences(
    rows: pd.DataFrame,
    measured: Mapping[str, Mapping[str, Mapping[str, float]]],
    networks: Sequence[str],
    classes: Sequence[CatClass],
) -> list[str]:
    told = [
        f"{name}: {found[METRICS[0]]:.3f} ({found['top-1, from']:.3f} to {found['top-1, to']:.3f}) of "
        f"{found['chips']:,} chips right at first, {found[METRICS[1]]:.3f} among {TOP}; the majority "
        f"{found[MAJORITY]:.3f}."
        for name in networks
        for found in [measured[name][ALL]]
    ]
    versions = rows.groupby("network")["model_version"].first()
    if blind := [name for name, version in versions.items() if version.endswith(NO_WEIGHTS)]:
        told.append(f"Figures of {', '.join(map(str, blind))} mean nothing: they have no weights.")
    if unknown := [one.name for one in classes if not one.synsets]:
        told.append(
            f"Not scored, for nothing of ImageNet is said to be the same: {', '.join(unknown)} (BIG_CATS_CLASSES can "
            "say it, such as Caracal=287)."
        )
    if not networks:
        told.append("No chip of a class that ImageNet has too has a prediction.")
    return told
