import json
import random
import time
from dataclasses import replace

import dagster as dg
import pytest
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.test_utils import create_run_for_test
from dagster._utils.error import SerializableErrorInfo
from hypothesis import given
from hypothesis import strategies as st

from bigdata_assets.resources.kafka import KafkaResource, Offsets
from bigdata_assets.runs import interruptions
from bigdata_assets.runs.ranges import RANGE_END, RANGE_START, covered, tags_for
from bigdata_assets.settings import Settings
from bigdata_assets.streams import planner
from bigdata_assets.streams import stream as stream_module
from bigdata_assets.streams.batches import Batch, BatchError, next_offsets, parse, plan, topic_of
from bigdata_assets.streams.planner import Planner
from bigdata_assets.streams.stream import Stream
from bigdata_assets.streams.tables import messages_table
from bigdata_assets_tests.runs import ERROR, fail

PARTITIONS = dg.DynamicPartitionsDefinition(name="some_batches")
READ, LAST = dg.AssetKey(["toy", "read"]), dg.AssetKey(["toy", "last"])
STREAM = Stream("t", PARTITIONS, messages_table("toy", "messages"), READ, LAST, "job", "sensor")


@given(
    st.from_regex(r"[A-Za-z0-9._-]{1,30}", fullmatch=True),
    st.integers(0, 5_000),
    st.integers(0, 10**13),
    st.integers(1, 10**6),
)
def test_a_key_names_its_batch(topic, partition, first, rows):
    batch = Batch(topic, partition, first, first + rows)
    assert parse(batch.key) == batch
    assert "," not in batch.key
    assert len(batch) == rows


@pytest.mark.parametrize(
    "key",
    [
        "",
        "crimes",
        "crimes-p000-000000000005-000000000005",
        "crimes-p000-000000005-000000006",
        "crimes-p0-0-5",
        "crimes-p000-000000000000-000000000005,",
    ],
)
def test_what_is_no_key_is_refused(key):
    with pytest.raises(BatchError, match="no batch's key"):
        parse(key)


@given(st.integers(0, 10**13), st.integers(1, 10**6))
def test_an_old_key_with_more_digits_is_the_same_batch_and_stays_as_it_is(first, rows):
    old = f"t-p000-{first:012d}-{first + rows:012d}"
    assert parse(old).key == old
    assert parse(old) == Batch("t", 0, first, first + rows)
    assert len({parse(old), Batch("t", 0, first, first + rows)}) == 1


def test_keys_sort_as_their_offsets():
    batches = [Batch("t", 0, first, first + 7) for first in range(0, 20_000, 7)]
    assert sorted(batch.key for batch in batches) == [batch.key for batch in batches]


@given(st.data())
def test_plans_cover_each_offset_once_whatever_arrives(data):
    """Messages arrive, some expire, planners are cut short: no offset is left out and none is in two batches."""
    batches, held = [], {0: Offsets(3, 3), 1: Offsets(0, 0)}
    begins = {partition: offsets.begin for partition, offsets in held.items()}
    for _ in range(data.draw(st.integers(1, 12))):
        for partition, offsets in held.items():
            end = offsets.end + data.draw(st.integers(0, 25))
            begin = data.draw(st.integers(offsets.begin, end)) if batches else offsets.begin
            held[partition] = Offsets(begin, end)
        ripe = data.draw(st.sets(st.sampled_from([0, 1])))
        new = plan("t", next_offsets(batches), held, 10, ripe, data.draw(st.integers(0, 4)))
        batches += new
    while new := plan("t", next_offsets(batches), held, 10, held, 3):
        batches += new
    for partition, offsets in held.items():
        mine = [batch for batch in batches if batch.partition == partition]
        covered_offsets = [offset for batch in mine for offset in range(batch.first, batch.end)]
        first = mine[0].first if mine else offsets.begin
        assert covered_offsets == list(range(first, offsets.end))
        assert first >= begins[partition]


def test_a_batch_waits_until_it_is_full_or_ripe():
    held = {0: Offsets(0, 25), 1: Offsets(0, 5)}
    assert plan("t", {}, held, 10, (), 10) == [Batch("t", 0, 0, 10), Batch("t", 0, 10, 20)]
    assert plan("t", {}, held, 10, (1,), 10) == [Batch("t", 0, 0, 10), Batch("t", 1, 0, 5), Batch("t", 0, 10, 20)]


def test_what_expired_before_it_was_read_is_a_batch_of_its_own():
    found = plan("t", {0: 7}, {0: Offsets(20, 32)}, 10, (), 10)
    assert found == [Batch("t", 0, 7, 20), Batch("t", 0, 20, 30)]


def test_a_topic_made_anew_is_told():
    with pytest.raises(BatchError, match="partition 0 ends at 5, batches up to 7 were planned"):
        plan("t", {0: 7}, {0: Offsets(0, 5)}, 10, (), 10)


def test_what_a_run_is_for():
    keys = ["a", "b", "c", "d"]
    assert covered({"dagster/partition": "b"}, keys) == ["b"]
    start, end = RANGE_START, RANGE_END
    assert covered({start: "b", end: "d"}, keys) == ["b", "c", "d"]
    assert covered({start: "b", end: "gone"}, keys) == []
    assert covered({start: "before", end: "b"}, keys) == []
    assert covered({start: "before", end: "b"}, keys, lambda key: key == "before") == ["a", "b"]


class Broker(KafkaResource):
    """Offsets without a broker: planning is what is tested."""

    def offsets(self, topic: str) -> dict[int, Offsets]:  # noqa: ARG002
        return HELD

    def topic_id(self, topic: str) -> str:  # noqa: ARG002
        return "".join(ID)


HELD: dict[int, Offsets] = {}
ID = ["a"]


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def stream(tmp_path):
    HELD.clear()
    ID[:] = ["a"]
    settings = Settings(DAGSTER_HOME=tmp_path, BATCH_ROWS=10, BATCH_SECONDS=0, BATCHES_PER_RUN=3)
    return Planner(STREAM, settings, Broker(servers="localhost:1"))


def start(instance, request, status=dg.DagsterRunStatus.STARTED):
    tags = dict(request.tags) | ({"dagster/partition": request.partition_key} if request.partition_key else {})
    return create_run_for_test(instance, job_name="job", status=status, tags=tags)


def finish(instance, run, keys):
    for key in keys:
        instance.report_runless_asset_event(dg.AssetMaterialization(LAST, partition=key))
    instance.report_run_canceled(run) if not keys else instance.delete_run(run.run_id)


NOT_EVEN_BEGUN = JobFailureData(None, RunFailureReason.JOB_INITIALIZATION_FAILURE)
INTERRUPTIONS = [
    (),
    ("ChildProcessCrashException",),
    ("DagsterExecutionStepExecutionError", "KafkaUnreachableError"),
    ("DagsterExecutionStepExecutionError", "ValueError", "RetriesExceeded"),
    ("SparkConnectGrpcException: [INVALID_HANDLE.SESSION_NOT_FOUND] The handle is invalid",),
    ("SparkConnectException: [NO_ACTIVE_SESSION] No active Spark session found.",),
    ("UnknownException: (java.lang.IllegalStateException) Cannot call methods on a stopped SparkContext.",),
    ("SparkException: Job 7 cancelled because SparkContext was shut down",),
    ("DagsterExecutionHandleOutputError", "StorageUnreachableError"),
    ("OSError: Generic S3 error: Error performing PUT",),
]


@pytest.mark.parametrize("errors", INTERRUPTIONS)
def test_a_run_that_was_interrupted_is_asked_for_again_at_once_and_as_it_was(stream, instance, clock, errors):
    HELD[0], used = Offsets(0, 30), set()
    for _ in range(planner.HALVED_AFTER):
        (request,), _, _ = stream.tick(instance, None)
        assert covered(request.tags, stream.keys(instance)) == stream.keys(instance), "all three in one run"
        assert request.run_key not in used
        if used:
            fail(instance, start(instance, request), *errors)
            clock.now = time.time() + 1
            assert stream.tick(instance, None)[0] == [], "not on and on"
            clock.now = time.time() + 61
        else:
            fail(instance, start(instance, request), *errors)
            clock.now = time.time()
        used.add(request.run_key)
        assert set(stream.states(instance).values()) == {"waiting"}


@pytest.mark.parametrize(("error", "state"), [("EOFError", "waiting"), ("ValueError", "failed 1 times")])
def test_a_run_whose_fork_server_was_killed_was_interrupted(stream, instance, error, state):
    HELD[0] = Offsets(0, 10)
    (request,), _, _ = stream.tick(instance, None)
    cause = SerializableErrorInfo(f"{error}: unexpected EOF", [], error)
    data = JobFailureData(SerializableErrorInfo("it failed", [], "Exception", cause), RunFailureReason.RUN_EXCEPTION)
    instance.report_run_failed(start(instance, request), job_failure_data=data)
    assert set(stream.states(instance).values()) == {state}


def test_a_run_that_fails_before_its_first_step_has_failed_by_itself(stream, instance):
    HELD[0] = Offsets(0, 10)
    (request,), _, _ = stream.tick(instance, None)
    instance.report_run_failed(start(instance, request), job_failure_data=NOT_EVEN_BEGUN)
    assert set(stream.states(instance).values()) == {"failed 1 times"}


def test_what_has_been_interrupted_very_often_is_asked_for_seldom(stream, instance, clock):
    HELD[0], clock.now = Offsets(0, 10), time.time()
    for _ in range(interruptions.MANY + 1):
        (request,), _, _ = stream.tick(instance, None)
        fail(instance, start(instance, request))
        clock.now = time.time() + 61
    assert stream.tick(instance, None)[0] == []
    clock.now = time.time() + interruptions.SELDOM_S + 1
    assert len(stream.tick(instance, None)[0]) == 1


def test_a_batch_that_ends_its_process_each_time_is_run_alone_is_never_given_up_and_holds_up_nobody(
    stream, instance, clock
):
    HELD[0], clock.now = Offsets(0, 30), time.time()

    def asked_for_after(seconds):
        clock.now = time.time() + seconds
        (request,), _, _ = stream.tick(instance, None)
        return request

    for _ in range(planner.HALVED_AFTER):
        fail(instance, start(instance, asked_for_after(61)))
    first, second, third = stream.keys(instance)
    for _ in range(planner.MAX_ATTEMPTS):
        request = asked_for_after(61)
        assert request.partition_key == first
        fail(instance, start(instance, request))
    for key in (second, third):
        request = asked_for_after(46)
        assert request.partition_key == key
        finish(instance, start(instance, request), [key])
    assert asked_for_after(61).partition_key == first


def test_what_was_interrupted_often_is_run_with_ever_fewer_others(stream, instance, clock):
    stream = Planner(stream.stream, stream.settings.model_copy(update={"batches_per_run": 8}), stream.kafka)
    HELD[0], clock.now, sizes = Offsets(0, 80), time.time(), []
    for _ in range(7):
        clock.now = time.time() + 61
        (request,), _, _ = stream.tick(instance, None)
        keys = covered(request.tags, stream.keys(instance)) or [request.partition_key]
        assert keys[0] == stream.keys(instance)[0]
        sizes.append(len(keys))
        fail(instance, start(instance, request))
    assert sizes == [8, 8, 8, 4, 2, 1, 1]
    # Those that were not in the later ones go together, as often as they themselves were interrupted.
    clock.now = time.time() + 35
    (request,), _, _ = stream.tick(instance, None)
    assert covered(request.tags, stream.keys(instance)) == stream.keys(instance)[4:8]


def test_batches_go_on_behind_old_keys(stream, instance):
    old = "t-p000-000000000000-000000000004"
    instance.add_dynamic_partitions(PARTITIONS.name, [old])
    stream.add_new(instance, {0: Offsets(0, 8)}, [0], 5)
    assert stream.keys(instance) == [old, "t-p000-0000004-0000008"]


def test_a_tick_plans_and_asks_for_one_run_at_a_time(stream, instance):
    assert stream.tick(instance, None)[2].startswith("there is no topic")
    HELD[0] = Offsets(0, 45)
    (request,), cursor, told = stream.tick(instance, None)
    assert told == "lag 0 messages {0: 0}, 5 new batches; 5 waiting"
    keys = stream.keys(instance)
    assert request.tags[RANGE_START] == keys[0]
    assert request.tags[RANGE_END] == keys[2]
    run = start(instance, request)
    requests, _, _ = stream.tick(instance, cursor)
    assert requests == []
    HELD[0] = Offsets(0, 300)
    requests, _, told = stream.tick(instance, cursor)
    assert requests == []
    assert len(stream.keys(instance)) == 9  # a few more wait as partitions, the rest in the topic
    assert told.startswith("lag 215 messages")
    finish(instance, run, keys[:3])
    (request,), _, _ = stream.tick(instance, None)
    assert covered(request.tags, stream.keys(instance)) == stream.keys(instance)[3:6]


class Clock:
    now = 1_000.0

    def time(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(planner, "time", clock)
    monkeypatch.setattr(interruptions, "time", clock)
    return clock


@pytest.fixture
def patient(stream):
    """The stream with messages that ripen after 100 s."""
    return replace(stream, settings=stream.settings.model_copy(update={"batch_seconds": 100.0}))


def test_messages_ripen_by_the_cursor_and_wait_once_more_when_it_is_lost(patient, instance, clock):
    HELD[0] = Offsets(0, 3)
    cursor = None
    for passed, lost in ((0, False), (60, False), (39, False), (0, True), (60, False), (39, False)):
        clock.now += passed
        HELD[0] = Offsets(0, HELD[0].end + 1)  # those that come later do not begin the wait anew
        requests, cursor, _ = patient.tick(instance, None if lost else cursor)
        assert requests == []
    clock.now += 1
    (request,), cursor, _ = patient.tick(instance, cursor)
    assert parse(request.partition_key) == Batch("t", 0, 0, 9)
    assert json.loads(cursor)["since"] == {"0": [0, clock.now - 100]}


@pytest.mark.parametrize("page", [1, 2, 500])
def test_a_lost_cursor_and_a_daemon_killed_between_two_steps_make_no_batch_twice(
    patient, instance, clock, monkeypatch, page
):
    monkeypatch.setattr(stream_module, "PAGE", page)
    generator, cursor = random.Random(1), None

    def tick():
        requests, told, _ = patient.tick(instance, cursor)
        if requests and generator.random() < 0.5:  # else: killed before the run was launched
            run = start(instance, requests[0])
            finish(instance, run, covered(run.tags, patient.keys(instance)))
        return generator.choice((told, told, cursor, None))  # killed before it was stored, or lost

    for _ in range(30):
        HELD[0] = Offsets(0, (HELD[0].end if 0 in HELD else 0) + generator.randrange(8))
        clock.now += generator.randrange(80)
        cursor = tick()
    waited = 0
    while set(patient.states(instance).values()) != {"done"} or parse(patient.keys(instance)[-1]).end < HELD[0].end:
        clock.now += 50
        waited += 1
        assert waited < 200, patient.states(instance)
        cursor = tick()
    batches = [parse(key) for key in patient.keys(instance)]
    assert [offset for batch in batches for offset in range(batch.first, batch.end)] == list(range(HELD[0].end))
    assert {len(batch) == 10 for batch in batches} == {True, False}, "some were full, some had ripened"


def test_a_failed_batch_is_run_again_by_itself_and_never_under_a_used_key(stream, instance, monkeypatch):
    HELD[0] = Offsets(0, 30)
    (request,), _, _ = stream.tick(instance, None)
    fail(instance, start(instance, request), *ERROR)
    assert set(stream.states(instance).values()) == {"failed 1 times"}
    used = {request.run_key}
    assert stream.tick(instance, None)[0] == []  # not at once: what broke it may still be broken
    for attempt in range(1, planner.MAX_ATTEMPTS):
        later = time.time() + interruptions.RETRY_AFTER_S * 4**attempt
        monkeypatch.setattr(interruptions.time, "time", lambda later=later: later)
        (request,), _, _ = stream.tick(instance, None)
        assert request.partition_key == stream.keys(instance)[0]
        assert request.run_key not in used
        used.add(request.run_key)
        monkeypatch.undo()
        fail(instance, start(instance, request), *ERROR)
    HELD[0] = Offsets(0, 40)
    (request,), _, _ = stream.tick(instance, None)
    assert request.partition_key == stream.keys(instance)[3]  # the stream goes on


def test_a_batch_that_failed_long_ago_is_still_known_to_have_failed(stream, instance):
    HELD[0] = Offsets(0, 20)
    stream.add_all(instance)
    first, second = stream.keys(instance)
    for _ in range(planner.MAX_ATTEMPTS):
        run = create_run_for_test(
            instance, job_name="job", status=dg.DagsterRunStatus.STARTED, tags=tags_for(first, first)
        )
        fail(instance, run, *ERROR)
    for _ in range(600):
        create_run_for_test(instance, job_name="job", status=dg.DagsterRunStatus.SUCCESS, tags=tags_for(second, second))
    instance.report_runless_asset_event(dg.AssetMaterialization(LAST, partition=second))
    assert stream.states(instance) == {first: "failed 6 times", second: "done"}
    HELD[0] = Offsets(0, 30)
    (request,), _, _ = stream.tick(instance, None)
    assert request.partition_key == stream.keys(instance)[2]


def test_a_topic_made_anew_under_the_same_name_is_refused_while_batches_of_the_old_one_are_known(stream, instance):
    HELD[0] = Offsets(0, 20)
    stream.add_all(instance)
    ID[:], HELD[0] = ["b"], Offsets(0, 90)  # longer than the old one: by its offsets it could be the same
    with pytest.raises(BatchError, match="made anew"):
        stream.tick(instance, None)
    assert len(stream.keys(instance)) == 2
    for key in stream.keys(instance):
        instance.delete_dynamic_partition(str(PARTITIONS.name), key)
    for _ in range(2):
        stream.tick(instance, None)
    assert parse(stream.keys(instance)[0]) == Batch("t", 0, 0, 10)


def test_a_key_that_somebody_has_added_and_names_no_batch_stops_nothing(stream, instance):
    HELD[0] = Offsets(0, 20)
    instance.add_dynamic_partitions(str(PARTITIONS.name), ["any key"])
    (request,), _, _ = stream.tick(instance, None)
    assert covered(request.tags, stream.keys(instance)) == stream.keys(instance)


def test_a_batch_whose_partition_was_deleted_is_added_again_and_keeps_its_place(stream, instance):
    HELD[0] = Offsets(0, 30)
    stream.add_all(instance)
    keys = stream.keys(instance)
    for number in (0, 3):
        deleted = keys[number]
        instance.delete_dynamic_partition(str(PARTITIONS.name), deleted)
        assert stream.keys(instance) == keys, "what comes after it waits for it"
        HELD[0] = Offsets(0, HELD[0].end + 3)
        (request,), _, told = stream.tick(instance, None)
        assert deleted in told
        assert deleted in instance.get_dynamic_partitions(str(PARTITIONS.name))
        keys += [key for key in stream.keys(instance) if key not in keys]
        assert stream.keys(instance) == keys
        finish(instance, start(instance, request), covered(request.tags, STREAM.present(instance, keys)))
    batches = [parse(key) for key in keys]
    assert [offset for batch in batches for offset in range(batch.first, batch.end)] == list(range(36))


def test_a_run_over_a_batch_that_was_added_again_is_seen_and_its_failure_too(stream, instance, monkeypatch):
    HELD[0] = Offsets(0, 30)
    stream.add_all(instance)
    first, second, third = stream.keys(instance)
    instance.delete_dynamic_partition(str(PARTITIONS.name), first)
    (request,), cursor, _ = stream.tick(instance, None)
    assert (request.tags[RANGE_START], request.tags[RANGE_END]) == (second, first), "as Dagster has them now"
    run = start(instance, request)
    requests, cursor, told = stream.tick(instance, cursor)
    assert requests == []
    assert told.endswith("3 running")
    fail(instance, run, *ERROR)
    assert set(stream.states(instance).values()) == {"failed 1 times"}
    later = time.time() + interruptions.RETRY_AFTER_S
    monkeypatch.setattr(interruptions.time, "time", lambda: later)
    (request,), _, _ = stream.tick(instance, cursor)
    assert request.partition_key == first
    assert third in stream.keys(instance)


def test_a_partition_that_is_not_there_is_added_again_without_the_sensor_too(stream, instance):
    HELD[0] = Offsets(0, 20)
    stream.add_all(instance)
    first, second = stream.keys(instance)
    instance.delete_dynamic_partition(str(PARTITIONS.name), second)
    stream.add_all(instance)
    assert stream.present(instance) == [first, second]


def test_what_an_earlier_version_has_planned_behind_the_record_is_recorded(stream, instance):
    HELD[0] = Offsets(0, 20)
    stream.add_all(instance)
    without_record = [Batch("t", 0, 20, 27), Batch("t", 0, 27, 34)]
    instance.add_dynamic_partitions(str(PARTITIONS.name), [batch.key for batch in without_record])
    instance.report_runless_asset_event(dg.AssetMaterialization(LAST, partition=without_record[0].key))
    HELD[0] = Offsets(0, 40)
    assert "; 1 done, 4 waiting" in stream.tick(instance, None)[2], "what it has made is not made again"
    stream.add_all(instance)
    assert [parse(key) for key in stream.keys(instance)][2:] == [*without_record, Batch("t", 0, 34, 40)]


def test_without_topic_ids_what_was_given_up_stays_given_up(stream, instance):
    ID.clear()
    HELD[0] = Offsets(0, 10)
    stream.add_all(instance)
    stream.give_up(instance, stream.keys(instance)[0])
    stream.tick(instance, None)
    assert stream.keys(instance) == []


def test_a_run_of_batches_that_were_settled_long_ago_is_waited_for(stream, instance, monkeypatch):
    monkeypatch.setattr(stream_module, "PAGE", 2)
    HELD[0] = Offsets(0, 100)
    stream.add_all(instance)
    keys = stream.keys(instance)
    for key in keys:
        instance.report_runless_asset_event(dg.AssetMaterialization(LAST, partition=key))
    create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, tags=tags_for(keys[0], keys[1]))
    HELD[0] = Offsets(0, 110)
    assert stream.tick(instance, None)[0] == []


def test_a_batch_that_somebody_has_added_or_that_was_given_up_has_no_place_in_a_run(stream, instance):
    HELD[0] = Offsets(0, 30)
    stream.add_all(instance)
    keys = stream.keys(instance)
    stream.give_up(instance, keys[1])
    by_hand = Batch("t", 0, 5, 15).key
    instance.add_dynamic_partitions(str(PARTITIONS.name), [by_hand])
    assert STREAM.order_for(instance, [keys[2]]) == [keys[0], keys[2]]
    for strange in (keys[1], by_hand):
        with pytest.raises(BatchError, match="given up, or added by hand"):
            STREAM.order_for(instance, [keys[0], strange])
    assert "lag 0 messages" in stream.tick(instance, None)[2]


def test_a_run_is_for_one_topic():
    keys = [Batch("t", 0, 0, 10).key, Batch("u", 0, 0, 10).key]
    assert topic_of(keys[:1]) == "t"
    with pytest.raises(BatchError, match=r"\['t', 'u'\]"):
        topic_of(keys)


def test_a_tick_looks_at_few_batches_until_its_cursor_is_old(stream, instance, clock, monkeypatch):
    monkeypatch.setattr(stream_module, "PAGE", 4)
    clock.now, HELD[0] = time.time(), Offsets(0, 200)
    stream.add_all(instance)
    keys = stream.keys(instance)
    for key in keys[:-1]:
        instance.report_runless_asset_event(dg.AssetMaterialization(LAST, partition=key))
    _, cursor, told = stream.tick(instance, None)
    assert told.endswith("19 done, 1 waiting")
    looked_at, look = [], Stream.done

    def counted(self, of, keys):
        looked_at.extend(keys)
        return look(self, of, keys)

    monkeypatch.setattr(Stream, "done", counted)
    HELD[0] = Offsets(0, 210)
    everything = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, tags=tags_for(keys[0], keys[-1]))
    requests, _, told = stream.tick(instance, cursor)
    assert requests == []
    assert told.endswith("running, 1 waiting"), "a run that began before what is looked at"
    instance.delete_run(everything.run_id)
    looked_at.clear()
    _, cursor, told = stream.tick(instance, cursor)
    assert told.endswith("19 done, 2 waiting")
    assert len(looked_at) <= 12
    instance.wipe_assets([LAST])
    assert " done, " in stream.tick(instance, cursor)[2]
    clock.now += planner.AFRESH_S + 1
    assert stream.tick(instance, cursor)[2].endswith("new batches; 21 waiting")


def test_partitions_of_old_batches_are_taken_away_and_stay_known(stream, instance):
    HELD[0] = Offsets(0, 60)
    stream.add_all(instance)
    keys = stream.keys(instance)
    for key in (*keys[:2], keys[3]):
        instance.report_runless_asset_event(dg.AssetMaterialization(LAST, partition=key))
    assert stream.retire(instance, keep=3) == keys[:2], "what is not done stays, and so do the last three"
    (request,), _, told = stream.tick(instance, None)
    assert told == "lag 0 messages {0: 0}, 0 new batches; 3 done, 3 waiting"
    assert request.partition_key == keys[2]
    assert stream.keys(instance) == keys
    assert stream.present(instance) == keys[2:], "none is added again"


def test_what_is_given_up_is_not_planned_again(stream, instance):
    HELD[0] = Offsets(0, 30)
    stream.add_all(instance)
    first, second, last = stream.keys(instance)
    stream.give_up(instance, last)
    stream.add_all(instance)
    assert stream.keys(instance) == [first, second]
    assert "lag 0 messages" in stream.tick(instance, None)[2]
    HELD[0] = Offsets(0, 40)
    stream.add_all(instance)
    assert parse(stream.keys(instance)[2]) == Batch("t", 0, 30, 40)


def test_only_a_batch_that_holds_up_others_is_given_up(stream, instance):
    HELD[0] = Offsets(0, 30)
    stream.add_all(instance)
    first, second, _ = stream.keys(instance)
    instance.report_runless_asset_event(dg.AssetMaterialization(READ, partition=first))
    create_run_for_test(instance, job_name="any", status=dg.DagsterRunStatus.STARTED, tags=tags_for(second, second))
    for key in (first, second, "no batch"):
        with pytest.raises(BatchError, match="is not given up"):
            stream.give_up(instance, key)
    assert len(stream.keys(instance)) == 3


def test_no_batch_of_a_partition_jumps_an_earlier_one(instance):
    batches = [Batch("t", number % 2, 10 * (number // 2), 10 * (number // 2) + 10) for number in range(6)]
    STREAM.record(instance, batches)
    STREAM.add(instance, batches)
    keys = [batch.key for batch in batches]

    def made(key):
        instance.report_runless_asset_event(dg.AssetMaterialization(READ, partition=key))

    assert STREAM.in_order(instance, [keys[2], keys[0]], READ) == [keys[0], keys[2]]
    with pytest.raises(stream_module.EarlierBatchError, match=keys[0]):
        STREAM.in_order(instance, [keys[2]], READ)
    made(keys[0])
    assert STREAM.in_order(instance, [keys[2]], READ) == [keys[2]]  # what is of the other partition may wait
    with pytest.raises(stream_module.EarlierBatchError, match=keys[2]):
        STREAM.in_order(instance, [keys[4]], READ)
    STREAM.give_up(instance, keys[2])
    assert STREAM.in_order(instance, [keys[4]], READ) == [keys[4]]
    assert STREAM.before(instance, keys[4]) == [keys[0], keys[1], keys[3]]
    assert "EarlierBatchError" in interruptions.BY_ENGINE
