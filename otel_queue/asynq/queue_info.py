"""What the inspector reports: queues, servers, schedulers, tasks. None always means unknown, never zero."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from otel_queue.asynq.message import SchedulerEntry, ServerInfo, WorkerInfo

# asynq's seven states, in the order of a task's life.
STATES: Final = ("pending", "active", "scheduled", "retry", "archived", "completed", "aggregating")


class QueueInfo(NamedTuple):
    """One queue at one moment.

    The first block has asynq's QueueInfo fields with their meaning there; `latency` is in seconds of Redis
    server time, `timestamp` in Unix seconds, `size` counts all seven states (completed ones included).
    `processed` and `failed` count the current UTC day.
    """

    queue: str
    memory_usage: int | None
    latency: float | None
    size: int | None
    groups: int | None
    pending: int | None
    active: int | None
    scheduled: int | None
    retry: int | None
    archived: int | None
    completed: int | None
    aggregating: int | None
    processed: int | None
    failed: int | None
    processed_total: int | None
    failed_total: int | None
    paused: bool | None
    timestamp: float

    # What asynq's own inspector does not tell.
    active_without_lease: int | None
    """Active tasks beyond the number of leases: nobody will ever recover them."""
    lease_expired: int | None
    """Leases that have run out; a server recovers them 30 s later, if one serves the queue."""
    overdue_scheduled: float | None
    """Seconds by which the most overdue scheduled task is late; 0 when none is due."""
    overdue_retry: float | None
    """Seconds by which the most overdue retry is late; 0 when none is due."""

    def in_state(self, state: str) -> int | None:
        """Tasks in one of STATES."""
        value: int | None = getattr(self, state)
        return value


# The fields of asynq's QueueInfo in Go's order, in snake case.
QUEUE_INFO_FIELDS: Final = (
    "queue", "memory_usage", "latency", "size", "groups", "pending", "active", "scheduled", "retry",
    "archived", "completed", "aggregating", "processed", "failed", "processed_total", "failed_total",
    "paused", "timestamp",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DailyStats:
    """Tasks processed and failed on one UTC day (YYYY-MM-DD); None where the counter cannot be read."""

    queue: str
    day: str
    processed: int | None
    failed: int | None


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A live server and its busy workers, up to five seconds old; the workers are None where not all were read."""

    info: ServerInfo
    active_workers: tuple[WorkerInfo, ...] | None


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """One task of a list. `type` and what follows is None when the task's hash or message cannot be read.

    Times are Unix seconds. `is_orphaned`: active, and its lease has run out.
    """

    id: str
    queue: str
    state: str
    type: str | None = None
    payload: bytes | None = None
    max_retry: int | None = None
    retried: int | None = None
    last_err: str | None = None
    last_failed_at: float | None = None
    completed_at: float | None = None
    next_process_at: float | None = None
    group: str | None = None
    headers: Mapping[str, str] | None = None
    is_orphaned: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of asynq at one moment; queues sorted by name.

    `time` is Redis server time in Unix seconds. `servers` and `scheduler_entries` are None when one
    of them could not be read. `failures` counts what could not be read, by reason; `round_trips` is what it cost.
    """

    time: float
    queues: tuple[QueueInfo, ...]
    servers: tuple[ServerStatus, ...] | None
    scheduler_entries: tuple[SchedulerEntry, ...] | None
    failures: Mapping[str, int]
    duration_seconds: float
    round_trips: int
