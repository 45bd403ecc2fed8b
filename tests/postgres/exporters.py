"""Exporters of a test on one database and one Redis, and what they keep there."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from otel_queue.config import RedisConfig
from otel_queue.config.secret import Secret
from otel_queue.errors import ReadError
from otel_queue.lane import Collected
from otel_queue.postgres.aggregations import Found
from otel_queue.postgres.generation import Generation
from otel_queue.postgres.source import PostgresSource
from otel_queue.redis_client import connect
from otel_queue.samples import Family
from tests.postgres.gateway import EVENTS, Gateway, brief, by_name
from tests.servers.process import free_port

KEY = "oq:postgres:1:corrected"
MICROSECONDS = 1_000_000

Exporter = Callable[..., PostgresSource]


@contextlib.contextmanager
def exporters(gateway: Gateway, redis_url: str) -> Iterator[Exporter]:
    """Makes sources, each with its own connection, and closes them."""
    with contextlib.ExitStack() as stack:

        def new(dsn: Secret = gateway.dsn, **options: Any) -> PostgresSource:
            source = PostgresSource(dsn, connect(RedisConfig(url=redis_url)), **options)
            stack.callback(source.close)
            return source

        yield new


def events(collected: Collected) -> dict[str, float]:
    return brief(by_name(collected.families), EVENTS)


def failing(source: PostgresSource) -> ReadError:
    with pytest.raises(ReadError) as raised:
        source.collect()
    return raised.value


def held(client: redis.Redis) -> dict[str, bytes]:
    fields: Any = client.hgetall(KEY)
    return {name.decode(): value for name, value in fields.items()}


def make_older(client: redis.Redis, name: str, seconds: float) -> None:
    """As if what the field `name` tells had been that much earlier."""
    value = held(client)[name]
    client.hset(KEY, name, int(value) - int(seconds * MICROSECONDS))


def no_database() -> Secret:
    return Secret(f"postgres://me:secret@127.0.0.1:{free_port()}/convoy")


@contextlib.contextmanager
def locked(gateway: Gateway, table: str = "event_deliveries") -> Iterator[None]:
    """Who reads the table meanwhile is held up: in the second statement of three, if it is the deliveries."""
    with gateway.server.connect(gateway.database) as other, other.transaction():
        other.execute(f"LOCK TABLE convoy.{table} IN ACCESS EXCLUSIVE MODE".encode())
        yield


def is_held_up(gateway: Gateway) -> bool:
    rows = gateway.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'otel-queue' AND wait_event_type = 'Lock'"
    )
    return len(rows) == 1


class Refresh:
    """A source that collects in a thread, held up in the database until `let_go`."""

    def __init__(self, gateway: Gateway, source: PostgresSource) -> None:
        self.collected: Collected | None = None
        self.error: ReadError | None = None
        self._source = source
        self._lock = contextlib.ExitStack()
        self._lock.enter_context(locked(gateway))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.collected = self._source.collect()
        except ReadError as error:
            self.error = error

    def release(self) -> None:
        """Takes the lock away; another may still hold the reading up."""
        self._lock.close()

    def let_go(self) -> None:
        self.release()
        self._thread.join()


class Watcher:
    """A witness that notes what it is told, and does what the test gave it at each moment."""

    def __init__(self, before: Callable[[], Any] = list, begun: Callable[[], Any] = list) -> None:
        self.told: list[str] = []
        self.exported: Found | None = None
        self.corrected: Found | None = None
        self.time = self.lag_seconds = -1.0
        self._before, self._begun = before, begun

    def before(self) -> None:
        self.told.append("before")
        self._before()

    def begun(self) -> None:
        self.told.append("begun")
        self._begun()

    def judge(self, exported: Found, corrected: Found, time: float, lag_seconds: float) -> None:
        self.told.append("judge")
        self.exported, self.corrected, self.time, self.lag_seconds = exported, corrected, time, lag_seconds


def example() -> Generation:
    samples = [(("P", f"s{number}", "success"), float(number)) for number in range(50)]
    return Generation(1e9, (Family(EVENTS, samples, 999.5, "postgres"),), {"timeout": 2})


def example_at(now: float) -> Generation:
    """A generation that was read at `now`."""
    return Generation(now, tuple(replace(family, time=now) for family in example().families))


def closing_link(redis_url: str) -> Any:
    return contextlib.closing(connect(RedisConfig(url=redis_url)))
