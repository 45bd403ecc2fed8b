"""The Postgres source: one exporter reads the database, all of them serve what it read."""

import time
from collections import Counter
from contextlib import suppress
from typing import Final

from otel_queue.config.secret import Secret
from otel_queue.errors import ConfigError, ReadError
from otel_queue.postgres.aggregations import Reckoning, read_families
from otel_queue.postgres.database import CONNECT_TIMEOUT_SECONDS, GRACE_SECONDS, Database
from otel_queue.postgres.dsn import Dsn
from otel_queue.postgres.generation import Generation
from otel_queue.postgres.store import GenerationStore, Lease, Seen
from otel_queue.redis_client import RedisLink
from otel_queue.sources import Collected

# A generation outlives this many intervals; one refresh may fail and one be late.
_LIFE_INTERVALS: Final = 3


class PostgresSource:
    """The domain lane's families out of the gateway's database, for a Lane.

    `parity` is "corrected", or "legacy" for the numbers of the gateway's own exporter. `use_snapshot_tables` reads
    the tables in which the gateway keeps its legacy numbers, instead of counting. Exporters that count in different
    ways do not share generations. Raises ConfigError; connects when it collects.
    """

    def __init__(
        self,
        dsn: Secret,
        link: RedisLink,
        *,
        namespace: str = "oq",
        parity: str = "corrected",
        use_snapshot_tables: bool = False,
        interval_seconds: float = 60.0,
        statement_timeout_seconds: float = 60.0,
        max_age_seconds: float | None = None,
    ) -> None:
        self._reckoning = _reckoning(parity, use_snapshot_tables)
        self._database = Database(Dsn(dsn), statement_timeout_seconds=statement_timeout_seconds)
        self._max_age = _LIFE_INTERVALS * interval_seconds if max_age_seconds is None else max_age_seconds
        # Renewed before each statement, so it has to outlast one of them, and the connecting before the first.
        lease = statement_timeout_seconds + GRACE_SECONDS + 2 * CONNECT_TIMEOUT_SECONDS
        self._store = GenerationStore(
            link, self._reckoning, namespace=namespace, interval_seconds=interval_seconds, lease_seconds=lease
        )

    def __str__(self) -> str:
        return str(self._database)

    def collect(self) -> Collected:
        """The families of the newest generation, which is read from the database first if it is due and nobody does.

        Each family has the time it was read at; one older than `max_age_seconds` is left out. `failures` are those
        of a refresh made here. Raises ReadError when there is nothing to serve, with why the last refresh failed.
        One round trip to Redis; a refresh takes as long as its statements.
        """
        failures: Counter[str] = Counter()
        seen = self._store.look()
        generation, failure = seen.generation, seen.failure
        if seen.broken is not None:
            failures[seen.broken.reason] += 1
            failure = failure or seen.broken
        if seen.lease is not None:
            try:
                generation = self._refresh(seen.lease, seen.now)
                failures.update(generation.failures)
            except ReadError as error:
                failures[error.reason] += 1
                failure = error
                with suppress(ReadError):  # a lease that is not given back ends by itself
                    self._store.keep_failure(seen.lease, error)
                    if error.reason == "lease_lost":  # somebody else has read meanwhile
                        seen = self._store.look(take=False)
                        generation = seen.generation
        return self._serve(generation, failure, failures, seen)

    def close(self) -> None:
        """Ends the connections to Redis; those to the database end with each refresh."""
        self._store.close()

    def _refresh(self, lease: Lease, now: float) -> Generation:
        looked = time.monotonic()
        with self._database.reading() as reading:
            began = now + reading.began - looked
            found = read_families(reading, self._reckoning, began, lambda: self._store.renew(lease))
        generation = Generation(began, tuple(found.families), dict(found.failures))
        self._store.keep(lease, generation)
        return generation

    def _serve(
        self, generation: Generation | None, failure: ReadError | None, failures: Counter[str], seen: Seen
    ) -> Collected:
        if generation is None:
            if failure is None:
                failure = ReadError("not_yet", f"{self}: no generation yet; another exporter is making the first one")
            raise failure
        fresh = [family for family in generation.families if seen.now - family.time <= self._max_age]
        if len(fresh) < len(generation.families):
            failures["stale"] += len(generation.families) - len(fresh)
        if not fresh:
            age = seen.now - max((family.time for family in generation.families), default=generation.time)
            raise failure or ReadError(
                "stale", f"{self}: the newest numbers are {age:.0f} s old, more than {self._max_age:g} s"
            )
        return Collected(fresh, dict(failures))


def _reckoning(parity: str, use_snapshot_tables: bool) -> Reckoning:
    if parity not in ("legacy", "corrected"):
        raise ConfigError([f"postgres.parity: must be legacy or corrected, not {parity!r}"])
    if not use_snapshot_tables:
        return "legacy" if parity == "legacy" else "corrected"
    if parity != "legacy":
        raise ConfigError(
            ["postgres.use_snapshot_tables: these tables hold legacy numbers; set postgres.parity to legacy"]
        )
    return "snapshot"
