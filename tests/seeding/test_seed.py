"""After a seed the ledger says what the database says, and what workers record stands."""

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_queue.cli import FINE, main
from otel_queue.errors import WriteError
from otel_queue.ledger.contract import Rule
from otel_queue.lifecycle import AttemptMade, DeliveryCreated, EventCreated, StatusSet
from otel_queue.postgres.rows import Batch, DeliveryRow, Rows
from tests.ledger.ledgers import DAY_US, Ledger, agree_on, contents, day_of, fold, now_us, ulid
from tests.postgres.gateway import ATTEMPTS, DELIVERIES, EVENTS, Gateway
from tests.seeding.scene import add_attempt, add_delivery
from tests.seeding.seeds import assert_agree, seed, seeds
from tests.seeding.tables import fill
from tests.servers.redis import RedisServer
from tests.servers.redis_cluster import Cluster

_numbers = itertools.count()


@pytest.mark.parametrize("number", range(6))
def test_a_seeded_ledger_says_what_the_tables_say(any_gateway: Gateway, ledger: Ledger, number: int) -> None:
    fill(any_gateway, number)
    seeded = seed(any_gateway, ledger.url)
    assert seeded.is_complete, seeded
    assert_agree(ledger, any_gateway)
    assert ledger.differences() == []


def test_seeding_again_changes_nothing(any_gateway: Gateway, ledger: Ledger, redis_server: RedisServer) -> None:
    fill(any_gateway, 1)
    first = seed(any_gateway, ledger.url)
    with redis_server.client() as client:
        before = contents(client)
        second = seed(any_gateway, ledger.url, slice_rows=7, batch_rows=3)
        assert contents(client) == before
    assert second.rows == first.rows
    assert second.written.changed == 0


def test_a_ledger_in_a_cluster_is_seeded_too(gateway: Gateway, cluster: Cluster) -> None:
    ledger = Ledger(cluster.url)
    fill(gateway, 2)
    assert seed(gateway, ledger.url).is_complete
    assert_agree(ledger, gateway)
    ledger.close()


def test_what_was_recorded_before_the_seed_stands_with_a_clock_behind(gateway: Gateway, ledger: Ledger) -> None:
    """The row that is read has the status before; a worker two seconds behind has recorded what it sets next."""
    id_, event = ulid(now_us(), 1), ulid(now_us(), 2)
    gateway.event(event, source="S")
    gateway.delivery(id_, event, "Success")
    gateway.execute("UPDATE convoy.event_deliveries SET updated_at = now() - interval '1 second'")
    ledger.write(StatusSet("P", id_, "Retry", now_us() - 2_000_000))
    seed(gateway, ledger.url)
    assert statuses(ledger) == {("E1", "retry", "S"): 1}


def test_what_was_recorded_long_before_the_row_changed_is_set_right(gateway: Gateway, ledger: Ledger) -> None:
    id_ = ulid(now_us() - DAY_US, 1)
    gateway.delivery(id_, "gone", "Retry")
    ledger.write(StatusSet("P", id_, "Success", now_us() - 60_000_000))
    seed(gateway, ledger.url)
    assert statuses(ledger) == {("E1", "retry", "unknown"): 1}


def test_a_row_that_is_as_it_was_created_takes_no_status_back(gateway: Gateway, ledger: Ledger) -> None:
    id_ = ulid(now_us() - DAY_US, 1)
    gateway.delivery(id_, "gone", "Scheduled")
    ledger.write(StatusSet("P", id_, "Success", now_us() - 60_000_000))
    seed(gateway, ledger.url)
    assert statuses(ledger) == {("E1", "success", "unknown"): 1}


def test_a_source_that_a_worker_told_stays_when_its_event_is_gone(gateway: Gateway, ledger: Ledger) -> None:
    id_ = ulid(now_us(), 1)
    gateway.delivery(id_, "gone", "Success")
    ledger.write(DeliveryCreated("P", id_, now_us() - 1_000_000, "E1", "t", "S1", "success"))
    seed(gateway, ledger.url)
    assert statuses(ledger) == {("E1", "success", "S1"): 1}


def test_what_workers_record_while_rows_are_read_stands(
    any_gateway: Gateway, ledger: Ledger, redis_server: RedisServer
) -> None:
    """Between each reading and its merge a row moves on, a delivery is created, and both are recorded."""
    made = fill(any_gateway, 3)
    tracked = [row for row in made.deliveries if row[2] > now_us() - 29 * DAY_US]
    with seeds(any_gateway, ledger.url) as opened:
        steps = iter(range(10_000))

        def live() -> None:
            number = next(steps)
            id_, project, _ = tracked[number % len(tracked)]
            status = ("Retry", "Success", "Failure")[number % 3]
            [(updated_us,)] = any_gateway.execute(
                "UPDATE convoy.event_deliveries SET status = %s, updated_at = clock_timestamp() WHERE id = %s"
                " RETURNING (extract(epoch FROM updated_at) * 1000000)::bigint",
                status, id_,
            )  # fmt: skip
            new, event = ulid(now_us(), number), ulid(now_us(), 1_000_000 + number)
            any_gateway.event(event, source="S9")
            any_gateway.delivery(new, event, "Scheduled")
            ledger.write(
                StatusSet(project, id_, status, updated_us),
                EventCreated("P", event, now_us(), "S9"),
                DeliveryCreated("P", new, now_us(), "E1", "t", "S9"),
            )

        before_each_write(opened, live)
        assert opened.run().is_complete
    assert next(steps) > 20
    assert_agree(ledger, any_gateway)


def test_another_seed_follows_old_rows_that_changed(any_gateway: Gateway, ledger: Ledger) -> None:
    fill(any_gateway, 4, days=60)
    seed(any_gateway, ledger.url)
    any_gateway.execute(
        "UPDATE convoy.event_deliveries SET status = 'Failure', updated_at = now() WHERE status IN ('Retry', 'Success')"
    )
    assert seed(any_gateway, ledger.url).is_complete
    assert_agree(ledger, any_gateway)


def test_an_old_row_that_changed_labels_leaves_its_group(gateway: Gateway, ledger: Ledger) -> None:
    old_rows(gateway, 40, 41)
    seed(gateway, ledger.url)
    gateway.execute("UPDATE convoy.event_deliveries SET endpoint_id = 'E2', status = 'Processing'")
    seed(gateway, ledger.url)
    assert_agree(ledger, gateway)
    assert statuses(ledger) == {("E2", "processing", "unknown"): 2}


def test_days_that_are_expired_come_back_with_no_seed(gateway: Gateway, ledger: Ledger) -> None:
    through = day_of(now_us() - 10 * DAY_US)
    old_rows(gateway, 5, 10, 40)
    seed(gateway, ledger.url)
    ledger.upkeep.expire("P", through)
    seeded = seed(gateway, ledger.url)
    assert not seeded.is_complete
    assert (seeded.written.late, seeded.left_out) == (2, {"P": [day_of(now_us() - 40 * DAY_US)]})
    assert sum(statuses(ledger).values()) == 1


def test_old_deliveries_in_processing_that_are_read_again_count_once(
    gateway: Gateway, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a slice fails in the middle."""
    once = Rows.old_processing

    def twice(rows: Rows, before_id: str) -> Iterator[Batch[DeliveryRow]]:
        for batch in once(rows, before_id):
            yield batch
            yield batch._replace(rows=batch.rows[-1:])

    monkeypatch.setattr(Rows, "old_processing", twice)
    old_rows(gateway, 40, 41)
    gateway.execute("UPDATE convoy.event_deliveries SET status = 'Processing'")
    seed(gateway, ledger.url)
    assert statuses(ledger) == {("E1", "processing", "unknown"): 2}


def test_a_row_made_after_the_midnight_behind_its_id_is_of_the_last_day_that_is_not_tracked(
    gateway: Gateway, ledger: Ledger, redis_server: RedisServer
) -> None:
    with redis_server.client() as client:
        agree_on(client, rules=(Rule(track_days=4),))
    first_us = now_us() // DAY_US * DAY_US - 4 * DAY_US
    add_delivery(gateway, ulid(first_us - 3_000, 1), "gone", first_us + 1, "Processing")
    seeded = seed(gateway, ledger.url)
    assert (seeded.is_complete, seeded.old_days) == (True, 1)
    [project] = ledger.snapshot().projects
    assert list(project.days) == [day_of(first_us - 1)]
    assert_agree(ledger, gateway)


def test_days_that_are_folded_are_put_together(gateway: Gateway, ledger: Ledger, redis_server: RedisServer) -> None:
    old_rows(gateway, 5, 40, 41, 50)
    seed(gateway, ledger.url)
    with redis_server.client() as client:
        fold(client, "P", day_of(now_us() - 41 * DAY_US))
    gateway.execute("UPDATE convoy.event_deliveries SET status = 'Processing', updated_at = now()")
    assert seed(gateway, ledger.url).is_complete
    assert_agree(ledger, gateway)
    [project] = ledger.snapshot().projects
    totals = {name: sum(day.deliveries.values()) for name, day in project.days.items()}
    assert totals == {day_of(now_us() - 40 * DAY_US): 1, day_of(now_us() - 5 * DAY_US): 1, "settled": 2}


def test_folded_counts_that_hold_tracked_days_are_left_alone(
    gateway: Gateway, ledger: Ledger, redis_server: RedisServer
) -> None:
    old_rows(gateway, 5, 40)
    seed(gateway, ledger.url)
    with redis_server.client() as client:
        fold(client, "P", day_of(now_us() - 5 * DAY_US))
    seeded = seed(gateway, ledger.url)
    assert (seeded.written.late, seeded.left_out) == (2, {"P": [day_of(now_us() - 40 * DAY_US)]})
    assert sum(statuses(ledger).values()) == 2


@pytest.mark.parametrize("close", ["expire", "fold"])
def test_a_day_that_is_closed_while_counts_are_put_is_counted_once(
    gateway: Gateway, ledger: Ledger, redis_server: RedisServer, close: str
) -> None:
    old_rows(gateway, 40, 50)
    with seeds(gateway, ledger.url) as opened:
        replace = opened._counts._replace
        closed = iter([True])

        def interleaved(*arguments: Any) -> bool:
            if next(closed, False):
                through = day_of(now_us() - 50 * DAY_US)
                if close == "expire":
                    ledger.upkeep.expire("P", through)
                else:
                    with redis_server.client() as client:
                        fold(client, "P", through)
            return replace(*arguments)

        opened._counts._replace = interleaved  # type: ignore[assignment, method-assign]
        seeded = opened.run()
    assert sum(statuses(ledger).values()) == (1 if close == "expire" else 2)
    assert seeded.is_complete == (close == "fold")


def test_put_counts_are_called_approximate(
    gateway: Gateway, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    old_rows(gateway, 5, 40, 50)
    seed(gateway, ledger.url)
    [project] = ledger.snapshot().projects
    assert project.approximate == day_of(now_us() - 40 * DAY_US)
    capsys.readouterr()
    assert main(["ledger", "show", "--json", "--redis-url", ledger.url]) == FINE
    told = {row["day"]: row["approximate"] for row in json.loads(capsys.readouterr().out)}
    assert told == {day_of(now_us() - ago * DAY_US): ago > 30 for ago in (5, 40, 50)}


def test_counts_stay_approximate_when_a_later_seed_puts_earlier_days_alone(gateway: Gateway, ledger: Ledger) -> None:
    old_rows(gateway, 40)
    seed(gateway, ledger.url)
    gateway.execute("DELETE FROM convoy.event_deliveries")
    old_rows(gateway, 50)
    seed(gateway, ledger.url)
    [project] = ledger.snapshot().projects
    assert project.approximate == day_of(now_us() - 40 * DAY_US)


def test_a_status_that_is_not_known_is_named_and_others_go_on(gateway: Gateway, ledger: Ledger) -> None:
    old_rows(gateway, 5, 6, 40, 50)
    gateway.execute("UPDATE convoy.event_deliveries SET status = 'Lost' WHERE created_at < now() - interval '45 days'")
    gateway.execute("UPDATE convoy.event_deliveries SET status = 'Lost' WHERE created_at > now() - interval '5.5 days'")
    seeded = seed(gateway, ledger.url)
    [(reason, count)] = seeded.unmergeable.items()
    assert "'Lost'" in reason
    assert count == 2
    assert not seeded.is_complete
    assert sum(statuses(ledger).values()) == 2


def test_an_old_status_that_the_gateway_writes_otherwise_is_named_where_each_row_would_have_to_be_known(
    gateway: Gateway, ledger: Ledger
) -> None:
    """Counted without its place in the index, the day would be one that lost a part."""
    old_rows(gateway, 40, 50)
    gateway.execute("UPDATE convoy.event_deliveries SET status = upper(status)")
    gateway.execute(
        "UPDATE convoy.event_deliveries SET status = 'PROCESSING' WHERE created_at < now() - interval '45 days'"
    )
    seeded = seed(gateway, ledger.url)
    [(reason, count)] = seeded.unmergeable.items()
    assert (count, "'PROCESSING'" in reason, "'Processing'" in reason) == (1, True, True)
    assert sum(statuses(ledger).values()) == 1
    assert not ledger.snapshot().failures


def test_a_project_whose_keys_are_broken_does_not_keep_others_out(
    gateway: Gateway, ledger: Ledger, redis_server: RedisServer
) -> None:
    old_rows(gateway, 5, 40)
    old_rows(gateway, 5, 40, project="Q")
    with redis_server.client() as client:
        client.set("oq:{Q}:groups", "not a hash")
        seeded = seed(gateway, ledger.url)
        client.delete("oq:{Q}:groups")
    assert sum(seeded.unmergeable.values()) == 3  # two records of a row, and its day's counts
    assert all("'Q'" in reason for reason in seeded.unmergeable)
    assert seed(gateway, ledger.url).is_complete
    assert_agree(ledger, gateway)


def test_a_list_of_projects_that_is_none_ends_the_seed(
    gateway: Gateway, ledger: Ledger, redis_server: RedisServer
) -> None:
    """It is no fault of the rows, which would all be called unmergeable."""
    old_rows(gateway, 1, 2)
    with redis_server.client() as client, seeds(gateway, ledger.url) as opened:
        client.set("oq:projects", "some text", ex=60)
        with pytest.raises(WriteError, match="oq:projects: WRONGTYPE"):
            opened.run()
        client.delete("oq:projects")
        assert not opened.seeded.unmergeable


def test_attempts_count_from_the_ledgers_birth_and_once(gateway: Gateway, ledger: Ledger) -> None:
    before, since = ulid(now_us(), 1), ulid(now_us(), 2)
    add_attempt(gateway, before, now_us() - 3_600_000_000)
    add_attempt(gateway, since, now_us())
    ledger.write(AttemptMade("P", since, now_us(), "E1", True, "200 OK"))
    seed(gateway, ledger.url)
    seeded = seed(gateway, ledger.url)
    assert ledger.families()[ATTEMPTS] == {("P", "E1", "success", "200"): 1}
    assert (seeded.rows["attempts"], seeded.early_attempts, seeded.is_complete) == (2, 1, True)


def test_attempts_under_ids_that_tell_no_time_count_by_their_rows_time(gateway: Gateway, ledger: Ledger) -> None:
    add_attempt(gateway, "att-1", now_us() - 3_600_000_000)
    add_attempt(gateway, "att-2", now_us())
    seed(gateway, ledger.url)
    seeded = seed(gateway, ledger.url)
    assert ledger.families()[ATTEMPTS] == {("P", "E1", "success", "200"): 1}
    assert (seeded.early_attempts, seeded.is_complete) == (1, True)


def test_attempts_without_a_time_of_creation_count_by_their_ids_or_are_told(gateway: Gateway, ledger: Ledger) -> None:
    today_us = now_us() // DAY_US * DAY_US
    # An id tells milliseconds, and the birth microseconds.
    for id_ in (ulid(today_us, 1), ulid(now_us() + 1_000, 2), "att-1", "att-2"):
        add_attempt(gateway, id_, None)
    seeded = seed(gateway, ledger.url)
    assert ledger.families()[ATTEMPTS] == {("P", "E1", "success", "200"): 1}
    assert (seeded.rows["attempts"], seeded.early_attempts) == (4, 1)
    [(reason, count)] = seeded.unmergeable.items()
    assert "created_at is NULL" in reason
    assert (count, seeded.is_complete) == (2, False)


def test_a_delivery_without_its_time_of_creation_is_as_old_as_its_id(gateway: Gateway, ledger: Ledger) -> None:
    for days in (3, 40):
        gateway.delivery(ulid(now_us() - days * DAY_US, days), "gone", "Processing", seconds=None, endpoint=f"E{days}")
    seed(gateway, ledger.url)
    ages = ledger.families()["convoy_event_delivery_queue_backlog_seconds"]
    assert {labels[1]: round(age / 86_400) for labels, age in ages.items()} == {"E3": 3, "E40": 40}


def test_one_project_is_seeded_alone(gateway: Gateway, ledger: Ledger) -> None:
    old_rows(gateway, 5, 40)
    old_rows(gateway, 5, 40, project="Q")
    seed(gateway, ledger.url, project="Q")
    assert {labels[0] for labels in ledger.families()[DELIVERIES]} == {"Q"}


def test_groups_beyond_the_cap_count_as_other(gateway: Gateway, ledger: Ledger, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        agree_on(client, rules=(Rule(most_groups=4),))
    for number in range(6):
        gateway.delivery(ulid(now_us() - 40 * DAY_US, number), "gone", "Processing", endpoint=f"E{number}")
    seed(gateway, ledger.url)
    found = statuses(ledger)
    assert found["other", "processing", "other"] == 2
    assert len(found) == 5


def test_what_is_tracked_is_what_the_ledger_still_takes(
    gateway: Gateway, ledger: Ledger, redis_server: RedisServer
) -> None:
    """Every day from long before to now: none is late, none is counted twice, none is missing."""
    with redis_server.client() as client:
        agree_on(client, rules=(Rule(track_days=4),))
    midnight = now_us() // DAY_US * DAY_US
    for days in range(12):
        for number, offset in enumerate((0, DAY_US // 2, DAY_US - 1)):
            id_ = ulid(min(midnight - days * DAY_US + offset, now_us()), number)
            gateway.delivery(id_, "gone", "Success", seconds=None)
            gateway.event(id_)
    gateway.execute("UPDATE convoy.events SET created_at = NULL")
    seeded = seed(gateway, ledger.url)
    assert seeded.is_complete
    assert sum(statuses(ledger).values()) == 36
    assert sum(ledger.families()[EVENTS].values()) == 36
    assert seeded.old_days == 7
    assert seeded.rows["deliveries"] == 15


def statuses(ledger: Ledger) -> dict[tuple[str, str, str], float]:
    """Deliveries by endpoint, status and source."""
    found: dict[tuple[str, str, str], float] = {}
    for labels, count in ledger.families()[DELIVERIES].items():
        key = (labels[2], labels[3], labels[5])
        found[key] = found.get(key, 0) + count
    return found


def old_rows(gateway: Gateway, *days: int, project: str = "P") -> None:
    """A delivery of so many days ago each, whose event is gone."""
    for ago in days:
        gateway.delivery(
            ulid(now_us() - ago * DAY_US, next(_numbers)), "gone", "Success", seconds=ago * 86_400, project=project
        )


def before_each_write(opened: Any, act: Callable[[], None]) -> None:
    """Something happens between the reading of a batch and its merge."""
    write = opened._store.write_each

    def interleaved(records: Any, deadline: float) -> Any:
        act()
        return write(records, deadline)

    opened._store.write_each = interleaved
