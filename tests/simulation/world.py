"""Virtual time, clocks that disagree, processes that die, and handlers that run in them."""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final

from otel_queue.lifecycle import (
    AttemptMade,
    DayExpired,
    DeliveryCreated,
    DeliveryRead,
    EventCreated,
    ProjectDescribed,
    Record,
    StatusSet,
)
from tests.ledger.ledgers import KINDS, ulid
from tests.postgres.gateway import Gateway
from tests.simulation.outbox import SECOND_US, Outbox
from tests.simulation.tables import Tables
from tests.simulation.tenants import Tenants

# As asynq: a lease that is not renewed runs out, and the recoverer looks some time later.
REDELIVERED_AFTER_SECONDS: Final = (30.0, 60.0)
MOST_DELIVERIES_OF_A_TASK: Final = 4
WORKERS: Final = 9
# What is left of a worker's error when it has corrected its clock to Redis. Writes of two workers to the same row are
# further apart than twice this.
CORRECTION_ERROR_US: Final = 50_000
NO_ULID: Final = 0.01

Steps = Generator[float, None, float | None]
"""A handler: yields the seconds until its next step, and returns those until it is to be tried again, if it is."""
Handler = Callable[["Work"], Steps]
Command = Callable[["Work"], None]
"""What somebody does in one step, and nobody repeats."""


class WorkerDied(Exception):  # noqa: N818 - nothing is wrong: it is what a world is for
    """The process is gone, and with it what it had not told yet."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A process. `clock_us` is how far its clock is ahead of true time, `error_us` of Redis once corrected."""

    clock_us: int
    error_us: int
    records_from_us: int


@dataclass(slots=True)
class _Task:
    """A task of a queue, or without one a command."""

    handler: Handler
    queue: str = ""
    id: str = ""
    deliveries: int = 0


class World:
    """Where the gateway's handlers run, from `start_us` to `end_us`; the same for the same `seed`.

    `crashes` is the probability that a process dies at one of the places between two writes. With `late_workers` a
    third of the processes record nothing until the middle of the time. Clocks of database, Redis and workers differ
    by up to `skew_us`. `retention_days` is how many whole days partitioned tables keep.

    `happened` counts what did, `lost kind` and `unrecorded kind` among it: records that a dead process took along, and
    those of processes that did not record yet. `lost` are the ids that these were about.
    """

    def __init__(
        self,
        gateway: Gateway,
        sink: Callable[[Record], None],
        *,
        seed: int,
        start_us: int,
        end_us: int,
        crashes: float = 0.0,
        late_workers: bool = False,
        skew_us: int = 0,
        retention_days: int | None = None,
    ) -> None:
        self.chance = random.Random(seed)
        self.partitioned = gateway.database == "partitioned"
        self.tables = Tables(gateway, partitioned=self.partitioned)
        self.start_us = self.now_us = start_us
        self.end_us = end_us
        self.retention_days = retention_days if self.partitioned else None
        self.happened: Counter[str] = Counter()
        self.lost: set[str] = set()
        self.crashes = crashes
        self._database_ahead_us, self.redis_ahead_us = (self._off(skew_us) for _ in range(2))
        self._workers = [self._worker(number, late_workers, skew_us) for number in range(WORKERS)]
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._live: set[tuple[str, str]] = set()
        self._outbox = Outbox(sink, self.chance, self.happened)
        self.tenants = Tenants(self.chance)

    def close(self) -> None:
        self.tables.close()

    def _off(self, skew_us: int) -> int:
        return self.chance.randint(-skew_us // 2, skew_us // 2)

    def _worker(self, number: int, late_workers: bool, skew_us: int) -> Worker:
        middle = (self.start_us + self.end_us) // 2
        error = self.chance.randint(-CORRECTION_ERROR_US, CORRECTION_ERROR_US) if skew_us else 0
        return Worker(self._off(skew_us), error, middle if late_workers and number % 3 == 0 else 0)

    def play(self) -> None:
        """Everything on the agenda, until the end; what is under way then stays as it is."""
        while self._agenda and self._agenda[0][0] <= self.end_us:
            self.now_us, _, act = heapq.heappop(self._agenda)
            self._outbox.send(self.now_us)
            act()
        self._outbox.send(None)
        self.tables.flush()

    @property
    def database_us(self) -> int:
        """The database's clock."""
        return self.now_us + self._database_ahead_us

    def at(self, time_us: int, command: Command) -> None:
        """Somebody does this at that time, whatever becomes of it."""

        def steps(work: Work) -> Steps:
            command(work)
            yield from ()
            return None

        self._schedule(time_us, _Task(steps))

    def enqueue(self, queue: str, id: str, handler: Handler, delay_seconds: float = 0.2) -> bool:
        """False where the queue has a task with the id: it is refused, and whoever enqueues it goes on."""
        if (queue, id) in self._live:
            self.happened["task refused"] += 1
            return False
        self._live.add((queue, id))
        self._schedule(self.now_us + int(delay_seconds * SECOND_US), _Task(handler, queue, id))
        return True

    def _schedule(self, time_us: int, task: _Task) -> None:
        heapq.heappush(self._agenda, (time_us, next(self._numbers), lambda: self._deliver(task)))

    def _deliver(self, task: _Task) -> None:
        task.deliveries += 1
        work = Work(self, self.chance.choice(self._workers), task.deliveries > 1)
        self._advance(task, task.handler(work))

    def _advance(self, task: _Task, steps: Steps) -> None:
        try:
            wait = next(steps)
        except StopIteration as done:
            if done.value is None:
                self._live.discard((task.queue, task.id))
            else:
                # Tried again by plan: what counts as a redelivery begins anew.
                task.deliveries = 0
                self._schedule(self.now_us + int(done.value * SECOND_US), task)
        except WorkerDied:
            self.happened[f"died in {task.queue or 'a command'}"] += 1
            self._redeliver(task)
        else:
            due = self.now_us + int(wait * SECOND_US)
            heapq.heappush(self._agenda, (due, next(self._numbers), lambda: self._advance(task, steps)))

    def _redeliver(self, task: _Task) -> None:
        if not task.queue:
            return
        if task.deliveries >= MOST_DELIVERIES_OF_A_TASK:
            self.happened["task archived"] += 1
            return
        self._schedule(self.now_us + int(self.chance.uniform(*REDELIVERED_AFTER_SECONDS) * SECOND_US), task)

    def tell(self, worker: Worker, record: Record) -> None:
        if self.now_us < worker.records_from_us:
            self.lose("unrecorded", record)
        else:
            self._outbox.take(self.now_us, record)

    def lose(self, how: str, record: Record) -> None:
        self.happened[f"{how} {KINDS[type(record)]}"] += 1
        self.lost.add(told_id(record))


def told_id(record: Record) -> str:
    """The id of what a record is about."""
    match record:
        case EventCreated():
            return record.event_id
        case DeliveryCreated() | StatusSet() | DeliveryRead():
            return record.delivery_id
        case AttemptMade():
            return record.attempt_id
        case ProjectDescribed() | DayExpired():
            return record.project


@dataclass(frozen=True, slots=True)
class Work:
    """One run of a handler in one process, which may die at `between` and at `tell`."""

    world: World
    worker: Worker
    is_redelivered: bool

    def new_ulid(self) -> str:
        """By the worker's clock."""
        return ulid(self.world.now_us + self.worker.clock_us, self.world.chance.getrandbits(80))

    def new_id(self) -> str:
        """A ULID; seldom one of the forms that came before them, of which events and deliveries are still about."""
        if self.world.chance.random() < NO_ULID:
            return f"{self.world.chance.getrandbits(80):020x}"
        return self.new_ulid()

    def time_us(self) -> int:
        """What a hook takes just before its write: the worker's clock, corrected to Redis as well as it can."""
        return self.world.now_us + self.world.redis_ahead_us + self.worker.error_us

    def tell(self, *records: Record) -> None:
        """The hook behind a write, once per row. The process may be gone before, in the middle, or right behind."""
        for number, record in enumerate(records):
            if self._dies():
                for lost in records[number:]:
                    self.world.lose("lost", lost)
                raise WorkerDied
            self.world.tell(self.worker, record)
        self.between()

    def between(self) -> None:
        """A place between two writes."""
        if self._dies():
            raise WorkerDied

    def _dies(self) -> bool:
        return self.world.chance.random() < self.world.crashes
