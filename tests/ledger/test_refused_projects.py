"""A project that Redis refuses: its records wait apart, within their bound, and cost no other project."""

import logging
from collections.abc import Sequence
from functools import partial

import pytest

from otel_queue.errors import WriteError
from otel_queue.ledger.store import Written
from otel_queue.ledger.writer import _BATCH, BufferedWriter
from otel_queue.lifecycle import EventCreated, Record
from tests.ledger.ledgers import DAY_US, Ledger, assert_same, day_of, expected, ulid
from tests.ledger.oracle import EVENTS
from tests.ledger.writers import NOW_US, TIMEOUT_SECONDS, buffered, events
from tests.servers.process import wait_until
from tests.servers.proxy import slow_proxy
from tests.servers.redis import RedisServer


def holds(writer: BufferedWriter, records: int) -> bool:
    return len(writer) == records


def test_a_project_whose_keys_are_not_the_ledgers_holds_up_no_other(
    redis_server: RedisServer, ledger: Ledger, writer: BufferedWriter
) -> None:
    with redis_server.client() as client:
        client.set("oq:{broken}:meta", "some text", ex=60)
        writer.write([*events(0, 10, "broken"), *events(0, 3_000)])
        wait_until(lambda: len(writer) == 10, what="the other project's records are written")
        assert set(writer.failures) == {"wrong_type"}
        client.delete("oq:{broken}:meta")
    assert writer.flush(TIMEOUT_SECONDS)
    families, now = ledger.read()
    assert_same(families, expected([*events(0, 10, "broken"), *events(0, 3_000)], now))


def test_a_refused_project_costs_the_others_no_pause(
    redis_server: RedisServer, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it waits for its next try, an hour from now, its new records join it, and those of others are written."""
    monkeypatch.setattr("otel_queue.ledger.lanes.FIRST_PAUSE_SECONDS", 3_600.0)
    monkeypatch.setattr("otel_queue.ledger.lanes.LONGEST_PAUSE_SECONDS", 3_600.0)
    writer = buffered(ledger.url)
    with redis_server.client() as client:
        client.set("oq:{broken}:meta", "some text", ex=60)
        for step in range(5):
            writer.write([*events(step, step + 1, "broken"), *events(3_000 * step, 3_000 * (step + 1))])
            wait_until(partial(holds, writer, step + 1), what="the other project's records are written")
        tries = writer.failures["wrong_type"]
        assert tries == 1
        assert sum(writer.written) == 15_000  # what goes together with a refused project is written once
        client.delete("oq:{broken}:meta")
    assert writer.close(TIMEOUT_SECONDS)  # who waits does not wait for a refused project's pauses
    assert writer.failures["wrong_type"] == tries
    families, now = ledger.read()
    assert_same(families, expected([*events(0, 5, "broken"), *events(0, 15_000)], now))


def test_one_refused_project_among_many_costs_them_no_further_try(
    redis_server: RedisServer, ledger: Ledger, writer: BufferedWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    write = writer._store.write_each

    def count(records: Sequence[Record], deadline: float) -> dict[str, Written | WriteError]:
        writes.append(len(records))
        return write(records, deadline)

    monkeypatch.setattr(writer._store, "write_each", count)
    with redis_server.client() as client:
        client.set("oq:{p300}:meta", "some text", ex=60)
        told = [record for number in range(500) for record in events(0, 1, f"p{number}")]
        writer.write(told)
        wait_until(lambda: len(writer) == 1, what="the other projects' records are written")
        assert sum(writer.written) == 499
        assert sum(length > 1 for length in writes) == 1
        client.delete("oq:{p300}:meta")
    assert writer.flush(TIMEOUT_SECONDS)
    families, now = ledger.read()
    assert_same(families, expected(told, now))


def test_refused_projects_take_no_room_from_others_and_little_from_one_another(
    redis_server: RedisServer, ledger: Ledger
) -> None:
    writer = buffered(ledger.url, most_records=100)
    with redis_server.client() as client:
        for project in ("a", "b"):
            client.set(f"oq:{{{project}}}:meta", "some text", ex=60)
        for number in range(10):
            writer.write(events(30 * number, 30 * (number + 1), "a"))
            wait_until(lambda: not writer._queue, what="they are set apart")
        assert (len(writer), writer.dropped) == (100, 200)
        writer.write(events(0, 20, "b"))
        wait_until(lambda: not writer._queue, what="they are set apart")
        assert (len(writer), writer.dropped) == (100, 220)
        assert writer.write(events(0, 100)) == "queued"
        wait_until(lambda: len(writer) == 100, what="the others are written")
        client.delete("oq:{a}:meta", "oq:{b}:meta")
    assert writer.close(TIMEOUT_SECONDS)
    assert writer.errors()["dropped"] == 220
    counts = ledger.families()[EVENTS]
    assert counts == {("a", "S", "success"): 80.0, ("b", "S", "success"): 20.0, ("p", "S", "success"): 100.0}


def test_what_can_be_written_of_a_refused_project_is(
    redis_server: RedisServer, ledger: Ledger, writer: BufferedWriter
) -> None:
    """A day is broken: what stands behind its records, more of them than are written at once, goes in."""
    broken, today = NOW_US - DAY_US, NOW_US
    bad = [EventCreated("p", ulid(broken, number), broken, "S") for number in range(_BATCH)]
    good = [EventCreated("p", ulid(today, number), today, "S") for number in range(6_000)]
    with redis_server.client() as client:
        client.set(f"oq:{{p}}:events:{day_of(broken)}", "some text", ex=60)
        writer.write([*bad, *good])
        wait_until(
            lambda: client.hvals(f"oq:{{p}}:counts:{day_of(today)}") == [b"6000"], what="all of them are in the ledger"
        )
        client.delete(f"oq:{{p}}:events:{day_of(broken)}")
    assert writer.flush(TIMEOUT_SECONDS)
    families, now = ledger.read()
    assert_same(families, expected([*bad, *good], now))


def test_in_an_outage_refused_projects_wait_with_the_others(redis_server: RedisServer, ledger: Ledger) -> None:
    with slow_proxy(redis_server.port) as proxy, redis_server.client() as client:
        client.set("oq:{broken}:meta", "some text", ex=60)
        writer = buffered(f"redis://127.0.0.1:{proxy.port}/0", timeout_seconds=0.1)
        writer.write(events(0, 10, "broken"))
        wait_until(lambda: writer.failures["wrong_type"] > 1, what="the project is tried again")
        proxy.blackhole()
        wait_until(lambda: writer.failures["timeout"], what="a try finds no Redis")
        writer.write(events(0, 10))
        client.delete("oq:{broken}:meta")
        proxy.restore()
        assert writer.close(TIMEOUT_SECONDS)
    families, now = ledger.read()
    assert_same(families, expected([*events(0, 10, "broken"), *events(0, 10)], now))


def test_a_refused_project_is_told_once_and_so_is_its_end(
    redis_server: RedisServer, ledger: Ledger, writer: BufferedWriter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "otel_queue.ledger.writer")
    with redis_server.client() as client:
        client.set("oq:{broken}:meta", "some text", ex=60)
        writer.write([*events(0, 1, "broken"), *events(0, 1)])
        wait_until(lambda: writer.failures["wrong_type"] > 3, what="it is tried again")
        client.delete("oq:{broken}:meta")
    assert writer.flush(TIMEOUT_SECONDS)
    assert [(record.levelname, "'broken'" in record.getMessage()) for record in caplog.records] == [
        ("WARNING", True),
        ("INFO", True),
    ]
