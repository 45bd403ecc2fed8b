"""Each alert on deliveries, on the ledger and on shards fires when its fault is caused, and ends with the fault.

The faults begin together, in projects and deployments of their own; the tests run in the order in which they stand.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from otel_queue.config import Config, LedgerConfig, RedisConfig
from otel_queue.ledger.connect import ledger_store
from otel_queue.ledger.writer import BufferedWriter
from otel_queue.lifecycle import AttemptMade, DeliveryCreated, EventCreated, StatusSet
from otel_queue.ulid import new_ulid
from otel_queue.worker import Worker
from tests.ledger.ledgers import DAY_US, Ledger, day_of, now_us, ulid
from tests.operations.alert_drills import MOST_SERIES, Alerts, again_and_again, alerting, otel_queue
from tests.servers.otel_queue import ServeProcess, serve
from tests.servers.process import free_port, wait_until
from tests.servers.redis import RedisServer, redis_server

EVENTS = "convoy_event_queue_total"
CONFIG = f"""
[queue]
min_interval_seconds = 0.1
memory_interval_seconds = 0

[domain]
source = "ledger"
most_series = {MOST_SERIES}

[ledger]
max_staleness_seconds = 1
"""
SHARD = """
[queue]
memory_interval_seconds = 0

[domain]
source = "ledger"
shard = "{}/{}"
"""
HOUR_US = 3_600_000_000
BALLAST, ROOM = 40_000_000, 10
WIDE, NEAR = MOST_SERIES + 10, MOST_SERIES - 2

pytestmark = pytest.mark.timeout(240)


@dataclass
class Stage:
    """A ledger with a fault in each project, one that is flushed, and two shards of the first."""

    ledger: Ledger
    flushed: RedisServer
    whole: ServeProcess
    alone: ServeProcess
    shards: list[ServeProcess]
    other: ServeProcess
    worker: Worker
    full: RedisServer
    stuck: str = ""
    endpoint_is_well: bool = False

    def begin(self) -> None:
        created, yesterday = now_us() - 2 * HOUR_US, now_us() - DAY_US
        self.stuck = ulid(created, 1)
        self.ledger.write(
            *(EventCreated(project, new_ulid(), now_us(), "S") for project in ("STUCK", "WIDE", "NEAR", "FAIL")),
            DeliveryCreated("STUCK", self.stuck, created, "E1", "t", "S", status="processing"),
            *(
                DeliveryCreated(project, ulid(yesterday, number), now_us(), f"E{number:02}", "t", "S", status="success")
                for project, count in (("WIDE", WIDE), ("NEAR", NEAR))
                for number in range(count)
            ),
        )

    def attempt(self) -> None:
        outcome = (True, 200) if self.endpoint_is_well else (False, 500)
        self.ledger.write(*(AttemptMade("FAIL", new_ulid(), now_us(), "E1", *outcome) for _ in range(2)))

    def record(self) -> None:
        """As a worker whose ledger is `full` or not; it goes on in either case."""
        self.worker.recorder.event_created(project="P", event_id=new_ulid(), source="S")

    def expire(self, project: str) -> None:
        day = day_of(now_us() - DAY_US)
        done = otel_queue("ledger", "expire", "--redis-url", self.ledger.url, "--project", project, "--through", day)
        assert done.stdout == f"{project}: 1 day expired\n", done.stderr


def small_writer(url: str) -> BufferedWriter:
    """One that has no room for many records, and stops before its Redis is full."""
    config = Config(redis=RedisConfig(url=url), ledger=LedgerConfig(memory_limit_bytes=BALLAST))
    return BufferedWriter(ledger_store(config), most_records=ROOM, flush_at_exit=False)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with contextlib.ExitStack() as stack:
        redis, flushed = stack.enter_context(redis_server()), stack.enter_context(redis_server())
        full = stack.enter_context(redis_server())
        worker = Worker(ledger=lambda: small_writer(full.url), listen=f"127.0.0.1:{free_port()}")
        stack.callback(worker.shutdown)
        Ledger(full.url).close()
        with contextlib.closing(Ledger(flushed.url)) as ledger:
            ledger.write(EventCreated("P", new_ulid(), now_us(), "S"))
        made = Stage(
            ledger=stack.enter_context(contextlib.closing(Ledger(redis.url))),
            flushed=flushed,
            whole=stack.enter_context(serve(redis.url, config=CONFIG)),
            alone=stack.enter_context(serve(flushed.url, config=CONFIG)),
            shards=[stack.enter_context(serve(redis.url, config=SHARD.format(index, 2))) for index in range(2)],
            worker=worker,
            full=full,
            other=stack.enter_context(serve(redis.url, config=SHARD.format(2, 3))),
        )
        made.begin()
        with full.client() as client:
            client.set("ballast", bytes(BALLAST))
        stack.enter_context(again_and_again(made.attempt))
        stack.enter_context(again_and_again(made.record))
        for exporter in (made.whole, made.alone, made.shards[0]):
            exporter.scrape_until(lambda found: found.values(EVENTS), what="it reads the ledger")
        yield made


@pytest.fixture(scope="module")
def alerts(stage: Stage) -> Iterator[Alerts]:
    deployments = {
        "whole": [stage.whole.address],
        "flushed": [stage.alone.address],
        "shards": [each.address for each in stage.shards],
        "worker": [str(stage.worker.address)],
        "disagree": [stage.shards[0].address, stage.other.address],
    }
    with alerting(deployments) as found:
        none = 'otel_queue_late_records_total{cluster="whole"} == 0'
        wait_until(lambda: len(found.prometheus.query(none)) == 3, what="no record has come late")
        wait_until(lambda: found.prometheus.query(f'{EVENTS}{{cluster="flushed"}}'), what="the ledger is known")
        wait_until(lambda: len(found.prometheus.query('up{cluster="shards"} == 1')) == 2, what="both shards are known")
        stage.ledger.write(
            AttemptMade("FAIL", ulid(now_us() - 60 * DAY_US, 1), now_us(), "E1", True, 200),
            EventCreated("FAIL", new_ulid(), now_us() + HOUR_US, "S"),
        )
        with stage.flushed.client() as client:
            client.flushall()
        stage.shards[1].process.stop()
        yield found


def test_a_ledger_that_is_flushed(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("OtelQueueLedgerWithoutBirth", cluster="flushed")
    alerts.fires("OtelQueueLaneDown", cluster="flushed", lane="ledger")
    alerts.fires("OtelQueueSourceAbsent", cluster="flushed", metric=EVENTS)
    assert not alerts.firing("OtelQueueSourceAbsent", cluster="whole")
    begun = otel_queue("ledger", "init", "--redis-url", stage.flushed.url)
    assert begun.stdout.startswith("the ledger begins now\n")
    for alert in ("OtelQueueLedgerWithoutBirth", "OtelQueueLaneDown", "OtelQueueSourceAbsent"):
        alerts.ends(alert, cluster="flushed")


def test_a_shard_that_nobody_exports(stage: Stage, alerts: Alerts) -> None:
    assert alerts.fires("OtelQueueShardMissing", cluster="shards").startswith("Exporters say that there are 2 shards")
    stage.shards[1].process.start()
    alerts.ends("OtelQueueShardMissing", cluster="shards")


def test_exporters_that_disagree_on_the_number_of_shards(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("OtelQueueShardsDisagree", cluster="disagree")
    assert not alerts.firing("OtelQueueShardsDisagree", cluster="shards")
    stage.other.process.stop()
    alerts.ends("OtelQueueShardsDisagree", cluster="disagree")


def test_a_ledger_that_is_full(stage: Stage, alerts: Alerts) -> None:
    """Records wait in the worker, and are dropped beyond its room; they go on when there is memory again."""
    alerts.fires("OtelQueueErrors", cluster="worker", lane="ledger", reason="dropped")
    assert alerts.prometheus.query('otel_queue_errors_total{cluster="worker", reason="memory_guard"} > 0')
    with stage.full.client() as client:
        assert client.keys("oq:*") == [b"oq:contract"]
        client.delete("ballast")
        alerts.ends("OtelQueueErrors", cluster="worker")
        assert client.exists("oq:{P}:meta")


def test_a_delivery_that_stays_in_processing(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("ConvoyDeliveryStuck", cluster="whole", project="STUCK", endpoint="E1")
    stage.ledger.write(StatusSet("STUCK", stage.stuck, "failure", now_us()))
    alerts.ends("ConvoyDeliveryStuck", cluster="whole")


def test_series_beyond_the_budget(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("OtelQueueSeriesFolded", cluster="whole", metric="convoy_event_delivery_queue_total")
    alerts.fires("OtelQueueSeriesNearBudget", cluster="whole", project="NEAR")
    assert not alerts.firing("OtelQueueSeriesNearBudget", project="FAIL")
    stage.expire("WIDE")
    alerts.ends("OtelQueueSeriesFolded", cluster="whole")
    stage.expire("NEAR")
    alerts.ends("OtelQueueSeriesNearBudget", cluster="whole", project="NEAR")


def test_an_endpoint_that_fails(stage: Stage, alerts: Alerts) -> None:
    failing = ("ConvoyDeliveryBudgetBurnsFast", "ConvoyDeliveryBudgetBurnsSlowly", "ConvoyEndpointFailing")
    for alert in failing:
        alerts.fires(alert, cluster="whole", project="FAIL")
    stage.endpoint_is_well = True
    for alert in failing:
        alerts.ends(alert, cluster="whole")


@pytest.mark.parametrize(
    ("alert", "record"), [("OtelQueueLateRecords", "attempt"), ("OtelQueueClampedRecords", "event")]
)
def test_records_that_come_late_or_from_the_future(alerts: Alerts, alert: str, record: str) -> None:
    """It fires for an hour after the last of them, and ends without anybody's doing."""
    fired = (
        f'count_over_time(ALERTS{{alertname="{alert}", cluster="whole", record="{record}", alertstate="firing"}}[5m])'
    )
    wait_until(lambda: alerts.prometheus.query(fired), what=f"{alert} has fired")
    alerts.ends(alert, cluster="whole")
