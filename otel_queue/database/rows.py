"""The gateway's rows as the follower reads them, all in one state of the database."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

from otel_queue.database.binary import Type, decoded
from otel_queue.database.wanted import ALL, Condition, Span, created, keyed, moment, without_time
from otel_queue.postgres.database import Reading, Row
from otel_queue.postgres.driver import psycopg

_KEYS_AT_ONCE: Final = 5_000
_DELIVERY_TYPES: Final = (*[Type.TEXT] * 6, Type.TIME, Type.TIME, Type.TRUTH)
_EVENT_TYPES: Final = (*[Type.TEXT] * 3, Type.TIME)
_ATTEMPT_TYPES: Final = (*[Type.TEXT] * 4, Type.TRUTH, Type.TEXT, Type.TIME)
_FLIGHT_TYPES: Final = (*[Type.TEXT] * 3, Type.TIME)
DELIVERIES: Final = "event_deliveries"
EVENTS: Final = "events"
ATTEMPTS: Final = "delivery_attempts"

Key = tuple[str, str]
"""A project, and an id of one of its rows."""


class DeliveryRow(NamedTuple):
    """Times are Unix microseconds by the database, None for a row without."""

    id: str
    project: str
    endpoint: str | None
    event_type: str | None
    event: str
    status: str
    created_us: int | None
    updated_us: int | None
    is_deleted: bool

    @property
    def key(self) -> Key:
        """Its project and id."""
        return self.project, self.id


class EventRow(NamedTuple):
    """One row of an event, which has several if it was replayed."""

    id: str
    project: str
    source: str | None
    created_us: int | None

    @property
    def key(self) -> Key:
        """Its project and id."""
        return self.project, self.id


class AttemptRow(NamedTuple):
    """One HTTP call. `http_status` is the response's text, such as "200 OK"; None without a response."""

    id: str
    project: str
    endpoint: str | None
    delivery: str
    succeeded: bool
    http_status: str | None
    created_us: int | None


class FlightRow(NamedTuple):
    """A delivery that is not final."""

    id: str
    project: str
    status: str
    created_us: int | None


class ProjectRow(NamedTuple):
    """A project and its names of today."""

    id: str
    name: str
    organisation_id: str
    organisation_name: str


@cache
def text_of(name: str) -> str:
    """The SQL in NAME.sql beside this file."""
    return (resources.files(__package__) / f"{name}.sql").read_text(encoding="utf-8")


def statement(name: str, **parts: object) -> "psycopg.sql.Composed":
    """The SQL in NAME.sql with its parts, each a condition or a value."""
    return psycopg.sql.SQL(text_of(name)).format(**parts)


class Rows:
    """Rows of one reading. `projects` are those of partitioned tables, None where tables have no partitions."""

    def __init__(self, reading: Reading, projects: Sequence[str] | None) -> None:
        self._reading = reading
        self._projects = projects

    def deliveries(self, span: Span) -> Iterator[DeliveryRow]:
        """Deliveries that were created in the span."""
        return self._deliveries(created(span, self._projects))

    def deliveries_without_time(self, first_id: str = "") -> Iterator[DeliveryRow]:
        """Deliveries without created_at, with ids from the first on."""
        return self._deliveries(without_time(first_id)) if self._projects is None else iter(())

    def events(self, span: Span) -> Iterator[EventRow]:
        """Events that were created in the span."""
        return self._events(created(span, self._projects))

    def events_without_time(self, first_id: str = "") -> Iterator[EventRow]:
        """Events, as `deliveries_without_time`."""
        return self._events(without_time(first_id)) if self._projects is None else iter(())

    def attempts(self, span: Span) -> Iterator[AttemptRow]:
        """Attempts that were created in the span."""
        return self._attempts(created(span, self._projects))

    def attempts_without_time(self, first_id: str = "") -> Iterator[AttemptRow]:
        """Attempts, as `deliveries_without_time`."""
        return self._attempts(without_time(first_id)) if self._projects is None else iter(())

    def in_flight(self, since_us: int | None) -> Iterator[FlightRow]:
        """Deliveries that are not final: those that were created since then, None for all."""
        wanted = ALL if since_us is None else created(Span(since_us), self._projects)
        return map(FlightRow._make, self._copied("in_flight", wanted, _FLIGHT_TYPES))

    def deliveries_by_key(self, keys: Iterable[Key]) -> Iterator[DeliveryRow]:
        """The rows that there are of these deliveries, deleted ones too."""
        for wanted, found in self._by_key(keys):
            rows = list(self._deliveries(wanted))
            found.update(row.key for row in rows)
            yield from rows

    def events_by_key(self, keys: Iterable[Key]) -> Iterator[EventRow]:
        """The rows that there are of these events."""
        for wanted, found in self._by_key(keys):
            rows = list(self._events(wanted))
            found.update(row.key for row in rows)
            yield from rows

    def projects(self) -> list[ProjectRow]:
        """All projects, deleted ones too."""
        return [ProjectRow(*row) for row in self._reading.fetch(statement("projects"))]

    def slice_end(self, table: str, span: Span, rows: int) -> int:
        """Up to when a slice of so many rows goes: the end of the span at most."""
        end = statement("slice_end", table=_table(table), since=moment(span.since_us), until=moment(span.until_us),
                        rows=rows)  # fmt: skip
        found = list(decoded(self._reading.copied(end), (Type.TIME,)))
        return max(found[0][0] or 0, span.since_us + 1) if found else span.until_us

    def newest_us(self, table: str) -> int:
        """When the newest row that can be seen was created; 0 for none."""
        [(newest,)] = decoded(self._reading.copied(statement("newest", table=_table(table))), (Type.TIME,))
        return newest or 0

    def _by_key(self, keys: Iterable[Key]) -> Iterator[tuple[Condition, set[Key]]]:
        """Conditions that find the keys, each with the set to which what was found is to be added."""
        is_partitioned = self._projects is not None
        every = sorted(set(keys))
        for start in range(0, len(every), _KEYS_AT_ONCE):
            chunk, found = every[start : start + _KEYS_AT_ONCE], set[Key]()
            yield keyed(chunk, is_partitioned=is_partitioned, is_pruned=is_partitioned), found
            if is_partitioned and (missed := [key for key in chunk if key not in found]):
                yield keyed(missed, is_partitioned=True), found

    def _deliveries(self, wanted: Condition) -> Iterator[DeliveryRow]:
        return map(DeliveryRow._make, self._copied("deliveries", wanted, _DELIVERY_TYPES))

    def _events(self, wanted: Condition) -> Iterator[EventRow]:
        return map(EventRow._make, self._copied("events", wanted, _EVENT_TYPES))

    def _attempts(self, wanted: Condition) -> Iterator[AttemptRow]:
        return map(AttemptRow._make, self._copied("attempts", wanted, _ATTEMPT_TYPES))

    def _copied(self, name: str, wanted: Condition, types: Sequence[Type]) -> Iterator[Row]:
        return decoded(self._reading.copied(statement(name, wanted=wanted)), types)


def _table(name: str) -> "psycopg.sql.Identifier":
    return psycopg.sql.Identifier("convoy", name)
