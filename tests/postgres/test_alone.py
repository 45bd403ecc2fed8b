"""An exporter without the store: what it reads for itself, what it spares the database, and how it comes back."""

import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from otel_queue.config import RedisConfig
from otel_queue.errors import ReadError
from otel_queue.postgres.memory import Memory
from otel_queue.postgres.store import GenerationStore
from otel_queue.redis_client import connect
from tests.postgres.exporters import (
    KEY,
    Exporter,
    closing_link,
    events,
    example,
    example_at,
    exporters,
    failing,
    no_database,
)
from tests.postgres.gateway import ATTEMPTS, Gateway, by_name
from tests.servers.process import wait_until
from tests.servers.proxy import slow_proxy
from tests.servers.redis import RedisServer
from tests.servers.redis import redis_server as new_redis_server

HOUR = 3600.0


def test_without_redis_an_exporter_reads_for_itself_and_says_so(gateway: Gateway) -> None:
    gateway.event("e1")
    with new_redis_server() as server, exporters(gateway, server.url) as new:
        server.kill()
        before = time.time()
        collected = new().collect()
        assert events(collected) == {"http": 1.0}
        assert collected.failures == {"store_connection": 1}
        assert all(before <= family.time <= time.time() for family in collected.families)


def test_what_the_store_gave_last_is_served_and_the_database_not_asked_until_the_interval_is_over(
    gateway: Gateway,
) -> None:
    with new_redis_server() as server, exporters(gateway, server.url) as new:
        one, other = new(interval_seconds=HOUR), new(no_database(), interval_seconds=HOUR)
        shared = one.collect()
        other.collect()
        server.kill()
        gateway.event("e1")
        for source in (one, other):
            alone = source.collect()
            assert alone.families == shared.families
            assert alone.failures == {"store_connection": 1}


def test_alone_it_reads_anew_once_the_interval_is_over(gateway: Gateway) -> None:
    with new_redis_server() as server, exporters(gateway, server.url) as new:
        source = new(interval_seconds=0.2, max_age_seconds=HOUR)
        server.kill()
        first = source.collect()
        gateway.event("e1")
        wait_until(lambda: events(source.collect()) == {"http": 1.0}, what="it reads again")
        assert events(first) == {}


def test_alone_after_a_failure_it_does_not_ask_again_within_the_interval(own_gateway: Gateway) -> None:
    own_gateway.execute("ALTER SCHEMA convoy RENAME TO away")
    with new_redis_server() as server, exporters(own_gateway, server.url) as new:
        server.kill()
        patient, eager = new(interval_seconds=HOUR), new(interval_seconds=0.2)
        for source in (patient, eager):
            assert failing(source).reason == "missing_table"
        own_gateway.execute("ALTER SCHEMA away RENAME TO convoy")
        wait_until(lambda: events(eager.collect()) == {}, what="the eager one reads again")
        assert failing(patient).reason == "missing_table"


def test_a_failure_from_before_the_store_went_counts_too(own_gateway: Gateway) -> None:
    own_gateway.execute("ALTER SCHEMA convoy RENAME TO away")
    with new_redis_server() as server, exporters(own_gateway, server.url) as new:
        source = new(interval_seconds=HOUR)
        assert failing(source).reason == "missing_table"
        server.kill()
        own_gateway.execute("ALTER SCHEMA away RENAME TO convoy")
        assert failing(source).reason == "missing_table"


def test_alone_a_statement_that_fails_is_counted_and_costs_its_own_families(own_gateway: Gateway) -> None:
    own_gateway.execute("DROP TABLE convoy.delivery_attempts")
    with new_redis_server() as server, exporters(own_gateway, server.url) as new:
        server.kill()
        alone = new().collect()
        assert alone.failures == {"store_connection": 1, "missing_table": 1}
        assert ATTEMPTS not in by_name(alone.families)
        assert len(alone.families) == 4


def test_alone_when_the_database_fails_too_the_last_generation_is_served_until_it_is_too_old(
    own_gateway: Gateway,
) -> None:
    with new_redis_server() as server, exporters(own_gateway, server.url) as new:
        source = new(interval_seconds=0.2, max_age_seconds=3.0)
        first = source.collect()
        server.kill()
        own_gateway.execute("ALTER SCHEMA convoy RENAME TO away")

        def failures() -> dict[str, int] | None:
            collected = source.collect()
            assert collected.families == first.families
            return dict(collected.failures) if "missing_table" in collected.failures else None

        assert wait_until(failures, what="it has asked the database") == {"store_connection": 1, "missing_table": 1}

        def reason() -> str | None:
            try:
                source.collect()
            except ReadError as error:
                return error.reason
            return None

        assert wait_until(reason, what="the generation is too old") == "missing_table"


def test_when_redis_goes_in_the_middle_of_a_reading_it_is_served_here_and_given_to_all_later(
    gateway: Gateway, refresh: Any
) -> None:
    gateway.event("e1")
    with new_redis_server() as server, exporters(gateway, server.url) as new:
        source = new()
        reading = refresh(source)
        server.kill()
        reading.let_go()
        assert reading.error is None
        assert events(reading.collected) == {"http": 1.0}
        assert reading.collected.failures == {"store_connection": 1}
        server.start()
        source.collect()
        assert events(new(no_database()).collect()) == {"http": 1.0}


def test_back_again_what_was_read_alone_is_given_to_all_and_not_read_at_once(gateway: Gateway) -> None:
    with new_redis_server() as server, exporters(gateway, server.url) as new:
        server.kill()
        source = new()
        alone = source.collect()
        gateway.event("e1")
        server.start()
        back = source.collect()
        assert events(back) == {}
        assert not back.failures
        others = new(no_database()).collect()
        assert others.families == back.families
        # The same moment, by two clocks that are one on this machine.
        assert [family.time for family in back.families] == pytest.approx(
            [family.time for family in alone.families], abs=1.0
        )


def test_back_again_what_was_read_alone_by_a_wrong_clock_is_given_with_its_time_by_redis(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = SimpleNamespace(time=lambda: time.time() + HOUR, monotonic=time.monotonic)
    monkeypatch.setattr("otel_queue.postgres.source.time", ahead)
    with new_redis_server() as server, exporters(gateway, server.url) as new:
        server.kill()
        source = new()
        before = time.time()
        assert all(family.time > before + HOUR / 2 for family in source.collect().families)
        server.start()
        back = source.collect()
        assert all(before - 1.0 <= family.time <= time.time() for family in back.families)
        with closing_link(server.url) as link:
            kept = GenerationStore(link, "corrected").look(take=False).generation
        assert kept is not None
        assert before - 1.0 <= kept.time <= time.time()
        assert list(kept.families) == back.families


def test_back_again_what_was_read_alone_long_ago_is_read_anew(gateway: Gateway) -> None:
    with new_redis_server() as server, exporters(gateway, server.url) as new:
        server.kill()
        source = new(interval_seconds=0.5, max_age_seconds=HOUR)
        read = time.monotonic()
        assert events(source.collect()) == {}
        gateway.event("e1")
        server.start()
        wait_until(lambda: time.monotonic() - read > 1.0, what="the interval is over")
        assert events(source.collect()) == {"http": 1.0}


def test_back_again_in_an_empty_redis_it_serves_what_it_has_while_another_reads(gateway: Gateway) -> None:
    gateway.event("e1")
    with new_redis_server() as server, exporters(gateway, server.url) as new, closing_link(server.url) as link:
        server.kill()
        source = new()
        alone = source.collect()
        server.start()
        assert GenerationStore(link, "corrected").look().lease is not None
        assert failing(new()).reason == "not_yet"
        meanwhile = source.collect()
        assert meanwhile.families == alone.families
        assert not meanwhile.failures


def test_back_again_a_newer_generation_of_another_exporter_is_served(gateway: Gateway) -> None:
    with new_redis_server() as server, exporters(gateway, server.url) as new:
        server.kill()
        source = new()
        assert events(source.collect()) == {}
        gateway.event("e1")
        server.start()
        new().collect()
        assert events(source.collect()) == {"http": 1.0}


def test_an_older_generation_does_not_take_the_place_of_a_newer_one() -> None:
    memory, newer = Memory(HOUR), example()
    memory.put(newer, 10.0, is_shared=False)
    memory.put(example_at(1.0), 5.0)
    assert memory.generation is newer
    assert not memory.is_shared


def test_a_newer_generation_ends_what_is_told_of_a_failure() -> None:
    memory = Memory(HOUR)
    memory.fail(ReadError("timeout", "no answer"))
    memory.put(example(), 10.0)
    assert memory.failure is None


def test_exporters_that_lost_the_store_together_drift_apart() -> None:
    """Each waits an interval at least, and up to half of one more."""
    began, due = time.monotonic(), Counter[float]()
    for _ in range(100):
        for intervals in (0.9, 1.25, 1.6):
            memory = Memory(HOUR)
            memory.put(example(), began - intervals * HOUR)
            due[intervals] += memory.is_due
    assert (due[0.9], due[1.6]) == (0, 100)
    assert 0 < due[1.25] < 100


def test_a_redis_that_is_full_is_no_store(exporter: Exporter, redis_server: RedisServer, gateway: Gateway) -> None:
    gateway.event("e1")
    with redis_server.client() as client:
        client.config_set("maxmemory", 1)
        try:
            collected = exporter().collect()
        finally:
            client.config_set("maxmemory", 0)
    assert events(collected) == {"http": 1.0}
    assert collected.failures == {"store_out_of_memory": 1}


def test_a_redis_that_refuses_us_is_no_store(gateway: Gateway) -> None:
    users = ["reader on >secret ~* +@all -eval"]
    gateway.event("e1")
    with new_redis_server(users=users) as server, exporters(gateway, server.url_for("reader", "secret")) as new:
        collected = new().collect()
    assert events(collected) == {"http": 1.0}
    assert collected.failures == {"store_permission": 1}


def test_a_fault_in_the_store_is_an_error_and_no_reason_to_read_alone(
    gateway: Gateway, exporter: Exporter, client: redis.Redis
) -> None:
    client.set(KEY, "mine")
    assert failing(exporter()).reason == "wrong_type"


def test_a_store_that_does_not_answer_is_left_alone_for_a_while(redis_server: RedisServer) -> None:
    with slow_proxy(redis_server.port) as proxy:
        link = connect(RedisConfig(url=f"redis://127.0.0.1:{proxy.port}"))
        store = GenerationStore(link, "corrected", timeout_seconds=1.0)
        proxy.blackhole()
        with pytest.raises(ReadError) as first:
            store.look()
        asked = proxy.connections
        with pytest.raises(ReadError) as second:
            store.look()
        assert first.value.reason == second.value.reason == "timeout"
        assert proxy.connections == asked > 0
        proxy.restore()
        wait_until(lambda: store.look().lease, what="it is asked again")
        store.close()


def test_a_store_that_refuses_at_once_is_asked_again_at_once() -> None:
    with new_redis_server() as server, closing_link(server.url) as link:
        store = GenerationStore(link, "corrected")
        server.kill()
        with pytest.raises(ReadError, match="redis"):
            store.look()
        server.start()
        # Long before an interval is over. What takes its time to refuse is left alone for four times as long.
        wait_until(lambda: store.look().lease is not None, within=20, what="it is asked again")
