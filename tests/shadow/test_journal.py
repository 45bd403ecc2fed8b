"""The journal in a real Redis: what is kept of it, by whom, and what becomes of what is no journal."""

import json
from typing import Any

import pytest
import redis

from otel_queue.config import RedisConfig
from otel_queue.errors import ReadError
from otel_queue.redis_client import connect
from otel_queue.shadow.entry import Entry, Standing
from otel_queue.shadow.journal import Journal, decode, encode
from tests.servers.process import free_port
from tests.servers.redis import RedisServer
from tests.shadow.sides import DELIVERIES, EVENTS, series

KEY = "oq:shadow:1"


def entry(metric: str = DELIVERIES, **values: Any) -> Entry:
    worst = Standing(series(metric, "sourcé"), 1.0, 2.0, 5.5, 3.5, "", 1e9, 4, 2, True)
    missing = Standing(series(metric, "S2"), 0.0, 0.0, 7.0, 7.0, "ledger", 1e9 + 0.25, 1, 1, False)
    told = {"rule": "r", "comparisons": 9, "first": 1e9, "last": 1e9 + 1 / 3, "within_since": None, "drift": 7.0}
    return Entry(metric, **{**told, "missing": {"ledger": 1}, "skipped": {"lagging_replica": 2}, "known": {"k": 3},
                            "legacy": {"l": 4}, "standing": 1, "worst": (worst, missing), **values})  # fmt: skip


def test_an_entry_comes_back_as_it_was(journal: Journal) -> None:
    kept = [entry(), entry(EVENTS, first=None, last=None, worst=())]
    assert journal.read().entries == {}
    assert journal.keep(kept, journal.read()) == 0
    assert journal.read().entries == {each.metric: each for each in kept}


def test_it_ends_by_itself_thirty_days_after_the_last_comparison(journal: Journal, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        journal.keep([entry()], journal.read())
        client.expire(KEY, 60)
        journal.keep([entry(comparisons=10)], journal.read())
        assert 30 * 86_400 - 60 < int(client.ttl(KEY)) <= 30 * 86_400


def test_of_two_that_read_the_same_entry_the_first_keeps_its_own(journal: Journal) -> None:
    journal.keep([entry(comparisons=1), entry(EVENTS, comparisons=1)], journal.read())
    one, other = journal.read(), journal.read()
    assert journal.keep([entry(comparisons=2)], one) == 0
    assert journal.keep([entry(comparisons=3), entry(EVENTS, comparisons=3)], other) == 1
    assert {name: found.comparisons for name, found in journal.read().entries.items()} == {DELIVERIES: 2, EVENTS: 3}


@pytest.mark.parametrize(
    "broken",
    [
        b"", b"{", b"null", b"[]", b"3", b'"text"', b"\xff\xfe", b"[" * 100_000,
        encode(entry(EVENTS)),
        encode(entry(EVENTS, worst=())),
        encode(entry()).replace(b'"comparisons":9', b'"comparisons":"9"'),
        encode(entry()).replace(b'"comparisons":9', b'"comparisons":-9'),
        encode(entry()).replace(b'"comparisons":9', b'"comparisons":true'),
        encode(entry()).replace(b'"drift":7.0', b'"drift":NaN'),
        encode(entry()).replace(b'"drift":7.0', b'"drift":1e999'),
        encode(entry()).replace(b'"missing":{"ledger":1}', b'"missing":[]'),
        encode(entry()).replace(b'"known":{"k":3}', b'"known":{"k":"3"}'),
        encode(entry()).replace(b'"rule":"r"', b'"rule":null'),
        encode(entry()).replace(b'"P",', b'"P","P",'),
        encode(entry()).replace(b'"P",', b"7,"),
        encode(entry()).replace(b'"ledger",1000000000.25', b'"nowhere",1000000000.25'),
        encode(entry()).replace(b"2,true", b"2,1"),
        encode(entry()).replace(b'"worst":', b'"best":'),
    ],
)  # fmt: skip
def test_what_is_no_entry_is_counted_and_replaced(journal: Journal, redis_server: RedisServer, broken: bytes) -> None:
    assert broken != encode(entry()), "the row breaks nothing"
    with redis_server.client() as client:
        client.hset(KEY, mapping={DELIVERIES: broken, EVENTS: encode(entry(EVENTS)), "no_metric": b"x"})
    read = journal.read()
    assert list(read.entries) == [EVENTS]
    assert read.failures == {"broken_journal": 1}
    assert journal.keep([entry()], read) == 0
    assert journal.read().failures == {}


def test_fields_that_a_later_version_adds_are_passed_over() -> None:
    later = json.dumps({**json.loads(encode(entry())), "added": 1}).encode()
    assert decode(DELIVERIES, later) == entry()


def test_a_key_of_another_type_cannot_be_read_or_written_and_stays(journal: Journal, redis_server: RedisServer) -> None:
    read = journal.read()
    with redis_server.client() as client:
        client.set(KEY, "mine", ex=100)
        for act in (journal.read, lambda: journal.keep([entry()], read)):
            with pytest.raises(ReadError) as raised:
                act()
            assert raised.value.reason == "wrong_type"
        assert client.get(KEY) == b"mine"


def test_a_redis_that_is_gone_is_a_read_error() -> None:
    gone = Journal(connect(RedisConfig(url=f"redis://127.0.0.1:{free_port()}/0")))
    with pytest.raises(ReadError) as raised:
        gone.read()
    assert raised.value.reason == "connection"


def test_times_are_by_the_clock_of_redis_and_the_namespace_is_in_the_key(
    redis_url: str, redis_server: RedisServer
) -> None:
    journal = Journal(connect(RedisConfig(url=redis_url)), namespace="mine")
    with redis_server.client() as client:
        journal.keep([entry()], journal.read())
        before, _ = client.time()
        assert before <= journal.read().time <= before + 60
        assert [name.decode() for name in redis.Redis.keys(client, "*")] == ["mine:shadow:1"]
    journal.close()
