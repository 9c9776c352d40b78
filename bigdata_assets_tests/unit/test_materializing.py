import dagster as dg
from hypothesis import given
from hypothesis import strategies as st

from bigdata_assets.runs.materializing import in_order
from bigdata_assets.runs.ranges import contiguous

PARTS = dg.DynamicPartitionsDefinition(name="parts")


def _asset(name, deps=(), partitions_def=None, backfill_policy=None):
    @dg.asset(name=name, deps=list(deps), partitions_def=partitions_def, backfill_policy=backfill_policy)
    def made() -> None: ...

    return made


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
