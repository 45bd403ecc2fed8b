"""Rows in slices: every one of them comes, whatever the sizes and whatever fails on the way."""

import random
import re
from collections.abc import Iterator

import psycopg
import pytest

from otel_queue.config.secret import Secret
from otel_queue.errors import ReadError
from otel_queue.ledger.identity import UNDATED, identify
from otel_queue.lifecycle import UNTOLD
from otel_queue.postgres.database import Database, statement
from otel_queue.postgres.dsn import Dsn
from otel_queue.postgres.rows import HIGHEST, LOWEST, Rows
from otel_queue.ulid import lowest_ulid
from tests.postgres.gateway import Gateway
from tests.postgres.test_least_privilege import single_grants

DAY_US = 86_400_000_000
FIRST = lowest_ulid(1_790_000_000_000_000)


def rows_of(gateway: Gateway, *, dsn: Secret | None = None, slice_rows: int = 3, batch_rows: int = 2) -> Rows:
    """A few rows at a time; what fails is tried again twice, at once."""
    database = Database(Dsn(dsn or gateway.dsn), statement_timeout_seconds=30.0)
    return Rows(database, slice_rows=slice_rows, batch_rows=batch_rows, pauses_seconds=(0.0, 0.0))


def ulids(count: int, start_us: int = 1_790_000_000_000_000) -> list[str]:
    return [lowest_ulid(start_us + number * 1000) for number in range(count)]


def odd_ids(number: int) -> list[str]:
    """Ids that are ULIDs, and that nearly are."""
    chance = random.Random(number)
    made = ["", LOWEST, HIGHEST, lowest_ulid(1_451_606_399_999_000), lowest_ulid(4_102_444_799_999_000), "zz", "0", "~"]
    for id_ in ulids(40):
        changed = list(id_)
        for _ in range(chance.randrange(3)):
            changed[chance.randrange(26)] = chance.choice("0123456789ABCZabcILOU-_ \u00e9")
        made.append("".join(changed)[: chance.choice((26, 26, 26, 25))] + chance.choice(("", "", "", "0")))
    return sorted(set(made))


@pytest.mark.parametrize("number", range(3))
def test_each_id_is_either_dated_or_not_by_the_rule_of_the_ledger(gateway: Gateway, number: int) -> None:
    ids = odd_ids(number)
    for id_ in ids:
        gateway.delivery(id_, "e", "Success")
        gateway.event(id_)
    rows = rows_of(gateway, slice_rows=7)
    dated = [row.id for batch in rows.deliveries(LOWEST) for row in batch.rows]
    undated = [row.id for batch in rows.undated_deliveries() for row in batch.rows]
    assert dated == [id_ for id_ in ids if identify(id_).day != UNDATED]
    assert undated == [id_ for id_ in ids if identify(id_).day == UNDATED]
    assert [row.id for batch in rows.events(LOWEST) for row in batch.rows] == dated
    assert [row.id for batch in rows.undated_events() for row in batch.rows] == undated


@pytest.mark.parametrize(("slice_rows", "batch_rows"), [(1, 1), (2, 2), (3, 2), (10, 3), (11, 100), (100, 1)])
def test_any_size_of_slices_gives_the_same_rows(any_gateway: Gateway, slice_rows: int, batch_rows: int) -> None:
    ids = ulids(10)
    for id_ in ids:
        any_gateway.delivery(id_, "e", "Retry")
    rows = rows_of(any_gateway, slice_rows=slice_rows, batch_rows=batch_rows)
    batches = list(rows.deliveries(ids[2]))
    assert [row.id for batch in batches for row in batch.rows] == ids[2:]
    assert all(len(batch.rows) <= batch_rows for batch in batches)
    counted = [count for batch in rows.old_deliveries(ids[7]) for count in batch.rows]
    assert sum(count.total for count in counted) == 7


def test_a_replayed_event_comes_once_and_gives_its_source_once(partitioned_gateway: Gateway) -> None:
    event, *ids = ulids(4)
    for minutes in (0, 5, 10):
        partitioned_gateway.execute(
            "INSERT INTO convoy.events (id, event_type, project_id, source_id, created_at)"
            " VALUES (%s, 't', 'P', 'S', now() - make_interval(mins => %s))",
            event, minutes,
        )  # fmt: skip
    for id_ in ids:
        partitioned_gateway.delivery(id_, event, "Success")
    rows = rows_of(partitioned_gateway, slice_rows=1, batch_rows=1)
    assert [(row.id, row.source) for batch in rows.events(FIRST) for row in batch.rows] == [(event, "S")]
    assert [(row.id, row.source) for batch in rows.deliveries(FIRST) for row in batch.rows] == [
        (id_, "S") for id_ in ids
    ]
    [count] = [count for batch in rows.old_events(HIGHEST) for count in batch.rows]
    assert (count.source, count.total) == ("S", 1)


def test_a_source_is_unknown_without_the_events_row_in_the_same_project(gateway: Gateway) -> None:
    here, blank, elsewhere, *ids = ulids(7)
    gateway.event(here, source="S")
    gateway.event(blank, source="")
    gateway.event(elsewhere, source="S", project="Q")
    for id_, event in zip(ids, (here, blank, elsewhere, "gone"), strict=True):
        gateway.delivery(id_, event, "Success")
    found = [row.source for batch in rows_of(gateway).deliveries(FIRST) for row in batch.rows]
    assert found == ["S", None, UNTOLD, UNTOLD]


def test_a_deleted_delivery_has_no_row(gateway: Gateway) -> None:
    here, deleted = ulids(2)
    gateway.delivery(here, "e", "Processing")
    gateway.delivery(deleted, "e", "Processing", deleted=True)
    rows = rows_of(gateway)
    assert [row.id for batch in rows.deliveries(FIRST) for row in batch.rows] == [here]
    assert [row.id for batch in rows.old_processing(HIGHEST) for row in batch.rows] == [here]
    assert rows.existing_deliveries([here, deleted, "none"]) == {here}
    assert sum(count.total for batch in rows.old_deliveries(HIGHEST) for count in batch.rows) == 1


def test_a_row_of_another_age_has_times_that_can_be_counted_with(gateway: Gateway) -> None:
    ids = ulids(2)
    gateway.delivery(ids[0], "e", "Success")
    gateway.delivery(ids[1], "e", "Success", seconds=None)
    gateway.execute(
        "UPDATE convoy.event_deliveries SET created_at = '0001-01-01', updated_at = NULL WHERE id = %s", ids[0]
    )
    gateway.execute("UPDATE convoy.event_deliveries SET updated_at = NULL WHERE id = %s", ids[1])
    found = [row for batch in rows_of(gateway).deliveries(FIRST) for row in batch.rows]
    assert [(row.created_us, row.updated_us) for row in found] == [(0, 0), (None, 0)]


def test_an_old_row_belongs_to_the_day_it_was_created_or_at_most_the_last_old_one(gateway: Gateway) -> None:
    midnight = 1_790_000_000_000_000 // DAY_US * DAY_US
    ids = [lowest_ulid(midnight - DAY_US - 5), lowest_ulid(midnight - 5_000_000), lowest_ulid(midnight - 3 * DAY_US)]
    for id_ in ids:
        gateway.delivery(id_, "e", "Success", seconds=None)
        gateway.event(id_)
    gateway.execute("UPDATE convoy.events SET created_at = NULL")
    for table in ("events", "event_deliveries"):
        gateway.execute(
            f"UPDATE convoy.{table} SET created_at = to_timestamp({midnight / 1e6} + 60) WHERE id = '{ids[1]}'"
        )
    rows = rows_of(gateway, slice_rows=1)
    expected = [(identify(ids[2]).day, 1), (identify(ids[0]).day, 1), (identify(ids[1]).day, 1)]
    for found in (rows.old_deliveries(lowest_ulid(midnight)), rows.old_events(lowest_ulid(midnight))):
        assert [(count.day, count.total) for batch in found for count in batch.rows] == expected


def test_rows_of_one_project_leave_out_the_others(gateway: Gateway) -> None:
    ids = ulids(6)
    for number, id_ in enumerate(ids):
        gateway.delivery(id_, "e", "Success", project="PQ"[number % 2])
    database = Database(Dsn(gateway.dsn), statement_timeout_seconds=30.0)
    rows = Rows(database, project="Q", slice_rows=2, batch_rows=2)
    assert [row.id for batch in rows.deliveries(FIRST) for row in batch.rows] == ids[1::2]
    assert rows.projects() == []


def test_a_connection_that_is_lost_costs_no_row(gateway: Gateway) -> None:
    ids = ulids(20)
    for id_ in ids:
        gateway.delivery(id_, "e", "Success")
    rows = rows_of(gateway, slice_rows=8, batch_rows=2)
    found: list[str] = []
    for number, batch in enumerate(rows.deliveries(FIRST)):
        found += [row.id for row in batch.rows]
        if number % 4 == 1:
            end_our_sessions(gateway)
    assert sorted(set(found)) == ids
    assert len(found) > len(ids), "nothing was read again: no session was ended while it had rows left"


def test_counts_are_not_doubled_by_a_connection_that_is_lost(gateway: Gateway) -> None:
    ids = ulids(20)
    for number, id_ in enumerate(ids):
        gateway.delivery(id_, "e", "Success", endpoint=f"E{number}")
    total = 0
    for batch in rows_of(gateway, slice_rows=8, batch_rows=2).old_deliveries(HIGHEST):
        total += sum(count.total for count in batch.rows)
        end_our_sessions(gateway)
    assert total == 20


def test_a_database_that_stays_away_is_an_error(gateway: Gateway) -> None:
    for id_ in ulids(4):
        gateway.delivery(id_, "e", "Success")
    dsn = Secret(re.sub(r":\d+/", ":1/", gateway.dsn.reveal()))
    with pytest.raises(ReadError) as raised:
        list(rows_of(gateway, dsn=dsn).deliveries(FIRST))
    assert raised.value.reason == "connection"


def end_our_sessions(gateway: Gateway) -> None:
    gateway.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'otel-queue'")


@pytest.fixture
def role(own_gateway: Gateway) -> Iterator[Secret]:
    """The role that the grants are for, with none of them yet."""
    own_gateway.event(ulids(1)[0])
    own_gateway.delivery(ulids(1)[0], ulids(1)[0], "Processing")
    own_gateway.execute("CREATE ROLE otel_queue LOGIN PASSWORD 'secret'")
    yield own_gateway.dsn_of("otel_queue", "secret")
    own_gateway.execute("DROP OWNED BY otel_queue; DROP ROLE otel_queue")


def read_everything(rows: Rows) -> None:
    for found in (
        rows.deliveries(FIRST), rows.undated_deliveries(), rows.events(FIRST), rows.undated_events(),
        rows.attempts(FIRST), rows.undated_attempts(),
        rows.old_deliveries(HIGHEST), rows.old_events(HIGHEST), rows.old_processing(HIGHEST),
    ):  # fmt: skip
        list(found)
    rows.clock()
    rows.projects()
    rows.existing_deliveries(["d"])
    rows.existing_events(["e"])
    rows.existing_attempts(["a"])
    rows.estimate(FIRST, FIRST)


def test_the_listed_grants_are_enough_and_none_of_them_can_be_left_out(own_gateway: Gateway, role: Secret) -> None:
    own_gateway.execute(statement("seed/grants"))
    read_everything(rows_of(own_gateway, dsn=role))
    for what, revoke in single_grants("seed/grants"):
        own_gateway.execute(statement("seed/grants"))
        own_gateway.execute(revoke)
        with pytest.raises(ReadError) as raised:
            read_everything(rows_of(own_gateway, dsn=role))
        assert raised.value.reason == "permission", what
        assert "seed/grants.sql" in str(raised.value)


def test_with_the_grants_no_payload_can_be_read(own_gateway: Gateway, role: Secret) -> None:
    own_gateway.execute(statement("seed/grants"))
    with psycopg.connect(role.reveal()) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT data FROM convoy.events")
