"""An append-only file that ends in the middle of what a script did, as after a power cut or on a full disk."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from otel_queue.lifecycle import AttemptMade, DeliveryCreated, Record, StatusSet
from tests.ledger.ledgers import Ledger, assert_same, expected, now_us, ulid
from tests.requirements_gate import Needs, missing
from tests.servers.redis import RedisServer, redis_server, redis_version

NOW_US = now_us()
BEFORE: list[Record] = [DeliveryCreated("p", ulid(NOW_US, number), NOW_US, "E", "t", "S") for number in range(3)]
TORN: list[Record] = [
    StatusSet("p", ulid(NOW_US, 0), "success", NOW_US + 1),
    AttemptMade("p", ulid(NOW_US, 0), NOW_US, "E", True, 200),
]


class Torn(NamedTuple):
    """A server that was killed, its file, and where in it the last transactions begin and end."""

    server: RedisServer
    ledger: Ledger
    file: Path
    begin: int
    end: int


@contextlib.contextmanager
def torn_server(*, starts_on_it: str) -> Iterator[Torn]:
    """`starts_on_it` is the server's `aof-load-truncated`."""
    if redis_version() < (7, 0):
        missing(Needs.REDIS_7, "its append-only file has no parts")
    args = ["--appendonly", "yes", "--appendfsync", "always", "--aof-load-truncated", starts_on_it]
    with redis_server(args=args) as server, contextlib.closing(Ledger(server.url)) as ledger:
        ledger.write(*BEFORE)
        with server.client() as client:
            [file] = Path(str(client.config_get("dir")["dir"])).glob("appendonlydir/*.incr.aof")
        begin = file.stat().st_size
        ledger.write(*TORN)
        server.kill()
        yield Torn(server, ledger, file, begin, file.stat().st_size)


@pytest.fixture
def torn() -> Iterator[Torn]:
    with torn_server(starts_on_it="no") as torn:
        yield torn


def test_the_server_refuses_it_where_it_is_told_to(torn: Torn) -> None:
    os.truncate(torn.file, torn.end - 3)
    with pytest.raises(AssertionError, match=r"(redis|valkey)-check-aof --fix"):
        torn.server.process.start()


def test_a_server_that_starts_on_it_counts_by_half_from_its_next_start_on_and_valkey_since_9_1_does_not() -> None:
    with torn_server(starts_on_it="yes") as torn:
        os.truncate(torn.file, torn.begin + (torn.end - torn.begin) * 3 // 10)
        torn.server.process.start()
        torn.ledger.write(*TORN)
        assert torn.ledger.differences() == []
        torn.server.kill()
        torn.server.process.start()
        assert (torn.ledger.differences() == []) == (redis_version() >= (9, 1))


@pytest.mark.parametrize("tenth", range(1, 10))
def test_once_it_is_mended_nothing_is_counted_by_half_or_twice(torn: Torn, tenth: int) -> None:
    """Also after the start that follows, at which Redis would execute what it had kept of a transaction."""
    os.truncate(torn.file, torn.begin + (torn.end - torn.begin) * tenth // 10)
    torn.server.start()
    torn.ledger.write(*TORN)  # nobody has heard that they were written
    for _ in range(2):
        families, now = torn.ledger.read()
        assert_same(families, expected([*BEFORE, *TORN], now))
        assert torn.ledger.differences() == []
        torn.server.restart()
