"""Rules that run: what every asset says of itself, what may be imported where, how quickly definitions load."""

import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

import bigdata_assets
from bigdata_assets.branch import BATCH, CADENCE, REAL_TIME
from bigdata_assets.catalogue import column_schema
from bigdata_assets.definitions import BRANCHES, defs
from bigdata_assets.models.assets import ledger_branch
from bigdata_assets.tables import Table

GRAPH = defs.resolve_asset_graph()
KEYS = sorted(GRAPH.get_all_asset_keys())
TABLES: dict = {table.key: table for branch in (*BRANCHES, ledger_branch(BRANCHES)) for table in branch.tables}
HEAVY = (
    "tensorflow",
    "keras",
    "gwpy",
    "h5py",
    "pycbc",
    "kafka",
    "cassandra",
    "sklearn",
    "lightgbm",
    "skops",
    "matplotlib",
    "deltalake",
    "river",
)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.to_user_string())
def test_an_asset_says_everything(key):
    node = GRAPH.get(key)
    assert node.description
    assert len(node.description) > 40
    assert node.group_name == key.path[0]
    assert node.owners
    assert node.kinds
    assert node.code_version
    assert node.tags[CADENCE] in (REAL_TIME, BATCH)
    assert Path(node.metadata["docs"].value).is_file()
    if key in TABLES:
        assert node.metadata["dagster/column_schema"] == column_schema(TABLES[key])
        assert all(column.description for column in TABLES[key].columns)
        blocking = [check for check in GRAPH.asset_check_keys if check.asset_key == key and GRAPH.get(check).blocking]
        assert blocking


def test_a_topic_that_nothing_comes_from_is_seen_by_its_freshness():
    streams = {stream.messages.key for branch in BRANCHES for stream in branch.streams}
    assert {key for key in KEYS if GRAPH.get(key).freshness_policy} == streams


def test_every_declared_table_is_an_asset_and_partitioned_alike():
    for key, table in TABLES.items():
        assert isinstance(table, Table)
        assert (GRAPH.get(key).partitions_def is not None) == (table.partition_column is not None)


def test_the_repository_can_be_served():
    """Names that clash are found only when a code server asks for all of it."""
    dg.Definitions.validate_loadable(defs)


def test_nobody_has_spark_commit_to_a_delta_table():
    """Its commits may overwrite those of another process, and be overwritten: io_managers/delta/commits.py."""
    commits = re.compile(
        r"""write\w*(\.\w+\(.*\))*\.format\(["']delta|saveAsTable|insertInto|writeTo\(|DeltaTable\.for"""
    )
    forbidden = [
        f"{path.name}:{number}"
        for path in Path(bigdata_assets.__file__).parent.rglob("*.py")
        if path.name != "keyspaces.py"  # which says it to Cassandra
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if commits.search(line) or re.search(r"\b(INSERT (INTO|OVERWRITE)|MERGE INTO|OPTIMIZE|VACUUM) ", line)
    ]
    assert forbidden == []


def test_definitions_import_nothing_heavy():
    code = f"import sys, bigdata_assets.definitions; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_spark_workers_need_no_dagster():
    code = (
        "import sys\n"
        "import bigdata_assets.malicious_urls.logic.reading, bigdata_assets.malicious_urls.logic.scoring\n"
        "import bigdata_assets.malicious_urls.logic.classifier, bigdata_assets.crimes.logic.exports\n"
        "import bigdata_assets.gravitational_waves.logic.training.training_set\n"
        "import bigdata_assets.gravitational_waves.logic.classifiers.features\n"
        "import bigdata_assets.gravitational_waves.logic.classifiers.cnn\n"
        "import bigdata_assets.gravitational_waves.logic.strain.scans, bigdata_assets.io_managers.staging\n"
        "import bigdata_assets.flow_sensors.exporting, bigdata_assets.flow_sensors.logic.quality\n"
        "print('dagster' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
