"""A simulated asynq server: it takes tasks, works on them for a simulated while, and may die."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

from otel_queue.asynq.message import ServerInfo, TaskMessage, WorkerInfo
from otel_queue.demo.broker import Broker
from otel_queue.demo.heartbeat import SERVER_BEAT_SECONDS, beat_server, clear_server
from otel_queue.demo.identity import uuid
from otel_queue.demo.interval import Interval

_RECOVER_SECONDS: Final = 60
_JANITOR_SECONDS: Final = 8
_RETRY_SECONDS: Final = 3  # after an expired lease; a handler's own failures say how long to wait


class TaskFailedError(Exception):
    """A handler's failure: the task is tried again after `retry_seconds`, if it has retries left."""

    def __init__(self, message: str, retry_seconds: float) -> None:
        self.retry_seconds = retry_seconds
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Run:
    """What a handler makes of a task: `finish` is called `seconds` later, and may raise TaskFailedError."""

    seconds: float
    finish: Callable[[], None]


class Handler(Protocol):
    """Does the work of the tasks that an agent takes."""

    def start(self, task: TaskMessage) -> Run:
        """Begin to work on a task."""
        ...


@dataclass(frozen=True, slots=True)
class _Busy:
    task: TaskMessage
    run: Run
    started_at: float


class Agent:
    """One server with its workers; `queues` maps each queue it serves to its priority."""

    def __init__(
        self,
        broker: Broker,
        handler: Handler,
        rng: Random,
        host: str,
        queues: Mapping[str, int],
        concurrency: int,
    ) -> None:
        self.broker = broker
        self.queues = queues
        self._handler = handler
        self._rng = rng
        self._host = host
        self._concurrency = concurrency
        self._info: ServerInfo | None = None
        self._busy: list[_Busy] = []
        self._beat = Interval(SERVER_BEAT_SECONDS)
        self._recover = Interval(_RECOVER_SECONDS)
        self._janitor = Interval(_JANITOR_SECONDS)

    @property
    def busy(self) -> int:
        """How many of its workers have a task."""
        return len(self._busy)

    def start(self) -> None:
        """Start as a new process: everything that repeats is due at once."""
        self._info = ServerInfo(
            host=self._host,
            pid=self._rng.randrange(2, 32_768),
            server_id=uuid(self._rng),
            concurrency=self._concurrency,
            queues=self.queues,
            start_time=self.broker.clock(),
        )
        self._beat = Interval(SERVER_BEAT_SECONDS)
        self._recover = Interval(_RECOVER_SECONDS)
        self._janitor = Interval(_JANITOR_SECONDS)

    def die(self) -> None:
        """Stop as after SIGKILL: its tasks stay active until another server recovers them."""
        self._info = None
        self._busy.clear()

    def shut_down(self) -> None:
        """Give the tasks back and leave no trace."""
        if self._info is None:
            return
        for busy in self._busy:
            self.broker.requeue(busy.task)
        clear_server(self.broker, self._info)
        self.die()

    def beat(self) -> None:
        """Say that it lives, when that is due.

        All agents beat before any of them steps: after a long pause of the clock nobody must take a living agent's
        tasks for orphans.
        """
        if self._info is not None and self._beat.is_due(self.broker.clock()):
            self._say_alive(self._info)

    def step(self, pending: dict[str, int]) -> None:
        """Do what is due; `pending` says which queues are worth asking, and is kept up to date."""
        if self._info is None:
            return
        now = self.broker.clock()
        if self._recover.is_due(now):
            self.broker.recover(list(self.queues), _RETRY_SECONDS)
        if self._janitor.is_due(now):
            self.broker.delete_expired_completed(list(self.queues))
        self._finish(now)
        self._take(now, pending)

    def _finish(self, now: float) -> None:
        for busy in [each for each in self._busy if each.started_at + each.run.seconds <= now]:
            # First: should Redis fail here, the task is left to the recovery of leases, not done twice.
            self._busy.remove(busy)
            try:
                busy.run.finish()
            except TaskFailedError as error:
                self.broker.fail(busy.task, now + error.retry_seconds, str(error))
            else:
                self.broker.finish(busy.task)

    def _take(self, now: float, pending: dict[str, int]) -> None:
        while len(self._busy) < self._concurrency:
            waiting = {queue: weight for queue, weight in self.queues.items() if pending.get(queue)}
            if not waiting:
                return
            queue = self._rng.choices(list(waiting), list(waiting.values()))[0]
            task = self.broker.dequeue(queue)
            if task is None:
                pending[queue] = 0
                continue
            pending[queue] -= 1
            self._busy.append(_Busy(task, self._handler.start(task), now))

    def _say_alive(self, info: ServerInfo) -> None:
        self.broker.extend_leases(busy.task for busy in self._busy)
        workers = [
            WorkerInfo(
                host=info.host,
                pid=info.pid,
                server_id=info.server_id,
                task_id=busy.task.id,
                task_type=busy.task.type,
                task_payload=busy.task.payload,
                queue=busy.task.queue,
                start_time=busy.started_at,
                deadline=busy.started_at + busy.task.timeout,
            )
            for busy in self._busy
        ]
        beat_server(self.broker, info, workers)
