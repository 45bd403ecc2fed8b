"""Aggregation, and what removing a queue leaves behind."""

import pytest

from otel_queue.errors import QueueNotFoundError
from tests.conformance.lab import Lab
from tests.conformance.same import assert_queue_is_same, assert_same_groups, assert_same_tasks
from tests.servers.process import wait_until

AGGREGATION = {
    "aggregator": "join",
    "aggregated_type": "ok:joined",
    "aggregated_options": {"retention": 3600},
    "group_grace_period": 1,
}


def test_groups_are_joined_and_a_scheduled_member_runs_alone(lab: Lab) -> None:
    lab.enqueue("ok", queue="w", task_id="a1", group="G", payload=b"1")
    lab.enqueue("ok", queue="w", task_id="a2", group="G", payload=b"2", unique=600)
    lab.enqueue("ok", queue="w", task_id="a3", group="H:x", payload=b"3")
    lab.enqueue("ok", queue="w", task_id="s1", group="G", process_in=0.5)
    assert assert_same_groups(lab, "w") == {"G": 2, "H:x": 1}
    assert_queue_is_same(lab, "w")

    lab.start_server(queues={"w": 1}, **AGGREGATION)

    lab.wait_for_info("w", completed=2, processed=3, groups=0, aggregating=0, scheduled=0, active=0)
    assert_queue_is_same(lab, "w")
    assert assert_same_groups(lab, "w") == {}
    assert len(lab.stored_keys("asynq:{w}:unique:*")) == 1, "the lock of a joined task stays until its time"


def test_a_group_beyond_the_maximum_is_joined_in_portions(lab: Lab) -> None:
    for number in range(5):
        lab.enqueue("ok", queue="w", task_id=f"a{number}", group="G", payload=b"x")

    lab.start_server(queues={"w": 1}, **AGGREGATION, group_max_size=2)

    lab.wait_for_info("w", completed=3, groups=0, aggregating=0)
    assert sorted(task.payload or b"" for task in lab.ours.tasks("w", "completed")) == [b"x", b"xx", b"xx"]
    assert_queue_is_same(lab, "w")
    assert_same_tasks(lab, "w", "completed")


def test_an_aggregation_set_in_flight_is_in_no_count(lab: Lab) -> None:
    lab.enqueue("ok", queue="w", task_id="a1", group="G")
    lab.enqueue("ok", queue="w", task_id="a2", group="G")
    peer = lab.start_server(queues={"w": 1}, **(AGGREGATION | {"aggregator": "block"}))
    wait_until(lambda: lab.redis.zcard("asynq:{w}:aggregation_sets") == 1, what="an aggregation in flight")

    lab.wait_for_info("w", size=0, groups=0, aggregating=0)
    assert_queue_is_same(lab, "w")
    assert lab.redis.hget("asynq:{w}:t:a1", "state") == b"aggregating"

    peer.kill()
    (in_flight,) = lab.ids("asynq:{w}:aggregation_sets")
    lab.redis.zadd("asynq:{w}:aggregation_sets", {in_flight: 1})
    lab.start_server(queues={"w": 1})

    # Reclaimed, but the group's name is not put back: both inspectors go by the names.
    wait_until(lambda: lab.ids("asynq:{w}:g:G") == ["a1", "a2"], what="the group has its tasks back")
    assert lab.redis.exists("asynq:{w}:groups") == 0
    lab.wait_for_info("w", size=0, aggregating=0)
    assert_queue_is_same(lab, "w")

    lab.enqueue("ok", queue="w", task_id="a3", group="G")
    assert assert_queue_is_same(lab, "w").aggregating == 3, "a new member brings them all back"


def test_removing_a_queue_leaves_everything_but_its_lists(lab: Lab) -> None:
    lab.enqueue("ok", queue="w", retention=3600)
    lab.start_server(queues={"w": 1})
    lab.wait_for_info("w", completed=1, processed=1)
    lab.go.call("pause_queue", queue="w")
    lab.enqueue("ok", queue="w", task_id="locked", payload=b"1", unique=600)
    lab.enqueue("ok", queue="w", task_id="grouped", group="G")

    lab.go.call("delete_queue", queue="w", force=True)

    assert lab.go.call("queues") == []
    assert lab.ours.queues() == []
    assert lab.ours.snapshot().queues == ()
    with pytest.raises(QueueNotFoundError):
        lab.ours.queue_info("w")
    left = {key.decode().removeprefix("asynq:{w}:").split(":")[0] for key in lab.stored_keys("asynq:{w}:*")}
    assert left == {"completed", "g", "groups", "paused", "processed", "t", "unique"}
    assert not lab.redis.exists("asynq:{w}:t:locked")


def test_a_producer_that_knew_the_queue_does_not_register_it_again(lab: Lab) -> None:
    lab.enqueue("ok", queue="w")
    lab.go.call("delete_queue", queue="w", force=True)

    lab.enqueue("ok", queue="w")

    assert lab.redis.llen("asynq:{w}:pending") == 1
    assert lab.go.call("queues") == []
    assert lab.ours.queues() == []
