"""What an evaluation returns: numbers, tables, figures. Rendered here, stored by the `report` IO manager."""

import base64
import html
import io
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1c1f26;background:#fff}
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}
th,td{border-bottom:1px solid #d9dce3;padding:.25rem .7rem;text-align:right}
th:first-child,td:first-child{text-align:left} th{background:#f3f4f7}
.wide{overflow-x:auto} figure{margin:1.5rem 0} img{max-width:100%} figcaption{color:#5a6070} .note{color:#5a6070}
"""

FIGURE_IN = 5.6
"""Width of a figure in inches: its letters can then be read in the UI, which has little room for a picture."""
PAGE_DPI = 130
MISSING = "-"
SMALL = 1e-4
GPS_S = 1e8
"""From here on a number that is not whole by type is a GPS time: those since 1983 are larger."""
YEAR = re.compile(r"(^|(?<!per)_)year$", re.IGNORECASE)
"""How a column of years is named."""
FIRST_YEAR, LAST_YEAR = 1900, 2100
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


Better: TypeAlias = Literal["more", "less", "near 0"]
"""Which figures are the better ones."""


@dataclass(frozen=True)
class Evaluation:
    """One measured number of one model, as `models/model_ledger` keeps it."""

    model: str
    split: str
    metric: str
    value: float
    baseline: str
    """What the value is to be compared with, such as `majority`."""
    baseline_value: float
    """The baseline's figure for the same metric on the same rows."""
    low: float | None = None
    """Where the value's interval begins, None or NaN where none was measured; `high` is its end."""
    high: float | None = None
    interval: str | None = None
    """What the interval is, such as `95 %, over registered domains`."""
    better: Better = "more"


@dataclass(frozen=True)
class Report:
    """A page of figures about one asset.

    Attributes:
        title: heading of the page.
        summary: one or two sentences that say what to take from it.
        numbers: the few numbers that the UI plots over materialisations.
        tables: captioned tables.
        untold: why a figure is missing where a table has none.
        figures: captioned Matplotlib figures; the first ones are seen in the UI without a click.
        evaluations: rows for the model ledger, each with its baseline.
        provenance: versions of data and code that the numbers belong to.
    """

    title: str
    summary: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, "Figure"] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    untold: str = "too few rows or repeats to tell"

    def pngs(self, dpi: float = PAGE_DPI, most_px: int | None = None) -> dict[str, bytes]:
        """Each figure as a PNG, by caption, with fewer dots an inch where it would be wider than `most_px`."""
        return {caption: _png(figure, dpi, most_px) for caption, figure in self.figures.items()}

    def to_html(self, pngs: Mapping[str, bytes]) -> str:
        """A self-contained page: styles and pictures are inside it, there is no script, and all text is escaped."""
        parts = [f"<h1>{html.escape(self.title)}</h1><p>{html.escape(self.summary)}</p>"]
        if self.numbers:
            # As objects: beside a float, pandas would make floats of whole numbers.
            rows = [(name, _year(name, value)) for name, value in self.numbers.items()]
            numbers = pd.DataFrame(rows, columns=["measure", "value"], dtype=object)
            parts.append(_html_table("Numbers", numbers, self.untold))
        for caption, png in pngs.items():
            data = base64.b64encode(png).decode("ascii")
            text = html.escape(caption)
            parts.append(
                f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
            )
        parts += [_html_table(caption, table, self.untold) for caption, table in self.tables.items()]
        provenance = ", ".join(f"{name} {_listed(value)}" for name, value in self.provenance.items())
        parts.append(f'<p class="note">{html.escape(provenance)}</p>')
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(self.title)}</title>'
            f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>"
        )

    def to_json(self) -> dict[str, Any]:
        """What a later reader needs without the pictures."""
        return {
            "title": self.title,
            "summary": self.summary,
            "numbers": dict(self.numbers),
            "evaluations": [asdict(evaluation) for evaluation in self.evaluations],
            "provenance": dict(self.provenance),
        }


def _png(figure: "Figure", dpi: float, most_px: int | None) -> bytes:
    # The object interface, without pyplot: no display is asked for and nothing stays in a global list of figures.
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight")
    width = int.from_bytes(buffer.getvalue()[16:20])  # where a PNG has it
    if most_px is None or width <= most_px:
        return buffer.getvalue()
    return _png(figure, dpi * most_px / width - 0.1, most_px)


def shown(value: Any) -> str:
    """A value as people read it: 23,180; 1191000016.6 (GPS); 0.8137; 1.2·10⁻²¹; - where there is none."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return MISSING
    if isinstance(value, Integral) and not isinstance(value, bool):
        return f"{value:,}"
    if not isinstance(value, Real) or isinstance(value, bool) or math.isinf(value):
        return str(value)
    number = float(value)
    if abs(number) >= GPS_S:
        return f"{number:.4f}".rstrip("0").rstrip(".")
    if abs(number) >= 1_000:
        return f"{number:,.1f}".removesuffix(".0")
    if 0 < abs(number) < SMALL:
        mantissa, exponent = f"{number:.3e}".split("e")
        return f"{float(mantissa):g}·10{str(int(exponent)).translate(RAISED)}"
    return f"{number:,.4g}"


def _year(name: Any, value: Any) -> Any:
    """A value; as text, which has no commas, where its column's name and its size make a year of it."""
    is_year = YEAR.search(str(name)) and isinstance(value, Real) and FIRST_YEAR <= float(value) <= LAST_YEAR
    return f"{value:g}" if is_year else value


def _listed(value: Any) -> str:
    """Inputs and their versions as words."""
    return ", ".join(f"{name} version {v}" for name, v in value.items()) if isinstance(value, Mapping) else str(value)


def _html_table(caption: str, table: pd.DataFrame, untold: str) -> str:
    """A column without a single value says the same in each row: one note in its place."""
    empty = [name for name in table if len(table) and table[name].isna().all()]
    told = table.drop(columns=empty)
    notes = [f"{', '.join(map(str, empty))}: {untold}."] if empty else []
    if told.isna().to_numpy().any():
        notes.append(f"{MISSING}: {untold}.")
    told = told.apply(lambda column: column.map(lambda value: shown(_year(column.name, value))))
    body = told.to_html(index=False, border=0, escape=True)
    text = "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)
    return f'<h2>{html.escape(caption)}</h2><div class="wide">{body}</div>{text}'
