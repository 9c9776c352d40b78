"""Long tests as drills: a short round of each by default; with --drill these alone, in full, and their figures kept."""

import json
import os
from datetime import date
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
RESULTS = "benchmarks/drills.json"


class Drill:
    """How much of a long test is done, and what it found."""

    def __init__(self, *, full: bool) -> None:
        self.full = full
        self.scale: dict[str, Any] = {}
        self.figures: dict[str, Any] = {}

    def pick(self, what: str, *, short: T, full: T) -> T:
        """A parameter of the test, kept with its figures under the name `what`."""
        self.scale[what] = full if self.full else short
        return full if self.full else short


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--drill", action="store_true", help=f"the long tests alone, in full; figures go to {RESULTS}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--drill"):
        left_out = [item for item in items if not item.get_closest_marker("drill")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.get_closest_marker("drill")]


@pytest.fixture
def drill(request: pytest.FixtureRequest) -> Drill:
    """The parameters of a test that is marked as a drill; its figures go into the summary of a --drill run."""
    assert request.node.get_closest_marker("drill"), "mark it, or --drill leaves it out"
    drill = Drill(full=request.config.getoption("--drill"))
    # Reports carry them, also from one process to another.
    request.node.user_properties.append(("drill", {"scale": drill.scale, "figures": drill.figures}))
    return drill


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print and keep the figures of a --drill run; a test that failed has none."""
    if not config.getoption("--drill"):
        return
    file = config.rootpath / RESULTS
    kept = json.loads(file.read_text()) if file.exists() else {}
    terminalreporter.section("drills")
    for report in terminalreporter.stats.get("passed", []):
        for found in [value for name, value in report.user_properties if name == "drill"]:
            name = report.nodeid.rpartition("::")[2]
            figures = {"seconds": round(report.duration, 1), **found["figures"]}
            where = {"date": f"{date.today():%Y-%m-%d}", "cores": os.cpu_count()}  # noqa: DTZ011 -- the reader's own day
            kept[name] = {**where, "scale": found["scale"], "figures": figures}
            terminalreporter.write_line(f"{name}: {found['scale']}")
            for figure, value in figures.items():
                terminalreporter.write_line(f"  {figure:<70}{value:>14,}")
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
