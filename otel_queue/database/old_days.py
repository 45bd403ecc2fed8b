"""Rows of before the tracked window: counted in the database, those in flight known one by one."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from otel_queue import labels
from otel_queue.database.memory import Sources
from otel_queue.database.partitions import read_layout
from otel_queue.database.records import IN_FLIGHT, delivery_record
from otel_queue.database.rows import AttemptRow, DeliveryRow, EventRow, Key, Rows, statement
from otel_queue.database.slices import Window
from otel_queue.database.target import Target
from otel_queue.database.wanted import LAST_US, moment
from otel_queue.errors import ReadError
from otel_queue.ledger.batches import delivery_group, event_group, rank_of
from otel_queue.ledger.counts import EVENTS, DayCounts, Opened
from otel_queue.ledger.identity import UNDATED, day_of, end_of, identify, text_of
from otel_queue.lifecycle import UNTOLD, Label, Record
from otel_queue.postgres.database import Database, Reading, Row
from otel_queue.ulid import lowest_ulid

_log: Final = logging.getLogger(__name__)

_DAY_US: Final = 86_400_000_000
_DATED: Final = "^[0-7][0-9A-HJKMNP-TV-Z]{25}$"
# A dated id is a ULID of these years; docs/ledger-protocol.md.
_LOWEST: Final = lowest_ulid(1_451_606_400_000_000)  # 2016-01-01
_HIGHEST: Final = lowest_ulid(LAST_US)
_T = TypeVar("_T")


@dataclass(slots=True)
class OldDays:
    """`days` are the counts of each project and day, with the deliveries that are not final, known one by one.

    `records` tell those of them whose ids tell no day. `attempts` are counts by project and endpoint, status and code.
    `in_flight` are the statuses of all that is not final.
    """

    days: dict[str, dict[str, DayCounts]] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    attempts: dict[str, Counter[tuple[str, str, str]]] = field(default_factory=dict)
    in_flight: dict[Key, str] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)

    def of(self, project: str, day: str) -> DayCounts:
        """The counts of a day, to be added to."""
        return self.days.setdefault(project, {}).setdefault(day, DayCounts())

    @property
    def rows(self) -> int:
        """How many rows were counted."""
        days = sum(day.rows for project in self.days.values() for day in project.values())
        return days + sum(counts.total() for counts in self.attempts.values())


class OldRows:
    """Counts what is older than the window, each kind by one GROUP BY, all in one state of the database.

    `hold` is called between two statements.
    """

    def __init__(self, database: Database, window: Window, time_us: int, hold: Callable[[], None]) -> None:
        self._database = database
        self._window = window
        self._time_us = time_us
        self._hold = hold
        self._sources = Sources()
        self._last_day = day_of(window.midnight_us - 1)

    def count(self) -> OldDays:
        """All of it. Raises ReadError, with reason `timeout` where one count takes longer than a statement may."""
        found = OldDays()
        try:
            with self._database.reading() as reading:
                self._count(reading, found)
        except ReadError as error:
            if error.reason != "timeout":
                raise
            raise ReadError(
                "timeout",
                f"{error}: the rows of before {self._window.first_day} are counted at once, in the first fill; raise "
                "postgres.statement_timeout_seconds for it, or drop the partitions that are due",
            ) from error
        return found

    def _count(self, reading: Reading, found: OldDays) -> None:
        rows = Rows(reading, None)
        layout = read_layout(reading)
        bounds = self._bounds(self._window.midnight_us, self._window.first_day)
        for row in reading.fetch(statement("old_deliveries", **bounds)):
            self._add_deliveries(found, row)
        self._hold()
        del bounds["events_until"]
        for project, day, source, total in reading.fetch(statement("old_events", **bounds)):
            found.of(project, day).counts[event_group(source), EVENTS] += total
        self._hold()
        bounds = self._bounds(self._window.attempts_since_us + _DAY_US, self._window.first_attempt_day)
        for unused in ("events_until", "last_day"):
            del bounds[unused]
        for project, endpoint, succeeded, http_status, total in reading.fetch(statement("old_attempts", **bounds)):
            self._add_attempts(found, project, endpoint, succeeded, http_status, total)
        self._hold()
        flying = [
            (row.project, row.id) for row in rows.in_flight(None) if not self._window.holds(row.id, row.created_us)
        ]
        single = list(rows.deliveries_by_key(flying))
        events: list[EventRow] = []
        if not layout.is_partitioned:
            single += _untracked(rows.deliveries_without_time(), lambda row: self._window.holds(row.id, None))
            events += _untracked(rows.events_without_time(), lambda row: self._window.holds(row.id, None))
            attempts = _untracked(rows.attempts_without_time(), lambda row: self._window.holds_attempt(row.id, None))
            for attempt in attempts:
                self._add_attempt(found, attempt)
        self._sources.add(events)
        self._sources.add(rows.events_by_key(self._sources.unknown(single)))
        for delivery in {row.key: row for row in single}.values():
            if not delivery.is_deleted:
                self._add_delivery(found, delivery)
        for event in {row.key: row for row in events}.values():
            group = event_group(_told(self._sources.of(event.key)))
            found.of(event.project, self._day(event.id, None)).counts[group, EVENTS] += 1

    def _bounds(self, midnight_us: int, first_day: str) -> dict[str, object]:
        return {
            "until": moment(midnight_us + _DAY_US),
            "slack": moment(midnight_us - _DAY_US),
            "midnight": moment(midnight_us),
            "events_until": moment(midnight_us + _DAY_US),
            "first_id": lowest_ulid(end_of(first_day) * 1_000_000 - _DAY_US),
            "dated": _DATED,
            "lowest": _LOWEST,
            "highest": _HIGHEST,
            "last_day": self._last_day,
        }

    def _day(self, id_: str, created_us: int | None) -> str:
        """The day that a row counts under, as old_deliveries.sql has it."""
        if created_us is None:
            created_us = identify(id_).created_us or 0
        return min(day_of(created_us), self._last_day)

    def _add_deliveries(self, found: OldDays, row: Row) -> None:
        project, day, endpoint, status, event_type, has_event, source, total = row
        try:
            rank = rank_of(status)
        except ValueError as error:
            _log.warning("follow: %d deliveries of %s are left out: %s", total, day, error)
            found.failures["unknown_status"] += 1
            return
        group = delivery_group(endpoint, event_type, source if has_event else UNTOLD)
        found.of(project, day).counts[group, str(rank)] += total

    def _add_delivery(self, found: OldDays, row: DeliveryRow) -> None:
        """One that is not final, or has no time."""
        source = self._sources.of((row.project, row.event))
        identity = identify(row.id)
        if identity.day == UNDATED or identity.day > self._last_day:
            found.records.append(delivery_record(row, source, self._time_us, is_new=True))
            found.in_flight[row.key] = row.status
            return
        group, day, rank = delivery_group(row.endpoint, row.event_type, source), self._day(row.id, row.created_us), 0
        try:
            rank = rank_of(row.status)
        except ValueError:
            found.failures["unknown_status"] += 1
            return
        created_us = identity.created_us or 0 if row.created_us is None else row.created_us
        # Its records find it by the day of its id.
        day = identity.day if row.status in IN_FLIGHT else day
        counts = found.of(row.project, day)
        counts.counts[group, str(rank)] += 1
        if row.status not in IN_FLIGHT:
            return
        if row.status == "Processing":
            counts.processing.add((group, created_us, identity.stored))
        counts.opened[identity.stored] = Opened(group, rank, self._time_us, created_us)
        found.in_flight[row.key] = row.status

    def _add_attempt(self, found: OldDays, row: AttemptRow) -> None:
        self._add_attempts(found, row.project, row.endpoint, row.succeeded, row.http_status, 1)

    def _add_attempts(
        self, found: OldDays, project: str, endpoint: str | None, succeeded: bool, http_status: str | None, total: int
    ) -> None:
        words = (labels.plain(endpoint) or "", labels.outcome(succeeded), labels.http_status_code(http_status))
        found.attempts.setdefault(project, Counter())[words] += total


def put_old_days(found: OldDays, target: Target, window: Window) -> None:
    """Puts what was counted. May be repeated while nothing was told of these rows yet. Raises ReadError, WriteError."""
    last_day = day_of(window.midnight_us - 1)
    for project, days in sorted(found.days.items()):
        _end_others(target, project, days)
        target.ids.whole_days.put(project, days, last_day)
        target.upkeep.settle(project)
    for project, attempts in sorted(found.attempts.items()):
        target.ids.begin_attempts(project, window.first_attempt_day, attempts)
    target.write(found.records)


def _end_others(target: Target, project: str, days: dict[str, DayCounts]) -> None:
    """A fill that was killed may have put deliveries that have become final since."""
    for stored, _ in target.ids.open(project):
        day = identify(text_of("", stored)).day
        if day in days and stored not in days[day].opened:
            days[day].ended.add(stored)


def _untracked(rows: Iterator[_T], holds: Callable[[_T], bool]) -> list[_T]:
    return [row for row in rows if not holds(row)]


def _told(source: Label) -> str | None:
    return source if isinstance(source, str) else None
