"""The Postgres source: one exporter reads the database, all of them serve what it read."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final, Protocol

from otel_queue.config.secret import Secret
from otel_queue.errors import ConfigError, ReadError
from otel_queue.lane import Collected
from otel_queue.postgres.aggregations import Found, Reckoning, read_families
from otel_queue.postgres.database import CONNECT_TIMEOUT_SECONDS, GRACE_SECONDS, IDLE_SECONDS, Database, Reading
from otel_queue.postgres.dsn import Dsn
from otel_queue.postgres.generation import Generation
from otel_queue.postgres.memory import Memory
from otel_queue.postgres.store import GONE, GenerationStore, Lease, Seen
from otel_queue.redis_client import RedisLink
from otel_queue.series_budget import Exported, SeriesBudget

# A generation outlives this many intervals; one refresh may fail and one be late.
_LIFE_INTERVALS: Final = 3
# What a witness may take while the transaction waits for it.
_WITNESS_SECONDS: Final = 30.0


class Witness(Protocol):
    """Sees each reading that this exporter makes of the database for all. Its methods do not raise."""

    def before(self) -> None:
        """The state of the database is about to be fixed."""

    def begun(self) -> None:
        """The state is fixed and nothing is counted yet; the reading waits for this, some seconds at most."""

    def judge(self, exported: Found, corrected: Found, time: float, lag_seconds: float) -> None:
        """What was read, with all labels, of one state; the transaction is over.

        `corrected` is `exported` itself where that is what is exported. `time` is the start of the transaction in
        Unix seconds, Redis clock; ages are as of then, and on a replica all else is `lag_seconds` older.
        """


class PostgresSource:
    """The domain lane's families out of the gateway's database, for a Lane.

    `parity` is "corrected", or "legacy" for the numbers of the gateway's own exporter. `use_snapshot_tables` reads
    the tables in which the gateway keeps its legacy numbers, instead of counting. Exporters that count in different
    ways do not share generations; `lean` and `budget` may differ. For a
    `witness` the corrected numbers are read too. Raises ConfigError; connects when it collects.
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
        lean: bool = False,
        budget: SeriesBudget | None = None,
        witness: Witness | None = None,
    ) -> None:
        self._reckoning = reckoning_of(parity, use_snapshot_tables)
        self._interval = interval_seconds
        self._max_age = _LIFE_INTERVALS * interval_seconds if max_age_seconds is None else max_age_seconds
        self._lean, self._budget = lean, budget or SeriesBudget()
        self._witness = witness
        waits = 0.0 if witness is None else _WITNESS_SECONDS
        self._database = Database(
            Dsn(dsn), statement_timeout_seconds=statement_timeout_seconds, idle_seconds=IDLE_SECONDS + waits
        )
        # Renewed before each statement, so it has to outlast one of them, and the connecting before the first.
        lease = statement_timeout_seconds + GRACE_SECONDS + 2 * CONNECT_TIMEOUT_SECONDS + waits
        self._store = GenerationStore(
            link, self._reckoning, namespace=namespace, interval_seconds=interval_seconds, lease_seconds=lease
        )
        self._memory = Memory(interval_seconds)
        self._fitted: tuple[Generation, Exported] | None = None

    def __str__(self) -> str:
        return str(self._database)

    def collect(self) -> Collected:
        """The families of the newest generation, which is read from the database first if it is due and nobody does.

        Each family has the time of the state it shows; one older than `max_age_seconds` is left out, and
        `age_seconds` is the oldest one's age, whatever this machine's clock says. `failures` are those of a refresh
        made here. Raises ReadError when there is nothing to serve, with why the last refresh
        failed. One round trip to Redis; a refresh takes as long as its statements.

        While Redis is gone the exporter is alone: it reads for itself at the same interval, times are by this
        machine's clock, and `failures` has `store_` with the reason. Back again it gives to all what it read.
        """
        failures: Counter[str] = Counter()
        seen: Seen | None = None
        with _going_on(failures):
            seen = self._look()
        failure = self._read_alone(failures) if seen is None else self._follow(seen, failures)
        return self._serve(failure, failures)

    def close(self) -> None:
        """Ends the connections to Redis; those to the database end with each refresh."""
        self._store.close()

    def _look(self, *, take: bool = True) -> Seen:
        looked = time.monotonic()
        seen = self._store.look(take=take)
        if seen.generation is not None:
            self._memory.put(seen.generation, looked - max(seen.now - seen.generation.time, 0.0))
        return seen

    def _follow(self, seen: Seen, failures: Counter[str]) -> ReadError | None:
        """Makes the next generation if we have the lease; returns why there is none."""
        failure = seen.failure
        if seen.broken is not None:
            failures[seen.broken.reason] += 1
            failure = failure or seen.broken
        if seen.lease is None:
            return failure
        try:
            if self._memory.is_shared or self._memory.age_seconds >= self._interval:
                self._refresh(seen.lease, seen.now, failures)
            else:
                self._share(seen.lease, seen.now, failures)
        except ReadError as error:
            failures[error.reason] += 1
            self._memory.fail(error)
            with suppress(ReadError):  # a lease that is not given back ends by itself
                self._store.keep_failure(seen.lease, error)
                if error.reason == "lease_lost":  # somebody else has read meanwhile
                    self._look(take=False)
            return error
        return None

    def _refresh(self, lease: Lease, now: float, failures: Counter[str]) -> None:
        looked = time.monotonic()

        def renew() -> None:
            with _going_on(failures):  # a store that is gone gives the lease to nobody else
                self._store.renew(lease)

        witness = self._witness
        with self._database.reading(None if witness is None else witness.before) as reading:
            began = now + reading.began - looked
            if witness is not None:
                renew()
                witness.begun()
            exported = read_families(reading, self._reckoning, began, renew)
            corrected = None if witness is None else self._corrected(reading, exported, began, renew, failures)
        failures.update(exported.failures)
        generation = Generation(began, tuple(exported.families), dict(exported.failures))
        is_kept = False
        with _going_on(failures):
            self._store.keep(lease, generation)
            is_kept = True
        self._memory.put(generation, reading.began, is_shared=is_kept)
        if witness is not None and corrected is not None:
            witness.judge(exported, corrected, began, reading.lag_seconds)

    def _corrected(
        self, reading: Reading, exported: Found, began: float, renew: Callable[[], None], failures: Counter[str]
    ) -> Found | None:
        """The corrected numbers of the same state; None when they cannot be read, which costs the comparison alone."""
        if self._reckoning == "corrected":
            return exported
        try:
            found = read_families(reading, "corrected", began, renew)
        except ReadError as error:
            if error.reason == "lease_lost":
                raise
            failures[error.reason] += 1
            return None
        failures.update(found.failures)
        return found

    def _share(self, lease: Lease, now: float, failures: Counter[str]) -> None:
        """Gives to all what was read while the store was gone, so that it is not read again at once."""
        generation = self._memory.generation
        assert generation is not None
        shift = now - self._memory.age_seconds - generation.time
        families = tuple(replace(family, time=family.time + shift) for family in generation.families)
        shared = replace(generation, time=generation.time + shift, families=families)
        with _going_on(failures):
            self._store.keep(lease, shared)
            self._memory.share(shared)

    def _read_alone(self, failures: Counter[str]) -> ReadError | None:
        """Reads for this exporter if that is due; returns why its last reading failed."""
        if not self._memory.is_due:
            return self._memory.failure
        try:
            with self._database.reading() as reading:
                began = time.time() - (time.monotonic() - reading.began)
                found = read_families(reading, self._reckoning, began, lambda: None)
        except ReadError as error:
            failures[error.reason] += 1
            self._memory.fail(error)
            return error
        failures.update(found.failures)
        generation = Generation(began, tuple(found.families), dict(found.failures))
        self._memory.put(generation, reading.began, is_shared=False)
        return None

    def _serve(self, failure: ReadError | None, failures: Counter[str]) -> Collected:
        generation, age = self._memory.generation, self._memory.age_seconds
        if generation is None:
            if failure is None:
                failure = ReadError("not_yet", f"{self}: no generation yet; another exporter is making the first one")
            raise failure
        exported = self._fit(generation)
        now = generation.time + age
        fresh = [family for family in exported.families if now - family.time <= self._max_age]
        if len(fresh) < len(exported.families):
            failures["stale"] += len(exported.families) - len(fresh)
        if not fresh:
            age = now - max((family.time for family in exported.families), default=generation.time)
            raise failure or ReadError(
                "stale", f"{self}: the newest numbers are {age:.0f} s old, more than {self._max_age:g} s"
            )
        oldest = min(family.time for family in fresh)
        return Collected(fresh, dict(failures), age_seconds=max(now - oldest, 0.0), folded=exported.folded)

    def _fit(self, generation: Generation) -> Exported:
        """The families as they are exported, made once per generation."""
        if self._fitted is None or self._fitted[0] is not generation:
            self._fitted = generation, self._budget.fit(generation.families, lean=self._lean)
        return self._fitted[1]


@contextmanager
def _going_on(failures: Counter[str]) -> Iterator[None]:
    """Counts that the store is gone, once, and goes on after the block without it; other errors are raised."""
    try:
        yield
    except ReadError as error:
        if error.reason not in GONE:
            raise
        failures[f"store_{error.reason}"] = 1


def reckoning_of(parity: str, use_snapshot_tables: bool) -> Reckoning:
    """How the settings have it counted; raises ConfigError."""
    if parity not in ("legacy", "corrected"):
        raise ConfigError([f"postgres.parity: must be legacy or corrected, not {parity!r}"])
    if not use_snapshot_tables:
        return "legacy" if parity == "legacy" else "corrected"
    if parity != "legacy":
        raise ConfigError(
            ["postgres.use_snapshot_tables: these tables hold legacy numbers; set postgres.parity to legacy"]
        )
    return "snapshot"
