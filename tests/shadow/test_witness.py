"""The shadow beside the source that reads the database for all, on a real PostgreSQL and a real ledger."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from otel_queue.config import RedisConfig
from otel_queue.lifecycle import AttemptMade, DeliveryCreated, EventCreated, ProjectDescribed
from otel_queue.postgres.source import PostgresSource
from otel_queue.redis_client import connect
from otel_queue.shadow.entry import Entry
from otel_queue.shadow.journal import Journal
from otel_queue.shadow.shadow import Shadow, reading_of
from otel_queue.shadow.tolerance import tolerance
from tests.ledger.ledgers import Ledger, now_us
from tests.postgres.exporters import make_older
from tests.postgres.gateway import Gateway
from tests.shadow.sides import ATTEMPTS, DELIVERIES, DELIVERY_BACKLOG, EVENT_BACKLOG, EVENTS
from tests.shadow.test_parity import reader_of

METRICS = (EVENTS, EVENT_BACKLOG, DELIVERIES, DELIVERY_BACKLOG, ATTEMPTS)


class Exporter:
    """One exporter's source and shadow; `compare` has it read the database, whenever that was done last."""

    def __init__(self, gateway: Gateway, ledger: Ledger, journal: Journal, parity: str) -> None:
        rules = {metric: tolerance(metric) for metric in METRICS}
        self.shadow = Shadow(reading_of(reader_of(ledger)), journal, rules, wait=lambda seconds: None)
        link = connect(RedisConfig(url=ledger.url))
        self.source = PostgresSource(gateway.dsn, link, parity=parity, witness=self.shadow)
        self._url, self._journal, self._parity = ledger.url, journal, parity

    def compare(self) -> dict[str, Entry]:
        with redis.Redis.from_url(self._url) as client:
            key = f"oq:postgres:1:{self._parity}"
            if made_at := client.hget(key, "time"):
                client.hset(key, "time", int(made_at) - 3600 * 1_000_000)
        self.source.collect()
        return dict(self._journal.read().entries)


@pytest.fixture(params=["corrected", "legacy"])
def exporter(gateway: Gateway, ledger: Ledger, journal: Journal, request: Any) -> Iterator[Exporter]:
    made = Exporter(gateway, ledger, journal, request.param)
    with contextlib.closing(made.source):
        yield made


def test_what_workers_tell_and_what_the_database_holds_is_compared_at_every_reading(
    exporter: Exporter, gateway: Gateway, ledger: Ledger
) -> None:
    gateway.attempt("200 OK", True)  # before the ledger began
    gateway.event("e1", source="S1")
    gateway.delivery("d1", "e1", "Scheduled")
    ledger.write(
        ProjectDescribed("P", now_us(), "Proj", "O", "Org"),
        EventCreated("P", "e1", now_us(), "S1"),
        DeliveryCreated("P", "d1", now_us(), "E1", "t", "S1"),
    )
    entries = exporter.compare()
    assert {metric: entry.comparisons for metric, entry in entries.items()} == {
        EVENTS: 1, EVENT_BACKLOG: 1, DELIVERIES: 1, DELIVERY_BACKLOG: 1, ATTEMPTS: 0,
    }  # fmt: skip
    gateway.attempt("200 OK", True)
    ledger.write(AttemptMade("P", "a2", now_us(), "E1", True, 200))
    entries = exporter.compare()
    assert {metric: entry.drift for metric, entry in entries.items()} == dict.fromkeys(METRICS, 0.0)
    assert {metric: entry.within for metric, entry in entries.items()} == {**dict.fromkeys(METRICS, 2), ATTEMPTS: 1}
    assert exporter.shadow.take_failures() == {}
    gateway.event("e2", source="S1")
    gateway.attempt("200 OK", True)
    entries = exporter.compare()
    assert (entries[EVENTS].drift, entries[ATTEMPTS].drift, entries[DELIVERIES].drift) == (1.0, 1.0, 0.0)
    assert exporter.compare()[EVENTS].standing == 1


def test_the_exporter_that_does_not_read_the_database_does_not_compare(
    gateway: Gateway, ledger: Ledger, journal: Journal
) -> None:
    one, other = (Exporter(gateway, ledger, journal, "corrected") for _ in range(2))
    with contextlib.closing(one.source), contextlib.closing(other.source):
        one.source.collect()
        other.source.collect()
        assert journal.read().entries[EVENTS].comparisons == 1
        with redis.Redis.from_url(ledger.url) as client:
            make_older(client, "time", 61)
        other.source.collect()
        one.source.collect()
        assert journal.read().entries[EVENTS].comparisons == 2


def test_what_changes_with_the_gateways_own_numbers_is_named_at_the_same_time(
    gateway: Gateway, ledger: Ledger, journal: Journal
) -> None:
    gateway.event("e1", source="S1")
    gateway.delivery("d1", "e1", "Retry")
    gateway.attempt("200 OK", True)
    exporter = Exporter(gateway, ledger, journal, "legacy")
    with contextlib.closing(exporter.source):
        exporter.compare()
        entries = exporter.compare()
    assert {metric: entry.legacy for metric, entry in entries.items()} == {
        EVENTS: {},
        DELIVERIES: {},
        EVENT_BACKLOG: {"zero_for_known_group": 1},
        DELIVERY_BACKLOG: {"zero_for_known_group": 1},
        ATTEMPTS: {"never_exported": 1},
    }
