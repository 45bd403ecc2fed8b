"""Asynq's task groups: from a group to an aggregation set to one merged task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from otel_queue.asynq import keys
from otel_queue.asynq.message import TaskMessage, decode_task_message
from otel_queue.demo.broker import Broker

_SET_TIMEOUT_SECONDS: Final = 120


@dataclass(frozen=True, slots=True)
class Aggregator:
    """Merges the groups of one queue, as an asynq server with a GroupAggregator does.

    A group is taken when it holds `max_size` tasks, when its oldest waits for `max_delay_seconds`, or when
    nothing joined for `grace_seconds`. `new_id` names aggregation sets.
    """

    broker: Broker
    queue: str
    merge: Callable[[str, Sequence[TaskMessage]], TaskMessage]
    new_id: Callable[[], str]
    grace_seconds: int
    max_delay_seconds: int
    max_size: int

    def step(self) -> None:
        """Merge every group that is ready into one task, enqueued in the same queue."""
        for group in sorted(self.broker.client.smembers(keys.queue_key(self.queue, "groups"))):
            set_key = self.collect(group)
            if set_key is not None:
                tasks = self.read(set_key)
                if tasks:
                    self.broker.enqueue(self.merge(group.decode(), tasks))
                self.delete(set_key)

    def collect(self, group: bytes) -> bytes | None:
        """The key of a new aggregation set with the group's oldest tasks; None when it is not ready."""
        now = int(self.broker.clock())
        key = keys.group(self.queue, group)
        members = self.broker.client.zrange(key, 0, -1, withscores=True)
        if not members:
            return None
        ready = (
            len(members) >= self.max_size
            or members[0][1] <= now - self.max_delay_seconds
            or members[-1][1] <= now - self.grace_seconds
        )
        if not ready:
            return None
        taken = dict(members[: self.max_size])
        set_key = keys.aggregation_set(self.queue, group, self.new_id())
        pipe = self.broker.transaction()
        pipe.zadd(set_key, taken)
        pipe.zrem(key, *taken)
        pipe.zadd(keys.queue_key(self.queue, "aggregation_sets"), {set_key: now + _SET_TIMEOUT_SECONDS})
        if len(taken) == len(members):
            pipe.srem(keys.queue_key(self.queue, "groups"), group)
        pipe.execute()
        return set_key

    def read(self, set_key: bytes) -> list[TaskMessage]:
        """The tasks of an aggregation set, oldest first; one that has no message is left out."""
        pipe = self.broker.batch()
        for task_id in self.broker.client.zrange(set_key, 0, -1):
            pipe.hget(keys.task(self.queue, task_id), "msg")
        return [decode_task_message(message) for message in pipe.execute() if message is not None]

    def delete(self, set_key: bytes) -> None:
        """Delete an aggregation set with its tasks; as in asynq, their unique locks stay."""
        task_ids = self.broker.client.zrange(set_key, 0, -1)
        pipe = self.broker.transaction()
        pipe.delete(set_key, *(keys.task(self.queue, task_id) for task_id in task_ids))
        pipe.zrem(keys.queue_key(self.queue, "aggregation_sets"), set_key)
        pipe.execute()

    def reclaim(self) -> None:
        """Give back the tasks of sets past their deadline; as in asynq, the set of groups is not told."""
        sets = keys.queue_key(self.queue, "aggregation_sets")
        for set_key in self.broker.client.zrangebyscore(sets, "-inf", int(self.broker.clock())):
            members = dict(self.broker.client.zrange(set_key, 0, -1, withscores=True))
            pipe = self.broker.transaction()
            if members:
                # The set's ID follows the last colon: a group's name may hold colons too.
                pipe.zadd(set_key.rpartition(b":")[0], members)
            pipe.delete(set_key)
            pipe.zrem(sets, set_key)
            pipe.execute()
