"""What the docs say is so: commands, settings, links, generated parts, figures."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bigdata_assets.cli import group
from bigdata_assets.settings import TOPIC, Settings

ROOT = Path(__file__).parents[2]
DOCS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docker").glob("*.md"))]
HAND_WRITTEN = re.compile(r"<!-- generated: \w+ -->.*?<!-- end -->", re.DOTALL)
LINK = re.compile(r"\]\((?!https?://)([^)\s]+)\)")
COMMAND = re.compile(r"(?:^|[`(\s/])bigdata-assets ([a-z][^`\n#]*)")
VARIABLE = re.compile(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)(?:=[^`]*)?`")
NOT_OURS = {"REPORTS_PORT", "CODE_LIMIT", "SPARK_LIMIT", "NODE_ID"}
"""Of compose's .env and of engines."""
README_LINES, PARAGRAPH_LINES = 200, 5
names = pytest.mark.parametrize("file", DOCS, ids=lambda file: str(file.relative_to(ROOT)))


def test_generated_parts_are_current():
    """In a process of its own, as `make docs` has it."""
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@names
def test_links_lead_somewhere(file):
    for link in LINK.findall(file.read_text()):
        path, _, anchor = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), link
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings], (
            link
        )


@names
def test_commands_are_those_that_exist(file):
    text = HAND_WRITTEN.sub("", file.read_text())
    for line in COMMAND.findall(text):
        _exists(group, shlex.split(line.replace("…", "")), line)


def _exists(command: click.Command, words: list[str], line: str) -> None:
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    assert command is not group, f"there is no command {line!r}"
    options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    said = {word.partition("=")[0].rstrip(".,;") for word in words if word.startswith("--")}
    assert said <= options, f"{line!r}: {said - options}"


@names
def test_settings_are_those_that_exist(file):
    known = {str(field.alias) for field in Settings.model_fields.values()} | NOT_OURS | set(_of_others())
    patterns = (re.escape(TOPIC).replace(r"\*", "[A-Z_]+"),)
    unknown = [
        name
        for name in VARIABLE.findall(HAND_WRITTEN.sub("", file.read_text()))
        if name not in known and not any(re.fullmatch(pattern, name) for pattern in patterns)
    ]
    assert unknown == []


def _of_others() -> Iterator[str]:
    """Names in capitals that the code has: constants that a page may name."""
    for path in (ROOT / "bigdata_assets").rglob("*.py"):
        yield from re.findall(r"^([A-Z][A-Z0-9_]+)(?::[^=\n]+)? = ", path.read_text(), re.MULTILINE)
    yield from re.findall(r"[A-Z][A-Z0-9_]+", (ROOT / "docker" / "compose.yaml").read_text())


def test_every_setting_is_in_the_example():
    text = (ROOT / ".env.example").read_text()
    assert [
        str(field.alias)
        for field in Settings.model_fields.values()
        if f"#{field.alias}=" not in text and field.alias != TOPIC
    ] == []


@names
def test_make_targets_are_those_that_exist(file):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", file.read_text())) <= targets


@names
def test_nothing_is_left_to_be_filled_in(file):
    assert not re.search(r"OUTPUT_|TODO|TBD", file.read_text())


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= README_LINES
    assert max(map(_lines, "\n".join(lines).split("\n\n"))) <= PARAGRAPH_LINES


def _lines(paragraph: str) -> int:
    """Of prose; tables, lists and code have as many as they need."""
    return 0 if re.match(r"\||```|- |    ", paragraph) else len(paragraph.splitlines())


def figures(value) -> Iterator[float]:
    """All numbers of a results file."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from figures(one)
    elif isinstance(value, int | float):
        yield float(value)


def measured(branch: str) -> list[float]:
    """What the results files have of a branch; of all, a figure of three digits would always be found."""
    results = {file.stem: json.loads(file.read_text()) for file in (ROOT / "benchmarks").glob("results*.json")}
    more = {
        "malicious_urls": results["results_malicious_urls_quality"]["lists"]["held out"],
        "crimes": results["results_crimes_prequential"]["2015-2016, batches of 5,000, history 2013-2014"],
    }
    return [*figures(results["results"][branch]), *figures(more.get(branch, {}))]


def test_every_figure_of_the_readme_was_measured():
    text = (ROOT / "README.md").read_text().partition("## Results")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \|[^|]+\|([^|]+)\|([^|]+)\|$", text, re.MULTILINE)[1:]
    assert len(rows) == 5
    for branch, *cells in rows:
        known = measured(branch)
        for number in re.findall(r"(?<![\w.])[\d,]*\.?\d+(?![\w])", " ".join(cells)):
            assert any(_rounds_to(value, number) for value in known), (branch, number)


def _rounds_to(value: float, said: str) -> bool:
    plain = said.replace(",", "")
    decimals = len(plain.partition(".")[2])
    zeros = len(plain) - len(plain.rstrip("0")) if decimals == 0 else 0
    return any(abs(round(value, digits) - float(plain)) < 1e-9 for digits in (decimals, -min(zeros, 3)))


def test_the_tutorial_of_contributing_makes_an_asset(tmp_path):
    """Its blocks, put where it says, give an asset that definitions load, with columns and a check."""
    table, logic, asset = re.findall(r"   ```python\n(.*?)   ```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    shutil.copytree(ROOT / "bigdata_assets", tmp_path / "bigdata_assets", ignore=shutil.ignore_patterns("__pycache__"))
    branch = tmp_path / "bigdata_assets" / "malicious_urls"
    (branch / "logic" / "counting.py").write_text(textwrap.dedent(logic))
    for file, block, names, name in (
        ("tables.py", table, "TABLES = (\n", "SUFFIX_COUNTS"),
        ("assets.py", asset, "ASSETS: Sequence[dg.AssetsDefinition] = (\n", "suffix_counts"),
    ):
        before, found, after = (branch / file).read_text().partition(names)
        assert found
        imports = "from bigdata_assets.malicious_urls.tables import SUFFIX_COUNTS\n" if file == "assets.py" else ""
        (branch / file).write_text(f"{before}{imports}{textwrap.dedent(block)}\n\n{names}    {name},\n{after}")
    code = """
import dagster as dg
import bigdata_assets.malicious_urls.logic.counting
from bigdata_assets.definitions import defs
key = dg.AssetKey(["malicious_urls", "suffix_counts"])
node = defs.resolve_asset_graph().get(key)
print(len(node.metadata["dagster/column_schema"].columns), [c.name for c in node.check_keys])
"""
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.stdout.strip() == "2 ['schema']", done.stderr
