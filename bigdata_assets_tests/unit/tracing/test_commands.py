"""The command `trace`: what it says and the codes that it ends with."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from deltalake import write_deltalake

from bigdata_assets.definitions import BRANCHES
from bigdata_assets.malicious_urls.tables import TOP_DOMAINS
from bigdata_assets.tables import Table
from bigdata_assets.tracing.commands import known_tables, trace


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIGDATA_STORAGE", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "no dagster"))
    schema = pa.schema([field.with_nullable(True) for field in TOP_DOMAINS.arrow_schema])
    row = {"rank": 1, "registered_domain": "a.org"}
    write_deltalake(str(tmp_path / TOP_DOMAINS.path), pa.Table.from_pylist([row], schema))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(trace, arguments)


@pytest.mark.usefixtures("storage")
def test_what_it_ends_with() -> None:
    found = run(TOP_DOMAINS.path, "--where", "rank = 1")
    assert found.exit_code == 0, found.output
    assert "registered_domain      a.org" in found.output
    assert "no materialisation of it is known to Dagster" in found.output
    for arguments, code, told in (
        ((TOP_DOMAINS.path, "--where", "rank = 2"), 1, "no row of malicious_urls/top_domains has rank = 2"),
        ((TOP_DOMAINS.path, "--where", "rank = 2", "--forward"), 1, "no row of"),
        ((TOP_DOMAINS.path, "--where", "rang = 1"), 2, "there is no column 'rang'; there are rank, registered_domain"),
        ((TOP_DOMAINS.path, "--where", "1=1; DROP TABLE x"), 2, "a filter is made of"),
        ((TOP_DOMAINS.path,), 2, "--where"),
        (("malicious_urls/predictions", "--where", "position = 1"), 1, "materialise that asset first"),
        (("malicious_urls/nothing", "--where", "n = 1"), 2, "there is no table 'malicious_urls/nothing' but"),
    ):
        result = run(*arguments)
        assert (result.exit_code, told in result.output) == (code, True), result.output


def test_a_page_and_json_are_made_and_nothing_else(storage: Path) -> None:
    before = set(storage.rglob("*"))
    page = storage / "page.html"
    found = run(TOP_DOMAINS.path, "--where", "rank = 1", "--json", "--html", str(page))
    assert json.loads(found.stdout)["traces"][0]["steps"][0]["rows"][0]["row"]["rank"] == 1
    assert "a.org" in page.read_text()
    assert set(storage.rglob("*")) == before | {page}


def tables() -> dict[str, Table]:
    return {path: table for path, (_, table) in known_tables(BRANCHES).items()}


@pytest.mark.parametrize("branch", BRANCHES, ids=lambda branch: branch.name)
def test_links_name_columns_and_tables_that_there_are(branch) -> None:  # type: ignore[no-untyped-def]
    lineage, paths = branch.lineage, {table.path for table in branch.tables}
    assert lineage.links
    for link in lineage.links:
        assert {link.made.path, link.of.path} <= paths
        assert link.columns_made <= set(link.made.column_names), link
        assert link.columns_of | set(link.derived) <= set(link.of.column_names), link
    for path in (*lineage.sources, *lineage.pictures, *lineage.covered, *lineage.covered.values()):
        assert path in paths
    for table in branch.tables:  # without a circle, and each behind what is made of it
        order = [one.path for one in lineage.upstream(table)]
        assert all(order.index(link.of.path) > order.index(table.path) for link in lineage.inputs_of(table))


def test_what_people_want_traced_has_a_model_and_leads_to_a_raw_record() -> None:
    predictions = [(b, t) for b, t in known_tables(BRANCHES).values() if t.known_by]
    assert len(predictions) == 7
    for branch, table in predictions:
        assert any(model.table.path == table.path for model in branch.lineage.models)
        assert {one.path for one in branch.lineage.upstream(table)} & set(branch.lineage.sources)
