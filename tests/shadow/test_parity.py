"""Every situation of the database, told to the ledger by the records that its workers write: both say the same.

And what the gateway's own numbers say differently has the name of its rule.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import pytest

from otel_queue.config import RedisConfig
from otel_queue.ledger.reader import LedgerReader
from otel_queue.lifecycle import DeliveryCreated, EventCreated, ProjectDescribed, Record, StatusSet
from otel_queue.postgres.aggregations import read_families
from otel_queue.postgres.database import Database
from otel_queue.postgres.dsn import Dsn
from otel_queue.redis_client import connect
from otel_queue.shadow.comparison import SOURCE_OF_GONE_EVENT, Comparison
from otel_queue.shadow.legacy import name_differences
from otel_queue.shadow.shadow import Looks, reading_of
from otel_queue.shadow.tolerance import exact
from tests.ledger.ledgers import Ledger, now_us
from tests.postgres.gateway import Gateway
from tests.postgres.test_parity import PARTITIONED_TABLE, TABLE, Situation, fill, situations
from tests.shadow.sides import DELIVERIES, DELIVERY_BACKLOG, EVENT_BACKLOG, EVENTS

GAUGES = {"Q": EVENTS, "B": EVENT_BACKLOG, "D": DELIVERIES, "E": DELIVERY_BACKLOG}

# Series of the legacy numbers that differ from the corrected ones, by row, metric and rule; the rest have none.
ZERO = "zero_for_known_group=1"
LEGACY = {
    "1b": {"B": ZERO, "E": ZERO},
    "2b": {"B": ZERO, "E": ZERO},
    "2c": {"B": ZERO, "E": ZERO},
    "3": {"E": ZERO},
    "5b": {"B": ZERO, "E": ZERO},
    "5d": {"B": ZERO, "E": ZERO},
    "7": dict.fromkeys("BDE", "source_of_gone_event=2"),
    "8a": dict.fromkeys("QD", "replayed_event=1"),
    "8b": {"Q": "replayed_event=1", "D": "replayed_event=2"},
    "9": {"E": ZERO},
    "10": {"E": ZERO},
    "14": {"Q": "two_sources_one_label=1"},
    "15": dict.fromkeys("QD", "two_sources_one_label=1"),
}


def records(gateway: Gateway, tables: str) -> Iterator[Record]:
    """What the workers tell of the rows: from the words, but for the times at which the rows were created."""
    created: dict[str, datetime] = dict(gateway.execute("SELECT id, created_at FROM convoy.event_deliveries"))
    yield ProjectDescribed("P", now_us(), "New" if "renamed" in tables else "Proj", "O", "Org")
    # An event whose row is gone had a source: the hook was told it.
    sources: dict[str, str | None] = {}
    for words in (item.split() for item in tables.split("; ")):
        project = "X" if "project=X" in words else "P"
        if words[0].startswith("e"):
            sources[words[0]] = None if words[1] == "-" else words[1]
            yield EventCreated(project, words[0], now_us(), sources[words[0]])
        elif words[0] == "replayed":
            yield EventCreated(project, words[1], now_us(), sources[words[1]])
        elif words[0].startswith("d"):
            id_, event, endpoint, status = words[:4]
            yield DeliveryCreated(
                project, id_, now_us(), None if endpoint == "-" else endpoint, None if "type=-" in words else "t",
                sources.get(event, "S1"), created_us=round(created[id_].timestamp() * 1e6),
            )  # fmt: skip
            yield StatusSet(project, id_, status, now_us())


def reader_of(ledger: Ledger) -> LedgerReader:
    return LedgerReader(connect(RedisConfig(url=ledger.url)))


class Compared:
    """Both sides of one moment, as the exporter compares them."""

    def __init__(self, gateway: Gateway, ledger: Ledger) -> None:
        looks = Looks(reading_of(reader_of(ledger)), wait=lambda seconds: None)
        with Database(Dsn(gateway.dsn), statement_timeout_seconds=30).reading(looks.before) as reading:
            looks.begun()
            now = looks.of(EVENTS)[1].time
            self.corrected = read_families(reading, "corrected", now, lambda: None)
            legacy = read_families(reading, "legacy", now, lambda: None)
        self.legacy = name_differences(legacy.families, self.corrected.families)
        self._database = {family.name: family for family in self.corrected.families}
        self._looks, self._now = looks, now

    def of(self, metric: str) -> Comparison:
        return self._looks.compare(exact(metric), self._database[metric], self._now, 0.0)


def assert_the_same(gateway: Gateway, ledger: Ledger, situation: Situation) -> None:
    fill(gateway, situation.tables)
    ledger.write(*records(gateway, situation.tables))
    both = Compared(gateway, ledger)
    for letter, metric in GAUGES.items():
        found = both.of(metric)
        assert found.differences == [], (situation.row, metric)
        gone = situation.row == "7" and letter != "Q"
        assert found.known == ({SOURCE_OF_GONE_EVENT: 2} if gone else {}), (situation.row, metric)
        told = LEGACY.get(situation.row, {}).get(letter, "")
        assert both.legacy[metric] == _counts(told), (situation.row, metric)


def _counts(told: str) -> Mapping[str, int]:
    return {name: int(count) for name, _, count in (words.partition("=") for words in told.split())}


ROWS: list[Any] = [row for row in situations(TABLE) if row.id != "6b"]


@pytest.mark.parametrize("situation", ROWS)
def test_the_ledger_says_what_the_corrected_database_says(
    any_gateway: Gateway, ledger: Ledger, situation: Situation
) -> None:
    assert_the_same(any_gateway, ledger, situation)


@pytest.mark.parametrize("situation", situations(PARTITIONED_TABLE))
def test_a_replay_into_a_partitioned_table_is_no_drift(
    partitioned_gateway: Gateway, ledger: Ledger, situation: Situation
) -> None:
    assert_the_same(partitioned_gateway, ledger, situation)


def test_a_delivery_that_somebody_deletes_by_hand_is_drift_since_no_hook_tells(
    gateway: Gateway, ledger: Ledger
) -> None:
    tables = "e1 -; d1 e1 E1 Processing 100 deleted"
    fill(gateway, tables)
    ledger.write(*records(gateway, tables))
    both = Compared(gateway, ledger)
    assert both.of(DELIVERIES).missing == {"ledger": 0, "postgres": 1}
    assert [both.of(metric).differences for metric in (EVENTS, EVENT_BACKLOG, DELIVERY_BACKLOG)] == [[], [], []]


def test_every_situation_of_the_database_is_compared() -> None:
    assert {row.id for row in (*ROWS, *situations(PARTITIONED_TABLE))} >= LEGACY.keys()
    assert len(ROWS) == len(situations(TABLE)) - 1


@pytest.mark.parametrize("lost", [1, 2, 4, 6])
def test_a_record_that_is_lost_is_found_and_once_it_comes_it_is_not(
    gateway: Gateway, ledger: Ledger, lost: int
) -> None:
    """An event or a status; what the creation of a delivery told, its status tells to the counts as well."""
    tables = "e1 S1; e2 S1; d1 e1 E1 Success; d2 e2 E1 Processing 60"
    fill(gateway, tables)
    told = list(records(gateway, tables))
    missing = told.pop(lost)
    assert isinstance(missing, EventCreated | StatusSet)
    ledger.write(*told)
    both = Compared(gateway, ledger)
    assert max(both.of(metric).drift for metric in GAUGES.values()) > 0
    ledger.write(missing)
    both = Compared(gateway, ledger)
    assert [both.of(metric).differences for metric in GAUGES.values()] == [[], [], [], []]


def test_a_legacy_backlog_that_is_cut_has_that_name(gateway: Gateway, ledger: Ledger) -> None:
    """1500 groups, half of which the legacy numbers have as 0, or do not have."""
    gateway.execute(
        "INSERT INTO convoy.event_deliveries (id, event_id, project_id, endpoint_id, status, created_at)"
        " SELECT status || i, 'e' || i, to_char(i, '0000'), 'E1', status, now() - make_interval(secs => i)"
        " FROM generate_series(1, 1500) i, unnest(ARRAY['Processing', 'Success']) status"
    )
    gateway.execute(
        "INSERT INTO convoy.events (id, event_type, project_id)"
        " SELECT 'e' || i, 't', to_char(i, '0000') FROM generate_series(1, 1500) i"
    )
    named = Compared(gateway, ledger).legacy
    assert named[EVENT_BACKLOG] == {"cut_at_1000": 1000}
    assert named[DELIVERY_BACKLOG] == {"cut_at_1000": 1000}


def test_a_blank_source_and_an_age_ahead_of_the_clock_have_their_names(gateway: Gateway, ledger: Ledger) -> None:
    fill(gateway, "e1 -; d1 e1 E1 Success; e3 S3; d3 e3 E1 Processing -3600")
    gateway.event("e2", source="")
    gateway.delivery("d2", "e2", "Success")
    named = Compared(gateway, ledger).legacy
    assert named[EVENTS] == named[DELIVERIES] == {"blank_label": 2}
    assert named[EVENT_BACKLOG] == {"blank_label": 1, "negative_age": 1}
    assert named[DELIVERY_BACKLOG] == {"blank_label": 1, "negative_age": 1}
