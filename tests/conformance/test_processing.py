"""What a running server does to tasks, to counters, and to its own heartbeat."""

from typing import Any

import pytest

from otel_queue.asynq.keys import processed
from tests.asynq_peer import AsynqError
from tests.conformance.lab import Lab
from tests.conformance.same import (
    assert_queue_is_same,
    assert_same_history,
    assert_same_servers,
    assert_same_tasks,
)
from tests.servers.process import wait_until

NINETY_DAYS = 7_776_000


@pytest.fixture
def worked(lab: Lab) -> Lab:
    """Eleven tasks of queue w, one for each way to end, all handled by a server that still runs."""
    tasks: list[tuple[str, dict[str, Any]]] = [
        ("ok", {}),
        ("ok", {"retention": 3600}),
        ("result", {"retention": 3600, "payload": b"answer"}),
        ("result", {"payload": b"lost"}),
        ("fail", {}),
        ("fail", {"max_retry": 0}),
        ("skip_retry", {"unique": 600}),
        ("revoke", {}),
        ("soft", {"task_id": "soft"}),
        ("ok", {"deadline": 1_000_000_000}),
        ("ok", {"unique": 600, "payload": b"locked"}),
    ]
    for task_type, options in tasks:
        lab.enqueue(task_type, queue="w", **options)
    lab.start_server(queues={"w": 1}, retry_delay=3600, soft_failures=True, shutdown_timeout=8)
    lab.wait_for_info("w", retry=3, archived=2, completed=2, processed=10)
    return lab


def test_each_way_to_end_is_counted(worked: Lab) -> None:
    go = worked.go_info("w")
    counts = ("pending", "active", "size", "processed", "failed", "processed_total", "failed_total")
    assert [go[count] for count in counts] == [0, 0, 7, 10, 4, 10, 4]

    assert_queue_is_same(worked, "w")
    assert_same_history(worked, "w", 3)
    for state in ("retry", "archived", "completed"):
        assert_same_tasks(worked, "w", state)


def test_a_soft_failure_is_told_but_not_counted(worked: Lab) -> None:
    task = worked.go.call("task_info", queue="w", id="soft")

    assert (task["state"], task["last_err"], task["retried"]) == ("retry", "not now", 0)


def test_an_archived_task_keeps_its_lock_and_a_done_one_gives_it_back(worked: Lab) -> None:
    assert worked.stored_keys("asynq:{w}:unique:*") == [b"asynq:{w}:unique:skip_retry:"]


def test_the_counters_of_a_day_live_ninety_days_and_the_totals_for_ever(worked: Lab) -> None:
    day = worked.ours.history("w", 1)[0].day

    assert NINETY_DAYS - 60 <= int(worked.redis.ttl(processed("w", day))) <= NINETY_DAYS
    assert worked.redis.ttl(processed("w")) == -1


def test_an_idle_server_has_a_heartbeat_and_no_workers(worked: Lab) -> None:
    (server,) = worked.go.call("servers")
    assert (server["status"], server["queues"], server["active_workers"]) == ("active", {"w": 1}, [])
    (heartbeat,) = worked.stored_keys("asynq:servers:*")
    assert 0 < int(worked.redis.ttl(heartbeat)) <= 10
    assert worked.stored_keys("asynq:workers:*") == []

    assert_same_servers(worked)


def test_busy_workers_appear_and_a_shutdown_gives_their_tasks_back(lab: Lab) -> None:
    for task_id in ("slow1", "slow2"):
        lab.enqueue("block", queue="w", task_id=task_id, payload=task_id.encode())
    peer = lab.start_server(queues={"w": 1, "low": 3}, concurrency=2, strict_priority=True)
    lab.wait_for_info("w", active=2)
    peer.call("quiet_server")
    wait_until(lambda: len(lab.go.call("servers")[0]["active_workers"]) == 2, what="two busy workers")

    (server,) = lab.go.call("servers")
    assert server["status"] == "stopped", "it takes no more tasks, and still works on two"
    for worker in server["active_workers"]:
        assert worker["deadline_ns"] == pytest.approx(worker["started_ns"] + 1800e9, abs=1e9)
    ((_, beat_expiry),) = lab.redis.zrange("asynq:servers", 0, -1, withscores=True)
    wait_until(
        lambda: (
            {
                float(score) - float(beat_expiry)
                for _, score in lab.redis.zrange("asynq:{w}:lease", 0, -1, withscores=True)
            }
            <= {20.0, 21.0}
        ),  # 10 s for the heartbeat, 30 s for the lease; a second may end between the two
        what="the beat that tells of the workers extends their leases",
    )
    assert_same_servers(lab)
    info = assert_queue_is_same(lab, "w")
    assert (info.active_without_lease, info.lease_expired) == (0, 0)

    peer.call("stop_server")

    assert lab.stored_keys("asynq:servers*") == []
    assert lab.stored_keys("asynq:workers*") == []
    assert lab.go.call("servers") == []
    assert not lab.ours.servers()
    go = lab.go_info("w")
    assert (go["pending"], go["active"], go["processed"], go["latency_ns"]) == (2, 0, 0, 0)
    assert not lab.redis.hexists("asynq:{w}:t:slow1", "pending_since")
    # Nobody recorded since when they wait: unknown, where asynq says 0.
    assert assert_queue_is_same(lab, "w", apart_from={"latency"}).latency is None


def test_pausing_stops_dequeuing_only(lab: Lab) -> None:
    lab.enqueue("ok", queue="w")
    lab.enqueue("ok", queue="w", task_id="soon", process_in=0.01)
    lab.go.call("pause_queue", queue="w")
    lab.start_server(queues={"w": 1})

    lab.wait_for_info("w", pending=2, scheduled=0, paused=True, processed=0)
    assert assert_queue_is_same(lab, "w").paused

    lab.go.call("unpause_queue", queue="w")
    lab.wait_for_info("w", pending=0, paused=False, processed=2)
    assert not assert_queue_is_same(lab, "w").paused


def test_pausing_asks_not_for_a_queue_and_refuses_the_second_time(lab: Lab) -> None:
    lab.go.call("pause_queue", queue="zzz")

    with pytest.raises(AsynqError):
        lab.go.call("pause_queue", queue="zzz")
    assert lab.go.call("queues") == []
    assert lab.ours.queues() == []
