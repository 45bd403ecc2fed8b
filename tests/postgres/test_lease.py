"""Who of several exporters reads the database: one at a time, and another when it dies, fails or is too slow."""

import contextlib
import subprocess
import sys
import threading
from typing import Any

import pytest
import redis

from otel_queue.errors import ReadError
from otel_queue.lane import Collected
from otel_queue.postgres.source import PostgresSource
from otel_queue.postgres.store import GenerationStore
from tests.postgres.exporters import (
    MICROSECONDS,
    Exporter,
    closing_link,
    events,
    example,
    example_at,
    failing,
    held,
    is_held_up,
    locked,
    make_older,
    no_database,
)
from tests.postgres.gateway import Gateway
from tests.servers.process import wait_until


def test_while_one_reads_for_the_first_time_others_do_not_and_say_so(exporter: Exporter, refresh: Any) -> None:
    reading = refresh(exporter())
    assert failing(exporter()).reason == "not_yet"
    reading.let_go()
    assert reading.collected is not None
    assert exporter(no_database()).collect().families == reading.collected.families


def test_while_one_reads_again_others_serve_the_last_generation(
    gateway: Gateway, exporter: Exporter, refresh: Any, client: redis.Redis
) -> None:
    other = exporter()
    other.collect()
    make_older(client, "time", 61)
    gateway.event("e1")
    reading = refresh(exporter())
    assert events(other.collect()) == {}
    reading.let_go()
    assert events(other.collect()) == {"http": 1.0}


def test_exporters_that_start_at_once_read_once(exporter: Exporter, gateway: Gateway) -> None:
    gateway.event("e1")
    sources = [exporter() for _ in range(8)]
    start = threading.Barrier(len(sources))
    found: list[Collected] = []

    def run(source: PostgresSource) -> None:
        start.wait()
        with contextlib.suppress(ReadError):  # not yet
            found.append(source.collect())

    threads = [threading.Thread(target=run, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Each refresh would have a time of its own.
    assert len({family.time for collected in found for family in collected.families}) == 1


def test_the_lease_of_an_exporter_that_died_ends_by_itself(redis_url: str) -> None:
    with contextlib.ExitStack() as stack:
        dead, heir = (
            GenerationStore(stack.enter_context(closing_link(redis_url)), "corrected", lease_seconds=0.3)
            for _ in range(2)
        )
        lease = dead.look().lease
        assert lease is not None
        assert heir.look().lease is None
        next_lease = wait_until(lambda: heir.look().lease, what="the lease is free")
        assert next_lease is not None
        assert int(next_lease.token) > int(lease.token)


def test_a_lease_that_is_renewed_does_not_end(redis_url: str, client: redis.Redis) -> None:
    with closing_link(redis_url) as link:
        store = GenerationStore(link, "corrected", lease_seconds=100)
        lease = store.look().lease
        assert lease is not None
        make_older(client, "lease_until", 99)
        almost_over = int(held(client)["lease_until"])
        store.renew(lease)
        assert int(held(client)["lease_until"]) > almost_over + 90 * MICROSECONDS
        assert store.look().lease is None


def test_a_reading_renews_its_lease_before_each_statement(
    gateway: Gateway, exporter: Exporter, refresh: Any, client: redis.Redis
) -> None:
    with locked(gateway, "delivery_attempts"):
        reading = refresh(exporter())
        make_older(client, "lease_until", 3600)
        over = int(held(client)["lease_until"])
        reading.release()
        wait_until(lambda: int(held(client)["lease_until"]) > over + 3500 * MICROSECONDS, what="the lease is renewed")
    reading.let_go()
    assert reading.error is None


def test_an_exporter_that_is_killed_in_the_middle_of_its_reading_is_replaced_when_its_lease_ends(
    gateway: Gateway, exporter: Exporter, client: redis.Redis, redis_url: str
) -> None:
    gateway.event("e1")
    with locked(gateway):
        code = _COLLECT.format(dsn=gateway.dsn.reveal(), redis_url=redis_url)
        dying = subprocess.Popen([sys.executable, "-c", code])
        try:
            wait_until(lambda: is_held_up(gateway), what="the exporter is in the middle of its statements")
        finally:
            dying.kill()
            dying.wait()
    assert failing(exporter()).reason == "not_yet"
    make_older(client, "lease_until", 3600)
    assert events(exporter().collect()) == {"http": 1.0}


_COLLECT = """
from otel_queue.config import RedisConfig
from otel_queue.config.secret import Secret
from otel_queue.postgres.source import PostgresSource
from otel_queue.redis_client import connect
PostgresSource(Secret("{dsn}"), connect(RedisConfig(url="{redis_url}"))).collect()
"""


def test_an_exporter_whose_session_is_ended_says_so_and_is_replaced_after_a_pause(
    gateway: Gateway, exporter: Exporter, refresh: Any, client: redis.Redis
) -> None:
    dying = refresh(exporter())
    gateway.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'otel-queue'")
    dying.let_go()
    assert dying.error is not None
    assert dying.error.reason == "connection"
    make_older(client, "failed_at", 61)  # the pause after a failure is over
    assert events(exporter().collect()) == {}


def test_who_loses_the_lease_in_the_middle_keeps_nothing_and_serves_what_the_other_read(
    gateway: Gateway, exporter: Exporter, refresh: Any, client: redis.Redis, redis_url: str
) -> None:
    slow = refresh(exporter())
    make_older(client, "lease_until", 3600)
    with closing_link(redis_url) as link:
        store = GenerationStore(link, "corrected")
        lease = store.look().lease
        assert lease is not None
        others = example_at(store.look().now)
        store.keep(lease, others)
    slow.let_go()
    assert slow.error is None
    assert slow.collected is not None
    assert slow.collected.families == list(others.families)
    assert slow.collected.failures == {"lease_lost": 1}
    assert held(client)["token"] == lease.token


def test_a_late_writer_cannot_overwrite_even_when_the_later_lease_has_not_been_used(redis_url: str) -> None:
    with closing_link(redis_url) as one, closing_link(redis_url) as two:
        early, late = (GenerationStore(link, "corrected", lease_seconds=0.05) for link in (one, two))
        old = early.look().lease
        assert old is not None
        wait_until(lambda: late.look().lease, what="the second lease")
        with pytest.raises(ReadError, match="no longer the latest"):
            early.keep(old, example())
        with pytest.raises(ReadError, match="no longer the latest"):
            early.renew(old)
        early.keep_failure(old, ReadError("timeout", "too late"))
        seen = late.look(take=False)
        assert seen.generation is None
        assert seen.failure is None


def test_a_lease_from_before_redis_was_flushed_is_lost(redis_url: str, client: redis.Redis) -> None:
    with closing_link(redis_url) as one, closing_link(redis_url) as two:
        before, after = GenerationStore(one, "corrected"), GenerationStore(two, "corrected")
        old = before.look().lease
        assert old is not None
        client.flushall()
        new = after.look().lease
        assert new is not None
        with pytest.raises(ReadError, match="no longer"):
            before.keep(old, example())
        after.keep(new, example())
        assert after.look(take=False).generation == example()


def test_after_a_failure_nobody_asks_the_database_again_within_the_interval(
    exporter: Exporter, client: redis.Redis
) -> None:
    assert failing(exporter(no_database())).reason == "connection"
    told = failing(exporter())
    assert told.reason == "connection"
    assert "secret" not in str(told)
    make_older(client, "failed_at", 61)
    assert events(exporter().collect()) == {}
    assert "failure" not in held(client)
