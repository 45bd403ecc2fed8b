"""An append-only file that ends in the middle of what a script did, as after a power cut or on a full disk."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from otel_queue.lifecycle import AttemptMade, DeliveryCreated, Record, StatusSet
from tests.ledger.ledgers import Ledger, assert_same, expected, now_us, ulid
from tests.servers.redis import RedisServer, redis_server, redis_version

NOW_US = now_us()
BEFORE: list[Record] = [DeliveryCreated("p", ulid(NOW_US, number), NOW_US, "E", "t", "S") for number in range(3)]
TORN: list[Record] = [
    StatusSet("p", ulid(NOW_US, 0), "success", NOW_US + 1),
    AttemptMade("p", ulid(NOW_US, 0), NOW_US, "E", True, 200),
]

pytestmark = pytest.mark.skipif(redis_version() < (7, 0), reason="its file has no parts")


class Torn(NamedTuple):
    """A server that was killed, its file, and where in it the last transactions begin and end."""

    server: RedisServer
    ledger: Ledger
    file: Path
    begin: int
    end: int


@pytest.fixture
def torn() -> Iterator[Torn]:
    args = ["--appendonly", "yes", "--appendfsync", "always", "--aof-load-truncated", "no"]
    with redis_server(args=args) as server:
        ledger = Ledger(server.url)
        ledger.write(*BEFORE)
        with server.client() as client:
            [file] = Path(str(client.config_get("dir")["dir"])).glob("appendonlydir/*.incr.aof")
        begin = file.stat().st_size
        ledger.write(*TORN)
        server.kill()
        yield Torn(server, ledger, file, begin, file.stat().st_size)
        ledger.close()


def test_redis_refuses_it_where_it_is_told_to(torn: Torn) -> None:
    os.truncate(torn.file, torn.end - 3)
    with pytest.raises(AssertionError, match="redis-check-aof --fix"):
        torn.server.process.start()


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
