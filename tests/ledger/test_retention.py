"""Days that go: expired, folded, no longer tracked; and what comes too late for them."""

import pytest

from otel_queue.ledger.batches import Retention
from otel_queue.lifecycle import (
    AttemptMade,
    DayExpired,
    DeliveryCreated,
    EventCreated,
    ProjectDescribed,
    Record,
    StatusSet,
)
from tests.ledger.ledgers import DAY_US, Ledger, assert_same, day_of, expected, now_us, ulid
from tests.ledger.oracle import ATTEMPTS, DELIVERIES, EVENTS
from tests.servers.redis import RedisServer

NOW_US = now_us()
TODAY, YESTERDAY, DAY_BEFORE = (day_of(NOW_US - days * DAY_US) for days in range(3))


def day_of_work(days_ago: int, size: int = 5) -> list[Record]:
    """Events, deliveries and attempts whose ids are of that day; one delivery is in processing."""
    at = NOW_US - days_ago * DAY_US
    records: list[Record] = []
    for number in range(size):
        id_ = ulid(at, number)
        records += [
            EventCreated("p", id_, at, "S"),
            DeliveryCreated("p", id_, at, f"E{number % 2}", "t", "S", created_us=at),
            StatusSet("p", id_, "success" if number else "processing", at + 1_000),
            AttemptMade("p", id_, at, "E1", True, 200),
        ]
    return records


THREE_DAYS = [*day_of_work(0), *day_of_work(1), *day_of_work(2)]


def keys_of(redis_server: RedisServer, day: str) -> list[bytes]:
    """All keys of a day but its attempt ids, which outlive it."""
    with redis_server.client() as client:
        found: list[bytes] = client.keys(f"oq:*{day}*")
    return [key for key in found if b":attempt-ids:" not in key]


def test_expiring_a_day_subtracts_exactly_that_day(redis_server: RedisServer, ledger: Ledger) -> None:
    ledger.write(*THREE_DAYS)
    assert ledger.upkeep.expire("p", DAY_BEFORE) == 1
    families, now = ledger.read()
    assert_same(families, expected([*THREE_DAYS, DayExpired("p", DAY_BEFORE)], now))
    assert sum(families[DELIVERIES].values()) == 10
    assert sum(families[ATTEMPTS].values()) == 15
    assert keys_of(redis_server, DAY_BEFORE) == []
    assert ledger.differences() == []


@pytest.mark.parametrize("how", ["by the hook's record", "by the operator"])
def test_expiring_a_day_takes_those_before_it_along(redis_server: RedisServer, ledger: Ledger, how: str) -> None:
    ledger.write(*THREE_DAYS)
    if how == "by the operator":
        assert ledger.upkeep.expire("p", YESTERDAY) == 2
    else:
        assert ledger.write(DayExpired("p", YESTERDAY)) == (0, 0, 0, 0)
    families, now = ledger.read()
    assert_same(families, expected([*THREE_DAYS, DayExpired("p", YESTERDAY)], now))
    assert keys_of(redis_server, YESTERDAY) == keys_of(redis_server, DAY_BEFORE) == []


def test_expiring_a_day_again_changes_nothing(ledger: Ledger) -> None:
    ledger.write(*THREE_DAYS)
    ledger.upkeep.expire("p", YESTERDAY)
    before = ledger.snapshot().projects[0].sequence
    assert ledger.upkeep.expire("p", YESTERDAY) == 0
    assert ledger.upkeep.expire("p", DAY_BEFORE) == 0
    assert ledger.snapshot().projects[0].sequence == before


def test_late_records_of_an_expired_day_resurrect_nothing_and_are_counted(
    redis_server: RedisServer, ledger: Ledger
) -> None:
    ledger.write(*THREE_DAYS)
    ledger.upkeep.expire("p", YESTERDAY)
    late = [
        *day_of_work(1),
        *day_of_work(2),
        EventCreated("p", ulid(NOW_US - DAY_US, 99), NOW_US, "S"),
        StatusSet("p", ulid(NOW_US - 2 * DAY_US, 99), "processing", NOW_US),
    ]
    written = ledger.write(*late)
    # The attempts are known, not late: their days have their own window.
    assert written == (0, 10, 32, 0)
    families, now = ledger.read()
    assert_same(families, expected([*THREE_DAYS, DayExpired("p", YESTERDAY), *late], now))
    assert sum(families[DELIVERIES].values()) == 5
    assert ledger.snapshot().projects[0].tallies["late:delivery"] == 21
    assert ledger.snapshot().projects[0].tallies["late:event"] == 11
    assert keys_of(redis_server, YESTERDAY) == keys_of(redis_server, DAY_BEFORE) == []


def test_a_day_of_many_ids_goes_with_all_its_nodes(redis_server: RedisServer, ledger: Ledger) -> None:
    ledger.write(*day_of_work(1, size=3_000))
    assert len(keys_of(redis_server, YESTERDAY)) > 2 * 17
    ledger.upkeep.expire("p", YESTERDAY)
    assert keys_of(redis_server, YESTERDAY) == []
    assert ledger.families()[EVENTS] == {}


def test_a_project_that_has_only_late_records_is_there_and_empty(ledger: Ledger) -> None:
    ledger.write(EventCreated("p", ulid(NOW_US - 40 * DAY_US, 1), NOW_US, "S"))
    snapshot = ledger.snapshot()
    assert snapshot.failures == {}
    assert snapshot.projects[0].tallies == {"late:event": 1}


def test_a_project_whose_first_record_is_an_expired_day_is_there_and_empty(ledger: Ledger) -> None:
    ledger.write(DayExpired("p", YESTERDAY))
    assert ledger.snapshot().failures == {}
    assert ledger.write(*day_of_work(1)) == (5, 0, 15, 0)
    assert ledger.families()[EVENTS] == {}


def test_what_an_attempt_counted_outlives_its_day(ledger: Ledger) -> None:
    ledger.write(*day_of_work(1))
    ledger.upkeep.expire("p", YESTERDAY)
    assert ledger.families()[ATTEMPTS] == {("p", "E1", "success", "200"): 5.0}


def test_attempts_older_than_their_window_are_late_and_not_counted(ledger: Ledger) -> None:
    inside, outside = (AttemptMade("p", ulid(NOW_US - days * DAY_US, 1), NOW_US, "E1", True, 200) for days in (7, 9))
    assert ledger.write(inside, outside, outside) == (1, 0, 2, 0)
    [project] = ledger.snapshot().projects
    assert (sum(project.attempts.values()), project.tallies["late:attempt"]) == (1, 2)


def test_days_older_than_is_tracked_are_late(redis_server: RedisServer) -> None:
    ledger = Ledger(redis_server.url, Retention(track_days=2))
    inside, outside = ulid(NOW_US - 2 * DAY_US, 1), ulid(NOW_US - 4 * DAY_US, 1)
    records = [EventCreated("p", id_, NOW_US, "S") for id_ in (inside, outside)]
    assert ledger.write(*records) == (1, 0, 1, 0)
    families, now = ledger.read()
    assert_same(families, expected(records, now, track_days=2))
    ledger.close()


def test_folding_days_changes_nothing_that_is_exported(redis_server: RedisServer, ledger: Ledger) -> None:
    ledger.write(*THREE_DAYS)
    assert ledger.upkeep.fold("p", YESTERDAY) == 2
    families, now = ledger.read()
    assert_same(families, expected(THREE_DAYS, now))
    assert ledger.upkeep.fold("p", YESTERDAY) == 0
    assert ledger.differences() == []
    with redis_server.client() as client:
        # Only what is tracked stays, until its TTL.
        assert {key.split(b":")[2] for key in keys_of(redis_server, YESTERDAY)} == {b"deliveries", b"events"}
        assert all(client.ttl(key) > 0 for key in keys_of(redis_server, YESTERDAY))


def test_records_of_a_folded_day_are_late(ledger: Ledger) -> None:
    ledger.write(*THREE_DAYS)
    ledger.upkeep.fold("p", YESTERDAY)
    before = ledger.families()[DELIVERIES]
    assert ledger.write(StatusSet("p", ulid(NOW_US - DAY_US, 0), "success", NOW_US)) == (0, 0, 1, 0)
    assert ledger.families()[DELIVERIES] == before
    assert ledger.upkeep.expire("p", TODAY) == 1
    assert sum(ledger.families()[DELIVERIES].values()) == 10, "what was folded is settled and does not expire"


def test_ids_that_tell_no_day_do_not_expire(ledger: Ledger) -> None:
    records: list[Record] = [
        EventCreated("p", "legacy-event", NOW_US, "S"),
        DeliveryCreated("p", "legacy-delivery", NOW_US, "E", "t", "S"),
        AttemptMade("p", "legacy-attempt", NOW_US, "E", True, 200),
    ]
    assert ledger.write(*records, *records) == (3, 3, 0, 0)
    assert ledger.upkeep.expire("p", "20991231") == 0
    assert ledger.upkeep.fold("p", "20991231") == 0
    families, now = ledger.read()
    assert_same(families, expected(records, now))


def test_a_time_ahead_of_redis_is_clamped_so_a_later_status_still_stands(redis_server: RedisServer) -> None:
    ledger = Ledger(redis_server.url, Retention(max_skew_us=0))
    ahead = StatusSet("p", "d", "processing", now_us() + DAY_US, "E", "t", "S")
    assert ledger.write(ahead) == (1, 0, 0, 1)
    assert ledger.write(StatusSet("p", "d", "retry", now_us())) == (1, 0, 0, 0)
    assert list(ledger.families()[DELIVERIES]) == [("p", "", "E", "retry", "t", "S", "", "")]
    assert ledger.snapshot().projects[0].tallies["clamped:delivery"] == 1
    ledger.close()


def test_within_the_allowed_skew_nothing_is_clamped(ledger: Ledger) -> None:
    assert ledger.write(StatusSet("p", "d", "success", now_us() + 4_000_000)).clamped == 0


def test_a_rename_moves_no_counts(ledger: Ledger) -> None:
    ledger.write(*day_of_work(0), ProjectDescribed("p", NOW_US, "Old", "o", "Org"))
    before = ledger.snapshot().projects[0].deliveries
    ledger.write(ProjectDescribed("p", NOW_US + 1, "New", "o", "Org"), ProjectDescribed("p", NOW_US - 1, "Older"))
    [project] = ledger.snapshot().projects
    assert (project.names, project.deliveries) == (("New", "o", "Org"), before)
