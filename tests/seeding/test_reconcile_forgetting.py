"""Rows that are gone: forgotten in the ledger, where their ids keep their places; and days that are gone."""

from collections.abc import Iterator
from typing import Any

import pytest

from otel_queue.config import RedisConfig
from otel_queue.ledger.contract import Rule
from otel_queue.ledger.identity import identify
from otel_queue.ledger.tracked import Kind, Place, Tracked
from otel_queue.lifecycle import DeliveryCreated, EventCreated, Record, StatusSet
from otel_queue.postgres.rows import Batch, DeliveryRow, Rows
from otel_queue.redis_client import connect
from tests.ledger.ledgers import DAY_US, Ledger, agree_on, assert_same, contents, expected, fold, now_us, ulid
from tests.postgres.gateway import DELIVERIES, EVENTS, Gateway
from tests.seeding.reconciles import reconcile, repaired
from tests.seeding.scene import (
    DAY,
    DAY_BEFORE,
    FIRST,
    LAST,
    NOON_US,
    PER_DAY,
    Scene,
    add_delivery,
    add_event,
    delivery_id,
    event_id,
    fill_days,
    seeded_scene,
)
from tests.seeding.seeds import assert_agree, seed
from tests.seeding.tables import at
from tests.servers.redis import RedisServer

MIDNIGHT_US = NOON_US - DAY_US // 2  # at which DAY began
MANY = 128 + 16 * 8


@pytest.fixture
def scene(gateway: Gateway, ledger: Ledger, redis_server: RedisServer) -> Iterator[Scene]:
    with seeded_scene(gateway, ledger, redis_server) as opened:
        yield opened


def many_ids() -> list[str]:
    return [ulid(NOON_US, 100_000 + number) for number in range(MANY)]


@pytest.fixture
def crowded(gateway: Gateway, ledger: Ledger, redis_server: RedisServer) -> Iterator[Scene]:
    """One day whose deliveries and events fill more than one node."""
    with redis_server.client() as client:
        for id_ in many_ids():
            add_event(gateway, id_, NOON_US)
            add_delivery(gateway, id_, id_, NOON_US, "Processing")
        assert seed(gateway, ledger.url).is_complete
        yield Scene(gateway, ledger, client)


def lengths(client: Any) -> dict[bytes, int]:
    return {key: client.hlen(key) for key in client.keys("oq:{P}:deliveries:*") + client.keys("oq:{P}:events:*")}


def delete_rows(scene: Scene, ids: list[str]) -> None:
    scene.sql("DELETE FROM convoy.event_deliveries WHERE id = ANY(%s)", ids)
    scene.sql("DELETE FROM convoy.events WHERE id = ANY(%s)", ids)


def forget_half(scene: Scene) -> tuple[list[str], list[str]]:
    """Ids that are kept, and ids that were forgotten."""
    ids = many_ids()
    gone = ids[::2]
    delete_rows(scene, gone)
    assert scene.run() == {"delivery gone": len(gone), "event gone": len(gone)}
    scene.assert_agrees()
    return ids[1::2], gone


def test_forgotten_ids_keep_their_places_and_others_are_found_behind_them(crowded: Scene) -> None:
    before = lengths(crowded.client)
    assert len(before) > 2
    kept, _ = forget_half(crowded)
    assert lengths(crowded.client) == before
    told: list[Record] = [StatusSet("P", id_, "success", NOON_US + DAY_US // 4) for id_ in kept]
    told += [EventCreated("P", id_, NOON_US + 1, "S") for id_ in kept]
    assert crowded.ledger.write(*told) == (len(kept), len(kept), 0, 0)
    contents(crowded.client)[b"P"].assert_adds_up()
    assert lengths(crowded.client) == before
    assert sum(crowded.ledger.families()[DELIVERIES].values()) == len(kept)


def test_a_forgotten_id_that_is_recorded_again_is_a_new_one(crowded: Scene) -> None:
    before = lengths(crowded.client)
    _, gone = forget_half(crowded)
    for id_ in gone:
        add_event(crowded.gateway, id_, NOON_US, "T")
        add_delivery(crowded.gateway, id_, id_, NOON_US)
    told: list[Record] = [EventCreated("P", id_, NOON_US, "T") for id_ in gone]
    told += [DeliveryCreated("P", id_, NOON_US, "E1", "t", "T", status="success", created_us=NOON_US) for id_ in gone]
    assert crowded.ledger.write(*told) == (2 * len(gone), 0, 0, 0)
    assert crowded.ledger.write(*told) == (0, 2 * len(gone), 0, 0)
    crowded.assert_agrees()
    contents(crowded.client)[b"P"].assert_adds_up()
    assert lengths(crowded.client) == before
    assert crowded.run() == {}


def test_rows_of_forgotten_ids_that_come_back_are_told_again(crowded: Scene) -> None:
    _, gone = forget_half(crowded)
    for id_ in gone:
        add_event(crowded.gateway, id_, NOON_US)
        add_delivery(crowded.gateway, id_, id_, NOON_US)
    assert crowded.run() == {"delivery missing": len(gone), "event missing": len(gone)}
    crowded.assert_agrees()


def test_a_day_with_forgotten_ids_is_counted_anew_without_them(crowded: Scene) -> None:
    forget_half(crowded)
    crowded.client.delete(crowded.key("counts"), crowded.key("processing"))
    assert crowded.ledger.upkeep.repair("P", DAY)
    crowded.assert_agrees()


def test_a_day_with_forgotten_ids_expires_with_all_its_nodes(crowded: Scene) -> None:
    forget_half(crowded)
    assert crowded.ledger.upkeep.expire("P", DAY) == 1
    assert lengths(crowded.client) == {}
    assert crowded.ledger.families()[DELIVERIES] == crowded.ledger.families()[EVENTS] == {}


def test_a_day_of_which_all_is_forgotten_is_not_listed_and_comes_back(crowded: Scene) -> None:
    delete_rows(crowded, many_ids())
    assert crowded.run() == {"delivery gone": MANY, "event gone": MANY}
    assert crowded.ledger.upkeep.days("P") == {}
    assert crowded.ledger.snapshot().failures == {}
    assert not crowded.client.exists(crowded.key("counts"), crowded.key("processing"))
    assert crowded.run() == {}
    id_ = many_ids()[0]
    add_event(crowded.gateway, id_, NOON_US)
    assert crowded.run() == {"event missing": 1}
    crowded.assert_agrees()


def test_counts_of_a_day_of_which_all_is_forgotten_are_taken_away(crowded: Scene) -> None:
    delete_rows(crowded, many_ids())
    crowded.run()
    crowded.client.hset(crowded.key("counts"), "1:6", 3)
    crowded.client.zadd("oq:{P}:days", {DAY: 1})
    assert crowded.run() == {"counts": 1}
    assert crowded.ledger.upkeep.days("P") == {}


def test_ids_that_are_held_twice_count_once(crowded: Scene) -> None:
    """A full node was lost, and filled again with ids that are also in the nodes behind it."""
    crowded.client.flushall()
    crowded.ledger.upkeep.begin()
    backwards = [DeliveryCreated("P", id_, NOON_US, "E1", "t", "S") for id_ in reversed(many_ids())]
    crowded.ledger.write(*backwards)
    crowded.run()
    crowded.assert_agrees()
    crowded.client.delete(crowded.key("deliveries"))
    assert crowded.run()["delivery missing"] == MANY
    crowded.assert_agrees()
    assert sum(map(crowded.client.hlen, crowded.client.keys("oq:{P}:deliveries:*"))) > MANY
    assert crowded.run() == {}


def test_the_days_before_the_first_row_are_expired(scene: Scene) -> None:
    """As when retention dropped them and nobody told."""
    for table in ("event_deliveries", "events"):
        scene.sql(f"DELETE FROM convoy.{table} WHERE created_at < %s", at(MIDNIGHT_US))
    assert scene.run(is_dry=True) == {"day gone": 2}
    assert scene.run() == {"day gone": 2}
    scene.assert_agrees()
    assert scene.client.hget("oq:{P}:meta", "expired") == DAY_BEFORE.encode()
    assert scene.run() == {}


def test_yesterday_is_not_expired_though_the_first_row_is_todays(scene: Scene) -> None:
    """Rows that are written across midnight may still come: what is gone is forgotten one by one."""
    scene.sql("DELETE FROM convoy.event_deliveries; DELETE FROM convoy.events")
    add_event(scene.gateway, ulid(now_us(), 1), now_us())
    report = reconcile(scene.gateway, scene.ledger.url)
    assert repaired(report) == {"day gone": 2, "delivery gone": PER_DAY + 1, "event gone": PER_DAY + 1}
    assert scene.client.hget("oq:{P}:meta", "expired") == DAY_BEFORE.encode()


def test_a_project_without_any_row_is_forgotten_and_none_of_its_days_is_closed(scene: Scene) -> None:
    """It may be the wrong database."""
    scene.sql("DELETE FROM convoy.event_deliveries; DELETE FROM convoy.events")
    assert scene.run() == {"delivery gone": 2 * PER_DAY + 1, "event gone": 2 * PER_DAY + 1, "old day": 1}
    families = scene.ledger.families()
    assert families[DELIVERIES] == families[EVENTS] == {}
    assert scene.client.hget("oq:{P}:meta", "expired") is None
    scene.sql("DELETE FROM convoy.delivery_attempts")
    fill_days(scene.gateway)
    assert scene.run() == {"delivery missing": 2 * PER_DAY + 1, "event missing": 2 * PER_DAY + 1, "old day": 1}
    scene.assert_agrees()


BORDER = ulid(MIDNIGHT_US - 3_000, 1)


@pytest.fixture
def bordered(scene: Scene) -> Scene:
    """The day before is gone, but for a delivery and an event whose ids were made before midnight, their rows after."""
    for table in ("event_deliveries", "events"):
        scene.sql(f"DELETE FROM convoy.{table} WHERE created_at < %s", at(MIDNIGHT_US))
    add_event(scene.gateway, BORDER, MIDNIGHT_US + 1)
    add_delivery(scene.gateway, BORDER, BORDER, MIDNIGHT_US + 2, "Processing")
    scene.ledger.upkeep.expire("P", DAY_BEFORE)
    return scene


def test_a_row_whose_ids_day_has_expired_is_kept_under_its_own_day(bordered: Scene) -> None:
    bordered.assert_repairs({"delivery missing": 1, "event missing": 1})


def test_a_row_under_its_own_day_is_repaired_and_forgotten_there(bordered: Scene) -> None:
    bordered.run()
    bordered.sql(
        "UPDATE convoy.event_deliveries SET status = 'Failure', endpoint_id = 'E2', created_at = created_at + '1 s'"
        " WHERE id = %s",
        BORDER,
    )
    bordered.assert_repairs({"delivery status": 1, "delivery label": 1, "delivery creation time": 1})
    delete_rows(bordered, [BORDER])
    bordered.assert_repairs({"delivery gone": 1, "event gone": 1})


def test_a_source_whose_event_is_gone_stays_as_it_was_told(scene: Scene) -> None:
    scene.sql("DELETE FROM convoy.events WHERE id = %s", event_id(0, 0))
    before = scene.ledger.families()[DELIVERIES]
    assert scene.run() == {"event gone": 1}
    assert scene.ledger.families()[DELIVERIES] == before
    assert scene.run() == {}


def test_rows_of_expired_days_are_beyond_and_no_finding(scene: Scene) -> None:
    """Where the database deletes nothing and `ledger.retention_days` does."""
    scene.ledger.upkeep.expire("P", DAY_BEFORE)
    report = reconcile(scene.gateway, scene.ledger.url)
    assert (report.found, report.left, report.is_clean) == ({}, {}, True)
    assert report.beyond == {("P", "delivery"): PER_DAY, ("P", "event"): PER_DAY, ("P", "old rows"): 2 * PER_DAY}


def test_settled_counts_are_put_anew(scene: Scene) -> None:
    fold(scene.client, "P", "20250101")
    assert scene.run() == {}
    old_day = next(iter(scene.ledger.upkeep.days("P")))
    fold(scene.client, "P", old_day)
    assert scene.run() == {}
    scene.client.hincrby("oq:{P}:counts:settled", scene.client.hkeys("oq:{P}:counts:settled")[0], 2)
    scene.assert_repairs({"old day": 1})
    scene.sql("DELETE FROM convoy.event_deliveries WHERE id < %s", ulid(NOON_US - 35 * DAY_US, 0))
    scene.sql("DELETE FROM convoy.events WHERE id < %s", ulid(NOON_US - 35 * DAY_US, 0))
    scene.assert_repairs({"old day": 1})


def test_a_status_that_nobody_knows_is_left_and_named(scene: Scene) -> None:
    scene.sql("UPDATE convoy.event_deliveries SET status = 'Wandering' WHERE id = %s", LAST)
    report = reconcile(scene.gateway, scene.ledger.url)
    [((project, why), count)] = report.left.items()
    assert (project, count, report.is_clean) == ("P", 1, False)
    assert "'Wandering' is not one of scheduled" in why
    assert repaired(report) == {}, "its delivery is not gone"


def test_labels_beyond_the_hard_cap_are_not_compared(
    gateway: Gateway, ledger: Ledger, redis_server: RedisServer
) -> None:
    with redis_server.client() as client:
        agree_on(client, rules=(Rule(most_groups=1),))
    add_event(gateway, event_id(0, 0), NOON_US)
    add_delivery(gateway, FIRST, event_id(0, 0), NOON_US)
    assert repaired(reconcile(gateway, ledger.url)) == {
        "delivery missing": 1, "event missing": 1, "project names": 1,
    }  # fmt: skip
    assert repaired(reconcile(gateway, ledger.url)) == {}


def test_rows_that_are_read_again_do_not_hide_what_is_gone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a slice fails in the middle."""
    once = Rows.deliveries

    def twice(rows: Rows, first_id: str) -> Iterator[Batch[DeliveryRow]]:
        for batch in once(rows, first_id):
            yield batch
            yield batch._replace(rows=batch.rows[-1:])

    monkeypatch.setattr(Rows, "deliveries", twice)
    scene.sql("DELETE FROM convoy.event_deliveries WHERE id = %s", FIRST)
    scene.assert_repairs({"delivery gone": 1})


def test_one_project_alone_is_reconciled(scene: Scene) -> None:
    scene.sql("DELETE FROM convoy.event_deliveries WHERE id = %s", FIRST)
    add_event(scene.gateway, event_id(0, 90), NOON_US, project="Q")
    add_delivery(scene.gateway, delivery_id(0, 90), event_id(0, 90), NOON_US, project="Q")
    assert scene.run(project="Q") == {"delivery missing": 1, "event missing": 1}
    assert scene.run(project="P") == {"delivery gone": 1}
    assert_agree(scene.ledger, scene.gateway)


def test_forgotten_deliveries_and_events_leave_what_was_never_told_of_them(ledger: Ledger) -> None:
    """The ledger after a forgotten id is that of the other records alone."""
    kept: list[Record] = [DeliveryCreated("P", LAST, NOON_US, "E", "t", "S"), EventCreated("P", LAST, NOON_US, "S")]
    gone: list[Record] = [
        DeliveryCreated("P", FIRST, NOON_US, "E", "t", "S", status="processing"),
        EventCreated("P", FIRST, NOON_US, "S"),
    ]
    ledger.write(*kept, *gone)
    with_nothing = expected(kept, NOON_US / 1e6)
    with pytest.raises(AssertionError):
        assert_same(ledger.families(), with_nothing)
    forget(ledger)
    families, now = ledger.read()
    assert_same(families, expected(kept, now))
    assert ledger.differences() == []


def forget(ledger: Ledger) -> None:
    tracked = Tracked(connect(RedisConfig(url=ledger.url)))
    kinds: tuple[Kind, ...] = ("delivery", "event")
    for kind in kinds:
        place, identity = Place(kind, "P", DAY), identify(FIRST)
        [state] = tracked.find({place: [identity]})[place].states
        assert state
        assert tracked.forget(place, [(identity, b"another state"), (identity, state), (identity, state)]) == [
            False, True, False,
        ]  # fmt: skip
        assert tracked.find({place: [identity]})[place].states == [b""]
        assert [id_ for id_, _ in tracked.ids(place)] == [identify(LAST).stored]
    tracked.close()
