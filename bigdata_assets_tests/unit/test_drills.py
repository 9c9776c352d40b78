"""The option --drill itself, in a pytest of its own."""

import json
import os
import subprocess
import sys

import pytest

from bigdata_assets.settings import PROJECT_ROOT

TESTS = """
import pytest

@pytest.mark.drill
def test_rounds(drill):
    rounds = drill.pick("rounds", short=1, full=10)
    drill.figures["rounds done"] = rounds
    print("rounds:", rounds)

@pytest.mark.drill
def test_that_fails(drill):
    drill.figures["rounds done"] = drill.pick("rounds", short=1, full=10)
    assert not drill.full

def test_another():
    pass
"""


@pytest.fixture
def pytest_in(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = drill\n")
    (tmp_path / "test_some.py").write_text(TESTS)

    def run(*options):
        command = [sys.executable, "-m", "pytest", "-p", "bigdata_assets_tests.drills", "-rA", *options]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT), "PYTEST_ADDOPTS": ""}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def test_without_the_option_all_tests_are_run_and_drills_are_short(pytest_in, tmp_path):
    done = pytest_in()
    assert done.returncode == 0, done.stdout
    assert "rounds: 1\n" in done.stdout
    assert "3 passed" in done.stdout
    assert not (tmp_path / "benchmarks").exists()


def test_with_it_drills_alone_are_run_in_full_and_the_figures_of_those_that_pass_are_kept(pytest_in, tmp_path):
    file = tmp_path / "benchmarks" / "drills.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"test_rounds": {"date": "2000-01-01"}, "test_earlier": {"date": "2000-01-01"}}))
    done = pytest_in("--drill")
    assert "rounds: 10\n" in done.stdout
    assert "1 failed, 1 passed, 1 deselected" in done.stdout
    assert "test_rounds: {'rounds': 10}" in done.stdout
    kept = json.loads(file.read_text())
    assert set(kept) == {"test_rounds", "test_earlier"}
    assert kept["test_rounds"]["figures"]["rounds done"] == 10
    assert kept["test_rounds"]["scale"] == {"rounds": 10}
    assert kept["test_rounds"]["cores"] == os.cpu_count()
    assert kept["test_rounds"]["date"] > "2000-01-01"


def test_a_drill_without_the_mark_is_refused(pytest_in, tmp_path):
    (tmp_path / "test_some.py").write_text("def test_unmarked(drill): pass\n")
    assert "mark it, or --drill leaves it out" in pytest_in().stdout
