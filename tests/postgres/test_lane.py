"""The database as the domain lane of the exporter, while there is no ledger."""

import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from otel_queue.config import Config, DomainConfig, PostgresConfig, QueueConfig, RedisConfig, Secret
from otel_queue.doctor import examine
from otel_queue.pipeline import Pipeline
from tests.postgres.gateway import Gateway
from tests.servers.process import wait_until

Scraped = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def config(redis_url: str, dsn: Secret, source: str = "postgres") -> Config:
    return Config(
        redis=RedisConfig(url=redis_url),
        queue=QueueConfig(min_interval_seconds=0.0, memory_interval_seconds=0.0),
        domain=DomainConfig(source=source),
        postgres=PostgresConfig(dsn=dsn, interval_seconds=1.0, statement_timeout_seconds=5.0),
    )


def pipeline(redis_url: str, dsn: Secret, source: str = "postgres") -> Pipeline:
    return Pipeline(config(redis_url, dsn, source))


def scrape(exporter: Pipeline) -> Scraped:
    text = exporter.scrape("", None).body.decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_domain_families_come_from_the_database(own_gateway: Gateway, redis_url: str) -> None:
    own_gateway.event("e1", source="S1")
    own_gateway.delivery("d1", "e1", "Success")
    exporter = pipeline(redis_url, own_gateway.dsn)
    key = ("convoy_event_queue_total", (("project", "P"), ("source", "S1"), ("status", "success")))
    wait_until(lambda: scrape(exporter).get(key) == 1, what="the lane has read the database")
    found = scrape(exporter)
    names = {name for name, _ in found}
    assert {
        "convoy_event_queue_backlog_seconds",
        "convoy_event_delivery_queue_total",
        "convoy_event_delivery_queue_backlog_seconds",
    } <= names
    assert found["otel_queue_up", (("lane", "postgres"),)] == 1
    assert found["otel_queue_snapshot_age_seconds", (("lane", "postgres"),)] >= 0
    lanes = {lane.name: lane.source for lane in exporter.status().lanes}
    assert lanes["postgres"] == "PostgreSQL"


def test_the_age_of_the_numbers_does_not_jump_with_the_clock(
    own_gateway: Gateway, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = pipeline(redis_url, own_gateway.dsn)
    actual = time.time
    monkeypatch.setattr(time, "time", lambda: actual() + 3600.0)
    up, age = (("otel_queue_" + name, (("lane", "postgres"),)) for name in ("up", "snapshot_age_seconds"))
    wait_until(lambda: scrape(exporter).get(up) == 1, what="the lane has read the database")
    assert scrape(exporter)[age] < 3600.0


def test_a_database_that_is_gone_is_told_and_nothing_is_made_up(redis_url: str) -> None:
    exporter = pipeline(redis_url, Secret("postgres://nobody:hunter2@127.0.0.1:1/none"))
    down = ("otel_queue_up", (("lane", "postgres"),))
    wait_until(lambda: scrape(exporter).get(down) == 0, what="the lane is down")
    found = scrape(exporter)
    assert ("otel_queue_errors_total", (("lane", "postgres"), ("reason", "connection"))) in found
    assert not [name for name, _ in found if name.startswith("convoy_event_delivery")]
    assert "hunter2" not in repr(exporter.status())


def test_with_a_ledger_the_database_is_not_asked(own_gateway: Gateway, redis_url: str) -> None:
    exporter = pipeline(redis_url, own_gateway.dsn, "ledger")
    assert ("otel_queue_up", (("lane", "postgres"),)) not in scrape(exporter)
    assert [lane.name for lane in exporter.status().lanes] == ["queue", "ledger", "retention"]


def test_check_plans_every_statement_and_runs_none(own_gateway: Gateway, redis_url: str) -> None:
    found = {finding.subject: finding for finding in examine(config(redis_url, own_gateway.dsn))}
    assert found["postgres"].status == "ok"
    assert "corrected" in found["postgres"].detail
    own_gateway.execute("DROP TABLE convoy.delivery_attempts")
    found = {finding.subject: finding for finding in examine(config(redis_url, own_gateway.dsn))}
    assert found["postgres"].status == "fail"
    assert "missing_table" in found["postgres"].detail


def test_check_tells_a_database_that_cannot_be_reached_without_its_password(redis_url: str) -> None:
    nowhere = config(redis_url, Secret("postgres://nobody:hunter2@127.0.0.1:1/none"))
    found = {finding.subject: finding for finding in examine(nowhere)}
    assert found["postgres"].unreachable
    assert "hunter2" not in repr(found)


def test_check_does_not_ask_a_database_that_nothing_reads(own_gateway: Gateway, redis_url: str) -> None:
    assert "postgres" not in {finding.subject for finding in examine(config(redis_url, own_gateway.dsn, "none"))}
