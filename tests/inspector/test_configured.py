"""The settings of the queue lane, and the inspector's own defaults."""

import contextlib
import time
from collections.abc import Iterator

import pytest
import redis

from otel_queue.asynq.connect import queue_inspector
from otel_queue.asynq.inspector import Inspector
from otel_queue.asynq.message import TaskMessage
from otel_queue.config import load_config
from otel_queue.demo.broker import Broker
from otel_queue.demo.heartbeat import beat_server
from otel_queue.errors import ReadError
from tests.inspector.filled import SERVER, WORKER, fill, queue_of
from tests.servers.redis import RedisServer


@contextlib.contextmanager
def configured(server: RedisServer, **queue: object) -> Iterator[Inspector]:
    settings = {f"queue.{name}": str(value).lower() for name, value in queue.items()}
    inspector = queue_inspector(load_config(settings | {"redis.url": server.url}, environment={}))
    try:
        yield inspector
    finally:
        inspector._link.close()


def add_groups(client: redis.Redis) -> None:
    for name in ("G", "H"):
        Broker(client, time.time).enqueue(TaskMessage("t", b"", name, "q", group_key=name))


def test_the_configured_redis_is_read_with_its_workers(redis_server: RedisServer, client: redis.Redis) -> None:
    fill(client)
    with configured(redis_server) as inspector:
        [server] = inspector.snapshot().servers or ()
        assert server.active_workers == (WORKER,)


def test_workers_that_are_not_wanted_are_left_out(redis_server: RedisServer, client: redis.Redis) -> None:
    beat_server(Broker(client, time.time), SERVER, [WORKER])
    with configured(redis_server, workers=False) as inspector:
        [server] = inspector.snapshot().servers or ()
        assert server.active_workers is None


@pytest.mark.parametrize(("cap", "aggregating"), [(1, None), (2, 2)])
def test_as_many_groups_as_the_cap_are_read_and_not_one_more(
    redis_server: RedisServer, client: redis.Redis, cap: int, aggregating: int | None
) -> None:
    add_groups(client)
    with configured(redis_server, groups_cap=cap) as inspector:
        assert queue_of(inspector, "q").aggregating == aggregating
        assert queue_of(inspector, "q").size == aggregating
        assert (inspector.memory_usage()["q"] is None) == (aggregating is None)


def test_a_redis_that_does_not_answer_is_given_up_after_the_configured_time(redis_server: RedisServer) -> None:
    with configured(redis_server, timeout_seconds=0.1) as inspector:
        redis_server.pause()
        try:
            with pytest.raises(ReadError) as given_up:
                inspector.queues()
        finally:
            redis_server.resume()
    assert given_up.value.reason == "timeout"
