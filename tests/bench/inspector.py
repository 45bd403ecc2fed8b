"""Collecting all queues: our inspector against asynq's own, on the same Redis, turn by turn in one run."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis

from otel_queue.asynq import keys
from otel_queue.asynq.inspector import Inspector
from otel_queue.asynq.message import TaskMessage, encode_task_message
from otel_queue.config import RedisConfig
from otel_queue.redis_client import connect
from tests.asynq_peer import AsynqPeer
from tests.bench.result import Result
from tests.servers.proxy import slow_proxy
from tests.servers.redis import RedisServer, redis_server

WALL_BUDGET = 1 / 6
REDIS_BUDGET = 1 / 10
QUEUES = (9, 100, 500)
ROUNDS = 15
GO_ROUNDS = 5


def wall(bench: str) -> Iterator[Result]:
    """Wall time into finished snapshot objects; asynq's inspector as its collector calls it."""
    for queues in QUEUES:
        with filled_redis(queues) as server, AsynqPeer(server.url) as peer:
            yield _wall(bench, queues, server.url, peer, WALL_BUDGET if queues == 500 else None, GO_ROUNDS)


def wall_with_delay(bench: str) -> Iterator[Result]:
    """The same with 1 ms of network between: half of it in each direction."""
    with filled_redis(500) as server, slow_proxy(server.port, 0.0005) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        with AsynqPeer(url) as peer:
            yield _wall(bench, 500, url, peer, WALL_BUDGET, 1)


def redis_time(bench: str) -> Iterator[Result]:
    """CPU time of Redis's main thread per collection, from INFO cpu."""
    for queues in QUEUES:
        with filled_redis(queues) as server, AsynqPeer(server.url) as peer:
            inspector = Inspector(connect(RedisConfig(url=server.url)))
            _warm(inspector, peer)
            ours = _main_thread_seconds(server, inspector.snapshot, ROUNDS)
            theirs = _main_thread_seconds(server, lambda: peer.call("bench_collect", rounds=1), GO_ROUNDS)
            detail = {"queues": queues, "redis_ms": ours * 1e3, "redis_ms_go": theirs * 1e3}
            yield Result(bench, ours / theirs, "ratio", REDIS_BUDGET if queues == 500 else None, detail)


def _wall(bench: str, queues: int, url: str, peer: AsynqPeer, budget: float | None, go_rounds: int) -> Result:
    inspector = Inspector(connect(RedisConfig(url=url)), timeout_seconds=30)
    _warm(inspector, peer)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(go_rounds):
        for _ in range(ROUNDS // go_rounds):
            started = time.perf_counter()
            snapshot = inspector.snapshot()
            ours.append(time.perf_counter() - started)
            assert len(snapshot.queues) == queues
        row = peer.call("bench_collect", rounds=1)
        assert row["queues"] == queues
        theirs += [nanoseconds / 1e9 for nanoseconds in row["durations_ns"]]
    mine, go = statistics.median(ours), statistics.median(theirs)
    detail = {"queues": queues, "wall_ms": mine * 1e3, "wall_ms_go": go * 1e3, "round_trips": snapshot.round_trips}
    return Result(bench, mine / go, "ratio", budget, detail)


def _warm(inspector: Inspector, peer: AsynqPeer) -> None:
    for _ in range(3):
        inspector.snapshot()
    peer.call("bench_collect", rounds=1)


def _main_thread_seconds(server: RedisServer, collect: Callable[[], object], rounds: int) -> float:
    with server.client() as client:
        before = _cpu(client)
        for _ in range(rounds):
            collect()
        return (_cpu(client) - before) / rounds


def _cpu(client: redis.Redis) -> float:
    cpu = client.info("cpu")
    return float(cpu["used_cpu_sys_main_thread"]) + float(cpu["used_cpu_user_main_thread"])


@contextmanager
def filled_redis(queues: int) -> Iterator[RedisServer]:
    """A Redis with that many queues: each has tasks in all seven states, counters, leases and two groups."""
    with redis_server() as server:
        with server.client() as client:
            for number in range(queues):
                _fill(client, f"queue-{number:03d}")
        yield server


def _fill(client: redis.Redis, queue: str) -> None:
    now, today = time.time(), time.strftime("%Y-%m-%d", time.gmtime())
    pipe = client.pipeline(transaction=False)
    pipe.sadd(keys.QUEUES, queue)
    per_state = {"pending": 25, "active": 5, "scheduled": 5, "retry": 5, "archived": 5, "completed": 5}
    for state, count in per_state.items():
        for number in range(count):
            task_id = f"{state}-{number:08d}-{queue}"
            message = TaskMessage("event", b"{}" * 50, task_id, queue, timeout=1800)
            values: dict[Any, Any] = {"msg": encode_task_message(message), "state": state}
            if state == "pending":
                values["pending_since"] = str(time.time_ns())
            pipe.hset(keys.task(queue, task_id), mapping=values)
            if state in ("pending", "active"):
                pipe.lpush(keys.queue_key(queue, state), task_id)
            else:
                pipe.zadd(keys.queue_key(queue, state), {task_id: int(now) + 3600 + number})
            if state == "active":
                pipe.zadd(keys.queue_key(queue, "lease"), {task_id: int(now) + 3600})
    for group in ("group-a", "group-b"):
        pipe.sadd(keys.queue_key(queue, "groups"), group)
        for number in range(3):
            task_id = f"{group}-{number}-{queue}"
            message = TaskMessage("event", b"{}" * 50, task_id, queue, group_key=group)
            values = {"msg": encode_task_message(message), "state": "aggregating", "group": group}
            pipe.hset(keys.task(queue, task_id), mapping=values)
            pipe.zadd(keys.group(queue, group), {task_id: int(now)})
    for key in (
        keys.processed(queue),
        keys.failed(queue),
        keys.processed(queue, today),
        keys.failed(queue, today),
    ):
        pipe.set(key, 1000)
    pipe.execute()
