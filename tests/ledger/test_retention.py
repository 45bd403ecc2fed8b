"""Days that go: expired, folded, no longer tracked; and what comes too late for them."""

import time
from importlib import resources

import pytest

from otel_queue.config import RedisConfig
from otel_queue.errors import OtelQueueError
from otel_queue.ledger.contract import Contract, Rule
from otel_queue.ledger.scripts import script
from otel_queue.ledger.tracked import Description, Tracked
from otel_queue.lifecycle import (
    AttemptMade,
    DayExpired,
    DeliveryCreated,
    EventCreated,
    ProjectDescribed,
    Record,
    StatusSet,
)
from otel_queue.redis_client import connect
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


@pytest.mark.parametrize("day", [TODAY, day_of(NOW_US + DAY_US), "20991231", "99999999"])
def test_a_day_that_is_not_over_is_closed_by_nobody(redis_server: RedisServer, ledger: Ledger, day: str) -> None:
    ledger.write(*THREE_DAYS)
    with pytest.raises(OtelQueueError, match=f"^{day} is not over by Redis's clock"):
        ledger.upkeep.expire("p", day)
    assert ledger.write(DayExpired("p", day)) == (0, 0, 0, 1)
    families, now = ledger.read()
    assert_same(families, expected(THREE_DAYS, now))
    assert ledger.write(EventCreated("p", ulid(NOW_US, 99), NOW_US, "S")) == (1, 0, 0, 0)
    assert ledger.snapshot().projects[0].tallies == {"clamped:day": 1}
    with redis_server.client() as client:
        assert client.hmget("oq:{p}:meta", "expired", "settled") == [None, None]


def test_the_script_too_refuses_a_day_that_is_not_over(redis_server: RedisServer) -> None:
    call = script("expire_day").text.decode(), 2, "oq:{p}:meta", "oq:{p}:days", Contract(NOW_US).text()
    with redis_server.client() as client:
        assert client.eval(*call, day_of(NOW_US + DAY_US)) == [0, 0, 0, 1]
        assert client.hget("oq:{p}:meta", "expired") is None
        client.eval(*call, YESTERDAY)
        assert client.hget("oq:{p}:meta", "expired") == YESTERDAY.encode()


def test_the_scripts_know_the_day_that_it_is_until_the_last_day_of_ids(redis_server: RedisServer) -> None:
    text = (resources.files("otel_queue.ledger") / "contract.lua").read_text(encoding="utf-8")
    at_any_time = text.replace("redis.call('TIME')", "{ARGV[3], 0}")
    assert at_any_time != text
    contract = Contract(NOW_US).text()
    times = [*range(1_451_606_400, 4_102_444_800, 86_400), *range(1_451_606_399 + 86_400, 4_102_444_800, 86_400)]
    with redis_server.client() as client:
        pipe = client.pipeline(transaction=False)
        for second in times:
            pipe.eval(f"{at_any_time} return {{today(), end_of(today())}}", 1, "oq:{p}:meta", contract, "", second)
        assert [(day.decode(), end) for day, end in pipe.execute()] == [
            (day_of(second * 1_000_000), second // 86_400 * 86_400 + 86_400) for second in times
        ]


def test_a_ledger_begins_and_ages_by_the_clock_of_redis(
    redis_server: RedisServer, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    truly = time.time
    ledger.write(*THREE_DAYS)
    with redis_server.client() as client:
        client.delete("oq:contract")
    monkeypatch.setattr(time, "time", lambda: truly() + 40 * 86_400)
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    assert ledger.upkeep.begin()
    assert ledger.upkeep.day_before(2) == DAY_BEFORE
    assert abs(ledger.snapshot().birth_us - truly() * 1e6) < DAY_US


def test_a_project_whose_first_record_is_a_day_that_is_not_over_is_there_and_empty(ledger: Ledger) -> None:
    ledger.write(DayExpired("p", TODAY))
    snapshot = ledger.snapshot()
    assert snapshot.failures == {}
    assert snapshot.projects[0].tallies == {"clamped:day": 1}


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
    ledger = Ledger(redis_server.url, Rule(track_days=2))
    inside, outside = ulid(NOW_US - 2 * DAY_US, 1), ulid(NOW_US - 4 * DAY_US, 1)
    records = [EventCreated("p", id_, NOW_US, "S") for id_ in (inside, outside)]
    assert ledger.write(*records) == (1, 0, 1, 0)
    families, now = ledger.read()
    assert_same(families, expected(records, now, track_days=2))
    ledger.close()


def test_a_time_ahead_of_redis_is_clamped_so_a_later_status_still_stands(redis_server: RedisServer) -> None:
    ledger = Ledger(redis_server.url, max_skew_us=0)
    ahead = StatusSet("p", "d", "processing", now_us() + DAY_US, "E", "t", "S")
    assert ledger.write(ahead) == (1, 0, 0, 1)
    assert ledger.write(StatusSet("p", "d", "retry", now_us())) == (1, 0, 0, 0)
    assert list(ledger.families()[DELIVERIES]) == [("p", "", "E", "retry", "t", "S", "", "")]
    assert ledger.snapshot().projects[0].tallies["clamped:delivery"] == 1
    ledger.close()


def test_within_the_allowed_skew_nothing_is_clamped(ledger: Ledger) -> None:
    assert ledger.write(StatusSet("p", "d", "success", now_us() + 4_000_000)).clamped == 0


def test_a_description_ahead_of_redis_is_clamped_so_a_later_name_still_stands(redis_server: RedisServer) -> None:
    ledger = Ledger(redis_server.url, max_skew_us=0)
    assert ledger.write(ProjectDescribed("p", now_us() + 365 * DAY_US, "Old", "o", "Org")) == (0, 0, 0, 1)
    ledger.write(ProjectDescribed("p", NOW_US, "Older", "o", "Org"))
    assert ledger.snapshot().projects[0].names == ("Old", "o", "Org")
    assert ledger.write(ProjectDescribed("p", now_us(), "New", "o", "Org")) == (0, 0, 0, 0)
    [project] = ledger.snapshot().projects
    assert (project.names, project.tallies) == (("New", "o", "Org"), {"clamped:project": 1})
    ledger.close()


def test_names_that_are_kept_with_a_time_ahead_of_redis_are_replaced(redis_server: RedisServer, ledger: Ledger) -> None:
    """As a writer of before 0.3.0 left them, or Redis's own clock."""
    ledger.write(ProjectDescribed("p", NOW_US, "Old"))
    with redis_server.client() as client:
        client.hset("oq:{p}:meta", "described_at", NOW_US + 365 * DAY_US)
    tracked = Tracked(connect(RedisConfig(url=ledger.url)))
    assert tracked.descriptions(["p"]) == [Description(0, ("Old", "", ""))]
    ledger.write(ProjectDescribed("p", NOW_US - 1, "New"))
    assert tracked.descriptions(["p"]) == [Description(NOW_US - 1, ("New", "", ""))]
    tracked.close()


def test_a_rename_moves_no_counts(ledger: Ledger) -> None:
    ledger.write(*day_of_work(0), ProjectDescribed("p", NOW_US, "Old", "o", "Org"))
    before = ledger.snapshot().projects[0].deliveries
    ledger.write(ProjectDescribed("p", NOW_US + 1, "New", "o", "Org"), ProjectDescribed("p", NOW_US - 1, "Older"))
    [project] = ledger.snapshot().projects
    assert (project.names, project.deliveries) == (("New", "o", "Org"), before)
