"""What changed its meaning, for a while once more as it was."""

import time

from otel_queue.catalog import ATTEMPTS as COUNTER
from otel_queue.config import Config, DomainConfig, QueueConfig, RedisConfig
from otel_queue.export.compatibility import compatibility_families
from otel_queue.lifecycle import AttemptMade
from otel_queue.pipeline import Pipeline
from otel_queue.samples import Family
from otel_queue.ulid import new_ulid
from tests.asynq_writer import AsynqWriter
from tests.ledger.ledgers import Ledger
from tests.servers.otel_queue import Scrape

ATTEMPTS = "convoy_event_delivery_attempts_legacy"
SCHEDULED = "convoy_event_queue_scheduled_legacy"
MATCH = "convoy_event_workflow_queue_match_subscriptions_legacy"


def text(url: str, *, compatibility: bool = True, source: str = "ledger", convoy: bool = True) -> str:
    config = Config(
        redis=RedisConfig(url=url, connect_timeout_seconds=0.5),
        queue=QueueConfig(min_interval_seconds=0.0, memory_interval_seconds=0.0, convoy=convoy),
        domain=DomainConfig(source=source, compatibility=compatibility),
    )
    return Pipeline(config).scrape("", None).body.decode()


def test_the_attempts_are_a_gauge_once_more_beside_the_counter(redis_url: str) -> None:
    Ledger(redis_url).write(AttemptMade("P", new_ulid(), time.time_ns() // 1000, "E1", True, 200))
    exported = text(redis_url)
    assert f"# TYPE {ATTEMPTS} gauge" in exported
    assert "# TYPE convoy_event_delivery_attempts_total counter" in exported
    found = Scrape(exported)
    assert found.value(ATTEMPTS, endpoint="E1", http_status_code="200") == 1.0


def test_the_queue_gauges_read_0_where_their_value_is_unknown(redis_url: str) -> None:
    AsynqWriter(redis_url).pending("CreateEventQueue", count=3)
    known = Scrape(text(redis_url))
    assert known.value(SCHEDULED, status="scheduled") == 3.0
    unknown = Scrape(text("redis://127.0.0.1:1/0", source="none"))
    assert unknown.value(SCHEDULED, status="scheduled") == 0.0
    assert unknown.value(MATCH, status="scheduled") == 0.0
    assert not unknown.values("convoy_event_queue_scheduled_total")


def test_attempts_that_are_unknown_are_absent_even_so(redis_url: str) -> None:
    assert not Scrape(text(redis_url)).values(ATTEMPTS)  # no birth


def test_nothing_of_it_is_there_unless_it_is_wanted(redis_url: str) -> None:
    assert "_legacy" not in text(redis_url, compatibility=False)
    assert SCHEDULED not in text(redis_url, convoy=False)


def known(name: str, samples: list[tuple[tuple[str, ...], float]]) -> dict[str, Family]:
    return {name: Family(name, samples, 5.0, "inspector", 1.0)}


def test_a_queue_gauge_that_is_known_is_the_same_under_its_old_name() -> None:
    found = compatibility_families(
        known("convoy_event_workflow_queue_match_subscriptions_total", [(("scheduled",), 3.0)]), convoy=True
    )
    assert found[MATCH] == Family(MATCH, [(("scheduled",), 3.0)], 5.0, "inspector", 1.0)


def test_the_attempts_that_are_a_gauge_have_no_beginning() -> None:
    samples: list[tuple[tuple[str, ...], float]] = [(("p", "e", "success", "200"), 3.0)]
    found = compatibility_families(known(COUNTER, samples), convoy=False)
    assert found == {ATTEMPTS: Family(ATTEMPTS, samples, 5.0, "inspector", None)}


def test_a_zero_for_what_is_unknown_is_derived_and_of_this_moment() -> None:
    before = time.time()
    for families in ({}, known("convoy_event_queue_scheduled_total", [])):
        zero = compatibility_families(families, convoy=True)[SCHEDULED]
        assert (zero.name, zero.samples, zero.source) == (SCHEDULED, [(("scheduled",), 0.0)], "derived")
        assert before <= zero.time <= time.time()
