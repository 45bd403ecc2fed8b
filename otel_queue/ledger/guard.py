"""The memory guard: a ledger that shares a Redis with its queues must not be what fills it."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from otel_queue.errors import ReadError
from otel_queue.redis_client import Answers, ErrorReply, RedisLink, Request, request

_LOOK_SECONDS: Final = 10.0


class GuardedLink:
    """A link that refuses to write while Redis uses more than `limit_bytes` of memory.

    Looked at every ten seconds, by INFO; where INFO is refused nothing is guarded. Records that are refused wait in
    their writer's queue, as in any outage. In a cluster it is the memory of the node that the first request goes to.
    """

    def __init__(self, link: RedisLink, limit_bytes: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._limit = limit_bytes
        self._now = now
        self._lock = threading.Lock()
        self._next_look = 0.0
        self._used = 0

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        """As RedisLink; raises ReadError with reason `memory_guard` above the limit."""
        if requests:
            self._look(requests[0].key, deadline)
        if self._used > self._limit:
            raise ReadError("memory_guard", f"Redis uses {self._used} bytes, more than {self._limit}")
        yield from self._link.exchange(requests, deadline)

    def close(self) -> None:
        """As RedisLink."""
        self._link.close()

    def _look(self, key: bytes, deadline: float) -> None:
        with self._lock:
            if self._now() < self._next_look:
                return
            self._next_look = self._now() + _LOOK_SECONDS
        [answer] = self._link.exchange([request(key, [("INFO", "memory")])], deadline)
        if isinstance(answer, ReadError) or isinstance(answer[0], ErrorReply) or not isinstance(answer[0], bytes):
            return
        for line in answer[0].splitlines():
            name, _, value = line.partition(b":")
            if name == b"used_memory" and value.isdigit():
                self._used = int(value)
