from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from bigdata_assets.runtime import REFRESHED_BY_INPUT, REFRESHED_ONCE_ALL_IS_THERE, process_per_step
from bigdata_assets.services import stack
from bigdata_assets.settings import Settings


@pytest.mark.parametrize("most", [2, 3])
def test_runs_and_steps_at_once_are_as_set(tmp_path, most):
    settings = Settings(DAGSTER_HOME=tmp_path, MAX_CONCURRENT=most)
    config = process_per_step(settings).apply_config_mapping({"config": {}}).value
    assert config["config"]["max_concurrent"] == most
    stack.prepare_dagster_home(settings, end_runs=False)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == most


SOURCE, MART, OTHER = dg.AssetKey("source"), dg.AssetKey("mart"), dg.AssetKey("other")


@dg.asset
def source() -> None: ...


@dg.asset
def other() -> None: ...


@dg.asset(deps=[source, other], automation_condition=REFRESHED_ONCE_ALL_IS_THERE)
def of_both() -> None: ...


@dg.asset(deps=[source], automation_condition=REFRESHED_BY_INPUT)
def mart(context: dg.AssetExecutionContext) -> None:
    if context.run.tags.get("fails"):
        raise ValueError("the mart cannot be made")


@pytest.fixture
def ticked():
    """How often the mart is asked for at the next tick, after these assets were stored in this order."""
    yield from _ticking(dg.Definitions([source, mart]))


@pytest.fixture
def ticked_of_both():
    """The same of what is made of two inputs."""
    yield from _ticking(dg.Definitions([source, other, of_both]))


def _ticking(definitions):
    with dg.DagsterInstance.ephemeral() as instance:
        cursor, now = None, datetime.now(UTC).replace(minute=0, second=10)

        def tick(*stored: dg.AssetKey, run: str = "") -> int:
            nonlocal cursor, now
            now += timedelta(seconds=30)
            for key in stored:
                instance.report_runless_asset_event(dg.AssetMaterialization(key))
            if run:
                options = {"selection": [mart], "raise_on_error": False, "tags": {run: "1"}}
                dg.materialize([source, mart], instance=instance, **options)
            result = dg.evaluate_automation_conditions(definitions, instance, evaluation_time=now, cursor=cursor)
            cursor = result.cursor
            return result.total_requested

        yield tick


def test_a_changed_input_asks_for_the_mart_once(ticked):
    assert ticked(SOURCE, MART) == 0, "what was there at first is not made again"
    assert ticked() == 0
    assert ticked(SOURCE) == 1
    assert ticked(MART) == 0
    assert [ticked(), ticked()] == [0, 0]


def test_an_input_stored_while_the_mart_was_made_is_not_missed(ticked):
    ticked()
    assert ticked(SOURCE) == 1
    asked = [ticked(SOURCE, MART), ticked(), ticked(), ticked()]
    assert sum(asked) == 1, "the mart may have been made from what the input was before"


def test_what_lacks_an_input_is_asked_for_once_that_is_there(ticked_of_both):
    assert [ticked_of_both(), ticked_of_both(SOURCE), ticked_of_both()] == [0, 0, 0]
    assert [ticked_of_both(OTHER), ticked_of_both()] == [1, 0]
    assert ticked_of_both(SOURCE) == 1


@pytest.mark.parametrize("changes", range(1, 7))
def test_the_last_of_many_changes_is_not_missed(ticked, changes):
    ticked()
    asked = [ticked(SOURCE) for _ in range(changes)]
    assert sum([asked[-1], ticked(), ticked(), ticked()]) == 1


def test_a_mart_that_could_not_be_made_is_asked_for_again_until_it_is(ticked):
    ticked()
    assert ticked(SOURCE) == 1
    for _ in range(3):
        asked = [ticked(run="fails"), *(ticked() for _ in range(12))]
        assert sum(asked) in (1, 2), "every five minutes"
    assert ticked(run="succeeds") == 0
    assert sum(ticked() for _ in range(30)) == 0
