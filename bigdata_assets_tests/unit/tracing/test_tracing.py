"""Traces over toy tables: what is found in either direction, what is said of what is gone, how it is shown."""

import base64
import json
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    DataType,
    DateType,
    DoubleType,
    LongType,
    StringType,
    TimestampType,
)

from bigdata_assets.branch import Branch
from bigdata_assets.io_managers.delta import protocol
from bigdata_assets.settings import Settings
from bigdata_assets.tables import Column, Table
from bigdata_assets.tracing import forward as forwards
from bigdata_assets.tracing import rendering
from bigdata_assets.tracing.lineage import Lineage, Link, Model, Raw, Row, Since, Within, same
from bigdata_assets.tracing.places import Places
from bigdata_assets.tracing.tracing import Traced, traced

KINDS: dict[str, DataType] = {
    "n": LongType(),
    "at": TimestampType(),
    "day": DateType(),
    "value": DoubleType(),
    "raw": BinaryType(),
    "pixels": ArrayType(DoubleType()),
}
NOON = datetime(2016, 1, 2, 12, tzinfo=UTC)


def table(name: str, *columns: str, partition: str | None = None) -> Table:
    made = [Column(column, KINDS.get(column, StringType()), "A column.", nullable=True) for column in columns]
    return Table("toy", name, "Rows of the toy.", tuple(made), partition_column=partition)


MESSAGES = table("messages", "batch", "n", "raw", partition="batch")
SAMPLES = table("samples", "batch", "n", "site", "at", "pixels", partition="batch")
SCORES = table("scores", "batch", "site", "at", "model", "version", "value", partition="batch")
OTHERS = table("others", "batch", "n", partition="batch")
DAYS = table("days", "day", "site", "value")
TABLES = (MESSAGES, SAMPLES, SCORES, OTHERS, DAYS)


def read_raw(row: Row, places: Places) -> Raw:
    path = Path(places.storage) / "raw" / str(row["n"])
    return Raw({"file": str(path)}, path.read_bytes())


LINEAGE = Lineage(
    links=(
        Link(SAMPLES, MESSAGES, same("batch", "n")),
        Link(SCORES, SAMPLES, same("batch", "site"), span=Since("at", "at"), note="and days around it"),
        Link(SCORES, OTHERS, same("batch"), only={"model": ("other",)}),
        Link(OTHERS, MESSAGES, same("batch", "n")),
        Link(DAYS, SCORES, same("site"), span=Within("day", "at", 0, 86_400)),
    ),
    models=(Model(SCORES, folder="toy/{model}/{version}", asset="toy/{model}"),),
    sources={MESSAGES.path: read_raw},
)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


@dg.asset(key=["toy", "report"], deps=[SCORES.key])
def report() -> None:
    pass


BATCHES = dg.DynamicPartitionsDefinition(name="toys")
ASSETS = [
    report,
    *(
        dg.AssetsDefinition.from_op(
            dg.op(name=one.name)(lambda: None),
            keys_by_output_name={"result": one.key},
            partitions_def=BATCHES if one.partition_column else None,
        )
        for one in TABLES
    ),
]
TOY = Branch(name="toy", assets=ASSETS, tables=TABLES, lineage=LINEAGE)


def settings_of(folder: Path) -> Settings:
    return Settings(
        BIGDATA_STORAGE=str(folder / "storage"), DAGSTER_HOME=folder / "dagster", BIGDATA_SERVICES=folder / "services"
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path)


def store(settings: Settings, one: Table, *rows: tuple[Any, ...]) -> None:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, one.arrow_schema, strict=True)]
    stored = pa.Table.from_arrays(arrays, names=one.column_names)
    write_deltalake(f"{settings.storage}/{one.path}", stored, partition_by=one.file_partitioning, mode="append")


@pytest.fixture
def stored(made: Path, tmp_path: Path) -> Settings:
    """A copy of what is made once."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return settings_of(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two batches; of each site's samples those of a minute are one score."""
    settings = settings_of(tmp_path_factory.mktemp("made"))
    settings.dagster_home.mkdir()
    folder = Path(settings.storage) / "raw"
    folder.mkdir(parents=True)
    for n in range(4):
        (folder / str(n)).write_bytes(f"message {n}".encode())
        store(settings, MESSAGES, ("a" if n < 3 else "b", n, f"message {n}".encode()))
    store(settings, SAMPLES, ("a", 0, "x", at(0), [0.0]), ("a", 1, "x", at(0.2), [1.0]), ("a", 2, "x", at(1), [2.0]))
    store(settings, SAMPLES, ("b", 3, "x", at(2), [3.0]))
    store(settings, OTHERS, ("a", 0))
    for model in ("linear", "other"):
        store(
            settings,
            SCORES,
            *(("a", "x", at(m), model, "v1", 0.5) for m in (0, 1)),
            ("b", "x", at(2), model, "v2", 0.5),
        )
    store(settings, DAYS, (date(2016, 1, 2), "x", 0.5), (date(2016, 1, 3), "x", 0.5))
    card = Path(settings.storage) / "toy" / "linear" / "v1"
    card.mkdir(parents=True)
    told = {"version": "v1", "run_id": "r", "inputs": {"toy/samples": 7}, "metrics": {"accuracy": 0.75}}
    (card / "model.json").write_text(json.dumps(told))
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        instance.add_dynamic_partitions("toys", ["a", "b"])
        tags = {"dagster/code_version": "3", "dagster/data_version": "12"}
        instance.report_runless_asset_event(dg.AssetMaterialization(SCORES.key, partition="a", tags=tags))
    return settings.dagster_home.parent


def steps_of(found: Traced) -> dict[str, list[Row]]:
    (one,) = found.traces
    return {step.table.name: [found.row for found in step.rows] for step in one.steps}


def test_a_row_is_followed_table_by_table_to_its_bytes(stored: Settings) -> None:
    found = traced(stored, TOY, SCORES, f"batch = 'a' AND at = '{at(0).isoformat()}' AND model = 'linear'", 5)
    steps = steps_of(found)
    assert list(steps) == ["scores", "samples", "messages"]
    assert [row["n"] for row in steps["samples"]] == [0, 1], "until the next score of the batch and site"
    (one,) = found.traces
    assert [found.raw.data for found in one.steps[2].rows if found.raw] == [b"message 0", b"message 1"]
    assert one.steps[1].notes == ["and days around it"]
    assert one.row.made is not None
    assert (one.row.made.code_version, one.row.made.data_version) == ("3", "12")
    (model,) = one.row.models
    assert model.card is not None
    assert model.card["inputs"] == {"toy/samples": 7}


def test_so_is_one_of_tables_that_another_engine_has_touched(stored: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"batch = 'a' AND at = '{at(0).isoformat()}' AND model = 'linear'"
    usual = steps_of(traced(stored, TOY, SCORES, where, 5))
    forth = affected(traced(stored, TOY, MESSAGES, "n = 1", 5, is_forward=True))
    monkeypatch.setattr(protocol, "is_dataset", lambda _stored: False)
    assert steps_of(traced(stored, TOY, SCORES, where, 5)) == usual
    assert affected(traced(stored, TOY, MESSAGES, "n = 1", 5, is_forward=True)) == forth
    assert len(traced(stored, TOY, SCORES, "value = 0.5", 2).traces) == 2


def test_a_link_holds_for_some_rows_and_a_row_is_told_once(stored: Settings) -> None:
    found = traced(stored, TOY, SCORES, f"batch = 'a' AND at = '{at(0).isoformat()}' AND model = 'other'", 5)
    steps = steps_of(found)
    assert [row["n"] for row in steps["others"]] == [0]
    assert [row["n"] for row in steps["messages"]] == [0, 1]


def test_a_day_has_what_is_of_it(stored: Settings) -> None:
    assert len(steps_of(traced(stored, TOY, DAYS, "day = '2016-01-02'", 5))["scores"]) == 6
    steps = [step for one in traced(stored, TOY, DAYS, "day = '2016-01-03'", 5).traces for step in one.steps]
    assert [(step.table.name, step.notes) for step in steps[1:]] == [("scores", ["there is no row with site x"])]


def test_more_rows_than_the_limit_are_told_of(stored: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    found = traced(stored, TOY, SCORES, "value = 0.5", 2)
    assert (len(found.traces), found.more) == (2, True)
    found.echo()
    assert "there are more rows than these 2" in capsys.readouterr().err
    assert not traced(stored, TOY, SCORES, "value = 0.5", 6).more
    assert traced(stored, TOY, SCORES, "value = 0.25", 6).is_empty


def test_what_is_gone_is_said_and_the_rest_told(stored: Settings) -> None:
    (Path(stored.storage) / "raw" / "3").unlink()
    found = traced(stored, TOY, SCORES, "batch = 'b' AND model = 'linear'", 5)
    (one,) = found.traces
    raw = one.steps[-1].rows[0].raw
    assert raw is not None
    assert raw.notes[0].startswith("no longer there:")
    assert "toy/linear/v2" in one.row.models[0].note
    assert one.row.made is None
    (Path(stored.storage) / "toy" / "samples").rename(Path(stored.storage) / "elsewhere")
    (one,) = traced(stored, TOY, SCORES, "batch = 'b' AND model = 'linear'", 5).traces
    assert "toy/samples holds nothing yet" in one.steps[1].notes[1]


def affected(found: Traced) -> dict[str, tuple[int, dict[str | None, int]]]:
    return {one.table.name: (one.rows, dict(one.partitions)) for one in found.affected}


def test_forward_finds_all_that_was_made_of_a_record(stored: Settings) -> None:
    found = traced(stored, TOY, MESSAGES, "n = 1", 5, is_forward=True)
    assert affected(found) == {
        "messages": (1, {"a": 1}),
        "samples": (1, {"a": 1}),
        "scores": (2, {"a": 2}),
        "days": (1, {None: 1}),
    }
    batched = 'key:"toy/messages" or key:"toy/samples" or key:"toy/scores"'
    assert found.commands == [
        f"bigdata-assets materialize --select '{batched}' --partition a",
        "bigdata-assets materialize --select 'key:\"toy/days\"'",
    ]
    assert found.whole == ["toy/report"]
    scores = next(one for one in found.affected if one.table.name == "scores")
    assert scores.made["a"] is not None


def test_of_partitions_that_were_taken_away_no_command_would_make_all_again(stored: Settings) -> None:
    with dg.DagsterInstance.from_config(str(stored.dagster_home)) as instance:
        instance.delete_dynamic_partition("toys", "a")
    found = traced(stored, TOY, MESSAGES, "n = 1", 5, is_forward=True)
    assert found.commands == ["bigdata-assets materialize --select 'key:\"toy/days\"'"]


def test_forward_counts_a_row_once_although_two_ways_lead_to_it(stored: Settings) -> None:
    found = traced(stored, TOY, MESSAGES, "n IN (0, 2, 3)", 5, is_forward=True)
    assert affected(found)["scores"] == (6, {"a": 4, "b": 2})
    assert affected(found)["others"] == (1, {"a": 1})
    assert found.commands[0].endswith("--partition a..b")


def test_forward_is_bounded(stored: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwards, "MOST_ROWS", 3)
    with pytest.raises(forwards.TooManyRowsError, match="more than 3 rows of toy/scores"):
        traced(stored, TOY, MESSAGES, "n IN (0, 2)", 5, is_forward=True)


def test_many_values_are_looked_for_by_their_range(stored: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwards, "MOST_VALUES", 1)
    found = traced(stored, TOY, MESSAGES, "n IN (0, 2, 3)", 5, is_forward=True)
    assert affected(found)["samples"] == (3, {"a": 2, "b": 1})


def test_back_and_forth_agree(stored: Settings) -> None:
    """A score is among what was made of each message that it is traced to, and of no other."""
    for score in (
        (f"batch = '{b}' AND at = '{at(m).isoformat()}' AND model = 'linear'") for b, m in (("a", 0), ("b", 2))
    ):
        steps = steps_of(traced(stored, TOY, SCORES, score, 5))
        traced_to = {row["n"] for row in steps["messages"]}
        for n in range(4):
            forth = traced(stored, TOY, MESSAGES, f"n = {n}", 5, is_forward=True)
            of_batch = affected(forth).get("scores", (0, {}))[1]
            assert (steps["scores"][0]["batch"] in of_batch and n != 2) == (n in traced_to)


def test_a_branch_without_a_lineage_says_so(stored: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    bare = Branch(name="toy", assets=ASSETS, tables=TABLES)
    found = traced(stored, bare, SCORES, "batch = 'b'", 1)
    found.echo()
    told = capsys.readouterr()
    assert "toy/scores" in told.out
    assert "the branch toy declares no lineage" in told.err
    found = traced(stored, bare, SCORES, "batch = 'b'", 1, is_forward=True)
    assert affected(found) == {"scores": (2, {"b": 2})}


EVIL = "<script>alert('x')</script>\x1b[31m\"&"


@pytest.fixture
def evil(settings: Settings) -> Settings:
    folder = Path(settings.storage) / "raw"
    folder.mkdir(parents=True)
    (folder / "0").write_bytes(EVIL.encode())
    (folder / "1").write_bytes(bytes(range(256)) * 10)
    store(settings, MESSAGES, ("<b>", 0, EVIL.encode()), ("<b>", 1, b"\xff"))
    return settings


def test_a_page_has_nothing_that_runs_or_is_loaded(evil: Settings) -> None:
    page = traced(evil, TOY, MESSAGES, "n = 0", 5).html(f"toy where {EVIL}")
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in page
    assert "\x1b" not in page
    assert "default-src 'none'" in page
    assert not {"http://", "https://"} & set(page.split('"'))
    forth = traced(evil, TOY, MESSAGES, "n = 0", 5, is_forward=True).html(EVIL)
    assert "<script" not in forth
    assert "<b>" not in forth


def test_a_terminal_gets_no_control_characters_and_hexadecimal_of_what_is_no_text(
    evil: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    traced(evil, TOY, MESSAGES, "n IN (0, 1)", 5).echo()
    told = capsys.readouterr().out
    assert "\x1b" not in told, "neither of the data nor, as this is no terminal, of colours"
    assert r"| <script>alert('x')</script>\x1b[31m" in told
    assert "| 00 01 02" in told
    assert "… (2,560 bytes)" in told


def test_json_has_all_bytes(evil: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    traced(evil, TOY, MESSAGES, "n = 1", 5).echo_json()
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"traces", "more"}
    (step,) = told["traces"][0]["steps"]
    assert set(step) == {"table", "rows", "more", "notes"}
    (row,) = step["rows"]
    assert set(row) == {"row", "materialization", "models", "raw", "note"}
    assert base64.b64decode(row["raw"]["data"]["base64"]) == bytes(range(256)) * 10
    assert base64.b64decode(row["row"]["raw"]["base64"]) == b"\xff"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ""),
        (b"abc\n", r"abc\n"),
        ("ä".encode(), "ä"),
        (b"\xff\xfe", "ff fe"),
        (b"a\x00b", "61 00 62"),
        (b"x" * 30, "x" * 10 + "… (30 bytes)"),
        ("ä".encode() * 30, "ä" * 10 + "… (60 bytes)"),
    ],
)
def test_bytes_are_shown_as_text_or_in_hexadecimal(data: bytes, expected: str) -> None:
    assert rendering.shown_bytes(data, 10) == expected


def test_a_model_is_not_looked_for_elsewhere(stored: Settings) -> None:
    store(stored, SCORES, ("c", "x", at(5), "linear", "../../secret", 0.5))
    (one,) = traced(stored, TOY, SCORES, "batch = 'c'", 5).traces
    assert one.row.models[0].note == "version '../../secret' is no version"
