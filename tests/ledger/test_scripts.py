"""What the scripts hold to whoever calls them, and what they leave in the keys: a third writer relies on both."""

import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from otel_queue.errors import WriteError
from otel_queue.ledger.contract import Rule
from otel_queue.ledger.scripts import script
from otel_queue.lifecycle import AttemptMade, DeliveryCreated, EventCreated, Record, StatusSet
from tests.ledger.ledgers import DAY_US, Ledger, agree_on, day_of, now_us, ulid
from tests.ledger.oracle import DELIVERIES
from tests.servers.redis import RedisServer

NOW_US = now_us()
AGO_US = NOW_US - 5 * DAY_US
TODAY, DAY = day_of(NOW_US), day_of(AGO_US)
AHEAD_US = NOW_US + DAY_US
ID = ulid(NOW_US, 1)


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with redis_server.client() as opened:
        yield opened


def call(client: Any, name: str, keys: list[str], *arguments: str | int | bytes) -> Any:
    """One call for project p, whose contract stands in its meta."""
    of_project = ["oq:{p}:meta", *(f"oq:{{p}}:{key}" for key in keys)]
    return client.eval(script(name).text.decode(), len(of_project), *of_project, "", *arguments)


def status_of(ledger: Ledger) -> str:
    [(_, _, _, status, *_)] = ledger.families()[DELIVERIES]
    return status


def test_a_project_of_the_first_protocol_is_refused_in_a_ledger_of_the_second(ledger: Ledger, client: Any) -> None:
    client.hset("oq:{p}:meta", "sequence", 5)
    with pytest.raises(WriteError, match=r"is of protocol 1, .* speaks protocol 2"):
        ledger.write(EventCreated("p", ID, NOW_US, "S"))
    assert client.hgetall("oq:{p}:meta") == {b"sequence": b"5"}


def test_a_contract_with_more_rules_that_begins_otherwise_does_not_replace_the_projects(
    ledger: Ledger, client: Any
) -> None:
    ledger.write(EventCreated("p", ID, NOW_US, "S"))
    held = client.hget("oq:{p}:meta", "contract")
    other = held.replace(b":30:", b":31:") + b"20990101:60:7:100000;"
    with pytest.raises(redis.ResponseError, match=f"^OQCONTRACT {held.decode()}$"):
        client.eval(script("number_groups").text.decode(), 2, "oq:{p}:meta", "oq:{p}:groups", other, TODAY)
    assert client.hget("oq:{p}:meta", "contract") == held


# A state's offset from the time of its id, and how many bytes it takes; the group's number alike.
WIDTHS = {0: 1, 127: 1, 128: 2, -1: 1, -128: 1, -129: 2, 32_767: 2, 32_768: 3, -32_768: 2, -32_769: 3}
DIGITS = {1: 1, 0xFF: 1, 0x100: 2, 0xFFFF: 2, 0x10000: 3, 0xFFFFFF: 3, 0x1000000: 4}


@pytest.mark.parametrize("number", DIGITS)
def test_a_state_takes_the_fewest_bytes_that_hold_it(ledger: Ledger, client: Any, number: int) -> None:
    at, digits = NOW_US // 1000 * 1000, DIGITS[number]
    ledger.write(EventCreated("p", ID, NOW_US, "S"))
    for index, (offset, width) in enumerate(WIDTHS.items(), 1):
        client.delete("oq:{p}:groups")
        client.hset("oq:{p}:meta", "groups", number - 2)
        ledger.write(EventCreated("p", ulid(at, index), at + offset, f"S{index}"))
        client.hset("oq:{p}:meta", "groups", number - 1)
        ledger.write(StatusSet("p", ulid(at, index), "retry", at + offset, created_us=at - 200))
        told, group = offset.to_bytes(width, "big", signed=True), number.to_bytes(digits, "big")
        stored = (at // 1000 << 80 | index).to_bytes(16, "big")
        # Retry is 3, a creation time that a record tells 16, a status that was set 64; the creation time takes 2 bytes.
        head = bytes([3 + 16 + 64, width - 1 + 8 + 64 * (digits - 1)])
        assert client.hget(f"oq:{{p}}:deliveries:{TODAY}", stored) == head + told + told + b"\xff\x38" + group


@pytest.mark.parametrize("kind", ["deliveries", "events", "attempt-ids"])
def test_an_id_whose_nodes_are_all_full_is_kept_in_the_last_of_them(ledger: Ledger, client: Any, kind: str) -> None:
    stored = (NOW_US // 1000 << 80 | 1).to_bytes(16, "big")
    hash_ = zlib.crc32(stored)
    base = f"oq:{{p}}:{kind}:{TODAY}"
    nodes = [base, *(f"{base}:{first + hash_ % fanout}" for first, fanout in ((1, 16), (17, 256), (273, 4096)))]
    for node in nodes:
        client.hset(node, mapping={f"taken {number}": "" for number in range(128)})
        client.expire(node, 3_600)
    records: dict[str, Record] = {
        "deliveries": StatusSet("p", ID, "retry", NOW_US),
        "events": EventCreated("p", ID, NOW_US),
        "attempt-ids": AttemptMade("p", ID, NOW_US, "E", True, 200),
    }
    record = records[kind]
    assert ledger.write(record, record) == (1, 1, 0, 0)
    assert ledger.write(record) == (0, 1, 0, 0)
    assert [client.hexists(node, stored) for node in nodes] == [False, False, False, True]
    assert client.hlen(nodes[-1]) == 129


def test_of_statuses_that_were_set_back_from_one_time_the_higher_rank_is_new(ledger: Ledger) -> None:
    for status, changed in (("processing", 1), ("retry", 1), ("processing", 0), ("retry", 0)):
        assert ledger.write(StatusSet("p", ID, status, AHEAD_US)) == (changed, 1 - changed, 0, 1)
        assert status_of(ledger) == ("processing" if (status, changed) == ("processing", 1) else "retry")


def test_a_created_record_that_was_set_back_makes_no_later_status_an_old_one(ledger: Ledger) -> None:
    ledger.write(StatusSet("p", ID, "processing", AHEAD_US))
    ledger.write(DeliveryCreated("p", ID, AHEAD_US + 2, "E", "t", "S"))
    assert ledger.write(StatusSet("p", ID, "retry", AHEAD_US + 1)) == (1, 0, 0, 1)
    assert status_of(ledger) == "retry"


def test_a_time_that_no_state_can_hold_is_known_when_it_comes_again(ledger: Ledger, client: Any) -> None:
    ledger.write(StatusSet("p", ID, "scheduled", NOW_US))
    stored = (NOW_US // 1000 << 80 | 1).to_bytes(16, "big")
    record = stored, zlib.crc32(stored), 3, 2**62, 0, NOW_US, 1, "", "", ""
    keys = ["groups", "days", f"deliveries:{TODAY}"]
    assert call(client, "record_deliveries", keys, TODAY, *record) == [1, 0, 0, 1]
    assert call(client, "record_deliveries", keys, TODAY, *record) == [0, 1, 0, 1]
    assert status_of(ledger) == "retry"


def test_a_forgotten_delivery_that_is_told_again_is_a_new_one(ledger: Ledger, client: Any) -> None:
    ledger.write(DeliveryCreated("p", ID, NOW_US, "E", "t", "S"))
    stored = (NOW_US // 1000 << 80 | 1).to_bytes(16, "big")
    node = f"oq:{{p}}:deliveries:{TODAY}"
    state = client.hget(node, stored)
    keys = ["groups", "days", f"deliveries:{TODAY}"]
    call(client, "forget_ids", keys, TODAY, "delivery", stored, zlib.crc32(stored), state)
    assert client.hgetall(node) == {stored: b""}
    assert ledger.families()[DELIVERIES] == {}
    ledger.write(StatusSet("p", ID, "retry", NOW_US))
    assert [labels[2:4] for labels in ledger.families()[DELIVERIES]] == [("unknown", "retry")]


def test_a_settled_day_closes_no_later_one(ledger: Ledger, client: Any) -> None:
    ledger.write(StatusSet("p", ulid(AGO_US, 1), "success", AGO_US))
    agree_on(client, rules=(Rule(track_days=2),))
    ledger.upkeep.settle("p")
    assert ledger.write(StatusSet("p", ID, "retry", NOW_US), EventCreated("p", "undated", NOW_US)) == (2, 0, 0, 0)
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
    assert status_of(ledger) == "success"


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
