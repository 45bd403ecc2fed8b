"""What a ledger and a database say of the same gateway: in families, and delivery by delivery."""

import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import redis

from otel_queue.ledger.identity import UNDATED, identify
from otel_queue.lifecycle import STATUSES
from otel_queue.postgres.aggregations import read_families
from otel_queue.postgres.database import Database
from otel_queue.postgres.dsn import Dsn
from otel_queue.samples import Family
from tests.ledger.ledgers import Ledger, place_of_group
from tests.ledger.oracle import ATTEMPTS, CROCKFORD, DELIVERIES, DELIVERY_BACKLOG, EVENT_BACKLOG, EVENTS, Families
from tests.postgres.gateway import Gateway
from tests.simulation.tables import AttemptRow, DeliveryRow, EventRow
from tests.simulation.tenants import ORGANISATION
from tests.simulation.world import World

_Row = TypeVar("_Row", EventRow, DeliveryRow, AttemptRow)

COUNTS = (EVENTS, DELIVERIES, ATTEMPTS)
BACKLOGS = (EVENT_BACKLOG, DELIVERY_BACKLOG)


@dataclass(frozen=True)
class Said:
    """Families, true for some moment between `first` and `last` (Unix seconds)."""

    families: Families
    first: float
    last: float

    def counts(self) -> Families:
        return {name: self.families[name] for name in COUNTS}


def said_by_ledger(ledger: Ledger) -> Said:
    families, at = ledger.read()
    return Said(families, at, at)


def said_by_database(gateway: Gateway) -> Said:
    """The corrected families."""
    first = time.time()
    with Database(Dsn(gateway.dsn), statement_timeout_seconds=30.0).reading() as reading:
        last = time.time()
        found = read_families(reading, "corrected", last, lambda: None)
    assert not found.failures, found.failures
    return Said(_by_labels(found.families), first, last)


def _by_labels(families: Iterable[Family]) -> Families:
    return {family.name: dict(family.samples) for family in families}


def assert_same_backlogs(ledger: Said, database: Said, *, within_seconds: float) -> None:
    """The same groups, nothing in processing in the same ones, and in the others the same oldest delivery.

    Ages were read at different moments, so what is compared is when the oldest was created.
    """
    for name in BACKLOGS:
        held, asked = ledger.families[name], database.families[name]
        assert held.keys() == asked.keys(), name
        for labels, age in held.items():
            if age == 0.0 or asked[labels] == 0.0:
                assert age == asked[labels], (name, labels)
                continue
            created = ledger.last - age
            earliest, latest = database.first - asked[labels], database.last - asked[labels]
            assert earliest - within_seconds <= created <= latest + within_seconds, (name, labels)


def counts_of(world: World) -> Families:
    """What the rows that are left add up to, by the rules in words."""
    tables = world.tables
    events = {rows[0].id: rows[0] for rows in map(_left, tables.events.values()) if rows}
    found: dict[str, Counter[tuple[str, ...]]] = {name: Counter() for name in COUNTS}
    for event in events.values():
        found[EVENTS][event.project, event.source or "http", "success"] += 1
    for row in _left(tables.deliveries):
        source = (row.event.source or "http") if row.event.id in events else "unknown"
        found[DELIVERIES][
            row.project, world.tenants.projects[row.project].name, row.endpoint or "", row.status.lower(),
            row.event_type or "", source, *ORGANISATION,
        ] += 1  # fmt: skip
    for attempt in _left(tables.attempts):
        outcome = "success" if attempt.succeeded else "failure"
        code = (attempt.http_status or "none").partition(" ")[0]
        found[ATTEMPTS][attempt.project, attempt.endpoint, outcome, code] += 1
    return {name: {labels: float(count) for labels, count in samples.items()} for name, samples in found.items()}


def _left(rows: Iterable[_Row]) -> list[_Row]:
    return [row for row in rows if not row.is_gone]


class Thing(NamedTuple):
    """An event, delivery or attempt, named by what it is kept under."""

    kind: str
    project: str
    stored: bytes

    @property
    def day(self) -> str:
        """The day that the id tells."""
        return identify(ulid_of(self.stored)).day if len(self.stored) == ULID_BYTES else UNDATED


ULID_BYTES = 16  # the simulation's other ids are longer
GONE = "gone"
"""The source of a delivery whose event has no row any more."""
Things = dict[Thing, tuple[str, ...]]
"""Each with its labels: an event's source; a delivery's status, endpoint, event type and source; of an attempt none."""

_KINDS = {"events": "event", "deliveries": "delivery", "attempt-ids": "attempt"}
_KEY = re.compile(rf"oq:\{{(.+)\}}:({'|'.join(_KINDS)}):.+")


def ulid_of(stored: bytes) -> str:
    number = int.from_bytes(stored)
    return "".join(CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def thing(kind: str, project: str, id: str) -> Thing:
    return Thing(kind, project, identify(id).stored)


def things_in_ledger(client: redis.Redis) -> Things:
    """Straight from the keys. An empty state is an id that was forgotten."""
    found: Things = {}
    groups: dict[str, dict[int, list[str]]] = {}
    for key in client.scan_iter("oq:{*", count=1_000):
        match = _KEY.fullmatch(key.decode())
        if match is None:
            continue
        project, kind = match[1], _KINDS[match[2]]
        if project not in groups:
            groups[project] = _groups(client, project)
        states: Any = client.hgetall(key)
        for stored, state in states.items():
            if not state and kind != "attempt":
                continue
            each = Thing(kind, project, stored)
            assert each not in found, "an id is held twice"
            # What is kept of an undated id begins with the day that it counts under.
            found[each] = _labels(kind, state[2:] if b":undated:" in key else state, groups[project])
    return found


def _groups(client: redis.Redis, project: str) -> dict[int, list[str]]:
    pairs: Any = client.hgetall(f"oq:{{{project}}}:groups")
    return {
        int(name[1:]): [_shown(label) for label in labels.decode().removeprefix("event").split("\0")]
        for name, labels in pairs.items()
        if name.startswith(b"#")
    }


def _shown(label: str) -> str:
    return label.removeprefix("=") if label else "unknown"


def _labels(kind: str, state: bytes, groups: dict[int, list[str]]) -> tuple[str, ...]:
    if kind == "attempt":
        return ()
    start, end = place_of_group(kind, state)
    labels = tuple(groups[int.from_bytes(state[start:end])])
    return labels if kind == "event" else (STATUSES[state[0] % 8 - 1], *labels)


def things_in_database(gateway: Gateway) -> Things:
    found: Things = {}
    for id, project, source in gateway.execute("SELECT id, project_id, source_id FROM convoy.events"):
        found[thing("event", project, id)] = (source or "http",)
    for id, project, status, endpoint, event_type, event, source in gateway.execute(
        "SELECT d.id, d.project_id, d.status, d.endpoint_id, d.event_type, e.id, e.source_id"
        " FROM convoy.event_deliveries d LEFT JOIN convoy.events e ON e.id = d.event_id"
    ):
        known = GONE if event is None else source or "http"
        found[thing("delivery", project, id)] = (status.lower(), endpoint or "", event_type or "", known)
    for id, project in gateway.execute("SELECT id, project_id FROM convoy.delivery_attempts"):
        found[thing("attempt", project, id)] = ()
    return found


class Compared(NamedTuple):
    """What only the database has, what only the ledger has, and what both have with other labels."""

    missing: set[Thing]
    beyond: set[Thing]
    differing: dict[Thing, tuple[tuple[str, ...], tuple[str, ...]]]


def compare(ledger: Things, database: Things) -> Compared:
    """A source of an event that is gone is not compared."""
    differing = {
        each: (held, database[each])
        for each, held in ledger.items()
        if each in database
        and held != database[each]
        and (database[each][-1] != GONE or held[:-1] != database[each][:-1])
    }
    return Compared(database.keys() - ledger.keys(), ledger.keys() - database.keys(), differing)
