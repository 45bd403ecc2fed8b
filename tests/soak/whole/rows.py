"""The database of the whole run: it gets the rows of what is confirmed, for the exporters' shadow to compare."""

import threading
from typing import Any, Final

import psycopg

from tests.postgres.gateway import HERE
from tests.servers.postgres import PostgresServer
from tests.soak.whole.load import Book
from tests.soak.whole.tasks import BUFFERED_PROJECTS, EXACT_PROJECTS, Schedule

EVERY_SECONDS: Final = 1.0
MOST_AT_ONCE: Final = 2_000
_EVENT: Final = """
INSERT INTO convoy.events (id, event_type, project_id, source_id, status) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""
_DELIVERY: Final = """
INSERT INTO convoy.event_deliveries (id, event_id, status, endpoint_id, event_type, project_id, created_at)
VALUES (%s, %s, %s, %s, %s, %s, to_timestamp(%s / 1e6)) ON CONFLICT DO NOTHING
"""
_ATTEMPT: Final = """
INSERT INTO convoy.delivery_attempts (id, project_id, endpoint_id, event_delivery_id, http_status, status)
VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""


def make_tables(database: PostgresServer) -> None:
    """The gateway's tables with the run's projects."""
    projects = [f"exact-{number}" for number in range(EXACT_PROJECTS)]
    projects += [f"buffered-{number}" for number in range(BUFFERED_PROJECTS)]
    with database.connect() as connection:
        connection.execute((HERE / "schema.sql").read_bytes())
        for id in projects:
            connection.execute("INSERT INTO convoy.projects (id, name, organisation_id) VALUES (%s, '', '')", (id,))


class Rows:
    """Writes every second; what the database does not take waits for the next time."""

    def __init__(self, database: PostgresServer, schedule: Schedule, book: Book) -> None:
        self._database = database
        self._schedule = schedule
        self._book = book
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.failures = 0
        self.written = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(EVERY_SECONDS):
            waiting = self._book.without_rows
            numbers = [waiting[index] for index in range(min(len(waiting), MOST_AT_ONCE))]
            if not numbers:
                continue
            try:
                self._write(numbers)
            except psycopg.Error:
                self.failures += 1
                continue
            for _ in numbers:
                waiting.popleft()
            self.written += len(numbers)

    def _write(self, numbers: list[int]) -> None:
        events: list[tuple[Any, ...]] = []
        deliveries: list[tuple[Any, ...]] = []
        attempts: list[tuple[Any, ...]] = []
        for number in numbers:
            event, its_deliveries, its_attempts = self._schedule.task(number).rows()
            events.append(event)
            deliveries += its_deliveries
            attempts += its_attempts
        with psycopg.connect(self._database.dsn(), connect_timeout=2) as connection, connection.cursor() as cursor:
            for text, rows in ((_EVENT, events), (_DELIVERY, deliveries), (_ATTEMPT, attempts)):
                cursor.executemany(text, rows)
