"""Writes just enough of asynq's layout for a test, straight into Redis."""

import time
from typing import Any

import redis

from otel_queue.asynq import keys
from otel_queue.asynq.message import TaskMessage, encode_task_message


class AsynqWriter:
    """Puts tasks into states by hand, without asynq's transitions."""

    def __init__(self, url: str) -> None:
        self.redis = redis.Redis.from_url(url, protocol=2)

    def pending(self, *queues: str, count: int = 1, age_seconds: float = 0.0) -> None:
        """`count` pending tasks in each queue, pending for `age_seconds`."""
        since = time.time_ns() - int(age_seconds * 1e9)
        for queue in queues:
            self.redis.sadd(keys.QUEUES, queue)
            for number in range(count):
                task_id = f"{queue}-{number}"
                message = encode_task_message(TaskMessage(type="t", id=task_id, queue=queue))
                values: dict[Any, Any] = {"msg": message, "state": "pending", "pending_since": str(since)}
                self.redis.hset(keys.task(queue, task_id), mapping=values)
                self.redis.lpush(keys.queue_key(queue, "pending"), task_id)
