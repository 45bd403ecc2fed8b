"""The gateway's other ways out: remote write, and OTLP to a backend. Neither holds what it has not passed on."""

import contextlib
from collections.abc import Iterator

import pytest

from otel_queue.catalog import CATALOG
from tests.e2e.gateways import AGENT, GATEWAY, IMPATIENT, OTLP, REMOTE_WRITE, WITHOUT_LISTS, Application
from tests.e2e.pushing_worker import PushingWorker, pushing_worker
from tests.go_program import COLLECTOR, build_go_program
from tests.servers.collector import CollectorServer, collector
from tests.servers.process import wait_until
from tests.servers.prometheus import PrometheusServer, prometheus_server

INGESTED = "convoy_ingest_total"
ACCEPTED = "otelcol_receiver_accepted_metric_points_total"

# The first build of the Collector takes minutes.
pytestmark = pytest.mark.timeout(900)


@contextlib.contextmanager
def agent_of(gateway: CollectorServer) -> Iterator[CollectorServer]:
    with collector(AGENT, IMPATIENT, environment={"GATEWAY_ENDPOINT": gateway.http_endpoint}) as agent:
        yield agent


@pytest.fixture
def database() -> Iterator[PrometheusServer]:
    build_go_program(COLLECTOR)
    with prometheus_server({}, flags=["--web.enable-remote-write-receiver"]) as prometheus:
        yield prometheus


@pytest.fixture
def remote_writer(database: PrometheusServer) -> Iterator[CollectorServer]:
    environment = {"REMOTE_WRITE_ENDPOINT": f"{database.url}/api/v1/write"}
    with collector(GATEWAY, REMOTE_WRITE, environment=environment) as gateway:
        yield gateway


def value(prometheus: PrometheusServer, promql: str) -> float | None:
    found = prometheus.query(promql)
    assert len(found) <= 1, found
    return found[0].value if found else None


def count_and_wait_for_the_push(worker: PushingWorker, agent: CollectorServer) -> None:
    """One more event, and a push with it that the agent has taken."""
    worker.ingest("p")
    # Twice, since the first push may have been collected before the event.
    wait_for_a_push(agent)
    wait_for_a_push(agent)


def wait_for_a_push(agent: CollectorServer) -> None:
    def accepted() -> float:
        return sum(agent.own_metrics().values(ACCEPTED))

    before = accepted()
    wait_until(lambda: accepted() > before, what="the agent has taken a push")


def count_by_customer(gateway: CollectorServer) -> None:
    """What an allow list must narrow."""
    application = Application(gateway)
    application.meter.create_counter(INGESTED).add(2, {"project": "rogue", "source": "http", "customer": "c"})
    application.push()


def test_remote_write_keeps_names_and_labels(database: PrometheusServer, remote_writer: CollectorServer) -> None:
    count_by_customer(remote_writer)
    with pushing_worker(remote_writer.http_endpoint, "w") as worker:
        worker.ingest("p", 3)
        wait_until(lambda: value(database, f'{INGESTED}{{job="w"}}') == 3, what="remote write has arrived")
    labels = [each.labels for each in database.query(INGESTED)]
    assert sorted(labels, key=lambda each: each["job"]) == [
        {"__name__": INGESTED, "job": "app", "instance": "app-1", "project": "rogue", "source": "http"},
        {"__name__": INGESTED, "job": "w", "instance": "w-1", "project": "p", "source": "http"},
    ]


def test_remote_write_keeps_the_name_of_every_metric(
    database: PrometheusServer, remote_writer: CollectorServer
) -> None:
    application = Application(remote_writer, **{"host.name": "h"})
    for row in CATALOG.values():
        application.record(row, 1, {})
    application.push()
    expected = {"target_info"}
    for row in CATALOG.values():
        parts = ("_bucket", "_count", "_sum") if row.kind == "histogram" else ("",)
        expected |= {f"{row.name}{part}" for part in parts}
    wait_until(lambda: database.query('{job="app"}'), what="remote write has arrived")
    assert {each.labels["__name__"] for each in database.query('{job="app"}')} == expected


def test_what_was_pushed_while_the_database_was_away_is_written_in_order_afterwards(
    database: PrometheusServer, remote_writer: CollectorServer
) -> None:
    """The gateway is killed too, before the database is back: it held nothing."""
    steps = 4
    with agent_of(remote_writer) as agent, pushing_worker(agent.http_endpoint, "w") as worker:
        worker.ingest("p")
        wait_until(lambda: value(database, INGESTED) == 1, what="remote write has arrived")
        database.process.kill()
        for _ in range(steps):
            count_and_wait_for_the_push(worker, agent)
        assert worker.end()
        remote_writer.process.kill()
        remote_writer.process.start()
        database.process.start()
        last = f"last_over_time({INGESTED}[1h])"
        wait_until(lambda: value(database, last) == 1 + steps, what="the last total has arrived")
        assert value(database, f"changes({INGESTED}[1h])") == steps
        assert value(database, f"resets({INGESTED}[1h])") == 0


def test_otlp_waits_for_a_backend_that_is_away_and_keeps_the_allow_lists() -> None:
    build_go_program(COLLECTOR)
    with (
        collector(GATEWAY, WITHOUT_LISTS) as backend,
        collector(GATEWAY, OTLP, environment={"BACKEND_ENDPOINT": backend.http_endpoint}) as gateway,
        agent_of(gateway) as agent,
        pushing_worker(agent.http_endpoint, "w") as worker,
    ):
        count_by_customer(gateway)
        worker.ingest("p")
        wait_until(lambda: backend.page().value(INGESTED, job="w", project="p") == 1, what="OTLP has arrived")
        assert backend.page().value(INGESTED, project="rogue") == 2
        assert "customer" not in backend.page().text
        backend.process.kill()
        worker.ingest("p", 6)
        assert worker.end()
        gateway.process.kill()
        gateway.process.start()
        backend.process.start()
        wait_until(lambda: backend.page().value(INGESTED, job="w", project="p") == 7, what="the last total is there")
