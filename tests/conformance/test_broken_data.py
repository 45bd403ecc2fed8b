"""Evicted, foreign and damaged keys: asynq fails by the queue or altogether, ours by the single number."""

import pytest

from tests.asynq_peer import AsynqError
from tests.conformance.lab import Lab
from tests.conformance.same import assert_queue_is_same, assert_same_tasks


def test_a_pending_id_without_a_hash_fails_asynqs_queue_info(lab: Lab) -> None:
    lab.enqueue("ok", queue="q", task_id="evicted")
    lab.redis.delete("asynq:{q}:t:evicted")

    with pytest.raises(AsynqError, match="arithmetic on local 'bytes'"):
        lab.go_info("q")
    assert [task["id"] for task in lab.go_tasks("q", "pending")] == [""]

    info = lab.ours.queue_info("q")
    assert (info.pending, info.size, info.latency) == (1, 1, None)
    assert [(task.id, task.type) for task in lab.ours.tasks("q", "pending")] == [("evicted", None)]


def test_a_message_that_is_not_protobuf_is_left_out_by_asynq_and_shown_by_ours(lab: Lab) -> None:
    lab.enqueue("ok", queue="q", task_id="json")
    lab.redis.hset("asynq:{q}:t:json", "msg", '{"Type":"ok","Payload":{}}')

    assert lab.go_tasks("q", "pending") == []
    with pytest.raises(AsynqError, match="INTERNAL_ERROR: could not decode task message"):
        lab.go.call("task_info", queue="q", id="json")
    assert_queue_is_same(lab, "q")
    assert [(task.id, task.type) for task in lab.ours.tasks("q", "pending")] == [("json", None)]


def test_a_group_name_without_tasks_makes_asynqs_memory_usage_absurd(lab: Lab) -> None:
    lab.redis.sadd("asynq:queues", "q")
    lab.redis.sadd("asynq:{q}:groups", "empty")

    go = lab.go_info("q")
    assert (go["groups"], go["aggregating"], go["memory_usage"]) == (1, 0, -(2**63))
    assert assert_queue_is_same(lab, "q", apart_from={"memory_usage"}).memory_usage == 0
    assert lab.ours.groups("q") == {"empty": 0}


def test_a_blank_queue_name_stops_asynqs_collection_and_not_ours(lab: Lab) -> None:
    lab.enqueue("ok", queue="q")
    lab.redis.sadd("asynq:queues", "")

    with pytest.raises(AsynqError, match="queue name must contain one or more characters"):
        lab.go.call("bench_collect", rounds=1)
    assert_queue_is_same(lab, "q")


@pytest.mark.parametrize("state", ["pending", "active", "scheduled", "retry", "archived", "completed"])
def test_a_key_of_the_wrong_type_costs_its_own_number_only(lab: Lab, state: str) -> None:
    lab.enqueue("ok", queue="q", task_id="t1", group="G")
    lab.redis.set(f"asynq:{{q}}:{state}", "not a list")

    with pytest.raises(AsynqError, match="WRONGTYPE"):
        lab.go_info("q")

    info = lab.ours.queue_info("q")
    assert info.in_state(state) is None
    assert info.size is None
    assert info.aggregating == 1
    known = {"pending", "active", "scheduled", "retry", "archived", "completed"} - {state}
    assert {other: info.in_state(other) for other in known} == dict.fromkeys(known, 0)


def test_a_counter_that_is_not_a_number_panics_asynqs_caller(lab: Lab) -> None:
    lab.enqueue("ok", queue="q")
    lab.redis.set("asynq:{q}:processed", "many")

    with pytest.raises(AsynqError, match="panic"):
        lab.go_info("q")

    info = lab.ours.queue_info("q")
    assert (info.processed_total, info.failed_total, info.pending) == (None, 0, 1)


def test_totals_beyond_a_double_are_exact_in_ours(lab: Lab) -> None:
    lab.redis.sadd("asynq:queues", "q")
    lab.redis.mset({"asynq:{q}:processed": 2**63 - 1, "asynq:{q}:failed": 2**53 + 1})

    go = lab.go_info("q")
    assert (go["processed_total"], go["failed_total"]) == (-(2**63), 2**53)

    info = assert_queue_is_same(lab, "q", apart_from={"processed_total", "failed_total"})
    assert (info.processed_total, info.failed_total) == (2**63 - 1, 2**53 + 1)


def test_a_queue_that_is_listed_without_any_key_is_all_zeros(lab: Lab) -> None:
    lab.redis.sadd("asynq:queues", "q")

    info = assert_queue_is_same(lab, "q")

    assert (info.size, info.groups, info.latency, info.memory_usage) == (0, 0, 0, 0)


@pytest.mark.parametrize("queue", ["q:1", " padded ", "a}b", "{a}", "Grün/é", "UPPER", "with space"])
def test_names_are_taken_as_they_are(lab: Lab, queue: str) -> None:
    lab.enqueue("ok", queue=queue, task_id="t:1}{", payload=b"\x00\xff")
    lab.enqueue("ok", queue=queue, task_id="g", group="H:x:y")

    assert lab.go.call("queues") == lab.ours.queues() == [queue]
    assert_queue_is_same(lab, queue)
    assert assert_same_tasks(lab, queue, "pending") == ["t:1}{"]
