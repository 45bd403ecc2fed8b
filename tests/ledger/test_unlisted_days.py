"""A project whose list of days was lost has its counts still, and is neither empty nor smaller."""

from typing import Any

import pytest

from otel_queue.config import RedisConfig
from otel_queue.ledger.contract import Rule
from otel_queue.ledger.identity import identify
from otel_queue.ledger.reader import LedgerReader
from otel_queue.ledger.tracked import Place, Tracked
from otel_queue.lifecycle import AttemptMade, DayExpired, EventCreated, ProjectDescribed, Record
from otel_queue.redis_client import connect
from tests.ledger.ledgers import DAY_US, Ledger, assert_same, day_of, expected, families_of, fold, now_us, ulid
from tests.servers.redis import RedisServer

NOW_US = now_us()
TODAY, YESTERDAY, LONG_AGO_US = day_of(NOW_US), day_of(NOW_US - DAY_US), NOW_US - 60 * DAY_US
LONG_AGO = day_of(LONG_AGO_US)
RECORDS: list[Record] = [
    EventCreated("p", ulid(NOW_US, 1), NOW_US, "S"),
    EventCreated("p", ulid(LONG_AGO_US, 1), LONG_AGO_US, "S"),
    AttemptMade("p", ulid(NOW_US, 1), NOW_US, "E", True, 200),
]
RULE = Rule(track_days=90)


@pytest.fixture
def filled(redis_server: RedisServer) -> Any:
    opened = Ledger(redis_server.url, RULE)
    opened.write(*RECORDS)
    yield opened
    opened.close()


def new_reader(ledger: Ledger) -> LedgerReader:
    return LedgerReader(connect(RedisConfig(url=ledger.url)))


def test_a_reader_that_knows_the_project_says_so_though_one_of_its_days_goes_on(
    filled: Ledger, redis_server: RedisServer
) -> None:
    """The next record lists its own day again: what is left would look whole."""
    reader = new_reader(filled)
    assert reader.snapshot().failures == {}
    with redis_server.client() as client:
        client.delete("oq:{p}:days")
    more = [EventCreated("p", ulid(NOW_US, number), NOW_US, "S") for number in (2, 3)]
    for record in more:
        filled.write(record)
        assert reader.snapshot().failures == {"day_unlisted": 1}
    assert filled.upkeep.list_again("p") == [LONG_AGO, "attempts"]
    snapshot = reader.snapshot()
    assert_same(families_of(snapshot), expected([*RECORDS, *more], snapshot.time, track_days=90))


def test_a_reader_that_knows_the_project_misses_any_of_its_days(filled: Ledger, redis_server: RedisServer) -> None:
    reader = new_reader(filled)
    assert reader.snapshot().failures == {}
    with redis_server.client() as client:
        client.zrem("oq:{p}:days", LONG_AGO)
    filled.write(EventCreated("p", ulid(NOW_US, 2), NOW_US, "S"))
    assert reader.snapshot().failures == {"day_unlisted": 1}


def test_a_new_reader_finds_days_of_the_last_month(filled: Ledger, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.zrem("oq:{p}:days", TODAY)
    assert new_reader(filled).snapshot().failures == {"day_unlisted": 1}


def test_days_are_listed_again_as_they_are_and_once(filled: Ledger, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        assert filled.upkeep.unlisted("p") == []
        client.delete("oq:{p}:days")
        assert filled.upkeep.unlisted("p") == [TODAY, LONG_AGO, "attempts"]
        assert filled.upkeep.list_again("p") == [TODAY, LONG_AGO, "attempts"]
        assert filled.upkeep.list_again("p") == []
        assert len({score for _, score in client.zrange("oq:{p}:days", 0, -1, withscores=True)}) == 3
    families, now = filled.read()
    assert_same(families, expected(RECORDS, now, track_days=90))
    assert filled.differences() == []


@pytest.mark.parametrize("gone", ["never counted", "expired", "folded", "forgotten"])
def test_a_project_that_has_no_days_for_a_good_reason_is_whole(
    filled: Ledger, redis_server: RedisServer, gone: str
) -> None:
    reader = new_reader(filled)
    event = EventCreated("q", ulid(NOW_US - DAY_US, 1), NOW_US, "S")
    filled.write(ProjectDescribed("q", NOW_US, "name") if gone == "never counted" else event)
    assert reader.snapshot().failures == {}
    if gone == "expired":
        filled.write(DayExpired("q", YESTERDAY))
        with redis_server.client() as client:  # what is left of a day that was not listed when it expired
            client.hset(f"oq:{{q}}:counts:{YESTERDAY}", "1:e", 1)
            client.expire(f"oq:{{q}}:counts:{YESTERDAY}", 60)
    elif gone == "folded":
        with redis_server.client() as client:
            fold(client, "q", YESTERDAY)
    elif gone == "forgotten":
        place, identity = Place("event", "q", YESTERDAY), identify(event.event_id)
        tracked = Tracked(connect(RedisConfig(url=filled.url)))
        [state] = tracked.find({place: [identity]})[place].states
        assert state is not None
        assert tracked.forget(place, [(identity, state)]) == [True]
    for each in (reader, new_reader(filled)):
        snapshot = each.snapshot()
        assert snapshot.failures == {}
        [events] = [sum(project.events.values()) for project in snapshot.projects if project.project == "q"]
        assert events == (gone == "folded")
    assert filled.upkeep.unlisted("q") == []
