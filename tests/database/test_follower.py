"""Followers as processes: one at a time, killed, replaced, stopped; as a lane of `serve` and as a command."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from otel_queue.config import QueueConfig
from otel_queue.database.target import Target
from otel_queue.errors import ReadError, WriteError
from otel_queue.pipeline import Pipeline
from tests.database.scene import Scene
from tests.postgres.gateway import EVENTS
from tests.seeding.tables import fill
from tests.servers.process import wait_until
from tests.unit.clock import Clock

PROGRAM = str(Path(sys.executable).parent / "otel-queue")
NEVER = threading.Event()


def test_of_two_followers_one_is_at_work(scene: Scene) -> None:
    other = scene.new_follower()
    assert scene.follower.turn(NEVER).has_lease
    assert not other.turn(NEVER).has_lease
    scene.follower.close()
    assert other.turn(NEVER).has_lease


def test_who_lost_the_lease_in_the_middle_of_a_look_keeps_no_place_and_undoes_nothing(scene: Scene) -> None:
    """It read before the other one did, and writes after it: what was read later stands."""
    event = scene.event()
    delivery = scene.delivery(event, "Processing")
    scene.look()
    slow, place = scene.follower, scene.place()
    write = slow.target.write
    scene.set_status(delivery, "Retry")

    def write_late(records: Any) -> Any:
        held = list(records)
        scene.set_status(delivery, "Success")
        scene.kill()
        scene.look()
        return write(held)

    slow.target.write = write_late  # type: ignore[method-assign]
    with pytest.raises(ReadError, match="another follower took over"):
        slow.look(place)
    assert scene.brief() == {"E1,success,S1": 1}
    assert not slow.turn(NEVER).has_lease


def test_a_follower_that_was_killed_is_continued_by_the_next_one(scene: Scene) -> None:
    event = scene.event()
    finished, discarded, kept = (scene.delivery(event) for _ in range(3))
    scene.follower.turn(NEVER)
    scene.kill()
    scene.set_status(finished, "Success")
    scene.attempt(finished)
    scene.set_status(discarded, "Discarded")  # which no attempt tells of
    scene.event(source="meanwhile")
    turn = scene.follower.turn(NEVER)
    assert turn.swept is not None
    scene.assert_equal()
    scene.set_status(kept, "Failure")
    scene.look()
    scene.assert_equal()


def test_a_follower_whose_redis_lost_everything_begins_again(scene: Scene) -> None:
    scene.delivery(scene.event(), "Success")
    scene.follower.turn(NEVER)
    scene.client().flushall()
    scene.follower.turn(NEVER)
    scene.assert_equal()


def test_a_sweep_is_spread_over_its_time_and_the_next_begins_when_that_is_up(scene: Scene) -> None:
    clock = Clock(0.0)
    fill(scene.gateway, 3, size=400, days=28)
    scene.follower = scene.new_follower(monotonic=clock, sweep_seconds=3600.0)
    first = scene.follower.turn(NEVER)
    assert first.swept is not None, "the first one goes on without a pause"
    assert scene.follower.turn(NEVER).swept is None
    clock.now += 3600
    assert scene.follower.turn(NEVER).swept is None, "one slice is enough for now"
    position = scene.follower.sweep_step().position_us
    clock.now += 1800
    scene.follower.turn(NEVER)
    sweep = scene.follower.sweep_step()
    assert position < sweep.position_us < sweep.until_us
    clock.now += 1800
    assert scene.follower.turn(NEVER).swept is not None


def test_a_turn_ends_between_two_slices_when_it_is_asked_to(scene: Scene) -> None:
    fill(scene.gateway, 4, size=400, days=28)
    stop = threading.Event()
    step = scene.follower.fill_step

    def step_and_stop(place: Any) -> Any:
        stop.set()
        return step(place)

    scene.follower.fill_step = step_and_stop  # type: ignore[method-assign]
    assert scene.follower.turn(stop).looked is None
    assert scene.place().filled_us is not None


def test_serve_follows_by_a_lane_that_needs_no_reader(plain: Scene) -> None:
    plain.event(source="S1")
    config = replace(
        plain.config,
        follow=replace(plain.config.follow, enabled=True, look_seconds=0.1),
        queue=QueueConfig(memory_interval_seconds=0.0),
    )
    pipeline = Pipeline(config)
    pipeline.start()
    try:
        wait_until(lambda: events(plain) == {"S1": 1}, what="the lane has looked")
        plain.event(source="S2")
        wait_until(lambda: events(plain) == {"S1": 1, "S2": 1}, what="the lane has looked again")
        states = {lane.name: lane.up for lane in pipeline.status().lanes}
        assert states["follow"]
    finally:
        pipeline.shutdown()
    assert plain.follower.turn(NEVER).has_lease, "the lease was given back"


def events(scene: Scene) -> Any:
    try:
        return scene.brief(EVENTS)
    except ReadError:  # it has not begun
        return None


def follow(scene: Scene, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [PROGRAM, "follow", "--redis-url", str(scene.config.redis.location), *arguments],
        env=os.environ | {"OTEL_QUEUE_POSTGRES_DSN": scene.gateway.dsn.reveal()} | environment,
        capture_output=True, text=True,
    )  # fmt: skip


def test_the_command_follows_once_and_says_what_it_did(plain: Scene) -> None:
    plain.delivery(plain.event(), "Success")
    done = follow(plain, "--once", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["swept"]["deliveries"] == 1
    assert told["failures"] == {}
    assert "first fill" in done.stderr
    plain.assert_equal()


def test_the_command_says_that_another_follower_is_at_work(plain: Scene) -> None:
    plain.look()
    done = follow(plain, "--once")
    assert (done.returncode, done.stdout) == (1, "")
    assert "another follower is at work" in done.stderr


def test_the_command_without_a_database_or_with_one_that_is_gone_says_so(plain: Scene) -> None:
    assert follow(plain, "--once", OTEL_QUEUE_POSTGRES_DSN="").returncode == 2
    gone = follow(plain, "--once", OTEL_QUEUE_POSTGRES_DSN="postgres://u:geheim@127.0.0.1:1/none")
    assert gone.returncode == 3
    assert "cannot be read (connection)" in gone.stderr
    assert "geheim" not in gone.stderr


def test_the_command_proves_that_the_ledger_is_equal_to_the_rows(plain: Scene) -> None:
    fill(plain.gateway, 6, days=45)
    delivery = plain.delivery(plain.event(), "Success")
    plain.follower.turn(NEVER)
    assert follow(plain, "--verify").stdout == "the ledger is equal to the rows\n"
    plain.set_status(delivery, "Failure")
    proof = follow(plain, "--verify", "--json")
    assert proof.returncode == 1
    assert {(each["labels"][3], each["ledger"], each["database"]) for each in json.loads(proof.stdout)} == {
        ("success", 1, None),
        ("failure", None, 1),
    }
    assert "METRIC" in follow(plain, "--verify").stdout


def test_the_command_follows_until_it_is_asked_to_end(plain: Scene) -> None:
    process = subprocess.Popen(
        [PROGRAM, "follow", "--redis-url", str(plain.config.redis.location), "--follow-look-seconds", "0.1"],
        env=os.environ | {"OTEL_QUEUE_POSTGRES_DSN": plain.gateway.dsn.reveal()},
    )
    try:
        plain.event(source="S1")
        wait_until(lambda: events(plain) == {"S1": 1}, within=30, what="the command has looked")
        plain.event(source="S2")
        wait_until(lambda: events(plain) == {"S1": 1, "S2": 1}, what="the command has looked again")
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
    assert plain.follower.turn(NEVER).has_lease, "the lease was given back"


def test_a_ledger_that_could_not_be_begun_is_begun_by_the_next_turn(
    plain: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain.event(source="S1")
    begin = Target.begin

    def fail(target: Target) -> None:
        raise WriteError("out_of_memory", "OOM")

    monkeypatch.setattr(Target, "begin", fail)
    with pytest.raises(WriteError):
        plain.follower.turn(NEVER)
    monkeypatch.setattr(Target, "begin", begin)
    plain.follower.turn(NEVER)
    assert plain.brief(EVENTS) == {"S1": 1}


def test_what_a_fill_could_not_tell_is_counted_once(plain: Scene) -> None:
    plain.delivery(plain.event(), "Strange")
    for _ in range(120):
        plain.delivery(plain.event(), "Success")
    turn = plain.follower.turn(NEVER)
    # By the fill, and by the sweep.
    assert turn.failures == {"unknown_status": 2}
