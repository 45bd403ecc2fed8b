"""What is recorded while a reconciliation runs, and what comes after it, stands as it should."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial

import pytest

from otel_queue.ledger.scripts import script
from otel_queue.lifecycle import DeliveryCreated, Record, StatusSet
from otel_queue.redis_client import Answers, PlacedLink, Request
from otel_queue.seeding.repairs import Rest
from tests.ledger.ledgers import Ledger, agree_on, now_us, ulid
from tests.postgres.gateway import Gateway
from tests.seeding.reconciles import Interrupted, reconcile, repaired
from tests.seeding.scene import (
    DAY,
    FIRST,
    LAST,
    NOON_US,
    Scene,
    add_attempt,
    add_delivery,
    add_event,
    delivery_id,
    event_id,
    seeded_scene,
)
from tests.seeding.seeds import assert_agree
from tests.seeding.tables import MINUTE_US, at
from tests.servers.postgres import postgres_server
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer
from tests.servers.redis_cluster import Cluster

SKEWS_US = (-2_000_000, 0, 2_000_000)
BEFORE_RECORDING = script("record_deliveries").sha
BEFORE_FORGETTING = script("forget_ids").sha
SECOND_US = 1_000_000


@pytest.fixture
def scene(gateway: Gateway, ledger: Ledger, redis_server: RedisServer) -> Iterator[Scene]:
    with seeded_scene(gateway, ledger, redis_server) as opened:
        yield opened


def set_status(scene: Scene, id_: str, status: str, updated_us: int) -> None:
    scene.sql(
        "UPDATE convoy.event_deliveries SET status = %s, updated_at = %s WHERE id = %s", status, at(updated_us), id_
    )


@pytest.mark.parametrize("skew_us", SKEWS_US)
def test_a_status_that_is_recorded_between_look_and_repair_stands(scene: Scene, skew_us: int) -> None:
    set_status(scene, LAST, "Failure", now_us() - MINUTE_US)

    def meanwhile() -> None:
        set_status(scene, LAST, "Retry", now_us())
        scene.ledger.write(StatusSet("P", LAST, "retry", now_us() + skew_us))

    found = scene.run(wrap=lambda link: Interrupted(link, BEFORE_RECORDING, meanwhile))
    assert found == {"delivery status": 1}
    scene.assert_agrees()


@pytest.mark.parametrize("of_database_us", SKEWS_US)
@pytest.mark.parametrize("of_worker_us", SKEWS_US)
def test_buffered_records_that_come_after_the_repair_do_not_undo_it(
    scene: Scene, of_database_us: int, of_worker_us: int
) -> None:
    """Two deliveries whose hooks' records are all late: one is held as it was, of the other nothing is."""
    now = now_us()
    new = ulid(NOON_US, 77)
    add_delivery(scene.gateway, new, event_id(0, 0), NOON_US)
    for id_ in (LAST, new):
        set_status(scene, id_, "Failure", now - 20 * SECOND_US + of_database_us)
    assert scene.run() == {"delivery status": 1, "delivery missing": 1}
    told: list[Record] = []
    for id_ in (LAST, new):
        told += [
            DeliveryCreated("P", id_, NOON_US + of_worker_us, "E1", "t", "S"),
            StatusSet("P", id_, "retry", now - 21 * SECOND_US + of_worker_us),
            StatusSet("P", id_, "processing", now - 20 * SECOND_US + of_worker_us),
        ]
    assert scene.ledger.write(*told).late == 0
    scene.assert_agrees()
    assert scene.run() == {}


def test_a_row_that_has_just_changed_is_left_for_the_next_run(scene: Scene) -> None:
    set_status(scene, LAST, "Failure", now_us())
    report = reconcile(scene.gateway, scene.ledger.url)
    assert (report.found, report.moving) == ({}, {("P", "delivery"): 1})
    assert report.is_clean


def test_a_row_is_at_rest_from_three_skews_on() -> None:
    """One for the hooks of its last change, one for those of a change that was not read, one to lie between."""
    read_us, skew_us = 1_800_000_000 * SECOND_US, 5 * SECOND_US
    rest = Rest(read_us, skew_us)
    assert rest.holds(read_us - 3 * skew_us - 1)
    assert not rest.holds(read_us - 3 * skew_us)


def test_rows_that_are_new_are_left_for_their_hooks(scene: Scene) -> None:
    now = now_us()
    add_event(scene.gateway, ulid(now, 1), now)
    add_delivery(scene.gateway, ulid(now, 2), ulid(now, 1), now - MINUTE_US)  # changed now
    add_attempt(scene.gateway, ulid(now, 3), now)
    report = reconcile(scene.gateway, scene.ledger.url)
    assert report.found == {}
    assert report.moving == {("P", "event"): 1, ("P", "delivery"): 1, ("P", "attempt"): 1}
    assert report.is_clean


def test_a_status_that_the_ledger_was_told_after_the_reading_began_is_not_repaired(scene: Scene) -> None:
    """The row was read before its change."""
    scene.ledger.write(StatusSet("P", LAST, "retry", now_us()))
    report = reconcile(scene.gateway, scene.ledger.url)
    assert (report.found, report.moving) == ({}, {("P", "delivery"): 1})


def test_rows_that_are_changed_by_hand_and_keep_their_time_are_followed(scene: Scene) -> None:
    for status in ("Failure", "Scheduled", "Discarded"):
        scene.sql("UPDATE convoy.event_deliveries SET status = %s WHERE id = %s", status, LAST)
        assert scene.run() == {"delivery status": 1}
        scene.assert_agrees()


def test_labels_that_are_changed_by_hand_are_followed(scene: Scene) -> None:
    for endpoint in ("B", "C", "A"):
        scene.sql("UPDATE convoy.event_deliveries SET endpoint_id = %s WHERE id = %s", endpoint, LAST)
        assert scene.run() == {"delivery label": 1}
        scene.assert_agrees()


def test_a_repair_whose_day_is_closed_before_it_arrives_is_told(scene: Scene) -> None:
    set_status(scene, LAST, "Failure", now_us() - MINUTE_US)

    def wrap(link: PlacedLink) -> PlacedLink:
        return Interrupted(link, BEFORE_RECORDING, lambda: scene.ledger.upkeep.expire("P", DAY))

    report = reconcile(scene.gateway, scene.ledger.url, wrap=wrap)
    assert report.moving == {("", "records of days that were closed meanwhile"): 1}


def test_two_that_reconcile_at_once_end_as_one(scene: Scene) -> None:
    set_status(scene, LAST, "Failure", now_us() - MINUTE_US)
    add_delivery(scene.gateway, delivery_id(0, 77), event_id(0, 0), NOON_US)
    scene.sql("DELETE FROM convoy.event_deliveries WHERE id = %s", FIRST)
    found = {"delivery status": 1, "delivery missing": 1, "delivery gone": 1}
    other: list[dict[str, int]] = []
    scene.run(wrap=lambda link: Interrupted(link, BEFORE_RECORDING, lambda: other.append(scene.run())))
    assert other == [found]
    scene.assert_agrees()
    assert scene.run() == {}


def test_what_is_told_again_before_it_is_forgotten_is_kept(scene: Scene) -> None:
    scene.sql("DELETE FROM convoy.event_deliveries WHERE id = %s", FIRST)

    def meanwhile() -> None:
        add_delivery(scene.gateway, FIRST, event_id(0, 0), NOON_US, "Retry")
        scene.ledger.write(StatusSet("P", FIRST, "retry", now_us()))

    report = reconcile(
        scene.gateway, scene.ledger.url, wrap=lambda link: Interrupted(link, BEFORE_FORGETTING, meanwhile)
    )
    assert (report.found, report.moving) == ({}, {("P", "delivery"): 1})
    scene.assert_agrees()


def test_a_creation_time_that_is_told_before_it_could_be_repaired_is_for_the_next_run(scene: Scene) -> None:
    """A held time that is earlier than the row's can only be replaced by forgetting the delivery first."""
    scene.sql("UPDATE convoy.event_deliveries SET created_at = created_at + interval '90 s' WHERE id = %s", LAST)

    def meanwhile() -> None:
        scene.ledger.write(StatusSet("P", LAST, "processing", NOON_US + 2 * MINUTE_US))

    report = reconcile(
        scene.gateway, scene.ledger.url, wrap=lambda link: Interrupted(link, BEFORE_FORGETTING, meanwhile)
    )
    assert (report.found, report.moving) == ({}, {("P", "delivery"): 1})
    assert scene.run() == {"delivery creation time": 1}
    scene.assert_agrees()


def test_a_new_delivery_whose_row_is_not_seen_yet_is_not_taken_for_gone(scene: Scene) -> None:
    def counted() -> int:
        return sum(scene.ledger.snapshot().projects[0].deliveries.values())

    before = counted()
    scene.ledger.write(DeliveryCreated("P", ulid(now_us(), 1), now_us(), "E1", "t", "S"))
    assert scene.run() == {}
    assert counted() == before + 1


class Dying:
    """A link that breaks at its request of this number, as when the process is killed there."""

    def __init__(self, link: PlacedLink, requests: list[int], most: int) -> None:
        self._link = link
        self._requests = requests
        self._most = most

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        self._requests[0] += 1
        if self._requests[0] > self._most:
            raise KeyboardInterrupt
        return self._link.exchange(requests, deadline)

    def close(self) -> None:
        self._link.close()


def test_ended_at_any_point_it_can_be_run_again(scene: Scene) -> None:
    def damage() -> None:
        scene.sql("UPDATE convoy.event_deliveries SET status = 'Failure' WHERE id = %s", LAST)
        scene.sql("UPDATE convoy.event_deliveries SET created_at = created_at + interval '9 s' WHERE id = %s", LAST)
        scene.sql("DELETE FROM convoy.event_deliveries WHERE id = %s", FIRST)
        scene.sql("DELETE FROM convoy.event_deliveries WHERE id < %s", ulid(NOON_US - 35 * 86_400_000_000, 0))
        scene.client.hincrby(scene.key("counts"), "1:6", 3)

    damage()
    ended = 0
    for most in range(1, 200, 7):
        seen = [0]
        try:
            scene.run(wrap=partial(Dying, requests=seen, most=most))
        except KeyboardInterrupt:
            ended += 1
        else:
            break
    assert ended > 5
    assert scene.run() == {}
    scene.assert_agrees()


def test_a_ledger_on_a_cluster_is_repaired_too(gateway: Gateway, cluster: Cluster) -> None:
    with contextlib.closing(Ledger(cluster.url)) as ledger:
        for project in ("P", "Q", "R{1}"):
            add_event(gateway, f"event of {project}", NOON_US, project=project)
            add_delivery(gateway, f"delivery of {project}", f"event of {project}", NOON_US, project=project)
        assert repaired(reconcile(gateway, cluster.url))["delivery missing"] == 3
        gateway.execute("DELETE FROM convoy.event_deliveries WHERE project_id = 'Q'")
        gateway.execute("UPDATE convoy.event_deliveries SET status = 'Failure' WHERE project_id = 'P'")
        assert repaired(reconcile(gateway, cluster.url)) == {"delivery gone": 1, "delivery status": 1}
        assert_agree(ledger, gateway)
        assert repaired(reconcile(gateway, cluster.url)) == {}


def test_a_standby_that_is_behind_undoes_nothing(scene: Scene) -> None:
    """Its rows are as they were at the last commit that it has replayed, however late it is now."""
    primary = scene.gateway.server
    with postgres_server(replica_of=primary) as standby:
        standby.execute("SELECT pg_wal_replay_pause()")
        wait_until(lambda: standby.execute("SELECT pg_get_wal_replay_pause_state()") == [("paused",)])
        set_status(scene, LAST, "Failure", now_us())
        scene.ledger.write(StatusSet("P", LAST, "failure", now_us()))
        behind = Gateway.__new__(Gateway)  # nothing is to be emptied
        behind.server, behind.database = standby, scene.gateway.database
        agree_on(scene.client, max_skew_us=0)
        report = reconcile(behind, scene.ledger.url)
    assert repaired(report) == {}
    assert report.moving == {("P", "delivery"): 1}
    scene.assert_agrees()
