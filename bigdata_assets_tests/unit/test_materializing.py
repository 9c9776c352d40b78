import dagster as dg
from hypothesis import given
from hypothesis import strategies as st

from bigdata_assets.runs.materializing import in_order, of_nothing, outdated, told_of_check
from bigdata_assets.runs.ranges import contiguous

PARTS = dg.DynamicPartitionsDefinition(name="parts")


def _asset(name, deps=(), partitions_def=None, backfill_policy=None, **more):
    @dg.asset(name=name, deps=list(deps), partitions_def=partitions_def, backfill_policy=backfill_policy, **more)
    def made() -> None: ...

    return made


def _keys(*names):
    return {dg.AssetKey(name) for name in names}


def test_runs_are_as_few_as_partitionings_allow_and_after_what_they_need():
    a, b, c, d = _asset("a"), _asset("b", ["a"], PARTS), _asset("c", ["b"], PARTS), _asset("d", ["a", "c"])
    graph = dg.Definitions(assets=[a, b, c, d]).resolve_asset_graph()
    runs = [sorted(k.to_user_string() for k in keys) for keys in in_order(graph, set(graph.get_all_asset_keys()))]
    assert runs == [["a"], ["b", "c"], ["d"]]


def test_what_takes_a_partition_a_run_is_not_run_with_what_takes_many():
    many, one = dg.BackfillPolicy.multi_run(20), dg.BackfillPolicy.multi_run(1)
    a, b, c = _asset("a", (), PARTS, many), _asset("b", ["a"], PARTS, one), _asset("c", ["a"], PARTS, many)
    graph = dg.Definitions(assets=[a, b, c]).resolve_asset_graph()
    runs = [sorted(k.to_user_string() for k in keys) for keys in in_order(graph, set(graph.get_all_asset_keys()))]
    assert runs == [["a", "c"], ["b"]]


def test_assets_outside_the_selection_are_not_waited_for():
    a, b, c = _asset("a"), _asset("b", ["a"], PARTS), _asset("c", ["b"])
    graph = dg.Definitions(assets=[a, b, c]).resolve_asset_graph()
    runs = list(in_order(graph, {dg.AssetKey("a"), dg.AssetKey("c")}))
    assert runs == [{dg.AssetKey("a"), dg.AssetKey("c")}]


@given(st.lists(st.booleans(), max_size=12))
def test_stretches_cover_exactly_what_is_wanted(flags):
    keys = [f"k{number}" for number in range(len(flags))]
    wanted = {key for key, flag in zip(keys, flags, strict=True) if flag}
    covered = [
        key for first, last in contiguous(keys, wanted) for key in keys[keys.index(first) : keys.index(last) + 1]
    ]
    assert covered == sorted(wanted, key=keys.index)


@given(st.lists(st.booleans(), max_size=12), st.integers(1, 5))
def test_stretches_are_cut_to_what_a_run_may_have(flags, most):
    keys = [f"k{number}" for number in range(len(flags))]
    wanted = {key for key, flag in zip(keys, flags, strict=True) if flag}
    parts = [keys[keys.index(first) : keys.index(last) + 1] for first, last in contiguous(keys, wanted, most)]
    assert [key for part in parts for key in part] == sorted(wanted, key=keys.index)
    assert all(len(part) <= most for part in parts)


def test_what_all_inputs_of_are_without_a_partition_is_made_of_nothing():
    def asset(name, *deps, **more):
        return _asset(name, [dg.AssetKey(["b", dep]) for dep in deps], key_prefix="b", **more)

    assets = [asset("files", partitions_def=PARTS), asset("mart", "files"), asset("top", "mart")]
    sites = [asset("batches", partitions_def=PARTS), asset("sites", "files"), asset("windows", "sites", "batches")]
    ledger = _asset("ledger", [dg.AssetKey(["b", "top"])])
    other = dg.DynamicPartitionsDefinition(name="other")
    sites[0] = asset("batches", partitions_def=other)
    graph = dg.Definitions(assets=[*assets, *sites, ledger]).resolve_asset_graph()
    every = set(graph.get_all_asset_keys())

    def found(**available):
        parts = {PARTS: available["files"], other: available["batches"]}
        return {key.path[-1] for key in of_nothing(graph, instance, every - _keys("ledger"), parts)}

    with dg.DagsterInstance.ephemeral() as instance:
        assert found(files=[], batches=[]) == {"mart", "top", "sites", "windows"}
        assert found(files=[], batches=["a"]) == {"mart", "top"}, "windows are made, and need sites"
        assert found(files=["a"], batches=[]) == set()
        instance.report_runless_asset_event(dg.AssetMaterialization(["b", "files"], partition="gone"))
        assert found(files=[], batches=[]) == set(), "its rows are there"


def test_what_a_sensor_refreshes_is_outdated_by_a_newer_input():
    refreshed = {"automation_condition": dg.AutomationCondition.eager()}
    assets = [
        _asset("a", (), PARTS),
        _asset("b", ["a"], **refreshed),
        _asset("c", ["b"], **refreshed),
        _asset("d", ["a"]),
    ]
    graph = dg.Definitions(assets=assets).resolve_asset_graph()
    with dg.DagsterInstance.ephemeral() as instance:

        def stored(*names):
            for name in names:
                partition = "p" if name == "a" else None
                instance.report_runless_asset_event(dg.AssetMaterialization(name, partition=partition))

        every = set(graph.get_all_asset_keys())
        stored("a")
        assert outdated(graph, instance, every) == set(), "nothing was made yet"
        stored("b", "c", "d")
        assert outdated(graph, instance, every) == set()
        stored("a")
        assert outdated(graph, instance, every) == _keys("b", "c")
        stored("b")
        assert outdated(graph, instance, every) == _keys("c")


def test_a_check_that_has_not_passed_has_a_line():
    def line(**fields):
        return told_of_check(dg.AssetCheckEvaluation(dg.AssetKey(["urls", "batches"]), "share", metadata={}, **fields))

    assert line(passed=True) == ""
    assert line(passed=False, description="2 of 2 rows") == "CHECK FAILED urls/batches, share: 2 of 2 rows"
    assert line(passed=False, severity=dg.AssetCheckSeverity.WARN) == "CHECK WARNED urls/batches, share"
