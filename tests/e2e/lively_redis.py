"""A Redis with something of everything that is exported, and with names that need escaping."""

import time
from collections.abc import Sequence

import redis

from otel_queue.asynq import keys
from otel_queue.asynq.message import (
    SchedulerEntry,
    ServerInfo,
    TaskMessage,
    WorkerInfo,
    encode_scheduler_entry,
    encode_server_info,
    encode_task_message,
    encode_worker_info,
)
from otel_queue.demo.broker import Broker

# A quote, a backslash, a line break and a letter beyond ASCII: text and protobuf write each of them differently.
AWKWARD_QUEUE = 'so "called" \\ queue\nZürich'
QUEUES = ("default", "CreateEventQueue", "EventQueue", "EventWorkflowQueue", AWKWARD_QUEUE)
FAR_AHEAD_SECONDS = 3_600


def fill(client: redis.Redis) -> None:
    """Puts tasks into every state of every queue; nothing in it moves by itself but ages."""
    for number, queue in enumerate(QUEUES):
        _fill_queue(client, queue, size=number + 2)
    client.set(keys.queue_key("default", "paused"), int(time.time()))
    _register_server(client)
    _register_scheduler(client)


def _fill_queue(client: redis.Redis, queue: str, size: int) -> None:
    now = time.time()
    broker = Broker(client, lambda: now - 30)
    ids = [f"{queue}-{number}" for number in range(size)]
    for task_id in ids:
        broker.enqueue(TaskMessage("email:send", id=f"{task_id}-p", queue=queue))
        broker.enqueue(TaskMessage("email:send", id=f"{task_id}-g", queue=queue, group_key=f"group {task_id}"))
        broker.enqueue(TaskMessage("email:send", id=f"{task_id}-s", queue=queue), process_at=now + FAR_AHEAD_SECONDS)
    _add_sorted(client, queue, "retry", [f"{each}-r" for each in ids[:2]], now - 10)
    _add_sorted(client, queue, "archived", [f"{each}-a" for each in ids[:1]], now)
    _add_sorted(client, queue, "completed", [f"{each}-c" for each in ids], now + FAR_AHEAD_SECONDS)
    _add_active(client, queue, ["held", "late", "bare"], leases={"held": now + FAR_AHEAD_SECONDS, "late": now - 60})
    day = time.strftime("%Y-%m-%d", time.gmtime(now))
    for name, count in ((keys.processed, 1_000 + size), (keys.failed, 10 + size)):
        client.set(name(queue), count)
        client.set(name(queue, day), count // 2)


def _add_sorted(client: redis.Redis, queue: str, state: str, ids: Sequence[str], score: float) -> None:
    for task_id in ids:
        _add_hash(client, queue, task_id, state)
        client.zadd(keys.queue_key(queue, state), {task_id: int(score)})


def _add_active(client: redis.Redis, queue: str, ids: Sequence[str], leases: dict[str, float]) -> None:
    for task_id in ids:
        _add_hash(client, queue, task_id, "active")
        client.lpush(keys.queue_key(queue, "active"), task_id)
    client.zadd(keys.queue_key(queue, "lease"), {task_id: int(until) for task_id, until in leases.items()})


def _add_hash(client: redis.Redis, queue: str, task_id: str, state: str) -> None:
    message = encode_task_message(TaskMessage("email:send", id=task_id, queue=queue))
    client.hset(keys.task(queue, task_id), mapping={"msg": message, "state": state})


def _register_server(client: redis.Redis) -> None:
    now = time.time()
    host, pid, server_id = "worker-1", 41, "5f2a"
    server = ServerInfo(
        host=host,
        pid=pid,
        server_id=server_id,
        concurrency=10,
        queues={"default": 3, "EventQueue": 1},
        start_time=now - 600,
        active_worker_count=1,
    )
    worker = WorkerInfo(host, pid, server_id, "held", "email:send", b"", "default", now - 5, now + 600)
    client.set(keys.server(host, pid, server_id), encode_server_info(server))
    client.hset(keys.workers(host, pid, server_id), "held", encode_worker_info(worker))
    until = now + FAR_AHEAD_SECONDS
    client.zadd(keys.SERVERS, {keys.server(host, pid, server_id): until})
    client.zadd(keys.WORKERS, {keys.workers(host, pid, server_id): until})


def _register_scheduler(client: redis.Redis) -> None:
    now = time.time()
    key = keys.scheduler("worker-1", 41, "77cc")
    entry = SchedulerEntry("e1", "@every 5m", "report:build", next_enqueue_time=now - 20, prev_enqueue_time=now - 320)
    client.lpush(key, encode_scheduler_entry(entry))
    client.zadd(keys.SCHEDULERS, {key: now + FAR_AHEAD_SECONDS})
