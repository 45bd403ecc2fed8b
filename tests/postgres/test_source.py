"""Exporters that share one reading of the database: what all serve, and what happens when something fails."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from otel_queue.config import RedisConfig
from otel_queue.config.secret import Secret
from otel_queue.errors import ConfigError, ReadError
from otel_queue.postgres.source import PostgresSource
from otel_queue.postgres.store import GenerationStore
from otel_queue.redis_client import connect
from tests.postgres.exporters import (
    KEY,
    Exporter,
    closing_link,
    events,
    example_at,
    exporters,
    failing,
    held,
    make_older,
    no_database,
)
from tests.postgres.gateway import DELIVERIES, EVENT_BACKLOG, EVENTS, Gateway, by_name
from tests.servers.postgres import postgres_server
from tests.servers.process import wait_until


def test_one_exporter_reads_and_all_serve_the_same(gateway: Gateway, exporter: Exporter) -> None:
    gateway.event("e1")
    gateway.delivery("d1", "e1", "Processing", seconds=60)
    first = exporter().collect()
    gateway.event("e2")
    second = exporter(no_database()).collect()
    assert events(first) == {"http": 1.0}
    assert second.families == first.families
    assert {family.source for family in second.families} == {"postgres"}
    assert {family.time for family in second.families} == {family.time for family in first.families}
    assert not first.failures
    assert not second.failures


def test_a_family_has_the_time_at_which_it_was_read_by_the_clock_of_redis(
    exporter: Exporter, client: redis.Redis
) -> None:
    def now() -> float:
        seconds, microseconds = client.time()
        return float(seconds) + float(microseconds) / 1e6

    before = now()
    times = {family.time for family in exporter().collect().families}
    assert len(times) == 1
    assert before <= times.pop() <= now()


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_how_old_the_oldest_family_is_does_not_depend_on_this_machines_clock(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    one, other = exporter(interval_seconds=600), exporter(no_database(), interval_seconds=600)
    actual = time.time
    monkeypatch.setattr(time, "time", lambda: actual() + ahead)
    first = one.collect().age_seconds
    assert 0 <= first < 600
    wait_until(lambda: first < one.collect().age_seconds, what="the age grows")
    assert first < other.collect().age_seconds < 600


def test_it_is_read_anew_once_the_interval_is_over(gateway: Gateway, exporter: Exporter, client: redis.Redis) -> None:
    one, other = exporter(interval_seconds=60), exporter(interval_seconds=60)
    assert events(one.collect()) == {}
    gateway.event("e1")
    assert events(one.collect()) == {}
    make_older(client, "time", 61)
    assert events(other.collect()) == {"http": 1.0}
    assert events(one.collect()) == {"http": 1.0}


def test_an_old_generation_is_gone_when_the_next_one_is_there(exporter: Exporter, client: redis.Redis) -> None:
    source = exporter()
    source.collect()
    first = held(client)
    make_older(client, "time", 61)
    source.collect()
    assert client.keys("*") == [KEY.encode()]
    second = held(client)
    assert second.keys() == first.keys() == {"fence", "token", "time", "generation"}
    assert int(second["token"]) > int(first["token"])


def test_the_key_has_a_life(exporter: Exporter, client: redis.Redis) -> None:
    exporter(no_database())
    with pytest.raises(ReadError):
        exporter(no_database()).collect()
    ttl: Any = client.ttl(KEY)
    assert ttl > 86_400
    client.delete(KEY)
    exporter().collect()
    ttl = client.ttl(KEY)
    assert ttl > 86_400


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: b"",
        lambda good: good[: len(good) // 2],
        lambda good: b"oqg9\n" + good[5:],
        lambda good: good[:-3] + bytes([good[-3] ^ 1]) + good[-2:],
        lambda good: b"\x00" * len(good),
        None,
    ],
    ids=["empty", "cut off", "other version", "a bit", "zeros", "field gone"],
)
def test_a_broken_generation_is_read_anew_at_once(
    gateway: Gateway, exporter: Exporter, client: redis.Redis, damage: Callable[[bytes], bytes] | None
) -> None:
    exporter().collect()
    gateway.event("e1")
    if damage is None:
        client.hdel(KEY, "generation")
    else:
        client.hset(KEY, "generation", damage(held(client)["generation"]))
    repaired = exporter().collect()
    assert events(repaired) == {"http": 1.0}
    assert repaired.failures == {"broken_generation": 1}
    again = exporter(no_database()).collect()
    assert events(again) == {"http": 1.0}
    assert not again.failures


def test_a_broken_generation_that_cannot_be_replaced_is_an_error_not_a_zero(
    exporter: Exporter, client: redis.Redis
) -> None:
    exporter().collect()
    client.hset(KEY, "generation", b"nonsense")
    assert failing(exporter(no_database())).reason == "connection"
    # Nobody tries again at once, and what the reason was is told to all.
    assert failing(exporter()).reason == "connection"


def test_exporters_that_count_in_different_ways_do_not_share(gateway: Gateway, exporter: Exporter) -> None:
    gateway.event("e1", source="http")
    gateway.event("e2")
    assert events(exporter().collect()) == {"http": 2.0}
    assert events(exporter(parity="legacy").collect()) == {"http": 1.0}
    gateway.execute("DELETE FROM convoy.events")
    gateway.refresh_snapshots()
    assert events(exporter(parity="legacy", use_snapshot_tables=True).collect()) == {}
    assert events(exporter(no_database()).collect()) == {"http": 2.0}


def test_a_snapshot_that_the_gateway_no_longer_refreshes_is_left_out_and_counted(
    gateway: Gateway, exporter: Exporter
) -> None:
    gateway.event("e1")
    gateway.refresh_snapshots()
    gateway.execute(
        "UPDATE convoy.metrics_snapshot_meta SET refreshed_at = now() - interval '1 h' WHERE name = 'event_queue'"
    )
    collected = exporter(parity="legacy", use_snapshot_tables=True).collect()
    families = by_name(collected.families)
    assert EVENTS not in families
    assert {EVENT_BACKLOG, DELIVERIES} <= families.keys()
    assert collected.failures == {"stale": 1}


def test_a_family_that_could_not_be_read_is_absent_for_all_and_counted_by_who_read(
    own_gateway: Gateway, redis_url: str
) -> None:
    own_gateway.execute("DROP TABLE convoy.delivery_attempts")
    with exporters(own_gateway, redis_url) as new:
        first, second = new().collect(), new(no_database()).collect()
    assert first.failures == {"missing_table": 1}
    assert not second.failures
    assert len(first.families) == len(second.families) == 4


def test_when_the_database_fails_the_last_generation_is_served_and_the_failure_counted_once(
    exporter: Exporter, client: redis.Redis, gateway: Gateway
) -> None:
    gateway.event("e1")
    exporter().collect()
    make_older(client, "time", 61)
    failed, other = exporter(no_database()).collect(), exporter().collect()
    assert events(failed) == events(other) == {"http": 1.0}
    assert failed.failures == {"connection": 1}
    assert not other.failures


def test_a_generation_that_is_too_old_is_not_served(exporter: Exporter, client: redis.Redis, redis_url: str) -> None:
    with closing_link(redis_url) as link:
        store = GenerationStore(link, "corrected")
        seen = store.look()
        assert seen.lease is not None
        store.keep(seen.lease, example_at(seen.now - 200))
    assert len(exporter(no_database(), interval_seconds=1000).collect().families) == 1
    assert failing(exporter(no_database(), interval_seconds=60)).reason == "connection"
    client.hdel(KEY, "failure")
    assert failing(exporter(no_database(), interval_seconds=60)).reason == "stale"


def test_when_the_database_comes_back_it_is_read_again(redis_url: str, client: redis.Redis) -> None:
    with postgres_server() as server:
        dsn = Secret(server.dsn())
        server.kill()
        link = connect(RedisConfig(url=redis_url))
        with contextlib.closing(PostgresSource(dsn, link)) as source:
            assert failing(source).reason == "connection"
            server.start()
            make_older(client, "failed_at", 61)
            assert failing(source).reason == "missing_table"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parity": "exact"}, "postgres.parity"),
        ({"use_snapshot_tables": True}, "postgres.use_snapshot_tables"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(exporter: Exporter, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        exporter(**options)


def test_the_password_is_shown_nowhere(exporter: Exporter) -> None:
    source = exporter(no_database())
    error = failing(source)
    assert "secret" not in f"{source} {source!r} {error} {error!r}"


def test_a_generation_is_as_new_as_the_start_of_its_reading_not_its_end(
    exporter: Exporter, refresh: Any, client: redis.Redis
) -> None:
    reading = refresh(exporter())
    in_the_middle = time.time_ns() // 1000
    reading.let_go()
    assert int(held(client)["time"]) <= in_the_middle
