"""What a snapshot costs: two round trips from the last list of queues, whatever the queues hold."""

import random
import time

import pytest
import redis

from otel_queue.asynq import keys
from otel_queue.asynq.inspector import Inspector
from otel_queue.demo.broker import Broker
from tests.inspector.filled import FILLED, fill, fill_queue, inspecting, queue_of, task, values
from tests.servers.proxy import slow_proxy
from tests.servers.redis import RedisServer


def round_trips(inspector: Inspector) -> int:
    return inspector.snapshot().round_trips


def test_an_empty_redis_costs_one_round_trip(inspector: Inspector) -> None:
    assert round_trips(inspector) == 1


def test_many_queues_cost_two_round_trips_with_groups_servers_and_schedulers_too(
    inspector: Inspector, client: redis.Redis
) -> None:
    fill(client)
    broker = Broker(client, time.time)
    for number in range(200):
        broker.enqueue(task("t", f"plain-{number}"))
    for number in range(20):
        fill_queue(client, f"rich-{number}")
    inspector.snapshot()
    snapshot = inspector.snapshot()
    assert snapshot.round_trips == 2
    assert snapshot.failures == {}
    assert len(snapshot.queues) == 222
    assert snapshot.servers
    assert snapshot.scheduler_entries


def test_a_queue_seen_for_the_first_time_costs_one_more(inspector: Inspector, client: redis.Redis) -> None:
    broker = Broker(client, time.time)
    broker.enqueue(task("t", "old"))
    assert [round_trips(inspector), round_trips(inspector)] == [3, 2]
    broker.enqueue(task("t", "new"))
    assert [round_trips(inspector), round_trips(inspector)] == [3, 2]


def test_a_queue_that_gets_its_first_group_costs_one_more_once(inspector: Inspector, client: redis.Redis) -> None:
    broker = Broker(client, time.time)
    broker.enqueue(task("t", "q"))
    inspector.snapshot()
    broker.enqueue(task("g", "q", group_key="G"))
    assert [round_trips(inspector), round_trips(inspector)] == [3, 2]


def test_a_queue_that_is_listed_no_more_is_not_asked_for(inspector: Inspector, client: redis.Redis) -> None:
    Broker(client, time.time).enqueue(task("t", "q"))
    inspector.snapshot()
    client.srem(keys.QUEUES, "q")
    assert inspector.snapshot().queues == ()
    assert inspector.snapshot().queues == ()
    assert round_trips(inspector) == 1


def test_an_expired_lease_and_absent_counters_cost_no_further_round_trip(
    inspector: Inspector, client: redis.Redis
) -> None:
    fill_queue(client)
    client.zadd(keys.queue_key("filled", "lease"), {"t4": 1})
    client.delete(keys.failed("filled"))
    inspector.snapshot()
    snapshot = inspector.snapshot()
    assert snapshot.round_trips == 2
    assert values(snapshot.queues[0]) == FILLED | {"lease_expired": 1, "failed_total": 0}


def test_what_is_asked_in_one_round_trip_arrives_over_a_slow_line_in_as_many_delays(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    for number in range(10):
        fill_queue(client, f"q{number}")
    with (
        slow_proxy(redis_server.port, 0.01) as proxy,
        inspecting(f"redis://127.0.0.1:{proxy.port}/0") as inspector,
    ):
        inspector.snapshot()
        snapshot = inspector.snapshot()
    assert snapshot.round_trips == 2
    assert len(snapshot.queues) == 10
    assert snapshot.failures == {}
    assert snapshot.duration_seconds >= 2 * 2 * 0.01


def test_the_day_turns_without_a_further_round_trip(
    inspector: Inspector, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_queue(client)
    inspector.snapshot()
    inspector.snapshot()
    client.set(keys.processed("filled", "2040-01-01"), 99)
    monkeypatch.setattr("otel_queue.asynq.inspector._day", lambda now: "2040-01-01")
    snapshot = inspector.snapshot()
    assert snapshot.round_trips == 2
    assert (snapshot.queues[0].processed, snapshot.queues[0].failed) == (99, 0)


def test_a_queue_that_is_changed_in_any_way_between_snapshots_is_never_misread(
    inspector: Inspector, client: redis.Redis
) -> None:
    """Plans are kept from snapshot to snapshot; whatever they remember, the numbers are those of now."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201  # how to see it again
    chance = random.Random(seed)
    broker = Broker(client, time.time)
    for step in range(150):
        queue = f"q{chance.randrange(3)}"
        move = chance.randrange(5)
        if move == 0:
            broker.enqueue(task(f"t{step}", queue))
        elif move == 1:
            broker.enqueue(task(f"g{step}", queue, group_key=chance.choice("GH")))
        elif move == 2 and (message := broker.dequeue(queue)):
            broker.requeue(message)
        elif move == 3 and (message := broker.dequeue(queue)):
            broker.finish(message)
        elif move == 4:
            client.delete(keys.group(queue, "G"))
            client.srem(keys.queue_key(queue, "groups"), "G")
        for info in inspector.snapshot().queues:
            pending = client.llen(keys.queue_key(info.queue, "pending"))
            groups = client.smembers(keys.queue_key(info.queue, "groups"))
            members = [client.zcard(keys.group(info.queue, name)) for name in groups]
            assert (info.pending, info.groups, info.aggregating) == (pending, len(groups), sum(members))
            since = [client.hget(keys.task(info.queue, name), "pending_since") for name in
                     client.lrange(keys.queue_key(info.queue, "pending"), 0, -1)]  # fmt: skip
            assert (info.latency is None) == (pending > 0 and not any(since))


def test_a_snapshot_of_one_queue_matches_its_queue_info(inspector: Inspector, client: redis.Redis) -> None:
    fill_queue(client)
    assert values(queue_of(inspector)) == values(inspector.queue_info("filled"))
