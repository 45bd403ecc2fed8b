"""The gauges of the domain while the ledger fails: from the database, and back."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from otel_queue.config import Config, DomainConfig, LedgerConfig, MetricConfig, PostgresConfig, QueueConfig, RedisConfig
from otel_queue.lifecycle import AttemptMade, DeliveryCreated, EventCreated
from otel_queue.pipeline import Pipeline
from otel_queue.ulid import new_ulid
from tests.ledger.ledgers import Ledger
from tests.postgres.gateway import Gateway
from tests.servers.otel_queue import Scrape
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer
from tests.servers.redis import redis_server as new_redis_server

EVENTS = "convoy_event_queue_total"
DELIVERIES = "convoy_event_delivery_queue_total"
ATTEMPTS = "convoy_event_delivery_attempts_total"
# The ledger counts two events, the database three: so it shows which of them is exported.
IN_LEDGER, IN_DATABASE = 2.0, 3.0


@pytest.fixture
def ledger_redis() -> Iterator[RedisServer]:
    """The ledger's own: a test may kill it."""
    with new_redis_server() as server:
        yield server


@pytest.fixture
def filled(own_gateway: Gateway, ledger_redis: RedisServer) -> Gateway:
    now = time.time_ns() // 1000
    fill_ledger(ledger_redis.url, now)
    for number in range(int(IN_DATABASE)):
        own_gateway.event(f"e{number}", source="S1")
        own_gateway.delivery(f"d{number}", f"e{number}", "Success")
    own_gateway.attempt("200 OK", True)
    return own_gateway


def fill_ledger(url: str, now: int) -> None:
    ledger = Ledger(url)
    ledger.write(
        *(EventCreated("P", new_ulid(), now, "S1") for _ in range(int(IN_LEDGER))),
        DeliveryCreated("P", new_ulid(), now, endpoint="E1", event_type="t", source="S1", status="success"),
        AttemptMade("P", new_ulid(), now, "E1", True, "200 OK"),
    )
    ledger.close()


def pipeline(queues: str, ledger: RedisServer, gateway: Gateway, **changes: Any) -> Pipeline:
    domain: dict[str, Any] = {
        "source": "ledger",
        "fallback": "postgres",
        "fallback_after_seconds": 0.2,
        "return_after_seconds": 0.2,
        **changes,
    }
    metrics = domain.pop("metrics", {})
    return Pipeline(
        Config(
            redis=RedisConfig(url=queues, connect_timeout_seconds=0.5),
            queue=QueueConfig(min_interval_seconds=0.0, memory_interval_seconds=0.0),
            domain=DomainConfig(**domain),
            ledger=LedgerConfig(url=ledger.url, timeout_seconds=2.0, max_staleness_seconds=1.0),
            postgres=PostgresConfig(dsn=gateway.dsn, interval_seconds=1.0, statement_timeout_seconds=5.0),
            metrics=metrics,
        )
    )


def scrape(exporter: Pipeline) -> Scrape:
    return Scrape(exporter.scrape("", None).body.decode())


def active(found: Scrape, metric: str = EVENTS) -> dict[str, float]:
    return {
        source: value
        for source in ("ledger", "postgres")
        if (value := found.value("otel_queue_source_active", metric=metric, source=source)) is not None
    }


def events_become(exporter: Pipeline, expected: float | None) -> Scrape:
    def probe() -> list[Scrape]:
        found = scrape(exporter)
        return [found] if found.value(EVENTS, project="P") == expected else []

    return wait_until(probe, within=30, what=f"{EVENTS} is {expected}")[0]


def test_while_the_ledger_is_well_the_database_is_not_asked_at_all(
    filled: Gateway, redis_url: str, ledger_redis: RedisServer
) -> None:
    exporter = pipeline(redis_url, ledger_redis, filled)
    for _ in range(10):
        found = scrape(exporter)
        assert found.value(EVENTS, project="P") == IN_LEDGER
    assert active(found) == {"ledger": 1.0, "postgres": 0.0}
    assert found.value("otel_queue_up", lane="postgres") is None
    [[statements]] = filled.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'otel-queue'")
    assert statements == 0


@pytest.mark.parametrize("fault", ["flushed", "killed"])
def test_gauges_fall_back_to_the_database_and_return_and_the_counter_is_absent_meanwhile(
    filled: Gateway, redis_url: str, ledger_redis: RedisServer, fault: str
) -> None:
    exporter = pipeline(redis_url, ledger_redis, filled)
    events_become(exporter, IN_LEDGER)
    if fault == "flushed":
        with ledger_redis.client() as client:
            client.flushall()
    else:
        ledger_redis.process.kill()
    found = events_become(exporter, IN_DATABASE)
    assert active(found) == {"ledger": 0.0, "postgres": 1.0}
    wait_until(lambda: not scrape(exporter).values(ATTEMPTS), what="the counter's last values are stale")
    found = scrape(exporter)
    assert active(found, ATTEMPTS) == {"ledger": 0.0}
    assert found.value("otel_queue_up", lane="ledger") == 0
    assert found.value("otel_queue_up", lane="postgres") == 1
    assert found.value("otel_queue_series", metric=EVENTS) == 1

    if fault == "killed":
        ledger_redis.process.start()
    fill_ledger(ledger_redis.url, time.time_ns() // 1000)
    found = events_become(exporter, IN_LEDGER)
    assert active(found) == {"ledger": 1.0, "postgres": 0.0}
    assert found.value(ATTEMPTS, project="P") == 1.0
    # Not needed any more: it neither reads on nor grows stale on the page.
    wait_until(lambda: scrape(exporter).value("otel_queue_up", lane="postgres") is None, what="the lane is at rest")


def test_a_ledger_that_lost_a_part_gives_way_to_a_database_that_is_whole(
    filled: Gateway, redis_url: str, ledger_redis: RedisServer
) -> None:
    exporter = pipeline(redis_url, ledger_redis, filled)
    events_become(exporter, IN_LEDGER)
    with ledger_redis.client() as client:
        client.delete("oq:{P}:meta")
    found = events_become(exporter, IN_DATABASE)
    assert found.value("otel_queue_errors_total", lane="ledger", reason="project_lost")


def test_without_a_fallback_what_is_unknown_is_absent(
    filled: Gateway, redis_url: str, ledger_redis: RedisServer
) -> None:
    exporter = pipeline(redis_url, ledger_redis, filled, fallback="none")
    events_become(exporter, IN_LEDGER)
    with ledger_redis.client() as client:
        client.flushall()
    found = events_become(exporter, None)
    assert active(found) == {"ledger": 0.0}
    assert found.value("otel_queue_up", lane="postgres") is None


def test_each_metric_has_its_own_source(filled: Gateway, redis_url: str, ledger_redis: RedisServer) -> None:
    metrics = {EVENTS: MetricConfig(source="postgres", fallback="ledger")}
    exporter = pipeline(redis_url, ledger_redis, filled, metrics=metrics)
    found = events_become(exporter, IN_DATABASE)
    assert found.value(DELIVERIES, project="P", status="success") == 1.0
    assert active(found, DELIVERIES) == {"ledger": 1.0, "postgres": 0.0}
    assert found.value(ATTEMPTS, project="P") == 1.0


def test_the_attempts_may_come_from_the_database_without_a_baseline(
    filled: Gateway, redis_url: str, ledger_redis: RedisServer
) -> None:
    exporter = pipeline(redis_url, ledger_redis, filled, source="postgres", fallback="none")
    found = events_become(exporter, IN_DATABASE)
    assert found.value(ATTEMPTS, project="P") == 1.0
    assert found.value("otel_queue_up", lane="ledger") is None
