"""Rows of the gateway's tables, one by one: in bounded batches, and in transactions that do not last."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, NamedTuple, TypeVar

from otel_queue.errors import ReadError
from otel_queue.lifecycle import UNTOLD, Label
from otel_queue.postgres.database import Database, Reading, Row
from otel_queue.ulid import CHANCE_BITS, lowest_ulid, number_of

_log: Final = logging.getLogger(__name__)

# What a second try may cure. A slice that took too long is read again in halves.
_PASSING: Final = frozenset(
    {"connection", "timeout", "starting", "replica_conflict", "too_many_connections", "out_of_resources"}
)
_PAUSES_SECONDS: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
# Statements that count, and whose rows have no id to go on behind.
_COUNTED: Final = frozenset({"old_deliveries", "old_events"})

# A dated id is a ULID of these years; docs/ledger-protocol.md.
LOWEST: Final = lowest_ulid(1_451_606_400_000_000)  # 2016-01-01
HIGHEST: Final = lowest_ulid(4_102_444_800_000_000)  # 2100-01-01


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery that is not deleted. `source` is its event's, UNTOLD if the event has no row (any more).

    `status` is as the row has it. Times are Unix microseconds by the database; `updated_us` is 0 for a row without any.
    """

    id: str
    project: str
    endpoint: str | None
    event_type: str | None
    status: str
    source: Label
    created_us: int | None
    updated_us: int


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event, once however often it was replayed. `created_us` is None for a row without its time."""

    id: str
    project: str
    source: str | None
    created_us: int | None


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One HTTP call. `http_status` is the response's text, such as "200 OK"; None without a response."""

    id: str
    project: str
    endpoint: str | None
    succeeded: bool
    http_status: str | None
    created_us: int | None


@dataclass(frozen=True, slots=True)
class DeliveryCount:
    """How many deliveries have this in common. `day` is the UTC day of their creation, YYYYMMDD."""

    project: str
    day: str
    endpoint: str | None
    status: str
    event_type: str | None
    source: Label
    total: int


@dataclass(frozen=True, slots=True)
class EventCount:
    """How many events have this in common, each counted once."""

    project: str
    day: str
    source: str | None
    total: int


@dataclass(frozen=True, slots=True)
class ProjectRow:
    """A project and its names of today."""

    id: str
    name: str
    organisation_id: str
    organisation_name: str


class Estimate(NamedTuple):
    """Rows that the planner expects: with dated ids from some id on, and those before it."""

    deliveries: int
    events: int
    attempts: int
    old_deliveries: int
    old_events: int


Item = TypeVar("Item")


class Batch(NamedTuple, Generic[Item]):
    """Rows of one transaction, which began at `read_us` (Unix microseconds by the database)."""

    rows: list[Item]
    read_us: int


class Rows:
    """Rows of all projects, or of one.

    A slice of `slice_rows` is one transaction on a connection of its own, and comes in batches of `batch_rows`. The
    next slice goes on behind its last id. A slice that fails for something that passes is gone on with after a pause;
    then the rows of one id may come twice. Raises ReadError when that does not help. After each slice comes an empty
    batch, when no transaction is open: whoever wants to rest or to end has the occasion, even if no row was wanted.
    """

    def __init__(
        self,
        database: Database,
        *,
        project: str | None = None,
        with_attempts: bool = True,
        slice_rows: int = 50_000,
        batch_rows: int = 2_000,
        pauses_seconds: Sequence[float] = _PAUSES_SECONDS,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._database = database
        self._project = project
        self._with_attempts = with_attempts
        self._slice_rows = slice_rows
        self._batch_rows = batch_rows
        self._pauses = pauses_seconds
        self._sleep = sleep

    def deliveries(self, first_id: str) -> Iterator[Batch[DeliveryRow]]:
        """Deliveries whose id is a dated ULID and not lower than `first_id`, in the order of ids."""
        return self._batches("delivery", "deliveries", _delivery, first_id, HIGHEST)

    def undated_deliveries(self) -> Iterator[Batch[DeliveryRow]]:
        """Deliveries with other ids, whatever their age. Reads every delivery's id."""
        return self._batches("delivery", "deliveries", _delivery)

    def events(self, first_id: str) -> Iterator[Batch[EventRow]]:
        """Events, as `deliveries`."""
        return self._batches("event", "events", _event, first_id, HIGHEST)

    def undated_events(self) -> Iterator[Batch[EventRow]]:
        """Events, as `undated_deliveries`."""
        return self._batches("event", "events", _event)

    def attempts(self, first_id: str) -> Iterator[Batch[AttemptRow]]:
        """Attempts, as `deliveries`; none without `with_attempts`."""
        return self._batches("attempt", "attempts", _attempt, first_id, HIGHEST) if self._with_attempts else iter(())

    def undated_attempts(self) -> Iterator[Batch[AttemptRow]]:
        """Attempts, as `undated_deliveries`; none without `with_attempts`."""
        return self._batches("attempt", "attempts", _attempt) if self._with_attempts else iter(())

    def old_deliveries(self, before_id: str) -> Iterator[Batch[DeliveryCount]]:
        """Deliveries with dated ids lower than `before_id`, counted slice by slice: the same labels come again.

        Their day is that of created_at (without it: of the id), and the one before that of `before_id` at most.
        """
        return self._batches("delivery", "old_deliveries", _delivery_count, LOWEST, before_id)

    def old_events(self, before_id: str) -> Iterator[Batch[EventCount]]:
        """Events, as `old_deliveries`."""
        return self._batches("event", "old_events", _event_count, LOWEST, before_id)

    def old_processing(self, before_id: str) -> Iterator[Batch[DeliveryRow]]:
        """Deliveries in Processing with dated ids lower than `before_id`."""
        return self._batches("processing", "old_processing", _delivery, LOWEST, before_id)

    def clock(self) -> int:
        """The database's time now, Unix microseconds; at a standby the time of what it has replayed."""
        [(now_us,)] = self._read("clock", {})
        return int(now_us)

    def projects(self) -> list[ProjectRow]:
        """All projects, deleted ones too, sorted by id."""
        return [ProjectRow(*row) for row in self._read("projects", {"project": self._project})]

    def existing_deliveries(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that have a delivery which is not deleted."""
        return {id_ for (id_,) in self._read("existing_deliveries", {"ids": list(ids)})}

    def existing_events(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that have an event."""
        return {id_ for (id_,) in self._read("existing_events", {"ids": list(ids)})}

    def existing_attempts(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that have an attempt."""
        return {id_ for (id_,) in self._read("existing_attempts", {"ids": list(ids)})}

    def estimate(self, first_id: str, first_attempt_id: str) -> Estimate:
        """What the planner expects, out of its statistics: no row is read."""
        return Estimate(
            deliveries=self._expect("delivery", first_id, HIGHEST),
            events=self._expect("event", first_id, HIGHEST),
            attempts=self._expect("attempt", first_attempt_id, HIGHEST) if self._with_attempts else 0,
            old_deliveries=self._expect("delivery", LOWEST, first_id),
            old_events=self._expect("event", LOWEST, first_id),
        )

    def _expect(self, kind: str, first_id: str, until: str) -> int:
        arguments = {"project": self._project, "from": first_id, "until": until}
        [([plan],)] = self._read(f"estimate_{kind}", arguments)
        return int(plan["Plan"]["Plan Rows"])

    def _batches(
        self, kind: str, name: str, item: Callable[[Row], Item], first_id: str = "", before_id: str | None = None
    ) -> Iterator[Batch[Item]]:
        """What seed/`name`.sql finds in each slice that seed/`kind`_slice.sql measures; ids are dated if bounded."""
        place: str | None = first_id
        failed, size = 0, self._slice_rows
        while place is not None:
            try:
                with self._database.reading() as reading:
                    read_us, until = self._measure(reading, kind, place, before_id, size)
                    for found in self._found(reading, name, place, until or before_id, before_id):
                        yield Batch([item(row) for row in found], read_us)
                        if name not in _COUNTED:
                            place, failed = found[-1][0], 0
                yield Batch([], read_us)
                place, failed = until, 0
            except ReadError as error:
                self._pause_after(error, failed)
                failed += 1
                if error.reason == "timeout":
                    size = max(self._batch_rows, size // 2)

    def _measure(
        self, reading: Reading, kind: str, place: str, before_id: str | None, size: int
    ) -> tuple[int, str | None]:
        arguments = {"from": place, "before": before_id, "rows": size}
        [(read_us, until)] = reading.rows(f"seed/{kind}_slice", arguments)
        return read_us, until

    def _found(
        self, reading: Reading, name: str, place: str, until: str | None, before_id: str | None
    ) -> Iterator[list[Row]]:
        arguments = {
            "from": place,
            "until": until,
            "project": self._project,
            "dated": before_id is not None,
            "lowest": LOWEST,
            "highest": HIGHEST,
            "last_day": _day_before(before_id) if before_id else None,
        }
        if name not in _COUNTED:
            return reading.stream(f"seed/{name}", arguments, self._batch_rows)
        # Half a slice's counts would be counted twice when the slice is read again.
        return iter([reading.rows(f"seed/{name}", arguments)])

    def _read(self, name: str, arguments: dict[str, Any]) -> list[Row]:
        failed = 0
        while True:
            try:
                with self._database.reading() as reading:
                    return reading.rows(f"seed/{name}", arguments)
            except ReadError as error:
                self._pause_after(error, failed)
                failed += 1

    def _pause_after(self, error: ReadError, failed: int) -> None:
        if error.reason == "permission":
            raise ReadError(error.reason, f"{error} (for seeding and reconciling: its seed/grants.sql)") from error
        if error.reason not in _PASSING or failed >= len(self._pauses):
            raise error
        _log.warning("postgres: trying again in %g s: %s", self._pauses[failed], error)
        self._sleep(self._pauses[failed])


def _day_before(id_: str) -> str:
    milliseconds = number_of(id_) >> CHANCE_BITS
    return datetime.fromtimestamp((milliseconds - 1) / 1000, tz=UTC).strftime("%Y%m%d")


def _delivery(row: Row) -> DeliveryRow:
    id_, project, endpoint, event_type, status, has_event, source, created_us, updated_us = row
    told = source if has_event else UNTOLD
    return DeliveryRow(id_, project, endpoint, event_type, status, told, _moment(created_us), _moment(updated_us) or 0)


def _event(row: Row) -> EventRow:
    id_, project, source, created_us = row
    return EventRow(id_, project, source, _moment(created_us))


def _attempt(row: Row) -> AttemptRow:
    id_, project, endpoint, succeeded, http_status, created_us = row
    return AttemptRow(id_, project, endpoint, succeeded, http_status, _moment(created_us))


def _moment(time_us: int | None) -> int | None:
    """A row of an older system may say 0001-01-01, before which nothing can be."""
    return None if time_us is None else max(time_us, 0)


def _delivery_count(row: Row) -> DeliveryCount:
    project, day, endpoint, status, event_type, has_event, source, total = row
    return DeliveryCount(project, day, endpoint, status, event_type, source if has_event else UNTOLD, total)


def _event_count(row: Row) -> EventCount:
    return EventCount(*row)
