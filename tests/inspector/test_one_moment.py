"""The numbers of one queue are of one moment, and times end at their very second."""

import contextlib
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from otel_queue.asynq import keys
from otel_queue.asynq.inspector import Inspector
from otel_queue.errors import ReadError
from otel_queue.redis_client import Answers, Request
from tests.inspector.filled import inspecting, queue_of
from tests.inspector.interleaved import interleaved
from tests.servers.redis import RedisServer

TASKS = 50
NOW = 1_700_000_000


def test_a_task_that_moves_between_any_two_commands_is_neither_counted_twice_nor_missed(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    pending, active, retry = (keys.queue_key("q", state) for state in ("pending", "active", "retry"))
    client.sadd(keys.QUEUES, "q")
    client.rpush(pending, *(f"t{number}" for number in range(TASKS)))
    steps = itertools.count()
    writer: Any = client

    def move() -> None:
        """The next of three ways in turn: a task is taken, another one's retry is due, a third one fails."""
        step = next(steps) % 3
        if step == 0:
            writer.rpoplpush(pending, active)
        elif step == 1 and (due := writer.zpopmin(retry)):
            writer.lpush(pending, due[0][0])
        elif step == 2 and (failed := writer.rpop(active)):
            writer.zadd(retry, {failed: NOW})

    with interleaved(redis_server.port, move) as port, inspecting(f"redis://127.0.0.1:{port}/0") as inspector:
        for _ in range(3):
            assert queue_of(inspector, "q").size == TASKS
    assert next(steps) > 30


class AtTime:
    """A reader for which Redis's clock says `seconds`, on the point."""

    def __init__(self, inspector: Inspector, seconds: int) -> None:
        self._link = inspector._link
        self._clock = [[b"%d" % seconds, b"0"]]
        inspector._link = self

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        with contextlib.closing(self._link.exchange(requests, deadline)) as answers:
            assert not isinstance(next(answers), ReadError)
            yield self._clock
            yield from answers

    def close(self) -> None:
        self._link.close()


@pytest.mark.parametrize(("ends", "expired"), [((NOW + 1,), 0), ((NOW,), 1), ((NOW - 1, NOW, NOW + 1), 2)])
def test_a_lease_has_run_out_from_its_last_second_on(
    inspector: Inspector, client: redis.Redis, ends: tuple[int, ...], expired: int
) -> None:
    client.sadd(keys.QUEUES, "q")
    for number, end in enumerate(ends):
        client.lpush(keys.queue_key("q", "active"), f"t{number}")
        client.zadd(keys.queue_key("q", "lease"), {f"t{number}": end})
    AtTime(inspector, NOW)
    assert queue_of(inspector, "q").lease_expired == expired
    assert [task.is_orphaned for task in inspector.tasks("q", "active")] == [end <= NOW for end in ends]
