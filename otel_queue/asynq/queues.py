"""Reading one queue: its plan (what to ask, packed once) and its reading (what was found)."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from otel_queue.asynq import keys
from otel_queue.asynq.queue_info import STATES, QueueInfo
from otel_queue.asynq.replies import Fields, array, counter, integer, lowest_score, names, text
from otel_queue.asynq.rounds import Reading, Rounds
from otel_queue.errors import ReadError
from otel_queue.redis_client import ErrorReply, Reply, Request, pack, request

# How far from the next task to run a pending_since is looked for when the next one has none: a server that
# shuts down puts its whole concurrency back at that end, without pending_since.
LOOK_FAR: Final = 128

NEVER: Final = float("inf")

_COUNTERS: Final = ("processed", "failed", "processed_total", "failed_total")
_COUNTED_STATES: Final = ("scheduled", "retry", "archived", "completed")
_MULTI: Final = pack("MULTI")
_EXEC: Final = pack("EXEC")


@dataclass(slots=True)
class QueuePlan:
    """What is asked of one queue in the first round, kept from snapshot to snapshot.

    `look` is how many pending tasks are looked at for a pending_since; `list_groups` whether the members of
    the groups set are asked for at once. Both follow what the last snapshot found.
    """

    name: bytes
    look: int = 1
    list_groups: bool = False
    _packed: dict[tuple[str, int, bool], Request] = field(default_factory=dict)

    def first_request(self, day: str) -> Request:
        """The queue's commands in one transaction, so that no task is counted twice or missed."""
        variant = (day, self.look, self.list_groups)
        if variant not in self._packed:
            if len(self._packed) > 8:  # days pass
                self._packed.clear()
            plain = request(keys.queue_key(self.name, "pending"), self.commands(day))
            self._packed[variant] = Request(plain.key, _MULTI + plain.packed + _EXEC, plain.replies + 2)
        return self._packed[variant]

    def commands(self, day: str) -> list[tuple[bytes | str | int, ...]]:
        """The commands of the first round, in the order in which `_read_first` takes the replies."""
        key = {suffix: keys.queue_key(self.name, suffix) for suffix in (*_COUNTED_STATES, "lease", "groups")}
        pending = keys.queue_key(self.name, "pending")
        return [
            ("LLEN", pending),
            ("LLEN", keys.queue_key(self.name, "active")),
            *(("ZCARD", key[state]) for state in _COUNTED_STATES),
            ("ZCARD", key["lease"]),
            ("ZRANGE", key["lease"], 0, 0, "WITHSCORES"),
            ("ZRANGE", key["scheduled"], 0, 0, "WITHSCORES"),
            ("ZRANGE", key["retry"], 0, 0, "WITHSCORES"),
            ("MGET", *self.counter_keys(day)),
            ("EXISTS", keys.queue_key(self.name, "paused")),
            ("LRANGE", pending, -self.look, -1),
            ("SMEMBERS" if self.list_groups else "SCARD", key["groups"]),
        ]

    def counter_keys(self, day: str) -> tuple[bytes, bytes, bytes, bytes]:
        """Processed and failed of the day, processed and failed ever."""
        return (
            keys.processed(self.name, day),
            keys.failed(self.name, day),
            keys.processed(self.name),
            keys.failed(self.name),
        )


@dataclass(slots=True)
class QueueReading:
    """What was found; None is unknown. Ages are still points in time: `info` turns them into a QueueInfo.

    Points in time are Unix seconds, `NEVER` where there is nothing to wait for.
    """

    name: bytes
    pending: int | None = None
    active: int | None = None
    scheduled: int | None = None
    retry: int | None = None
    archived: int | None = None
    completed: int | None = None
    aggregating: int | None = None
    groups: int | None = None
    leases: int | None = None
    lease_expired: int | None = None
    processed: int | None = None
    failed: int | None = None
    processed_total: int | None = None
    failed_total: int | None = None
    absent: list[str] = field(default_factory=list)
    """Counters without a value in the first round; the second one tells whether their keys exist."""
    paused: bool | None = None
    pending_since: float | None = None
    next_lease: float | None = None
    next_scheduled: float | None = None
    next_retry: float | None = None

    def info(self, now: float, failures: Counter[str], memory_usage: int | None = None) -> QueueInfo:
        """The queue at `now` (Unix seconds). A negative age becomes 0 and is counted."""
        if self.pending_since is not None and now < self.pending_since < NEVER:
            failures["negative_age"] += 1
        states = [getattr(self, state) for state in STATES]
        return QueueInfo(
            queue=keys.display(self.name),
            memory_usage=memory_usage,
            latency=_age(self.pending_since, now),
            size=None if None in states else sum(states),
            groups=self.groups,
            pending=self.pending,
            active=self.active,
            scheduled=self.scheduled,
            retry=self.retry,
            archived=self.archived,
            completed=self.completed,
            aggregating=self.aggregating,
            processed=self.processed,
            failed=self.failed,
            processed_total=self.processed_total,
            failed_total=self.failed_total,
            paused=self.paused,
            timestamp=now,
            active_without_lease=_excess(self.active, self.leases),
            lease_expired=self.lease_expired,
            overdue_scheduled=_age(self.next_scheduled, now),
            overdue_retry=_age(self.next_retry, now),
        )


def _excess(active: int | None, leases: int | None) -> int | None:
    return None if active is None or leases is None else max(active - leases, 0)


def _age(since: float | None, now: float) -> float | None:
    return None if since is None else max(now - since, 0.0)


def read_queue(
    plan: QueuePlan, day: str, rounds: Rounds, failures: Counter[str], groups_cap: int
) -> Reading[QueueReading]:
    """Reads the queue in two rounds; in more only for groups or a pending_since that were not foreseen.

    Never raises: what cannot be read is None in the result and counted in `failures`.
    """
    found = QueueReading(plan.name)
    fields = Fields(failures)
    try:
        results = yield from _transaction(plan, day)
        ids, groups = _take_first(found, results, plan, fields)
        if groups is None and found.groups:
            groups = yield from _list_groups(found, plan, fields, groups_cap)
        plan.list_groups = bool(groups)
        yield from _read_second(found, plan, day, rounds, ids, groups, fields)
    except ReadError as error:
        failures[error.reason] += 1
    return found


def _transaction(plan: QueuePlan, day: str) -> Reading[list[Reply]]:
    """The results of the first round's commands; an ErrorReply stands for a command that was refused."""
    replies = yield plan.first_request(day)
    if isinstance(replies[0], ErrorReply):
        return replies[1:-1]  # MULTI itself was refused, so each command was answered on its own
    if isinstance(replies[-1], list):
        return replies[-1]
    # One command was refused, and took the transaction with it: ask one by one, and lose only that one.
    return (yield request(keys.queue_key(plan.name, "pending"), plan.commands(day)))


def _take_first(
    found: QueueReading, results: list[Reply], plan: QueuePlan, fields: Fields
) -> tuple[list[bytes], list[bytes] | None]:
    """Fills in what the first round tells; returns the pending IDs seen (next to run last) and the groups.

    The groups are None where only their number was asked for, or where they could not be read.
    """
    (
        pending, active, scheduled, retry, archived, completed, leases,
        next_lease, next_scheduled, next_retry, counters, paused, ids, groups,
    ) = results  # fmt: skip
    found.pending = fields(integer, pending)
    found.active = fields(integer, active)
    found.scheduled = fields(integer, scheduled)
    found.retry = fields(integer, retry)
    found.archived = fields(integer, archived)
    found.completed = fields(integer, completed)
    found.leases = fields(integer, leases)
    found.next_lease = fields(_first_score, next_lease)
    found.next_scheduled = fields(_first_score, next_scheduled)
    found.next_retry = fields(_first_score, next_retry)
    for name, value in zip(_COUNTERS, fields(_four, counters) or [], strict=False):
        if value is None:
            found.absent.append(name)
        else:
            setattr(found, name, fields(counter, value))
    found.paused = fields(_flag, paused)
    pending_ids = fields(names, ids) or []
    if not plan.list_groups:
        found.groups = fields(integer, groups)
        found.aggregating = 0 if found.groups == 0 else None
        return pending_ids, None
    listed = fields(names, groups)
    found.groups = None if listed is None else len(listed)
    found.aggregating = 0 if listed == [] else None
    return pending_ids, listed


def _list_groups(found: QueueReading, plan: QueuePlan, fields: Fields, cap: int) -> Reading[list[bytes] | None]:
    if found.groups is not None and found.groups > cap:
        fields.failures["groups_capped"] += 1
        return None
    key = keys.queue_key(plan.name, "groups")
    replies = yield request(key, [("SMEMBERS", key)])
    return fields(names, replies[0])


def _read_second(
    found: QueueReading,
    plan: QueuePlan,
    day: str,
    rounds: Rounds,
    ids: list[bytes],
    groups: list[bytes] | None,
    fields: Fields,
) -> Reading[None]:
    """What depends on the first round: pending_since, the groups' sizes, expired leases, absent counters."""
    absent = [
        (name, key) for name, key in zip(_COUNTERS, plan.counter_keys(day), strict=True) if name in found.absent
    ]
    now = rounds.time or time.time()
    lease_due = found.next_lease is not None and found.next_lease <= now
    if found.next_lease is not None and not lease_due:
        found.lease_expired = 0
    lease = keys.queue_key(plan.name, "lease")
    commands: list[tuple[bytes | str | int, ...]] = [
        *_pending_since_commands(plan, ids),
        *(("ZCARD", keys.group(plan.name, group)) for group in groups or ()),
        # MGET says nil for a missing key and for one of another type alike; GET tells them apart.
        *(("GET", key) for _, key in absent),
        *([("ZCOUNT", lease, "-inf", int(now))] if lease_due else []),
    ]
    replies = iter((yield request(lease, commands)) if commands else [])
    position = _take_pending_since(found, islice(replies, len(ids)), fields)
    if groups:
        sizes = [fields(integer, reply) for reply in islice(replies, len(groups))]
        found.aggregating = None if None in sizes else sum(size for size in sizes if size)
    for name, _ in absent:
        setattr(found, name, fields(_present_counter, next(replies)))
    if lease_due:
        found.lease_expired = fields(integer, next(replies))
    yield from _look_further(found, plan, position, fields)


def _pending_since_commands(plan: QueuePlan, ids: list[bytes]) -> list[tuple[bytes | str | int, ...]]:
    return [("HGET", keys.task(plan.name, task_id), "pending_since") for task_id in reversed(ids)]


def _take_pending_since(found: QueueReading, replies: Iterable[Reply], fields: Fields) -> int | None:
    """Takes the first pending_since that can be read, and returns its distance from the next task to run."""
    position = None
    for index, reply in enumerate(replies):
        if position is not None:
            continue  # an iterator is shared with the replies that follow: read ours to the end
        if isinstance(reply, ErrorReply):
            fields(text, reply)
        elif isinstance(reply, bytes) and reply.isdigit() and len(reply) < 20:
            found.pending_since = int(reply) / 1e9
            position = index
    return position


def _look_further(found: QueueReading, plan: QueuePlan, position: int | None, fields: Fields) -> Reading[None]:
    """Looks past a head without a pending_since, and remembers how far the next snapshot should look at once.

    The head may have been requeued or run by hand (asynq writes no pending_since then), or a worker may have
    taken it since the first round.
    """
    if not found.pending:
        found.pending_since = None if found.pending is None else NEVER
        plan.look = max(plan.look // 2, 1)
        return
    if position is None:
        pending = keys.queue_key(plan.name, "pending")
        listed = yield request(pending, [("LRANGE", pending, -LOOK_FAR, -1)])
        ids = fields(names, listed[0])
        if ids:
            replies = yield request(pending, _pending_since_commands(plan, ids))
            position = _take_pending_since(found, replies, fields)
        elif ids == []:
            found.pending_since = NEVER  # the last ones have just been taken
            return
    if position is None:
        fields.failures["no_pending_since"] += 1
        plan.look = LOOK_FAR
    else:
        plan.look = min(LOOK_FAR, max(plan.look // 2, 1 << position.bit_length()))


def _first_score(reply: Reply) -> float:
    score = lowest_score(reply)
    return NEVER if score is None else score


def _flag(reply: Reply) -> bool:
    return bool(integer(reply))


def _four(reply: Reply) -> list[Reply]:
    values = array(reply)
    if len(values) != len(_COUNTERS):
        raise ReadError("protocol", f"{len(values)} values for {len(_COUNTERS)} counters")
    return values


def _present_counter(reply: Reply) -> int:
    return counter(reply) or 0
