"""What a scheduler tells of its entries."""

from typing import Any

import pytest

from tests.asynq_peer import decoded
from tests.conformance.lab import Lab, until_it_holds
from tests.servers.process import wait_until

DEADLINE = 4_102_444_800  # 2100-01-01


def test_entries_appear_with_the_first_heartbeat_and_go_with_a_clean_shutdown(lab: Lab) -> None:
    peer = lab.start_peer()
    frequent: dict[str, Any] = {
        "spec": "@every 3s", "type": "ok:often", "payload": b"\x01\xff", "queue": "s)q", "task_id": "fixed",
        "group": "G", "timeout": 90, "unique": 5, "max_retry": 3, "deadline": DEADLINE,
    }  # fmt: skip
    yearly: dict[str, Any] = {"spec": "0 0 1 1 *", "type": "ok:yearly"}
    ids = peer.call("start_scheduler", heartbeat_interval=1, entries=[frequent, yearly])
    assert lab.go.call("scheduler_entries") == []
    assert not lab.ours.scheduler_entries()

    first = wait_until(lambda: lab.go.call("scheduler_entries"), what="the first heartbeat")

    assert [entry["id"] for entry in first] == ids[::-1], "the last registered comes first"
    assert [entry["prev_ns"] for entry in first] == [None, None]
    # Asynq cannot parse back a task ID, a group, or an option whose argument holds a parenthesis.
    assert first[1]["options"] == [
        "Timeout(1m30s)",
        "Unique(5s)",
        "MaxRetry(3)",
        "Deadline(Fri Jan  1 00:00:00 UTC 2100)",
    ]
    (entries,) = lab.stored_keys("asynq:schedulers:*")
    assert 0 < int(lab.redis.ttl(entries)) <= 2
    ours = wait_until(lab.ours.scheduler_entries)
    assert list(ours[0].enqueue_options) == [
        'Queue("s)q")',
        'TaskID("fixed")',
        'Group("G")',
        *first[1]["options"],
    ]

    wait_until(lambda: lab.go.call("scheduler_entries")[1]["prev_ns"], what="a run that a heartbeat tells of")
    assert_same_entries(lab)
    # The task ID is fixed, so that only the first run could enqueue.
    assert len(lab.go.call("enqueue_events", entry_id=ids[0])) == 1

    peer.call("stop_scheduler")

    assert [key for key in lab.stored_keys() if key.startswith(b"asynq:schedul")] == []
    assert not lab.ours.scheduler_entries()
    assert lab.go_info("s)q")["aggregating"] == 1
    assert lab.ours.queue_info("s)q").aggregating == 1


def assert_same_entries(lab: Lab) -> None:
    """Ours are in the order of registration, asynq's the other way round."""

    def same() -> None:
        go = lab.go.call("scheduler_entries")[::-1]
        ours = lab.ours.scheduler_entries()
        assert [(entry.id, entry.spec, entry.task_type, entry.task_payload) for entry in ours] == [
            (entry["id"], entry["spec"], entry["task_type"], decoded(entry["task_payload"])) for entry in go
        ]
        for entry, go_entry in zip(ours, go, strict=True):
            assert (entry.prev_enqueue_time is None) == (go_entry["prev_ns"] is None)
            assert (entry.prev_enqueue_time or 0) == pytest.approx((go_entry["prev_ns"] or 0) / 1e9)
            assert entry.next_enqueue_time == pytest.approx(go_entry["next_ns"] / 1e9)

    # A heartbeat may fall between the two questions.
    until_it_holds(same)


def test_a_killed_scheduler_is_listed_until_its_time_and_leaks_its_history(lab: Lab) -> None:
    peer = lab.start_peer()
    entry = {"spec": "@every 1s", "type": "ok", "queue": "w"}
    (entry_id,) = peer.call("start_scheduler", heartbeat_interval=1, entries=[entry])
    wait_until(lambda: lab.go.call("enqueue_events", entry_id=entry_id), what="the first run")
    wait_until(lambda: lab.ours.scheduler_entries(), what="the first heartbeat")

    peer.kill()

    wait_until(lambda: lab.ours.scheduler_entries() in ([], ()), what="the heartbeat's end")
    assert lab.go.call("scheduler_entries") == []
    assert lab.stored_keys("asynq:scheduler_history:*") == [f"asynq:scheduler_history:{entry_id}".encode()]
