"""Each alert that needs the gateway's database fires when its fault is caused, and ends with the fault.

The tests run in the order in which they stand; the last one ends the database.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from otel_queue.lifecycle import EventCreated
from otel_queue.ulid import new_ulid
from tests.ledger.ledgers import Ledger, now_us
from tests.operations.alert_drills import Alerts, alerting, otel_queue
from tests.postgres.gateway import HERE, Gateway
from tests.servers.otel_queue import ServeProcess, serve
from tests.servers.postgres import PostgresServer, postgres_server
from tests.servers.redis import RedisServer, redis_server

EVENTS = "convoy_event_queue_total"
CONFIG = """
[queue]
min_interval_seconds = 0.1
memory_interval_seconds = 0

[domain]
{}
fallback_after_seconds = 1
return_after_seconds = 1

[ledger]
max_staleness_seconds = 1

[postgres]
interval_seconds = 1
"""

pytestmark = pytest.mark.timeout(240)


@dataclass
class Stage:
    """One database; a deployment that falls back to it, one that compares with it, and one that lives on it."""

    database: PostgresServer
    gateway: Gateway
    redis: dict[str, RedisServer]
    exporters: dict[str, ServeProcess]

    def run(self, *arguments: str, on: str) -> str:
        """stdout of `otel-queue ...`, with the database and the ledger of a deployment."""
        environment = {
            "OTEL_QUEUE_POSTGRES_DSN": self.gateway.dsn.reveal(),
            "OTEL_QUEUE_REDIS_URL": self.redis[on].url,
        }
        done = otel_queue(*arguments, environment=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


DEPLOYMENTS = {
    "fallback": 'source = "ledger"\nfallback = "postgres"',
    "shadow": 'source = "ledger"\nshadow = "postgres"',
    "database": 'source = "postgres"',
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(postgres_server())
        with database.connect() as connection:
            connection.execute((HERE / "schema.sql").read_bytes())
        gateway = Gateway(database, database.database)
        stack.callback(gateway.close)
        made = Stage(database, gateway, {}, {})
        for number in range(3):
            gateway.event(new_ulid(), source="S1")
            gateway.delivery(new_ulid(), f"e{number}", "Success")
        environment = {"OTEL_QUEUE_POSTGRES_DSN": gateway.dsn.reveal()}
        for name, domain in DEPLOYMENTS.items():
            made.redis[name] = stack.enter_context(redis_server())
            if name != "database":
                made.run("ledger", "init", on=name)
                made.run("seed", "--pause", "0", on=name)
            made.exporters[name] = stack.enter_context(
                serve(made.redis[name].url, config=CONFIG.format(domain), environment=environment)
            )
        for exporter in made.exporters.values():
            exporter.scrape_until(lambda found: found.value(EVENTS, project="P") == 3, what="it knows three events")
        yield made


@pytest.fixture(scope="module")
def alerts(stage: Stage) -> Iterator[Alerts]:
    with alerting({name: [each.address] for name, each in stage.exporters.items()}) as found:
        with stage.redis["fallback"].client() as client:
            client.flushall()
        with contextlib.closing(Ledger(stage.redis["shadow"].url)) as ledger:
            ledger.write(EventCreated("P", new_ulid(), now_us(), "S7"))
        yield found


def test_a_metric_that_comes_from_its_fallback(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("OtelQueueFallbackActive", cluster="fallback", metric=EVENTS)
    alerts.fires("OtelQueueLedgerWithoutBirth", cluster="fallback")
    # The attempts are a counter, which has no fallback.
    alerts.fires("OtelQueueSourceAbsent", cluster="fallback", metric="convoy_event_delivery_attempts_total")
    assert not alerts.firing("OtelQueueSourceAbsent", cluster="fallback", metric=EVENTS)
    stage.run("ledger", "init", on="fallback")
    stage.run("seed", "--pause", "0", on="fallback")
    for alert in ("OtelQueueFallbackActive", "OtelQueueLedgerWithoutBirth", "OtelQueueSourceAbsent"):
        alerts.ends(alert, cluster="fallback")


def test_a_ledger_that_counts_what_the_database_has_not(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("OtelQueueShadowDrift", cluster="shadow", metric=EVENTS)
    alerts.fires("OtelQueueShadowMissingSeries", cluster="shadow", metric=EVENTS, side="postgres")
    assert not alerts.firing("OtelQueueShadowStopped")
    stage.run("reconcile", "--pause", "0", on="shadow")
    alerts.ends("OtelQueueShadowDrift", cluster="shadow")
    alerts.ends("OtelQueueShadowMissingSeries", cluster="shadow")


def test_a_database_that_is_down(stage: Stage, alerts: Alerts) -> None:
    stage.database.kill()
    alerts.fires("OtelQueueLaneDown", cluster="database", lane="postgres")
    alerts.fires("OtelQueueSnapshotStale", cluster="database", lane="postgres")
    alerts.fires("OtelQueueShadowStopped", cluster="shadow", metric=EVENTS)
    assert not alerts.firing("OtelQueueSourceAbsent", cluster="shadow")
    stage.database.start()
    for alert in ("OtelQueueLaneDown", "OtelQueueSnapshotStale"):
        alerts.ends(alert, cluster="database")
    alerts.ends("OtelQueueShadowStopped", cluster="shadow")
