"""A small Asynq deployment in Redis, and the assertion that an inspector sees all of it."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Final

from otel_queue.asynq import keys
from otel_queue.asynq.inspector import Inspector
from otel_queue.asynq.message import SchedulerEntry, ServerInfo, TaskMessage, WorkerInfo
from otel_queue.asynq.queue_info import STATES, QueueInfo
from otel_queue.config import RedisConfig
from otel_queue.demo.broker import Broker, Client
from otel_queue.demo.heartbeat import beat_scheduler, beat_server
from otel_queue.redis_client import connect

# What `fill_queue` leaves behind.
FILLED: Final = {
    "pending": 2,
    "active": 1,
    "scheduled": 1,
    "retry": 1,
    "archived": 1,
    "completed": 1,
    "aggregating": 2,
    "groups": 1,
    "size": 9,
    "processed": 4,
    "failed": 2,
    "processed_total": 4,
    "failed_total": 2,
    "paused": True,
    "active_without_lease": 0,
    "lease_expired": 0,
    "overdue_scheduled": 0.0,
    "overdue_retry": 0.0,
}
OLDEST_SECONDS: Final = 60.0
SERVER: Final = ServerInfo("host-a", 7, "server-1", 10, {"filled": 1}, start_time=1_700_000_000.0)
WORKER: Final = WorkerInfo("host-a", 7, "server-1", "t4", "type:t4", b"payload", "filled", 1_700_000_000.0)
ENTRIES: Final = (
    SchedulerEntry("e1", "@every 1m", "report", b"", ('Queue("filled")',), 1_700_000_060.0, None),
    SchedulerEntry("e2", "0 0 1 1 *", "yearly", b"", (), 1_700_000_000.0, 1_699_000_000.0),
)


def task(task_id: str, queue: str = "filled", **fields: Any) -> TaskMessage:
    return TaskMessage(f"type:{task_id}", b"payload", task_id, queue, **fields)


def fill_queue(client: Client, queue: str = "filled") -> None:
    """Tasks in every state, two of them in group G; the oldest pending one waits for OLDEST_SECONDS."""
    now = time.time()
    early = Broker(client, lambda: now - OLDEST_SECONDS)
    for number in range(7):
        early.enqueue(task(f"t{number}", queue, retention=3600 if number == 2 else 0))
    early.enqueue(task("later", queue), process_at=now + 3600)
    for number in range(2):
        early.enqueue(task(f"g{number}", queue, group_key="G"))
    broker = Broker(client, lambda: now)
    retried, archived, completed, done, _active = [taken(broker, queue) for _ in range(5)]
    broker.retry(retried, now + 600, "try again")
    broker.archive(archived, "given up")
    broker.finish(completed)
    broker.finish(done)
    broker.pause(queue)


def taken(broker: Broker, queue: str) -> TaskMessage:
    """The next task, made active."""
    message = broker.dequeue(queue)
    assert message is not None
    return message


def fill(client: Client) -> None:
    """The queue `filled`, an empty queue, a server with a busy worker, and a scheduler."""
    fill_queue(client)
    client.sadd(keys.QUEUES, "empty")
    broker = Broker(client, time.time)
    beat_server(broker, SERVER, [WORKER])
    beat_scheduler(broker, keys.scheduler("host-a", 7, "scheduler-1"), ENTRIES)


@contextlib.contextmanager
def inspecting(url: str, *, timeout_seconds: float = 3.0, **config: Any) -> Iterator[Inspector]:
    """An inspector over a connection of its own; `config` goes to RedisConfig."""
    reader = connect(RedisConfig(url=url, **config))
    try:
        yield Inspector(reader, timeout_seconds=timeout_seconds)
    finally:
        reader.close()


def queue_of(inspector: Inspector, name: str = "filled") -> QueueInfo:
    """One queue out of a snapshot."""
    return next(info for info in inspector.snapshot().queues if info.queue == name)


def values(info: QueueInfo) -> dict[str, Any]:
    """The fields that FILLED knows."""
    return {name: getattr(info, name) for name in FILLED}


def assert_filled(info: QueueInfo) -> None:
    assert values(info) == FILLED
    assert info.latency is not None
    assert OLDEST_SECONDS <= info.latency < OLDEST_SECONDS + 60


def assert_shows_all(inspector: Inspector) -> None:
    """Every method of the inspector tells what `fill` wrote."""
    assert inspector.queues() == ["empty", "filled"]
    snapshot = inspector.snapshot()
    assert snapshot.failures == {}
    empty, filled = snapshot.queues
    assert (empty.queue, filled.queue) == ("empty", "filled")
    assert [empty.in_state(state) for state in STATES] == [0] * len(STATES)
    assert_filled(filled)
    assert snapshot.servers is not None
    assert snapshot.scheduler_entries is not None
    assert [(server.info, server.active_workers) for server in snapshot.servers] == [(SERVER, (WORKER,))]
    assert snapshot.scheduler_entries == ENTRIES
    info = inspector.queue_info("filled")
    assert_filled(info)
    assert info.memory_usage is not None
    assert info.memory_usage > 0
    assert inspector.memory_usage() == {"filled": info.memory_usage, "empty": 0}
    assert [item.id for item in inspector.tasks("filled", "pending")] == ["t5", "t6"]
    assert [item.id for item in inspector.tasks("filled", "active")] == ["t4"]
    assert inspector.groups("filled") == {"G": 2}
    assert [(day.processed, day.failed) for day in inspector.history("filled", 1)] == [(4, 2)]
    assert inspector.sample_task_types(["filled"])["filled"]["pending"] == {"type:t5": 1, "type:t6": 1}
    assert inspector.servers() == list(snapshot.servers)
    assert inspector.scheduler_entries() == list(ENTRIES)
