"""What it means that both inspectors say the same."""

from collections.abc import Collection
from typing import Any, Final

import pytest

from otel_queue.asynq.queue_info import QueueInfo, TaskInfo
from tests.asynq_peer import decoded
from tests.conformance.lab import Lab

# GetQueueInfo's numbers that must be equal; latency is compared apart, since each reader has its own "now".
EXACT: Final = (
    "queue", "memory_usage", "size", "groups", "pending", "active", "scheduled", "retry", "archived",
    "completed", "aggregating", "processed", "failed", "processed_total", "failed_total", "paused",
)  # fmt: skip
# Go takes its two times one after the other: on a busy machine they are many milliseconds apart.
LATENCY_TOLERANCE_SECONDS: Final = 0.5


def assert_same_queue_info(ours: QueueInfo, go: dict[str, Any], *, apart_from: Collection[str] = ()) -> None:
    """Every field of GetQueueInfo but those named. Latency is the same if it starts at about the same moment."""
    fields = [field for field in EXACT if field not in apart_from]
    assert {field: getattr(ours, field) for field in fields} == {field: go[field] for field in fields}
    if "latency" in apart_from:
        return
    if go["latency_ns"] == 0:
        assert ours.latency == 0
    else:
        assert ours.latency is not None
        go_since = (go["timestamp_ns"] - go["latency_ns"]) / 1e9
        assert ours.timestamp - ours.latency == pytest.approx(go_since, abs=LATENCY_TOLERANCE_SECONDS)


def assert_queue_is_same(lab: Lab, queue: str, *, apart_from: Collection[str] = ()) -> QueueInfo:
    """Asks both inspectors, and compares the snapshot's row as well; answers ours."""
    ours, go = lab.ours.queue_info(queue), lab.go_info(queue)
    assert_same_queue_info(ours, go, apart_from=apart_from)
    rows = [row for row in lab.ours.snapshot().queues if row.queue == queue]
    assert len(rows) == 1, f"{queue!r} has {len(rows)} rows in the snapshot"
    assert_same_queue_info(rows[0], go, apart_from={"memory_usage", *apart_from})
    return ours


def comparable(task: TaskInfo) -> dict[str, Any]:
    """Our task in the words that `comparable_go` uses for asynq's."""
    return {
        "id": task.id,
        "queue": task.queue,
        "state": task.state,
        "type": task.type,
        "payload": task.payload,
        "headers": dict(task.headers or {}),
        "max_retry": task.max_retry,
        "retried": task.retried,
        "last_err": task.last_err or "",
        "last_failed_at": task.last_failed_at or None,
        "completed_at": task.completed_at or None,
        "group": task.group or "",
        # Asynq says "now" of a pending task.
        "next_process_at": None if task.state == "pending" else task.next_process_at,
        "is_orphaned": task.is_orphaned,
    }


def comparable_go(task: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": task["id"],
        "queue": task["queue"],
        "state": task["state"],
        "type": task["type"],
        "payload": decoded(task["payload"]),
        "headers": task["headers"] or {},
        "max_retry": task["max_retry"],
        "retried": task["retried"],
        "last_err": task["last_err"],
        "last_failed_at": _seconds(task["last_failed_at_ns"]),
        "completed_at": _seconds(task["completed_at_ns"]),
        "group": task["group"],
        "next_process_at": None if task["state"] == "pending" else _seconds(task["next_process_at_ns"]),
        "is_orphaned": task["is_orphaned"],
    }


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


def assert_same_tasks(lab: Lab, queue: str, state: str, *, page_size: int = 30, page: int = 1) -> list[str]:
    """One page of a list, task by task in order; answers the IDs."""
    go = lab.go_tasks(queue, state, page_size=page_size, page=page)
    ours = lab.ours.tasks(queue, state, page_size=page_size, page=page)
    assert [comparable(task) for task in ours] == [comparable_go(task) for task in go]
    return [task.id for task in ours]


def assert_same_servers(lab: Lab) -> None:
    go: dict[str, Any] = {
        server["id"]: (
            server["host"],
            server["pid"],
            server["concurrency"],
            server["queues"],
            server["strict_priority"],
            server["status"],
            pytest.approx(_seconds(server["started_ns"]), abs=1e-3),
            sorted(
                (worker["task_id"], worker["task_type"], decoded(worker["task_payload"]), worker["queue"])
                for worker in server["active_workers"]
            ),
        )
        for server in lab.go.call("servers")
    }
    ours = {
        server.info.server_id: (
            server.info.host,
            server.info.pid,
            server.info.concurrency,
            dict(server.info.queues),
            server.info.strict_priority,
            server.info.status,
            server.info.start_time,
            sorted(
                (worker.task_id, worker.task_type, worker.task_payload, worker.queue)
                for worker in server.active_workers or ()
            ),
        )
        for server in lab.ours.servers()
    }
    assert ours == go


def assert_same_history(lab: Lab, queue: str, days: int) -> None:
    go = lab.go.call("history", queue=queue, days=days)
    ours = lab.ours.history(queue, days)
    assert [(day.day, day.processed, day.failed) for day in ours] == [
        (day["day"], day["processed"], day["failed"]) for day in go
    ]


def assert_same_groups(lab: Lab, queue: str) -> dict[str, int]:
    go = {group["group"]: group["size"] for group in lab.go.call("groups", queue=queue)}
    assert lab.ours.groups(queue) == go
    return go
