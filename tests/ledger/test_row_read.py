"""What a row says of a delivery: its labels and creation time beat any hook's, its status is as good as a set one."""

from itertools import permutations, product

import pytest

from otel_queue.ledger.identity import identify
from otel_queue.ledger.states import DeliveryState, delivery_state
from otel_queue.lifecycle import DeliveryCreated, DeliveryRead, Record, StatusSet
from tests.ledger.ledgers import Ledger, assert_same, contents, expected, now_us, ulid
from tests.ledger.oracle import DELIVERIES
from tests.servers.redis import RedisServer

NOW_US = now_us()
ID = ulid(NOW_US - 60_000_000, 7)


def state_of(server: RedisServer) -> DeliveryState:
    day, stored, _, _ = identify(ID)
    with server.client() as client:
        state = client.hget(f"oq:{{p}}:deliveries:{day}", stored)
    assert isinstance(state, bytes)
    return delivery_state(day, stored, state)


def test_what_a_row_says_beats_every_hook_in_any_order(redis_server: RedisServer, ledger: Ledger) -> None:
    told: list[Record] = [
        DeliveryCreated("p", ID, NOW_US - 9, "wrong", "t", "S", created_us=NOW_US - 500),
        StatusSet("p", ID, "processing", NOW_US - 8, "wrong too", created_us=NOW_US - 600),
        DeliveryRead("p", ID, "processing", NOW_US - 5, "E", "t", "S", created_us=NOW_US - 400),
    ]
    for order in permutations(told):
        with redis_server.client() as client:
            client.flushall()
        ledger.upkeep.begin()
        for record in order:
            ledger.write(record)
        [(_, _, endpoint, status, *_)] = ledger.families()[DELIVERIES]
        assert (endpoint, status) == ("E", "processing")
        held = state_of(redis_server)
        assert (held.created_us, held.created_kind, held.is_set) == (NOW_US - 400, 4, True)


def test_of_two_readings_the_later_stands(ledger: Ledger) -> None:
    """Also where it shows an earlier status again: a delivery that is sent anew is scheduled after it was final."""
    told: list[Record] = [
        DeliveryRead("p", ID, "success", NOW_US - 5, "E1", "t", "S"),
        DeliveryRead("p", ID, "scheduled", NOW_US - 4, "E2", "t", "S"),
    ]
    ledger.write(*reversed(told))
    families, now = ledger.read()
    assert [labels[2:4] for labels in families[DELIVERIES]] == [("E2", "scheduled")]
    assert_same(families, expected(told, now))


def test_a_label_that_the_row_does_not_know_stays_as_hooks_told_it(ledger: Ledger) -> None:
    """The event of a delivery may be gone before it, and the source with it."""
    ledger.write(
        DeliveryCreated("p", ID, NOW_US - 9, "E1", "t", "S"), DeliveryRead("p", ID, "success", NOW_US - 5, "E2", "t")
    )
    [(_, _, endpoint, status, event_type, source, *_)] = ledger.families()[DELIVERIES]
    assert (endpoint, status, event_type, source) == ("E2", "success", "t", "S")


def test_a_status_that_was_set_after_the_reading_beats_the_row(ledger: Ledger) -> None:
    ledger.write(DeliveryRead("p", ID, "processing", NOW_US - 5), StatusSet("p", ID, "success", NOW_US - 4))
    [(_, _, _, status, *_)] = ledger.families()[DELIVERIES]
    assert status == "success"


KINDS: dict[str, type[DeliveryCreated | StatusSet | DeliveryRead]] = {
    "status set": StatusSet,
    "created": DeliveryCreated,
    "row read": DeliveryRead,
}


@pytest.mark.parametrize(("labels_by", "created_by"), list(product(KINDS, [*KINDS, "the id"])))
def test_where_labels_and_creation_are_from_is_kept(
    redis_server: RedisServer, ledger: Ledger, labels_by: str, created_by: str
) -> None:
    """Each combination is told apart later: a stronger record changes what is held, a weaker one does not."""
    ledger.write(
        KINDS[labels_by]("p", ID, status="success", time_us=NOW_US - 9, endpoint="E", event_type="t", source="S")
    )
    if created_by != "the id":
        ledger.write(KINDS[created_by]("p", ID, status="success", time_us=NOW_US - 9, created_us=NOW_US - 500))
    assert state_of(redis_server).created_kind == {**dict(zip(KINDS, (2, 3, 4), strict=True)), "the id": 1}[created_by]
    with redis_server.client() as client:
        before = contents(client)
    strongest = list(KINDS).index(labels_by)
    for kind, record in enumerate(KINDS.values()):
        # Of rows the later wins, of hooks the earlier.
        at = NOW_US - (10 if record is DeliveryRead else 8)
        ledger.write(record("p", ID, status="success", time_us=at, endpoint=f"by {kind}"))
        [(_, _, endpoint, *_)] = ledger.families()[DELIVERIES]
        assert endpoint == (f"by {kind}" if kind > strongest else "E")
    with redis_server.client() as client:
        assert before[b"p"].counts.total() == contents(client)[b"p"].counts.total() == 1
