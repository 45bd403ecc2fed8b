"""The gateway's rows: as they are in memory, and after `flush` in its database."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.ledger.ledgers import day_of
from tests.postgres.gateway import Gateway

# Rows and changes that wait for the database.
MOST_PENDING: Final = 2_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_EVENT_COLUMNS: Final = (
    "id, event_type, project_id, source_id, idempotency_key, is_duplicate_event, status, created_at, updated_at"
)
_DELIVERY_COLUMNS: Final = (
    "id, status, project_id, endpoint_id, event_id, event_type, delivery_mode, created_at, updated_at"
)
_ATTEMPT_COLUMNS: Final = "id, project_id, endpoint_id, event_delivery_id, http_status, status, created_at"
_UPDATE: Final = (
    "UPDATE convoy.{} SET status = %s, updated_at = %s WHERE id = %s AND project_id = %s AND created_at = %s"
)


@dataclass(slots=True, eq=False)
class EventRow:
    """`endpoints` are those that its producer named; times are the database's."""

    id: str
    project: str
    source: str | None
    event_type: str
    key: str | None
    endpoints: Sequence[str]
    created_us: int
    updated_us: int = 0
    status: str = "Pending"
    is_duplicate: bool = False
    is_gone: bool = False


@dataclass(slots=True, eq=False)
class DeliveryRow:
    """`trials` of `limit` are used up."""

    id: str
    project: str
    endpoint: str | None
    event: EventRow
    event_type: str | None
    status: str
    mode: str
    limit: int
    created_us: int
    updated_us: int = 0
    trials: int = 0
    is_gone: bool = False


@dataclass(slots=True, eq=False)
class AttemptRow:
    id: str
    project: str
    endpoint: str
    delivery: str
    http_status: str | None
    succeeded: bool
    created_us: int
    is_gone: bool = False


@dataclass(slots=True)
class _Pending:
    """What the database has not seen yet."""

    events: list[EventRow] = field(default_factory=list)
    deliveries: list[DeliveryRow] = field(default_factory=list)
    attempts: list[AttemptRow] = field(default_factory=list)
    changed_events: dict[int, EventRow] = field(default_factory=dict)
    changed_deliveries: dict[int, DeliveryRow] = field(default_factory=dict)

    def __len__(self) -> int:
        return (
            len(self.events) + len(self.deliveries) + len(self.attempts)
            + len(self.changed_events) + len(self.changed_deliveries)
        )  # fmt: skip


class Tables:
    """Every row ever written, those that retention dropped included. `partitioned` tables take an id twice."""

    def __init__(self, gateway: Gateway, *, partitioned: bool) -> None:
        self._connection = gateway.server.connect(gateway.database)
        self._partitioned = partitioned
        self.events: dict[str, list[EventRow]] = {}
        self.deliveries: list[DeliveryRow] = []
        self.attempts: list[AttemptRow] = []
        self.dropped_through: dict[str, str] = {}
        self._keys: set[tuple[str, str]] = set()
        self._pending = _Pending()

    def close(self) -> None:
        self._connection.close()

    def execute(self, text: str, *arguments: Any) -> None:
        """A statement on rows that are not kept here."""
        self._connection.execute(text.encode(), arguments)

    def event(self, id: str) -> EventRow | None:
        """The event's first row that is still there."""
        return next((row for row in self.events.get(id, ()) if not row.is_gone), None)

    def insert_event(self, row: EventRow) -> bool:
        """False where the primary key has the id already. A key that was used before makes the row a duplicate."""
        if not self._partitioned and row.id in self.events:
            return False
        if row.key is not None:
            row.is_duplicate = (row.project, row.key) in self._keys
            self._keys.add((row.project, row.key))
        row.updated_us = row.created_us
        self.events.setdefault(row.id, []).append(row)
        self._pending.events.append(row)
        self._flush_if_full()
        return True

    def insert_deliveries(self, rows: Iterable[DeliveryRow]) -> None:
        for row in rows:
            row.updated_us = row.created_us
            self.deliveries.append(row)
            self._pending.deliveries.append(row)
        self._flush_if_full()

    def insert_attempt(self, row: AttemptRow) -> None:
        self.attempts.append(row)
        self._pending.attempts.append(row)
        self._flush_if_full()

    def set_event_status(self, row: EventRow, status: str, at_us: int) -> None:
        row.status, row.updated_us = status, at_us
        self._pending.changed_events[id(row)] = row

    def set_status(self, row: DeliveryRow, status: str, at_us: int) -> None:
        """As the gateway's updates: a row that is gone is silently none."""
        row.status, row.updated_us = status, at_us
        self._pending.changed_deliveries[id(row)] = row
        self._flush_if_full()

    def drop_days(self, project: str, through: str) -> int:
        """Drops what was created up to this day, each table by its own time; returns how many rows went."""
        self.flush()
        self.dropped_through[project] = through
        rows: list[EventRow | DeliveryRow | AttemptRow] = [row for same in self.events.values() for row in same]
        gone = 0
        for row in (*rows, *self.deliveries, *self.attempts):
            if not row.is_gone and row.project == project and day_of(row.created_us) <= through:
                row.is_gone = True
                gone += 1
        following = datetime.strptime(through, "%Y%m%d").replace(tzinfo=UTC) + timedelta(days=1)
        for table in ("events", "event_deliveries", "delivery_attempts"):
            self.execute(f"DELETE FROM convoy.{table} WHERE project_id = %s AND created_at < %s", project, following)
        return gone

    def _flush_if_full(self) -> None:
        if len(self._pending) >= MOST_PENDING:
            self.flush()

    def flush(self) -> None:
        """Brings the database up to date."""
        pending, self._pending = self._pending, _Pending()
        self._copy("events", _EVENT_COLUMNS, (
            (row.id, row.event_type, row.project, row.source, row.key, row.is_duplicate, row.status,
             _moment(row.created_us), _moment(row.updated_us)) for row in pending.events))  # fmt: skip
        self._copy("event_deliveries", _DELIVERY_COLUMNS, (
            (row.id, row.status, row.project, row.endpoint, row.event.id, row.event_type, row.mode,
             _moment(row.created_us), _moment(row.updated_us)) for row in pending.deliveries))  # fmt: skip
        self._copy("delivery_attempts", _ATTEMPT_COLUMNS, (
            (row.id, row.project, row.endpoint, row.delivery, row.http_status, row.succeeded, _moment(row.created_us))
            for row in pending.attempts))  # fmt: skip
        self._update("events", pending.changed_events.values())
        self._update("event_deliveries", pending.changed_deliveries.values())

    def _copy(self, table: str, columns: str, rows: Iterable[tuple[Any, ...]]) -> None:
        text = f"COPY convoy.{table} ({columns}) FROM STDIN"
        with self._connection.cursor() as cursor, cursor.copy(text.encode()) as copy:
            for row in rows:
                copy.write_row(row)

    def _update(self, table: str, rows: Iterable[EventRow | DeliveryRow]) -> None:
        changes = [(row.status, _moment(row.updated_us), row.id, row.project, _moment(row.created_us)) for row in rows]
        with self._connection.cursor() as cursor:
            cursor.executemany(_UPDATE.format(table).encode(), changes)


def _moment(time_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time_us)
