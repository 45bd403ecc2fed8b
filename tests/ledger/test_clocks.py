"""Writers whose clocks disagree: what is created comes first, and a time far ahead of Redis wins nothing by it."""

from itertools import permutations

import pytest

from otel_queue.lifecycle import DeliveryCreated, Record, StatusSet
from tests.ledger.ledgers import DAY_US, Ledger, assert_same, expected, now_us, ulid
from tests.ledger.oracle import DELIVERIES
from tests.servers.redis import RedisServer

NOW_US = now_us()
ID = ulid(NOW_US - 60_000_000, 7)


def status_of(ledger: Ledger) -> str:
    [(_, _, _, status, *_)] = ledger.families()[DELIVERIES]
    return status


@pytest.mark.parametrize("ahead_us", [500_000, 4_000_000, 60_000_000], ids=["0.5 s", "4 s", "a minute"])
def test_the_creators_clock_decides_no_status(redis_server: RedisServer, ledger: Ledger, ahead_us: int) -> None:
    """A creator that is ahead used to leave its delivery `scheduled` for ever."""
    at = now_us()
    told: list[Record] = [
        DeliveryCreated("p", ID, at + ahead_us, "E", "t", "S"),
        StatusSet("p", ID, "processing", at + 100_000),
        StatusSet("p", ID, "success", at + 200_000),
    ]
    for order in permutations(told):
        with redis_server.client() as client:
            client.flushall()
        ledger.upkeep.begin()
        for record in order:
            ledger.write(record)
        assert status_of(ledger) == "success"


def test_of_created_records_alone_the_latest_tells_the_status(ledger: Ledger) -> None:
    told: list[Record] = [
        DeliveryCreated("p", ID, NOW_US, "E", "t", "S", status="discarded"),
        DeliveryCreated("p", ID, NOW_US - 1, "E", "t", "S"),
    ]
    ledger.write(*told)
    families, now = ledger.read()
    assert_same(families, expected(told, now))
    assert status_of(ledger) == "discarded"


HOURS_AHEAD_US = 5 * 3_600_000_000


def test_a_status_from_hours_ahead_gives_way_to_a_truthful_one_that_comes_after_it(ledger: Ledger) -> None:
    assert ledger.write(StatusSet("p", ID, "processing", now_us() + HOURS_AHEAD_US, "E", "t", "S")).clamped == 1
    assert ledger.write(StatusSet("p", ID, "success", now_us())) == (1, 0, 0, 0)
    assert status_of(ledger) == "success"


def test_a_status_from_hours_ahead_that_is_told_again_is_a_duplicate(ledger: Ledger) -> None:
    ahead: list[Record] = [
        DeliveryCreated("p", ID, now_us() + HOURS_AHEAD_US, "E", "t", "S"),
        StatusSet("p", ID, "processing", now_us() + HOURS_AHEAD_US),
        StatusSet("p", ID, "retry", now_us() + HOURS_AHEAD_US + 1_000),
    ]
    assert ledger.write(*ahead) == (3, 0, 0, 3)
    assert status_of(ledger) == "retry"
    # The writer did not hear the answer; meanwhile another one, with a good clock, says what came of it.
    assert ledger.write(StatusSet("p", ID, "success", now_us())) == (1, 0, 0, 0)
    assert ledger.write(*ahead) == (0, 3, 0, 3)
    assert status_of(ledger) == "success"


def test_within_the_allowed_skew_a_time_stands_as_told(redis_server: RedisServer) -> None:
    ledger = Ledger(redis_server.url, max_skew_us=60_000_000)
    ledger.write(StatusSet("p", ID, "success", now_us() + 50_000_000, "E", "t", "S"))
    ledger.write(StatusSet("p", ID, "retry", now_us() + 40_000_000))
    assert status_of(ledger) == "success"
    ledger.close()


def test_times_far_from_that_of_the_id_are_kept_to_the_microsecond(ledger: Ledger) -> None:
    for number, distance in enumerate((0, 1, 127, 128, 2**31, 2**40, 40 * 365 * DAY_US)):
        created = max(NOW_US - distance, 1)
        told: list[Record] = [
            DeliveryCreated("p", ulid(NOW_US, number), created, "E", "t", f"S{number}", "processing", created),
            StatusSet("p", ulid(NOW_US, number), "processing", NOW_US + number),
        ]
        ledger.write(*told)
        families, now = ledger.read()
        source = ("p", f"S{number}")
        waited = families["convoy_event_queue_backlog_seconds"][source]
        assert waited == pytest.approx(now - created / 1e6, abs=1e-3)
        assert ledger.write(*told) == (0, 2, 0, 0)
    assert ledger.differences() == []
