"""A writer of asynq's task state in Redis, for one process.

Each transition is one MULTI instead of asynq's Lua script, so it also runs where Lua does not. What a
transition depends on is read just before it, which is safe as long as nobody else moves the tasks of these
queues: this is no substitute for asynq beside real workers. Nor are totals reset near 2^63.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import md5
from typing import Any, Final

from redis import Redis
from redis.cluster import RedisCluster

from otel_queue.asynq import keys
from otel_queue.asynq.message import TaskMessage, decode_task_message, encode_task_message

Client = Redis | RedisCluster
Clock = Callable[[], float]

LEASE_SECONDS: Final = 30
LEASE_EXPIRED_ERROR: Final = "asynq: task lease expired"
_DEFAULT_TIMEOUT_SECONDS: Final = 1800
_KEPT_SECONDS: Final = 90 * 24 * 3600  # daily counters, and archived tasks
_MAX_ARCHIVED: Final = 9_999
_BATCH: Final = 100


class Broker:
    """Moves tasks between asynq's states; every time written comes from `clock` (Unix seconds)."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self.client: Any = client
        self.clock = clock
        self._registered: set[str] = set()

    def transaction(self) -> Any:
        """A MULTI of commands whose keys share one slot."""
        return self.client.pipeline(transaction=True)

    def batch(self) -> Any:
        """Commands sent together, without atomicity; keys may lie in any slot."""
        return self.client.pipeline(transaction=False)

    # Producers

    def enqueue(self, task: TaskMessage, *, process_at: float = 0.0, unique_seconds: int = 0) -> bool:
        """Whether the task was accepted: False when its ID is taken or its unique lock is held.

        A later `process_at` schedules it; otherwise a task with a group key joins its group, any other is
        pending.
        As in asynq, a refused ID leaves the lock that was taken for it behind.
        """
        now = self.clock()
        if not task.timeout and not task.deadline:
            task = replace(task, timeout=_DEFAULT_TIMEOUT_SECONDS)
        if unique_seconds:
            task = replace(task, unique_key=_lock(task))
        self._register(task.queue)
        if unique_seconds and not self.client.set(task.unique_key, task.id, nx=True, ex=unique_seconds):
            return False
        hash_key = keys.task(task.queue, task.id)
        if self.client.exists(hash_key):
            return False
        fields: dict[str, str | bytes | int] = {"msg": encode_task_message(task)}
        pipe = self.transaction()
        if process_at > now:
            fields["state"] = "scheduled"
            pipe.zadd(keys.queue_key(task.queue, "scheduled"), {task.id: int(process_at)})
        elif task.group_key:
            fields |= {"state": "aggregating", "group": task.group_key}
            pipe.zadd(keys.group(task.queue, task.group_key), {task.id: int(now)})
            pipe.sadd(keys.queue_key(task.queue, "groups"), task.group_key)
        else:
            fields |= {"state": "pending", "pending_since": _nanoseconds(now)}
            pipe.lpush(keys.queue_key(task.queue, "pending"), task.id)
        if unique_seconds and fields["state"] != "aggregating":
            fields["unique_key"] = task.unique_key
        pipe.hset(hash_key, mapping=fields)
        pipe.execute()
        return True

    def forget_registered(self) -> None:
        """List each queue in asynq:queues again when next written to: Redis may have lost everything."""
        self._registered.clear()

    def _register(self, queue: str) -> None:
        if queue not in self._registered:
            self.client.sadd(keys.QUEUES, queue)
            self._registered.add(queue)

    # Servers

    def pending(self, queues: Sequence[str]) -> dict[str, int]:
        """How many tasks each queue has pending; paused queues count too. One round trip."""
        pipe = self.batch()
        for queue in queues:
            pipe.llen(keys.queue_key(queue, "pending"))
        return dict(zip(queues, pipe.execute(), strict=True))

    def dequeue(self, queue: str) -> TaskMessage | None:
        """The next task, now active and leased; None when the queue is paused or empty."""
        pipe = self.transaction()
        pipe.exists(keys.queue_key(queue, "paused"))
        pipe.lindex(keys.queue_key(queue, "pending"), -1)
        paused, task_id = pipe.execute()
        if paused or task_id is None:
            return None
        hash_key = keys.task(queue, task_id)
        pipe = self.transaction()
        pipe.rpop(keys.queue_key(queue, "pending"))  # not RPOPLPUSH: redis-py refuses it in a cluster's pipeline
        pipe.lpush(keys.queue_key(queue, "active"), task_id)
        pipe.hset(hash_key, "state", "active")
        pipe.hdel(hash_key, "pending_since")
        pipe.zadd(keys.queue_key(queue, "lease"), {task_id: int(self.clock()) + LEASE_SECONDS})
        pipe.hget(hash_key, "msg")
        message = pipe.execute()[-1]
        return None if message is None else decode_task_message(message)

    def extend_leases(self, tasks: Iterable[TaskMessage]) -> None:
        """Give each task that still holds a lease a full one."""
        expiry = int(self.clock()) + LEASE_SECONDS
        pipe = self.batch()
        for task in tasks:
            pipe.zadd(keys.queue_key(task.queue, "lease"), {task.id: expiry}, xx=True)
        pipe.execute()

    def finish(self, task: TaskMessage) -> None:
        """The handler succeeded: the task is gone, or completed for as long as its retention says."""
        now = int(self.clock())
        release = bool(task.unique_key) and self.client.get(task.unique_key) == task.id.encode()
        pipe = self._leave_active(task)
        if task.retention:
            pipe.zadd(keys.queue_key(task.queue, "completed"), {task.id: now + task.retention})
            self._store(pipe, replace(task, completed_at=now), "completed")
        else:
            pipe.delete(keys.task(task.queue, task.id))
        if release:
            pipe.delete(task.unique_key)
        self._count(pipe, task.queue, failed=False)

    def retry(self, task: TaskMessage, process_at: float, error: str) -> None:
        """The handler failed and the task will run again at `process_at`; its unique lock is kept."""
        failed = replace(task, retried=task.retried + 1, error_msg=error, last_failed_at=int(self.clock()))
        pipe = self._leave_active(task)
        pipe.zadd(keys.queue_key(task.queue, "retry"), {task.id: int(process_at)})
        self._store(pipe, failed, "retry")
        self._count(pipe, task.queue, failed=True)

    def archive(self, task: TaskMessage, error: str) -> None:
        """The handler failed for good; archived tasks over asynq's limits of age and number are deleted."""
        now = int(self.clock())
        archived = keys.queue_key(task.queue, "archived")
        reads = self.transaction()
        reads.zrangebyscore(archived, "-inf", now - _KEPT_SECONDS)
        reads.zcard(archived)
        expired, count = reads.execute()
        excess = count + 1 - _MAX_ARCHIVED
        surplus = self.client.zrange(archived, 0, excess - 1) if excess > 0 else []
        pipe = self._leave_active(task)
        for task_id in {*expired, *surplus}:
            pipe.zrem(archived, task_id)
            pipe.delete(keys.task(task.queue, task_id))
        pipe.zadd(archived, {task.id: now})
        self._store(pipe, replace(task, error_msg=error, last_failed_at=now), "archived")
        self._count(pipe, task.queue, failed=True)

    def fail(self, task: TaskMessage, process_at: float, error: str) -> None:
        """Retry the task, or archive it when its retries are spent."""
        if task.retried >= task.retry:
            self.archive(task, error)
        else:
            self.retry(task, process_at, error)

    def requeue(self, task: TaskMessage) -> None:
        """A server shuts down: the task is the next to run, counted nowhere and without `pending_since`."""
        pipe = self._leave_active(task)
        pipe.rpush(keys.queue_key(task.queue, "pending"), task.id)
        pipe.hset(keys.task(task.queue, task.id), "state", "pending")
        pipe.execute()

    def forward(self, queues: Sequence[str]) -> None:
        """Move scheduled and retry tasks that are due, 100 a queue and state, to pending or their group."""
        pipe = self.batch()
        sources = [(queue, state) for queue in queues for state in ("scheduled", "retry")]
        for queue, state in sources:
            pipe.zrangebyscore(keys.queue_key(queue, state), "-inf", int(self.clock()), start=0, num=_BATCH)
        for (queue, state), due in zip(sources, pipe.execute(), strict=True):
            if due:
                self._forward(queue, state, due)

    def _forward(self, queue: str, state: str, due: Sequence[bytes]) -> None:
        now = self.clock()
        reads = self.batch()
        for task_id in due:
            reads.hget(keys.task(queue, task_id), "group")
        groups = reads.execute()
        pipe = self.transaction()
        for task_id, group in zip(due, groups, strict=True):
            hash_key = keys.task(queue, task_id)
            pipe.zrem(keys.queue_key(queue, state), task_id)
            if group:
                # As asynq does it: the group is not added to the set of groups.
                pipe.zadd(keys.group(queue, group), {task_id: int(now)})
                pipe.hset(hash_key, "state", "aggregating")
            else:
                pipe.lpush(keys.queue_key(queue, "pending"), task_id)
                pipe.hset(hash_key, mapping={"state": "pending", "pending_since": _nanoseconds(now)})
        pipe.execute()

    def recover(self, queues: Sequence[str], retry_seconds: float) -> int:
        """Fail the active tasks whose lease expired 30 s ago or earlier; how many there were."""
        reads = self.batch()
        for queue in queues:
            cutoff = int(self.clock()) - LEASE_SECONDS
            reads.zrangebyscore(keys.queue_key(queue, "lease"), "-inf", cutoff)
        reread = self.batch()
        for queue, task_ids in zip(queues, reads.execute(), strict=True):
            for task_id in task_ids:
                reread.hget(keys.task(queue, task_id), "msg")
        messages = [message for message in reread.execute() if message is not None]
        for message in messages:
            self.fail(decode_task_message(message), self.clock() + retry_seconds, LEASE_EXPIRED_ERROR)
        return len(messages)

    def delete_expired_completed(self, queues: Sequence[str]) -> None:
        """Delete completed tasks whose retention is over, 100 a queue."""
        reads = self.batch()
        for queue in queues:
            completed = keys.queue_key(queue, "completed")
            reads.zrangebyscore(completed, "-inf", int(self.clock()), start=0, num=_BATCH)
        for queue, expired in zip(queues, reads.execute(), strict=True):
            self._delete(queue, "completed", expired)

    # Operators

    def delete_archived(self, queue: str) -> None:
        """Delete every archived task of a queue."""
        self._delete(queue, "archived", self.client.zrange(keys.queue_key(queue, "archived"), 0, -1))

    def pause(self, queue: str) -> None:
        """Stop servers from dequeuing; everything else goes on."""
        self.client.set(keys.queue_key(queue, "paused"), int(self.clock()), nx=True)

    def unpause(self, queue: str) -> None:
        """Let servers dequeue again."""
        self.client.delete(keys.queue_key(queue, "paused"))

    # Steps that the transitions share

    def _delete(self, queue: str, state: str, task_ids: Sequence[bytes]) -> None:
        if not task_ids:
            return
        pipe = self.transaction()
        pipe.zrem(keys.queue_key(queue, state), *task_ids)
        pipe.delete(*(keys.task(queue, task_id) for task_id in task_ids))
        pipe.execute()

    def _leave_active(self, task: TaskMessage) -> Any:
        pipe = self.transaction()
        pipe.lrem(keys.queue_key(task.queue, "active"), 0, task.id)
        pipe.zrem(keys.queue_key(task.queue, "lease"), task.id)
        return pipe

    def _store(self, pipe: Any, task: TaskMessage, state: str) -> None:
        fields = {"msg": encode_task_message(task), "state": state}
        pipe.hset(keys.task(task.queue, task.id), mapping=fields)

    def _count(self, pipe: Any, queue: str, *, failed: bool) -> None:
        """Execute `pipe` with the counters at its end; a day's first count gives its key a time to live."""
        now = self.clock()
        day = datetime.fromtimestamp(now, tz=UTC).strftime("%Y-%m-%d")
        days = [keys.processed(queue, day)]
        totals = [keys.processed(queue)]
        if failed:
            days.append(keys.failed(queue, day))
            totals.append(keys.failed(queue))
        for key in [*totals, *days]:
            pipe.incr(key)
        counts = pipe.execute()[-len(days) :]
        for key, count in zip(days, counts, strict=True):
            if count == 1:
                self.client.expireat(key, int(now) + _KEPT_SECONDS)


def _lock(task: TaskMessage) -> str:
    """The key of a task's unique lock; a task without payload has no digest in it."""
    digest = md5(task.payload, usedforsecurity=False).hexdigest() if task.payload else ""
    return keys.unique(task.queue, task.type, digest).decode()


def _nanoseconds(seconds: float) -> int:
    return int(seconds) * 10**9 + int(seconds % 1 * 1e9)
