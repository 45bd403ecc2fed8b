"""How old a replica's state is: told by what it has replayed, and by nothing that only looks like it."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from otel_queue.config import RedisConfig
from otel_queue.config.secret import Secret
from otel_queue.postgres.aggregations import read_families
from otel_queue.postgres.database import Database
from otel_queue.postgres.dsn import Dsn
from otel_queue.postgres.source import PostgresSource
from otel_queue.redis_client import connect
from tests.postgres.exporters import Watcher
from tests.postgres.gateway import EVENTS, HERE, brief, by_name
from tests.servers.postgres import PostgresServer, postgres_server
from tests.servers.process import wait_until

# A replica that finds its primary gone asks again soon.
IMPATIENT = ["wal_retrieve_retry_interval=100ms"]
SINCE_THE_LAST_COMMIT = "SELECT extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary and its replica."""
    with postgres_server() as primary:
        with primary.connect() as connection:
            connection.execute((HERE / "schema.sql").read_bytes())
        # It may ask how far behind a replica is, like anybody, and nothing else.
        primary.execute("CREATE ROLE anybody LOGIN PASSWORD 'secret'")
        with postgres_server(replica_of=primary, settings=IMPATIENT) as replica:
            yield primary, replica


@pytest.fixture
def primary(servers: tuple[PostgresServer, PostgresServer]) -> PostgresServer:
    return servers[0]


@pytest.fixture
def replica(servers: tuple[PostgresServer, PostgresServer]) -> PostgresServer:
    """In step with its primary, and with one commit at least that it replayed itself."""
    primary, replica = servers
    primary.execute("INSERT INTO convoy.organisations VALUES (gen_random_uuid(), 'one more')")
    wait_until(lambda: counted(replica) == counted(primary), what="the replica is in step")
    wait_until(lambda: lag_seconds(replica) == 0, what="the replica has replayed what it received")
    return replica


def counted(server: PostgresServer) -> int:
    [[count]] = server.execute("SELECT count(*) FROM convoy.organisations")
    return int(count)


def lag_seconds(server: PostgresServer) -> float:
    database = Database(Dsn(Secret(server.dsn("anybody", "secret"))), statement_timeout_seconds=30)
    with database.reading() as reading:
        return reading.lag_seconds


def seconds_since_the_last_commit(replica: PostgresServer) -> float:
    [[seconds]] = replica.execute(SINCE_THE_LAST_COMMIT)
    return float(seconds)


def wait_until_received(primary: PostgresServer, replica: PostgresServer) -> None:
    """Until the replica has received all that the primary has, replayed or not."""
    [[written]] = primary.execute("SELECT pg_current_wal_flush_lsn()::text")
    wait_until(
        lambda: replica.execute("SELECT pg_last_wal_receive_lsn() >= %s::pg_lsn", written) == [(True,)],
        what="the replica has received",
    )


def test_a_primary_does_not_lag(primary: PostgresServer) -> None:
    assert lag_seconds(primary) == 0


def test_a_replica_in_step_does_not_lag_however_long_ago_the_last_commit_was(replica: PostgresServer) -> None:
    assert seconds_since_the_last_commit(replica) > 0
    assert lag_seconds(replica) == 0


def test_a_replica_that_does_not_replay_is_as_old_as_the_last_commit_it_replayed(
    primary: PostgresServer, replica: PostgresServer
) -> None:
    replica.execute("SELECT pg_wal_replay_pause()")
    try:
        primary.execute("INSERT INTO convoy.organisations VALUES (gen_random_uuid(), 'not there yet')")
        wait_until_received(primary, replica)
        at_least = seconds_since_the_last_commit(replica)
        lag = lag_seconds(replica)
        assert at_least <= lag <= seconds_since_the_last_commit(replica)
        assert lag > 0
        assert counted(replica) < counted(primary)
    finally:
        replica.execute("SELECT pg_wal_replay_resume()")
    wait_until(lambda: lag_seconds(replica) == 0, what="the replica is in step again")
    assert counted(replica) == counted(primary)


def test_a_replica_that_does_not_replay_and_has_nothing_to_replay_does_not_lag(replica: PostgresServer) -> None:
    replica.execute("SELECT pg_wal_replay_pause()")
    try:
        assert lag_seconds(replica) == 0
    finally:
        replica.execute("SELECT pg_wal_replay_resume()")


def test_a_family_has_the_time_of_the_state_it_shows(primary: PostgresServer, replica: PostgresServer) -> None:
    replica.execute("SELECT pg_wal_replay_pause()")
    try:
        primary.execute("INSERT INTO convoy.events (id, event_type, project_id) VALUES ('e1', 't', 'P')")
        wait_until_received(primary, replica)
        with Database(Dsn(Secret(replica.dsn())), statement_timeout_seconds=30).reading() as reading:
            found = read_families(reading, "corrected", 1_000_000.0, lambda: None)
        assert reading.lag_seconds > 0
        assert {family.time for family in found.families} == {1_000_000.0 - reading.lag_seconds}
        assert brief(by_name(found.families), EVENTS) == {}
    finally:
        replica.execute("SELECT pg_wal_replay_resume()")


def test_a_witness_is_told_how_far_behind_the_state_is(
    primary: PostgresServer, replica: PostgresServer, redis_url: str
) -> None:
    replica.execute("SELECT pg_wal_replay_pause()")
    try:
        primary.execute("INSERT INTO convoy.organisations VALUES (gen_random_uuid(), 'not there yet')")
        wait_until_received(primary, replica)
        watcher = Watcher()
        link = connect(RedisConfig(url=redis_url))
        with closing(PostgresSource(Secret(replica.dsn()), link, witness=watcher)) as source:
            collected = source.collect()
        assert watcher.lag_seconds > 0
        assert {family.time for family in collected.families} == {watcher.time - watcher.lag_seconds}
        assert collected.age_seconds >= watcher.lag_seconds
    finally:
        replica.execute("SELECT pg_wal_replay_resume()")


def test_the_gateways_snapshot_has_its_own_time_on_a_replica_too(
    primary: PostgresServer, replica: PostgresServer
) -> None:
    primary.execute("UPDATE convoy.metrics_snapshot_meta SET generation = 1, refreshed_at = now() - interval '1 h'")
    wait_until_received(primary, replica)
    wait_until(lambda: lag_seconds(replica) == 0, what="the replica is in step")
    replica.execute("SELECT pg_wal_replay_pause()")
    try:
        primary.execute("INSERT INTO convoy.organisations VALUES (gen_random_uuid(), 'not there yet')")
        wait_until_received(primary, replica)
        with Database(Dsn(Secret(replica.dsn())), statement_timeout_seconds=30).reading() as reading:
            found = read_families(reading, "snapshot", 1_000_000.0, lambda: None)
            ages = {age for _, _, age in reading.rows("snapshot/meta")}
        assert reading.lag_seconds > 0
        assert {family.time for family in found.families} == {1_000_000.0 - age for age in ages}
    finally:
        replica.execute("SELECT pg_wal_replay_resume()")


def test_a_replica_without_its_primary_ages_even_when_all_it_received_is_replayed(
    primary: PostgresServer, replica: PostgresServer
) -> None:
    primary.kill()
    try:
        wait_until(lambda: lag_seconds(replica) > 0, what="the replica knows that it receives nothing")
        at_least = seconds_since_the_last_commit(replica)
        assert at_least <= lag_seconds(replica) <= seconds_since_the_last_commit(replica)
    finally:
        primary.start()
    wait_until(lambda: lag_seconds(replica) == 0, what="the replica is in step again")


def test_a_replica_that_was_restarted_without_its_primary_is_as_old_as_its_last_checkpoint(
    primary: PostgresServer, replica: PostgresServer
) -> None:
    # All that was committed is before the checkpoint from which the replica starts: it replays no commit.
    primary.execute("CHECKPOINT")
    wait_until_received(primary, replica)
    wait_until(lambda: lag_seconds(replica) == 0, what="the replica is in step")
    replica.execute("CHECKPOINT")
    primary.kill()
    try:
        replica.stop()
        replica.start()
        assert replica.execute("SELECT pg_last_xact_replay_timestamp()") == [(None,)]
        since = "SELECT extract(epoch FROM clock_timestamp() - checkpoint_time)::float8 FROM pg_control_checkpoint()"
        [[at_least]] = replica.execute(since)
        lag = lag_seconds(replica)
        [[at_most]] = replica.execute(since)
        assert at_least <= lag <= at_most
    finally:
        primary.start()
    wait_until(lambda: lag_seconds(replica) == 0, what="the replica is in step again")
