"""What a witness sees of a reading: the moment at which the state is fixed, and the numbers of that state."""

import contextlib
import time
from typing import Any

import pytest
import redis

from otel_queue.config import RedisConfig
from otel_queue.config.secret import Secret
from otel_queue.postgres.aggregations import Found
from otel_queue.postgres.database import statement
from otel_queue.postgres.source import PostgresSource
from otel_queue.redis_client import connect
from otel_queue.series_budget import SeriesBudget
from tests.postgres.exporters import Exporter, Refresh, Watcher, events, exporters, failing, held, locked, make_older
from tests.postgres.gateway import ATTEMPTS, DELIVERIES, EVENTS, Gateway, brief, by_name
from tests.servers.postgres import postgres_server
from tests.servers.process import wait_until


def counts(found: Found | None, name: str = EVENTS) -> dict[str, float]:
    assert found is not None
    return brief(by_name(found.families), name)


def test_the_state_is_that_between_before_and_begun(gateway: Gateway, exporter: Exporter) -> None:
    watcher = Watcher(lambda: gateway.event("e1", source="early"), lambda: gateway.event("e2", source="late"))
    collected = exporter(witness=watcher).collect()
    assert watcher.told == ["before", "begun", "judge"]
    assert events(collected) == counts(watcher.exported) == {"early": 1.0}


def test_it_is_given_what_is_exported_with_its_time(exporter: Exporter, client: redis.Redis) -> None:
    watcher = Watcher()
    collected = exporter(witness=watcher).collect()
    assert watcher.exported is not None
    assert watcher.exported.families == collected.families
    assert watcher.corrected is watcher.exported
    assert {family.time for family in collected.families} == {watcher.time}
    assert watcher.lag_seconds == 0
    seconds, microseconds = client.time()
    assert watcher.time < float(seconds) + float(microseconds) / 1e6


def test_budget_and_lean_labels_do_not_change_what_it_is_given(gateway: Gateway, exporter: Exporter) -> None:
    gateway.event("e1")
    for endpoint in ("E1", "E2"):
        gateway.delivery(f"d{endpoint}", "e1", "Success", endpoint=endpoint)
    watcher = Watcher()
    exporter(witness=watcher, lean=True, budget=SeriesBudget(1)).collect()
    assert counts(watcher.exported, DELIVERIES) == {"E1,success,http": 1.0, "E2,success,http": 1.0}


def test_of_legacy_numbers_it_sees_the_corrected_ones_of_the_same_state_too(
    gateway: Gateway, exporter: Exporter
) -> None:
    gateway.event("e1", source="http")
    gateway.event("e2")
    watcher = Watcher(begun=lambda: gateway.event("e3"))
    collected = exporter(parity="legacy", witness=watcher).collect()
    assert events(collected) == counts(watcher.exported) == {"http": 1.0}
    assert counts(watcher.corrected) == {"http": 2.0}
    assert watcher.corrected is not None
    assert ATTEMPTS in by_name(watcher.corrected.families)
    assert ATTEMPTS not in by_name(collected.families)
    assert not collected.failures


def test_without_the_lease_it_sees_nothing(exporter: Exporter, refresh: Any) -> None:
    reading = refresh(exporter())
    watcher = Watcher()
    source = exporter(witness=watcher)
    assert failing(source).reason == "not_yet"
    reading.let_go()
    source.collect()
    assert watcher.told == []


def test_a_reading_that_fails_is_not_judged(own_gateway: Gateway, redis_url: str) -> None:
    own_gateway.execute("ALTER SCHEMA convoy RENAME TO away")
    watcher = Watcher()
    with exporters(own_gateway, redis_url) as new:
        assert failing(new(witness=watcher)).reason == "missing_table"
    assert watcher.told == ["before", "begun"]


def test_corrected_numbers_that_cannot_be_read_cost_the_comparison_alone(own_gateway: Gateway, redis_url: str) -> None:
    own_gateway.event("e1")
    own_gateway.refresh_snapshots()
    own_gateway.execute("CREATE ROLE otel_queue LOGIN PASSWORD 'secret'")
    try:
        own_gateway.execute(statement("snapshot/grants"))
        watcher = Watcher()
        with exporters(own_gateway, redis_url) as new:
            role = own_gateway.dsn_of("otel_queue", "secret")
            collected = new(role, parity="legacy", use_snapshot_tables=True, witness=watcher).collect()
        assert events(collected) == {"http": 1.0}
        assert collected.failures["permission"] >= 1
        assert watcher.told == ["before", "begun"]
    finally:
        own_gateway.execute("DROP OWNED BY otel_queue; DROP ROLE otel_queue")


def test_corrected_numbers_of_which_a_part_is_missing_are_judged_without_it(
    own_gateway: Gateway, redis_url: str
) -> None:
    own_gateway.execute("DROP TABLE convoy.delivery_attempts")
    watcher = Watcher()
    with exporters(own_gateway, redis_url) as new:
        collected = new(parity="legacy", witness=watcher).collect()
    assert len(collected.families) == 4
    assert collected.failures == {"missing_table": 1}
    assert watcher.corrected is not None
    assert ATTEMPTS not in by_name(watcher.corrected.families)


def test_a_connection_lost_after_the_exported_numbers_costs_the_comparison_alone(
    gateway: Gateway, exporter: Exporter
) -> None:
    gateway.event("e1")
    watcher = Watcher()
    with locked(gateway, "delivery_attempts"):  # which legacy numbers do not need
        reading = Refresh(gateway, exporter(parity="legacy", witness=watcher))
        reading.release()
        _wait_until_only_attempts_are_waited_for(gateway)
        gateway.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'otel-queue'")
        reading.let_go()
    assert reading.error is None
    assert reading.collected is not None
    assert events(reading.collected) == {"http": 1.0}
    assert reading.collected.failures == {"connection": 1}
    assert watcher.told == ["before", "begun"]


def _wait_until_only_attempts_are_waited_for(gateway: Gateway) -> None:
    waiting = (
        "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted"
        " AND a.application_name = 'otel-queue' AND l.relation = 'convoy.delivery_attempts'::regclass"
    )
    wait_until(lambda: gateway.execute(waiting) == [(1,)], what="the corrected numbers are being read")


def test_the_lease_is_renewed_before_it_is_waited_for(exporter: Exporter, client: redis.Redis) -> None:
    left: list[float] = []

    def begun() -> None:
        left.append(int(held(client)["lease_until"]) / 1e6 - time.time())

    watcher = Watcher(lambda: make_older(client, "lease_until", 3600), begun)
    exporter(witness=watcher, statement_timeout_seconds=30).collect()
    assert watcher.told[-1] == "judge"
    # It outlasts a statement and the waiting, with some reserve.
    assert left[0] > 60


@pytest.mark.parametrize(("witness", "limit"), [(None, "'30000'"), (Watcher(), "'60000'")])
def test_the_transaction_may_be_idle_for_longer_where_it_waits_for_a_witness(
    witness: Watcher | None, limit: str, redis_url: str
) -> None:
    with postgres_server(settings=["log_statement=all", "log_line_prefix=%a "]) as server:
        link = connect(RedisConfig(url=redis_url))
        with contextlib.closing(PostgresSource(Secret(server.dsn()), link, witness=witness)) as source:
            assert failing(source).reason == "missing_table"
        assert limit in server.process.logs()
