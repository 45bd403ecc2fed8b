"""Records and writers for tests of writers."""

from typing import Any

from otel_queue.config import RedisConfig
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.writer import BufferedWriter
from otel_queue.lifecycle import EventCreated
from otel_queue.redis_client import connect
from tests.ledger.ledgers import now_us

NOW_US = now_us()
TIMEOUT_SECONDS = 20.0


def events(first: int, last: int, project: str = "p") -> list[EventCreated]:
    return [EventCreated(project, f"e{number}", NOW_US, "S") for number in range(first, last)]


def store(url: str, connect_seconds: float = 2.0) -> LedgerStore:
    return LedgerStore(connect(RedisConfig(url=url, connect_timeout_seconds=connect_seconds)))


def buffered(url: str, *, interval_seconds: float = 0.01, **options: Any) -> BufferedWriter:
    return BufferedWriter(store(url), interval_seconds=interval_seconds, flush_at_exit=False, **options)
