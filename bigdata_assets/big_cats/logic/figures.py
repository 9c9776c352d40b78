"""What several reports of the branch draw alike."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from bigdata_assets.reports import FIGURE_IN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ROWS = 24
"""Of classes in a picture: more could not be read."""
MOST_LETTERS = 60
"""Of what is written side by side."""
COLUMNS = 3
"""Of a contact sheet."""
LETTERS = 26
"""That fit below one of its pictures."""
LINE_IN = 0.135
K, M = 10_000, 1_000_000


def matrix(counts: pd.DataFrame, x: str, y: str, rule_before: int | None = None) -> "Figure":
    """Counts in cells, each coloured by its share of the row.

    Args:
        counts: whole numbers; index and columns are what is written beside them. The first MOST_ROWS rows are drawn.
        x: what the columns are.
        y: what the rows are.
        rule_before: number of the column that a line sets apart from those before it.
    """
    from matplotlib.figure import Figure

    counts = counts.iloc[:MOST_ROWS]
    values = counts.to_numpy(int)
    shares = values / values.sum(axis=1, keepdims=True).clip(min=1)
    figure = Figure(figsize=(FIGURE_IN, 1.3 + 0.3 * len(counts)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
    for row, column in np.argwhere(values):
        text = short(int(values[row, column]))
        axes.text(column, row, text, ha="center", va="center", fontsize=8)
    axes.set(xticks=range(counts.shape[1]), yticks=range(len(counts)), xlabel=x, ylabel=y)
    names = [str(name).replace(" ", "\n") for name in counts.columns]
    upright = max((len(line) for name in names for line in name.split("\n")), default=0) * len(names) <= MOST_LETTERS
    axes.set_xticklabels(names, rotation=0 if upright else 90, fontsize=8, parse_math=False)
    axes.set_yticklabels([str(name) for name in counts.index], fontsize=8, parse_math=False)
    if rule_before is not None:
        axes.axvline(rule_before - 0.5, color="#5a6070", linewidth=1)
    return figure


def short(number: int) -> str:
    """In four letters or so: 9999, 12k, 3.4M."""
    if number < K:
        return str(number)
    return f"{number / 1_000:.0f}k" if number < M else f"{number / M:.1f}M"


def sheet(pictures: Sequence[bytes], texts: Sequence[str]) -> "Figure":
    """A contact sheet: pictures, three a row, each with a text of some short lines below it."""
    from matplotlib.figure import Figure

    rows, side_in = -(-len(pictures) // COLUMNS), FIGURE_IN / COLUMNS
    cell_in = side_in + LINE_IN * (max(text.count("\n") for text in texts) + 2)
    figure = Figure(figsize=(FIGURE_IN, rows * cell_in))
    # Placed by hand: Matplotlib's layouts give up where a text is too long.
    width, height = 0.95 / COLUMNS, 0.95 * side_in / (rows * cell_in)
    for number, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        row, column = divmod(number, COLUMNS)
        top = 1 - row / rows
        place = figure.add_axes((column / COLUMNS, top - height, width, height), anchor="S")
        place.axis("off")
        place.imshow(Image.open(io.BytesIO(picture)))
        middle, below = column / COLUMNS + width / 2, top - height - 0.3 * LINE_IN / (rows * cell_in)
        figure.text(middle, below, text, fontsize=8, ha="center", va="top", parse_math=False)
    return figure


def cut(text: str) -> str:
    """What of it fits on a line below a picture of a sheet."""
    text = " ".join(text.split())
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"
