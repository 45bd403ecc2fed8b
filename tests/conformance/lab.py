"""Both readers of one Redis: asynq's own inspector, and ours."""

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any, TypeVar, cast

from otel_queue.asynq.inspector import Inspector
from otel_queue.config import RedisConfig
from otel_queue.redis_client import connect
from tests.asynq_peer import AsynqPeer
from tests.servers.redis import RedisServer

# asynq's servers poll; these intervals keep a test short.
QUICK = {
    "task_check_interval": 0.02,
    "delayed_task_check_interval": 0.1,
    "janitor_interval": 0.1,
    "shutdown_timeout": 0.1,
}

T = TypeVar("T")


def until_it_holds(check: Callable[[], T], *, within: float = 20) -> T:
    """What `check` returns once none of its assertions fails; after `within` seconds its last failure."""
    deadline = time.monotonic() + within
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.03)


class Lab:
    """One Redis, a Go client and inspector (`go`), our inspector (`ours`), more Go processes on demand."""

    def __init__(self, server: RedisServer, stack: ExitStack) -> None:
        self._url = server.url
        self._stack = stack
        self.redis = stack.enter_context(server.client())
        self.go = stack.enter_context(AsynqPeer(self._url))
        reader = stack.enter_context(closing(connect(RedisConfig(url=self._url))))
        self.ours = Inspector(reader)

    def start_peer(self) -> AsynqPeer:
        """One more Go process, to run a server or scheduler that a test can kill."""
        return self._stack.enter_context(AsynqPeer(self._url))

    def start_server(self, **options: Any) -> AsynqPeer:
        """A Go process with a running asynq server that looks for work often."""
        peer = self.start_peer()
        peer.call("start_server", **(QUICK | options))
        return peer

    def enqueue(self, task_type: str, **options: Any) -> str:
        """The ID of a task enqueued by the Go client."""
        task: dict[str, Any] = self.go.call("enqueue", type=task_type, **options)
        return str(task["id"])

    def go_info(self, queue: str) -> dict[str, Any]:
        """Asynq's GetQueueInfo."""
        info: dict[str, Any] = self.go.call("queue_info", queue=queue)
        return info

    def go_tasks(self, queue: str, state: str, **options: Any) -> list[dict[str, Any]]:
        """One of asynq's List*Tasks."""
        tasks: list[dict[str, Any]] = self.go.call("list_tasks", queue=queue, state=state, **options)
        return tasks

    def wait_for_info(self, queue: str, **expected: object) -> dict[str, Any]:
        """Asynq's GetQueueInfo, once its fields have the expected values."""

        def reached() -> dict[str, Any]:
            info = self.go_info(queue)
            assert {field: info[field] for field in expected} == expected
            return info

        return until_it_holds(reached)

    def age_pending(self, queue: str, task_id: str, seconds: float) -> None:
        """Makes a pending task look enqueued `seconds` ago: what waiting would do."""
        since = time.time_ns() - int(seconds * 1e9)
        self.redis.hset(f"asynq:{{{queue}}}:t:{task_id}", "pending_since", str(since))

    def stored_keys(self, pattern: str = "*") -> list[bytes]:
        return sorted(cast(list[bytes], self.redis.keys(pattern)))

    def ids(self, key: str) -> list[str]:
        """The members of one of asynq's lists or sorted sets, from the left or the lowest score."""
        if self.redis.type(key) == b"list":
            members = cast(list[bytes], self.redis.lrange(key, 0, -1))
        else:
            members = cast(list[bytes], self.redis.zrange(key, 0, -1))
        return [member.decode() for member in members]
