"""What an evaluation returns: numbers, tables, figures. Rendered here, stored by the `report` IO manager."""

import base64
import html
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1c1f26;background:#fff}
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}
th,td{border-bottom:1px solid #d9dce3;padding:.25rem .7rem;text-align:right}
th:first-child,td:first-child{text-align:left} th{background:#f3f4f7}
figure{margin:1.5rem 0} img{max-width:100%} figcaption{color:#5a6070} .note{color:#5a6070}
"""


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


@dataclass(frozen=True)
class Report:
    """A page of figures about one asset.

    Attributes:
        title: heading of the page.
        summary: one or two sentences that say what to take from it.
        numbers: the few numbers that the UI plots over materialisations.
        tables: captioned tables.
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

    def pngs(self) -> dict[str, bytes]:
        """Each figure as a PNG, by caption."""
        return {caption: _png(figure) for caption, figure in self.figures.items()}

    def to_html(self, pngs: Mapping[str, bytes]) -> str:
        """A self-contained page: styles and pictures are inside it, there is no script, and all text is escaped."""
        parts = [f"<h1>{html.escape(self.title)}</h1><p>{html.escape(self.summary)}</p>"]
        if self.numbers:
            numbers = pd.DataFrame({"measure": list(self.numbers), "value": list(self.numbers.values())})
            parts.append(_html_table("Numbers", numbers))
        for caption, png in pngs.items():
            data = base64.b64encode(png).decode("ascii")
            text = html.escape(caption)
            parts.append(
                f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
            )
        parts += [_html_table(caption, table) for caption, table in self.tables.items()]
        provenance = ", ".join(f"{name} {value}" for name, value in self.provenance.items())
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


def _png(figure: "Figure") -> bytes:
    # The object interface, without pyplot: no display is asked for and nothing stays in a global list of figures.
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, bbox_inches="tight")
    return buffer.getvalue()


def _html_table(caption: str, table: pd.DataFrame) -> str:
    body = table.to_html(index=False, border=0, escape=True, float_format=lambda value: f"{value:.4g}", na_rep="-")
    return f"<h2>{html.escape(caption)}</h2>{body}"
