"""Merging takes what rows say into the ledger that hooks write, and never undoes what a hook knows better."""

from collections.abc import Iterator

import pytest

from otel_queue.errors import OtelQueueError
from otel_queue.ledger.contract import Rule
from otel_queue.lifecycle import (
    AttemptMade,
    DeliveryCreated,
    DeliveryRead,
    EventCreated,
    ProjectDescribed,
    Record,
    StatusSet,
)
from tests.ledger.ledgers import DAY_US, assert_same, now_us, ulid
from tests.ledger.merging import HOUR_US, SECOND_US, SKEW_US, TwoLedgers, found, total
from tests.servers.redis import RedisServer

NOW_US = now_us()
# When rows were read, long before the last sweep.
READ_US = NOW_US - HOUR_US


def id_of(number: int, ago_us: int = 2 * HOUR_US) -> str:
    return ulid(NOW_US - ago_us, number)


@pytest.fixture
def ledgers(redis_server: RedisServer) -> Iterator[TwoLedgers]:
    opened = TwoLedgers(redis_server)
    yield opened
    opened.close()


def row(number: int, status: str, read_us: int = READ_US, endpoint: str = "E", **told: str) -> DeliveryRead:
    """A delivery's row, created a second after its id."""
    created_us = NOW_US - 2 * HOUR_US + SECOND_US
    return DeliveryRead("p", id_of(number), status, read_us, endpoint, "t", "S", created_us=created_us, **told)


def many(status: str = "success", count: int = 100) -> list[Record]:
    """Deliveries on which both ledgers agree, so that a few changes are few."""
    return [row(1_000 + number, status) for number in range(count)]


def a_little_of_everything() -> list[Record]:
    return [
        EventCreated("p", id_of(1), READ_US, "S"),
        EventCreated("p", "undated-event", READ_US, None),
        DeliveryCreated("p", id_of(1), READ_US, "E", "t", "S", created_us=NOW_US - 2 * HOUR_US),
        row(2, "processing"),
        row(3, "success"),
        DeliveryRead("p", "undated", "failure", READ_US, "E", None, None, created_us=NOW_US - HOUR_US),
        DeliveryRead("q {r}", id_of(4), "retry", READ_US, None, "t"),
        AttemptMade("p", id_of(1), READ_US, "E", True, 200),
        AttemptMade("p", id_of(2), READ_US, "E", False, None),
        ProjectDescribed("p", READ_US, "Name", "O", "Organisation"),
    ]


def test_an_empty_ledger_is_seeded_with_all_that_the_rows_say(ledgers: TwoLedgers) -> None:
    ledgers.follow(*a_little_of_everything())
    report = ledgers.merge()
    assert report.is_clean
    assert found(report) == {
        "attempt added": 2, "delivery added": 5, "description": 1, "event added": 2,
    }  # fmt: skip
    assert_same(ledgers.families(), ledgers.families(of_rows=True))
    ledgers.assert_counts_add_up()


def test_what_agrees_is_left_alone(ledgers: TwoLedgers) -> None:
    ledgers.follow(*a_little_of_everything())
    ledgers.merge()
    before = ledgers.keys()
    report = ledgers.merge()
    assert (found(report), dict(report.moving), dict(report.left)) == ({}, {}, {})
    assert ledgers.keys() == before


def test_a_dry_run_says_the_same_and_writes_nothing(ledgers: TwoLedgers) -> None:
    ledgers.follow(*a_little_of_everything())
    before = ledgers.keys()
    report = ledgers.merge(is_dry=True)
    assert not report.is_clean
    assert ledgers.keys() == before
    assert ledgers.merge().merged == report.merged


def test_a_status_that_a_hook_lost_is_told(ledgers: TwoLedgers) -> None:
    ledgers.follow(*many(), row(1, "success"))
    ledgers.hook(*many(), row(1, "processing", READ_US - 60 * SECOND_US))
    assert found(ledgers.merge()) == {"delivery status": 1}
    assert ledgers.statuses() == {("E", "success"): 101}
    assert found(ledgers.merge()) == {}


def test_a_status_that_was_never_committed_gives_way_once_all_rows_were_read_again(ledgers: TwoLedgers) -> None:
    """A hook told of a write that the database undid: the row is as it was read long before."""
    ledgers.follow(*many(), row(1, "processing"))
    ledgers.hook(*many(), row(1, "processing"), StatusSet("p", id_of(1), "success", READ_US + HOUR_US // 2))
    ledgers.sweep(READ_US)
    report = ledgers.merge()
    assert (found(report).get("delivery status"), report.moving["p", "delivery"]) == (None, 1)
    ledgers.sweep(NOW_US)
    assert found(ledgers.merge()) == {"delivery status": 1}
    assert ledgers.statuses()["E", "processing"] == 1


def test_a_status_that_may_be_newer_than_the_row_stays(ledgers: TwoLedgers) -> None:
    ledgers.sweep(READ_US)
    ledgers.follow(*many(), row(1, "processing"))
    for told_us in (READ_US - SKEW_US, READ_US, READ_US + SKEW_US, now_us()):
        ledgers.hook(*many(), StatusSet("p", id_of(1), "success", told_us, "E", "t", "S"))
        report = ledgers.merge(force=True)
        assert report.moving["p", "delivery"] == 1
        assert ledgers.statuses() == {("E", "success"): 101}


def test_a_hook_that_tells_an_earlier_write_after_the_merge_changes_nothing(ledgers: TwoLedgers) -> None:
    """Its clock is ahead by almost as much as may be, so that its time is later than the reading."""
    ledgers.follow(*many(), row(1, "success"))
    ledgers.hook(*many(), row(1, "processing", READ_US - 60 * SECOND_US))
    ledgers.merge()
    ledgers.hook(StatusSet("p", id_of(1), "retry", READ_US + SKEW_US))
    assert ledgers.statuses() == {("E", "success"): 101}


def test_a_row_that_was_just_read_is_left_for_the_next_run(ledgers: TwoLedgers) -> None:
    ledgers.follow(row(1, "success", now_us()))
    report = ledgers.merge()
    assert (found(report).get("delivery added"), report.moving["p", "delivery"]) == (None, 1)


def test_a_row_that_is_as_it_was_created_sets_no_status(ledgers: TwoLedgers) -> None:
    """So a worker whose clock is a minute slow still moves the delivery on."""
    created = DeliveryCreated("p", id_of(1), READ_US, "E", "t", "S", created_us=NOW_US - 2 * HOUR_US)
    ledgers.follow(created)
    ledgers.merge()
    assert ledgers.statuses() == {("E", "scheduled"): 1}
    ledgers.hook(StatusSet("p", id_of(1), "processing", NOW_US - 2 * HOUR_US - 60 * SECOND_US))
    assert ledgers.statuses() == {("E", "processing"): 1}
    report = ledgers.merge(force=True)
    assert ledgers.statuses() == {("E", "processing"): 1}
    assert report.left == {("p", "delivery status: its row is as it was created"): 1}


ESTIMATES = {
    "half a second early": (-SECOND_US // 2, 0),
    "two seconds early": (-2 * SECOND_US, 1),
    "late": (9_000_000, 1),
}


@pytest.mark.parametrize("name", ESTIMATES)
def test_an_estimated_creation_time_is_a_difference_beyond_a_second(ledgers: TwoLedgers, name: str) -> None:
    """A gateway was seen whose hooks are off by a millisecond for hundreds of deliveries, each "repaired" before."""
    off_us, differences = ESTIMATES[name]
    real_us = NOW_US - HOUR_US
    ledgers.follow(DeliveryRead("p", id_of(1), "processing", READ_US, "E", "t", "S", created_us=real_us))
    ledgers.hook(
        DeliveryCreated("p", id_of(1), READ_US, "E", "t", "S", created_us=real_us + off_us),
        StatusSet("p", id_of(1), "processing", READ_US),
    )
    assert total(ledgers.merge(), "delivery creation time") == differences
    assert total(ledgers.merge(), "delivery creation time") == 0
    # What a hook tells later does not bring the estimate back.
    ledgers.hook(DeliveryCreated("p", id_of(1), READ_US, "E", "t", "S", created_us=real_us + off_us))
    assert total(ledgers.merge(), "delivery creation time") == 0


def test_labels_are_set_right_and_the_status_stays_what_hooks_made_it(ledgers: TwoLedgers) -> None:
    ledgers.follow(row(1, "success"))
    ledgers.hook(DeliveryCreated("p", id_of(1), READ_US - 1, "wrong", "t", "S"), row(1, "success", endpoint="wrong"))
    told = found(ledgers.merge())
    assert (told["delivery endpoint"], "delivery status" in told) == (1, False)
    assert ledgers.statuses() == {("E", "success"): 1}
    # A hook that was late with an earlier write loses as it would have, and with a later one wins.
    ledgers.hook(StatusSet("p", id_of(1), "processing", READ_US - 1, "wrong again"))
    assert ledgers.statuses() == {("E", "success"): 1}
    ledgers.hook(StatusSet("p", id_of(1), "retry", READ_US + 2, "wrong again"))
    assert ledgers.statuses() == {("E", "retry"): 1}


def test_labels_that_the_row_has_anew_follow_it(ledgers: TwoLedgers) -> None:
    """Where nothing but the label changed since it was merged before."""
    for number, status in ((1, "success"), (2, "scheduled")):
        ledgers.follow(row(number, status))
        ledgers.hook(DeliveryCreated("p", id_of(number), READ_US - 9, "hooks'", "t", "S"))
    ledgers.merge(force=True)
    for step, endpoint in enumerate(("Z", "A", "M"), start=1):
        ledgers.follow(
            *(row(number, status, READ_US + step, endpoint) for number, status in ((1, "success"), (2, "scheduled")))
        )
        assert found(ledgers.merge()) == {"delivery endpoint": 2}
        assert set(ledgers.statuses()) == {(endpoint, "success"), (endpoint, "scheduled")}


def test_a_source_of_an_event_is_set_right(ledgers: TwoLedgers) -> None:
    ledgers.follow(EventCreated("p", id_of(1), READ_US, "S"))
    ledgers.hook(EventCreated("p", id_of(1), READ_US - HOUR_US, "wrong"))
    assert found(ledgers.merge()) == {"event source": 1}
    assert ledgers.families()["convoy_event_queue_total"] == {("p", "S", "success"): 1}
    assert found(ledgers.merge()) == {}


def test_attempts_that_hooks_lost_are_added_with_their_labels(ledgers: TwoLedgers) -> None:
    told = [
        AttemptMade("p", id_of(number), READ_US, "E", number % 2 == 0, (200, 503)[number % 2]) for number in range(4)
    ]
    ledgers.follow(*told, AttemptMade("p", "undated", READ_US, None, False))
    ledgers.hook(*told[:3], AttemptMade("p", id_of(9), READ_US, "E", True, 200))
    assert total(ledgers.merge(), "attempt added") == 2
    assert ledgers.families()["convoy_event_delivery_attempts_total"] == {
        ("p", "E", "success", "200"): 3, ("p", "E", "failure", "503"): 2, ("p", "", "failure", "none"): 1,
    }  # fmt: skip
    assert found(ledgers.merge()) == {}


def test_attempts_with_ids_that_no_row_has_are_not_counted_twice(ledgers: TwoLedgers) -> None:
    ledgers.follow(row(1, "success"), *(AttemptMade("p", id_of(number), READ_US, "E", True) for number in range(30)))
    ledgers.hook(*(AttemptMade("p", id_of(100 + number), READ_US, "E", True) for number in range(30)))
    before = ledgers.keys()
    with pytest.raises(OtelQueueError, match=r"30 of 30 attempts have ids without a row.*--no-attempts"):
        ledgers.merge()
    assert ledgers.keys() == before
    assert found(ledgers.merge(with_attempts=False)) == {"delivery added": 1}


def test_attempts_from_before_any_known_id_are_carried_once(ledgers: TwoLedgers) -> None:
    ledgers.follow(*(AttemptMade("p", id_of(number), READ_US, "E", True, 200) for number in range(3)))
    ledgers.client.hincrby("oq-db:{p}:attempts", "E\0success\x00200", 1_000)
    ledgers.client.hincrby("oq-db:{p}:attempts", "E\0failure\x00none", 5)
    assert total(ledgers.merge(), "attempt from before") == 1_005
    expected = {("p", "E", "success", "200"): 1_003, ("p", "E", "failure", "none"): 5}
    assert ledgers.families()["convoy_event_delivery_attempts_total"] == expected
    # Ids that are forgotten meanwhile were merged by their ids.
    ledgers.client.delete(*ledgers.client.keys("oq-db:{p}:attempt-ids:*"))
    assert found(ledgers.merge()) == {}
    assert ledgers.families()["convoy_event_delivery_attempts_total"] == expected


def test_a_ledger_that_counted_before_the_window_keeps_its_own_count(ledgers: TwoLedgers) -> None:
    ledgers.follow(AttemptMade("p", id_of(1), READ_US, "E", True, 200))
    ledgers.client.hincrby("oq-db:{p}:attempts", "E\0success\x00200", 1_000)
    contract = ledgers.hooks.upkeep.contract()
    for key in ("oq:contract",):
        text = contract.text().replace(str(contract.birth_us).encode(), str(NOW_US - 20 * DAY_US).encode())
        ledgers.client.set(key, text)
    assert found(ledgers.merge()) == {"attempt added": 1}


def test_ledgers_with_other_rules_are_refused(redis_server: RedisServer) -> None:
    ledgers = TwoLedgers(redis_server, rule=Rule(), rows_rule=Rule(track_days=20))
    with pytest.raises(
        OtelQueueError,
        match=r"'oq-db' at .* has the contract 2;5000000;00000000:20:7:100000; and .*'oq' at .* has 2;5000000;0{8}:30:",
    ):
        ledgers.merge()
    ledgers.close()


def test_a_follower_that_has_not_read_all_rows_is_not_merged(redis_server: RedisServer) -> None:
    ledgers = TwoLedgers(redis_server, swept_us=0)
    with pytest.raises(OtelQueueError, match="does not hold all rows yet"):
        ledgers.merge()
    ledgers.close()
