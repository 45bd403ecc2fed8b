"""The inspector: all that can be known of an Asynq deployment from Redis, by reads alone.

No Lua and no writes, so a read-only user is enough, and a replica or a Lua-restricted server will do.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from otel_queue.asynq import keys
from otel_queue.asynq.memory import read_memory_usage
from otel_queue.asynq.message import SchedulerEntry
from otel_queue.asynq.queue_info import DailyStats, QueueInfo, ServerStatus, Snapshot, TaskInfo
from otel_queue.asynq.queues import QueuePlan, QueueReading, read_queue
from otel_queue.asynq.servers import Alive, read_scheduler, read_server, start_alive
from otel_queue.asynq.tasks import LISTED_STATES, read_task_types, read_tasks
from otel_queue.errors import QueueNotFoundError, ReadError
from otel_queue.redis_client import Fields, Reading, RedisLink, Rounds, counted, integer, names, request

_T = TypeVar("_T")

_NODE_GONE: Final = frozenset({"connection", "timeout"})
# Queues whose tasks are sampled in one exchange, so that no single one grows large.
_CHUNK: Final = 50


class Inspector:
    """Reads queues, servers, schedulers and tasks. Safe for threads: one read at a time.

    Every method takes at most `timeout_seconds` for each of its exchanges and raises ReadError when Redis
    cannot be read at all. Queues with more than `groups_cap` groups report neither aggregating tasks nor a size.
    `with_workers` includes busy workers in snapshots; that transfers the payloads of the tasks they work on.
    """

    def __init__(
        self,
        link: RedisLink,
        *,
        timeout_seconds: float = 3.0,
        groups_cap: int = 10_000,
        with_workers: bool = True,
    ) -> None:
        self._link = link
        self._timeout_seconds = timeout_seconds
        self._groups_cap = groups_cap
        self._with_workers = with_workers
        self._plans: dict[bytes, QueuePlan] = {}
        self._clock_offset = 0.0  # Redis time minus ours, as last seen
        self._lock = threading.Lock()

    def snapshot(self) -> Snapshot:
        """All queues, servers and scheduler entries.

        Two round trips in steady state; a queue seen for the first time costs one more. What cannot be read is
        None in the result and counted in its `failures`.
        """
        with self._lock:
            return self._snapshot()

    def _snapshot(self) -> Snapshot:
        started = time.monotonic()
        rounds = self._rounds()
        failures: Counter[str] = Counter()
        now = self._now()
        readings: dict[bytes, QueueReading] = {}
        day = _day(now)

        def start_queue(name: bytes) -> None:
            plan = self._plans.setdefault(name, QueuePlan(name))
            reading = read_queue(plan, day, rounds, failures, self._groups_cap)
            rounds.start(reading, lambda found: readings.__setitem__(name, found))

        def listed(found: list[bytes]) -> None:
            for name in set(self._plans) - set(found):
                del self._plans[name]
            for name in found:
                if name not in self._plans:
                    start_queue(name)

        def unlisted(error: ReadError) -> None:
            # In a cluster the list has a node of its own; while that one is gone the last list still holds.
            if not self._plans or error.reason not in _NODE_GONE:
                raise error
            failures[error.reason] += 1

        rounds.start(_read_queue_names(), listed, unlisted)
        for name in list(self._plans):
            start_queue(name)
        servers: Alive[ServerStatus] = start_alive(
            rounds, keys.SERVERS, now, failures, lambda key: read_server(key, self._with_workers, failures)
        )
        entries: Alive[SchedulerEntry] = start_alive(rounds, keys.SCHEDULERS, now, failures, read_scheduler)
        rounds.finish()
        now = self._settle(rounds)
        queues = [readings[name].info(now, failures) for name in readings if name in self._plans]
        return Snapshot(
            time=now,
            queues=tuple(sorted(queues, key=lambda info: info.queue)),
            servers=_sorted_servers(servers.items) if servers.error is None else None,
            scheduler_entries=tuple(entries.items) if entries.error is None else None,
            failures=dict(failures),
            duration_seconds=time.monotonic() - started,
            round_trips=rounds.round_trips,
        )

    def queues(self) -> list[str]:
        """The names in asynq:queues, sorted."""
        return sorted(keys.display(name) for name in self._queue_names())

    def queue_info(self, queue: keys.Name) -> QueueInfo:
        """One queue with its memory usage; raises QueueNotFoundError."""
        name = self._existing(queue)
        failures: Counter[str] = Counter()
        with self._lock:
            rounds = self._rounds()
            plan = QueuePlan(name)
            [found] = rounds.run([read_queue(plan, _day(self._now()), rounds, failures, self._groups_cap)])
            now = self._settle(rounds)
        return found.info(now, failures, self.memory_usage([queue])[keys.display(name)])

    def history(self, queue: keys.Name, days: int) -> list[DailyStats]:
        """Tasks processed and failed per UTC day, today first; a day without a counter is 0.

        asynq keeps 90 days. Raises QueueNotFoundError, and ValueError unless `days` is 1 to 3650.
        """
        if not 1 <= days <= 3650:
            raise ValueError(f"days must be 1 to 3650, not {days}")
        name = self._existing(queue)
        today = datetime.fromtimestamp(self._now(), tz=UTC)
        wanted = [(today - timedelta(days=back)).strftime("%Y-%m-%d") for back in range(days)]
        return self._run(lambda _: _read_history(name, wanted))

    def tasks(self, queue: keys.Name, state: str, page_size: int = 30, page: int = 1) -> list[TaskInfo]:
        """One page of tasks, oldest or next to run first; empty past the end.

        `state` is pending, active, scheduled, retry, archived or completed, else ValueError. A task whose hash
        or message cannot be read has type None. Raises QueueNotFoundError.
        """
        if state not in LISTED_STATES:
            raise ValueError(f"state must be one of {', '.join(LISTED_STATES)}, not {state!r}")
        if page_size < 1 or page < 1:
            raise ValueError(f"page_size and page must be at least 1, not {page_size} and {page}")
        name = self._existing(queue)
        start = page_size * (page - 1)
        return self._run(lambda rounds: read_tasks(name, state, start, start + page_size, rounds, Counter()))

    def groups(self, queue: keys.Name) -> dict[str, int]:
        """The queue's groups with their sizes, sorted by name; empty for a queue that does not exist."""
        return dict(sorted(self._run(lambda _: _read_groups(keys.as_bytes(queue))).items()))

    def servers(self) -> list[ServerStatus]:
        """The live servers with their busy workers, sorted by host and process ID.

        Raises ReadError if one cannot be read: the others would look like all there are.
        """
        return list(_sorted_servers(self._alive(keys.SERVERS, lambda key: read_server(key, True, Counter()))))

    def scheduler_entries(self) -> list[SchedulerEntry]:
        """The entries of all live schedulers, in the order in which each registered them.

        Raises ReadError if one cannot be read, as `servers` does.
        """
        return self._alive(keys.SCHEDULERS, read_scheduler)

    def memory_usage(
        self, queues: Sequence[keys.Name] | None = None, *, failures: Counter[str] | None = None
    ) -> dict[str, int | None]:
        """Estimated bytes per queue (all queues by default), None where MEMORY USAGE was refused or failed.

        `failures` is given the reasons.
        """
        count = _counting(failures)
        names_wanted = self._queue_names() if queues is None else [keys.as_bytes(name) for name in queues]
        found: dict[str, int | None] = {keys.display(name): None for name in names_wanted}
        for chunk in _chunks(names_wanted):
            with self._lock:
                rounds = self._rounds()
                for name in chunk:
                    label = keys.display(name)
                    rounds.start(read_memory_usage(name, self._groups_cap), _setter(found, label), count)
                rounds.finish()
        return found

    def sample_task_types(
        self,
        queues: Sequence[keys.Name] | None = None,
        size: int = 100,
        *,
        failures: Counter[str] | None = None,
    ) -> dict[str, dict[str, Mapping[str, int]]]:
        """Queue -> state -> task type -> count among the first `size` tasks of that state.

        Reads the messages of up to `size` tasks per queue and state, payloads included. Broken tasks are left
        out; `failures` is given the reasons. Raises ValueError if `size` is less than 1.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        count = _counting(failures)
        broken: Counter[str] = Counter() if failures is None else failures
        names_wanted = self._queue_names() if queues is None else [keys.as_bytes(name) for name in queues]
        found: dict[str, dict[str, Mapping[str, int]]] = {}
        for chunk in _chunks(names_wanted):
            with self._lock:
                rounds = self._rounds()
                for name in chunk:
                    by_state = found.setdefault(keys.display(name), {})
                    for state in LISTED_STATES:
                        rounds.start(
                            read_task_types(name, state, size, broken),
                            _setter(by_state, state),
                            count,
                        )
                rounds.finish()
        return found

    def ping(self) -> float:
        """Reads the list of queues and returns Redis server time (Unix seconds; ours if TIME is refused)."""
        with self._lock:
            rounds = self._rounds()
            rounds.run([_read_queue_names()])
            return self._settle(rounds)

    def _rounds(self) -> Rounds:
        return Rounds(self._link, time.monotonic() + self._timeout_seconds, clock_key=keys.QUEUES)

    def _now(self) -> float:
        return time.time() + self._clock_offset

    def _settle(self, rounds: Rounds) -> float:
        """Redis time at the end of the rounds; remembers how far our clock is off."""
        if rounds.time is not None:
            self._clock_offset = rounds.time - time.time()
        return self._now()

    def _run(self, reading: Callable[[Rounds], Reading[_T]]) -> _T:
        with self._lock:
            rounds = self._rounds()
            [found] = rounds.run([reading(rounds)])
        return found

    def _alive(self, listing: bytes, read_member: Callable[[bytes], Reading[list[_T]]]) -> list[_T]:
        with self._lock:
            rounds = self._rounds()
            alive = start_alive(rounds, listing, self._now(), Counter(), read_member)
            rounds.finish()
        if alive.error is not None:
            raise alive.error
        return alive.items

    def _queue_names(self) -> list[bytes]:
        return self._run(lambda _: _read_queue_names())

    def _existing(self, queue: keys.Name) -> bytes:
        name = keys.as_bytes(queue)
        if not self._run(lambda _: _read_membership(name)):
            raise QueueNotFoundError(keys.display(name))
        return name


def _read_queue_names() -> Reading[list[bytes]]:
    replies = yield request(keys.QUEUES, [("SMEMBERS", keys.QUEUES)])
    return names(replies[0])


def _read_membership(queue: bytes) -> Reading[bool]:
    replies = yield request(keys.QUEUES, [("SISMEMBER", keys.QUEUES, queue)])
    return bool(integer(replies[0]))


def _read_groups(queue: bytes) -> Reading[dict[str, int]]:
    key = keys.queue_key(queue, "groups")
    replies = yield request(key, [("SMEMBERS", key)])
    members = names(replies[0])
    if not members:
        return {}
    sizes = yield request(key, [("ZCARD", keys.group(queue, member)) for member in members])
    return {keys.display(member): integer(size) for member, size in zip(members, sizes, strict=True)}


def _read_history(queue: bytes, days: Sequence[str]) -> Reading[list[DailyStats]]:
    fields = Fields(Counter())
    wanted = [key for day in days for key in (keys.processed(queue, day), keys.failed(queue, day))]
    replies = yield request(wanted[0], [("GET", key) for key in wanted])
    values = [fields(counted, reply) for reply in replies]
    name = keys.display(queue)
    return [
        DailyStats(name, day, processed, failed)
        for day, processed, failed in zip(days, values[::2], values[1::2], strict=True)
    ]


def _counting(failures: Counter[str] | None) -> Callable[[ReadError], None]:
    def count(error: ReadError) -> None:
        if failures is not None:
            failures[error.reason] += 1

    return count


def _chunks(queues: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    return (queues[start : start + _CHUNK] for start in range(0, len(queues), _CHUNK))


def _setter(found: MutableMapping[str, Any], label: str) -> Callable[[Any], None]:
    return lambda value: found.__setitem__(label, value)


def _sorted_servers(servers: Iterable[ServerStatus]) -> tuple[ServerStatus, ...]:
    return tuple(sorted(servers, key=lambda item: (item.info.host, item.info.pid, item.info.server_id)))


def _day(now: float) -> str:
    return datetime.fromtimestamp(now, tz=UTC).strftime("%Y-%m-%d")
