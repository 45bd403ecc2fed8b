"""What a look finds by itself, without a sweep."""

import pytest

from otel_queue.errors import ReadError
from tests.database.scene import Scene
from tests.postgres.gateway import ATTEMPTS, EVENT_BACKLOG, EVENTS


def test_the_first_look_tells_every_row_and_the_projects_names(scene: Scene) -> None:
    event = scene.event()
    done = scene.delivery(event, "Success")
    scene.delivery(event, "Processing", endpoint=None, event_type=None, seconds=30)
    scene.attempt(done)
    scene.look()
    scene.assert_equal()


def test_nothing_is_told_again_while_no_row_changes(scene: Scene) -> None:
    event = scene.event()
    scene.delivery(event, "Processing")
    scene.attempt(scene.delivery(event, "Success"))
    scene.look()
    assert scene.look().changed == 0


def test_a_delivery_is_followed_from_status_to_status_until_it_is_final(scene: Scene) -> None:
    delivery = scene.delivery(scene.event())
    for status in ("Processing", "Retry", "Processing", "Failure"):
        scene.look()
        scene.set_status(delivery, status)
    scene.look()
    assert scene.brief() == {"E1,failure,S1": 1}
    scene.assert_equal()


def test_a_resent_delivery_is_in_flight_again(scene: Scene) -> None:
    delivery = scene.delivery(scene.event(), "Success")
    scene.look()
    for status in ("Scheduled", "Processing", "Success"):
        scene.set_status(delivery, status)
        scene.look()
        assert scene.brief() == {f"E1,{status.lower()},S1": 1}


def test_a_resent_delivery_of_long_ago_is_found_at_a_look_at_all_that_is_in_flight(scene: Scene) -> None:
    delivery = scene.delivery(scene.event(), "Success", seconds=7200)
    scene.follower = scene.new_follower(old_every=2)
    scene.look()
    scene.look()
    scene.set_status(delivery, "Scheduled")
    scene.look()
    scene.assert_equal()


def test_the_attempt_of_a_resent_delivery_finds_it_at_the_next_look(scene: Scene) -> None:
    delivery = scene.delivery(scene.event(), "Success", seconds=7200)
    scene.look()
    scene.set_status(delivery, "Failure")
    scene.attempt(delivery, "500 Internal Server Error", succeeded=False)
    scene.look()
    assert scene.brief() == {"E1,failure,S1": 1}
    assert scene.brief(ATTEMPTS) == {"E1,failure,500": 1}


def test_a_batch_retry_goes_from_failure_to_processing_without_being_scheduled(scene: Scene) -> None:
    event = scene.event()
    deliveries = [scene.delivery(event, "Failure") for _ in range(20)]
    scene.look()
    for delivery in deliveries:
        scene.set_status(delivery, "Processing")
    scene.look()
    assert scene.brief() == {"E1,processing,S1": 20}


def test_what_has_been_in_flight_for_long_is_read_at_some_looks_only_and_told_when_it_leaves(scene: Scene) -> None:
    scene.follower = scene.new_follower(old_every=3)
    event = scene.event()
    stuck = scene.delivery(event, "Processing", seconds=7200)
    young = scene.delivery(event, "Processing")
    assert scene.look().rows["in flight"] == 2
    assert scene.look().rows["in flight"] == 1
    scene.set_status(stuck, "Discarded")
    scene.set_status(young, "Success")
    scene.look()
    scene.look()
    scene.assert_equal()


def test_a_delivery_that_was_deleted_in_flight_counts_no_more(scene: Scene) -> None:
    event = scene.event()
    soft, hard, kept = (scene.delivery(event) for _ in range(3))
    scene.look()
    scene.gateway.execute("UPDATE convoy.event_deliveries SET deleted_at = now() WHERE id = %s", soft)
    scene.gateway.execute("DELETE FROM convoy.event_deliveries WHERE id = %s", hard)
    scene.look()
    assert scene.brief() == {"E1,scheduled,S1": 1}
    scene.set_status(kept, "Success")
    scene.look()
    assert scene.brief() == {"E1,success,S1": 1}


def test_a_renamed_project_and_a_renamed_organisation_are_described_anew(scene: Scene) -> None:
    scene.delivery(scene.event())
    scene.look()
    scene.gateway.execute("UPDATE convoy.projects SET name = 'New'; UPDATE convoy.organisations SET name = 'Inc'")
    scene.look()
    scene.assert_equal()


def test_ids_that_are_no_ulids_and_rows_without_a_time_are_followed(plain: Scene) -> None:
    plain.gateway.event("evt-1", source="S2")
    plain.gateway.delivery("dlv-1", "evt-1", "Scheduled")
    timeless = plain.delivery("evt-1", "Scheduled", seconds=None)
    plain.look()
    plain.set_status("dlv-1", "Success")
    plain.set_status(timeless, "Failure")
    plain.look()
    assert plain.brief() == {"E1,success,S2": 1, "E1,failure,S2": 1}
    plain.assert_equal()


def test_clocks_of_writers_decide_nothing(scene: Scene) -> None:
    event = scene.event()
    ahead, behind = scene.new_id(-3600), scene.new_id(3600)
    for id_ in (ahead, behind):
        scene.gateway.delivery(id_, event, "Scheduled")
    scene.look()
    for id_ in (ahead, behind):
        scene.gateway.execute(
            "UPDATE convoy.event_deliveries SET status = 'Success', updated_at = now() - interval '1 day'"
            " WHERE id = %s",
            id_,
        )
    scene.look()
    scene.assert_equal()


def test_an_event_that_is_replayed_counts_once(partitioned: Scene) -> None:
    event = partitioned.event()
    partitioned.delivery(event, "Success")
    partitioned.look()
    partitioned.gateway.event(event, source="S1")
    partitioned.delivery(event)
    partitioned.look()
    assert partitioned.brief(EVENTS) == {"S1": 1}
    partitioned.assert_equal()


def test_the_event_of_a_delivery_that_retention_dropped_first_leaves_its_source_as_it_was_told(scene: Scene) -> None:
    event = scene.event()
    delivery = scene.delivery(event, "Processing")
    scene.look()
    scene.gateway.execute("DELETE FROM convoy.events")
    scene.set_status(delivery, "Success")
    scene.look()
    assert scene.brief() == {"E1,success,S1": 1}
    assert scene.brief(EVENT_BACKLOG) == {"S1": 0}


def test_a_status_that_nobody_knows_is_left_out_and_counted(plain: Scene) -> None:
    event = plain.event()
    plain.delivery(event, "Strange")
    plain.delivery(event, "Success")
    looked = plain.follower.look(plain.place())
    assert looked.failures == {"unknown_status": 1}
    assert plain.brief() == {"E1,success,S1": 1}


def test_a_look_that_a_lock_holds_up_beyond_the_statements_time_is_made_again(plain: Scene) -> None:
    plain.follower = plain.new_follower(statement_timeout_seconds=0.3)
    with plain.gateway.server.connect(plain.gateway.database) as other, other.transaction():
        other.execute("LOCK TABLE convoy.event_deliveries IN ACCESS EXCLUSIVE MODE")
        plain.event()
        with pytest.raises(ReadError) as caught:
            plain.look()
        assert caught.value.reason == "timeout"
    plain.look()
    plain.assert_equal()
