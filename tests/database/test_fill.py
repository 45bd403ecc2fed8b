"""The first fill: everything there is, once, however often it is killed."""

from typing import Any

import pytest

from otel_queue.errors import ReadError
from tests.database.scene import Scene
from tests.ledger.ledgers import DAY_US, now_us, ulid
from tests.postgres.gateway import ATTEMPTS, DELIVERY_BACKLOG
from tests.seeding.tables import at, fill


@pytest.mark.parametrize("number", range(4))
def test_after_a_fill_and_a_look_the_ledger_is_equal_to_any_rows(scene: Scene, number: int) -> None:
    fill(scene.gateway, number, days=45)
    scene.fill()
    scene.look()
    scene.assert_equal()
    assert scene.sweep() == {}


def test_a_fill_goes_on_where_it_was_killed(scene: Scene) -> None:
    fill(scene.gateway, 7, size=400, days=45)
    place = scene.place()
    for _ in range(3):
        scene.follower.fill_step(place)
    assert place.filled_us is not None
    kept = place.filled_us
    scene.kill()
    continued = scene.place()
    assert continued.filled_us == kept
    told = scene.fill()
    assert told["old rows"] == 0, "what was counted is not counted again"
    scene.look()
    scene.assert_equal()


@pytest.mark.parametrize("after", ["write", "put", "begin_attempts", "settle"])
def test_a_fill_that_is_killed_in_the_middle_of_a_step_makes_it_again(
    scene: Scene, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(scene.gateway, 8, size=400, days=45)
    scene.gateway.execute(
        "INSERT INTO convoy.delivery_attempts (id, project_id, endpoint_id, event_delivery_id, status, created_at)"
        " VALUES ('old', 'P', 'E1', 'd', true, now() - interval '40 d')"
    )
    scene.place()
    target = scene.follower.target
    part: Any = {"write": target, "put": target.ids.whole_days, "settle": target.upkeep}.get(after, target.ids)
    act = getattr(part, after)

    def act_and_die(*arguments: Any) -> Any:
        act(*arguments)
        raise ReadError("connection", "killed")

    monkeypatch.setattr(part, after, act_and_die)
    with pytest.raises(ReadError, match="killed"):
        scene.fill()
    scene.kill()
    scene.fill()
    scene.look()
    scene.assert_equal()


def test_what_happens_during_a_fill_is_found_by_the_looks_behind_it(scene: Scene) -> None:
    event = scene.event()
    moving, retried = scene.delivery(event), scene.delivery(event, "Retry", seconds=60 * 86_400)
    place = scene.place()
    scene.follower.fill_step(place)
    scene.set_status(retried, "Processing")
    new = scene.delivery(scene.event(source="new"))
    scene.follower.fill(place)
    scene.set_status(moving, "Success")
    scene.set_status(new, "Failure")
    scene.attempt(moving)
    scene.look()
    scene.assert_equal()


def test_an_old_delivery_in_flight_is_followed_until_it_is_final(scene: Scene) -> None:
    old = scene.delivery(scene.event(), "Processing", seconds=100 * 86_400)
    scene.fill()
    scene.look()
    assert scene.brief() == {"E1,processing,S1": 1}
    assert scene.brief(DELIVERY_BACKLOG)["E1,S1"] == pytest.approx(100 * 86_400, abs=60)
    scene.set_status(old, "Success")
    scene.look()
    scene.assert_equal()


def test_attempts_of_before_the_window_are_where_the_counter_begins(scene: Scene) -> None:
    now = now_us()
    rows: list[tuple[Any, ...]]
    rows = [(scene.new_id(ago), "200 OK", True, at(now - round(ago * 1e6))) for ago in (120, 86_400, 20 * 86_400)]
    rows += [(ulid(now - 40 * DAY_US, 7), None, False, at(now - 40 * DAY_US))]
    rows += [("att-1", "404 Not Found", False, at(now - 40 * DAY_US)), ("att-2", None, False, at(now))]
    scene.gateway.execute_many(
        "INSERT INTO convoy.delivery_attempts (id, project_id, endpoint_id, event_delivery_id, http_status, status,"
        " created_at) VALUES (%s, 'P', 'E1', 'd', %s, %s, %s)",
        rows,
    )
    scene.fill()
    scene.look()
    assert scene.brief(ATTEMPTS) == {"E1,success,200": 3, "E1,failure,none": 2, "E1,failure,404": 1}
    assert scene.sweep() == {}
    assert scene.brief(ATTEMPTS) == {"E1,success,200": 3, "E1,failure,none": 2, "E1,failure,404": 1}


def test_a_slice_that_takes_too_long_is_read_in_smaller_ones(plain: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    plain.follower = plain.new_follower(slice_rows=4_000)
    fill(plain.gateway, 9, days=20)
    plain.place()
    slices = plain.follower._slices
    read, asked = slices._read, list[int]()

    def slow(*arguments: Any) -> Any:
        asked.append(slices._rows)
        if slices._rows > 1_000:
            raise ReadError("timeout", "canceling statement due to statement timeout")
        return read(*arguments)

    monkeypatch.setattr(slices, "_read", slow)
    plain.fill()
    plain.look()
    assert asked[:3] == [4_000, 2_000, 1_000]
    plain.assert_equal()
