from collections.abc import Sequence

import pytest

from otel_queue.asynq.message import TaskMessage
from otel_queue.demo.aggregator import Aggregator
from otel_queue.demo.broker import Broker
from tests.demo.conftest import START, RawRedis, SteppedClock


def merge(group: str, tasks: Sequence[TaskMessage]) -> TaskMessage:
    return TaskMessage("merged", ",".join(task.id for task in tasks).encode(), f"of-{group}", "q")


@pytest.fixture
def broker(client: RawRedis, clock: SteppedClock) -> Broker:
    return Broker(client, clock)


@pytest.fixture
def aggregator(broker: Broker) -> Aggregator:
    return Aggregator(broker, "q", merge, lambda: "SET", grace_seconds=10, max_delay_seconds=30, max_size=3)


def join(broker: Broker, *task_ids: str) -> None:
    for task_id in task_ids:
        assert broker.enqueue(TaskMessage("note", b"", task_id, "q", group_key="G:1"))


def merged(broker: Broker) -> bytes | None:
    task = broker.dequeue("q")
    return None if task is None else task.payload


def test_a_quiet_group_becomes_one_task_and_leaves_nothing_behind(
    client: RawRedis, broker: Broker, aggregator: Aggregator, clock: SteppedClock
) -> None:
    join(broker, "a")
    clock.now += 9
    join(broker, "b")
    clock.now += 9
    aggregator.step()
    assert merged(broker) is None
    clock.now += 1
    aggregator.step()
    assert merged(broker) == b"a,b"
    assert set(client.keys("asynq:{q}:*")) == {
        b"asynq:{q}:t:of-G:1",
        b"asynq:{q}:active",
        b"asynq:{q}:lease",
    }


def test_a_full_group_gives_up_its_oldest_and_keeps_the_rest(
    client: RawRedis, broker: Broker, aggregator: Aggregator
) -> None:
    join(broker, "a", "b", "c", "d")
    aggregator.step()
    assert merged(broker) == b"a,b,c"
    assert client.zrange("asynq:{q}:g:G:1", 0, -1) == [b"d"]
    assert client.smembers("asynq:{q}:groups") == {b"G:1"}


def test_a_busy_group_is_taken_when_its_oldest_has_waited_long_enough(
    broker: Broker, aggregator: Aggregator, clock: SteppedClock
) -> None:
    join(broker, "a")
    clock.now += 30
    join(broker, "b")
    aggregator.step()
    assert merged(broker) == b"a,b"


def test_a_set_in_flight_has_two_minutes_and_keeps_the_scores(
    client: RawRedis, broker: Broker, aggregator: Aggregator, clock: SteppedClock
) -> None:
    join(broker, "a")
    clock.now += 10
    assert aggregator.collect(b"G:1") == b"asynq:{q}:g:G:1:SET"
    assert client.zscore("asynq:{q}:g:G:1:SET", "a") == START
    assert client.zscore("asynq:{q}:aggregation_sets", "asynq:{q}:g:G:1:SET") == START + 130
    assert client.hget("asynq:{q}:t:a", "state") == b"aggregating"


def test_a_set_past_its_deadline_returns_to_its_group_unlisted(
    client: RawRedis, broker: Broker, aggregator: Aggregator, clock: SteppedClock
) -> None:
    join(broker, "a")
    clock.now += 10
    aggregator.collect(b"G:1")
    clock.now += 119
    aggregator.reclaim()
    assert not client.exists("asynq:{q}:g:G:1")
    clock.now += 1
    aggregator.reclaim()
    assert client.zscore("asynq:{q}:g:G:1", "a") == START
    assert not client.exists("asynq:{q}:groups", "asynq:{q}:aggregation_sets", "asynq:{q}:g:G:1:SET")
