"""Reading one queue: its plan (what to ask, packed once) and its reading (what was found)."""

import time
from collections import Counter
from itertools import islice
from typing import Final

from otel_queue.asynq import keys
from otel_queue.asynq.queue_info import QueueInfo
from otel_queue.errors import ReadError
from otel_queue.redis_client import (
    ErrorReply,
    Fields,
    Reading,
    Reply,
    Request,
    Rounds,
    array,
    counted,
    names,
    pack,
    request,
    text,
)

# How far from the next task to run a pending_since is looked for when the next one has none: a server that
# shuts down puts its whole concurrency back at that end, without pending_since.
LOOK_FAR: Final = 128

NEVER: Final = float("inf")

_COUNTERS: Final = ("processed", "failed", "processed_total", "failed_total")
_SORTED_SETS: Final = ("scheduled", "retry", "archived", "completed")
_MULTI: Final = pack("MULTI")
_EXEC: Final = pack("EXEC")


class QueuePlan:
    """What is asked of one queue in the first round, packed once and kept from snapshot to snapshot.

    `look` is how many pending tasks are looked at for a pending_since; `list_groups` whether the members of
    the groups set are asked for at once. Both follow what the last snapshot found.
    """

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.look = 1
        self.list_groups = False
        self.pending = keys.queue_key(name, "pending")
        self.lease = keys.queue_key(name, "lease")
        self.groups = keys.queue_key(name, "groups")
        self._packed: dict[tuple[str, int, bool], Request] = {}

    def first_request(self, day: str) -> Request:
        """The queue's commands in one transaction, so that no task is counted twice or missed."""
        variant = (day, self.look, self.list_groups)
        found = self._packed.get(variant)
        if found is None:
            if len(self._packed) > 8:  # days pass
                self._packed.clear()
            plain = request(self.pending, self.commands(day))
            found = Request(plain.key, _MULTI + plain.packed + _EXEC, plain.replies + 2)
            self._packed[variant] = found
        return found

    def commands(self, day: str) -> list[tuple[bytes | str | int, ...]]:
        """The commands of the first round, in the order in which `_take_first` takes the replies."""
        scheduled, retry, archived, completed = (keys.queue_key(self.name, state) for state in _SORTED_SETS)
        return [
            ("LLEN", self.pending),
            ("LLEN", keys.queue_key(self.name, "active")),
            ("ZCARD", scheduled),
            ("ZCARD", retry),
            ("ZCARD", archived),
            ("ZCARD", completed),
            ("ZCARD", self.lease),
            ("ZRANGE", self.lease, 0, 0, "WITHSCORES"),
            ("ZRANGE", scheduled, 0, 0, "WITHSCORES"),
            ("ZRANGE", retry, 0, 0, "WITHSCORES"),
            ("MGET", *self.counter_keys(day)),
            ("EXISTS", keys.queue_key(self.name, "paused")),
            ("LRANGE", self.pending, -self.look, -1),
            ("SMEMBERS" if self.list_groups else "SCARD", self.groups),
        ]

    def counter_keys(self, day: str) -> tuple[bytes, bytes, bytes, bytes]:
        """Processed and failed of the day, processed and failed ever."""
        return (
            keys.processed(self.name, day),
            keys.failed(self.name, day),
            keys.processed(self.name),
            keys.failed(self.name),
        )


class QueueReading:
    """What was found; None is unknown. Ages are still points in time: `info` turns them into a QueueInfo.

    Points in time are Unix seconds, `NEVER` where there is nothing to wait for.
    """

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
    paused: bool | None = None
    pending_since: float | None = None
    next_lease: float | None = None
    next_scheduled: float | None = None
    next_retry: float | None = None
    # Counters without a value in the first round; the second one tells whether their keys exist.
    absent: tuple[str, ...] = ()

    def __init__(self, name: bytes) -> None:
        self.name = name

    def info(self, now: float, failures: Counter[str], memory_usage: int | None = None) -> QueueInfo:
        """The queue at `now` (Unix seconds). A negative age becomes 0 and is counted."""
        if self.pending_since is not None and now < self.pending_since < NEVER:
            failures["negative_age"] += 1
        states = (
            self.pending, self.active, self.scheduled, self.retry, self.archived, self.completed, self.aggregating,
        )  # fmt: skip
        return QueueInfo(
            queue=keys.display(self.name),
            memory_usage=memory_usage,
            latency=_age(self.pending_since, now),
            size=None if None in states else sum(states),  # type: ignore[arg-type] # no None in it
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
        if found.groups and found.groups > groups_cap:
            failures["groups_capped"] += 1
            groups = None
        elif groups is None and found.groups:
            groups = yield from _list_groups(plan, fields)
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
    if isinstance(replies[-1], list) and len(replies[-1]) == len(replies) - 2:
        return replies[-1]
    # One command was refused, and took the transaction with it: ask one by one, and lose only that one.
    return (yield request(plan.pending, plan.commands(day)))


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
    found.pending = fields.integer(pending)
    found.active = fields.integer(active)
    found.scheduled = fields.integer(scheduled)
    found.retry = fields.integer(retry)
    found.archived = fields.integer(archived)
    found.completed = fields.integer(completed)
    found.leases = fields.integer(leases)
    found.next_lease = fields.first_score(next_lease, NEVER)
    found.next_scheduled = fields.first_score(next_scheduled, NEVER)
    found.next_retry = fields.first_score(next_retry, NEVER)
    for name, value in zip(_COUNTERS, fields(_four_texts, counters) or (), strict=False):
        if value is None:
            found.absent += (name,)
        else:
            setattr(found, name, fields.counter(value))
    exists = fields.integer(paused)
    found.paused = None if exists is None else bool(exists)
    pending_ids = fields(names, ids) or []
    if not plan.list_groups:
        found.groups = fields.integer(groups)
        found.aggregating = 0 if found.groups == 0 else None
        return pending_ids, None
    listed = fields(names, groups)
    found.groups = None if listed is None else len(listed)
    found.aggregating = 0 if listed == [] else None
    return pending_ids, listed


def _list_groups(plan: QueuePlan, fields: Fields) -> Reading[list[bytes] | None]:
    replies = yield request(plan.groups, [("SMEMBERS", plan.groups)])
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
    commands = _pending_since_commands(plan, ids)
    if groups:
        commands += [("ZCARD", keys.group(plan.name, group)) for group in groups]
    if found.absent:
        # MGET says nil for a missing key and for one of another type alike; GET tells them apart.
        by_name = dict(zip(_COUNTERS, plan.counter_keys(day), strict=True))
        commands += [("GET", by_name[name]) for name in found.absent]
    now = rounds.time or time.time()
    lease_due = found.next_lease is not None and found.next_lease <= now
    if lease_due:
        commands.append(("ZCOUNT", plan.lease, "-inf", int(now)))
    elif found.next_lease is not None:
        found.lease_expired = 0
    answer: list[Reply] = (yield request(plan.lease, commands)) if commands else []
    replies = iter(answer)
    position = _take_pending_since(found, list(islice(replies, len(ids))), fields)
    if groups:
        sizes = [fields.integer(reply) for reply in islice(replies, len(groups))]
        found.aggregating = None if None in sizes else sum(size for size in sizes if size)
    for name in found.absent:
        setattr(found, name, fields(counted, next(replies)))
    if lease_due:
        found.lease_expired = fields.integer(next(replies))
    yield from _look_further(found, plan, position, fields)


def _pending_since_commands(plan: QueuePlan, ids: list[bytes]) -> list[tuple[bytes | str | int, ...]]:
    return [("HGET", keys.task(plan.name, task_id), "pending_since") for task_id in reversed(ids)]


def _take_pending_since(found: QueueReading, replies: list[Reply], fields: Fields) -> int | None:
    """Takes the first pending_since that can be read, and returns its distance from the next task to run."""
    for index, reply in enumerate(replies):
        if isinstance(reply, bytes) and reply.isdigit() and len(reply) < 20:
            found.pending_since = int(reply) / 1e9
            return index
        if isinstance(reply, ErrorReply):
            fields(text, reply)
    return None


def _look_further(found: QueueReading, plan: QueuePlan, position: int | None, fields: Fields) -> Reading[None]:
    """Looks past a head without a pending_since, and remembers how far the next snapshot should look at once.

    The head may have been requeued or run by hand (asynq writes no pending_since then), or a worker may have
    taken it since the first round.
    """
    if not found.pending:
        found.pending_since = None if found.pending is None else NEVER
        plan.look = max(plan.look // 2, 1)
        return
    if position is None and plan.look < LOOK_FAR:
        listed = yield request(plan.pending, [("LRANGE", plan.pending, -LOOK_FAR, -1)])
        ids = fields(names, listed[0])
        if ids:
            replies = yield request(plan.pending, _pending_since_commands(plan, ids))
            position = _take_pending_since(found, replies, fields)
        elif ids == []:
            found.pending_since = NEVER  # the last ones have just been taken
            return
    if position is None:
        fields.failures["no_pending_since"] += 1
        plan.look = LOOK_FAR
    else:
        plan.look = min(LOOK_FAR, max(plan.look // 2, 1 << position.bit_length()))


def _four_texts(reply: Reply) -> list[bytes | None]:
    values = array(reply)
    if len(values) != len(_COUNTERS):
        raise ReadError("protocol", f"{len(values)} values for {len(_COUNTERS)} counters")
    return [text(value) for value in values]
