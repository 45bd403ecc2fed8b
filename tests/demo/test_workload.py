"""The workload on a stepped clock: what it writes is consistent, repeatable and bounded."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import fakeredis
import msgpack  # type: ignore[import-untyped]  # ships no types
import pytest
from redis import Redis

from otel_queue.asynq.message import decode_server_info, decode_task_message, decode_worker_info
from otel_queue.demo import payloads
from otel_queue.demo.convoy import Convoy
from otel_queue.demo.digest import DIGEST_QUEUE
from otel_queue.demo.workload import AGENT_QUEUES, QUEUES, Workload
from tests.demo.conftest import START, RawRedis
from tests.servers.redis import redis_server

LISTS = ("pending", "active")
ZSETS = ("scheduled", "retry", "archived", "completed")


def seconds(duration: float, tick: float = 0.5) -> Iterator[float]:
    """Clock readings from the start on."""
    return (START + index * tick for index in range(int(duration / tick) + 1))


def run(client: RawRedis, times: Iterable[float], *, rate: float = 5.0, seed: int = 1) -> Workload:
    workload = Workload(client, rate=rate, seed=seed)
    for now in times:
        workload.step(now)
    return workload


def key(queue: str, name: str) -> str:
    return f"asynq:{{{queue}}}:{name}"


def members(client: RawRedis, queue: str) -> dict[str, list[bytes]]:
    """The task IDs in each state of a queue."""
    found = {state: client.lrange(key(queue, state), 0, -1) for state in LISTS}
    found |= {state: client.zrange(key(queue, state), 0, -1) for state in ZSETS}
    found["aggregating"] = [
        task_id
        for group in client.smembers(key(queue, "groups"))
        for task_id in client.zrange(key(queue, f"g:{group.decode()}"), 0, -1)
    ]
    return found


def number(client: RawRedis, queue: str, name: str) -> int:
    return int(client.get(key(queue, name)) or 0)


def poll(condition: Callable[[], object], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def fake() -> RawRedis:
    return fakeredis.FakeRedis(server=fakeredis.FakeServer())


def test_every_task_is_in_one_state_and_its_hash_agrees(client: RawRedis) -> None:
    run(client, seconds(60))
    for queue in QUEUES:
        listed = members(client, queue)
        states = {task_id: state for state, task_ids in listed.items() for task_id in task_ids}
        assert len(states) == sum(map(len, listed.values()))
        prefix = key(queue, "t:").encode()
        assert {name.removeprefix(prefix) for name in client.keys(key(queue, "t:*"))} == set(states)
        for task_id, state in states.items():
            task = client.hgetall(key(queue, f"t:{task_id.decode()}"))
            message = decode_task_message(task[b"msg"])
            assert (message.id, message.queue) == (task_id.decode(), queue)
            assert task[b"state"].decode() == state
            assert (b"pending_since" in task) == (state == "pending")


def test_every_active_task_is_leased(fake: RawRedis) -> None:
    run(fake, seconds(60))
    for queue in QUEUES:
        assert set(fake.lrange(key(queue, "active"), 0, -1)) == set(fake.zrange(key(queue, "lease"), 0, -1))


def test_a_minute_shows_every_state(fake: RawRedis) -> None:
    workload = Workload(fake)
    seen: Counter[str] = Counter()
    for now in seconds(60):
        workload.step(now)
        for queue in QUEUES:
            seen.update({state: len(task_ids) for state, task_ids in members(fake, queue).items()})
    assert {state for state, count in seen.items() if count} == {*LISTS, *ZSETS, "aggregating"}


def test_a_minute_brings_work_to_convoys_queues(fake: RawRedis) -> None:
    run(fake, seconds(75))
    busy = {queue for queue in QUEUES if number(fake, queue, "processed")}
    assert busy == set(QUEUES) - {payloads.DEFAULT_QUEUE}
    failing = {queue for queue in QUEUES if number(fake, queue, "failed")}
    # The tasks of EventQueue always end well: failures move on to RetryEventQueue.
    assert {payloads.RETRY_EVENT_QUEUE, DIGEST_QUEUE} <= failing
    assert payloads.EVENT_QUEUE not in failing


def test_counters_never_fall_and_days_add_up_to_the_total(fake: RawRedis) -> None:
    workload = Workload(fake, rate=0.1)
    totals: list[list[int]] = []
    for now in seconds(5 * 3600, tick=300):  # across midnight
        workload.step(now)
        totals.append([number(fake, queue, name) for queue in QUEUES for name in ("processed", "failed")])
    assert all(old <= new for before, after in pairwise(totals) for old, new in zip(before, after, strict=True))
    for name in ("processed", "failed"):
        days = [number(fake, payloads.CREATE_EVENT_QUEUE, f"{name}:{day}") for day in ("2099-12-31", "2100-01-01")]
        assert min(days[:1] if name == "failed" else days) > 0
        assert sum(days) == number(fake, payloads.CREATE_EVENT_QUEUE, name)


def test_accepted_events_are_either_processed_or_still_there(fake: RawRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted: list[Convoy] = []
    accept = Convoy.accept_event

    def count_and_accept(convoy: Convoy) -> None:
        accepted.append(convoy)
        accept(convoy)

    monkeypatch.setattr(Convoy, "accept_event", count_and_accept)
    run(fake, seconds(45))
    queue = payloads.CREATE_EVENT_QUEUE
    waiting = sum(len(task_ids) for state, task_ids in members(fake, queue).items() if state != "archived")
    archived_or_retried = number(fake, queue, "failed")
    finished_well = number(fake, queue, "processed") - archived_or_retried
    assert len(accepted) == finished_well + waiting + fake.zcard(key(queue, "archived"))


def test_every_payload_of_convoys_queues_is_msgpack(fake: RawRedis) -> None:
    run(fake, seconds(30))
    types: Counter[str] = Counter()
    for queue in AGENT_QUEUES:
        for name in fake.keys(key(queue, "t:*")):
            task = decode_task_message(fake.hget(name, "msg"))
            if task.payload:
                assert isinstance(msgpack.unpackb(task.payload), dict)
            types[task.type] += 1
    assert {payloads.DELIVER, payloads.RETRY_DELIVERY, payloads.META_EVENT} <= set(types)


def test_a_retry_keeps_the_deliverys_id_and_bytes(fake: RawRedis) -> None:
    run(fake, seconds(30))
    for name in fake.keys(key(payloads.RETRY_EVENT_QUEUE, "t:*")):
        task = decode_task_message(fake.hget(name, "msg"))
        assert payloads.decode(task.payload)["EventDeliveryID"] == task.id
        assert task.retry >= 25


def dump(client: RawRedis) -> dict[bytes, Any]:
    """All that is stored, the times to live aside: those follow the server's own clock."""
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda name: client.lrange(name, 0, -1),
        b"set": client.smembers,
        b"zset": lambda name: client.zrange(name, 0, -1, withscores=True),
    }
    return {name: readers[client.type(name)](name) for name in client.keys("*")}


def test_the_same_seed_and_clock_write_the_same_bytes() -> None:
    first, second, other = (fakeredis.FakeRedis(server=fakeredis.FakeServer()) for _ in range(3))
    dumps = []
    for redis, seed in ((first, 7), (second, 7), (other, 8)):
        run(redis, seconds(20), seed=seed)
        dumps.append(dump(redis))  # at once: heartbeats live by the real clock
    assert dumps[0] == dumps[1]
    assert dumps[0] != dumps[2]


def test_a_server_dies_and_its_tasks_are_recovered_a_minute_later(fake: RawRedis) -> None:
    workload = Workload(fake)
    orphaned: set[bytes] = set()
    recovered: set[bytes] = set()
    for now in seconds(120):
        workload.step(now)
        for queue in QUEUES:
            expired = fake.zrangebyscore(key(queue, "lease"), "-inf", now)
            orphaned.update(expired)
            for task_id in orphaned.intersection(fake.zrange(key(queue, "retry"), 0, -1)):
                task = decode_task_message(fake.hget(key(queue, f"t:{task_id.decode()}"), "msg"))
                assert task.error_msg == "asynq: task lease expired"
                recovered.add(task_id)
    assert orphaned
    assert recovered == orphaned


def test_after_a_long_sleep_no_living_servers_tasks_are_taken_for_orphans(fake: RawRedis) -> None:
    run(fake, [*seconds(10), START + 600])
    for queue in QUEUES:
        for name in fake.keys(key(queue, "t:*")):
            assert decode_task_message(fake.hget(name, "msg")).error_msg != "asynq: task lease expired"


def test_a_dead_server_is_missing_until_it_starts_anew(fake: RawRedis) -> None:
    workload = Workload(fake)
    alive: list[int] = []
    for now in seconds(120, tick=1):
        workload.step(now)
        alive.append(fake.zcount("asynq:servers", now, "+inf"))
    assert alive[0] == 3
    assert min(alive) == 2
    assert alive[-1] == 3


def test_servers_say_what_their_workers_do(fake: RawRedis) -> None:
    run(fake, seconds(10))
    servers = [decode_server_info(fake.get(name)) for name in fake.zrange("asynq:servers", 0, -1)]
    assert sorted(server.host for server in servers) == ["convoy-agent-0", "convoy-agent-1", "digest-0"]
    workers = [decode_worker_info(raw) for name in fake.zrange("asynq:workers", 0, -1) for raw in fake.hvals(name)]
    assert workers
    assert {worker.server_id for worker in workers} <= {server.server_id for server in servers}
    assert all(worker.deadline == (worker.start_time or 0) + 1800 for worker in workers)


def test_the_meta_event_queue_is_paused_for_a_while_and_its_backlog_grows(fake: RawRedis) -> None:
    workload = Workload(fake)
    backlog: dict[bool, int] = {True: 0, False: 0}
    for now in seconds(90):
        workload.step(now)
        paused = bool(fake.exists(key(payloads.META_EVENT_QUEUE, "paused")))
        backlog[paused] = fake.llen(key(payloads.META_EVENT_QUEUE, "pending"))
    assert backlog[True] > 10
    assert backlog[False] < 5


def test_redis_holds_no_more_after_eight_hours_than_after_four(redis_url: str) -> None:
    """From 20:00 on, so that the nightly cleanup and the change of the day are in it."""
    hashes: list[int] = []
    with Redis.from_url(redis_url) as client:
        workload = Workload(client, rate=0.005)
        for index, now in enumerate(seconds(8 * 3600, tick=60)):
            workload.step(now)
            if index % 60 == 59:
                hashes.append(sum(1 for _ in client.scan_iter("asynq:*:t:*")))
        archived = {queue: client.zcard(key(queue, "archived")) for queue in QUEUES}
        kinds = Counter(name.split(b":")[2] for name in client.scan_iter("asynq:{*"))
        members_of_the_dead = client.zcount("asynq:servers", "-inf", START + 8 * 3600 - 120)
    assert len(hashes) == 8
    assert max(hashes[4:]) <= 2 * max(hashes[:4])
    assert max(hashes) < 200
    assert sum(archived.values()) < 20
    assert kinds[b"processed"] <= 3 * len(QUEUES)
    assert not members_of_the_dead


def test_nothing_arrives_while_the_backlog_is_deep(fake: RawRedis) -> None:
    fake.lpush(key(payloads.META_EVENT_QUEUE, "pending"), *range(6_000))
    fake.set(key(payloads.META_EVENT_QUEUE, "paused"), 1)
    run(fake, seconds(3))
    assert not fake.exists(key(payloads.CREATE_EVENT_QUEUE, "pending"), key(payloads.CREATE_EVENT_QUEUE, "active"))


def test_a_long_sleep_brings_a_bounded_burst(fake: RawRedis) -> None:
    run(fake, [START, START + 7 * 24 * 3600])
    tasks = members(fake, payloads.CREATE_EVENT_QUEUE)
    assert 400 < len(tasks["pending"]) + len(tasks["active"]) <= 502


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_that_sends_nothing_is_refused(fake: RawRedis, rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        Workload(fake, rate=rate)


def test_stopping_gives_active_tasks_back_and_leaves_no_server_or_scheduler(client: RawRedis) -> None:
    workload = run(client, seconds(11))
    active = {queue: client.llen(key(queue, "active")) for queue in QUEUES}
    assert sum(active.values()) > 0
    workload.stop()
    assert not any(client.exists(key(queue, "active"), key(queue, "lease")) for queue in QUEUES)
    assert not client.exists("asynq:servers", "asynq:workers", "asynq:schedulers")
    assert not client.keys("asynq:scheduler_history:*")
    assert not client.keys("asynq:servers:*")


def test_tasks_of_an_earlier_run_are_worked_off_from_what_they_carry(fake: RawRedis) -> None:
    run(fake, seconds(8)).stop()
    left = {
        task_id
        for queue in (payloads.EVENT_QUEUE, payloads.RETRY_EVENT_QUEUE)
        for task_ids in members(fake, queue).values()
        for task_id in task_ids
    }
    assert left
    workload = Workload(fake, rate=1e-9)
    times = seconds(300)
    while any(fake.exists(*(key(queue, f"t:{task_id.decode()}") for task_id in left)) for queue in QUEUES):
        now = next(times, None)
        assert now is not None, "some tasks are still there five minutes later"
        workload.step(now + 30)


def test_it_runs_by_itself_in_real_time_and_stops(redis_url: str) -> None:
    workload = Workload(redis_url, rate=50)
    workload.start()
    try:
        with Redis.from_url(redis_url) as client:
            poll(lambda: number(client, payloads.EVENT_QUEUE, "processed") > 10)
    finally:
        workload.stop()
    with Redis.from_url(redis_url) as client:
        assert not client.exists("asynq:servers", key(payloads.EVENT_QUEUE, "active"))


def test_it_waits_for_a_redis_that_restarts_empty_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with redis_server() as server:
        workload = Workload(server.url, rate=50)
        workload.start()
        try:
            with Redis.from_url(server.url) as client:
                poll(lambda: client.exists(key(payloads.EVENT_QUEUE, "processed")))
            server.kill()
            poll(lambda: "waits for its Redis" in caplog.text)
            server.restart()
            with Redis.from_url(server.url) as client:
                poll(lambda: client.sismember("asynq:queues", payloads.EVENT_QUEUE))
                poll(lambda: client.exists(key(payloads.EVENT_QUEUE, "processed")))
        finally:
            workload.stop()
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
