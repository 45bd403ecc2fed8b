"""The ledger's series reach Prometheus whichever way they take, as those of the queues do."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from otel_queue.catalog import CATALOG
from otel_queue.config.settings import RedisConfig
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.upkeep import Upkeep
from otel_queue.lifecycle import AttemptMade, DeliveryCreated, EventCreated, ProjectDescribed, Record, StatusSet
from otel_queue.redis_client import connect
from otel_queue.ulid import new_ulid
from tests.e2e.lively_redis import fill
from tests.e2e.test_pull_equals_push import (
    CONFIGS,
    GATEWAY_JOB,
    MOVING,
    PATH_LABELS,
    PROTOCOLS,
    PULL_JOB,
    SCRAPE_SERIES,
    Paths,
    metadata,
    names,
    service_name,
)
from tests.go_program import COLLECTOR, build_go_program
from tests.servers.collector import collector
from tests.servers.otel_queue import serve
from tests.servers.process import wait_until
from tests.servers.prometheus import Series, prometheus_server
from tests.servers.redis import RedisServer, redis_server

AGES = {"convoy_event_queue_backlog_seconds", "convoy_event_delivery_queue_backlog_seconds"}
ATTEMPTS = "convoy_event_delivery_attempts_total"
DOMAIN = {row.name for row in CATALOG.values() if row.owner == "ledger"} - {"convoy_project_info"}
AWKWARD = 'so "called" \\ back, é'

# The first build of the Collector takes minutes.
pytestmark = pytest.mark.timeout(900)


def write(redis: RedisServer, *records: Record) -> None:
    LedgerStore(connect(RedisConfig(url=redis.url))).write(records, time.monotonic() + 30)


def story() -> Iterator[Record]:
    """Two projects, one without names; deliveries of every status, with labels that are told, null and unknown."""
    now = time.time_ns() // 1000
    yield ProjectDescribed("p1", now, AWKWARD, "o1", "Organisation")
    told: list[dict[str, Any]] = [
        {"endpoint": "e1", "event_type": AWKWARD, "source": None},
        {"endpoint": None, "event_type": None, "source": "s1"},
        {},
    ]
    for project in ("p1", "p2"):
        for known in told:
            for status in ("scheduled", "processing", "retry", "discarded", "failure", "success"):
                delivery = new_ulid()
                yield DeliveryCreated(project, delivery, now, **known)
                yield StatusSet(project, delivery, status, now + 1)
        yield EventCreated(project, new_ulid(), now, None)
        yield EventCreated(project, new_ulid(), now)
        for number, http_status in enumerate((200, "503 Service Unavailable", None)):
            yield AttemptMade(project, new_ulid(), now, f"e{number}", http_status == 200, http_status)


@pytest.fixture(scope="module")
def paths() -> Iterator[Paths]:
    build_go_program(COLLECTOR)
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        with redis.client() as client:
            fill(client)
        Upkeep(connect(RedisConfig(url=redis.url))).begin()
        write(redis, *story())
        gateway = stack.enter_context(collector((CONFIGS / "gateway.yaml").read_text()))
        serves = {}
        for protocol in PROTOCOLS:
            environment = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": gateway.grpc_endpoint if protocol == "grpc" else gateway.http_endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "OTEL_METRIC_EXPORT_INTERVAL": "500",
                "OTEL_SERVICE_NAME": service_name(protocol),
            }
            config = """
                [queue]
                min_interval_seconds = 0.2
                [domain]
                source = "ledger"
            """
            serves[protocol] = stack.enter_context(serve(redis.url, config=config, environment=environment))
        addresses = ", ".join(f'"{each.address}"' for each in serves.values())
        config = (CONFIGS / "prometheus.yaml").read_text()
        config = config.replace('"127.0.0.1:9464"', addresses).replace("127.0.0.1:9465", gateway.metrics_address)
        prometheus = stack.enter_context(prometheus_server(config, scrape_interval="500ms"))
        yield Paths(redis, serves, prometheus)


def comparable(series: list[Series]) -> dict[frozenset[tuple[str, str]], float | None]:
    """The values by name and labels, without what a path adds by design; None where the value moves."""
    return {
        frozenset((key, value) for key, value in each.labels.items() if key not in PATH_LABELS): (
            None if each.labels["__name__"] in MOVING | AGES else each.value
        )
        for each in series
        if each.labels["__name__"] not in SCRAPE_SERIES
    }


def differences(paths: Paths, protocol: str) -> list[str]:
    pulled, pushed = comparable(paths.pulled(protocol)), comparable(paths.pushed(protocol))
    return [
        f"{sorted(labels)}: pulled {pulled.get(labels, 'absent')}, pushed {pushed.get(labels, 'absent')}"
        for labels in pulled.keys() | pushed.keys()
        if labels not in pulled or labels not in pushed or pulled[labels] != pushed[labels]
    ]


def wait_until_equal(paths: Paths, protocol: str) -> None:
    latest: list[str] = []

    def is_equal() -> bool:
        latest[:] = differences(paths, protocol)
        # In one look: a scrape that comes too late on a busy machine makes all series absent for a moment.
        complete = DOMAIN | {"asynq_queue_size"}
        return not latest and names(paths.pulled(protocol)) >= complete and names(paths.pushed(protocol)) >= complete

    try:
        wait_until(is_equal, within=30, what="pull and push agree")
    except AssertionError as error:
        complaints = "\n".join([*latest, *paths.prometheus.target_errors()])
        raise AssertionError(f"{error}\n{complaints}\n{paths.serves[protocol].process.logs()[-2_000:]}") from error


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_ledgers_series_and_the_queues_are_the_same_pulled_and_pushed(paths: Paths, protocol: str) -> None:
    wait_until_equal(paths, protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_type_and_help_of_the_ledgers_metrics_are_the_same_on_both_paths(paths: Paths, protocol: str) -> None:
    wait_until_equal(paths, protocol)
    pulled = metadata(paths, PULL_JOB, paths.pulled(protocol))
    pushed = metadata(paths, GATEWAY_JOB, paths.pushed(protocol))
    assert pulled.keys() >= DOMAIN
    assert pulled == pushed


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_age_of_a_backlog_is_the_same_on_both_paths_but_for_the_moment(paths: Paths, protocol: str) -> None:
    wait_until_equal(paths, protocol)

    def ages(series: list[Series]) -> dict[tuple[str, ...], float]:
        keys = ("__name__", "project", "endpoint", "source")
        return {
            (each.labels["__name__"], *(each.labels.get(key, "") for key in keys[1:])): each.value
            for each in series
            if each.labels["__name__"] in AGES
        }

    pulled, pushed = ages(paths.pulled(protocol)), ages(paths.pushed(protocol))
    assert len(pulled) == 2 * (3 + 3)
    # All are as old as this module's Redis: none is the 0 of a group with nothing in processing.
    assert min(*pulled.values(), *pushed.values()) > 0
    assert pulled.keys() == pushed.keys()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_attempt_made_later_shows_on_both_paths(paths: Paths, protocol: str) -> None:
    endpoint = f"later by {protocol}"
    write(paths.redis, AttemptMade("p1", new_ulid(), time.time_ns() // 1000, endpoint, True, 200))

    def shows(series: list[Series]) -> bool:
        wanted = {"__name__": ATTEMPTS, "endpoint": endpoint, "http_status_code": "200", "status": "success"}
        return [each.value for each in series if wanted.items() <= each.labels.items()] == [1.0]

    wait_until(lambda: shows(paths.pulled(protocol)), what="the attempt is pulled")
    wait_until(lambda: shows(paths.pushed(protocol)), what="the attempt is pushed")
