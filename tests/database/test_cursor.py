"""Rows that become visible out of order: by late commits, prepared transactions, and standbys."""

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from otel_queue.config import Secret
from otel_queue.database.cursor import Horizon, next_since, read_horizon
from otel_queue.database.rows import text_of
from otel_queue.postgres.database import Database
from otel_queue.postgres.dsn import Dsn
from tests.database.scene import Scene, scenes
from tests.postgres.gateway import ATTEMPTS, EVENTS, HERE, Gateway
from tests.servers.postgres import PostgresServer, postgres_server
from tests.servers.process import wait_until

SECOND = 1_000_000
INSERT = "INSERT INTO convoy.events (id, event_type, project_id, source_id) VALUES (%s, 't', 'P', %s)"
HORIZON = Horizon(now_us=100 * SECOND, replayed_us=None, is_standby=False, sees_all=True, oldest_us=None,
                  has_prepared=False)  # fmt: skip


@contextlib.contextmanager
def transaction(gateway: Gateway) -> Iterator["psycopg.Connection[Any]"]:
    """One that has begun, and is committed by the test."""
    with psycopg.connect(gateway.dsn.reveal()) as connection:
        connection.execute("SELECT now()")
        yield connection


@pytest.fixture
def role(gateway: Gateway) -> Iterator[Secret]:
    """A role that sees nothing of what others do."""
    gateway.execute("CREATE ROLE otel_queue LOGIN PASSWORD 'secret'")
    gateway.execute(text_of("grants"))
    yield gateway.dsn_of("otel_queue", "secret")
    gateway.execute("DROP OWNED BY otel_queue; DROP ROLE otel_queue")


def overtake(scene: Scene, looks: int = 2) -> None:
    """A transaction begins, others are committed and looked at, and only then it commits an event and an attempt."""
    scene.event(source="before")
    scene.look()
    with transaction(scene.gateway) as late:
        for number in range(looks):
            scene.event(source=f"while {number}")
            scene.look()
        late.execute(INSERT, (scene.new_id(), "late"))
        late.execute(
            "INSERT INTO convoy.delivery_attempts (id, project_id, endpoint_id, event_delivery_id, status)"
            " VALUES (%s, 'P', 'E1', 'd', true)",
            (scene.new_id(),),
        )
    scene.look()
    assert scene.brief(EVENTS) == {"before": 1, "late": 1, **{f"while {number}": 1 for number in range(looks)}}
    assert scene.brief(ATTEMPTS) == {"E1,success,none": 1}


def test_a_row_that_was_committed_late_is_found_where_open_transactions_can_be_seen(scene: Scene) -> None:
    # The overlap is nothing: it is the open transaction that the cursor waits for.
    scene.follower = scene.new_follower(overlap_seconds=0.0)
    overtake(scene)


def test_a_row_that_was_committed_late_is_found_within_the_overlap_by_a_role_that_sees_no_transactions(
    plain: Scene, role: Secret
) -> None:
    plain.follower = plain.new_follower(role, overlap_seconds=60.0)
    overtake(plain)


def test_a_row_of_a_prepared_transaction_is_found_when_it_is_committed(redis_url: str) -> None:
    with postgres_server(settings=["max_prepared_transactions=2"]) as server:
        server.execute((HERE / "schema.sql").read_text())
        gateway = Gateway(server, server.database)
        with contextlib.closing(gateway), scenes(gateway, redis_url, overlap_seconds=0.0) as scene:
            scene.event(source="before")
            scene.look()
            with psycopg.connect(gateway.dsn.reveal()) as connection:
                connection.execute(INSERT.encode(), (scene.new_id(), "prepared"))
                connection.execute("PREPARE TRANSACTION 'held'")
                connection.rollback()
            for _ in range(2):
                scene.event(source="while")
                scene.look()
            gateway.execute("COMMIT PREPARED 'held'")
            scene.look()
            assert scene.brief(EVENTS) == {"before": 1, "while": 2, "prepared": 1}


def test_the_cursor_is_never_later_than_the_newest_row_nor_than_the_beginning_of_an_open_transaction() -> None:
    assert since(newest=90) == 90
    assert since(newest=90, oldest_us=70 * SECOND) == 70
    assert since(newest=120) == 100, "a row that was committed behind the horizon says nothing of what is open"
    assert since(newest=0) == 10


def test_the_cursor_stays_an_overlap_behind_where_open_transactions_cannot_be_seen() -> None:
    assert since(newest=90, sees_all=False) == 85
    assert since(newest=12, sees_all=False) == 10, "it never goes back"


def test_the_cursor_of_a_standby_stays_an_overlap_behind_what_was_replayed() -> None:
    assert since(newest=90, is_standby=True, replayed_us=50 * SECOND) == 45
    assert since(newest=90, is_standby=True, replayed_us=None) == 85


def test_the_cursor_waits_for_nothing_longer_than_a_sweep_takes_to_find_it() -> None:
    assert since(newest=90, oldest_us=20 * SECOND, longest=40) == 50
    assert since(newest=90, has_prepared=True, longest=40) == 50
    assert since(newest=90, has_prepared=True) == 10


def since(*, newest: int, longest: int = 1000, **horizon: Any) -> int:
    """With seconds for microseconds, after 10."""
    found = next_since(
        10 * SECOND, newest * SECOND, HORIZON._replace(**horizon), overlap_us=5 * SECOND, longest_us=longest * SECOND
    )
    return found // SECOND


def test_the_horizon_is_the_beginning_of_the_oldest_transaction_of_this_database(gateway: Gateway) -> None:
    with transaction(gateway) as open_one:
        [[began]] = open_one.execute("SELECT (extract(epoch FROM now()) * 1000000)::bigint")
        found = horizon(gateway.dsn)
        assert (found.sees_all, found.oldest_us, found.is_standby, found.has_prepared) == (True, began, False, False)
    assert (horizon(gateway.dsn).oldest_us or found.now_us) > began


def test_a_role_that_may_not_see_transactions_is_told_so(gateway: Gateway, role: Secret) -> None:
    assert not horizon(role).sees_all
    gateway.execute("GRANT pg_read_all_stats TO otel_queue")
    assert horizon(role).sees_all


def horizon(dsn: Secret) -> Horizon:
    found: list[Horizon] = []
    database = Database(Dsn(dsn), statement_timeout_seconds=30)
    with database.reading(first=lambda reading: found.append(read_horizon(reading))):
        return found[0]


def test_rows_that_a_standby_replays_late_are_found_when_it_has_replayed_them(redis_url: str) -> None:
    with postgres_server() as primary:
        primary.execute((HERE / "schema.sql").read_text())
        with (
            postgres_server(replica_of=primary) as standby,
            contextlib.closing(Gateway(primary, primary.database)) as gateway,
            scenes(gateway, redis_url, overlap_seconds=60.0) as scene,
        ):
            scene.follower = scene.new_follower(Secret(standby.dsn()))
            delivery = scene.delivery(scene.event(source="before"))
            replayed(primary, standby)
            scene.look()
            assert scene.brief(EVENTS) == {"before": 1}
            standby.execute("SELECT pg_wal_replay_pause()")
            with transaction(gateway) as late:
                late.execute(INSERT.encode(), (scene.new_id(), "late"))
                scene.event(source="while")
                scene.set_status(delivery, "Success")
                scene.look()
                assert scene.brief(EVENTS) == {"before": 1}
                standby.execute("SELECT pg_wal_replay_resume()")
                replayed(primary, standby)
                scene.look()
                assert scene.brief(EVENTS) == {"before": 1, "while": 1}
            replayed(primary, standby)
            scene.look()
            assert scene.brief(EVENTS) == {"before": 1, "while": 1, "late": 1}
            scene.assert_equal()


def replayed(primary: PostgresServer, standby: PostgresServer) -> None:
    [[written]] = primary.execute("SELECT pg_current_wal_flush_lsn()::text")
    wait_until(
        lambda: standby.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", written) == [(True,)],
        what="the standby has replayed all",
    )
