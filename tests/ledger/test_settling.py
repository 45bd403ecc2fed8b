"""What ends by itself: tracking of days, undated ids, groups; and what stays known all the same."""

from collections.abc import Callable
from typing import Any

import pytest
import redis

from otel_queue.ledger.contract import Rule
from otel_queue.ledger.identity import end_of
from otel_queue.ledger.scripts import script
from otel_queue.lifecycle import AttemptMade, DayExpired, DeliveryCreated, EventCreated, Record, StatusSet
from tests.ledger.ledgers import (
    DAY_US,
    FIRST_NUMBERED,
    Ledger,
    agree_on,
    assert_same,
    contents,
    day_of,
    expected,
    now_us,
    ulid,
)
from tests.ledger.oracle import ATTEMPTS, DELIVERIES, DELIVERY_BACKLOG

NOW_US = now_us()
AGO_US = NOW_US - 5 * DAY_US
DAY = day_of(AGO_US)
DONE, WAITING, RUNNING, RETRYING = (ulid(AGO_US, number) for number in range(4))
STATUSES = {DONE: "success", RUNNING: "processing", RETRYING: "retry"}


def of_a_day() -> list[Record]:
    """Four deliveries of five days ago, three of them not final, and as many events."""
    told: list[Record] = []
    for id_ in (DONE, WAITING, RUNNING, RETRYING):
        told += [
            EventCreated("p", id_, AGO_US, "S"),
            DeliveryCreated("p", id_, AGO_US, "E", "t", "S", created_us=AGO_US),
        ]
        if id_ in STATUSES:
            told.append(StatusSet("p", id_, STATUSES[id_], AGO_US + 1_000))
    return told


def ends(client: Any, *, track_days: int = 2) -> None:
    """Lets the tracking of the day end: its rule has always been that of fewer days."""
    agree_on(client, rules=(Rule(track_days=track_days),))


def statuses(ledger: Ledger) -> dict[str, float]:
    return {labels[3]: count for labels, count in ledger.families()[DELIVERIES].items()}


def test_settling_changes_nothing_that_is_exported(ledger: Ledger, client: Any) -> None:
    told = of_a_day()
    ledger.write(*told)
    ends(client)
    settled = ledger.upkeep.settle("p")
    assert (settled.days, settled.folded) == (1, 0)
    families, now = ledger.read()
    assert_same(families, expected(told, now))
    assert {key.split(b":")[2] for key in client.keys(f"oq:{{p}}:*:{DAY}")} == {b"processing", b"counts"}
    assert ledger.upkeep.settle("p") == (0, 0, 0, 0)
    assert ledger.differences() == []


def test_a_delivery_that_is_not_final_stays_known_until_it_is(ledger: Ledger, client: Any) -> None:
    """It used to be late, and to age in Processing for ever."""
    ledger.write(*of_a_day())
    ends(client)
    ledger.upkeep.settle("p")
    assert ledger.write(StatusSet("p", RUNNING, "success", NOW_US)) == (1, 0, 0, 0)
    assert ledger.write(StatusSet("p", WAITING, "processing", NOW_US)) == (1, 0, 0, 0)
    assert statuses(ledger) == {"success": 2, "processing": 1, "retry": 1}
    [age] = ledger.families()[DELIVERY_BACKLOG].values()
    assert age > 4 * 86_400
    ledger.write(StatusSet("p", WAITING, "failure", NOW_US + 1), StatusSet("p", RETRYING, "success", NOW_US))
    assert statuses(ledger) == {"success": 3, "failure": 1}
    assert list(ledger.families()[DELIVERY_BACKLOG].values()) == [0.0]
    assert client.keys("oq:{p}:open:*") == [], "what is final is not known any more"


def test_what_else_comes_for_a_settled_day_is_late(ledger: Ledger, client: Any) -> None:
    ledger.write(*of_a_day())
    ends(client)
    ledger.upkeep.settle("p")
    before = statuses(ledger)
    late: list[Record] = [
        StatusSet("p", DONE, "retry", NOW_US),
        DeliveryCreated("p", ulid(AGO_US, 99), NOW_US, "E", "t", "S"),
        EventCreated("p", DONE, AGO_US, "S"),
        StatusSet("p", ulid(AGO_US - DAY_US, 1), "success", NOW_US),
    ]
    assert ledger.write(*late) == (0, 0, 4, 0)
    assert statuses(ledger) == before


def test_what_is_known_still_counts_when_tracking_has_ended_and_nobody_settled(ledger: Ledger, client: Any) -> None:
    ledger.write(*of_a_day())
    ends(client)
    assert ledger.write(StatusSet("p", RUNNING, "success", NOW_US)) == (1, 0, 0, 0)
    assert ledger.write(StatusSet("p", ulid(AGO_US, 99), "success", NOW_US)) == (0, 0, 1, 0)
    assert statuses(ledger) == {"success": 2, "scheduled": 1, "retry": 1}


def test_a_day_that_is_tracked_is_settled_by_nobody(ledger: Ledger, client: Any) -> None:
    """Folding used to take yesterday, whose deliveries were still on their way."""
    ledger.write(*of_a_day())
    for track_days in (30, 5):
        ends(client, track_days=track_days)
        assert ledger.upkeep.settle("p") == (0, 0, 0, 0)
    for name in ("keep_open", "end_undated"):
        with pytest.raises(redis.ResponseError, match=f"{DAY} is still tracked"):
            run(client, name, DAY, 0, 0)
    assert run(client, "settle_day", DAY) == 0
    assert ledger.write(StatusSet("p", DONE, "retry", NOW_US)).changed == 1


def run(client: Any, name: str, *arguments: str | int) -> object:
    keys = ["oq:{p}:meta", f"oq:{{p}}:deliveries:{DAY}", f"oq:{{p}}:events:{DAY}"]
    return client.eval(script(name).text.decode(), len(keys), *keys, "", *arguments)


def between(ledger: Ledger) -> None:
    ledger.write(
        StatusSet("p", RUNNING, "success", NOW_US),
        StatusSet("p", RETRYING, "processing", NOW_US),
        StatusSet("p", DONE, "retry", NOW_US),
    )


def again(ledger: Ledger) -> None:
    ledger.upkeep.settle("p")


@pytest.mark.parametrize("meanwhile", [between, again], ids=["records come", "somebody else settles"])
def test_what_happens_between_the_steps_of_settling_is_kept(
    ledger: Ledger, client: Any, meanwhile: Callable[[Ledger], None]
) -> None:
    told = of_a_day()
    ledger.write(*told)
    ends(client)
    assert run(client, "keep_open", DAY, 0, 0) == 0
    meanwhile(ledger)
    before = statuses(ledger)
    run(client, "settle_day", DAY)
    assert statuses(ledger) == before
    held = {id_ for key in client.keys("oq:{p}:open:*") for id_ in client.hkeys(key)}
    open_ones = (WAITING, RETRYING, DONE if meanwhile is between else RUNNING)
    assert len(held) == len(open_ones)
    assert ledger.write(*(StatusSet("p", id_, "success", NOW_US + 5) for id_ in open_ones)).changed == 3
    assert statuses(ledger) == {"success": 4}


def test_a_large_day_is_settled_in_parts(ledger: Ledger, client: Any) -> None:
    many = 128 + 16 * 128 + 600
    ledger.write(*(DeliveryCreated("p", ulid(AGO_US, number * 7919), AGO_US, "E", "t", "S") for number in range(many)))
    ends(client)
    assert ledger.upkeep.settle("p").days == 1
    assert client.keys(f"oq:{{p}}:deliveries:{DAY}*") == []
    assert sum(client.hlen(key) for key in client.keys("oq:{p}:open:*")) == many
    done = [StatusSet("p", ulid(AGO_US, number * 7919), "success", NOW_US) for number in range(many)]
    assert ledger.write(*done).changed == many
    assert statuses(ledger) == {"success": many}


def test_a_settled_day_still_expires(ledger: Ledger, client: Any) -> None:
    ledger.write(*of_a_day())
    ends(client)
    ledger.upkeep.settle("p")
    ledger.write(DayExpired("p", DAY))
    assert statuses(ledger) == {}
    assert client.keys("oq:{p}:open:*") == []
    assert ledger.write(StatusSet("p", RUNNING, "success", NOW_US)) == (0, 0, 1, 0)


def test_days_that_are_old_are_folded_and_their_open_deliveries_move_the_folded_counts(
    ledger: Ledger, client: Any
) -> None:
    agree_on(client, rules=(Rule(track_days=1_000),))
    at = NOW_US - 500 * DAY_US
    old = [ulid(at, number) for number in range(2)]
    told: list[Record] = [StatusSet("p", id_, "processing", at, "E", "t", "S", created_us=at) for id_ in old]
    ledger.write(*told)
    ends(client)
    assert ledger.upkeep.settle("p")[:2] == (1, 1)
    families, now = ledger.read()
    assert_same(families, expected(told, now, track_days=1_000))
    assert [list(project.days) for project in ledger.snapshot().projects] == [["settled"]]
    assert ledger.write(StatusSet("p", old[0], "success", NOW_US)).changed == 1
    assert statuses(ledger) == {"processing": 1, "success": 1}


UNDATED: list[Record] = [
    EventCreated("p", "legacy-event", NOW_US, "S"),
    DeliveryCreated("p", "legacy-done", NOW_US, "E", "t", "S"),
    StatusSet("p", "legacy-done", "success", NOW_US),
    DeliveryCreated("p", "legacy-waiting", NOW_US, "E", "t", "S"),
    AttemptMade("p", "legacy-attempt", NOW_US, "E", True, 200),
]


def seen_days_ago(client: Any, days: int) -> None:
    """Moves the first sight of all undated ids, and the day that they count under, so many days back."""
    today = (NOW_US - int(FIRST_NUMBERED.timestamp() * 1e6)) // DAY_US
    then = day_of(NOW_US - days * DAY_US)
    for member in client.zrange("oq:{p}:undated", 0, -1):
        client.zadd("oq:{p}:undated", {member: today - days})
    for key in client.keys("oq:{p}:*:undated:*"):
        for id_, state in client.hgetall(key).items():
            client.hset(key, id_, (today - days).to_bytes(2, "big") + state[2:])
    score = client.zscore("oq:{p}:days", day_of(NOW_US))
    client.rename(f"oq:{{p}}:counts:{day_of(NOW_US)}", f"oq:{{p}}:counts:{then}")
    client.zadd("oq:{p}:days", {then: score})
    client.zrem("oq:{p}:days", day_of(NOW_US))


def test_an_undated_id_counts_under_the_day_of_its_first_sight(ledger: Ledger, client: Any) -> None:
    assert ledger.write(*UNDATED, *UNDATED) == (5, 5, 0, 0)
    families, now = ledger.read()
    assert_same(families, expected(UNDATED, now))
    assert list(ledger.upkeep.days("p")) == [day_of(NOW_US)]
    [held] = contents(client).values()
    held.assert_adds_up()
    assert ledger.differences() == []


def test_the_index_of_undated_ids_grows_again_by_what_is_told_again(ledger: Ledger, client: Any) -> None:
    """It counts anew and settles by that: an id that is held and not listed would never be counted again."""
    ledger.write(*UNDATED)
    whole = client.zrange("oq:{p}:undated", 0, -1, withscores=True)
    client.delete("oq:{p}:undated")
    assert ledger.write(*UNDATED) == (0, 5, 0, 0)
    assert client.zrange("oq:{p}:undated", 0, -1, withscores=True) == whole
    assert ledger.differences() == []


def test_undated_ids_end_with_the_day_of_their_first_sight(ledger: Ledger, client: Any) -> None:
    """They used to stay for ever."""
    ledger.write(*UNDATED)
    before = ledger.families()
    seen_days_ago(client, 5)
    ends(client)
    assert ledger.upkeep.settle("p")[:3] == (1, 0, 4)
    assert ledger.families()[DELIVERIES] == before[DELIVERIES]
    held = {id_ for key in client.keys("oq:{p}:*:undated:*") for id_ in client.hkeys(key)}
    assert held == {b"legacy-waiting"}, "what is not final stays known"
    assert client.zcard("oq:{p}:undated") == 1
    assert ledger.write(StatusSet("p", "legacy-waiting", "failure", NOW_US + 1)) == (1, 0, 0, 0)
    assert statuses(ledger) == {"success": 1, "failure": 1}
    assert client.keys("oq:{p}:*undated*") == []


def test_an_undated_delivery_that_is_never_final_ends_when_its_day_expires(ledger: Ledger, client: Any) -> None:
    """It used to stay for ever, since it had left the index with the others."""
    ledger.write(*UNDATED)
    seen_days_ago(client, 5)
    ends(client)
    ledger.upkeep.settle("p")
    assert ledger.write(StatusSet("p", "legacy-waiting", "retry", NOW_US + 1)) == (1, 0, 0, 0)
    ledger.upkeep.expire("p", DAY)
    assert client.keys("oq:{p}:*undated*") == []
    assert statuses(ledger) == {}


def test_undated_ids_of_an_expired_day_are_late_and_go(ledger: Ledger, client: Any) -> None:
    """They used to stay where no day was ever settled."""
    ledger.write(*UNDATED)
    seen_days_ago(client, 5)
    ledger.upkeep.expire("p", DAY)
    assert statuses(ledger) == {}
    assert ledger.write(StatusSet("p", "legacy-waiting", "failure", NOW_US + 1)) == (0, 0, 1, 0)
    ends(client)
    assert ledger.upkeep.settle("p").undated == 4
    assert client.keys("oq:{p}:*undated*") == []


def test_no_day_is_settled_while_one_before_it_is_tracked(ledger: Ledger, client: Any) -> None:
    """A shorter rule used to settle the days of the longer one before it, and their deliveries were late."""
    earlier = ulid(AGO_US - DAY_US, 9)
    ledger.write(*of_a_day(), DeliveryCreated("p", earlier, AGO_US - DAY_US, "E", "t", "S"))
    agree_on(client, rules=(Rule(track_days=8), Rule(track_days=2, from_day=DAY)))
    assert ledger.upkeep.settle("p").days == 0
    with pytest.raises(redis.ResponseError, match=f"{DAY} is still tracked"):
        run(client, "keep_open", DAY, 0, 0)
    assert ledger.write(StatusSet("p", earlier, "success", NOW_US)) == (1, 0, 0, 0)
    agree_on(client, rules=(Rule(track_days=4), Rule(track_days=2, from_day=DAY)))
    assert ledger.upkeep.settle("p").days == 2


def test_a_project_is_settled_by_its_own_contract_where_the_ledgers_was_begun_anew(ledger: Ledger, client: Any) -> None:
    """It used to be refused for ever."""
    ledger.write(*of_a_day())
    ends(client)
    client.delete("oq:contract", "oq:projects")
    ledger.upkeep.begin(Rule(track_days=30))
    assert ledger.upkeep.settle("p").days == 1


def test_a_project_that_missed_a_rule_gets_it_when_it_is_settled(ledger: Ledger, client: Any) -> None:
    ledger.write(*of_a_day())
    ends(client)
    before = client.hget("oq:{p}:meta", "contract")
    contract = ledger.upkeep.add_rule(Rule(track_days=60))
    client.hset("oq:{p}:meta", "contract", before)
    ledger.upkeep.settle("p")
    assert client.hget("oq:{p}:meta", "contract") == contract.text()


def of_today() -> list[Record]:
    return [DeliveryCreated("p", ulid(NOW_US, number), NOW_US, f"new-{number}", "t", "S") for number in range(3)]


def test_groups_that_nothing_is_counted_under_are_given_back(ledger: Ledger, client: Any) -> None:
    """Three new endpoints used to be `other` for ever, though all that had filled the room was expired."""
    agree_on(client, rules=(Rule(most_groups=3),))
    ledger.write(
        *(DeliveryCreated("p", ulid(AGO_US, number), AGO_US, f"old-{number}", "t", "S") for number in range(3))
    )
    ledger.upkeep.expire("p", DAY)
    ledger.write(of_today()[0])
    assert {labels[2] for labels in ledger.families()[DELIVERIES]} == {"other"}
    agree_on(client, rules=(Rule(most_groups=3, track_days=2),))
    ledger.write(StatusSet("p", ulid(NOW_US, 0), "success", NOW_US))
    assert ledger.upkeep.free_groups("p") == 3
    ledger.write(*of_today()[1:])
    assert {labels[2] for labels in ledger.families()[DELIVERIES]} == {"other", "new-1", "new-2"}
    numbers = sorted(int(name[1:]) for name in client.hkeys("oq:{p}:groups") if name.startswith(b"#"))
    assert numbers == [4, 5], "no number stands for two groups, one after the other"


def test_no_group_is_given_back_that_a_record_has_just_counted_under(ledger: Ledger, client: Any) -> None:
    ledger.write(*of_today())
    sequence = client.hget("oq:{p}:meta", "sequence")
    assert sequence is not None
    ledger.write(DeliveryCreated("p", ulid(NOW_US, 9), NOW_US, "another", "t", "S"))
    call = script("free_groups").text.decode(), 2, "oq:{p}:meta", "oq:{p}:groups", "", ""
    assert client.eval(*call, sequence, "4") == 0
    assert ledger.upkeep.free_groups("p") == 0
    assert len(ledger.families()[DELIVERIES]) == 4


def test_attempts_keep_to_the_cap_on_sets_of_labels(ledger: Ledger, client: Any) -> None:
    """Two new fields used to come in past the cap."""
    agree_on(client, rules=(Rule(most_groups=2),))
    made = [AttemptMade("p", ulid(NOW_US, number), NOW_US, f"E{number}", number % 2 == 0, 200) for number in range(6)]
    assert ledger.write(*made).changed == 6
    assert ledger.write(*made) == (0, 6, 0, 0)
    assert ledger.families()[ATTEMPTS] == {
        ("p", "E0", "success", "200"): 1, ("p", "E1", "failure", "200"): 1,
        ("p", "other", "success", "200"): 2, ("p", "other", "failure", "200"): 2,
    }  # fmt: skip


def test_a_day_expires_on_a_full_redis(ledger: Ledger, client: Any) -> None:
    """It used to be refused where it was needed most: it wrote before it freed."""
    ledger.write(*of_a_day())
    client.config_set("maxmemory", client.info("memory")["used_memory"] - 1)
    with pytest.raises(redis.ResponseError, match="maxmemory"):
        client.set("more", "x" * 100)
    assert ledger.upkeep.expire("p", DAY) == 1
    client.config_set("maxmemory", 0)
    assert statuses(ledger) == {}
    assert client.hget("oq:{p}:meta", "expired") == DAY.encode()


def test_a_day_is_tracked_as_long_as_those_before_it(ledger: Ledger, client: Any) -> None:
    """Fewer days of tracking from a later day on used to settle earlier days too: what came for them was late."""
    agree_on(client, rules=(Rule(track_days=30), Rule(track_days=2, from_day=DAY)))
    earlier = ulid(AGO_US - DAY_US, 1)
    assert ledger.write(*of_a_day(), StatusSet("p", earlier, "processing", AGO_US, "E", "t", "S")).late == 0
    assert ledger.upkeep.settle("p").days == 0
    with pytest.raises(redis.ResponseError, match=f"{DAY} is still tracked"):
        run(client, "keep_open", DAY, 0, 0)
    kept = {key.split(b":")[2]: client.expiretime(key) for key in client.keys(f"oq:{{p}}:*s:{DAY}")}
    assert kept == {
        b"deliveries": end_of(DAY) + 36 * 86_400,
        b"events": end_of(DAY) + 36 * 86_400,
        b"counts": -1,
    }
    assert ledger.write(StatusSet("p", earlier, "success", NOW_US)) == (1, 0, 0, 0)
    agree_on(client, rules=(Rule(track_days=4), Rule(track_days=2, from_day=DAY)))
    assert ledger.upkeep.settle("p").days == 2
