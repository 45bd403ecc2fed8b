"""Reading tasks: a page of a list, and a bounded sample of task types."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

from otel_queue.asynq import keys
from otel_queue.asynq.message import TaskMessage, decode_task_message
from otel_queue.asynq.queue_info import TaskInfo
from otel_queue.errors import ReadError
from otel_queue.redis_client import Fields, Reading, Reply, Rounds, names, request, scored, text

LISTED_STATES: Final = ("pending", "active", "scheduled", "retry", "archived", "completed")
# Task types beyond this many in one queue and state are counted together: asynq lets a type be any text.
MOST_TYPES: Final = 50
OTHER_TYPES: Final = "other"


def read_tasks(
    queue: bytes, state: str, start: int, stop: int, rounds: Rounds, failures: Counter[str]
) -> Reading[list[TaskInfo]]:
    """Tasks `start` to `stop` (exclusive) of a state: oldest or next to run first. Two rounds."""
    if stop <= start:
        return []
    listed = yield from _read_ids(queue, state, start, stop)
    if not listed:
        return []
    lease = keys.queue_key(queue, "lease")
    commands: list[tuple[bytes | str, ...]] = [("HGET", keys.task(queue, item), "msg") for item, _ in listed]
    if state == "active":
        commands += [("ZSCORE", lease, item) for item, _ in listed]
    replies = yield request(lease, commands)
    fields = Fields(failures)
    messages = _messages(replies[: len(listed)], fields)
    leases = [fields(_lease_end, reply) for reply in replies[len(listed) :]] or [None] * len(listed)
    now = rounds.time or time.time()
    return [
        _task_info(queue, state, item, score, message, lease_end is not None and lease_end <= now)
        for (item, score), message, lease_end in zip(listed, messages, leases, strict=True)
    ]


def read_task_types(queue: bytes, state: str, size: int, failures: Counter[str]) -> Reading[Mapping[str, int]]:
    """How many of the first `size` tasks of a state have which type. Two rounds; transfers their payloads.

    A task that ended between the rounds is not in the sample, and no failure.
    """
    listed = yield from _read_ids(queue, state, 0, size)
    if not listed:
        return {}
    key = keys.queue_key(queue, "pending")
    replies = yield request(key, [("HGET", keys.task(queue, item), "msg") for item, _ in listed])
    there = [reply for reply in replies if reply is not None]
    types = Counter(message.type for message in _messages(there, Fields(failures)) if message is not None)
    most = types.most_common(MOST_TYPES)
    rest = sum(types.values()) - sum(count for _, count in most)
    return dict(most) | ({OTHER_TYPES: rest + dict(most).get(OTHER_TYPES, 0)} if rest else {})


def _read_ids(queue: bytes, state: str, start: int, stop: int) -> Reading[list[tuple[bytes, float | None]]]:
    """IDs with their scores (None for lists, whose next to run is at the right end)."""
    key = keys.queue_key(queue, state)
    if state in ("pending", "active"):
        replies = yield request(key, [("LRANGE", key, -stop, -start - 1)])
        return [(item, None) for item in reversed(names(replies[0]))]
    replies = yield request(key, [("ZRANGE", key, start, stop - 1, "WITHSCORES")])
    return list(scored(replies[0]))


def _messages(replies: list[Reply], fields: Fields) -> list[TaskMessage | None]:
    return [fields(_message, reply) for reply in replies]


def _message(reply: Reply) -> TaskMessage:
    data = text(reply)
    if data is None:
        raise ReadError("missing_task", "the task's hash has no message")
    return decode_task_message(data)


def _lease_end(reply: Reply) -> float | None:
    score = text(reply)
    try:
        return None if score is None else float(score)
    except ValueError as error:
        raise ReadError("protocol", f"{score!r} is not a score") from error


def _task_info(
    queue: bytes, state: str, item: bytes, score: float | None, message: TaskMessage | None, orphaned: bool
) -> TaskInfo:
    task_id, name = keys.display(item), keys.display(queue)
    if message is None:
        return TaskInfo(task_id, name, state, is_orphaned=orphaned)
    return TaskInfo(
        id=task_id,
        queue=name,
        state=state,
        type=message.type,
        payload=message.payload,
        max_retry=message.retry,
        retried=message.retried,
        last_err=message.error_msg,
        last_failed_at=float(message.last_failed_at) or None,
        completed_at=float(message.completed_at) or None,
        next_process_at=score if state in ("scheduled", "retry") else None,
        group=message.group_key or None,
        headers=message.headers,
        is_orphaned=orphaned,
    )
