"""Traces as text for a terminal, as JSON and as a page that has everything in it."""

import base64
import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import click

from bigdata_assets.reports import STYLE
from bigdata_assets.tracing.forward import Affected
from bigdata_assets.tracing.history import Made, ModelTold
from bigdata_assets.tracing.lineage import Raw
from bigdata_assets.tracing.walking import Found, Step, Trace

MOST_CHARACTERS = 2_000
"""Of a raw record that is shown."""
MOST_HEX_BYTES = 64
MOST_CELL, MOST_NUMBERS = 80, 12
MOST_FIGURES = 24
MOST_PARTITIONS = 10
WIDTH = 22
PAGE_STYLE = """
section{border-left:3px solid #d9dce3;margin:1rem 0;padding:0 0 0 1rem} pre{background:#f3f4f7;padding:.6rem;
white-space:pre-wrap;overflow-wrap:anywhere} dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;
margin:.5rem 0}
dt{color:#5a6070} dd{margin:0;overflow-wrap:anywhere} figure{display:inline-block;margin:.5rem 1rem .5rem 0}
img{image-rendering:auto;max-height:24rem} h2{font-size:1.1rem} h3{font-size:1rem;margin:.6rem 0 0} .gone{color:#a3260f}
.wide{overflow-x:auto} .wide td{white-space:nowrap}
"""


def readable(text: str) -> str:
    """A text without what a terminal would obey: control characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown_bytes(data: bytes, most: int = MOST_CHARACTERS) -> str:
    """Bytes as text where they are text, else in hexadecimal; of many the first."""
    try:
        text = data[: 4 * most].decode()
    except UnicodeDecodeError as error:
        text = data[: error.start].decode() if error.start > 4 * most - 4 else ""
    if (data and not text) or "\0" in text:
        more = f"… ({len(data):,} bytes)" if len(data) > MOST_HEX_BYTES else ""
        return data[:MOST_HEX_BYTES].hex(" ") + more
    more = f"… ({len(data):,} bytes)" if len(text) > most or len(data) > 4 * most else ""
    return readable(text[:most]) + more


def cell(value: Any, most: int = MOST_CELL) -> str:
    """A column's value in a line."""
    if value is None:
        return "-"
    if isinstance(value, bytes):
        return shown_bytes(value, MOST_CELL) if len(value) <= MOST_HEX_BYTES else f"{len(value):,} bytes"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="milliseconds")
    if isinstance(value, list | tuple):
        if len(value) > MOST_NUMBERS:
            return f"{len(value):,} values"
        return "[" + ", ".join(cell(one, most) for one in value) + "]"
    text = f"{value:.7g}" if isinstance(value, float) and abs(value) < 1e8 else str(value)  # a GPS time is kept whole
    return readable(text if len(text) <= most else text[: most - 1] + "…")


def text(traces: Sequence[Trace]) -> Iterator[str]:
    """Lines for a terminal."""
    for number, trace in enumerate(traces):
        if number:
            yield ""
        for depth, step in enumerate(trace.steps):
            arrow = "" if depth == 0 else "<- "
            many = f"  ({_count(step)})" if len(step.rows) > 1 or step.more else ""
            yield click.style(f"{arrow}{step.table.path}", bold=True) + many
            yield from _step_lines(step, depth == 0)


def _count(step: Step) -> str:
    return f"the first {len(step.rows)} rows of more" if step.more else f"{len(step.rows)} rows"


def _step_lines(step: Step, is_first: bool) -> Iterator[str]:
    before: Raw | None = None
    for found in step.rows:
        if is_first or len(step.rows) == 1:
            yield from (_line(name, cell(value, 400)) for name, value in found.row.items())
        else:
            yield "  - " + "  ".join(f"{name}={cell(value, 40)}" for name, value in found.row.items())
        for model in found.models:
            yield from (_line(name, value) for name, value in model_told(model))
        if found.raw and found.raw != before:
            yield from _raw_lines(found.raw)
        before = found.raw
        if found.note:
            yield _line("note", click.style(readable(found.note), fg="yellow"))
    for made in dict.fromkeys(run_told(found.made) for found in step.rows if found.made):
        yield _line("made by", made)
    if step.rows and any(found.made is None for found in step.rows):
        yield _line("made by", click.style("no materialisation of it is known to Dagster", fg="yellow"))
    yield from (_line("note", click.style(readable(note), fg="yellow")) for note in step.notes)


def _line(name: str, value: str) -> str:
    return f"  {name:<{WIDTH}} {value}"


def _raw_lines(raw: Raw) -> Iterator[str]:
    places = ", ".join(f"{name} {cell(value, 400)}" for name, value in raw.place.items())
    if places:
        yield click.style(_line("raw", places), fg="cyan")
    if raw.values:
        yield _line("", ", ".join(f"{name} {cell(value)}" for name, value in raw.values.items()))
    if raw.data is not None:
        yield click.style(_line("", "| " + shown_bytes(raw.data)), fg="green")
    yield from (_line("", click.style(readable(note), fg="yellow")) for note in raw.notes)


def run_told(made: Made) -> str:
    """A materialisation in a line."""
    told = f"run {made.run_id}, {made.at:%Y-%m-%d %H:%M:%S} UTC"
    told += f", partition {made.partition}" if made.partition else ""
    told += f", code version {made.code_version}, data version {made.data_version}"
    its = ", ".join(f"{asset} {version[:24]}" for asset, version in made.input_versions.items())
    return readable(told + (f"; of {its}" if its else ""))


def model_told(model: ModelTold) -> Iterator[tuple[str, str]]:
    """What there is to say of a model, by name."""
    card = model.card or {}
    version = card.get("version") or card.get("snapshot") or ""
    yield "model", readable(f"{model.name} {version}".strip())
    if model.note:
        yield "", readable(model.note)
    if not card:
        return
    yield (
        "  fitted by",
        readable(f"run {card.get('run_id')}, {card.get('created_at')}, code version {card.get('code_version')}"),
    )
    learnt = card.get("inputs") or (model.made.input_versions if model.made else {})
    if learnt:
        yield "  learnt from", readable(", ".join(f"{name} version {number}" for name, number in learnt.items()))
    figures = card.get("metrics") or {name: card[name] for name in card if name.endswith("_learnt")}
    if figures:
        yield "  figures", _pairs(figures)
    if card.get("parameters"):
        yield "  parameters", _pairs(card["parameters"])


def _pairs(values: Mapping[str, Any]) -> str:
    some = list(values.items())[:MOST_FIGURES]
    return ", ".join(f"{readable(name)} {cell(value)}" for name, value in some) + (
        ", …" if len(values) > len(some) else ""
    )


def _rows(number: int) -> str:
    return f"{number:,} row" + ("" if number == 1 else "s")


def affected_text(affected: Iterable[Affected], commands: Sequence[str], whole: Sequence[str]) -> Iterator[str]:
    """Lines of what was made of records, and what makes it again."""
    for one in affected:
        yield click.style(one.table.path, bold=True) + f"  {_rows(one.rows)}"
        for key, count in one.partitions.most_common(MOST_PARTITIONS):
            made = one.made.get(key)
            run = f"run {made.run_id}, {made.at:%Y-%m-%d %H:%M:%S} UTC" if made else "no materialisation is known"
            yield _line(readable(key or "(not partitioned)"), f"{_rows(count)}  {run}")
        if len(one.partitions) > MOST_PARTITIONS:
            yield _line("", f"and {len(one.partitions) - MOST_PARTITIONS:,} more partitions")
        yield from (_line("note", click.style(readable(note), fg="yellow")) for note in one.notes)
    if commands:
        yield ""
        yield click.style("to make them again:", bold=True)
        yield from (f"  {command}" for command in commands)
    if whole:
        yield ""
        yield f"made of whole tables, perhaps of these rows too: {', '.join(whole)}"


def plain(value: Any) -> Any:
    """A value as JSON has it: bytes and long lists of numbers as base64, times as ISO 8601."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode("ascii"), "length": len(value)}
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        if len(value) > MOST_CELL and all(isinstance(one, float) for one in value):
            return _packed(value)
        return [plain(one) for one in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _packed(values: Sequence[float]) -> dict[str, Any]:
    import numpy as np

    return {
        "base64": base64.b64encode(np.array(values, "<f8").tobytes()).decode("ascii"),
        "dtype": "<f8",
        "length": len(values),
    }


def to_json(traces: Sequence[Trace], more: bool) -> str:
    """All of some traces; keys stay as they are."""
    return json.dumps({"traces": [_trace_json(trace) for trace in traces], "more": more}, indent=2, ensure_ascii=False)


def _trace_json(trace: Trace) -> dict[str, Any]:
    return {
        "steps": [
            {
                "table": step.table.path,
                "rows": [_found_json(found) for found in step.rows],
                "more": step.more,
                "notes": step.notes,
            }
            for step in trace.steps
        ]
    }


def _found_json(found: Found) -> dict[str, Any]:
    raw = found.raw
    return {
        "row": plain(found.row),
        "materialization": _made_json(found.made),
        "models": [
            {"name": m.name, "card": plain(m.card), "materialization": _made_json(m.made), "note": m.note}
            for m in found.models
        ],
        "raw": raw
        and {
            "place": plain(raw.place),
            "data": plain(raw.data),
            "values": plain(raw.values),
            "notes": list(raw.notes),
        },
        "note": found.note,
    }


def _made_json(made: Made | None) -> dict[str, Any] | None:
    if made is None:
        return None
    names = ("asset", "partition", "run_id", "at", "code_version", "data_version", "input_versions")
    return {name: plain(getattr(made, name)) for name in names}


def affected_json(affected: Iterable[Affected], commands: Sequence[str], whole: Sequence[str]) -> str:
    """The same of what was made of records."""
    tables = [
        {
            "table": one.table.path,
            "rows": one.rows,
            "partitions": [
                {"partition": key, "rows": count, "materialization": _made_json(one.made.get(key))}
                for key, count in one.partitions.most_common()
            ],
            "notes": one.notes,
        }
        for one in affected
    ]
    return json.dumps(
        {"tables": tables, "commands": list(commands), "made_of_whole_tables": list(whole)},
        indent=2,
        ensure_ascii=False,
    )


def page(title: str, body: str) -> str:
    """A self-contained page; nothing is loaded from anywhere, and nothing in it runs."""
    title = readable(title)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
        f'content="{policy}"><title>{html.escape(title)}</title><style>{STYLE}{PAGE_STYLE}</style>'
        f"<body><h1>{html.escape(title)}</h1>{body}</body></html>"
    )


def to_html(title: str, traces: Sequence[Trace], more: bool) -> str:
    """A page of traces, with their pictures."""
    parts = [f"<section>{''.join(map(_step_html, trace.steps))}</section>" for trace in traces]
    note = '<p class="note">There are more rows: see --limit.</p>' if more else ""
    told = f'<p class="note">Looked up {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.</p>'
    return page(title, "".join(parts) + note + told)


def _step_html(step: Step) -> str:
    parts = [f"<h2>{html.escape(step.table.path)}</h2><p class='note'>{html.escape(step.table.description)}</p>"]
    if len(step.rows) > 1 or step.more:
        parts.append(f"<p>{_count(step)}</p>")
    if len(step.rows) > 1:
        parts.append(_table_html(step.rows))
    else:
        parts += [_list_html((name, cell(value, 400)) for name, value in found.row.items()) for found in step.rows]
    pictures = [(number, found.picture) for number, found in enumerate(step.rows, 1) if found.picture]
    parts += [_picture_html(picture, f"row {number}, as stored") for number, picture in pictures]
    for before, found in zip([None, *step.rows], step.rows, strict=False):
        parts.append(_found_html(found, None if before is None else before.raw))
    runs = dict.fromkeys(run_told(found.made) for found in step.rows if found.made)
    parts += [f"<p class='note'>made by {html.escape(run)}</p>" for run in runs]
    parts += [_note_html(note) for note in step.notes]
    return "".join(parts)


def _table_html(rows: Sequence[Found]) -> str:
    """Rows below each other."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0].row)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell(value))}</td>' for value in found.row.values())}</tr>" for found in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _found_html(found: Found, before: Raw | None) -> str:
    parts = [_list_html(model_told(model)) for model in found.models]
    if found.note:
        parts.append(_note_html(found.note))
    if (raw := found.raw) and raw != before:
        parts.append("<h3>raw source</h3>")
        parts.append(_list_html((name, cell(value, 400)) for name, value in {**raw.place, **raw.values}.items()))
        if raw.picture:
            parts.append(_picture_html(raw.picture, "from the source"))
        if raw.data is not None:
            parts.append(f"<pre>{html.escape(shown_bytes(raw.data))}</pre>")
        parts += [_note_html(note) for note in raw.notes]
    return "".join(parts)


def _note_html(note: str) -> str:
    kind = "gone" if note.startswith(("no longer", "cannot", "there is no")) else "note"
    return f'<p class="{kind}">{html.escape(note)}</p>'


def _list_html(pairs: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{html.escape(n)}</dt><dd>{html.escape(v)}</dd>" for n, v in pairs) + "</dl>"


def _picture_html(data: bytes, caption: str) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return (
        f'<figure><img alt="{html.escape(caption)}" src="data:image/{kind};base64,'
        f'{base64.b64encode(data).decode("ascii")}"><figcaption>{html.escape(caption)}</figcaption></figure>'
    )


def affected_html(title: str, affected: Sequence[Affected], commands: Sequence[str], whole: Sequence[str]) -> str:
    """A page of what was made of records."""
    lines = "\n".join(click.unstyle(line) for line in affected_text(affected, commands, whole))
    return page(title, f"<pre>{html.escape(lines)}</pre>")
