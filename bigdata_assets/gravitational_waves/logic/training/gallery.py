"""What the training set looks like: a picture per class and view, counts per class and split."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bigdata_assets.gravitational_waves.logic.strain.qscans import BACKGROUND
from bigdata_assets.gravitational_waves.logic.training.gravity_spy import CLASSES, HEIGHT, SAMPLE_TYPES, VIEWS_S, WIDTH
from bigdata_assets.reports import FIGURE_IN, Report

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

CLASSES_A_FIGURE = 11


def gallery(spectrograms: "DataFrame") -> Report:
    """Counts on Spark, and of each class the glitch with most views, the first by name."""
    from pyspark.sql import functions as F

    glitches = spectrograms.groupBy("label", "sample_type", "id").agg(F.count("*").alias("views"))
    counts = glitches.groupBy("label", "sample_type").agg(F.count("*").alias("glitches"), F.sum("views").alias("views"))
    # The highest number of views, then the lowest name.
    chosen = glitches.groupBy("label").agg(F.min_by("id", F.struct(-F.col("views"), F.col("id"))).alias("id"))
    images = spectrograms.join(chosen, ["label", "id"]).select("label", "id", "view_s", "pixels").toPandas()
    return report(counts.toPandas(), images)


def report(counts: pd.DataFrame, images: pd.DataFrame) -> Report:
    """Args: counts per label and sample_type (glitches, views); images of one glitch per label."""
    table = counts.pivot_table(index="label", columns="sample_type", values="glitches", aggfunc="sum", fill_value=0)
    table = table.reindex(index=CLASSES, columns=SAMPLE_TYPES, fill_value=0).astype(int)
    glitches, views = int(counts["glitches"].sum()), int(counts["views"].sum())
    present = [label for label in CLASSES if table.loc[label].sum()]
    figures = {
        f"{part[0]} to {part[-1]}: one glitch a row, views of 0.5, 1, 2 and 4 s": _figure(part, images)
        for part in (present[first : first + CLASSES_A_FIGURE] for first in range(0, len(present), CLASSES_A_FIGURE))
    }
    return Report(
        title="Gravity Spy's training set",
        summary=f"{glitches:,} glitches of {len(present)} classes in {views:,} spectrograms.",
        numbers={
            "glitches": glitches,
            "spectrograms": views,
            "classes": len(present),
            "chirps": int(table.loc["Chirp"].sum()),
        },
        tables={"Glitches by class and split": table.assign(all=table.sum(axis=1)).reset_index()},
        figures=figures,
    )


def _figure(labels: list[str], images: pd.DataFrame) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(FIGURE_IN, 1.1 * len(labels)), layout="constrained")
    axes = figure.subplots(len(labels), len(VIEWS_S), squeeze=False)
    for row, label in zip(axes, labels, strict=True):
        of_label = images[images["label"] == label].set_index("view_s")["pixels"]
        for place, view_s in zip(row, VIEWS_S, strict=True):
            pixels = of_label.get(view_s)
            shown = np.full((HEIGHT, WIDTH), BACKGROUND) if pixels is None else np.reshape(pixels, (HEIGHT, WIDTH))
            place.imshow(shown, cmap="gray", vmin=0.08, vmax=0.87, aspect="auto")
            place.set(xticks=[], yticks=[])
            if pixels is None:
                place.text(0.5, 0.5, "no such view", color="white", ha="center", transform=place.transAxes)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    return figure
