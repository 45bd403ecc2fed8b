"""The first fill: rows of before the tracked window come as counts, those of the window are told slice by slice."""

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Final

from otel_queue.database.cursor import Horizon, next_since, read_horizon
from otel_queue.database.memory import Memory
from otel_queue.database.old_days import OldRows, put_old_days
from otel_queue.database.place import Place
from otel_queue.database.records import IN_FLIGHT, attempt_record, delivery_record, event_record
from otel_queue.database.rows import ATTEMPTS, DELIVERIES, EVENTS, Rows
from otel_queue.database.slices import Slice, Slices, window_at
from otel_queue.database.target import Target
from otel_queue.lifecycle import Record
from otel_queue.postgres.database import Database

_log: Final = logging.getLogger(__name__)


class Fill:
    """Goes on from where the place says that it is, in steps; what was told before a kill is told again, harmlessly."""

    def __init__(self, database: Database, target: Target, slices: Slices, memory: Memory, *, overlap_us: int) -> None:
        self._database = database
        self._target = target
        self._slices = slices
        self._memory = memory
        self._overlap_us = overlap_us
        self._until_us = 0
        self.rows: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()

    def step(self, place: Place) -> None:
        """The next step, and the place behind it. Raises ReadError and WriteError, after which it can be made again."""
        if not place.first_day:
            self._begin(place)
            return
        clock = self._target.clock()
        window = window_at(clock)
        self._until_us = self._until_us or clock.now_us
        position_us = max(place.filled_us or 0, window.since_us)
        found = self._slices.read(position_us, self._until_us, window)
        told = self._target.write(self._records(found))
        self.failures.update(error.reason for error in told.refused.values())
        self.rows.update(events=len(found.events), deliveries=len(found.deliveries), attempts=len(found.attempts))
        place.filled_us = None if found.span.until_us >= self._until_us else found.span.until_us
        if place.filled_us is None:
            self._target.ids.mark_swept(place.began_us)
        place.read_us = found.time_us

    def _begin(self, place: Place) -> None:
        """Fixes from where looks go on, before anything else is read; then counts what is not tracked."""
        horizons: list[Horizon] = []
        clock = self._target.clock()
        with self._database.reading(first=lambda reading: horizons.append(read_horizon(reading))) as reading:
            rows = Rows(reading, None)
            newest = [rows.newest_us(table) for table in (EVENTS, DELIVERIES, ATTEMPTS)]
        place.events_us, place.deliveries_us, place.attempts_us = (
            self._first_since(newest_us, horizons[0]) for newest_us in newest
        )
        window = window_at(clock)
        old = OldRows(self._database, window, clock.now_us, self._target.hold).count()
        put_old_days(old, self._target, window)
        self._memory.old |= old.in_flight
        self.failures += old.failures
        self.rows["old rows"] += old.rows
        place.first_day, place.filled_us = window.first_day, window.since_us
        place.began_us = place.read_us = clock.now_us

    def _first_since(self, newest_us: int, horizon: Horizon) -> int:
        overlap_us = self._overlap_us
        first_us = max(newest_us - overlap_us, 0)
        return next_since(first_us, newest_us, horizon, overlap_us=overlap_us, longest_us=overlap_us)

    def _records(self, found: Slice) -> Iterator[Record]:
        for event in found.events:
            yield event_record(event, found.time_us)
        for row in found.deliveries:
            if row.is_deleted:
                continue
            try:
                source = self._slices.sources.of((row.project, row.event))
                yield delivery_record(row, source, found.time_us, is_new=True)
            except ValueError as error:
                _log.warning("follow: delivery %s is left out: %s", row.id, error)
                self.failures["unknown_status"] += 1
                continue
            if row.status in IN_FLIGHT:
                self._memory.old[row.key] = row.status
        for attempt in found.attempts:
            yield attempt_record(attempt, found.time_us)
