import time

import pytest

from otel_queue.config import RedisConfig
from otel_queue.errors import ReadError, WriteError
from otel_queue.ledger.guard import GuardedLink
from otel_queue.ledger.store import LedgerStore
from otel_queue.lifecycle import EventCreated
from otel_queue.redis_client import connect, request
from tests.ledger.ledgers import Ledger

EVENT = EventCreated("P", "id", 1)


def test_writes_are_refused_while_redis_uses_more_memory_than_allowed_and_go_on_afterwards(redis_url: str) -> None:
    Ledger(redis_url).close()
    clock = [0.0]
    link = GuardedLink(connect(RedisConfig(url=redis_url)), 1, now=lambda: clock[0])
    store = LedgerStore(link)
    with pytest.raises(WriteError) as refused:
        store.write([EVENT], time.monotonic() + 5)
    assert refused.value.reason == "memory_guard"
    link._limit = 1 << 40
    clock[0] = 60.0
    assert store.write([EVENT], time.monotonic() + 5).changed == 1


def test_a_redis_that_refuses_info_is_not_guarded(redis_url: str) -> None:
    class Refusing:
        def exchange(self, requests: object, deadline: float) -> object:
            yield ReadError("permission", "no INFO")

        def place(self, key: bytes) -> str:
            return "the server"

        def close(self) -> None: ...

    link = GuardedLink(Refusing(), 1)  # type: ignore[arg-type]
    [answer] = link.exchange([request(b"key", [("GET", b"key")])], time.monotonic() + 5)
    assert isinstance(answer, ReadError)
    assert answer.reason == "permission"
