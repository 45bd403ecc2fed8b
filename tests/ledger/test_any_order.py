"""Any order and any repetition of the same records ends the same, and as the oracle says."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_queue.labels import MOST_CHARACTERS
from otel_queue.lifecycle import (
    STATUSES,
    UNTOLD,
    AttemptMade,
    DeliveryCreated,
    DeliveryRead,
    EventCreated,
    Label,
    ProjectDescribed,
    Record,
    StatusSet,
)
from tests.ledger.ledgers import DAY_US, Contents, Ledger, assert_same, contents, expected, now_us, ulid
from tests.servers.redis import RedisServer

NOW_US = now_us()
HOUR_US = 3_600_000_000

PROJECTS = ("p1", "p2 {with} 50% é")
IDS = (
    *(ulid(NOW_US - HOUR_US, number) for number in range(4)),
    *(ulid(NOW_US - DAY_US, number) for number in range(2)),
    ulid(NOW_US - 9 * DAY_US, 1),
    ulid(NOW_US - HOUR_US, 1).lower(),
    "legacy-17",
    "0" * 26,  # a ULID of 1970
    "8" + ulid(NOW_US, 1)[1:],  # more bits than a ULID has
    "é" * 20,
    "sixteen bytes id",
)
# Some are equal once they are kept; the longest is cut.
LABELS: tuple[Label, ...] = (
    UNTOLD, UNTOLD, None, "", "http", "unknown", "other", "=", "E1", "E2", "a\nb", "a?b", "x" * (MOST_CHARACTERS + 1),
    "x" * MOST_CHARACTERS, "é",
)  # fmt: skip

label = st.sampled_from(LABELS)
# Few different times, so that records often tie.
time_us = st.integers(0, 5).map(lambda step: NOW_US - step * 1_000_000)
creation = st.none() | st.integers(0, 3).map(lambda step: NOW_US - 7_200_000_000 + step * 1_000_000)
# Processing more often than others, since only then the creation time is to be seen.
status = st.sampled_from([*STATUSES, "Success", "PROCESSING", *["processing"] * 8])


def record_of(project: str, text: str) -> st.SearchStrategy[Record]:
    """Something that is told of this id."""
    return st.one_of(
        st.builds(EventCreated, st.just(project), st.just(text), time_us, label),
        st.builds(DeliveryCreated, st.just(project), st.just(text), time_us, label, label, label, status, creation),
        st.builds(StatusSet, st.just(project), st.just(text), status, time_us, label, label, label, creation),
        st.builds(DeliveryRead, st.just(project), st.just(text), status, time_us, label, label, label, creation),
        # What one attempt was is told by one hook, so its labels follow from its id.
        st.builds(
            lambda at: AttemptMade(
                project, text, at, LABELS[len(text) % len(LABELS)], text < "4", (200, "404 OK", None)[len(text) % 3]
            ),
            time_us,
        ),
        st.builds(ProjectDescribed, st.just(project), time_us, *[st.sampled_from(["", "Name", "Näme", "N\0"])] * 3),
    )


@st.composite
def told_twice(draw: st.DrawFn) -> tuple[list[Record], list[Record]]:
    """Records of a few ids, so that they meet; and the same in another order with some repeated."""
    identities = draw(st.lists(st.tuples(st.sampled_from(PROJECTS), st.sampled_from(IDS)), min_size=1, max_size=2))
    records = draw(st.lists(st.sampled_from(identities).flatmap(lambda of: record_of(*of)), min_size=1, max_size=30))
    again = records + draw(st.lists(st.sampled_from(records), max_size=10))
    return records, draw(st.permutations(again))


def write_in_parts(ledger: Ledger, records: Sequence[Record], chance: random.Random) -> None:
    rest = list(records)
    while rest:
        size = chance.choice((1, 2, 7, len(rest)))
        ledger.write(*rest[:size])
        del rest[:size]


# The server and the ledger's connection are shared by all examples; each example empties the server.
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=told_twice(), chance=st.randoms(use_true_random=False))
def test_any_order_and_repetition_ends_in_the_same_ledger(
    redis_server: RedisServer, ledger: Ledger, told: tuple[list[Record], list[Record]], chance: random.Random
) -> None:
    ended: list[dict[bytes, Contents]] = []
    with redis_server.client() as client:
        for records in told:
            client.flushall()
            ledger.upkeep.begin()
            write_in_parts(ledger, records, chance)
            ended.append(contents(client))
            for held in ended[-1].values():
                held.assert_adds_up()
    assert ended[0] == ended[1]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=told_twice(), chance=st.randoms(use_true_random=False))
def test_what_is_exported_is_what_the_oracle_says(
    redis_server: RedisServer, ledger: Ledger, told: tuple[list[Record], list[Record]], chance: random.Random
) -> None:
    with redis_server.client() as client:
        client.flushall()
    ledger.upkeep.begin()
    write_in_parts(ledger, told[1], chance)
    families, now = ledger.read()
    # Attempts of nine days ago are outside their window, deliveries and events inside theirs.
    assert_same(families, expected(told[0], now))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=told_twice(), chance=st.randoms(use_true_random=False))
def test_no_count_is_below_zero_after_any_single_record(
    redis_server: RedisServer, ledger: Ledger, told: tuple[list[Record], list[Record]], chance: random.Random
) -> None:
    with redis_server.client() as client:
        client.flushall()
        ledger.upkeep.begin()
        for one in told[1]:
            ledger.write(one)
            for held in contents(client).values():
                held.assert_adds_up()


def test_writing_everything_again_changes_nothing_and_is_counted(redis_server: RedisServer, ledger: Ledger) -> None:
    records: list[Record] = [
        EventCreated("p", "e", NOW_US, "S"),
        DeliveryCreated("p", "d", NOW_US, "E", "t", "S"),
        StatusSet("p", "d", "processing", NOW_US + 1),
        AttemptMade("p", "a", NOW_US, "E", True, 200),
    ]
    assert ledger.write(*records).changed == 4
    with redis_server.client() as client:
        before = contents(client), client.zrange("oq:{p}:days", 0, -1, withscores=True)
        assert ledger.write(*reversed(records)) == (0, 4, 0, 0)
        assert (contents(client), client.zrange("oq:{p}:days", 0, -1, withscores=True)) == before
    [project] = ledger.snapshot().projects
    assert project.tallies == {"duplicate:event": 1, "duplicate:delivery": 2, "duplicate:attempt": 1}


CREATION: dict[str, tuple[list[tuple[str, int | None]], int]] = {
    "the earliest of what rows say": ([("c", 60), ("r", 9), ("r", 30), ("r", None)], 30),
    "else the earliest of what created records say": ([("c", 9), ("c", 30), ("s", 60)], 30),
    "else the earliest of what others say": ([("s", 9), ("s", 40), ("c", None)], 40),
    "else what the id says": ([("s", None), ("c", None)], 3_600),
}


@pytest.mark.parametrize("name", CREATION)
def test_a_delivery_waits_since(ledger: Ledger, name: str) -> None:
    told, seconds = CREATION[name]
    kinds: dict[str, type[DeliveryCreated | StatusSet | DeliveryRead]] = {
        "c": DeliveryCreated,
        "s": StatusSet,
        "r": DeliveryRead,
    }
    records = [
        kinds[kind](
            "p", IDS[0], time_us=NOW_US, status="processing", endpoint="E", source="S",
            created_us=None if ago is None else NOW_US - ago * 1_000_000,
        )
        for kind, ago in told
    ]  # fmt: skip
    ledger.write(*records)
    families, now = ledger.read()
    [waited] = families["convoy_event_delivery_queue_backlog_seconds"].values()
    assert round(waited - (now - NOW_US / 1e6)) == seconds
    assert_same(families, expected(records, now))


def test_an_attempt_told_twice_counts_once_with_what_was_told_first(ledger: Ledger) -> None:
    ledger.write(AttemptMade("p", "a", NOW_US, "E1", False, 500), AttemptMade("p", "a", NOW_US, UNTOLD, True, 200))
    assert ledger.families()["convoy_event_delivery_attempts_total"] == {("p", "E1", "failure", "500"): 1.0}


NODES = {"one node": 100, "two levels": 128 + 400, "three levels": 128 + 16 * 128 + 500}


@pytest.mark.parametrize("many", list(NODES.values()), ids=list(NODES))
def test_ids_of_a_day_with_many_of_them_are_still_found_once(
    redis_server: RedisServer, ledger: Ledger, many: int
) -> None:
    chance = random.Random(many)
    ids = [ulid(NOW_US - HOUR_US, chance.getrandbits(80)) for _ in range(many)]
    first: list[Record] = []
    for id_ in ids:
        first += [DeliveryCreated("p", id_, NOW_US, "E", "t", "S"), EventCreated("p", id_, NOW_US, "S")]
        first.append(AttemptMade("p", id_, NOW_US, "E", True, 200))
    assert ledger.write(*first).changed == 3 * many
    assert ledger.write(*first) == (0, 3 * many, 0, 0)
    chance.shuffle(ids)
    half = [StatusSet("p", id_, "success", NOW_US + 1) for id_ in ids[: many // 2]]
    assert ledger.write(*half).changed == many // 2
    with redis_server.client() as client:
        [held] = contents(client).values()
        held.assert_adds_up()
        nodes = len(client.keys("oq:{p}:deliveries:*"))
        longest = max(client.hlen(key) for key in client.keys("oq:{p}:deliveries:*"))
    assert (nodes == 1, nodes > 17) == (many == 100, many > 128 + 16 * 128)
    assert longest <= 128
    assert len(held.deliveries) == len(held.events) == len(held.attempt_ids) == many
    assert ledger.differences() == []
    assert_same(ledger.families(), expected([*first, *half], NOW_US / 1e6))
