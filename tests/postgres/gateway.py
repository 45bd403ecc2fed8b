"""The gateway's database as a test fills it, and its families in a few letters."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from otel_queue.config.secret import Secret
from otel_queue.postgres.aggregations import Found, Reckoning, read_families
from otel_queue.postgres.database import Database, statement
from otel_queue.postgres.dsn import Dsn
from otel_queue.samples import Family
from tests.servers.postgres import PostgresServer

HERE = Path(__file__).parent

EVENTS = "convoy_event_queue_total"
EVENT_BACKLOG = "convoy_event_queue_backlog_seconds"
DELIVERIES = "convoy_event_delivery_queue_total"
DELIVERY_BACKLOG = "convoy_event_delivery_queue_backlog_seconds"
ATTEMPTS = "convoy_event_delivery_attempts_total"

# What the gateway's own refresh writes to, from which aggregation, and under which name.
_SNAPSHOTS = {
    "event_queue": ("metrics_event_queue", "event_queue", "project_id, source_id, total"),
    "event_queue_backlog": ("metrics_event_queue_backlog", "event_queue_backlog", "project_id, source_id, age_seconds"),
    "event_delivery_queue": (
        "metrics_event_delivery_queue",
        "event_delivery_queue",
        "project_id, project_name, endpoint_id, status, event_type, source_id, organisation_id, organisation_name,"
        " total",
    ),
    "event_endpoint_backlog": (
        "metrics_event_endpoint_backlog",
        "event_delivery_queue_backlog",
        "project_id, endpoint_id, source_id, age_seconds",
    ),
}


_EMPTY = """
DELETE FROM convoy.events;
DELETE FROM convoy.event_deliveries;
DELETE FROM convoy.delivery_attempts;
DELETE FROM convoy.metrics_event_queue;
DELETE FROM convoy.metrics_event_queue_backlog;
DELETE FROM convoy.metrics_event_delivery_queue;
DELETE FROM convoy.metrics_event_endpoint_backlog;
UPDATE convoy.metrics_snapshot_meta SET generation = 0, refreshed_at = NULL;
DELETE FROM convoy.projects;
DELETE FROM convoy.organisations;
INSERT INTO convoy.organisations VALUES ('O', 'Org');
INSERT INTO convoy.projects VALUES ('P', 'Proj', 'outgoing', 'O');
"""


class Gateway:
    """A database with the gateway's tables, empty but for its organisation, O, and project, P; as it is if not new."""

    def __init__(self, server: PostgresServer, database: str, *, is_new: bool = True) -> None:
        self.server = server
        self.database = database
        self._connection = server.connect(database)
        self._numbers = itertools.count(1)
        if is_new:
            self._connection.execute(_EMPTY.encode())

    def close(self) -> None:
        self._connection.close()

    @property
    def dsn(self) -> Secret:
        return Secret(self.server.dsn(database=self.database))

    def dsn_of(self, user: str, password: str) -> Secret:
        return Secret(self.server.dsn(user, password, self.database))

    def execute(self, text: str, *arguments: Any) -> list[Any]:
        """One statement with arguments, or several without."""
        cursor = self._connection.execute(text.encode(), arguments or None)
        return cursor.fetchall() if cursor.description else []

    def execute_many(self, text: str, rows: Iterable[Sequence[Any]]) -> None:
        """One statement for each row, all or none of them."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(text.encode(), rows)

    def copy(self, text: str, rows: Iterable[Sequence[Any]]) -> None:
        """COPY ... FROM STDIN."""
        with self._connection.cursor() as cursor, cursor.copy(text.encode()) as copy:
            for row in rows:
                copy.write_row(row)

    def event(self, id: str, *, source: str | None = None, project: str = "P", status: str = "Success") -> None:
        self.execute(
            "INSERT INTO convoy.events (id, event_type, project_id, source_id, status) VALUES (%s, 't', %s, %s, %s)",
            id, project, source, status,
        )  # fmt: skip

    def delivery(
        self,
        id: str,
        event: str,
        status: str,
        *,
        endpoint: str | None = "E1",
        seconds: float | None = 0,
        event_type: str | None = "t",
        project: str = "P",
        deleted: bool = False,
    ) -> None:
        """`seconds` ago; None is a row without its time of creation."""
        self.execute(
            "INSERT INTO convoy.event_deliveries"
            " (id, event_id, status, endpoint_id, event_type, project_id, created_at, deleted_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, now() - make_interval(secs => %s), CASE WHEN %s THEN now() END)",
            id, event, status, endpoint, event_type, project, seconds, deleted,
        )  # fmt: skip

    def attempt(self, http_status: str | None, succeeded: bool | None, *, endpoint: str = "E1") -> None:
        self.execute(
            "INSERT INTO convoy.delivery_attempts"
            " (id, project_id, endpoint_id, event_delivery_id, http_status, status)"
            " VALUES (%s, 'P', %s, 'd1', %s, %s)",
            f"a{next(self._numbers)}", endpoint, http_status, succeeded,
        )  # fmt: skip

    def refresh_snapshots(self, *, seconds_ago: float = 0) -> None:
        """As the gateway's own job does: a next generation per family, then the pointer, then the old one away."""
        for name, (table, aggregation, columns) in _SNAPSHOTS.items():
            text = statement(f"legacy/{aggregation}")
            self.execute(
                f"INSERT INTO convoy.{table} (generation, {columns})"
                f" SELECT DISTINCT m.generation + 1, q.* FROM ({text}) q, convoy.metrics_snapshot_meta m"
                f" WHERE m.name = '{name}';"
                f" UPDATE convoy.metrics_snapshot_meta SET generation = generation + 1,"
                f" refreshed_at = now() - make_interval(secs => {seconds_ago}) WHERE name = '{name}';"
                f" DELETE FROM convoy.{table} q USING convoy.metrics_snapshot_meta m"
                f" WHERE m.name = '{name}' AND q.generation <> m.generation"
            )

    def read(self, reckoning: Reckoning, *, statement_timeout_seconds: float = 30.0) -> Found:
        """One reading, at the Unix time 1,000,000, without an exporter around it."""
        database = Database(Dsn(self.dsn), statement_timeout_seconds=statement_timeout_seconds)
        with database.reading() as reading:
            return read_families(reading, reckoning, 1_000_000.0, lambda: None)

    def families(self, reckoning: Reckoning) -> dict[str, Family]:
        found = self.read(reckoning)
        assert not found.failures, found.failures
        return by_name(found.families)


def by_name(families: Iterable[Family]) -> dict[str, Family]:
    return {family.name: family for family in families}


def samples(families: Mapping[str, Family], name: str) -> dict[tuple[str, ...], float]:
    """The samples of one family; the same labels never come twice."""
    found = dict(families[name].samples)
    assert len(found) == len(families[name].samples), f"{name} has two samples with the same labels"
    return found


def brief(families: Mapping[str, Family], name: str) -> dict[str, float]:
    """The samples with their labels in short: what is as usual (project P, type t, its names) is left out."""
    return {_BRIEF[name](*values): value for values, value in samples(families, name).items()}


def _delivery(
    project: str, name: str, endpoint: str, status: str, event_type: str, source: str, org: str, org_name: str
) -> str:
    unusual = [
        f"{label}:{value}"
        for label, value, usual in (
            ("type", event_type, "t"),
            ("name", name, "Proj"),
            ("org", org, "O"),
            ("org_name", org_name, "Org"),
        )
        if value != usual
    ]
    return _within(project, ",".join([endpoint, status, source, *unusual]))


def _within(project: str, words: str) -> str:
    return words if project == "P" else f"{project}/{words}"


def _event(project: str, source: str, status: str) -> str:
    assert status == "success"
    return _within(project, source)


_BRIEF: dict[str, Any] = {
    EVENTS: _event,
    EVENT_BACKLOG: lambda project, source: _within(project, source),
    DELIVERIES: _delivery,
    DELIVERY_BACKLOG: lambda project, endpoint, source: _within(project, f"{endpoint},{source}"),
    ATTEMPTS: lambda project, endpoint, status, code: _within(project, f"{endpoint},{status},{code}"),
}
