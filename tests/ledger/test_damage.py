"""What readers and `check` say of a ledger that lost something, and what `repair` can do."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from otel_queue.config import RedisConfig
from otel_queue.errors import ReadError
from otel_queue.ledger.contract import Rule
from otel_queue.ledger.families import tally_families
from otel_queue.ledger.held import HeldCounters
from otel_queue.ledger.keys import Keys
from otel_queue.ledger.reader import LedgerReader
from otel_queue.ledger.scripts import script
from otel_queue.ledger.upkeep import Upkeep
from otel_queue.lifecycle import AttemptMade, DeliveryCreated, EventCreated, Record, StatusSet
from otel_queue.redis_client import Answers, RedisLink, Request, connect
from tests.ledger.ledgers import DAY_US, Ledger, assert_same, contents, day_of, expected, now_us, ulid
from tests.ledger.oracle import DELIVERIES
from tests.servers.redis import RedisServer

NOW_US = now_us()
TODAY, YESTERDAY = day_of(NOW_US), day_of(NOW_US - DAY_US)
COUNTS, PROCESSING, DELIVERIES_OF_DAY = (f"oq:{{p}}:{what}:{TODAY}" for what in ("counts", "processing", "deliveries"))


def work(project: str, at: int) -> list[Record]:
    records: list[Record] = []
    for number in range(4):
        id_ = ulid(at, number)
        records += [
            EventCreated(project, id_, at, "S"),
            DeliveryCreated(project, id_, at, "E", "t", "S"),
            StatusSet(project, id_, "processing", at + 1),
            AttemptMade(project, id_, at, "E", True, 200),
        ]
    return [*records, StatusSet(project, ulid(at, 0), "success", at + 2)]


RECORDS = [*work("p", NOW_US), *work("p", NOW_US - DAY_US), *work("whole", NOW_US)]


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with redis_server.client() as opened:
        yield opened


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    ledger.write(*RECORDS)
    return ledger


def field_of(client: Any, status: str) -> bytes:
    """The field of today's counts that ends so."""
    [field] = [name for name in client.hkeys(COUNTS) if name.endswith(b":" + status.encode())]
    assert isinstance(field, bytes)
    return field


DAMAGE: dict[str, tuple[Callable[[Any], object], list[tuple[str, int, int]]]] = {
    # What it is                            how it comes about                                what, counted, tracked
    "a count is off": (lambda redis: redis.hincrby(COUNTS, field_of(redis, "2"), 5), [("2", 8, 3)]),
    "a count is below zero": (lambda redis: redis.hset(COUNTS, field_of(redis, "6"), -1), [("6", -1, 1)]),
    "a count of events is off": (lambda redis: redis.hincrby(COUNTS, field_of(redis, "e"), -1), [("e", 3, 4)]),
    "a field is lost": (lambda redis: redis.hdel(COUNTS, field_of(redis, "6")), [("6", 0, 1)]),
    "a field too many": (lambda redis: redis.hset(COUNTS, "1:5", 2), [("5", 2, 0)]),
    "all counts of a day are lost": (lambda redis: redis.delete(COUNTS), [("2", 0, 3), ("6", 0, 1), ("e", 0, 4)]),
    "the index of what is in processing is lost": (lambda redis: redis.delete(PROCESSING), [("2", 0, 3)]),
    "a delivery is in the index twice": (
        lambda redis: redis.zadd(PROCESSING, {redis.zrange(PROCESSING, 0, 0)[0][:11] + b"some other id": 0}),
        [("2", 4, 3)],
    ),
    "a tracked delivery is lost": (
        lambda redis: redis.hdel(DELIVERIES_OF_DAY, next(iter(redis.hkeys(DELIVERIES_OF_DAY)))),
        [("6", 1, 0)],
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_to_a_day_is_found_and_repaired(filled: Ledger, client: Any, name: str) -> None:
    damage, found = DAMAGE[name]
    assert filled.differences() == []
    damage(client)
    differences = filled.differences()
    assert sorted((each.what, each.counted, each.tracked) for each in differences) == found
    assert {(each.project, each.day) for each in differences} == {("p", TODAY)}
    assert filled.upkeep.repair("p", TODAY)
    assert filled.differences() == []
    contents(client)[b"p"].assert_adds_up()
    if name != "a tracked delivery is lost":
        families, now = filled.read()
        assert_same(families, expected(RECORDS, now))


LOST = {
    f"oq:{{p}}:counts:{TODAY}": "day_lost",
    "oq:{p}:attempts": "day_lost",
    "oq:{p}:days": "day_unlisted",
    "oq:{p}:meta": "project_lost",
    "oq:{p}:groups": "group_lost",
}


@pytest.mark.parametrize(("key", "reason"), LOST.items())
def test_a_project_that_lost_a_key_is_left_out_and_counted_while_others_are_read(
    filled: Ledger, client: Any, key: str, reason: str
) -> None:
    client.delete(key)
    snapshot = filled.snapshot()
    assert snapshot.failures == {reason: 1}
    assert [project.project for project in snapshot.projects] == ["whole"]


def test_totals_over_all_projects_are_absent_while_one_of_them_cannot_be_read(filled: Ledger, client: Any) -> None:
    """Without it they would fall, and rise again when it is back, as a counter that has begun anew does."""
    filled.write(*RECORDS)

    def totals() -> dict[str, list[tuple[tuple[str, ...], float]]]:
        return {family.name: list(family.samples) for family in tally_families(filled.snapshot(), held).families}

    held = HeldCounters()
    before = totals()
    assert (("delivery",), 27.0) in before["otel_queue_duplicates_suppressed_total"]
    client.rename("oq:{p}:attempts", "oq:{p}:away")
    assert totals() == {}
    client.rename("oq:{p}:away", "oq:{p}:attempts")
    assert totals() == before


def test_a_ledger_without_its_birth_is_unknown_and_not_empty(filled: Ledger, client: Any) -> None:
    client.delete("oq:contract")
    with pytest.raises(ReadError) as raised:
        filled.snapshot()
    assert raised.value.reason == "no_birth"
    client.flushall()
    with pytest.raises(ReadError, match="never begun, or was lost"):
        filled.snapshot()


def test_a_project_that_is_not_registered_any_more_comes_back_with_its_next_record(filled: Ledger, client: Any) -> None:
    client.zrem("oq:projects", "p")
    assert [project.project for project in filled.snapshot().projects] == ["whole"]
    filled.write(RECORDS[0])
    families, now = filled.read()
    assert_same(families, expected(RECORDS, now))


def test_labels_stay_right_when_a_project_lost_its_meta_and_goes_on(filled: Ledger, client: Any) -> None:
    client.delete("oq:{p}:meta")
    more = [DeliveryCreated("p", ulid(NOW_US, 99), NOW_US, "another endpoint", "t", "S")]
    filled.write(*more)
    families, now = filled.read()
    assert_same(families, expected([*RECORDS, *more], now))


def test_a_day_that_is_no_longer_tracked_is_not_called_damaged_and_not_emptied(filled: Ledger, client: Any) -> None:
    """Until it is folded; its ids have gone with their TTL."""
    client.delete(DELIVERIES_OF_DAY, f"oq:{{p}}:events:{TODAY}")
    assert filled.differences() == []
    with pytest.raises(ReadError) as raised:
        filled.upkeep.repair("p", TODAY)
    assert raised.value.reason == "untracked"
    families, now = filled.read()
    assert_same(families, expected(RECORDS, now))


class Interrupted:
    """A link on which somebody else writes just before a day's counts are replaced."""

    def __init__(self, link: RedisLink, meanwhile: Callable[[], object]) -> None:
        self._link = link
        self._meanwhile = meanwhile

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        if any(script("replace_counts").sha in item.packed for item in requests):
            self._meanwhile()
        return self._link.exchange(requests, deadline)

    def close(self) -> None:
        self._link.close()


def test_repair_replaces_nothing_when_the_day_changed_since_it_was_looked_at(filled: Ledger, client: Any) -> None:
    client.hincrby(COUNTS, field_of(client, "2"), 5)
    more = DeliveryCreated("p", ulid(NOW_US, 50), NOW_US, "E", "t", "S")
    link = Interrupted(connect(RedisConfig(url=filled.url)), lambda: filled.write(more))
    assert not Upkeep(link).repair("p", TODAY)
    assert [(each.what, each.counted) for each in filled.differences()] == [("2", 8)]
    assert filled.upkeep.repair("p", TODAY)
    families, now = filled.read()
    assert_same(families, expected([*RECORDS, more], now))
    link.close()


def test_repairing_a_day_that_is_whole_changes_nothing(filled: Ledger, client: Any) -> None:
    before = contents(client)
    assert filled.upkeep.repair("p", TODAY)
    assert contents(client) == before


def test_a_group_beyond_the_hard_cap_counts_under_other(redis_server: RedisServer) -> None:
    ledger = Ledger(redis_server.url, Rule(most_groups=2))
    ledger.write(*(StatusSet("p", f"d{number}", "success", NOW_US, f"E{number}", "t", "S") for number in range(5)))
    assert ledger.families()[DELIVERIES] == {
        ("p", "", "E0", "success", "t", "S", "", ""): 1.0,
        ("p", "", "E1", "success", "t", "S", "", ""): 1.0,
        ("p", "", "other", "success", "other", "other", "", ""): 3.0,
    }
    assert ledger.differences() == []
    ledger.close()


def test_another_ledger_in_its_place_is_not_mixed_with_what_was_remembered(filled: Ledger, client: Any) -> None:
    link = connect(RedisConfig(url=filled.url))
    reader = LedgerReader(link)
    assert len(reader.snapshot().projects) == 2
    client.flushall()
    filled.upkeep.begin()
    filled.write(*work("p", NOW_US - DAY_US))
    [project] = reader.snapshot().projects
    assert set(project.days) == {YESTERDAY, "attempts"}
    link.close()


def test_keys_are_in_one_slot_whatever_the_project_is_called() -> None:
    for name in ("p", "{", "}", "{}", "a{b}c", "%7B", "é", "%"):
        of = Keys().project(name)
        tag = of.meta.split(b"{", 1)[1].split(b"}", 1)[0]
        assert tag
        assert all(
            b"{" + tag + b"}" in key for key in (of.groups, of.days, of.attempts, of.counts("d"), of.events("d"))
        )
    assert len({Keys().project(name).meta for name in ("{", "%7B", "}", "%7D")}) == 4
