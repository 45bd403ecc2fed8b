"""The simulation is what it says: its rows are in the database, and its records are what hooks would tell of them."""

from typing import Any

import pytest

from otel_queue.ledger.identity import UNDATED
from otel_queue.lifecycle import UNTOLD, DayExpired, DeliveryCreated, StatusSet
from tests.ledger.ledgers import Ledger
from tests.ledger.oracle import DELIVERIES
from tests.postgres.gateway import Gateway
from tests.servers.redis import RedisServer
from tests.simulation.comparison import (
    COUNTS,
    assert_same_backlogs,
    counts_of,
    said_by_database,
    said_by_ledger,
)
from tests.simulation.runs import SKEW_US, compared, simulated

# What happens in any gateway sooner or later.
ALWAYS = {
    "event without a source", "event of a source", "event type NULL", "fan-out", "broadcast", "by subscriptions",
    "to the CLI", "nothing matched", "duplicate by its key", "delivery born Scheduled", "delivery born Discarded",
    "set Scheduled", "set Processing", "set Retry", "set Success", "set Failure", "set Discarded", "retried",
    "rate limited", "no credentials", "attempt not inserted", "stopped at Processing", "stopped at Success",
    "discarded with its project", "discarded at its endpoint", "resent", "resent by force", "batch retry of Failure",
    "batch retry of Success", "stuck set to Scheduled", "replayed", "project renamed", "project deleted",
    "batch sent twice", "delivery of a later day than its event",
}  # fmt: skip
WHERE_PROCESSES_DIE = {
    "died in CreateEventQueue", "died in EventWorkflowQueue", "died in EventQueue", "died in RetryEventQueue",
    "died in a command", "match redelivered", "sent again after a death", "lost event_created",
    "lost delivery_created", "lost status_set", "lost attempt_made",
}  # fmt: skip
WHERE_WORKERS_ARE_LATE = {
    "unrecorded event_created", "unrecorded delivery_created", "unrecorded status_set", "unrecorded attempt_made",
}  # fmt: skip
ONLY_PLAIN = {"event's key is there already"}


def of_kind(things: Any, kind: str) -> int:
    return sum(each.kind == kind for each in things)


def test_everything_that_can_happen_happens(any_gateway: Gateway) -> None:
    with simulated(any_gateway, 4_000, crashes=0.01, late_workers=True, retention_days=1) as run:
        wanted = ALWAYS | WHERE_PROCESSES_DIE | WHERE_WORKERS_ARE_LATE
        wanted |= {"rows dropped", "resent behind its event"} if run.simulation.partitioned else ONLY_PLAIN
        assert {what for what in wanted if not run.simulation.happened[what]} == set()


def test_the_same_seed_does_the_same(gateway: Gateway) -> None:
    with simulated(gateway, 300, seed=5, crashes=0.01) as run:
        first = run.records
    gateway.execute(
        "DELETE FROM convoy.events; DELETE FROM convoy.event_deliveries; DELETE FROM convoy.delivery_attempts"
    )
    with simulated(gateway, 300, seed=5, crashes=0.01) as run:
        assert run.records == first
        assert len(first) > 1_500


def test_without_crashes_nothing_is_lost(any_gateway: Gateway) -> None:
    with simulated(any_gateway, 500, skew_us=SKEW_US, retention_days=1) as run:
        assert run.simulation.lost == set()
        assert not [what for what in run.simulation.happened if what.startswith(("lost", "unrecorded", "died"))]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_database_adds_up_to_what_was_done(any_gateway: Gateway, seed: int) -> None:
    with simulated(
        any_gateway, 1_500, seed=seed, crashes=0.01, late_workers=True, skew_us=SKEW_US, retention_days=1
    ) as run:
        assert said_by_database(any_gateway).counts() == counts_of(run.simulation)
        rows = run.simulation.tables
        written = sum(map(len, rows.events.values())), len(rows.deliveries), len(rows.attempts)
        assert all(written)
        left = [
            any_gateway.execute(f"SELECT count(*) FROM convoy.{table}")[0][0]
            for table in ("events", "event_deliveries", "delivery_attempts")
        ]
        assert sum(written) - sum(left) == run.simulation.happened["rows dropped"]


# What no row may be like, whatever died.
IMPOSSIBLE = {
    "an outcome that no attempt had": """
        SELECT d.id FROM convoy.event_deliveries d
        WHERE d.status = 'Success' AND NOT EXISTS (
            SELECT FROM convoy.delivery_attempts a WHERE a.event_delivery_id = d.id AND a.status)""",
    "a retry after nothing failed": """
        SELECT d.id FROM convoy.event_deliveries d
        WHERE d.status = 'Retry' AND NOT EXISTS (
            SELECT FROM convoy.delivery_attempts a WHERE a.event_delivery_id = d.id AND NOT a.status)""",
    "an outcome that is not its response's": """
        SELECT id FROM convoy.delivery_attempts WHERE status <> coalesce(http_status LIKE '2%', false)""",
    "a call to nobody": """
        SELECT d.id FROM convoy.event_deliveries d JOIN convoy.delivery_attempts a ON a.event_delivery_id = d.id
        WHERE d.endpoint_id IS DISTINCT FROM a.endpoint_id""",
    "a retry of what may be sent once": """
        SELECT d.id FROM convoy.event_deliveries d
        WHERE d.delivery_mode = 'at_most_once' AND d.status = 'Retry' AND (
            SELECT a.http_status FROM convoy.delivery_attempts a WHERE a.event_delivery_id = d.id
            ORDER BY a.created_at DESC LIMIT 1) IS NOT NULL""",
    "a delivery of another project's event": """
        SELECT d.id FROM convoy.event_deliveries d JOIN convoy.events e ON e.id = d.event_id
        WHERE d.project_id <> e.project_id""",
    "a change before the creation": """
        SELECT id FROM convoy.event_deliveries WHERE updated_at < created_at""",
}


def test_rows_are_such_as_the_gateway_leaves(any_gateway: Gateway) -> None:
    with simulated(any_gateway, 1_500, crashes=0.02, skew_us=SKEW_US) as run:
        assert {what: rows for what, query in IMPOSSIBLE.items() if (rows := any_gateway.execute(query))} == {}
        [[events, ids, keys]] = any_gateway.execute(
            "SELECT count(*), count(DISTINCT id), count(DISTINCT (project_id, idempotency_key))"
            " FILTER (WHERE idempotency_key IS NOT NULL AND NOT is_duplicate_event) FROM convoy.events"
        )
        assert (events > ids) is run.simulation.partitioned
        [[first]] = any_gateway.execute(
            "SELECT count(*) FROM convoy.events WHERE idempotency_key IS NOT NULL AND NOT is_duplicate_event"
        )
        assert first == keys > 0


def test_hooks_tell_only_what_they_know(gateway: Gateway) -> None:
    """In the first queue neither a source nor a creation time; where a row is created all but its creation time."""
    with simulated(gateway, 1_000) as run:
        created = [record for record in run.records if isinstance(record, DeliveryCreated)]
        assert all(record.created_us is None and record.source is not UNTOLD for record in created)
        told = {(s.source is not UNTOLD, s.created_us is not None) for s in run.records if isinstance(s, StatusSet)}
        assert told == {(False, False), (False, True), (True, True)}


@pytest.mark.parametrize(("seed", "skew_us"), [(1, 0), (2, SKEW_US)])
def test_where_every_record_is_told_the_ledger_equals_the_database(
    any_gateway: Gateway, ledger: Ledger, redis_server: RedisServer, seed: int, skew_us: int
) -> None:
    with simulated(any_gateway, 800, seed=seed, skew_us=skew_us) as run:
        run.fill(ledger)
        assert compared(any_gateway, redis_server) == (set(), set(), {})
        held, asked = said_by_ledger(ledger), said_by_database(any_gateway)
        assert held.counts() == asked.counts()
        # An id is minted up to 0.1 s before its row is inserted.
        assert_same_backlogs(held, asked, within_seconds=0.2 + skew_us / 1e6)
        assert any(age > 0 for age in asked.families["convoy_event_delivery_queue_backlog_seconds"].values())


def test_retention_leaves_the_ledger_what_only_it_can_keep(
    partitioned_gateway: Gateway, ledger: Ledger, redis_server: RedisServer
) -> None:
    """Attempts, which only count up, and ids without a day. It drops by the id's day, the database by the row's.

    So rows that were inserted behind a midnight under an id from before it, and events that were replayed on a later
    day, go a night earlier.
    """
    with simulated(partitioned_gateway, 2_000, retention_days=1) as run:
        run.fill(ledger)
        assert any(isinstance(record, DayExpired) for record in run.records)
        found = compared(partitioned_gateway, redis_server)
        assert found.differing == {}
        assert any(labels[5] == "unknown" for labels in said_by_database(partitioned_gateway).families[DELIVERIES])
        assert found.missing
        assert all(run.is_closed(each) for each in found.missing)
        assert found.beyond <= run.gone()
        assert {each.day for each in found.beyond if each.kind != "attempt"} == {UNDATED}


@pytest.mark.parametrize("seed", [1, 2])
def test_what_differs_after_crashes_is_what_lost_a_record(
    any_gateway: Gateway, ledger: Ledger, redis_server: RedisServer, seed: int
) -> None:
    with simulated(
        any_gateway, 1_500, seed=seed, crashes=0.01, late_workers=True, skew_us=SKEW_US, retention_days=2
    ) as run:
        run.fill(ledger)
        found = compared(any_gateway, redis_server)
        missing = {each for each in found.missing if not run.is_closed(each)}
        assert missing
        assert found.differing
        assert run.was_lost(missing | found.differing.keys())
        assert found.beyond <= run.gone()
        happened = run.simulation.happened
        untold = {
            kind: happened[f"lost {kind}"] + happened[f"unrecorded {kind}"]
            for kind in ("event_created", "delivery_created", "status_set", "attempt_made")
        }
        assert of_kind(missing, "event") <= untold["event_created"]
        assert of_kind(missing, "delivery") <= untold["delivery_created"]
        assert of_kind(missing, "attempt") <= untold["attempt_made"]
        assert len(found.differing) <= untold["delivery_created"] + untold["status_set"]


def test_the_ledger_never_has_more_than_the_database(any_gateway: Gateway, ledger: Ledger) -> None:
    with simulated(any_gateway, 1_500, seed=7, crashes=0.02, late_workers=True) as run:
        run.fill(ledger)
        held, asked = said_by_ledger(ledger), said_by_database(any_gateway)
        for name in COUNTS:
            assert 0 < sum(held.families[name].values()) < sum(asked.families[name].values()), name
