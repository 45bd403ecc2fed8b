"""Faults of the database and of what is around it: what is exported meanwhile, what is counted, and the way back."""

import contextlib
from collections.abc import Iterator

import pytest

from otel_queue.config import RedisConfig
from otel_queue.config.secret import Secret
from otel_queue.errors import ReadError
from otel_queue.lane import Collected
from otel_queue.postgres.source import PostgresSource
from otel_queue.redis_client import connect
from tests.postgres.exporters import Exporter, events, exporters, is_held_up, locked
from tests.postgres.gateway import ATTEMPTS, DELIVERIES, EVENTS, HERE, Gateway, by_name
from tests.servers.postgres import PostgresServer, postgres_server
from tests.servers.process import wait_until
from tests.servers.redis import redis_server as new_redis_server

SOON = 0.2
HOUR = 3600.0


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that the test may break, with the gateway's tables."""
    with postgres_server() as started:
        with started.connect() as connection:
            connection.execute((HERE / "schema.sql").read_bytes())
        yield started


def collected_with(source: PostgresSource, reason: str) -> Collected:
    """The first collection that counts the reason; those before it count nothing else."""

    def collect() -> Collected | None:
        collected = source.collect()
        assert collected.failures.keys() <= {reason}
        return collected if reason in collected.failures else None

    found = wait_until(collect, what=f"{reason} is counted")
    assert found is not None
    return found


def wait_until_it_serves(source: PostgresSource, count: int) -> None:
    wait_until(lambda: events(source.collect()) == {"http": float(count)}, what=f"{count} events are served")


def error_of(source: PostgresSource) -> str | None:
    try:
        source.collect()
    except ReadError as error:
        return error.reason
    return None


def add_event(server: PostgresServer, id: str) -> None:
    server.execute("INSERT INTO convoy.events (id, event_type, project_id) VALUES (%s, 't', 'P')", id)


def source_of(server: PostgresServer, redis_url: str, max_age_seconds: float) -> PostgresSource:
    link = connect(RedisConfig(url=redis_url))
    return PostgresSource(
        Secret(server.dsn()), link, interval_seconds=SOON, max_age_seconds=max_age_seconds, statement_timeout_seconds=5
    )


def test_a_database_that_goes_and_comes_back(server: PostgresServer, redis_url: str) -> None:
    add_event(server, "e1")
    with (
        contextlib.closing(source_of(server, redis_url, HOUR)) as patient,
        contextlib.closing(source_of(server, redis_url, 2.0)) as strict,
    ):
        wait_until(lambda: events(patient.collect()) == {"http": 1.0}, what="it is read")
        strict.collect()
        server.kill()
        last = patient.collect()
        without = collected_with(patient, "connection")
        # The same numbers with the same time: they age.
        assert without.families == last.families
        assert wait_until(lambda: error_of(strict), what="they are too old") == "connection"
        server.start()
        add_event(server, "e2")
        wait_until(lambda: events(patient.collect()) == {"http": 2.0}, what="it is read again")
        assert events(strict.collect()) == {"http": 2.0}


def test_a_database_that_is_restarted_between_two_readings(server: PostgresServer, redis_url: str) -> None:
    with contextlib.closing(source_of(server, redis_url, HOUR)) as source:
        first = source.collect()
        server.stop()
        server.start()
        add_event(server, "e1")
        back = wait_until(lambda: events(source.collect()), what="it is read again")
    assert events(first) == {}
    assert back == {"http": 1.0}


def test_a_table_that_is_locked_costs_its_families_for_as_long_as_the_statement_timeout(
    gateway: Gateway, exporter: Exporter
) -> None:
    gateway.event("e1")
    gateway.delivery("d1", "e1", "Success")
    source = exporter(statement_timeout_seconds=0.3, interval_seconds=SOON, max_age_seconds=HOUR)
    with locked(gateway):
        meanwhile = source.collect()
    assert by_name(meanwhile.families).keys() == {EVENTS, ATTEMPTS}
    assert meanwhile.failures == {"timeout": 1}
    assert not is_held_up(gateway)
    wait_until(lambda: DELIVERIES in by_name(source.collect().families), what="the families are whole again")
    assert len(source.collect().families) == 5


def test_all_tables_locked_cost_the_reading_and_the_last_numbers_stay(gateway: Gateway, exporter: Exporter) -> None:
    gateway.event("e1")
    source = exporter(statement_timeout_seconds=0.2, interval_seconds=SOON, max_age_seconds=HOUR)
    first = source.collect()
    with locked(gateway, "events"), locked(gateway, "delivery_attempts"):
        meanwhile = collected_with(source, "timeout")
        assert meanwhile.families == source.collect().families
        assert events(meanwhile) == {"http": 1.0}
        assert len(meanwhile.families) == len(first.families) == 5
    gateway.event("e2")
    wait_until(lambda: events(source.collect()) == {"http": 2.0}, what="it is read again")


def test_one_statement_that_is_too_slow_costs_its_own_families(own_gateway: Gateway, redis_url: str) -> None:
    own_gateway.event("e1")
    own_gateway.execute(
        "ALTER TABLE convoy.delivery_attempts RENAME TO quick;"
        "CREATE VIEW convoy.delivery_attempts AS SELECT quick.* FROM pg_sleep(600), convoy.quick"
    )
    with exporters(own_gateway, redis_url) as new:
        source = new(statement_timeout_seconds=0.5, interval_seconds=SOON, max_age_seconds=HOUR)
        slow = source.collect()
        assert events(slow) == {"http": 1.0}
        assert ATTEMPTS not in by_name(slow.families)
        assert len(slow.families) == 4
        assert slow.failures == {"timeout": 1}
        own_gateway.execute("DROP VIEW convoy.delivery_attempts; ALTER TABLE convoy.quick RENAME TO delivery_attempts")
        wait_until(lambda: ATTEMPTS in by_name(source.collect().families), what="it is quick again")


def test_a_replica_that_falls_behind_is_served_with_its_age_and_then_not_at_all(
    server: PostgresServer, redis_url: str
) -> None:
    with (
        postgres_server(replica_of=server) as replica,
        contextlib.closing(source_of(replica, redis_url, HOUR)) as patient,
        contextlib.closing(source_of(replica, redis_url, 2.0)) as strict,
    ):
        add_event(server, "e1")
        wait_until(lambda: events(patient.collect()) == {"http": 1.0}, what="the replica is in step")
        replica.execute("SELECT pg_wal_replay_pause()")
        add_event(server, "e2")
        [[replayed]] = replica.execute("SELECT extract(epoch FROM pg_last_xact_replay_timestamp())::float8")

        def behind() -> Collected | None:
            collected = patient.collect()
            return collected if all(family.time < replayed + 1e-3 for family in collected.families) else None

        # However often it is read, its numbers are those of the last commit it has replayed, and as old.
        collected = wait_until(behind, what="the age is that of the state")
        assert collected is not None
        assert events(collected) == {"http": 1.0}
        assert all(family.time == pytest.approx(replayed, abs=0.5) for family in collected.families)
        wait_until(lambda: error_of(strict) == "stale", what="the state is too old")
        assert not patient.collect().failures
        replica.execute("SELECT pg_wal_replay_resume()")
        wait_until(lambda: events(patient.collect()) == {"http": 2.0}, what="the replica is in step again")
        wait_until(lambda: error_of(strict) is None, what="it is fresh again")


def test_redis_goes_and_comes_back_while_the_database_is_there(gateway: Gateway) -> None:
    gateway.event("e1")
    with new_redis_server() as store, exporters(gateway, store.url) as new:
        one, other = (new(interval_seconds=SOON, max_age_seconds=HOUR) for _ in range(2))
        shared = one.collect()
        store.kill()
        gateway.event("e2")
        for source in (one, other):
            wait_until_it_serves(source, 2)
            assert source.collect().failures == {"store_connection": 1}
        store.start()
        gateway.event("e3")
        for source in (one, other):
            wait_until_it_serves(source, 3)
        patient = new(interval_seconds=HOUR).collect()
        assert events(patient) == {"http": 3.0}
        assert not patient.failures
    assert events(shared) == {"http": 1.0}
