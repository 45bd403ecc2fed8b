"""The rows of a window of time, slice by slice: what a first fill and a sweep read, each slice in one transaction."""

import logging
from dataclasses import dataclass, field
from typing import Final

from otel_queue.database.memory import Sources
from otel_queue.database.partitions import read_layout
from otel_queue.database.rows import ATTEMPTS, DELIVERIES, EVENTS, AttemptRow, DeliveryRow, EventRow, Key, Rows
from otel_queue.database.target import Target, first_attempt_day_of, first_day_of
from otel_queue.database.wanted import Span
from otel_queue.errors import ReadError
from otel_queue.ledger.administration import Clock
from otel_queue.ledger.identity import UNDATED, end_of, identify
from otel_queue.postgres.database import Database

_log: Final = logging.getLogger(__name__)

_DAY_US: Final = 86_400_000_000
_FEWEST_ROWS: Final = 500


@dataclass(frozen=True, slots=True)
class Window:
    """What is tracked at a moment: ids of `first_day` and later, and attempts of `first_attempt_day` and later.

    The day of an id decides. An id that tells none goes by its row's time. Rows of more than a day before the first day
    are not tracked, whatever their ids tell.
    """

    first_day: str
    first_attempt_day: str

    @property
    def midnight_us(self) -> int:
        """When the first day begins, Unix microseconds."""
        return end_of(self.first_day) * 1_000_000 - _DAY_US

    @property
    def since_us(self) -> int:
        """From where on rows can be tracked: a day of room for clocks of those who make ids."""
        return self.midnight_us - _DAY_US

    @property
    def attempts_since_us(self) -> int:
        """As `since_us`, for attempts."""
        return end_of(self.first_attempt_day) * 1_000_000 - 2 * _DAY_US

    def holds(self, id_: str, created_us: int | None) -> bool:
        """Whether a delivery or an event is tracked one by one."""
        if created_us is not None and created_us < self.since_us:
            return False
        day = identify(id_).day
        if day != UNDATED:
            return day >= self.first_day
        return created_us is None or created_us >= self.midnight_us

    def holds_attempt(self, id_: str, created_us: int | None) -> bool:
        """Whether an attempt is tracked by its id; one without any time is."""
        if created_us is not None and created_us < self.attempts_since_us:
            return False
        day = identify(id_).day
        if day != UNDATED:
            return day >= self.first_attempt_day
        return created_us is None or created_us >= self.attempts_since_us + _DAY_US


def window_at(clock: Clock) -> Window:
    """What is tracked now."""
    return Window(first_day_of(clock), first_attempt_day_of(clock))


@dataclass(slots=True)
class Slice:
    """Rows that are tracked, all of one state. `time_us` is a moment before they were read, by Redis."""

    span: Span
    time_us: int
    events: list[EventRow] = field(default_factory=list)
    deliveries: list[DeliveryRow] = field(default_factory=list)
    attempts: list[AttemptRow] = field(default_factory=list)


class Slices:
    """Reads slices of at most `rows` rows of each table, but for rows that were created at the same moment."""

    def __init__(self, database: Database, target: Target, rows: int) -> None:
        self._database = database
        self._target = target
        self._most = self._rows = rows
        self.sources = Sources()
        self._older: set[Key] = set()

    def read(self, since_us: int, until_us: int, window: Window) -> Slice:
        """The next slice of what was created from one time up to the other. Raises ReadError.

        A slice that takes too long is read again with half as many rows. The slice that reaches the end has the rows
        without a time as well.
        """
        if since_us <= window.since_us:
            self._older = set()
        while True:
            try:
                found = self._read(since_us, until_us, window)
            except ReadError as error:
                if error.reason != "timeout" or self._rows <= _FEWEST_ROWS:
                    raise
                self._rows = max(self._rows // 2, _FEWEST_ROWS)
                _log.warning("follow: reading %d rows at a time from now on: %s", self._rows, error)
            else:
                self._rows = min(self._rows + self._most // 20, self._most)
                return found

    def _read(self, since_us: int, until_us: int, window: Window) -> Slice:
        time_us = self._target.clock().now_us
        with self._database.reading() as reading:
            layout = read_layout(reading)
            # No project is named: rows of one without a row are found here.
            rows = Rows(reading, None)
            end_us = until_us
            for table in (EVENTS, DELIVERIES, ATTEMPTS):
                start_us = max(since_us, window.attempts_since_us) if table == ATTEMPTS else since_us
                if start_us < end_us:
                    end_us = rows.slice_end(table, Span(start_us, end_us), self._rows)
            span = Span(since_us, end_us)
            events, deliveries = list(rows.events(span)), list(rows.deliveries(span))
            late = Span(max(since_us, window.attempts_since_us), end_us)
            attempts = list(rows.attempts(late)) if late.since_us < late.until_us else []
            if end_us >= until_us and not layout.is_partitioned:
                events += rows.events_without_time()
                deliveries += rows.deliveries_without_time()
                attempts += rows.attempts_without_time()
            self.sources.begin()
            self.sources.add(events)
            found = Slice(span, time_us)
            # An event whose id tells no day counts on that of its first row, also if it was replayed behind midnight.
            self._older |= {row.key for row in events if not window.holds(row.id, row.created_us)}
            found.events = [row for row in events if row.key not in self._older]
            found.deliveries = [row for row in deliveries if window.holds(row.id, row.created_us)]
            found.attempts = [row for row in attempts if window.holds_attempt(row.id, row.created_us)]
            self.sources.add(rows.events_by_key(self.sources.unknown(found.deliveries)))
        return found

    def existing(self, kind: str, keys: list[Key]) -> set[Key]:
        """Those of the keys that have a row which counts. Raises ReadError."""
        with self._database.reading() as reading:
            rows = Rows(reading, None)
            if kind == "event":
                return {row.key for row in rows.events_by_key(keys)}
            return {row.key for row in rows.deliveries_by_key(keys) if not row.is_deleted}
