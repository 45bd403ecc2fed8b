"""How days close, whoever calls the scripts: settled in their order, folded once, expired with all that they had."""

from typing import Any

import pytest
import redis

from otel_queue.ledger.contract import Rule
from otel_queue.ledger.identity import number_of_day
from otel_queue.ledger.scripts import script
from otel_queue.lifecycle import EventCreated, StatusSet
from tests.ledger.ledgers import DAY_US, Ledger, agree_on, call, day_of, now_us, ulid
from tests.ledger.oracle import DELIVERIES

NOW_US = now_us()
AGO_US = NOW_US - 5 * DAY_US
TODAY, DAY = day_of(NOW_US), day_of(AGO_US)
ID = ulid(NOW_US, 1)


def test_a_settled_day_closes_no_later_one(ledger: Ledger, client: Any) -> None:
    ledger.write(StatusSet("p", ulid(AGO_US, 1), "success", AGO_US))
    agree_on(client, rules=(Rule(track_days=2),))
    ledger.upkeep.settle("p")
    assert ledger.write(StatusSet("p", ID, "retry", NOW_US), EventCreated("p", "undated", NOW_US)) == (2, 0, 0, 0)
    assert client.keys("oq:{p}:open:*") == [], "only those of a day that is being settled are copied"
    assert ledger.write(StatusSet("p", ID, "success", NOW_US)) == (1, 0, 0, 0)
    assert client.keys("oq:{p}:open:*") == []


def test_a_delivery_of_a_folded_day_moves_the_folded_counts_and_no_others(ledger: Ledger, client: Any) -> None:
    at = NOW_US - 500 * DAY_US
    agree_on(client, rules=(Rule(track_days=1_000),))
    ledger.write(*(StatusSet("p", ulid(at, number), "processing", at, created_us=at) for number in range(2)))
    agree_on(client, rules=(Rule(track_days=2),))
    assert ledger.upkeep.settle("p")[:2] == (1, 1)
    ledger.write(StatusSet("p", ulid(at, 0), "success", NOW_US), StatusSet("p", ID, "success", NOW_US))
    assert {key: client.hgetall(key) for key in client.keys("oq:{p}:counts:*")} == {
        b"oq:{p}:counts:settled": {b"1:2": b"1", b"1:6": b"1"},
        f"oq:{{p}}:counts:{TODAY}".encode(): {b"1:6": b"1"},
    }
    assert client.keys("oq:{p}:processing:*") == [b"oq:{p}:processing:settled"]
    assert client.zcard("oq:{p}:processing:settled") == 1


@pytest.mark.parametrize("day", ["2026", "2026-01-01", "20260101x", "x20260101", "undated", ""])
@pytest.mark.parametrize("name", ["expire_day", "fold_day"])
def test_no_text_but_a_day_closes_days(ledger: Ledger, client: Any, name: str, day: str) -> None:
    ledger.write(StatusSet("p", ulid(AGO_US, 1), "success", AGO_US))
    with pytest.raises(redis.ResponseError, match="the day must be YYYYMMDD, not"):
        call(client, name, ["days"], day)
    assert client.hmget("oq:{p}:meta", "expired", "folded") == [None, None]
    assert [labels[3] for labels in ledger.families()[DELIVERIES]] == ["success"]


def test_days_that_are_closed_stay_closed_when_an_earlier_one_is_closed_again(ledger: Ledger, client: Any) -> None:
    before = day_of(AGO_US - DAY_US)
    ledger.write(StatusSet("p", ulid(AGO_US, 1), "success", AGO_US))
    for day in (DAY, before, DAY):
        ledger.upkeep.expire("p", day)
        assert client.hget("oq:{p}:meta", "expired") == DAY.encode()
    client.hset("oq:{p}:meta", "settled", TODAY)
    for day in (DAY, before):
        call(client, "fold_day", ["days"], day)
        assert client.hget("oq:{p}:meta", "folded") == DAY.encode()


SETTLING = [f"deliveries:{DAY}", f"events:{DAY}"]


@pytest.fixture
def past(ledger: Ledger, client: Any) -> Ledger:
    """A day whose tracking has ended, and the one before it, with a delivery each that is not final."""
    at = AGO_US - DAY_US
    ledger.write(*(StatusSet("p", ulid(each, 1), "retry", each, "E", "t", "S") for each in (AGO_US, at)))
    agree_on(client, rules=(Rule(track_days=2),))
    return ledger


def test_a_day_is_settled_by_who_copied_it_last_and_once(past: Ledger, client: Any) -> None:
    before = day_of(AGO_US - DAY_US)
    assert call(client, "settle_day", SETTLING, DAY) == 0
    call(client, "keep_open", SETTLING, DAY, 0, 0)
    # Somebody else settles another day: from now on the copies of this one are not kept as the originals are.
    call(client, "keep_open", [f"deliveries:{before}"], before, 0, 0)
    assert call(client, "settle_day", SETTLING, DAY) == 0
    assert client.exists(f"oq:{{p}}:deliveries:{DAY}") == 1
    call(client, "keep_open", SETTLING, DAY, 0, 0)
    assert call(client, "settle_day", SETTLING, DAY) == 1
    assert call(client, "settle_day", SETTLING, DAY) == 0
    assert client.hmget("oq:{p}:meta", "settled", "settling") == [DAY.encode(), None]


def test_days_are_settled_one_after_the_other_and_none_again(past: Ledger, client: Any) -> None:
    before = day_of(AGO_US - DAY_US)
    for day in (before, DAY):
        keys = [f"deliveries:{day}", f"events:{day}"]
        call(client, "keep_open", keys, day, 0, 0)
        assert call(client, "settle_day", keys, day) == 1
    assert client.exists(f"oq:{{p}}:deliveries:{before}", f"oq:{{p}}:deliveries:{DAY}") == 0
    for day in (before, DAY):
        assert call(client, "keep_open", [f"deliveries:{day}"], day, 0, 0) == 0
        assert client.hmget("oq:{p}:meta", "settled", "settling") == [DAY.encode(), None]


def test_a_day_with_a_forgotten_delivery_is_settled(past: Ledger, client: Any) -> None:
    node = f"oq:{{p}}:deliveries:{DAY}"
    client.hset(node, b"forgotten", b"")
    assert past.upkeep.settle("p").days == 2
    assert {id_ for key in client.keys("oq:{p}:open:*") for id_ in client.hkeys(key)} == {
        (each // 1000 << 80 | 1).to_bytes(16, "big") for each in (AGO_US, AGO_US - DAY_US)
    }


def test_only_settled_days_are_folded_and_each_once(past: Ledger, client: Any) -> None:
    for settled in (None, day_of(AGO_US - DAY_US)):
        if settled:
            client.hset("oq:{p}:meta", "settled", settled)
        with pytest.raises(redis.ResponseError, match=f"{DAY} is not settled"):
            call(client, "fold_day", ["days"], DAY)
        assert client.hget("oq:{p}:meta", "folded") is None
    client.hset("oq:{p}:meta", "settled", DAY)
    assert call(client, "fold_day", ["days"], DAY) == 1
    sequence = client.hget("oq:{p}:meta", "sequence")
    assert call(client, "fold_day", ["days"], DAY) == 0
    assert client.hget("oq:{p}:meta", "sequence") == sequence
    assert client.hgetall("oq:{p}:counts:settled") == {b"1:3": b"1"}


BRINGS: dict[str, tuple[list[str], str, list[str | int]]] = {
    "record_deliveries": (["groups", "days", f"deliveries:{TODAY}"], TODAY, []),
    "number_groups": (["groups"], TODAY, []),
    "describe_project": ([], "", [NOW_US, "Name", "", ""]),
    "expire_day": (["days"], day_of(AGO_US - 2 * DAY_US), []),
    "expire_day of a day that is not over": (["days"], TODAY, []),
    "fold_day": (["days"], day_of(AGO_US - 2 * DAY_US), []),
    "settle_day": (SETTLING, DAY, []),
}


@pytest.mark.parametrize("name", BRINGS)
def test_a_rule_that_a_caller_brings_is_kept(past: Ledger, client: Any, name: str) -> None:
    held = client.hget("oq:{p}:meta", "contract")
    grown = held + b"20990101:60:7:100000;"
    client.hset("oq:{p}:meta", mapping={"settling": DAY, "settled": day_of(AGO_US - DAY_US)})
    keys, day, arguments = BRINGS[name]
    of_project = ["oq:{p}:meta", *(f"oq:{{p}}:{key}" for key in keys)]
    client.eval(script(name.split()[0]).text.decode(), len(of_project), *of_project, grown, day, *arguments)
    assert client.hget("oq:{p}:meta", "contract") == grown


def test_an_expired_day_takes_its_ids_along_though_it_is_not_listed(ledger: Ledger, client: Any) -> None:
    ledger.write(EventCreated("p", ulid(AGO_US, 1), AGO_US), StatusSet("p", ulid(AGO_US, 1), "success", AGO_US))
    client.zrem("oq:{p}:days", DAY)
    ledger.upkeep.expire("p", DAY)
    assert client.keys(f"oq:{{p}}:*s:{DAY}") == [f"oq:{{p}}:counts:{DAY}".encode()]


def test_an_expired_day_takes_no_open_delivery_of_a_later_day(past: Ledger, client: Any) -> None:
    past.upkeep.settle("p")
    sequence = int(client.hget("oq:{p}:meta", "sequence"))
    past.upkeep.expire("p", day_of(AGO_US - DAY_US))
    assert int(client.hget("oq:{p}:meta", "sequence")) == sequence + 1, "readers are to see it"
    assert past.write(StatusSet("p", ulid(AGO_US, 1), "success", NOW_US)) == (1, 0, 0, 0)
    past.upkeep.expire("p", day_of(AGO_US - 2 * DAY_US))
    assert int(client.hget("oq:{p}:meta", "sequence")) == sequence + 2, "nothing was taken out"


def test_an_expired_day_takes_the_open_deliveries_of_all_days_before_it(past: Ledger, client: Any) -> None:
    past.upkeep.settle("p")
    assert client.keys("oq:{p}:open:*") != []
    past.upkeep.expire("p", DAY)
    assert client.keys("oq:{p}:open:*") == []


def test_undated_deliveries_are_not_among_the_open_ones_of_a_day_that_is_being_settled(
    past: Ledger, client: Any
) -> None:
    past.write(StatusSet("p", "undated", "retry", NOW_US))
    [node] = client.keys("oq:{p}:deliveries:undated:*")
    state = client.hget(node, "undated")
    client.hset(node, "undated", number_of_day(DAY).to_bytes(2, "big") + state[2:])
    call(client, "keep_open", SETTLING, DAY, 0, 0)
    assert past.write(StatusSet("p", "undated", "processing", NOW_US + 1)) == (1, 0, 0, 0)
    assert sum(client.hlen(key) for key in client.keys("oq:{p}:open:*")) == 1


def test_undated_ids_end_some_at_a_time_and_only_those_of_the_days_that_are_over(past: Ledger, client: Any) -> None:
    for number in range(5):
        past.write(EventCreated("p", f"legacy {number}", NOW_US))
    first, *rest = client.zrange("oq:{p}:undated", 0, -1)
    old = number_of_day(DAY)
    client.zadd("oq:{p}:undated", dict.fromkeys(rest[:3], old))
    assert call(client, "end_undated", [], DAY, 2) == 2
    assert call(client, "end_undated", [], DAY, 2) == 1
    assert call(client, "end_undated", [], DAY, 2) == 0
    assert client.zrange("oq:{p}:undated", 0, -1) == [first, rest[3]]
    assert len(client.keys("oq:{p}:events:undated:*")) == 2


def test_an_undated_delivery_that_is_not_final_ends_when_its_day_is_expired(past: Ledger, client: Any) -> None:
    client.hset("oq:{p}:meta", "expired", day_of(AGO_US - DAY_US))
    for day in (day_of(AGO_US - DAY_US), DAY):
        past.write(StatusSet("p", day, "retry", NOW_US), StatusSet("p", f"{day} final", "success", NOW_US))
        for key in client.keys("oq:{p}:deliveries:undated:*"):
            for id_, state in client.hgetall(key).items():
                if id_.startswith(day.encode()):
                    client.hset(key, id_, number_of_day(day).to_bytes(2, "big") + state[2:])
    for member in client.zrange("oq:{p}:undated", 0, -1):
        client.zadd("oq:{p}:undated", {member: number_of_day(DAY)})
    assert call(client, "end_undated", [], DAY, 512) == 4
    assert [id_ for key in client.keys("oq:{p}:deliveries:undated:*") for id_ in client.hkeys(key)] == [DAY.encode()]


def test_an_undated_id_that_is_listed_and_not_held_ends(past: Ledger, client: Any) -> None:
    past.write(StatusSet("p", "legacy", "retry", NOW_US))
    [member] = client.zrange("oq:{p}:undated", 0, -1)
    client.zadd("oq:{p}:undated", {member: number_of_day(DAY)})
    client.delete(*client.keys("oq:{p}:deliveries:undated:*"))
    assert call(client, "end_undated", [], DAY, 512) == 1
    assert client.exists("oq:{p}:undated") == 0
