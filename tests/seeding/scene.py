"""Tables of a few days, and a ledger that is in step with them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.ledger.ledgers import DAY_US, Ledger, agree_on, day_of, now_us, ulid
from tests.postgres.gateway import Gateway
from tests.seeding.reconciles import reconcile, repaired
from tests.seeding.seeds import assert_agree, seed
from tests.seeding.tables import MINUTE_US, at
from tests.servers.redis import RedisServer

NOON_US = now_us() // DAY_US * DAY_US - DAY_US // 2  # yesterday's
DAY, DAY_BEFORE, OLD_DAY = (day_of(NOON_US - days * DAY_US) for days in (0, 1, 40))
PER_DAY = 6


def delivery_id(days_ago: int, number: int) -> str:
    return ulid(NOON_US - days_ago * DAY_US, number)


def event_id(days_ago: int, number: int) -> str:
    return ulid(NOON_US - days_ago * DAY_US, 1_000 + number)


LAST = delivery_id(0, PER_DAY - 1)  # in processing, as the one before it
FIRST = delivery_id(0, 0)


def add_event(gateway: Gateway, id_: str, created_us: int, source: str | None = "S", project: str = "P") -> None:
    gateway.execute(
        "INSERT INTO convoy.events (id, event_type, project_id, source_id, created_at) VALUES (%s, 't', %s, %s, %s)",
        id_, project, source, at(created_us),
    )  # fmt: skip


def add_delivery(
    gateway: Gateway, id_: str, event: str, created_us: int, status: str = "Success", project: str = "P"
) -> None:
    """Changed last a minute after its creation."""
    gateway.execute(
        "INSERT INTO convoy.event_deliveries"
        " (id, event_id, project_id, endpoint_id, event_type, status, created_at, updated_at)"
        " VALUES (%s, %s, %s, 'E1', 't', %s, %s, %s)",
        id_, event, project, status, at(created_us), at(created_us + MINUTE_US),
    )  # fmt: skip


def add_attempt(gateway: Gateway, id_: str, created_us: int | None) -> None:
    gateway.execute(
        "INSERT INTO convoy.delivery_attempts"
        " (id, project_id, endpoint_id, event_delivery_id, http_status, status, created_at)"
        " VALUES (%s, 'P', 'E1', 'd', '200 OK', true, %s)",
        id_, None if created_us is None else at(created_us),
    )  # fmt: skip


def fill_days(gateway: Gateway) -> None:
    """Three days, one of them too old to be tracked, and a delivery whose id tells none."""
    for days_ago in (0, 1, 40):
        created = NOON_US - days_ago * DAY_US
        for number in range(PER_DAY):
            add_event(gateway, event_id(days_ago, number), created)
            status = "Processing" if number >= PER_DAY - 2 else "Success"
            event = event_id(days_ago, number)
            add_delivery(gateway, delivery_id(days_ago, number), event, created + number * 1_000_007, status)
    add_event(gateway, "no ulid", NOON_US)
    add_delivery(gateway, "no ulid", "no ulid", NOON_US)
    add_attempt(gateway, ulid(NOON_US, 5_000), NOON_US)


class Scene(NamedTuple):
    """Tables, and a ledger that was in step with them."""

    gateway: Gateway
    ledger: Ledger
    client: Any

    def sql(self, text: str, *arguments: Any) -> None:
        self.gateway.execute(text, *arguments)

    def key(self, what: str, day: str = DAY) -> str:
        return f"oq:{{P}}:{what}:{day}"

    def run(self, **arguments: Any) -> dict[str, int]:
        """What was repaired; nothing may be left or moving."""
        report = reconcile(self.gateway, self.ledger.url, **arguments)
        assert not report.left, report.left
        assert not report.moving, report.moving
        return repaired(report)

    def assert_repairs(self, found: dict[str, int]) -> None:
        """A dry run finds it and writes nothing, a run repairs it, and the next one finds nothing."""
        before = everything(self.client)
        assert self.run(is_dry=True) == found
        assert everything(self.client) == before
        assert self.run() == found
        self.assert_agrees()
        assert self.run() == {}

    def assert_agrees(self) -> None:
        assert_agree(self.ledger, self.gateway)
        assert self.ledger.differences() == []


def everything(client: Any) -> dict[bytes, bytes]:
    return {key: client.dump(key) for key in client.keys("oq:*")}


@contextmanager
def seeded_scene(gateway: Gateway, ledger: Ledger, redis_server: RedisServer) -> Iterator[Scene]:
    """In step, since before the days that it has."""
    with redis_server.client() as client:
        agree_on(client, birth_us=NOON_US - DAY_US)
        fill_days(gateway)
        assert seed(gateway, ledger.url).is_complete
        yield Scene(gateway, ledger, client)
