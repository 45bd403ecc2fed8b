"""Several exporters that share the projects: each project is with exactly one of them."""

import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_queue.config import Config, DomainConfig, PostgresConfig, QueueConfig, RedisConfig
from otel_queue.lifecycle import AttemptMade, DeliveryCreated, EventCreated
from otel_queue.pipeline import Pipeline
from otel_queue.shard import Shard, parse_shard
from otel_queue.ulid import new_ulid
from tests.ledger.ledgers import Ledger
from tests.postgres.gateway import Gateway
from tests.servers.otel_queue import Scrape
from tests.servers.process import wait_until

EVENTS = "convoy_event_queue_total"
DOMAIN = (
    EVENTS,
    "convoy_event_queue_backlog_seconds",
    "convoy_event_delivery_queue_total",
    "convoy_event_delivery_queue_backlog_seconds",
    "convoy_event_delivery_attempts_total",
)
PROJECTS = [f"project-{number}" for number in range(12)]
SHARDS = 3


def exporter(url: str, shard: str, source: str = "ledger", gateway: Gateway | None = None) -> Pipeline:
    return Pipeline(
        Config(
            redis=RedisConfig(url=url),
            queue=QueueConfig(min_interval_seconds=0.0, memory_interval_seconds=0.0),
            domain=DomainConfig(source=source, shard=shard),
            postgres=PostgresConfig(dsn=gateway.dsn if gateway else None, interval_seconds=1.0),
        )
    )


def scrape(pipeline: Pipeline) -> Scrape:
    return Scrape(pipeline.scrape("", None).body.decode())


def projects_of(found: Scrape, metric: str) -> set[str]:
    return {project for project in PROJECTS if found.values(metric, project=project)}


def fill(ledger: Ledger) -> None:
    now = time.time_ns() // 1000
    for project in PROJECTS:
        ledger.write(
            EventCreated(project, new_ulid(), now, "S1"),
            DeliveryCreated(project, new_ulid(), now, "E1", "t", "S1", status="processing"),
            AttemptMade(project, new_ulid(), now, "E1", True, 200),
        )


def test_the_shards_of_a_ledger_have_every_project_once_in_every_metric(redis_url: str) -> None:
    fill(Ledger(redis_url))
    pages = [scrape(exporter(redis_url, f"{index}/{SHARDS}")) for index in range(SHARDS)]
    for metric in DOMAIN:
        owners = Counter(project for page in pages for project in projects_of(page, metric))
        assert owners == dict.fromkeys(PROJECTS, 1), metric
    assert all(projects_of(page, EVENTS) for page in pages)
    for index, page in enumerate(pages):
        assert page.value("otel_queue_shards") == SHARDS
        assert page.value("otel_queue_shard_projects", shard=str(index)) == len(projects_of(page, EVENTS))


def test_a_project_has_the_same_shard_whatever_its_source(own_gateway: Gateway, redis_url: str) -> None:
    fill(Ledger(redis_url))
    for number, project in enumerate(PROJECTS):
        own_gateway.event(f"e{number}", project=project)
    first = exporter(redis_url, f"1/{SHARDS}", "postgres", own_gateway)
    expected = projects_of(scrape(exporter(redis_url, f"1/{SHARDS}")), EVENTS)
    wait_until(lambda: projects_of(scrape(first), EVENTS) == expected, what="the database was read")


def test_one_shard_is_the_whole(redis_url: str) -> None:
    fill(Ledger(redis_url))
    assert projects_of(scrape(exporter(redis_url, "0/1")), EVENTS) == set(PROJECTS)


@given(st.text(), st.integers(1, 50))
def test_every_project_belongs_to_exactly_one_shard(project: str, count: int) -> None:
    assert sum(Shard(index, count).owns(project) for index in range(count)) == 1


@pytest.mark.parametrize("text", ["", "1", "4/4", "-1/4", "0/0", "a/b", "1/2/3", "1/"])
def test_a_shard_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be I/N"):
        parse_shard(text)
