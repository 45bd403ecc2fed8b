"""The database as this package uses it: one read-only transaction on a connection of its own, bounded in time."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any, Final, LiteralString

from otel_queue.errors import ReadError
from otel_queue.postgres.driver import psycopg
from otel_queue.postgres.dsn import Dsn
from otel_queue.postgres.reasons import as_read_error

APPLICATION_NAME: Final = "otel-queue"
CONNECT_TIMEOUT_SECONDS: Final = 5.0
# What the server may take beyond its own timeout before we hang up.
GRACE_SECONDS: Final = 5.0
# Between two statements little is done: a process that stops there must not hold up vacuum for long.
IDLE_SECONDS: Final = 30.0

Row = tuple[Any, ...]

_LIMITS: Final = """
SELECT
    set_config('statement_timeout', %(statement)s, true),
    set_config('idle_in_transaction_session_timeout', %(idle)s, true)
"""


@cache
def statement(name: str) -> LiteralString:
    """The SQL in NAME.sql beside this file."""
    return (resources.files(__package__) / f"{name}.sql").read_text(encoding="utf-8")


class Database:
    """Opens a connection per transaction, so that a failover, a new password and a pooler are nothing special."""

    def __init__(
        self,
        dsn: Dsn,
        *,
        statement_timeout_seconds: float,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._dsn = dsn
        self._statement_timeout = statement_timeout_seconds
        self._connect_timeout = connect_timeout_seconds
        self._idle = idle_seconds

    def __str__(self) -> str:
        return str(self._dsn)

    @contextlib.contextmanager
    def reading(
        self, before: Callable[[], None] | None = None, first: Callable[["Reading"], None] | None = None
    ) -> Iterator["Reading"]:
        """A REPEATABLE READ, READ ONLY transaction: all its statements see one state. Raises ReadError.

        `before` is called when all is ready and the state is not fixed yet. So is `first`, which may `fetch` on the
        same connection, in transactions that end before the state is fixed.
        """
        connection = self._connect()
        try:
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.prepare_threshold = None  # prepared statements do not outlive a transaction at a pooler
            reading = Reading(connection, self._dsn, self._statement_timeout)
            if first is not None:
                first(reading)
            if before is not None:
                before()
            reading.begin(self._idle)
            yield reading
        finally:
            connection.close()  # nothing was written: the transaction just ends

    def _connect(self) -> "psycopg.Connection[Row]":
        options: dict[str, Any] = self._dsn.parameters | {
            "application_name": APPLICATION_NAME,
            "client_encoding": "utf-8",
            "connect_timeout": max(2, round(self._connect_timeout)),
        }
        try:
            return psycopg.connect("", **options)
        except (psycopg.Error, UnicodeError) as error:
            failed = as_read_error(self._dsn, error)
        raise failed  # outside: the driver's error and what it quotes do not travel along


class Reading:
    """A transaction in progress. `began` is its start in `time.monotonic` seconds.

    `lag_seconds` is by how much the state it sees was older than that already: more than 0 on a replica alone.
    """

    def __init__(self, connection: "psycopg.Connection[Row]", dsn: Dsn, statement_timeout_seconds: float) -> None:
        self._connection = connection
        self._dsn = dsn
        self._timeout = statement_timeout_seconds
        self.began = 0.0
        self.lag_seconds = 0.0

    def begin(self, idle_seconds: float) -> None:
        """Sets the limits and fixes the state; the transaction's now() is from here."""
        self.began = time.monotonic()
        with self._limited():  # begins the transaction that later statements have a savepoint in
            limits = {"statement": self._timeout, "idle": idle_seconds}
            self._connection.execute(_LIMITS, {name: str(round(limit * 1000)) for name, limit in limits.items()})
        # At once: a replica goes on replaying, while this transaction sees what was there at its start.
        [[self.lag_seconds]] = self.rows("replica_lag")

    @property
    def is_alive(self) -> bool:
        """Whether more can be read."""
        return not self._connection.closed

    def rows(self, name: str, arguments: Mapping[str, Any] | None = None) -> list[Row]:
        """All rows of the statement in NAME.sql.

        Raises ReadError; unless the connection is lost the transaction goes on as if it had not been asked.
        """
        with self._limited(), self._connection.transaction():
            return self._connection.execute(statement(name), arguments).fetchall()

    def fetch(self, query: "psycopg.sql.Composed") -> list[Row]:
        """All rows of a query; raises as `rows` does."""
        with self._limited(), self._connection.transaction():
            return self._connection.execute(query).fetchall()

    def copied(self, query: "psycopg.sql.Composed") -> bytes:
        """The rows of a query by binary COPY, as they came: they are not decoded while the server waits to send more.

        Raises ReadError.
        """
        copying = psycopg.sql.SQL("COPY ({}) TO STDOUT (FORMAT BINARY)").format(query)
        with self._limited(), self._connection.cursor() as cursor, cursor.copy(copying) as copy:
            return b"".join(copy)

    def plan(self, name: str) -> None:
        """Has the statement in NAME.sql planned and not run: raises ReadError where it could not be."""
        with self._limited(), self._connection.transaction():
            self._connection.execute("EXPLAIN " + statement(name))

    def stream(self, name: str, arguments: Mapping[str, Any], batch_rows: int) -> Iterator[list[Row]]:
        """The rows of the statement in NAME.sql, at most `batch_rows` of them in memory.

        The server keeps the rest until it is asked, but not for more than `IDLE_SECONDS`. Raises ReadError, after
        which nothing more can be read.
        """
        with psycopg.ServerCursor(self._connection, "rows") as cursor:
            with self._limited():
                cursor.execute(statement(name), arguments)
            while rows := self._fetch(cursor, batch_rows):
                yield rows

    def _fetch(self, cursor: "psycopg.ServerCursor[Row]", batch_rows: int) -> list[Row]:
        with self._limited():
            return cursor.fetchmany(batch_rows)

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        """Hangs up when the block takes too long, and raises what it ends with as ReadError."""
        limit = self._timeout + GRACE_SECONDS
        if not self.is_alive:
            raise ReadError("connection", f"{self._dsn}: the connection was lost")
        hang_up = _HangUp(self._connection.fileno(), limit)
        try:
            with hang_up:
                yield
            return
        except (psycopg.Error, UnicodeError) as error:
            failed = as_read_error(self._dsn, error)
        if hang_up.happened:
            failed = ReadError("timeout", f"{self._dsn}: no answer within {limit:g} s")
        raise failed


class _HangUp:
    """Ends a socket that a block uses for longer than it may: a server that hangs keeps no timeout of its own."""

    def __init__(self, descriptor: int, seconds: float) -> None:
        self._descriptor = descriptor
        self._timer = threading.Timer(seconds, self._act)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._over = False
        self.happened = False

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        with self._lock:  # from here on the descriptor may be another's
            self._over = True
        self._timer.cancel()

    def _act(self) -> None:
        with self._lock:
            if self._over:
                return
            self.happened = True
            with socket.socket(fileno=os.dup(self._descriptor)) as own, contextlib.suppress(OSError):
                own.shutdown(socket.SHUT_RDWR)
