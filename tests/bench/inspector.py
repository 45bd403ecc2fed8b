"""Collecting all queues: our inspector against asynq's own, on the same Redis, turn by turn in one run.

Both report the same values of every queue before either is timed, and after; ours reads servers and schedulers as well.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import redis

from otel_queue.asynq import keys
from otel_queue.asynq.inspector import Inspector
from otel_queue.asynq.message import TaskMessage, encode_task_message
from otel_queue.asynq.queue_info import QueueInfo
from otel_queue.config import RedisConfig
from otel_queue.redis_client import connect
from tests.asynq_peer import AsynqPeer
from tests.bench.agreement import agree
from tests.bench.result import Result
from tests.conformance.same import EXACT, LATENCY_TOLERANCE_SECONDS
from tests.servers.proxy import slow_proxy
from tests.servers.redis import RedisServer, redis_server

WALL_BUDGET = 1 / 6
REDIS_BUDGET = 1 / 10
# Where both sample memory, Redis runs the same MEMORY USAGE commands for both: never dearer is what can be promised.
MEMORY_BUDGET = 1.0
QUEUES = (9, 100, 500)
ROUNDS = 15
GO_ROUNDS = 5
Collect = Callable[[], Sequence[QueueInfo]]


def wall(bench: str) -> Iterator[Result]:
    """Wall time into finished snapshot objects; asynq's inspector as its collector calls it.

    GetQueueInfo samples memory too, while a snapshot leaves that to a slower lane.
    """
    yield from _each_size(bench, _wall, with_memory=False)


def wall_with_memory(bench: str) -> Iterator[Result]:
    """The same with the memory of every queue sampled on both sides, by one formula."""
    yield from _each_size(bench, _wall, with_memory=True)


def wall_with_delay(bench: str) -> Iterator[Result]:
    """As `wall`, with 1 ms of network between: half of it in each direction."""
    with filled_redis(QUEUES[-1]) as server, slow_proxy(server.port, 0.0005) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        with AsynqPeer(url) as peer:
            collect = partial(collected, _inspector(url), with_memory=False)
            agree_on_queues(collect, peer, with_memory=False)
            result = _wall(bench, QUEUES[-1], server, collect, peer, go_rounds=1)
            agree_on_queues(collect, peer, with_memory=False)
            yield result


def redis_time(bench: str) -> Iterator[Result]:
    """CPU time of Redis's main thread per collection, from INFO cpu; memory is sampled by asynq alone."""
    yield from _each_size(bench, _redis_time, with_memory=False)


def redis_time_with_memory(bench: str) -> Iterator[Result]:
    """The same with memory sampled on both sides."""
    yield from _each_size(bench, _redis_time, with_memory=True)


def _each_size(bench: str, measure: Callable[..., Result], *, with_memory: bool) -> Iterator[Result]:
    for queues in QUEUES:
        with filled_redis(queues) as server, AsynqPeer(server.url) as peer:
            collect = partial(collected, _inspector(server.url), with_memory=with_memory)
            agree_on_queues(collect, peer, with_memory=with_memory)
            result = measure(bench, queues, server, collect, peer)
            agree_on_queues(collect, peer, with_memory=with_memory)
            if with_memory and result.budget is not None:
                result = replace(result, budget=MEMORY_BUDGET)
            yield result


def collected(inspector: Inspector, *, with_memory: bool) -> Sequence[QueueInfo]:
    """All queues; their memory is what `otel-queue inspect` shows beside a snapshot."""
    infos = inspector.snapshot().queues
    if not with_memory:
        return infos
    usage = inspector.memory_usage([info.queue for info in infos])
    return [info._replace(memory_usage=usage[info.queue]) for info in infos]


def agree_on_queues(collect: Collect, peer: AsynqPeer, *, with_memory: bool) -> None:
    """Raises DisagreementError unless both report the same queues with the same values; warms both up.

    Every field of GetQueueInfo is compared, `memory_usage` only if both sample it. For `latency` the moment at which
    it began is compared, within LATENCY_TOLERANCE_SECONDS.
    """
    for _ in range(3):
        infos = collect()
    rows = [peer.call("queue_info", queue=name) for name in peer.call("queues")]
    fields = [field for field in EXACT if with_memory or field != "memory_usage"]
    agree(
        {(info.queue, field): getattr(info, field) for info in infos for field in fields},
        {(row["queue"], field): row[field] for row in rows for field in fields},
    )
    agree(
        {(info.queue, "waits since"): info.latency and info.timestamp - info.latency for info in infos},
        {(row["queue"], "waits since"): (row["timestamp_ns"] - row["latency_ns"]) / 1e9 for row in rows},
        tolerance=LATENCY_TOLERANCE_SECONDS,
    )


def _wall(
    bench: str, queues: int, server: RedisServer, collect: Collect, peer: AsynqPeer, go_rounds: int = GO_ROUNDS
) -> Result:
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(go_rounds):
        for _ in range(ROUNDS // go_rounds):
            started = time.perf_counter()
            found = collect()
            ours.append(time.perf_counter() - started)
            assert len(found) == queues
        row = peer.call("bench_collect", rounds=1)
        assert row["queues"] == queues
        theirs += [nanoseconds / 1e9 for nanoseconds in row["durations_ns"]]
    mine, go = statistics.median(ours), statistics.median(theirs)
    detail = {"queues": queues, "wall_ms": mine * 1e3, "wall_ms_go": go * 1e3}
    return Result(bench, mine / go, "ratio", WALL_BUDGET if queues == QUEUES[-1] else None, detail)


def _redis_time(bench: str, queues: int, server: RedisServer, collect: Collect, peer: AsynqPeer) -> Result:
    ours = _main_thread_seconds(server, collect, ROUNDS)
    theirs = _main_thread_seconds(server, lambda: peer.call("bench_collect", rounds=1), GO_ROUNDS)
    detail = {"queues": queues, "redis_ms": ours * 1e3, "redis_ms_go": theirs * 1e3}
    return Result(bench, ours / theirs, "ratio", REDIS_BUDGET if queues == QUEUES[-1] else None, detail)


def _inspector(url: str) -> Inspector:
    return Inspector(connect(RedisConfig(url=url)), timeout_seconds=30)


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
    """A Redis with that many queues: each has tasks in all seven states, counters, leases and two groups.

    No two numbers of a queue are the same, and some differ from queue to queue, so that none passes for another.
    """
    with redis_server() as server:
        with server.client() as client:
            for number in range(queues):
                _fill(client, number)
        yield server


def _fill(client: redis.Redis, place: int) -> None:
    queue = f"queue-{place:03d}"
    now, today = time.time(), time.strftime("%Y-%m-%d", time.gmtime())
    pipe = client.pipeline(transaction=False)
    pipe.sadd(keys.QUEUES, queue)
    per_state = {"pending": 25, "active": 1, "scheduled": 3, "retry": 4, "archived": 8, "completed": 9}
    for state, count in per_state.items():
        for number in range(count):
            task_id = f"{state}-{number:08d}-{queue}"
            message = TaskMessage("event", b"{}" * 50, task_id, queue, timeout=1800)
            values: dict[Any, Any] = {"msg": encode_task_message(message), "state": state}
            if state == "pending":
                values["pending_since"] = str(time.time_ns() - 10**9 * (60 + place))
            pipe.hset(keys.task(queue, task_id), mapping=values)
            if state in ("pending", "active"):
                pipe.lpush(keys.queue_key(queue, state), task_id)
            else:
                pipe.zadd(keys.queue_key(queue, state), {task_id: int(now) + 3600 + number})
            if state == "active":
                pipe.zadd(keys.queue_key(queue, "lease"), {task_id: int(now) + 3600})
    for group, size in {"group-a": 1, "group-b": 5}.items():
        pipe.sadd(keys.queue_key(queue, "groups"), group)
        for number in range(size):
            task_id = f"{group}-{number}-{queue}"
            message = TaskMessage("event", b"{}" * 50, task_id, queue, group_key=group)
            values = {"msg": encode_task_message(message), "state": "aggregating", "group": group}
            pipe.hset(keys.task(queue, task_id), mapping=values)
            pipe.zadd(keys.group(queue, group), {task_id: int(now)})
    counters = (keys.processed(queue), keys.failed(queue), keys.processed(queue, today), keys.failed(queue, today))
    for number, key in enumerate(counters):
        pipe.set(key, 1000 * (4 - number) + place)
    if place % 10 == 0:
        pipe.set(keys.queue_key(queue, "paused"), str(int(now)))
    pipe.execute()
