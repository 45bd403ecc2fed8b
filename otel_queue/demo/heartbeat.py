"""What asynq's servers and schedulers write about themselves while they live."""

from collections.abc import Sequence
from typing import Final

from otel_queue.asynq import keys
from otel_queue.asynq.message import (
    SchedulerEnqueueEvent,
    SchedulerEntry,
    ServerInfo,
    WorkerInfo,
    encode_scheduler_enqueue_event,
    encode_scheduler_entry,
    encode_server_info,
    encode_worker_info,
)
from otel_queue.demo.broker import Broker

SERVER_BEAT_SECONDS: Final = 5
SCHEDULER_BEAT_SECONDS: Final = 10
_MAX_HISTORY: Final = 1000


def beat_server(broker: Broker, server: ServerInfo, workers: Sequence[WorkerInfo]) -> None:
    """Say for ten seconds that a server lives, with what its workers are doing."""
    server_key = keys.server(server.host, server.pid, server.server_id)
    workers_key = keys.workers(server.host, server.pid, server.server_id)
    ttl = 2 * SERVER_BEAT_SECONDS
    expiry = int(broker.clock()) + ttl
    pipe = broker.transaction()
    pipe.set(server_key, encode_server_info(server), ex=ttl)
    pipe.delete(workers_key)
    if workers:
        pipe.hset(workers_key, mapping={worker.task_id: encode_worker_info(worker) for worker in workers})
        pipe.expire(workers_key, ttl)
    pipe.execute()
    # The two sets lie in slots of their own, so they are no part of the transaction.
    broker.client.zadd(keys.SERVERS, {server_key: expiry})
    broker.client.zadd(keys.WORKERS, {workers_key: expiry})


def clear_server(broker: Broker, server: ServerInfo) -> None:
    """A clean shutdown: nothing of the server is left."""
    server_key = keys.server(server.host, server.pid, server.server_id)
    workers_key = keys.workers(server.host, server.pid, server.server_id)
    broker.client.zrem(keys.SERVERS, server_key)
    broker.client.zrem(keys.WORKERS, workers_key)
    broker.client.delete(server_key, workers_key)


def purge_dead(broker: Broker) -> None:
    """Forget servers and schedulers that died, as any reader with asynq's Go inspector does."""
    for key in (keys.SERVERS, keys.WORKERS, keys.SCHEDULERS):
        broker.client.zremrangebyscore(key, "-inf", f"({int(broker.clock())}")


def beat_scheduler(broker: Broker, scheduler_key: bytes, entries: Sequence[SchedulerEntry]) -> None:
    """Say for twenty seconds that a scheduler lives, with its entries (stored in reverse, as asynq does)."""
    ttl = 2 * SCHEDULER_BEAT_SECONDS
    pipe = broker.transaction()
    pipe.delete(scheduler_key)
    pipe.lpush(scheduler_key, *map(encode_scheduler_entry, entries))
    pipe.expire(scheduler_key, ttl)
    pipe.execute()
    broker.client.zadd(keys.SCHEDULERS, {scheduler_key: int(broker.clock()) + ttl})


def record_enqueue(broker: Broker, entry_id: str, task_id: str) -> None:
    """Add to an entry's history, which keeps the 1000 newest runs."""
    now = broker.clock()
    history = keys.scheduler_history(entry_id)
    event = encode_scheduler_enqueue_event(SchedulerEnqueueEvent(task_id, now))
    pipe = broker.transaction()
    pipe.zadd(history, {event: int(now)})
    pipe.zremrangebyrank(history, 0, -_MAX_HISTORY - 1)
    pipe.execute()


def clear_scheduler(broker: Broker, scheduler_key: bytes, entry_ids: Sequence[str]) -> None:
    """A clean shutdown: neither entries nor histories are left."""
    broker.client.zrem(keys.SCHEDULERS, scheduler_key)
    broker.client.delete(scheduler_key)
    for entry_id in entry_ids:
        broker.client.delete(keys.scheduler_history(entry_id))
