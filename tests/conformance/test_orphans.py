"""Tasks whose server was killed."""

import time

import pytest

from tests.asynq_peer import AsynqError
from tests.conformance.lab import Lab
from tests.conformance.same import assert_queue_is_same, assert_same_servers, assert_same_tasks
from tests.servers.process import wait_until

LEASE = "asynq:{w}:lease"


@pytest.fixture
def killed(lab: Lab) -> Lab:
    """o1 and o2 are active, their server is gone. o2 has no retry left; its lease ran out over 30 s ago."""
    lab.enqueue("block", queue="w", task_id="o1", payload=b"1")
    lab.enqueue("block", queue="w", task_id="o2", payload=b"2", max_retry=0)
    peer = lab.start_server(queues={"w": 1}, concurrency=2)
    lab.wait_for_info("w", active=2)
    peer.kill()
    now = int(time.time())
    lab.redis.zadd(LEASE, {"o1": now - 5, "o2": now - 31})
    return lab


def test_an_active_task_is_orphaned_as_soon_as_its_lease_has_run_out(killed: Lab) -> None:
    tasks = killed.go_tasks("w", "active")
    assert {task["id"]: task["is_orphaned"] for task in tasks} == {"o1": True, "o2": True}

    assert_same_tasks(killed, "w", "active")
    info = assert_queue_is_same(killed, "w")
    assert (info.active, info.lease_expired, info.active_without_lease) == (2, 2, 0)


def test_a_killed_server_is_listed_until_its_heartbeat_expires(killed: Lab) -> None:
    assert len(killed.go.call("servers")) == 1
    assert_same_servers(killed)

    (member,) = killed.ids("asynq:servers")
    killed.redis.zadd("asynq:servers", {member: int(time.time()) - 1})

    assert not killed.ours.servers()
    assert killed.redis.zcard("asynq:servers") == 1, "ours only reads"
    assert killed.go.call("servers") == []
    assert killed.redis.zcard("asynq:servers") == 0, "asynq's inspector purges"


@pytest.mark.parametrize("verb", ["delete_task", "archive_task", "run_task"])
def test_asynq_refuses_to_touch_an_active_task(killed: Lab, verb: str) -> None:
    with pytest.raises(AsynqError):
        killed.go.call(verb, queue="w", id="o1")

    assert killed.go_info("w")["active"] == 2


def test_a_server_recovers_what_expired_thirty_seconds_ago(killed: Lab) -> None:
    killed.start_server(queues={"w": 1})

    go = killed.wait_for_info("w", active=1, archived=1)

    assert (go["processed"], go["failed"]) == (1, 1)
    task = killed.go.call("task_info", queue="w", id="o2")
    assert (task["state"], task["last_err"]) == ("archived", "asynq: task lease expired")
    info = assert_queue_is_same(killed, "w")
    assert (info.lease_expired, info.active_without_lease) == (1, 0)


def test_an_active_task_without_a_lease_is_never_flagged_by_asynq(killed: Lab) -> None:
    killed.redis.zrem(LEASE, "o1")

    assert [task["is_orphaned"] for task in killed.go_tasks("w", "active") if task["id"] == "o1"] == [False]
    assert killed.ours.queue_info("w").active_without_lease == 1


def test_dequeuing_an_id_without_a_task_leaves_a_ghost_that_asynq_lists_as_a_blank_task(lab: Lab) -> None:
    lab.enqueue("ok", queue="w", task_id="evicted")
    lab.redis.delete("asynq:{w}:t:evicted")
    lab.start_server(queues={"w": 1})

    # Asynq's queue info fails as long as the ID is pending.
    wait_until(lambda: lab.redis.llen("asynq:{w}:active") == 1, what="the ID is active")

    assert lab.redis.hgetall("asynq:{w}:t:evicted") == {b"state": b"active"}
    assert [task["id"] for task in lab.go_tasks("w", "active")] == [""]
    assert [(task.id, task.type) for task in lab.ours.tasks("w", "active")] == [("evicted", None)]
