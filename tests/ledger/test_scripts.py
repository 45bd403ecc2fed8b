"""What the scripts hold to whoever calls them, and what they leave in the keys: a third writer relies on both."""

import zlib
from typing import Any

import pytest
import redis

from otel_queue.errors import WriteError
from otel_queue.ledger.contract import Rule
from otel_queue.ledger.scripts import script
from otel_queue.lifecycle import AttemptMade, DeliveryCreated, EventCreated, Record, StatusSet
from tests.ledger.ledgers import DAY_US, Ledger, agree_on, call, day_of, now_us, ulid
from tests.ledger.oracle import DELIVERIES

NOW_US = now_us()
AGO_US = NOW_US - 5 * DAY_US
TODAY, DAY = day_of(NOW_US), day_of(AGO_US)
AHEAD_US = NOW_US + DAY_US
ID = ulid(NOW_US, 1)


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
        # Retry is 3, a creation time that a status set tells 8, a status that was set 64; that time takes 2 bytes.
        head = bytes([3 + 8 + 64, width - 1 + 8 + 64 * (digits - 1)])
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


def test_a_time_before_1970_is_as_early_as_can_be(ledger: Ledger, client: Any) -> None:
    ledger.write(EventCreated("p", ID, NOW_US))
    stored = (NOW_US // 1000 << 80 | 1).to_bytes(16, "big")
    keys = ["groups", "days", f"deliveries:{TODAY}"]
    for at, endpoint, source in ((-5, "=first", ""), (NOW_US, "", "=S"), (3, "=later", "")):
        call(
            client,
            "record_deliveries",
            keys,
            TODAY,
            stored,
            zlib.crc32(stored),
            3,
            at,
            0,
            NOW_US,
            1,
            endpoint,
            "",
            source,
        )
    assert [labels[2:6] for labels in ledger.families()[DELIVERIES]] == [("first", "retry", "unknown", "S")]


def test_a_group_is_given_back_once_and_an_unknown_number_is_none(ledger: Ledger, client: Any) -> None:
    ledger.write(DeliveryCreated("p", ID, NOW_US, "E", "t", "S"))
    sequence = client.hget("oq:{p}:meta", "sequence")
    assert call(client, "free_groups", ["groups"], "", sequence, 7, 1) == 1
    assert call(client, "free_groups", ["groups"], "", sequence, 7, 1) == 0
    assert client.exists("oq:{p}:groups") == 0


def test_a_project_is_described_by_the_latest_then_the_greater_and_says_what_changed(
    ledger: Ledger, client: Any
) -> None:
    ledger.write(EventCreated("p", ID, NOW_US))

    def described(at: int, name: str) -> tuple[int, bytes, int, int]:
        changed = call(client, "describe_project", [], "", at, name, "", "")
        kept, at_us, sequence = client.hmget("oq:{p}:meta", "project_name", "described_at", "sequence")
        return changed, kept, int(at_us) - NOW_US, int(sequence)

    assert described(NOW_US, "B") == (1, b"B", 0, 2)
    assert described(NOW_US, "B") == (0, b"B", 0, 2)
    assert described(NOW_US, "A") == (0, b"B", 0, 2)
    assert described(NOW_US, "C") == (1, b"C", 0, 3)
    assert described(NOW_US - 1, "D") == (0, b"C", 0, 3)
    assert described(NOW_US + 1, "C") == (0, b"C", 1, 4)
    assert described(NOW_US + 2, "A") == (1, b"A", 2, 5)


@pytest.mark.parametrize("number", [100, 200, 40_000, 3_000_000_000])
def test_what_the_scripts_keep_is_read_as_they_keep_it(ledger: Ledger, client: Any, number: int) -> None:
    """Numbers of groups have no sign, and times are told from that of the id, before it and after it."""
    ledger.write(EventCreated("p", ID, NOW_US))
    client.hset("oq:{p}:meta", "groups", number - 1)
    for index, created_us in enumerate((NOW_US - DAY_US, NOW_US - 100_000, NOW_US + 90_000), 1):
        ledger.write(StatusSet("p", ulid(NOW_US, index), "processing", NOW_US - 5_000, "E", created_us=created_us))
    assert client.hexists("oq:{p}:groups", f"#{number}")
    assert ledger.differences() == []
    client.delete(f"oq:{{p}}:processing:{TODAY}")
    assert len(ledger.differences()) == 1
    ledger.upkeep.repair("p", TODAY)
    assert client.zcard(f"oq:{{p}}:processing:{TODAY}") == 3
    assert ledger.write(StatusSet("p", ulid(NOW_US, 1), "success", NOW_US)).changed == 1
    assert client.zcard(f"oq:{{p}}:processing:{TODAY}") == 2


def test_undated_ids_are_counted_anew_with_the_others_of_their_day(ledger: Ledger, client: Any) -> None:
    ledger.write(EventCreated("p", ID, NOW_US, "S"), EventCreated("p", "undated", NOW_US, "S"))
    assert ledger.differences() == []
    client.hincrby(f"oq:{{p}}:counts:{TODAY}", "1:e", 1)
    assert [(found.counted, found.tracked) for found in ledger.differences()] == [(3, 2)]


def test_what_changes_nothing_is_no_change_of_the_project(ledger: Ledger, client: Any) -> None:
    told = EventCreated("p", ID, NOW_US), StatusSet("p", ID, "retry", NOW_US)
    late = EventCreated("p", ulid(NOW_US - 40 * DAY_US, 1), NOW_US)
    ledger.write(*told)
    assert client.hget("oq:{p}:meta", "sequence") == b"2"
    assert ledger.write(*told, late) == (0, 2, 1, 0)
    assert client.hget("oq:{p}:meta", "sequence") == b"2"


def test_a_delivery_that_counts_under_other_stays_there_while_no_label_is_told(ledger: Ledger, client: Any) -> None:
    agree_on(client, rules=(Rule(most_groups=1),))
    ledger.write(EventCreated("p", ID, NOW_US, "S"), DeliveryCreated("p", ID, NOW_US, "E", "t", "S"))
    agree_on(client, rules=(Rule(),))
    ledger.write(StatusSet("p", ID, "retry", NOW_US))
    assert [labels[2:4] for labels in ledger.families()[DELIVERIES]] == [("other", "retry")]
    ledger.write(StatusSet("p", ID, "success", NOW_US + 1, "E"))
    assert [labels[2:4] for labels in ledger.families()[DELIVERIES]] == [("E", "success")]
