import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from otel_queue.asynq import keys
from otel_queue.asynq.inspector import Inspector
from otel_queue.asynq.queue_info import STATES
from otel_queue.demo.broker import Broker
from otel_queue.errors import QueueNotFoundError, ReadError
from tests.inspector.filled import assert_filled, fill_queue, queue_of, taken, task


def test_one_queue_is_told_with_its_memory_usage(inspector: Inspector, client: redis.Redis) -> None:
    fill_queue(client)
    info = inspector.queue_info("filled")
    assert_filled(info)
    assert info.memory_usage is not None
    assert info.memory_usage > 0
    assert abs(info.timestamp - time.time()) < 60


def test_a_queue_without_any_key_is_all_zeros(inspector: Inspector, client: redis.Redis) -> None:
    client.sadd(keys.QUEUES, "q")
    info = inspector.queue_info("q")
    assert [info.in_state(state) for state in STATES] == [0] * len(STATES)
    assert (info.size, info.groups, info.latency, info.memory_usage) == (0, 0, 0, 0)
    assert (info.processed, info.failed, info.processed_total, info.failed_total) == (0, 0, 0, 0)
    assert info.paused is False
    assert (info.active_without_lease, info.lease_expired) == (0, 0)
    assert (info.overdue_scheduled, info.overdue_retry) == (0, 0)


@pytest.mark.parametrize("name", ["nope", "", b"\xff"])
def test_a_queue_that_is_not_listed_is_not_found(inspector: Inspector, client: redis.Redis, name: str | bytes) -> None:
    fill_queue(client)
    for ask in (inspector.queue_info, lambda queue: inspector.history(queue, 1)):
        with pytest.raises(QueueNotFoundError, match=r"is not listed in asynq:queues") as missing:
            ask(name)
        assert missing.value.reason == "queue_not_found"
        assert isinstance(missing.value, ReadError)


def test_asking_for_what_is_not_there_creates_no_key(inspector: Inspector, client: redis.Redis) -> None:
    client.sadd(keys.QUEUES, "q")
    inspector.snapshot()
    inspector.queue_info("q")
    inspector.memory_usage()
    assert client.keys("*") == [keys.QUEUES]


def test_pausing_is_told_and_unpausing_too(inspector: Inspector, client: redis.Redis) -> None:
    broker = Broker(client, time.time)
    broker.enqueue(task("t"))
    states = [queue_of(inspector).paused]
    broker.pause("filled")
    states.append(queue_of(inspector).paused)
    broker.unpause("filled")
    states.append(queue_of(inspector).paused)
    assert states == [False, True, False]


def test_overdue_is_how_late_the_most_overdue_task_is(inspector: Inspector, client: redis.Redis) -> None:
    now = time.time()
    broker = Broker(client, lambda: now - 1000)
    for late in (300, 200):
        broker.enqueue(task(f"s{late}"), process_at=now - late)
    broker.enqueue(task("r"))
    broker.retry(taken(broker, "filled"), now - 100, "error")
    info = queue_of(inspector)
    assert info.overdue_scheduled is not None
    assert info.overdue_retry is not None
    assert 300 <= info.overdue_scheduled < 360
    assert 100 <= info.overdue_retry < 160


def test_queues_are_sorted_by_name(inspector: Inspector, client: redis.Redis) -> None:
    assert inspector.queues() == []
    client.sadd(keys.QUEUES, "b", "a", "c")
    assert inspector.queues() == ["a", "b", "c"]
    assert [info.queue for info in inspector.snapshot().queues] == ["a", "b", "c"]


def test_a_queue_that_is_deleted_while_it_is_asked_for_is_not_reported(
    inspector: Inspector, client: redis.Redis
) -> None:
    fill_queue(client)
    inspector.snapshot()
    client.srem(keys.QUEUES, "filled")
    assert inspector.snapshot().queues == ()
    with pytest.raises(QueueNotFoundError):
        inspector.queue_info("filled")
    client.sadd(keys.QUEUES, "filled")
    assert_filled(queue_of(inspector))


def test_history_tells_today_first_and_days_without_a_counter_as_zero(
    inspector: Inspector, client: redis.Redis
) -> None:
    fill_queue(client)
    now = time.time()
    days = [time.strftime("%Y-%m-%d", time.gmtime(now - back * 86_400)) for back in range(4)]
    client.mset({keys.processed("filled", days[2]): 20, keys.failed("filled", days[2]): 2})
    client.set(keys.processed("filled", days[3]), "many")
    history = inspector.history("filled", 4)
    assert [(day.queue, day.day) for day in history] == [("filled", day) for day in days]
    assert [(day.processed, day.failed) for day in history] == [(4, 2), (0, 0), (20, 2), (None, 0)]


@pytest.mark.parametrize("days", [0, -1, 3651])
def test_history_of_no_day_or_too_many_is_a_value_error(inspector: Inspector, client: redis.Redis, days: int) -> None:
    fill_queue(client)
    with pytest.raises(ValueError, match=f"1 to 3650, not {days}"):
        inspector.history("filled", days)


def test_groups_are_told_with_their_sizes_sorted_by_name(inspector: Inspector, client: redis.Redis) -> None:
    broker = Broker(client, time.time)
    for number, name in enumerate(["b", "a:x", "b"]):
        broker.enqueue(task(f"t{number}", group_key=name))
    assert list(inspector.groups("filled").items()) == [("a:x", 1), ("b", 2)]


def test_a_queue_without_groups_and_one_that_does_not_exist_have_none(
    inspector: Inspector, client: redis.Redis
) -> None:
    client.sadd(keys.QUEUES, "q")
    assert (inspector.groups("q"), inspector.groups("nope")) == ({}, {})


@pytest.mark.parametrize("suffix", ["groups", "g:G"])
def test_groups_that_cannot_be_read_are_an_error(inspector: Inspector, client: redis.Redis, suffix: str) -> None:
    fill_queue(client)
    client.delete(keys.queue_key("filled", suffix))
    client.set(keys.queue_key("filled", suffix), "x")
    with pytest.raises(ReadError) as refused:
        inspector.groups("filled")
    assert refused.value.reason == "wrong_type"


def test_ping_answers_with_redis_time(inspector: Inspector) -> None:
    assert abs(inspector.ping() - time.time()) < 60


def test_threads_share_an_inspector(inspector: Inspector, client: redis.Redis) -> None:
    fill_queue(client)

    def ask(number: int) -> None:
        if number % 2:
            assert_filled(queue_of(inspector))
        else:
            assert_filled(inspector.queue_info("filled"))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(80)))
