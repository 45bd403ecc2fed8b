"""Reading servers with their busy workers, and schedulers with their entries; nothing is purged."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Generic, TypeVar

from otel_queue.asynq import keys
from otel_queue.asynq.message import (
    SchedulerEntry,
    WorkerInfo,
    decode_scheduler_entry,
    decode_server_info,
    decode_worker_info,
)
from otel_queue.asynq.queue_info import ServerStatus
from otel_queue.errors import ReadError
from otel_queue.redis_client import Fields, Reading, Reply, Rounds, names, request, scored, text

_T = TypeVar("_T")

# Scores are written by the servers' clocks; members this much past their end are asked for and then filtered
# by Redis time, so that a first question before Redis time is known misses nothing.
_MARGIN_SECONDS: Final = 60


@dataclass(slots=True)
class Alive(Generic[_T]):
    """What a listing of live servers or schedulers has found, all of it or nothing: `error` if a part was not readable.

    A server left out would look like one that is gone.
    """

    items: list[_T] = field(default_factory=list)
    error: ReadError | None = None


def start_alive(
    rounds: Rounds,
    listing: bytes,
    now: float,
    failures: Counter[str],
    read_member: Callable[[bytes], Reading[list[_T]]],
) -> Alive[_T]:
    """Starts reading the live members of `listing`, then each member on its own: two rounds in all."""
    alive: Alive[_T] = Alive()

    def fail(key: bytes, error: ReadError) -> None:
        failures[error.reason] += 1
        alive.error = ReadError(error.reason, f"{keys.display(key)} cannot be read: {error}")

    def listed(members: list[bytes]) -> None:
        for member in members:
            rounds.start(read_member(member), alive.items.extend, partial(fail, member))

    rounds.start(_read_alive(listing, now, rounds), listed, partial(fail, listing))
    return alive


def _read_alive(listing: bytes, now: float, rounds: Rounds) -> Reading[list[bytes]]:
    command = ("ZRANGEBYSCORE", listing, int(now) - _MARGIN_SECONDS, "+inf", "WITHSCORES")
    replies = yield request(listing, [command])
    alive_from = int(rounds.time or now)
    return [member for member, score in scored(replies[0]) if score >= alive_from]


def read_server(key: bytes, with_workers: bool, failures: Counter[str]) -> Reading[list[ServerStatus]]:
    """One server by the key of its heartbeat; empty when it has just expired.

    Raises ReadError when it cannot be read. Its workers are None when they alone, or one of them, cannot be, and are
    not asked for without `with_workers`.
    """
    commands: list[tuple[bytes, ...]] = [(b"GET", key)]
    if with_workers:
        commands.append((b"HVALS", keys.workers_of(key)))
    replies = yield request(key, commands)
    value = text(replies[0])
    if value is None:
        return []
    info = decode_server_info(value)
    workers = Fields(failures)(_workers, replies[1]) if with_workers else None
    if workers is None:
        return [ServerStatus(info, None)]
    return [ServerStatus(info, tuple(worker for worker in workers if worker.server_id == info.server_id))]


def _workers(reply: Reply) -> list[WorkerInfo]:
    return [decode_worker_info(item) for item in names(reply)]


def read_scheduler(key: bytes) -> Reading[list[SchedulerEntry]]:
    """The entries of one scheduler, in the order in which they were registered; raises ReadError."""
    replies = yield request(key, [("LRANGE", key, 0, -1)])
    return [decode_scheduler_entry(item) for item in reversed(names(replies[0]))]
