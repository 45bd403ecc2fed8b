"""Patience with a ledger that refuses, and an end to it."""

import threading
from contextlib import closing

import pytest

from otel_queue.config import RedisConfig
from otel_queue.errors import WriteError
from otel_queue.ledger.counts import CountsStore
from otel_queue.ledger.guard import GuardedLink
from otel_queue.ledger.store import LedgerStore
from otel_queue.redis_client import connect
from otel_queue.seeding.pace import Pace, StoppedError
from otel_queue.seeding.progress import Progress
from otel_queue.seeding.seed import Seed
from tests.ledger.ledgers import Ledger, ledger_server, now_us, ulid
from tests.postgres.gateway import Gateway
from tests.seeding.seeds import assert_agree, rows_of


class Waiting(threading.Event):
    """Nobody waits; each pause calls `meanwhile`."""

    def __init__(self, meanwhile: object = None) -> None:
        super().__init__()
        self.pauses: list[float] = []
        self.meanwhile = meanwhile

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout or 0)
        if callable(self.meanwhile):
            self.meanwhile()
        return self.is_set()


def test_a_ledger_above_its_memory_limit_is_waited_for(gateway: Gateway, ledger: Ledger) -> None:
    gateway.delivery(ulid(now_us(), 1), "gone", "Success")
    clock = [0.0]
    link = GuardedLink(connect(RedisConfig(url=ledger.url)), 1, now=lambda: clock[0])

    def shrink() -> None:
        clock[0] += 20.0
        link._limit = 1 << 40

    waiting = Waiting(shrink)
    with closing(LedgerStore(link)) as store:
        counts = CountsStore(connect(RedisConfig(url=ledger.url)))
        pace = Pace(0.0, waiting, patience_seconds=(1.0, 2.0))
        assert Seed(rows_of(gateway), store, counts, pace=pace, progress=Progress(0)).run().is_complete
        counts.close()
    assert 1.0 in waiting.pauses
    assert_agree(ledger, gateway)


def test_a_replica_that_is_gone_is_waited_for(gateway: Gateway) -> None:
    """Two projects in a batch: a refusal is of neither, so that no row is left out for it."""
    for number, project in enumerate(("P", "Q")):
        gateway.delivery(ulid(now_us(), number), "gone", "Success", project=project)
    with ledger_server() as server, server.client() as client:
        ledger = Ledger(server.url)
        client.config_set("min-replicas-to-write", 1)
        waiting = Waiting(lambda: client.config_set("min-replicas-to-write", 0))
        with (
            closing(LedgerStore(connect(RedisConfig(url=server.url)))) as store,
            closing(CountsStore(connect(RedisConfig(url=server.url)))) as counts,
        ):
            pace = Pace(0.0, waiting, patience_seconds=(1.0, 2.0))
            assert Seed(rows_of(gateway), store, counts, pace=pace, progress=Progress(0)).run().is_complete
        assert 1.0 in waiting.pauses
        assert_agree(ledger, gateway)
        ledger.close()


def test_patience_ends_with_the_error() -> None:
    waiting = Waiting()
    tries: list[int] = []

    def refuse() -> None:
        tries.append(1)
        raise WriteError("memory_guard", "Redis uses 2 bytes, more than 1")

    with pytest.raises(WriteError, match="more than 1"):
        Pace(0.0, waiting, patience_seconds=(1.0, 2.0)).patiently(refuse)
    assert waiting.pauses == [1.0, 2.0]
    assert len(tries) == 3


def test_what_does_not_pass_is_not_waited_for() -> None:
    waiting = Waiting()

    def refuse() -> None:
        raise WriteError("permission", "NOPERM")

    with pytest.raises(WriteError):
        Pace(0.0, waiting).patiently(refuse)
    assert waiting.pauses == []


def test_a_run_that_waits_can_be_ended() -> None:
    waiting = Waiting()
    waiting.set()

    def refuse() -> None:
        raise WriteError("connection", "gone")

    with pytest.raises(StoppedError):
        Pace(0.0, waiting).patiently(refuse)
