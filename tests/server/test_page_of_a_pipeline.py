"""What a page shows of a real Redis, and what it costs that Redis."""

import gc
import time
import warnings
from collections.abc import Iterator

import pytest

from otel_queue.config import Config, QueueConfig, RedisConfig
from otel_queue.config.settings import DomainConfig
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.upkeep import Upkeep
from otel_queue.lifecycle import AttemptMade, DeliveryCreated, ProjectDescribed
from otel_queue.pipeline import Pipeline
from otel_queue.redis_client import connect
from otel_queue.server.page import status_page
from otel_queue.ulid import new_ulid
from tests.asynq_writer import AsynqWriter
from tests.server.test_page import words
from tests.servers import redis as redis_servers
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer

LONG = 30.0


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """A pipeline lives as long as its process, so nothing closes its connections; here they are given up quietly."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def pipeline(url: str, *, source: str = "none", **queue: float) -> Pipeline:
    settings: dict[str, float] = {"min_interval_seconds": 0.0, "memory_interval_seconds": 0.0, **queue}
    return Pipeline(
        Config(
            redis=RedisConfig(url=url),
            queue=QueueConfig(**settings),  # type: ignore[arg-type]
            domain=DomainConfig(source=source),
        )
    )


def requests(server: RedisServer) -> int:
    """How many times tasks were counted: the inspector asks for each queue's pending list once per snapshot."""
    with server.client() as client:
        return int(client.info("commandstats").get("cmdstat_llen", {"calls": 0})["calls"])


def test_somebody_who_opens_the_page_sees_what_is_in_redis_though_nobody_scrapes(redis_url: str) -> None:
    AsynqWriter(redis_url).pending("default", count=3, age_seconds=5)
    exporter = pipeline(redis_url)

    exporter.freshen(LONG)

    [queue] = exporter.status().queues
    assert (queue.queue, queue.pending, queue.active, queue.paused) == ("default", 3.0, 0.0, False)
    assert queue.latency_seconds is not None
    assert queue.latency_seconds >= 5.0
    assert [point.pending for point in queue.history] == [3.0]


def test_the_page_of_an_exporter_that_is_scraped_costs_redis_nothing(redis_server: RedisServer) -> None:
    AsynqWriter(redis_server.url).pending("default")
    exporter = pipeline(redis_server.url)
    exporter.scrape("", None)
    before = requests(redis_server)

    for _ in range(5):
        exporter.freshen(LONG)
        assert exporter.status().queue_count == 1

    assert before > 0
    assert requests(redis_server) == before


def test_what_has_not_been_read_for_long_is_read_for_the_page(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = AsynqWriter(redis_server.url)
    writer.pending("default", count=1)
    exporter = pipeline(redis_server.url)
    exporter.scrape("", None)
    writer.pending("default", count=1)
    monkeypatch.setattr("otel_queue.pipeline._PAGE_SECONDS", 0.0)

    exporter.freshen(LONG)

    assert [queue.pending for queue in exporter.status().queues] == [2.0]


def test_when_redis_is_gone_the_page_says_why_and_shows_the_past_and_no_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_queue.pipeline._PAGE_SECONDS", 0.0)
    with redis_servers.redis_server() as server:
        AsynqWriter(server.url).pending("default", count=3)
        exporter = pipeline(server.url, max_staleness_seconds=0.5)
        exporter.freshen(LONG)
        server.kill()

        def is_stale() -> bool:
            exporter.freshen(LONG)
            return exporter.status().lanes[0].stale

        wait_until(is_stale)
        exporter.freshen(LONG)
        status = exporter.status()

    [queue] = status.queues
    assert (queue.queue, queue.pending, queue.size) == ("default", None, None)
    assert [point.pending for point in queue.history] == [3.0]
    assert {(error.lane, error.reason) for error in status.errors} == {("queue", "connection")}
    shown = words(status_page(status, time.time()))
    assert "Needs attention down lane queue: " in shown
    assert "The queues cannot be read now; numbers are unknown, charts show what was." in shown


def test_a_queue_that_cannot_be_read_is_an_error_with_its_reason(redis_server: RedisServer) -> None:
    AsynqWriter(redis_server.url).pending("default", count=1)
    with redis_server.client() as client:
        client.set("asynq:{default}:retry", "no sorted set")
    exporter = pipeline(redis_server.url)
    exporter.freshen(LONG)

    [error] = exporter.status().errors
    [queue] = exporter.status().queues
    assert (error.lane, error.reason) == ("queue", "wrong_type")
    assert (queue.pending, queue.retry) == (1.0, None)


def test_the_domain_of_a_ledger_is_on_the_page(redis_url: str) -> None:
    link = connect(RedisConfig(url=redis_url))
    Upkeep(link).begin()
    now_us = time.time_ns() // 1000
    LedgerStore(link).write(
        [
            ProjectDescribed("p", now_us, "Payments", "o", "Acme"),
            DeliveryCreated("p", new_ulid(), now_us, "e1", "t", "s", status="processing"),
            DeliveryCreated("p", new_ulid(), now_us, "e2", "t", "s", status="success"),
            AttemptMade("p", new_ulid(), now_us, "e1", False, 500),
            AttemptMade("p", new_ulid(), now_us, "e1", True, 200),
        ],
        time.monotonic() + LONG,
    )
    link.close()
    exporter = pipeline(redis_url, source="ledger")
    exporter.freshen(LONG)

    domain = exporter.status().domain

    assert domain is not None
    assert {source.active for source in domain.sources} == {"ledger"}
    [project] = domain.projects or ()
    assert (project.name, project.deliveries, project.unfinished, project.failed) == ("Payments", 2.0, 1.0, 0.0)
    assert [endpoint.endpoint for endpoint in domain.oldest or ()] == ["e1"]
    assert [(row.endpoint, row.project_name, row.attempts, row.failed) for row in domain.failing or ()] == [
        ("e1", "Payments", 2.0, 1.0)
    ]
