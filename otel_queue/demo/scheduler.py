"""A simulated asynq scheduler with the periodic tasks that a Convoy server registers."""

import calendar
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from otel_queue.asynq import keys
from otel_queue.asynq.message import SchedulerEntry, TaskMessage
from otel_queue.demo.broker import Broker
from otel_queue.demo.heartbeat import SCHEDULER_BEAT_SECONDS, beat_scheduler, clear_scheduler, record_enqueue
from otel_queue.demo.identity import uuid
from otel_queue.demo.interval import Interval

_MINUTE: Final = 60
_DAY_MINUTES: Final = 24 * 60


def next_run(spec: str, now: float) -> float:
    """When a spec is due after `now`, in Unix seconds and UTC.

    It knows what the demo registers: `@every <n>s`, and `M H * * *` where M and H are a number or `*`.
    """
    if spec.startswith("@every "):
        return int(now) + int(spec.removeprefix("@every ").removesuffix("s"))
    minute, hour, *rest = spec.split()
    if rest != ["*", "*", "*"]:
        raise ValueError(f"cron spec {spec!r}: only minutes and hours are supported here")
    start = (int(now) // _MINUTE + 1) * _MINUTE
    for candidate in range(start, start + _DAY_MINUTES * _MINUTE, _MINUTE):
        utc = time.gmtime(candidate)
        if minute in ("*", str(utc.tm_min)) and hour in ("*", str(utc.tm_hour)):
            return float(calendar.timegm(utc))
    raise ValueError(f"cron spec {spec!r} never comes true")


@dataclass(frozen=True, slots=True)
class Periodic:
    """A task type that is enqueued whenever its spec is due."""

    spec: str
    task_type: str
    queue: str


class Scheduler:
    """Enqueues periodic tasks and says what it will do next."""

    def __init__(self, broker: Broker, rng: Random, host: str, periodic: tuple[Periodic, ...]) -> None:
        self._broker = broker
        self._rng = rng
        self._key = keys.scheduler(host, rng.randrange(2, 32_768), uuid(rng))
        self._beat = Interval(SCHEDULER_BEAT_SECONDS)
        now = broker.clock()
        # asynq's first heartbeat comes one interval after the start.
        self._beat.wait(now, SCHEDULER_BEAT_SECONDS)
        self._queues: Mapping[str, str] = {each.task_type: each.queue for each in periodic}
        self._entries = [
            SchedulerEntry(
                id=uuid(rng),
                spec=each.spec,
                task_type=each.task_type,
                enqueue_options=(f'Queue("{each.queue}")',),
                next_enqueue_time=next_run(each.spec, now),
            )
            for each in periodic
        ]

    def step(self) -> None:
        """Enqueue what is due; ticks that were missed are made up for once, not one by one."""
        now = self._broker.clock()
        for index, entry in enumerate(self._entries):
            if entry.next_enqueue_time is not None and entry.next_enqueue_time <= now:
                self._entries[index] = self._enqueue(entry, now)
        if self._beat.is_due(now):
            beat_scheduler(self._broker, self._key, self._entries)

    def _enqueue(self, entry: SchedulerEntry, now: float) -> SchedulerEntry:
        task_id = uuid(self._rng)
        task = TaskMessage(entry.task_type, id=task_id, queue=self._queues[entry.task_type])
        if self._broker.enqueue(task):
            record_enqueue(self._broker, entry.id, task_id)
        return replace(
            entry,
            prev_enqueue_time=entry.next_enqueue_time,
            next_enqueue_time=next_run(entry.spec, now),
        )

    def shut_down(self) -> None:
        """Leave neither entries nor histories."""
        clear_scheduler(self._broker, self._key, [entry.id for entry in self._entries])
