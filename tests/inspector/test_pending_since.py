"""Latency: from the next task to run, or from one further along when that one cannot tell."""

import time
from collections.abc import Callable, Sequence

import pytest
import redis

from otel_queue.asynq import keys
from otel_queue.asynq.inspector import Inspector
from otel_queue.asynq.queues import LOOK_FAR
from otel_queue.demo.broker import Broker
from otel_queue.redis_client import Answers, Request
from otel_queue.redis_client.rounds import Rounds
from tests.inspector.filled import queue_of, task

QUEUE = "q"
PENDING = keys.queue_key(QUEUE, "pending")


def enqueue(client: redis.Redis, count: int, age_seconds: float) -> None:
    broker = Broker(client, lambda: time.time() - age_seconds)
    for number in range(count):
        broker.enqueue(task(f"{age_seconds:g}-{number}", QUEUE))


def requeue(client: redis.Redis, count: int) -> None:
    """Takes tasks and puts them back at the head, as a server that shuts down does."""
    broker = Broker(client, time.time)
    messages = [broker.dequeue(QUEUE) for _ in range(count)]
    for message in messages:
        assert message is not None
        broker.requeue(message)


def assert_about(latency: float | None, seconds: float) -> None:
    assert latency is not None
    assert seconds <= latency < seconds + 60


def test_a_head_without_pending_since_is_looked_past(inspector: Inspector, client: redis.Redis) -> None:
    enqueue(client, 1, 500)
    enqueue(client, 2, 300)
    requeue(client, 1)
    snapshot = inspector.snapshot()
    assert snapshot.failures == {}
    assert_about(snapshot.queues[0].latency, 300)


@pytest.mark.parametrize("requeued", [1, 2, 3, 10, LOOK_FAR - 1])
def test_how_far_to_look_is_remembered_and_forgotten_again(
    inspector: Inspector, client: redis.Redis, requeued: int
) -> None:
    enqueue(client, requeued, 500)
    enqueue(client, 2, 300)
    requeue(client, requeued)
    inspector.snapshot()
    steady = inspector.snapshot()
    assert steady.round_trips == 2
    assert_about(steady.queues[0].latency, 300)
    broker = Broker(client, time.time)
    for _ in range(requeued):
        message = broker.dequeue(QUEUE)
        assert message is not None
        broker.finish(message)
    for _ in range(10):
        snapshot = inspector.snapshot()
        assert (snapshot.round_trips, snapshot.failures) == (2, {})
    assert inspector._plans[QUEUE.encode()].look == 1


def test_no_pending_since_as_far_as_we_look_is_unknown_and_counted(inspector: Inspector, client: redis.Redis) -> None:
    enqueue(client, LOOK_FAR, 500)
    enqueue(client, 1, 300)
    requeue(client, LOOK_FAR)
    for _ in range(2):
        snapshot = inspector.snapshot()
        assert snapshot.queues[0].latency is None
        assert snapshot.queues[0].pending == LOOK_FAR + 1
        assert snapshot.failures == {"no_pending_since": 1}


def test_tasks_of_an_old_asynq_without_pending_since_are_unknown_and_counted(
    inspector: Inspector, client: redis.Redis
) -> None:
    enqueue(client, 3, 500)
    requeue(client, 3)
    snapshots = [inspector.snapshot() for _ in range(3)]
    for snapshot in snapshots:
        assert snapshot.queues[0].latency is None
        assert snapshot.failures == {"no_pending_since": 1}
    assert [snapshot.round_trips for snapshot in snapshots[1:]] == [2, 2]


def test_a_pending_since_that_comes_after_none_was_found_is_seen_at_once(
    inspector: Inspector, client: redis.Redis
) -> None:
    enqueue(client, 3, 500)
    requeue(client, 3)
    inspector.snapshot()
    enqueue(client, 1, 300)
    snapshot = inspector.snapshot()
    assert (snapshot.failures, snapshot.round_trips) == ({}, 2)
    assert_about(snapshot.queues[0].latency, 300)


def test_an_empty_queue_has_a_latency_of_zero(inspector: Inspector, client: redis.Redis) -> None:
    client.sadd(keys.QUEUES, QUEUE)
    assert queue_of(inspector, QUEUE).latency == 0


@pytest.mark.parametrize(
    "value", ["", "soon", "-5", "1.5", "0x10", "1e18", " 5", "5 ", "٣", b"\xff", "9" * 20, "9" * 5000]
)
def test_a_pending_since_that_is_no_plain_number_is_looked_past(
    inspector: Inspector, client: redis.Redis, value: str | bytes
) -> None:
    enqueue(client, 1, 500)
    enqueue(client, 1, 300)
    client.hset(keys.task(QUEUE, "500-0"), "pending_since", value)
    assert_about(queue_of(inspector, QUEUE).latency, 300)


def test_a_head_whose_hash_is_gone_or_of_another_type_is_looked_past(inspector: Inspector, client: redis.Redis) -> None:
    enqueue(client, 2, 500)
    enqueue(client, 1, 300)
    client.delete(keys.task(QUEUE, "500-0"), keys.task(QUEUE, "500-1"))
    client.set(keys.task(QUEUE, "500-1"), "not a hash")
    snapshot = inspector.snapshot()
    assert_about(snapshot.queues[0].latency, 300)
    assert set(snapshot.failures) == {"wrong_type"}


def test_a_negative_age_is_zero_and_counted(inspector: Inspector, client: redis.Redis) -> None:
    enqueue(client, 1, -100)
    snapshot = inspector.snapshot()
    assert snapshot.queues[0].latency == 0
    assert snapshot.failures == {"negative_age": 1}


class Between:
    """A reader that lets something happen in Redis before the second round and each further one."""

    def __init__(self, inner: Inspector, happens: Sequence[Callable[[], object]]) -> None:
        self._inner = inner._link
        self._happens = iter(happens)
        inner._link = self

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        next(self._happens, lambda: None)()
        return self._inner.exchange(requests, deadline)

    def close(self) -> None:
        self._inner.close()


def nothing() -> None:
    pass


def take(client: redis.Redis) -> None:
    message = Broker(client, time.time).dequeue(QUEUE)
    assert message is not None


def test_a_head_that_a_worker_takes_between_the_rounds_gives_way_to_the_next(
    inspector: Inspector, client: redis.Redis
) -> None:
    enqueue(client, 1, 500)
    enqueue(client, 1, 300)
    inspector.snapshot()
    Between(inspector, [nothing, lambda: take(client)])
    snapshot = inspector.snapshot()
    assert snapshot.failures == {}
    assert_about(snapshot.queues[0].latency, 300)
    assert snapshot.queues[0].pending == 2


def test_the_last_task_that_a_worker_takes_between_the_rounds_leaves_a_latency_of_zero(
    inspector: Inspector, client: redis.Redis
) -> None:
    enqueue(client, 1, 500)
    inspector.snapshot()
    Between(inspector, [nothing, lambda: take(client)])
    snapshot = inspector.snapshot()
    assert (snapshot.queues[0].latency, snapshot.failures) == (0, {})
    assert inspector.snapshot().round_trips == 2


def test_all_that_workers_take_before_the_third_round_is_zero_or_unknown_and_never_wrong(
    inspector: Inspector, client: redis.Redis
) -> None:
    enqueue(client, 2, 500)
    inspector.snapshot()
    Between(inspector, [nothing, lambda: take(client), nothing, lambda: take(client)])
    snapshot = inspector.snapshot()
    assert snapshot.queues[0].latency is None
    assert snapshot.failures == {"no_pending_since": 1}


def test_redis_time_and_not_ours_is_what_ages_are_taken_from(
    inspector: Inspector, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue(client, 1, 300)
    real = time.time
    monkeypatch.setattr("otel_queue.asynq.inspector.time.time", lambda: real() + 86_400 * 400)
    snapshot = inspector.snapshot()
    assert_about(snapshot.queues[0].latency, 300)
    assert abs(snapshot.time - real()) < 60


def test_a_clock_that_redis_does_not_tell_is_replaced_by_ours(
    inspector: Inspector, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue(client, 1, 300)
    monkeypatch.setattr(Rounds, "finish", _finish_without_time(Rounds.finish))
    assert_about(queue_of(inspector, QUEUE).latency, 300)


def _finish_without_time(finish: Callable[[Rounds], None]) -> Callable[[Rounds], None]:
    def forgetful(rounds: Rounds) -> None:
        finish(rounds)
        rounds.time = None

    return forgetful
