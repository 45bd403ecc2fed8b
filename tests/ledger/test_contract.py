"""The contract stands in Redis: writers bring none, days go by the rule of their own, other protocols are refused."""

import time
from importlib import resources

import pytest
import redis

from otel_queue.config import RedisConfig
from otel_queue.errors import ReadError, WriteError
from otel_queue.ledger.contract import Contract, Rule, parse_contract
from otel_queue.ledger.identity import end_of
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.upkeep import Upkeep
from otel_queue.lifecycle import DeliveryCreated, EventCreated, Record, StatusSet
from otel_queue.redis_client import connect
from tests.ledger.ledgers import DAY_US, Ledger, agree_on, day_of, now_us, ulid
from tests.ledger.oracle import DELIVERIES
from tests.servers.redis import RedisServer

NOW_US = now_us()
IN_TWO_DAYS = day_of(NOW_US + 2 * DAY_US)


def event(number: int = 1, *, days_ago: int = 0, project: str = "p") -> EventCreated:
    return EventCreated(project, ulid(NOW_US - days_ago * DAY_US, number), NOW_US, "S")


def test_a_contract_is_read_as_it_was_written() -> None:
    contract = Contract(NOW_US, 7, (Rule(1, 2, 3), Rule(60, 14, 500, "20261201")))
    assert parse_contract(contract.text()) == contract
    assert contract.text() == f"2;{NOW_US};7;00000000:1:2:3;20261201:60:14:500;".encode()
    assert [contract.rule_of(day).track_days for day in ("20261130", "20261201", "undated")] == [1, 60, 60]


@pytest.mark.parametrize("text", [b"", b"2;", b"3;1;1;00000000:1:1:1;", b"2;1;1;20261201:1:1:1;", b"\xff", b"2;1;1;x"])
def test_what_is_no_contract_is_a_read_error(text: bytes) -> None:
    with pytest.raises(ReadError) as raised:
        parse_contract(text)
    assert raised.value.reason == "contract"


def test_raising_the_days_that_are_tracked_counts_nothing_again(redis_server: RedisServer) -> None:
    """What a writer told with a longer window used to be counted twice, where the shorter one had ended."""
    ledger = Ledger(redis_server.url, Rule(track_days=2))
    told: list[Record] = []
    for days_ago in range(6):
        for number in range(5):
            id_ = ulid(NOW_US - days_ago * DAY_US, number)
            told += [DeliveryCreated("p", id_, NOW_US, "E", "t", "S"), StatusSet("p", id_, "success", NOW_US + 1)]
    ledger.write(*told)
    counted = ledger.families()[DELIVERIES]
    assert sum(counted.values()) == 15
    ledger.upkeep.add_rule(Rule(track_days=60))
    assert ledger.write(*told).changed == 0
    assert ledger.families()[DELIVERIES] == counted
    ledger.close()


def test_a_new_rule_holds_for_ids_of_the_days_to_come(redis_server: RedisServer, ledger: Ledger) -> None:
    ledger.write(event())
    contract = ledger.upkeep.add_rule(Rule(track_days=60))
    assert contract.rules == (Rule(), Rule(track_days=60, from_day=IN_TWO_DAYS))
    assert ledger.upkeep.add_rule(Rule(track_days=60)) == contract, "the same again adds nothing"
    later = EventCreated("p", ulid(NOW_US + 2 * DAY_US, 1), NOW_US, "S")
    ledger.write(event(2), later)
    with redis_server.client() as client:
        assert client.hget("oq:{p}:meta", "contract") == contract.text() == client.get("oq:contract")
        ends = {day: client.expiretime(f"oq:{{p}}:events:{day}") for day in (day_of(NOW_US), IN_TWO_DAYS)}
    midnight = NOW_US // DAY_US * 86_400 + 86_400
    assert ends == {day_of(NOW_US): midnight + 37 * 86_400, IN_TWO_DAYS: midnight + 69 * 86_400}


def test_a_writer_brings_no_contract_of_its_own(redis_server: RedisServer) -> None:
    ledger = Ledger(redis_server.url, Rule(track_days=3))
    assert ledger.write(event(days_ago=5), event(days_ago=2)) == (1, 0, 1, 0)
    assert ledger.write(event(days_ago=5), event(days_ago=2)) == (0, 1, 1, 0)
    ledger.close()


def test_without_a_contract_records_are_refused_until_the_ledger_is_begun(redis_server: RedisServer) -> None:
    store, upkeep = (of(connect(RedisConfig(url=redis_server.url))) for of in (LedgerStore, Upkeep))
    assert isinstance(store, LedgerStore)
    assert isinstance(upkeep, Upkeep)
    with pytest.raises(WriteError, match="oq:contract is missing: the ledger was never begun") as raised:
        store.write([event()], time.monotonic() + 10)
    assert raised.value.reason == "no_birth"
    assert upkeep.begin()
    assert store.write([event()], time.monotonic() + 10).changed == 1
    store.close()


def test_a_ledger_of_the_first_protocol_is_refused_with_a_sentence_that_says_what_to_do(
    redis_server: RedisServer,
) -> None:
    with redis_server.client() as client:
        client.set("oq:birth", NOW_US)
        client.sadd("oq:projects", "p")
        client.hset("oq:{p}:meta", "sequence", 5)
    advice = "is of protocol 1, .* speaks protocol 2: use the version that wrote it, or begin a new one under another"
    link = connect(RedisConfig(url=redis_server.url))
    with pytest.raises(ReadError, match=advice) as unread:
        Upkeep(link).begin()
    assert unread.value.reason == "contract"
    with pytest.raises(WriteError, match=advice) as raised:
        LedgerStore(link).write([event()], time.monotonic() + 10)
    assert raised.value.reason == "contract"
    link.close()
    with redis_server.client() as client:
        assert client.hgetall("oq:{p}:meta") == {b"sequence": b"5"}
        client.flushall()


def test_a_later_protocol_is_refused_and_both_are_named(redis_server: RedisServer, ledger: Ledger) -> None:
    ledger.write(event())
    with redis_server.client() as client:
        for key, field in (("oq:{p}:meta", "contract"), ("oq:contract", None)):
            text = b"3;1;1;00000000:1:1:1;"
            client.set(key, text) if field is None else client.hset(key, field, text)
    with pytest.raises(WriteError, match="of protocol 3, and this version of otel-queue speaks protocol 2"):
        ledger.write(event(2))
    with pytest.raises(ReadError, match="of protocol 3"):
        ledger.snapshot()


def test_another_contract_of_one_project_costs_no_other(redis_server: RedisServer, ledger: Ledger) -> None:
    ledger.write(event(), event(project="q"))
    with redis_server.client() as client:
        client.hset("oq:{q}:meta", "contract", "3;1;1;00000000:1:1:1;")
    assert ledger.write(event(2)).changed == 1
    with pytest.raises(WriteError):
        ledger.write(event(2, project="q"))


def test_a_contract_that_was_lost_is_written_again_as_its_projects_have_it(
    redis_server: RedisServer, ledger: Ledger
) -> None:
    ledger.write(event())
    with redis_server.client() as client:
        agree_on(client, birth_us=NOW_US - DAY_US, rules=(Rule(track_days=9),))
        held = client.get("oq:contract")
        client.delete("oq:contract")
        assert ledger.upkeep.begin()
        assert client.get("oq:contract") == held
        assert not ledger.upkeep.begin()


def test_the_script_says_what_the_project_has_to_a_caller_with_another(
    redis_server: RedisServer, ledger: Ledger
) -> None:
    """As a third writer would meet it, that sends a contract with each call."""
    from otel_queue.ledger.scripts import script

    ledger.write(event())
    with redis_server.client() as client:
        held = client.hget("oq:{p}:meta", "contract") or b""
        call = script("number_groups").text.decode(), 2, "oq:{p}:meta", "oq:{p}:groups"
        assert client.eval(*call, held.decode(), "undated") == []
        for other in (held.decode()[:-5], held.decode().replace(":30:", ":31:"), "2;1;5000000;00000000:40:7:100000;"):
            with pytest.raises(redis.ResponseError) as raised:
                client.eval(*call, other, "undated")
            assert str(raised.value) == f"OQCONTRACT {held.decode()}"
        grown = held.decode() + f"{IN_TWO_DAYS}:60:7:100000;"
        assert client.eval(*call, grown, "undated") == []
        assert client.hget("oq:{p}:meta", "contract") == grown.encode()


@pytest.mark.parametrize("track_days", [(30,), (30, 2), (2, 30), (30, 2, 1), (9, 1, 3), (1, 2, 30), (3, 0, 7)])
def test_no_day_is_tracked_for_less_long_than_an_earlier_one(
    redis_server: RedisServer, track_days: tuple[int, ...]
) -> None:
    begins = ("00000000", "20260110", "20260113")
    rules = tuple(Rule(track_days=days, from_day=begin) for days, begin in zip(track_days, begins, strict=False))
    contract = Contract(NOW_US, rules=rules)
    days = [f"202601{day:02}" for day in range(1, 32)]
    latest, wanted = 0, []
    for day in days:
        latest = max(latest, end_of(day) + contract.rule_of(day).track_days * 86_400)
        wanted.append(latest)
    assert [contract.tracked_until(day) for day in days] == wanted
    text = (resources.files("otel_queue.ledger") / "contract.lua").read_text(encoding="utf-8")
    with redis_server.client() as client:
        asked = f"{text} return tracked_until_of(ARGV[2])"
        assert [client.eval(asked, 1, "oq:{p}:meta", contract.text(), day) for day in days] == wanted
