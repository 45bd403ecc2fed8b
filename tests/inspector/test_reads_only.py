"""The inspector never writes: seen by MONITOR, and by a user who may not."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import redis

from otel_queue.asynq import keys
from otel_queue.asynq.inspector import Inspector
from otel_queue.config import Config, RedisConfig
from otel_queue.doctor import examine
from tests.inspector.filled import assert_shows_all, fill, inspecting
from tests.inspector.test_least_permissions import LEAST
from tests.servers.redis import RedisServer

END = "end of what is watched"


@contextlib.contextmanager
def watched(server: RedisServer) -> Iterator[set[str]]:
    """The names of the commands that the server gets inside the `with`; filled at its end."""
    seen: set[str] = set()
    with connected(server) as marker, server.client() as client, client.monitor() as monitor:
        yield seen
        marker.echo(END)
        for command in monitor.listen():
            words = command["command"].split(" ")
            if END in command["command"]:
                return
            name = words[0].lower()
            seen.add(f"{name}|{words[1].lower()}" if name in ("memory", "config", "acl") else name)


def connected(server: RedisServer) -> redis.Redis:
    """A client that has said all that clients say at first."""
    client = server.client()
    client.ping()
    return client


def use_everything(inspector: Inspector) -> None:
    assert_shows_all(inspector)
    for queue in inspector.queues():
        for state in ("pending", "active", "scheduled", "retry", "archived", "completed"):
            inspector.tasks(queue, state)
        inspector.history(queue, 90)
        inspector.groups(queue)
    inspector.ping()


def test_only_commands_that_read_are_sent(redis_server: RedisServer, client: redis.Redis) -> None:
    fill(client)
    client.zadd(keys.queue_key("filled", "lease"), {"t4": int(time.time()) + 30, "gone": 1})
    with watched(redis_server) as seen, inspecting(redis_server.url) as inspector:
        inspector.snapshot()
        inspector.snapshot()
        inspector.tasks("filled", "active")
        inspector.history("filled", 90)
        inspector.groups("filled")
        inspector.memory_usage()
        inspector.sample_task_types()
        inspector.servers()
        inspector.scheduler_entries()
        inspector.ping()
    assert seen == set(LEAST)


def test_check_sends_only_commands_that_read(redis_server: RedisServer, client: redis.Redis) -> None:
    fill(client)
    with watched(redis_server) as seen:
        examine(Config(redis=RedisConfig(url=redis_server.url)))
    assert seen == {*LEAST, "info"}


def test_every_command_that_is_sent_is_one_that_redis_calls_reading_or_harmless(client: redis.Redis) -> None:
    harmless = {"multi", "exec", "time", "memory|usage", "select", "info"}
    for name in set(LEAST) - harmless:
        [info] = client.execute_command("COMMAND", "INFO", name).values()
        assert "readonly" in {str(flag) for flag in info["flags"]}, name


def test_nothing_in_redis_is_changed_where_asynqs_own_inspector_would_purge(
    inspector: Inspector, client: redis.Redis
) -> None:
    fill(client)
    for listing in (keys.SERVERS, keys.WORKERS, keys.SCHEDULERS):
        client.zadd(listing, {"dead": 1})
    before = dump(client)
    use_everything(inspector)
    assert dump(client) == before
    assert len(before) > 20


def dump(client: redis.Redis) -> dict[Any, Any]:
    """Every key with its whole value."""
    return {key: client.dump(key) for key in client.keys("*")}
