"""One look: the rows that are new, in flight, that left flight, and the deliveries of new attempts."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from otel_queue.database.cursor import Horizon, next_since, read_horizon
from otel_queue.database.memory import Memory
from otel_queue.database.partitions import Layout, read_layout
from otel_queue.database.place import Place
from otel_queue.database.records import IN_FLIGHT, attempt_record, delivery_record, event_record, project_record
from otel_queue.database.rows import AttemptRow, DeliveryRow, EventRow, FlightRow, Key, ProjectRow, Rows
from otel_queue.database.target import Target
from otel_queue.database.wanted import Span
from otel_queue.lifecycle import Record, StatusSet
from otel_queue.postgres.database import Database, Reading
from otel_queue.ulid import lowest_ulid

_log: Final = logging.getLogger(__name__)

# Ids of rows without created_at are told apart by a clock of their writer, which may be off by this much.
_WRITERS_CLOCK_US: Final = 3_600_000_000


@dataclass(slots=True)
class Pace:
    """How looks are made; see [follow] in the settings."""

    old_us: int = 3_600_000_000
    overlap_us: int = 60_000_000


@dataclass(slots=True)
class Found:
    """What one look read, all of one state."""

    horizon: Horizon
    layout: Layout
    projects: list[ProjectRow]
    events: list[EventRow]
    deliveries: dict[Key, DeliveryRow]
    attempts: list[AttemptRow]
    flight: dict[Key, FlightRow]
    by_key: dict[Key, DeliveryRow] = field(default_factory=dict)
    gone: list[Key] = field(default_factory=list)


@dataclass(slots=True)
class Looked:
    """What a look did: rows read by kind, records that changed the ledger, and what it could not tell, by reason."""

    layout: Layout
    rows: Counter[str] = field(default_factory=Counter)
    changed: int = 0
    forgotten: int = 0
    failures: Counter[str] = field(default_factory=Counter)


class Look:
    """Looks of one follower, which remembers what it has told."""

    def __init__(self, database: Database, target: Target, pace: Pace) -> None:
        self._database = database
        self._target = target
        self._pace = pace
        self.memory = Memory()

    def run(self, place: Place, *, whole: bool) -> Looked:
        """Reads what changed since the place, tells it, and moves the place on. Raises ReadError and WriteError.

        A `whole` look reads all that is in flight; another one leaves out what was created long ago. After an error
        the place and the memory are as before, and the next look tells the same again.
        """
        time_us = self._target.clock().now_us
        horizons: list[Horizon] = []
        with self._database.reading(first=lambda reading: horizons.append(read_horizon(reading))) as reading:
            found = self._read(reading, horizons[0], place, whole)
        looked = Looked(found.layout)
        records = list(self._records(found, time_us, looked.failures))
        told = self._target.write(records)
        looked.changed = told.changed
        looked.failures.update(error.reason for error in told.refused.values())
        looked.forgotten = self._target.forget_rows("delivery", found.gone)
        looked.rows.update(events=len(found.events), deliveries=len(found.deliveries), attempts=len(found.attempts))
        looked.rows.update({"in flight": len(found.flight), "by key": len(found.by_key)})
        self._remember(found, whole)
        self._move(place, found, time_us)
        return looked

    def _read(self, reading: Reading, horizon: Horizon, place: Place, whole: bool) -> Found:
        layout = read_layout(reading)
        projects = Rows(reading, None).projects()
        rows = Rows(reading, sorted(row.id for row in projects) if layout.is_partitioned else None)
        events = [*rows.events(Span(place.events_us)), *rows.events_without_time(_first_id(place.events_us))]
        deliveries = {row.key: row for row in rows.deliveries(Span(place.deliveries_us))}
        deliveries |= {row.key: row for row in rows.deliveries_without_time(_first_id(place.deliveries_us))}
        attempts = [*rows.attempts(Span(place.attempts_us)), *rows.attempts_without_time(_first_id(place.attempts_us))]
        flight = {(row.project, row.id): row for row in rows.in_flight(None if whole else self._old_before(horizon))}
        found = Found(horizon, layout, projects, events, deliveries, attempts, flight)
        known = self.memory.young.keys() | (self.memory.old.keys() if whole else set())
        left = known - flight.keys()
        unknown = flight.keys() - self.memory.young.keys() - self.memory.old.keys()
        recent = self.memory.recent_attempts
        tried = {(row.project, row.delivery) for row in attempts if (row.project, row.id) not in recent}
        asked = (left | unknown | tried) - deliveries.keys()
        found.by_key = {row.key: row for row in rows.deliveries_by_key(asked)}
        found.gone = [key for key in asked if key not in found.by_key]
        found.gone += [row.key for row in (*deliveries.values(), *found.by_key.values()) if row.is_deleted]
        self.memory.sources.begin()
        self.memory.sources.add(events)
        wanted = self.memory.sources.unknown(self._changed(found))
        self.memory.sources.add(rows.events_by_key(wanted))
        return found

    def _old_before(self, horizon: Horizon) -> int:
        return horizon.now_us - self._pace.old_us

    def _changed(self, found: Found) -> Iterator[DeliveryRow]:
        """The rows that are to be told whole."""
        for row in (*found.deliveries.values(), *found.by_key.values()):
            if not row.is_deleted and row.status != self.memory.status_of(row.key):
                yield row

    def _records(self, found: Found, time_us: int, failures: Counter[str]) -> Iterator[Record]:
        for project in found.projects:
            if self.memory.projects.get(project.id) != project:
                yield project_record(project, time_us)
        for event in found.events:
            if event.key not in self.memory.recent_events:
                yield event_record(event, time_us)
        for attempt in found.attempts:
            if (attempt.project, attempt.id) not in self.memory.recent_attempts:
                yield attempt_record(attempt, time_us)
        for row in self._changed(found):
            is_new = row.key in found.deliveries and self.memory.status_of(row.key) is None
            source = self.memory.sources.of((row.project, row.event))
            try:
                yield delivery_record(row, source, time_us, is_new=is_new)
            except ValueError as error:
                _log.warning("follow: delivery %s is left out: %s", row.id, error)
                failures["unknown_status"] += 1
        for key, flying in found.flight.items():
            # What was told before has its labels: a status alone is less to read and to write.
            if key not in found.deliveries and key not in found.by_key and flying.status != self.memory.status_of(key):
                yield StatusSet(*key, flying.status.lower(), time_us)

    def _remember(self, found: Found, whole: bool) -> None:
        memory = self.memory
        memory.young = {key: row.status for key, row in found.flight.items()}
        if whole:
            limit_us = self._old_before(found.horizon)
            memory.old = {key: row.status for key, row in found.flight.items() if (row.created_us or 0) < limit_us}
            for key in memory.old:
                del memory.young[key]
        for key in found.gone:
            memory.old.pop(key, None)
        for key, row in found.by_key.items():
            if row.status in IN_FLIGHT and not row.is_deleted:
                if key not in memory.young:
                    memory.old[key] = row.status
            else:
                memory.old.pop(key, None)
        memory.recent = {key: row.status for key, row in found.deliveries.items() if not row.is_deleted}
        memory.recent_events = {row.key for row in found.events}
        memory.recent_attempts = {(row.project, row.id) for row in found.attempts}
        memory.projects = {row.id: row for row in found.projects}

    def _move(self, place: Place, found: Found, time_us: int) -> None:
        deliveries: Iterable[DeliveryRow] = found.deliveries.values()
        place.read_us = time_us
        place.events_us = self._next(place.events_us, found.events, found.horizon)
        place.deliveries_us = self._next(place.deliveries_us, deliveries, found.horizon)
        place.attempts_us = self._next(place.attempts_us, found.attempts, found.horizon)

    def _next(self, since_us: int, rows: Iterable[EventRow | DeliveryRow | AttemptRow], horizon: Horizon) -> int:
        newest_us = max((row.created_us or 0 for row in rows), default=0)
        pace = self._pace
        return next_since(since_us, newest_us, horizon, overlap_us=pace.overlap_us, longest_us=pace.old_us)


def _first_id(since_us: int) -> str:
    return lowest_ulid(max(since_us - _WRITERS_CLOCK_US, 0))
