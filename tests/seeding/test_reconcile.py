"""Each way in which a ledger can be off: found, repaired, and not found again."""

from collections.abc import Callable, Iterator

import pytest

from otel_queue.lifecycle import StatusSet
from tests.ledger.ledgers import DAY_US, Ledger, now_us, ulid
from tests.postgres.gateway import Gateway
from tests.seeding.reconciles import reconcile, repaired
from tests.seeding.scene import (
    FIRST,
    LAST,
    NOON_US,
    OLD_DAY,
    PER_DAY,
    Scene,
    add_attempt,
    add_delivery,
    add_event,
    delivery_id,
    event_id,
    everything,
    seeded_scene,
)
from tests.seeding.tables import MINUTE_US
from tests.servers.redis import RedisServer


@pytest.fixture
def scene(any_gateway: Gateway, ledger: Ledger, redis_server: RedisServer) -> Iterator[Scene]:
    with seeded_scene(any_gateway, ledger, redis_server) as opened:
        yield opened


def test_a_ledger_in_step_needs_no_repair(scene: Scene) -> None:
    before = everything(scene.client)
    assert scene.run() == {}
    assert everything(scene.client) == before
    scene.assert_agrees()


def test_attempts_from_before_the_ledger_began_are_not_counted(scene: Scene) -> None:
    add_attempt(scene.gateway, ulid(NOON_US, 5_002), NOON_US - DAY_US - 1)
    report = reconcile(scene.gateway, scene.ledger.url)
    assert (repaired(report), report.early_attempts, report.is_clean) == ({}, 1, True)


def status_stays_behind(scene: Scene) -> None:
    scene.sql(
        "UPDATE convoy.event_deliveries SET status = 'Failure', updated_at = now() - interval '1 minute' WHERE id = %s",
        LAST,
    )


def delivery_is_unknown(scene: Scene) -> None:
    add_delivery(scene.gateway, delivery_id(0, 77), event_id(0, 0), NOON_US, "Processing")


def labels_are_untold(scene: Scene) -> None:
    delivery_is_unknown(scene)
    scene.ledger.write(StatusSet("P", delivery_id(0, 77), "processing", NOON_US + MINUTE_US, created_us=NOON_US))


def event_is_unknown(scene: Scene) -> None:
    add_event(scene.gateway, event_id(1, 77), NOON_US - DAY_US, None)


def attempt_is_unknown(scene: Scene) -> None:
    add_attempt(scene.gateway, ulid(NOON_US, 5_001), NOON_US)


def attempt_under_an_undated_id_is_unknown(scene: Scene) -> None:
    add_attempt(scene.gateway, "no ulid", NOON_US)


def label_is_another(scene: Scene) -> None:
    scene.sql("UPDATE convoy.event_deliveries SET endpoint_id = NULL WHERE id = %s", LAST)


def source_is_another(scene: Scene) -> None:
    scene.sql("UPDATE convoy.events SET source_id = 'S9' WHERE id = %s", event_id(0, 0))


def created_earlier(scene: Scene) -> None:
    scene.sql("UPDATE convoy.event_deliveries SET created_at = created_at - interval '90 s' WHERE id = %s", LAST)


def created_later(scene: Scene) -> None:
    scene.sql("UPDATE convoy.event_deliveries SET created_at = created_at + interval '90 s' WHERE id = %s", LAST)


def created_a_microsecond_later(scene: Scene) -> None:
    scene.sql("UPDATE convoy.event_deliveries SET created_at = created_at + interval '1 us' WHERE id = %s", LAST)


def all_of_a_delivery_is_off(scene: Scene) -> None:
    label_is_another(scene)
    created_later(scene)
    status_stays_behind(scene)


def delivery_is_deleted(scene: Scene) -> None:
    scene.sql("DELETE FROM convoy.event_deliveries WHERE id = ANY(%s)", [LAST, FIRST, "no ulid"])


def delivery_is_marked_deleted(scene: Scene) -> None:
    scene.sql("UPDATE convoy.event_deliveries SET deleted_at = now() WHERE id = %s", FIRST)


def event_is_deleted(scene: Scene) -> None:
    scene.sql("DELETE FROM convoy.event_deliveries WHERE event_id = %s", event_id(1, 0))
    scene.sql("DELETE FROM convoy.events WHERE id = %s", event_id(1, 0))


def counts_are_off(scene: Scene) -> None:
    [field] = [name for name in scene.client.hkeys(scene.key("counts")) if name.endswith(b":6")]
    scene.client.hincrby(scene.key("counts"), field, 3)


def index_is_lost(scene: Scene) -> None:
    scene.client.delete(scene.key("processing"))


def counts_are_lost(scene: Scene) -> None:
    scene.client.delete(scene.key("counts"))


def ids_are_lost(scene: Scene) -> None:
    """Their counts are not, so what comes again for them is counted again at first."""
    scene.client.delete(scene.key("deliveries"), scene.key("events"))


def labels_are_lost(scene: Scene) -> None:
    scene.client.delete("oq:{P}:groups")


def project_is_not_registered(scene: Scene) -> None:
    scene.client.zrem("oq:projects", "P")


def project_is_renamed(scene: Scene) -> None:
    scene.sql("UPDATE convoy.projects SET name = %s WHERE id = 'P'", "Neu\t")


def names_are_kept_with_a_time_to_come(scene: Scene) -> None:
    scene.client.hset("oq:{P}:meta", mapping={"described_at": now_us() + 365 * DAY_US, "project_name": "Old"})


def old_counts_are_off(scene: Scene) -> None:
    counts = scene.key("counts", OLD_DAY)
    scene.client.hincrby(counts, scene.client.hkeys(counts)[0], 3)


def old_rows_changed(scene: Scene) -> None:
    scene.sql("UPDATE convoy.event_deliveries SET status = 'Failure' WHERE id = %s", delivery_id(40, PER_DAY - 1))


def old_rows_are_gone(scene: Scene) -> None:
    scene.sql("DELETE FROM convoy.event_deliveries WHERE id < %s", ulid(NOON_US - 35 * DAY_US, 0))


DAMAGE: list[tuple[Callable[[Scene], None], dict[str, int]]] = [
    (status_stays_behind, {"delivery status": 1}),
    (delivery_is_unknown, {"delivery missing": 1}),
    (labels_are_untold, {"delivery label": 3}),
    (event_is_unknown, {"event missing": 1}),
    (attempt_is_unknown, {"attempt missing": 1}),
    (attempt_under_an_undated_id_is_unknown, {"attempt missing": 1}),
    (label_is_another, {"delivery label": 1}),
    (source_is_another, {"event source": 1, "delivery label": 1}),
    (created_earlier, {"delivery creation time": 1}),
    (created_later, {"delivery creation time": 1}),
    (created_a_microsecond_later, {"delivery creation time": 1}),
    (all_of_a_delivery_is_off, {"delivery label": 1, "delivery creation time": 1, "delivery status": 1}),
    (delivery_is_deleted, {"delivery gone": 3}),
    (delivery_is_marked_deleted, {"delivery gone": 1}),
    (event_is_deleted, {"delivery gone": 1, "event gone": 1}),
    (counts_are_off, {"counts": 1}),
    (index_is_lost, {"counts": 1}),
    (counts_are_lost, {"counts": 3}),
    (project_is_not_registered, {"project missing": 1}),
    (project_is_renamed, {"project names": 1}),
    (names_are_kept_with_a_time_to_come, {"project names": 1}),
    (old_counts_are_off, {"old day": 1}),
    (old_rows_changed, {"old day": 1}),
    (old_rows_are_gone, {"old day": 1}),
]


@pytest.mark.parametrize(("damage", "found"), DAMAGE, ids=[damage.__name__ for damage, _ in DAMAGE])
def test_damage_is_found_and_repaired(scene: Scene, damage: Callable[[Scene], None], found: dict[str, int]) -> None:
    damage(scene)
    scene.assert_repairs(found)


@pytest.mark.parametrize("damage", [ids_are_lost, labels_are_lost])
def test_what_a_key_held_is_told_again_by_the_rows(scene: Scene, damage: Callable[[Scene], None]) -> None:
    damage(scene)
    assert scene.run()
    scene.assert_agrees()
    assert scene.run() == {}
