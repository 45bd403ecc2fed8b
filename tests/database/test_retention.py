"""Days that the gateway's retention drops, by their partitions alone; and what a look reads of hundreds of them."""

import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from otel_queue.database.rows import statement
from otel_queue.database.wanted import Condition, Span, created, keyed
from tests.database.scene import Scene
from tests.ledger.ledgers import now_us, ulid
from tests.postgres.conftest import _numbers
from tests.postgres.gateway import EVENTS, Gateway
from tests.servers.postgres import PostgresServer

TABLES = ("events", "event_deliveries", "delivery_attempts")
DAY_SECONDS = 86_400
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture
def own_partitioned(postgres: PostgresServer, redis_url: str) -> Iterator[Scene]:
    """With partitioned tables, in a database that goes with the test."""
    name = f"own{next(_numbers)}"
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE partitioned")
    with contextlib.closing(Gateway(postgres, name)) as gateway, contextlib.closing(Scene(gateway, redis_url)) as scene:
        yield scene
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


def at(scene: Scene, days_ago: int, *, project: str = "P", source: str = "S1") -> str:
    """An event and its delivery at noon of a day; the event's id."""
    when = TODAY - timedelta(days=days_ago, hours=-12)
    ids = [ulid(round(when.timestamp() * 1e6), int(scene.new_id()[-10:], 32)) for _ in range(2)]
    scene.gateway.execute(
        "INSERT INTO convoy.events (id, event_type, project_id, source_id, created_at) VALUES (%s, 't', %s, %s, %s)",
        ids[0], project, source, when,
    )  # fmt: skip
    scene.gateway.execute(
        "INSERT INTO convoy.event_deliveries (id, event_id, status, endpoint_id, event_type, project_id, created_at)"
        " VALUES (%s, %s, 'Success', 'E1', 't', %s, %s)",
        ids[1], ids[0], project, when,
    )  # fmt: skip
    return ids[0]


def drop(scene: Scene, days_ago: int, tables: tuple[str, ...] = TABLES) -> None:
    """As retention does; partition N of the fixture is that of N - 2 days from today."""
    for table in tables:
        scene.gateway.execute(f"DROP TABLE convoy.{table}_p_{2 - days_ago}")


def test_a_day_whose_partitions_were_dropped_counts_no_more(own_partitioned: Scene) -> None:
    scene = own_partitioned
    for days_ago in (2, 1):
        at(scene, days_ago, source=f"S{days_ago}")
    scene.fill()
    scene.look()
    drop(scene, 2)
    scene.look()
    assert scene.brief(EVENTS) == {"S1": 1}
    scene.assert_equal()


def test_a_day_stays_until_both_of_its_partitions_are_dropped(own_partitioned: Scene) -> None:
    scene = own_partitioned
    at(scene, 2)
    scene.fill()
    scene.look()
    drop(scene, 2, ("events",))
    scene.look()
    assert scene.brief() == {"E1,success,S1": 1}
    drop(scene, 2, ("event_deliveries",))
    scene.look()
    assert scene.brief() == {}


def test_missing_rows_expire_no_day(own_partitioned: Scene) -> None:
    scene = own_partitioned
    at(scene, 2)
    scene.fill()
    scene.look()
    scene.gateway.execute("DELETE FROM convoy.event_deliveries")
    scene.look()
    assert scene.client().hget("oq-db:{P}:meta", "expired") is None
    assert scene.sweep() == {"delivery without a row": 1}


def test_a_day_waits_while_rows_of_before_it_are_in_the_default_partition(own_partitioned: Scene) -> None:
    scene = own_partitioned
    for days_ago in (9, 2):
        at(scene, days_ago, source=f"S{days_ago}")
    scene.fill()
    scene.look()
    drop(scene, 2)
    scene.look()
    assert scene.brief(EVENTS) == {"S9": 1, "S2": 1}
    scene.gateway.execute("DELETE FROM convoy.events_default; DELETE FROM convoy.event_deliveries_default")
    scene.look()
    assert scene.brief(EVENTS) == {}


def test_a_replayed_event_whose_first_partition_was_dropped_stays_out(own_partitioned: Scene) -> None:
    """A difference by its name: the day of an event's id is closed, and its rows of later days count nowhere."""
    scene = own_partitioned
    event = at(scene, 2)
    scene.fill()
    scene.look()
    scene.gateway.event(event, source="S1")
    scene.look()
    assert scene.brief(EVENTS) == {"S1": 1}
    drop(scene, 2)
    scene.look()
    assert scene.brief(EVENTS) == {}


@pytest.fixture(scope="module")
def hundreds(postgres: PostgresServer) -> Iterator[Gateway]:
    """Ten projects of thirty days: 300 partitions of each table."""
    postgres.execute("CREATE DATABASE hundreds TEMPLATE partitioned")
    with contextlib.closing(Gateway(postgres, "hundreds")) as gateway:
        for number in range(10):
            gateway.execute("INSERT INTO convoy.projects VALUES (%s, 'N', 'outgoing', 'O')", f"T{number}")
            days = [TODAY - timedelta(days=back) for back in range(29, -1, -1)]
            gateway.execute(
                ";".join(
                    f"CREATE TABLE convoy.{table}_{number}_{day:%Y%m%d} PARTITION OF convoy.{table}"
                    f" FOR VALUES FROM ('T{number}', '{day}') TO ('T{number}', '{day + timedelta(days=1)}')"
                    for table in TABLES
                    for day in days
                )
            )
        yield gateway
    postgres.execute("DROP DATABASE hundreds WITH (FORCE)")


def partitions_read(gateway: Gateway, name: str, wanted: Condition) -> set[str]:
    with gateway.server.connect(gateway.database) as connection:
        query: Any = "EXPLAIN " + statement(name, wanted=wanted).as_string(connection)
        # An index that makes a bitmap is named beside its partition.
        lines = [line for (line,) in connection.execute(query) if "Bitmap Index Scan" not in line]
        plan = "\n".join(lines)
    return set(re.findall(r" on (?:convoy\.)?(\w+)", plan))


def test_a_look_at_new_rows_reads_the_partitions_of_their_days_alone(hundreds: Gateway) -> None:
    projects = [f"T{number}" for number in range(10)]
    since = round((TODAY - timedelta(days=1, hours=-12)).timestamp() * 1e6)
    for name in ("events", "deliveries", "attempts", "in_flight"):
        read = partitions_read(hundreds, name, created(Span(since), projects))
        # Yesterday's and today's of each project, and the default one.
        assert len(read) <= 21, (name, read)


def test_a_delivery_is_read_by_its_key_from_the_partitions_around_the_time_of_its_id(hundreds: Gateway) -> None:
    keys = [("T1", ulid(now_us(), number)) for number in range(3)]
    assert len(partitions_read(hundreds, "deliveries", keyed(keys, is_partitioned=True, is_pruned=True))) <= 3


def test_hundreds_of_partitions_are_followed(hundreds: Gateway, redis_url: str) -> None:
    with contextlib.closing(Scene(hundreds, redis_url)) as scene:
        for number in range(10):
            at(scene, number * 3, project=f"T{number}")
        moved = at(scene, 0, project="T3")
        scene.fill()
        scene.look()
        scene.gateway.event(moved, source="S1", project="T3")
        scene.delivery(moved, "Processing", project="T3")
        scene.look()
        scene.assert_equal()
        assert scene.sweep() == {}
