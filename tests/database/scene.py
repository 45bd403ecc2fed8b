"""A follower of a test's gateway, and what its ledger should say."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import redis

from otel_queue.config import Config, FollowConfig, PostgresConfig, RedisConfig, Secret
from otel_queue.database.follower import Follower
from otel_queue.database.look import Looked
from otel_queue.database.place import Place
from otel_queue.ledger.reader import LedgerReader
from otel_queue.redis_client import connect
from tests.ledger.ledgers import families_of, now_us, ulid
from tests.ledger.oracle import Families
from tests.postgres.gateway import ATTEMPTS, DELIVERIES, DELIVERY_BACKLOG, EVENT_BACKLOG, EVENTS, Gateway, brief
from tests.seeding.seeds import AGE_TOLERANCE_SECONDS


class Scene:
    """One gateway and one ledger; followers are made and lost as a test wants."""

    def __init__(self, gateway: Gateway, redis_url: str, **settings: Any) -> None:
        self.gateway = gateway
        self.config = Config(
            redis=RedisConfig(url=redis_url),
            postgres=PostgresConfig(dsn=gateway.dsn, statement_timeout_seconds=30.0),
            # Slices so small that there are several.
            follow=replace(FollowConfig(slice_rows=50), **settings),
        )
        self._numbers = itertools.count(1)
        self._opened: list[Follower] = []
        self.follower = self.new_follower()

    def new_follower(
        self,
        dsn: Secret | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        statement_timeout_seconds: float = 30.0,
        **settings: Any,
    ) -> Follower:
        """Another process's."""
        config = replace(self.config, follow=replace(self.config.follow, **settings))
        postgres = PostgresConfig(dsn=dsn or self.gateway.dsn, statement_timeout_seconds=statement_timeout_seconds)
        config = replace(config, postgres=postgres)
        self._opened.append(Follower(config, monotonic=monotonic))
        return self._opened[-1]

    def place(self) -> Place:
        place = self.follower.take()
        assert place is not None
        return place

    def look(self) -> Looked:
        looked = self.follower.look(self.place())
        assert not looked.failures, looked.failures
        return looked

    def fill(self) -> dict[str, int]:
        """What a first fill read, by kind."""
        filled = self.follower.fill(self.place())
        assert not filled.failures, filled.failures
        return filled.rows

    def kill(self) -> None:
        """The follower ends without a word, its lease runs out, and another one takes its place."""
        self.client().hset("oq-db:follow", "lease_until", 0)
        self.follower = self.new_follower()

    def sweep(self) -> dict[str, int]:
        """What a sweep set right, by what was wrong."""
        self.place()
        swept = self.follower.sweep()
        assert not swept.failures, swept.failures
        return {what: count for what, count in swept.repaired.items() if count}

    def client(self) -> Any:
        """Redis itself."""
        return redis.Redis.from_url(str(self.config.redis.location))

    def new_id(self, ago_seconds: float = 120) -> str:
        """An id of two minutes ago: whether the newest ids have rows is left to the next sweep."""
        return ulid(now_us() - round(ago_seconds * 1e6), next(self._numbers))

    def event(self, *, source: str | None = "S1", project: str = "P") -> str:
        id_ = self.new_id()
        self.gateway.event(id_, source=source, project=project)
        return id_

    def delivery(self, event: str, status: str = "Scheduled", **told: Any) -> str:
        id_ = self.new_id((told.get("seconds") or 0) + 120)
        self.gateway.delivery(id_, event, status, **told)
        return id_

    def attempt(self, delivery: str, http_status: str | None = "200 OK", *, succeeded: bool = True) -> None:
        self.gateway.execute(
            "INSERT INTO convoy.delivery_attempts"
            " (id, project_id, endpoint_id, event_delivery_id, http_status, status) VALUES (%s, 'P', 'E1', %s, %s, %s)",
            self.new_id(), delivery, http_status, succeeded,
        )  # fmt: skip

    def set_status(self, delivery: str, status: str) -> None:
        self.gateway.execute(
            "UPDATE convoy.event_deliveries SET status = %s, updated_at = now() WHERE id = %s", status, delivery
        )

    def families(self) -> Families:
        """What the follower's ledger says."""
        link = connect(self.config.followed.ledger_redis)
        with contextlib.closing(link):
            snapshot = LedgerReader(link, namespace="oq-db").snapshot()
        assert not snapshot.failures, snapshot.failures
        return families_of(snapshot)

    def brief(self, name: str = DELIVERIES) -> dict[str, float]:
        """One family of the ledger in short, as the gateway's tests write it."""
        families: Any = {name: _Samples(self.families()[name])}
        return brief(families, name)

    def assert_equal(self) -> None:
        """The ledger's families are those of the database's own counting; ages as of about now."""
        ours = self.families()
        theirs = {name: dict(family.samples) for name, family in self.gateway.families("corrected").items()}
        for name in (EVENTS, DELIVERIES, ATTEMPTS):
            assert ours[name] == theirs[name], name
        for name in (EVENT_BACKLOG, DELIVERY_BACKLOG):
            assert ours[name].keys() == theirs[name].keys(), name
            for labels, age in ours[name].items():
                assert abs(age - theirs[name][labels]) < AGE_TOLERANCE_SECONDS, (name, labels)

    def close(self) -> None:
        for each in self._opened:
            each.close()


class _Samples:
    def __init__(self, samples: Any) -> None:
        self.samples = list(samples.items())


@contextlib.contextmanager
def scenes(gateway: Gateway, redis_url: str, **settings: Any) -> Iterator[Scene]:
    with contextlib.closing(Scene(gateway, redis_url, **settings)) as opened:
        yield opened
