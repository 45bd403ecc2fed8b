"""Counters of a running exporter do not fall, whatever the ledger lost; it says how many it holds."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from otel_queue.lifecycle import AttemptMade, Record
from otel_queue.pipeline import Pipeline
from tests.export.test_ledger_lane import ATTEMPTS, pipeline, scraped
from tests.export.ways_out import labels
from tests.ledger.ledgers import Ledger, ledger_server, now_us, ulid
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer

NOW_US = now_us()
DUPLICATES = "otel_queue_duplicates_suppressed_total"
HELD = "otel_queue_held_series"


def attempts(first: int, last: int, endpoint: str = "e", project: str = "p") -> list[Record]:
    return [AttemptMade(project, ulid(NOW_US, number), NOW_US, endpoint, True, 200) for number in range(first, last)]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with ledger_server() as running:
        yield running


class Watched:
    """A running exporter."""

    def __init__(self, server: RedisServer) -> None:
        self._exporter: Pipeline = pipeline(server.url)

    def count(self, endpoint: str = "e", project: str = "p") -> float | None:
        found = scraped(self._exporter).get(ATTEMPTS, {})
        return found.get(labels(project=project, endpoint=endpoint, status="success", http_status_code="200"))

    def is_reading(self) -> bool:
        return scraped(self._exporter)["otel_queue_up"][labels(lane="ledger")] == 1

    def duplicates(self) -> float | None:
        return scraped(self._exporter).get(DUPLICATES, {}).get(labels(record="attempt"))

    def held(self, metric: str = ATTEMPTS) -> float | None:
        return scraped(self._exporter).get(HELD, {}).get(labels(metric=metric))


def write(server: RedisServer, *records: Record) -> None:
    with closing(Ledger(server.url)) as ledger:
        ledger.write(*records)


def save(server: RedisServer) -> None:
    with server.client() as client:
        client.save()


def test_a_counter_holds_what_it_showed_after_a_lost_tail_until_the_truth_passes_it(server: RedisServer) -> None:
    exporter = Watched(server)
    write(server, *attempts(0, 3), *attempts(100, 101, "other endpoint"))
    save(server)
    write(server, *attempts(3, 10))
    assert (exporter.count(), exporter.held()) == (10, 0)
    server.restart()
    wait_until(exporter.is_reading, what="the ledger is read again")
    assert (exporter.count(), exporter.held()) == (10, 1)
    write(server, *attempts(10, 15))
    assert (exporter.count(), exporter.held()) == (10, 1)
    write(server, *attempts(15, 20))
    assert (exporter.count(), exporter.held()) == (13, 0)


def test_a_series_that_was_lost_altogether_is_held(server: RedisServer) -> None:
    exporter = Watched(server)
    write(server, *attempts(0, 3, "kept"))
    save(server)
    write(server, *attempts(3, 10, "lost"))
    assert exporter.count("lost") == 7
    server.restart()
    wait_until(exporter.is_reading, what="the ledger is read again")
    assert (exporter.count("lost"), exporter.held()) == (7, 1)
    write(server, *attempts(20, 22, "kept"))
    assert (exporter.count("kept"), exporter.count("lost")) == (5, 7)


def test_the_totals_of_what_changed_nothing_hold_too(server: RedisServer) -> None:
    exporter = Watched(server)
    write(server, *attempts(0, 5))
    write(server, *attempts(0, 2))
    save(server)
    write(server, *attempts(2, 5))
    assert (exporter.duplicates(), exporter.held(DUPLICATES)) == (5, 0)
    server.restart()
    wait_until(exporter.is_reading, what="the ledger is read again")
    assert (exporter.duplicates(), exporter.held(DUPLICATES)) == (5, 1)
    write(server, *attempts(0, 4))
    assert (exporter.duplicates(), exporter.held(DUPLICATES)) == (6, 0)


@pytest.mark.parametrize(
    ("lost", "is_missed"),
    [
        (("oq:projects", "oq:{p}:attempts"), True),
        (("oq:{p}:meta", "oq:{p}:attempts", "oq:{p}:days"), True),
        (("oq:{p}:attempts",), False),  # it is not read before it changes
    ],
)
def test_a_project_that_vanished_comes_back_no_lower(
    server: RedisServer, lost: tuple[str, ...], is_missed: bool
) -> None:
    exporter = Watched(server)
    write(server, *attempts(0, 10))
    assert exporter.count() == 10
    with server.client() as client:
        client.delete(*lost)
    assert (exporter.count() is None) is is_missed
    write(server, *attempts(10, 12))
    assert (exporter.count(), exporter.held()) == (10, 1)


def test_another_ledger_begins_at_its_own_count(server: RedisServer) -> None:
    exporter = Watched(server)
    write(server, *attempts(0, 10), *attempts(0, 10))
    assert (exporter.count(), exporter.duplicates()) == (10, 10)
    with server.client() as client:
        client.flushall()
    write(server, *attempts(0, 2))
    assert (exporter.count(), exporter.duplicates()) == (2, 0)
    assert (exporter.held(), exporter.held(DUPLICATES)) == (0, 0)
