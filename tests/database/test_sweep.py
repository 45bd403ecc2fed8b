"""What only a sweep finds. After one the ledger is equal to the rows."""

import contextlib

import pytest

from otel_queue.database.place import Place
from tests.database.scene import Scene
from tests.ledger.ledgers import now_us
from tests.postgres.gateway import EVENTS, Gateway
from tests.seeding.tables import fill


def test_a_ledger_that_is_equal_to_the_rows_is_left_as_it_is(scene: Scene) -> None:
    for _ in range(120):
        scene.attempt(scene.delivery(scene.event(), "Success"))
    scene.look()
    assert scene.sweep() == {}
    scene.assert_equal()


@pytest.mark.parametrize("number", range(4))
def test_after_a_sweep_any_ledger_is_equal_to_any_rows(scene: Scene, number: int) -> None:
    fill(scene.gateway, number, days=20)
    scene.place()
    scene.follower.look(Place(events_us=now_us(), deliveries_us=now_us(), attempts_us=now_us(), filled_us=None))
    scene.sweep()
    scene.assert_equal()
    assert scene.sweep() == {}


def test_a_final_row_that_became_another_final_one_between_two_looks_is_found(scene: Scene) -> None:
    delivery = scene.delivery(scene.event(), "Failure")
    scene.delivery(scene.event(), "Discarded")
    scene.look()
    scene.set_status(delivery, "Success")  # by force resend, and before the next look
    scene.look()
    assert scene.brief() == {"E1,failure,S1": 1, "E1,discarded,S1": 1}
    assert scene.sweep() == {"delivery status": 1}
    scene.assert_equal()


def test_final_deliveries_that_were_deleted_count_no_more(scene: Scene) -> None:
    event = scene.event()
    soft, hard, _ = (scene.delivery(event, "Success") for _ in range(3))
    scene.look()
    scene.gateway.execute("UPDATE convoy.event_deliveries SET deleted_at = now() WHERE id = %s", soft)
    scene.gateway.execute("DELETE FROM convoy.event_deliveries WHERE id = %s", hard)
    assert scene.sweep() == {"delivery deleted": 1, "delivery without a row": 1}
    assert scene.brief() == {"E1,success,S1": 1}


def test_a_soft_deleted_event_counts_and_a_hard_deleted_one_does_not(scene: Scene) -> None:
    soft, hard = scene.event(source="soft"), scene.event(source="hard")
    scene.look()
    scene.gateway.execute("UPDATE convoy.events SET deleted_at = now() WHERE id = %s", soft)
    scene.gateway.execute("DELETE FROM convoy.events WHERE id = %s", hard)
    scene.sweep()
    assert scene.brief(EVENTS) == {"soft": 1}


def test_an_undated_delivery_that_was_deleted_is_found_by_its_id(plain: Scene) -> None:
    plain.gateway.event("evt-1", source="S1")
    for id_ in ("dlv-1", "dlv-2"):
        plain.gateway.delivery(id_, "evt-1", "Success")
    plain.look()
    plain.gateway.execute("DELETE FROM convoy.event_deliveries WHERE id = 'dlv-1'")
    assert plain.sweep() == {"delivery without a row": 1}
    plain.assert_equal()


def test_labels_and_times_of_creation_that_were_edited_by_hand_are_told_anew(scene: Scene) -> None:
    event = scene.event()
    scene.delivery(event, "Success")
    scene.delivery(event, "Processing", seconds=5)
    scene.look()
    scene.gateway.execute(
        "UPDATE convoy.event_deliveries SET endpoint_id = 'E9' WHERE status = 'Success';"
        "UPDATE convoy.event_deliveries SET created_at = created_at - interval '10 min' WHERE status = 'Processing';"
        "UPDATE convoy.events SET source_id = 'S9'"
    )
    scene.sweep()
    scene.assert_equal()


def test_a_database_that_was_restored_from_an_older_one_is_followed_back(own_gateway: Gateway, redis_url: str) -> None:
    """Rows of after the backup are gone, and others are as they were, some of them in flight again."""
    with contextlib.closing(Scene(own_gateway, redis_url)) as scene:
        event = scene.event(source="kept")
        deliveries = [scene.delivery(event, status) for status in ("Scheduled", "Processing", "Failure", "Success")]
        scene.look()
        own_gateway.execute("CREATE SCHEMA backup")
        for table in ("events", "event_deliveries", "delivery_attempts"):
            own_gateway.execute(f"CREATE TABLE backup.{table} AS TABLE convoy.{table}")
        for delivery in deliveries:
            scene.set_status(delivery, "Discarded")
        lost = scene.event(source="lost")
        scene.delivery(lost, "Success")
        scene.delivery(lost, "Processing")
        scene.look()
        for table in ("events", "event_deliveries", "delivery_attempts"):
            own_gateway.execute(f"TRUNCATE convoy.{table}; INSERT INTO convoy.{table} SELECT * FROM backup.{table}")
        scene.look()
        scene.sweep()
        scene.assert_equal()
        after = scene.event(source="after")
        scene.delivery(after, "Success")
        scene.look()
        scene.assert_equal()


def test_a_row_that_was_committed_after_the_cursor_waited_long_enough_is_found(plain: Scene) -> None:
    plain.event(source="new")
    plain.look()
    plain.gateway.execute(
        "INSERT INTO convoy.events (id, event_type, project_id, source_id, created_at)"
        " VALUES (%s, 't', 'P', 'late', now() - interval '2 h')",
        plain.new_id(7200),
    )
    plain.look()
    assert plain.brief(EVENTS) == {"new": 1}
    plain.sweep()
    assert plain.brief(EVENTS) == {"new": 1, "late": 1}


def test_what_redis_lost_is_told_again(scene: Scene) -> None:
    for _ in range(5):
        scene.attempt(scene.delivery(scene.event(), "Success"))
    scene.look()
    client = scene.client()
    for key in client.keys("oq-db:{P}:deliveries:*"):
        client.delete(key)
    for key in client.keys("oq-db:{P}:counts:*"):
        client.delete(key)
    scene.sweep()
    assert scene.brief() == {"E1,success,S1": 5}


def test_an_event_that_was_replayed_hides_no_event_that_is_gone(partitioned: Scene) -> None:
    """It has two rows, in two slices, and one id."""
    replayed = partitioned.new_id(3600)
    partitioned.gateway.execute(
        "INSERT INTO convoy.events (id, event_type, project_id, source_id, created_at)"
        " VALUES (%s, 't', 'P', 'replayed', now() - interval '1 h')",
        replayed,
    )
    gone = partitioned.event(source="gone")
    for _ in range(60):
        partitioned.event(source="between")
    partitioned.gateway.event(replayed, source="replayed")
    partitioned.look()
    partitioned.gateway.execute("DELETE FROM convoy.events WHERE id = %s", gone)
    partitioned.sweep()
    assert partitioned.brief(EVENTS) == {"replayed": 1, "between": 60}
