"""Why the database could not be read: each reason caused for real, and no password in any of them."""

import contextlib
import threading
import traceback
from collections.abc import Callable, Iterator

import psycopg
import pytest

from otel_queue.config.secret import Secret
from otel_queue.errors import ReadError
from otel_queue.postgres import database as database_module
from otel_queue.postgres.aggregations import Found, read_families
from otel_queue.postgres.database import Database
from otel_queue.postgres.dsn import Dsn
from otel_queue.postgres.reasons import as_read_error
from tests.postgres.gateway import ATTEMPTS, DELIVERIES, EVENTS, Gateway, brief, by_name
from tests.servers.postgres import PostgresServer, postgres_server
from tests.servers.process import free_port, wait_until
from tests.servers.proxy import slow_proxy

PASSWORD = "tr0ub4dor"


def read(dsn: Secret, *, statement_timeout_seconds: float = 30.0) -> Found:
    database = Database(Dsn(dsn), statement_timeout_seconds=statement_timeout_seconds)
    with database.reading() as reading:
        return read_families(reading, "corrected", 0.0, lambda: None)


def refusal(dsn: Secret, *, statement_timeout_seconds: float = 30.0) -> ReadError:
    """The error with which nothing could be read."""
    with pytest.raises(ReadError) as raised:
        read(dsn, statement_timeout_seconds=statement_timeout_seconds)
    shown = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    assert PASSWORD not in shown
    assert str(Dsn(dsn)) in str(raised.value)
    return raised.value


@pytest.fixture
def role(own_gateway: Gateway) -> Iterator[str]:
    """A role that may log in and nothing else."""
    own_gateway.execute(f"CREATE ROLE somebody LOGIN PASSWORD '{PASSWORD}'")
    yield "somebody"
    own_gateway.execute("DROP OWNED BY somebody; DROP ROLE somebody")


@contextlib.contextmanager
def locked(gateway: Gateway, *tables: str) -> Iterator[None]:
    """Nobody else reads these tables meanwhile."""
    with gateway.server.connect(gateway.database) as other, other.transaction():
        for table in tables:
            other.execute(f"LOCK TABLE convoy.{table} IN ACCESS EXCLUSIVE MODE".encode())
        yield


def waiting(gateway: Gateway) -> list[int]:
    """Process ids of our sessions that wait for a lock."""
    rows = gateway.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'otel-queue' AND wait_event_type = 'Lock'"
        " AND datname = %s",
        gateway.database,
    )
    return [pid for (pid,) in rows]


def test_a_wrong_password_is_auth(own_gateway: Gateway, role: str) -> None:
    assert refusal(own_gateway.dsn_of(role, PASSWORD + "x")).reason == "auth"


def test_an_unknown_role_is_auth(gateway: Gateway) -> None:
    assert refusal(gateway.dsn_of("stranger", PASSWORD)).reason == "auth"


def test_an_unknown_database_is_no_database(postgres: PostgresServer) -> None:
    assert refusal(Secret(postgres.dsn(database="nothing"))).reason == "no_database"


def test_nobody_listening_is_connection() -> None:
    assert refusal(Secret(f"postgres://me:{PASSWORD}@127.0.0.1:{free_port()}/convoy")).reason == "connection"


def test_a_role_without_grants_is_permission_and_told_what_to_grant(own_gateway: Gateway, role: str) -> None:
    error = refusal(own_gateway.dsn_of(role, PASSWORD))
    assert error.reason == "permission"
    assert "grants.sql" in str(error)


def test_a_role_that_has_all_its_connections_is_too_many_connections(own_gateway: Gateway, role: str) -> None:
    own_gateway.execute("ALTER ROLE somebody CONNECTION LIMIT 0")
    assert refusal(own_gateway.dsn_of(role, PASSWORD)).reason == "too_many_connections"


def test_a_database_without_the_gateways_tables_is_missing_table(postgres: PostgresServer) -> None:
    assert refusal(Secret(postgres.dsn(database="postgres"))).reason == "missing_table"


def test_a_table_of_another_shape_is_missing_column(own_gateway: Gateway) -> None:
    for table in ("events", "event_deliveries", "delivery_attempts"):
        own_gateway.execute(f"ALTER TABLE convoy.{table} RENAME project_id TO tenant_id")
    assert refusal(own_gateway.dsn).reason == "missing_column"


def test_a_statement_that_takes_too_long_is_timeout(gateway: Gateway) -> None:
    with locked(gateway, "events", "delivery_attempts"):
        assert refusal(gateway.dsn, statement_timeout_seconds=0.1).reason == "timeout"


def test_a_statement_that_fails_costs_its_own_families_alone(gateway: Gateway) -> None:
    gateway.event("e1")
    gateway.delivery("d1", "e1", "Success")
    with locked(gateway, "delivery_attempts"):
        found = gateway.read("corrected", statement_timeout_seconds=0.3)
    families = by_name(found.families)
    assert brief(families, EVENTS) == {"http": 1.0}
    assert brief(families, DELIVERIES) == {"E1,success,http": 1.0}
    assert ATTEMPTS not in families
    assert found.failures == {"timeout": 1}


def in_the_middle(gateway: Gateway, act: Callable[[int], None]) -> tuple[ReadError | None, Found | None]:
    """What a reading ends with when `act` is done to its session while it waits for a lock."""
    ended: list[tuple[ReadError | None, Found | None]] = []

    def run() -> None:
        try:
            ended.append((None, read(gateway.dsn)))
        except ReadError as error:
            ended.append((error, None))

    thread = threading.Thread(target=run)
    with locked(gateway, "event_deliveries"):
        thread.start()
        [pid] = wait_until(lambda: waiting(gateway), what="the reading waits for the lock")
        act(pid)
        wait_until(lambda: not waiting(gateway), what="the reading waits no more")
    thread.join()
    return ended[0]


def test_a_cancelled_statement_is_cancelled_and_the_others_are_read(gateway: Gateway) -> None:
    error, found = in_the_middle(gateway, lambda pid: _signal(gateway, "pg_cancel_backend", pid))
    assert error is None
    assert found is not None
    assert found.failures == {"cancelled": 1}
    assert by_name(found.families).keys() == {EVENTS, ATTEMPTS}


def test_a_session_that_is_ended_is_connection(gateway: Gateway) -> None:
    error, _ = in_the_middle(gateway, lambda pid: _signal(gateway, "pg_terminate_backend", pid))
    assert error is not None
    assert error.reason == "connection"


def _signal(gateway: Gateway, function: str, pid: int) -> None:
    gateway.execute(f"SELECT {function}(%s)", pid)


def test_a_server_that_accepts_and_never_answers_is_timeout(
    postgres: PostgresServer, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "GRACE_SECONDS", -29.8)  # we hang up long before the server would
    with slow_proxy(postgres.port) as proxy:
        dsn = Secret(f"postgres://owner:{PASSWORD}@127.0.0.1:{proxy.port}/{gateway.database}")
        database = Database(Dsn(dsn), statement_timeout_seconds=30)
        with database.reading() as reading:
            assert reading.rows("corrected/event_queue") == []
            proxy.blackhole()
            with pytest.raises(ReadError) as raised:
                reading.rows("corrected/event_queue")
            assert raised.value.reason == "timeout"
            assert not reading.is_alive


def test_a_reading_sees_one_state_whatever_happens_meanwhile(gateway: Gateway) -> None:
    gateway.event("e1")
    database = Database(Dsn(gateway.dsn), statement_timeout_seconds=30)
    with database.reading() as reading:
        before = reading.rows("corrected/event_queue")
        gateway.event("e2")
        assert reading.rows("corrected/event_queue") == before


def test_the_session_has_a_name_reads_only_and_is_limited() -> None:
    with postgres_server(settings=["log_statement=all", "log_line_prefix=%a "]) as server:
        with pytest.raises(ReadError):  # the tables are not there
            read(Secret(server.dsn()), statement_timeout_seconds=12.5)
        log = server.process.logs()
    ours = [line for line in log.splitlines() if line.startswith("otel-queue ")]
    assert any("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" in line for line in ours), log
    assert "'12500'" in log


def test_a_conflict_with_recovery_on_a_replica_is_replica_conflict() -> None:
    with (
        postgres_server() as primary,
        postgres_server(replica_of=primary, settings=["max_standby_streaming_delay=0"]) as replica,
    ):
        primary.execute("CREATE SCHEMA convoy; CREATE TABLE convoy.events (id text, project_id text, source_id text)")
        primary.execute("INSERT INTO convoy.events SELECT i::text, 'P', 'S' FROM generate_series(1, 100) i")
        wait_until(
            lambda: replica.execute("SELECT count(*) FROM convoy.events") == [(100,)], what="rows at the replica"
        )
        database = Database(Dsn(Secret(replica.dsn())), statement_timeout_seconds=30)
        with database.reading() as reading:
            assert reading.rows("corrected/event_queue") == [("P", "S", 100)]

            def reason() -> str | None:
                primary.execute("DELETE FROM convoy.events")
                primary.execute("VACUUM convoy.events")
                try:
                    reading.rows("corrected/event_queue")
                except ReadError as error:
                    return error.reason
                return None

            assert wait_until(reason, what="the replica takes back rows that the reading sees") == "replica_conflict"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("FATAL:  the database system is starting up", "starting"),
        ("FATAL:  sorry, too many clients already", "too_many_connections"),
        (
            "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute",
            "too_many_connections",
        ),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "me", database "convoy", no encryption', "auth"),
        ("fe_sendauth: no password supplied", "auth"),
        ("FATAL:  etwas in einer anderen Sprache", "connection"),
    ],
)
def test_what_a_server_says_before_there_is_a_session_is_told_by_its_words(words: str, reason: str) -> None:
    dsn = Dsn(Secret(f"postgres://me:{PASSWORD}@db/convoy"))
    error = as_read_error(dsn, psycopg.OperationalError(f"connection failed: {words} {PASSWORD}"))
    assert error.reason == reason
    assert PASSWORD not in str(error)
