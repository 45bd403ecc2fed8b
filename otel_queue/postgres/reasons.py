"""Why PostgreSQL could not be read, as one word from a bounded set, fit to be a metric's attribute.

auth, permission, connection, timeout, cancelled, missing_table, missing_column, no_database, replica_conflict,
starting, too_many_connections, out_of_resources, undecodable, error_reply. Redis's words stand for the same here.
"""

from typing import Final

from otel_queue.errors import ReadError
from otel_queue.postgres.driver import psycopg
from otel_queue.postgres.dsn import Dsn

# By SQLSTATE, else by its class.
_BY_STATE: Final = {
    "28": "auth",
    "3D": "no_database",
    "3F": "missing_table",
    "42P01": "missing_table",
    "42703": "missing_column",
    "42501": "permission",
    "40001": "replica_conflict",  # a transaction that only reads meets it on a replica alone
    "40P01": "replica_conflict",
    "55P03": "timeout",  # lock_timeout
    "25P03": "timeout",  # idle_in_transaction_session_timeout
    "57014": "timeout",
    "57P01": "connection",
    "57P02": "connection",
    "57P03": "starting",
    "53300": "too_many_connections",
    "53": "out_of_resources",
    "08": "connection",
}

# While connecting libpq gives words only, in the server's language; what is not known is `connection`.
_BY_WORDS: Final = (
    ("password authentication failed", "auth"),
    ("no password supplied", "auth"),
    ("no pg_hba.conf entry", "auth"),
    ("authentication failed", "auth"),
    ('" is not permitted to log in', "auth"),
    ("permission denied for database", "permission"),
    ("connection slots are reserved", "too_many_connections"),
    ("too many clients", "too_many_connections"),
    ("too many connections", "too_many_connections"),
    ("is starting up", "starting"),
    ("not yet accepting connections", "starting"),
    ("is not accepting connections", "starting"),
    ("timeout expired", "timeout"),
)

_ADVICE: Final = {
    "permission": "; grant the role what otel_queue/postgres/grants.sql lists, "
    "or to follow otel_queue/database/grants.sql",
    "missing_table": "; is this the gateway's database, and its schema `convoy`?",
    "timeout": "; raise postgres.statement_timeout_seconds, or read the snapshot tables",
    "replica_conflict": "; raise max_standby_streaming_delay, or turn hot_standby_feedback on at the replica",
}


def as_read_error(dsn: Dsn, error: Exception) -> ReadError:
    """The driver's error as ours, with the database's location and none of its secrets."""
    reason = _reason(error)
    diagnosis = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    words = " ".join((diagnosis or str(error) or type(error).__name__).split())
    return ReadError(reason, f"{dsn}: {dsn.hide(words)}{_ADVICE.get(reason, '')}")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "undecodable"
    words = str(error)
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if state is not None:
        if state == "57014" and "statement timeout" not in words and "user request" in words:
            return "cancelled"
        return _BY_STATE.get(state) or _BY_STATE.get(state[:2], "error_reply")
    if isinstance(error, psycopg.errors.ConnectionTimeout):
        return "timeout"
    if 'database "' in words and '" does not exist' in words:
        return "no_database"
    if 'role "' in words and '" does not exist' in words:
        return "auth"
    if isinstance(error, psycopg.OperationalError):
        return next((reason for known, reason in _BY_WORDS if known in words), "connection")
    return "error_reply"
