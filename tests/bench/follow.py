"""The follower: what it costs the database, at first and all the time, in refreshes of the gateway's own numbers."""

import contextlib
import itertools
import random
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from otel_queue.database.place import Place
from tests.bench.database import DELIVERIES, EVENTS, SETTINGS, refresh, statements
from tests.bench.result import Result
from tests.database.scene import Scene
from tests.ledger.ledgers import DAY_US, now_us, ulid
from tests.postgres.gateway import HERE, Gateway
from tests.seeding.tables import at
from tests.servers.postgres import postgres_server
from tests.servers.redis import RedisServer, redis_server

DAYS = 28  # all of it is tracked
PROJECTS = 20
IN_FLIGHT = 10_000
LOOKS = 4  # a minute of them
LOOK_SECONDS = 15
NEW_DELIVERIES, NEW_EVENTS = 200 * LOOK_SECONDS, 200 * LOOK_SECONDS // 3
INCIDENT = 1_000_000
_FINAL = ("Success", "Success", "Success", "Failure", "Discarded")
_EVENT_COLUMNS = "id, event_type, project_id, source_id, status, created_at"
_DELIVERY_COLUMNS = "id, event_id, status, project_id, endpoint_id, event_type, created_at, updated_at"


def fill(bench: str) -> Iterator[Result]:
    """Database seconds of a first fill that is killed half way and goes on; then all numbers are equal."""
    with _scene() as (scene, redis):
        one_refresh = refresh(scene.gateway, "legacy")
        began, cpu = time.monotonic(), _redis_seconds(redis)
        with statements(scene.gateway) as spent:
            place = scene.place()
            while place.filled_us is None or place.filled_us < now_us() - DAYS * DAY_US // 2:
                scene.follower.fill_step(place)
            scene.kill()
            scene.fill()
        wall, cpu = time.monotonic() - began, _redis_seconds(redis) - cpu
        scene.look()
        scene.assert_equal()
        detail = {
            "seconds": spent["seconds"], "refresh_seconds": one_refresh, "wall_seconds": wall, "redis_seconds": cpu,
            "events": EVENTS, "deliveries": DELIVERIES,
        }  # fmt: skip
        yield Result(bench, spent["seconds"] / one_refresh, "refreshes", 2.0, detail)


def steady(bench: str) -> Iterator[Result]:
    """A minute of looks at 200 deliveries a second, a sweep, and an incident with a million rows in flight."""
    with _scene() as (scene, redis):
        one_refresh = refresh(scene.gateway, "legacy")
        scene.fill()
        scene.look()
        yield _minute(f"{bench}: looks of a minute", scene, one_refresh)
        yield _sweep(f"{bench}: a sweep", scene, redis, one_refresh)
        yield from _incident(bench, scene)


def _minute(bench: str, scene: Scene, one_refresh: float) -> Result:
    seconds, walls = 0.0, []
    work = _Work(scene)
    for _ in range(LOOKS):
        work.go_on()
        spent, wall = _measured_look(scene)
        seconds += spent["seconds"]
        walls.append(wall)
    scene.assert_equal()
    detail = {
        "seconds": seconds, "refresh_seconds": one_refresh, "looks": LOOKS, "slowest_look_wall_seconds": max(walls),
        "in_flight": IN_FLIGHT, "deliveries_a_second": NEW_DELIVERIES // LOOK_SECONDS, "goal": 1 / 50,
    }  # fmt: skip
    return Result(bench, seconds / one_refresh, "refreshes a minute", 1 / 20, detail)


def _sweep(bench: str, scene: Scene, redis: RedisServer, one_refresh: float) -> Result:
    began, cpu = time.monotonic(), _redis_seconds(redis)
    with statements(scene.gateway) as spent:
        repaired = scene.sweep()
    assert repaired == {}, repaired
    detail = {
        "seconds": spent["seconds"], "refresh_seconds": one_refresh, "wall_seconds": time.monotonic() - began,
        "redis_seconds": _redis_seconds(redis) - cpu,
    }  # fmt: skip
    return Result(bench, spent["seconds"] / one_refresh, "refreshes", 1.0, detail)


def _incident(bench: str, scene: Scene) -> Iterator[Result]:
    newest = f"SELECT id FROM convoy.event_deliveries ORDER BY created_at DESC LIMIT {INCIDENT}"
    for what, status in (("a million in flight begin", "Retry"), ("they stay", None), ("they drain", "Success")):
        if status is not None:
            scene.gateway.execute(
                f"UPDATE convoy.event_deliveries SET status = '{status}', updated_at = now() WHERE id IN ({newest})"
            )
            scene.gateway.execute("VACUUM ANALYZE convoy.event_deliveries")
        spent, wall = _measured_look(scene, whole=True)
        detail = {"database_seconds": spent["seconds"], "look_seconds": LOOK_SECONDS}
        yield Result(f"{bench}: {what}", wall, "wall seconds of a look", None, detail)
    scene.assert_equal()


def _measured_look(scene: Scene, *, whole: bool = False) -> tuple[dict[str, float], float]:
    place: Place = scene.place()
    began = time.monotonic()
    with statements(scene.gateway) as spent:
        if whole:
            scene.follower.looks = 0
        scene.follower.look(place)
    return spent, time.monotonic() - began


class _Work:
    """What a gateway does between two looks: events and deliveries come, as many become final, each by an attempt."""

    def __init__(self, scene: Scene) -> None:
        self._gateway = scene.gateway
        self._numbers = itertools.count(1)
        rows = self._gateway.execute(
            "SELECT id, project_id FROM convoy.event_deliveries WHERE status = 'Scheduled' ORDER BY created_at"
        )
        self._in_flight: list[tuple[str, str]] = [(id_, project) for id_, project in rows]

    def go_on(self) -> None:
        now = now_us()
        events = [(self._id(now), f"P{number % PROJECTS}") for number in range(NEW_EVENTS)]
        self._gateway.copy(
            f"COPY convoy.events ({_EVENT_COLUMNS}) FROM STDIN",
            ((id_, "paid", project, "S1", "Success", at(now)) for id_, project in events),
        )
        new = [(self._id(now), events[number // 3]) for number in range(NEW_DELIVERIES)]
        self._gateway.copy(
            f"COPY convoy.event_deliveries ({_DELIVERY_COLUMNS}) FROM STDIN",
            ((id_, event[0], "Scheduled", event[1], "endpoint-1", "paid", at(now), at(now)) for id_, event in new),
        )
        ended, self._in_flight = self._in_flight[:NEW_DELIVERIES], self._in_flight[NEW_DELIVERIES:]
        self._in_flight += [(id_, event[1]) for id_, event in new]
        self._gateway.execute(
            "UPDATE convoy.event_deliveries SET status = 'Success', updated_at = now() WHERE id = ANY(%s)",
            [id_ for id_, _ in ended],
        )
        self._gateway.copy(
            "COPY convoy.delivery_attempts (id, project_id, endpoint_id, event_delivery_id, http_status, status)"
            " FROM STDIN",
            ((self._id(now), project, "endpoint-1", id_, "200 OK", True) for id_, project in ended),
        )

    def _id(self, time_us: int) -> str:
        return ulid(time_us, next(self._numbers))


@contextlib.contextmanager
def _scene() -> Iterator[tuple[Scene, RedisServer]]:
    with postgres_server(settings=SETTINGS) as server, redis_server() as redis:
        with server.connect() as connection:
            connection.execute((HERE / "schema.sql").read_bytes())
            connection.execute("CREATE EXTENSION pg_stat_statements")
        with closing(Gateway(server, server.database)) as gateway:
            _store(gateway)
            with closing(Scene(gateway, redis.url, slice_rows=50_000)) as scene:
                yield scene, redis


def _store(gateway: Gateway) -> None:
    """Three deliveries for each event, in the order of time; the newest are in flight."""
    chance = random.Random(1)
    now = now_us() - 600_000_000
    times = sorted(now - chance.randrange(DAYS * DAY_US) for _ in range(EVENTS))
    ids = [ulid(time_us, chance.getrandbits(80)) for time_us in times]
    for number in range(PROJECTS):
        gateway.execute("INSERT INTO convoy.projects VALUES (%s, %s, 'outgoing', 'O')", f"P{number}", f"N{number}")
    gateway.copy(
        f"COPY convoy.events ({_EVENT_COLUMNS}) FROM STDIN",
        (
            (id_, "paid", f"P{number % PROJECTS}", (None, "S1", "S2")[number % 3], "Success", at(time_us))
            for number, (id_, time_us) in enumerate(zip(ids, times, strict=True))
        ),
    )

    def deliveries() -> Iterator[tuple[Any, ...]]:
        for number in range(DELIVERIES):
            event = number * EVENTS // DELIVERIES
            created = times[event] + chance.randrange(1_000_000)
            status = "Scheduled" if number >= DELIVERIES - IN_FLIGHT else chance.choice(_FINAL)
            yield (
                ulid(created, chance.getrandbits(80)), ids[event], status, f"P{event % PROJECTS}",
                f"endpoint-{number % 12}", "paid", at(created), at(created + 20_000_000),
            )  # fmt: skip

    gateway.copy(f"COPY convoy.event_deliveries ({_DELIVERY_COLUMNS}) FROM STDIN", deliveries())
    gateway.execute("VACUUM ANALYZE")


def _redis_seconds(redis: RedisServer) -> float:
    """CPU that Redis has used."""
    with redis.client() as client:
        told: Any = client.info("cpu")
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])
