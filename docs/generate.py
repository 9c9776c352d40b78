"""Write the generated parts of docs/ anew (`make docs`), or say which are not current (`docs/generate.py --check`).

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; what is around it is written by hand.
"""

import difflib
import importlib.metadata
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import dagster as dg
from click.core import Command

from bigdata_assets.cli import group
from bigdata_assets.definitions import BRANCHES, build
from bigdata_assets.models.assets import ledger_branch
from bigdata_assets.reports import shown
from bigdata_assets.settings import Settings
from bigdata_assets.tables import Table

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
SHAPES = {"table": "[{}]", "report": "([{}])", "model": "{{{{{}}}}}"}
"""Of nodes: a box, a rounded one, a hexagon."""
WIDTH = 110
NO_LICENCE = "says none"
MEAN, HALF = "mean", "half_of_95_interval"
"""What a file of benchmarks/ has for a figure of several repeats."""


def graph_of(branch: str, graph: Any) -> str:
    """The branch's assets as a Mermaid graph; what else there is in it is another branch's."""
    nodes = [graph.get(key) for key in sorted(graph.get_all_asset_keys()) if key.path[0] == branch]
    lines = ["```mermaid", "graph LR"]
    lines += [f"  {node.key.path[-1]}{SHAPES[_kind(node)].format(node.key.path[-1])}" for node in nodes]
    for node in nodes:
        lines += [f"  {_name(parent, branch)} --> {node.key.path[-1]}" for parent in sorted(node.parent_keys)]
        lines += [
            f"  {node.key.path[-1]} --> {_name(child, branch)}"
            for child in sorted(node.child_keys)
            if child.path[0] != branch and child.path[-1] != "model_page"
        ]
    return "\n".join([*lines, "```"])


def _name(key: dg.AssetKey, branch: str) -> str:
    return key.path[-1] if key.path[0] == branch else f"{key.path[-1]}[{key.to_user_string()}]"


def _kind(node: Any) -> str:
    if "deltalake" in node.kinds:
        return "table"
    return "report" if {"matplotlib", "html"} & set(node.kinds) or node.key.path[-1].endswith("report") else "model"


def assets_of(branch: str, graph: Any) -> str:
    """A table of the branch's assets: what each is, its partitions, what makes it."""
    lines = ["| asset | is | partitions | by |", "|---|---|---|---|"]
    for key in sorted(graph.get_all_asset_keys()):
        if key.path[0] == branch:
            node = graph.get(key)
            of = getattr(node.partitions_def, "name", None) or ("fixed" if node.partitions_def else "")
            kinds = ", ".join(sorted(set(node.kinds) - {"deltalake"}))
            lines.append(f"| `{key.path[-1]}` | {_cell(node.description)} | {of} | {kinds} |")
    return "\n".join(lines)


def columns_of(tables: list[Table]) -> str:
    """A table of columns for each table."""
    parts = []
    for table in sorted(tables, key=lambda one: one.name):
        parts.append(f"### `{table.name}`\n\n{table.description}\n\n| column | type | is |\n|---|---|---|")
        for column in table.columns:
            null = ", may be null" if column.nullable else ""
            check = f" `{_cell(column.check)}`" if column.check else ""
            parts[-1] += (
                f"\n| `{column.name}` | {column.type.simpleString()}{null} | {_cell(column.description)}{check} |"
            )
    return "\n\n".join(parts)


def commands_of(command: Command, name: str) -> Iterator[str]:
    """The help of a command and of those below it."""
    with click.Context(command, info_name=name, max_content_width=WIDTH, terminal_width=WIDTH) as context:
        yield f"```\n{command.get_help(context)}\n```"
        if isinstance(command, click.Group):
            for below in sorted(command.commands):
                yield from commands_of(command.commands[below], f"{name} {below}")


def measured(file: Path) -> str:
    """All figures of a file of benchmarks/."""
    return "\n".join(_rows(json.loads(file.read_text())))


def drills(file: str) -> str:
    """What each drill or soak was done with, and measured."""
    lines = ["| drill | date | with | measured |", "|---|---|---|---|"]
    for name, its in json.loads((ROOT / "benchmarks" / file).read_text()).items():
        told = [
            ", ".join(f"{what} {shown(value)}" for what, value in its[part].items()) for part in ("scale", "figures")
        ]
        lines.append(
            f"| {name.removeprefix('test_').replace('_', ' ')} | {its['date']} | {' | '.join(map(_cell, told))} |"
        )
    return "\n".join(lines)


def licences() -> str:
    """Packages of requirements.txt by the licence that each says it has."""
    by_licence: dict[str, list[str]] = {}
    for name in sorted(set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))):
        try:
            told = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:  # of another system
            by_licence.setdefault("not installed here", []).append(name)
            continue
        classes = [one.rpartition(" :: ")[2] for one in told.get_all("Classifier", []) if one.startswith("License ::")]
        plain = (told.get("License") or "").strip().partition("\n")[0]
        by_licence.setdefault(told.get("License-Expression") or ", ".join(classes) or plain or NO_LICENCE, []).append(
            name
        )
    rows = [f"| {_cell(licence)} | {', '.join(names)} |" for licence, names in sorted(by_licence.items())]
    return "\n".join(["| licence | packages |", "|---|---|", *rows])


def _rows(figures: Mapping[str, Any], title: str = "") -> Iterator[str]:
    """Mappings of figures as tables: of like mappings one table, a row each. Single repeats are left to the file."""
    leaves = {name: value for name, value in figures.items() if _is_leaf(value)}
    rows = {name: value for name, value in figures.items() if isinstance(value, Mapping) and name not in leaves}
    measures = {name: [measure for measure, its in row.items() if _is_leaf(its)] for name, row in rows.items()}
    columns = list(dict.fromkeys(measure for its in measures.values() for measure in its))
    if len(columns) > 1.5 * max(map(len, measures.values()), default=0):  # not of a kind
        rows, columns = {}, []
    if title and (leaves or columns):
        yield from ("", f"**{title}**")
    if leaves:
        yield from ("", "| | |", "|---|---|")
        yield from (f"| {_cell(name)} | {_figure(value)} |" for name, value in leaves.items())
    if columns:
        yield from ("", f"| | {' | '.join(map(_cell, columns))} |", f"|---{'|---' * len(columns)}|")
        for name, row in rows.items():
            yield f"| {_cell(name)} | {' | '.join(_figure(row.get(column)) for column in columns)} |"
    for name, value in figures.items():
        if isinstance(value, Mapping) and name not in leaves:
            below = {under: its for under, its in value.items() if name not in rows or not _is_leaf(its)}
            yield from _rows(below, f"{title}: {name}" if title else name)


def _is_leaf(value: Any) -> bool:
    return not isinstance(value, Mapping | list) or (isinstance(value, Mapping) and set(value) == {MEAN, HALF})


def _figure(value: Any) -> str:
    if isinstance(value, Mapping) and _is_leaf(value):
        return f"{shown(value[MEAN])} ± {shown(value[HALF])}"
    return "" if value is None or not _is_leaf(value) else _cell(shown(value))


def _cell(text: str | None) -> str:
    return " ".join(str(text or "").split()).replace("|", "\\|")


def parts() -> dict[str, dict[str, str]]:
    """Generated text by file and name of the part."""
    # With no setting of the user's: what is written is the same everywhere.
    graph = build(Settings()).resolve_asset_graph()
    branches = [*BRANCHES, ledger_branch(BRANCHES)]
    found: dict[str, dict[str, str]] = {
        f"{branch.name}.md": {
            "graph": graph_of(branch.name, graph),
            "assets": assets_of(branch.name, graph),
            "columns": columns_of(_tables(branch)),
        }
        for branch in branches
    }
    found["reference.md"] = {
        "commands": "\n\n".join(commands_of(group, "bigdata-assets")),
        "settings": f"```\n{(ROOT / '.env.example').read_text()}```",
    }
    found["licences.md"] = {"packages": licences()}
    results = sorted((ROOT / "benchmarks").glob("results*.json"))
    found["results.md"] = {file.stem: measured(file) for file in results}
    found["results.md"] |= {"drills": drills("drills.json"), "soaks": drills("soak.json")}
    return found


def _tables(branch: Any) -> list[Table]:
    return [*branch.tables, *(stream.messages for stream in branch.streams if stream.messages not in branch.tables)]


def generated(file: Path, its: Mapping[str, str]) -> str:
    """The file's text with its parts as they are now.

    Raises:
        ValueError: a part has no place in the file, or a place no part.
    """
    text = file.read_text() if file.exists() else ""
    places = PART.findall(text)
    if {name for _, name, _ in places} != set(its):
        raise ValueError(f"{file.name} needs the parts {', '.join(sorted(its))}, once each")
    return PART.sub(lambda found: f"{found[1]}{its[found[2]]}\n{found[3]}", text)


def main() -> None:
    """Write, or with `--check` say what is other; exit code 1 where something is not current."""
    check, old = "--check" in sys.argv, []
    for name, its in parts().items():
        file = DOCS / name
        before, text = file.read_text(), generated(file, its)
        if text != before:
            old.append(name)
            if check:
                click.echo(
                    "\n".join(difflib.unified_diff(before.splitlines(), text.splitlines(), name, name, "", "", 1))
                )
            else:
                file.write_text(text)
    if old:
        click.echo(f"{'not current, run make docs' if check else 'written'}: {', '.join(old)}")
    sys.exit(bool(old) and check)


if __name__ == "__main__":
    main()
