"""The witness: what it reads and when, what it makes of what fails, and how two of them take turns."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from otel_queue.config import Config, MetricConfig, RedisConfig
from otel_queue.config.settings import DomainConfig
from otel_queue.errors import ReadError
from otel_queue.ledger.reader import LedgerReader
from otel_queue.lifecycle import EventCreated
from otel_queue.postgres.aggregations import Found
from otel_queue.redis_client import connect
from otel_queue.samples import Family
from otel_queue.shadow.entry import Entry
from otel_queue.shadow.journal import Journal
from otel_queue.shadow.shadow import Shadow, reading_of
from otel_queue.shadow.tolerance import tolerance, tolerances
from tests.ledger.ledgers import Ledger, now_us
from tests.servers.process import free_port
from tests.servers.redis import RedisServer
from tests.shadow.sides import ATTEMPTS, DELIVERIES, EVENT_BACKLOG, EVENTS, NOW, family

Samples = Mapping[str, float]
SETTLE = 1.5


class Side:
    """A ledger that says what the test sets, and can fail."""

    def __init__(self) -> None:
        self.samples: dict[str, Samples] = {EVENTS: {"S1": 5.0}, ATTEMPTS: {"S1": 5.0}}
        self.error: Exception | None = None
        self.reads = 0
        self.waited: list[float] = []

    def read(self) -> Sequence[Family]:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return [family(name, samples, NOW + self.reads) for name, samples in self.samples.items()]


def found(samples: Mapping[str, Samples], **failures: int) -> Found:
    return Found([family(name, each, source="postgres") for name, each in samples.items()], Counter(failures))


class Exporter:
    """A shadow of its own on the test's journal, whose comparisons are a minute apart for all."""

    def __init__(self, journal: Journal, ledger: Side, metrics: Sequence[str] = (EVENTS,), **options: Any) -> None:
        rules = {metric: tolerance(metric) for metric in metrics}
        self.journal = journal
        self.shadow = Shadow(ledger.read, journal, rules, wait=ledger.waited.append, **options)

    def compare(self, samples: Mapping[str, Samples], time: float = NOW, **options: Any) -> dict[str, Entry]:
        database = found(samples)
        return self.judge(options.pop("exported", database), database, time, **options)

    def judge(self, exported: Found, corrected: Found, time: float = NOW, lag: float = 0.0) -> dict[str, Entry]:
        self.shadow.before()
        self.shadow.begun()
        self.shadow.judge(exported, corrected, time, lag)
        return dict(self.journal.read().entries)


@pytest.fixture
def side() -> Side:
    return Side()


@pytest.fixture
def exporter(journal: Journal, side: Side) -> Exporter:
    return Exporter(journal, side)


def test_the_ledger_is_read_before_at_once_after_and_when_it_has_settled(exporter: Exporter, side: Side) -> None:
    shadow = exporter.shadow
    shadow.before()
    assert (side.reads, side.waited) == (1, [])
    shadow.begun()
    assert (side.reads, side.waited) == (3, [SETTLE])
    shadow.judge(found({EVENTS: {"S1": 5.0}}), found({EVENTS: {"S1": 5.0}}), NOW, 0.0)
    assert side.reads == 3


def test_what_changes_between_the_readings_is_no_difference(exporter: Exporter, side: Side) -> None:
    exporter.shadow.before()
    side.samples[EVENTS] = {"S1": 7.0}
    exporter.shadow.begun()
    database = found({EVENTS: {"S1": 6.0}})
    exporter.shadow.judge(database, database, NOW, 0.0)
    assert exporter.journal.read().entries[EVENTS].drift == 0.0


def test_readings_of_another_moment_are_forgotten(exporter: Exporter, side: Side) -> None:
    exporter.shadow.before()  # the database then could not be read
    side.samples[EVENTS] = {"S1": 9.0}
    entry = exporter.compare({EVENTS: {"S1": 8.0}})[EVENTS]
    assert (entry.comparisons, entry.drift, entry.worst[0].low) == (1, 1.0, 9.0)


def test_a_comparison_is_kept_in_the_journal(exporter: Exporter) -> None:
    assert exporter.compare({EVENTS: {"S1": 8.0}})[EVENTS].worst[0].postgres == 8.0
    entry = exporter.compare({EVENTS: {"S1": 8.0, "S2": 1.0}}, NOW + 60)[EVENTS]
    assert (entry.comparisons, entry.first, entry.last, entry.drift) == (2, NOW, NOW + 60, 3.0)
    assert (entry.standing, entry.missing) == (1, {"ledger": 1, "postgres": 0})
    assert exporter.shadow.take_failures() == {}


def test_the_next_exporter_goes_on_where_the_last_one_was(journal: Journal, side: Side) -> None:
    one, other = Exporter(journal, side), Exporter(journal, side)
    one.compare({EVENTS: {"S1": 8.0}}, NOW)
    entry = other.compare({EVENTS: {"S1": 8.0}}, NOW + 60)[EVENTS]
    assert (entry.standing, entry.worst[0].since, entry.comparisons) == (1, NOW, 2)
    one.compare({EVENTS: {"S1": 5.0}}, NOW + 120)
    entry = other.compare({EVENTS: {"S1": 5.0}}, NOW + 180)[EVENTS]
    assert (entry.within, entry.within_since, entry.comparisons) == (2, NOW + 120, 4)
    # What `one` remembers is older than the journal: the difference has gone in between.
    one.compare({EVENTS: {"S1": 8.0}}, NOW + 240)
    other.compare({EVENTS: {"S1": 5.0}}, NOW + 300)
    assert one.compare({EVENTS: {"S1": 8.0}}, NOW + 360)[EVENTS].standing == 0


def test_attempts_have_no_verdict_at_the_first_look_of_a_process(journal: Journal, side: Side) -> None:
    one = Exporter(journal, side, [ATTEMPTS])
    entry = one.compare({ATTEMPTS: {"S1": 905.0}})[ATTEMPTS]
    assert (entry.comparisons, entry.last, entry.skipped) == (0, None, {"first_look": 1})
    side.samples[ATTEMPTS] = {"S1": 7.0}
    entry = one.compare({ATTEMPTS: {"S1": 907.0}})[ATTEMPTS]
    assert (entry.comparisons, entry.drift, entry.within) == (1, 0.0, 1)
    entry = Exporter(journal, side, [ATTEMPTS]).compare({ATTEMPTS: {"S1": 999.0}})[ATTEMPTS]
    assert (entry.comparisons, entry.within, entry.skipped) == (1, 1, {"first_look": 2})
    assert one.shadow.take_failures() == {}


@pytest.mark.parametrize("lag", [3.1, 60.0, float("inf")])
def test_behind_a_replica_that_lags_too_far_there_is_no_comparison(exporter: Exporter, lag: float) -> None:
    entry = exporter.compare({EVENTS: {"S1": 99.0}}, lag=lag)[EVENTS]
    assert (entry.comparisons, entry.skipped) == (0, {"lagging_replica": 1})
    assert exporter.compare({EVENTS: {"S1": 5.0}}, lag=2.9)[EVENTS].comparisons == 1
    assert exporter.shadow.take_failures() == {"lagging_replica": 1}


def test_a_family_that_the_database_could_not_count_costs_its_own_comparison(journal: Journal, side: Side) -> None:
    side.samples[DELIVERIES] = {"S1": 1.0}
    exporter = Exporter(journal, side, [EVENTS, DELIVERIES])
    entries = exporter.compare({EVENTS: {"S1": 5.0}})
    assert entries[EVENTS].comparisons == 1
    assert (entries[DELIVERIES].comparisons, entries[DELIVERIES].skipped) == (0, {"postgres_failed": 1})


@pytest.mark.parametrize("at", ["before", "begun"])
def test_a_ledger_that_cannot_be_read_costs_the_comparison_and_keeps_the_run(
    exporter: Exporter, side: Side, at: str
) -> None:
    database = found({EVENTS: {"S1": 5.0}})
    exporter.judge(database, database)
    side.error = ReadError("no_birth", "oq:contract is missing") if at == "before" else None
    exporter.shadow.before()
    side.error = ReadError("no_birth", "oq:contract is missing")
    exporter.shadow.begun()
    exporter.shadow.judge(database, database, NOW + 60, 0.0)
    entry = exporter.journal.read().entries[EVENTS]
    assert (entry.comparisons, entry.within, entry.skipped) == (1, 1, {"ledger_no_birth": 1})
    assert exporter.shadow.take_failures() == {"ledger_no_birth": 1}
    assert exporter.shadow.take_failures() == {}
    side.error = None
    assert exporter.compare({EVENTS: {"S1": 5.0}}, NOW + 120)[EVENTS].within == 2


def test_a_witness_never_raises(exporter: Exporter, side: Side) -> None:
    side.error = RuntimeError("a bug")
    exporter.shadow.before()
    exporter.shadow.begun()
    exporter.shadow.judge(found({}), found({}), NOW, 0.0)
    exporter.shadow.judge(None, None, NOW, 0.0)  # type: ignore[arg-type]
    assert exporter.shadow.take_failures() == {"internal": 3, "postgres_failed": 1}


def test_a_journal_that_cannot_be_kept_is_counted(side: Side) -> None:
    gone = Journal(connect(RedisConfig(url=f"redis://127.0.0.1:{free_port()}/0")))
    shadow = Shadow(side.read, gone, {EVENTS: tolerance(EVENTS)}, wait=lambda seconds: None)
    shadow.before()
    shadow.begun()
    database = found({EVENTS: {"S1": 5.0}})
    shadow.judge(database, database, NOW, 0.0)
    assert shadow.take_failures() == {"journal_connection": 1}


def test_a_broken_journal_is_counted_and_begun_anew(exporter: Exporter, redis_server: RedisServer) -> None:
    exporter.compare({EVENTS: {"S1": 5.0}})
    with redis_server.client() as client:
        client.hset("oq:shadow:1", EVENTS, b"garbage")
    assert exporter.compare({EVENTS: {"S1": 5.0}})[EVENTS].comparisons == 1
    assert exporter.shadow.take_failures() == {"broken_journal": 1}


class Overtaken(Journal):
    """Another exporter writes between our reading and our writing."""

    def keep(self, entries: Any, read: Any) -> int:
        super().keep([Entry(EVENTS, "other", comparisons=77)], self.read())
        return super().keep(entries, read)


def test_an_exporter_that_was_overtaken_leaves_the_newer_entry(redis_url: str, side: Side) -> None:
    exporter = Exporter(Overtaken(connect(RedisConfig(url=redis_url))), side)
    assert exporter.compare({EVENTS: {"S1": 5.0}})[EVENTS].comparisons == 77
    assert exporter.shadow.take_failures() == {"journal_taken": 1}
    exporter.journal.close()


def test_legacy_numbers_are_named_and_are_no_drift(exporter: Exporter) -> None:
    exported = found({EVENTS: {"S1": 6.0}})
    entry = exporter.compare({EVENTS: {"S1": 5.0}}, exported=exported)[EVENTS]
    assert (entry.drift, entry.legacy) == (0.0, {"replayed_event": 1})
    assert exporter.compare({EVENTS: {"S1": 5.0}})[EVENTS].legacy == {}


def test_every_metric_with_a_shadow_is_compared_by_its_own_tolerance() -> None:
    config = Config(
        domain=DomainConfig(source="postgres", shadow="ledger"),
        metrics={EVENTS: MetricConfig(absolute=7), DELIVERIES: MetricConfig(shadow="none"),
                 EVENT_BACKLOG: MetricConfig(source="ledger", shadow="postgres", age_seconds=9)},
    )  # fmt: skip
    rules = tolerances(config)
    assert EVENTS in rules
    assert ATTEMPTS in rules
    assert DELIVERIES not in rules
    assert rules[EVENTS].settled.absolute == 7
    assert rules[EVENT_BACKLOG].settled.absolute == 9
    assert tolerances(Config(domain=DomainConfig(source="postgres"))) == {}


def test_a_ledger_of_which_one_project_cannot_be_read_is_not_compared(
    ledger: Ledger, redis_server: RedisServer
) -> None:
    """All its series would be missing."""
    ledger.write(EventCreated("P", "e1", now_us(), "S1"), EventCreated("X", "e2", now_us(), "S1"))
    read = reading_of(LedgerReader(connect(RedisConfig(url=ledger.url))))
    [events] = [family for family in read() if family.name == EVENTS]
    assert sorted(labels[0] for labels, _ in events.samples) == ["P", "X"]
    with redis_server.client() as client:
        client.set("oq:{X}:meta", "no hash", ex=100)
    with pytest.raises(ReadError) as raised:
        read()
    assert raised.value.reason == "wrong_type"
