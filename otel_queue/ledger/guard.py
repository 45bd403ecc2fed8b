"""The memory guard: a ledger that shares a Redis with its queues must not be what fills it."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from otel_queue.errors import ReadError
from otel_queue.redis_client import Answers, PlacedLink, Request, request

_LOOK_SECONDS: Final = 10.0


class GuardedLink:
    """A link that refuses to write to a server that uses more than `limit_bytes` of memory.

    Looked at every ten seconds, by INFO; where INFO is refused nothing is guarded. Records that are refused wait in
    their writer's lanes, as in any outage. In a cluster each node is guarded by itself.
    """

    def __init__(self, link: PlacedLink, limit_bytes: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._limit = limit_bytes
        self._now = now
        self._lock = threading.Lock()
        self._next_look: dict[str, float] = {}
        self._used: dict[str, int] = {}

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        """As RedisLink; a ReadError with reason `memory_guard` stands for the replies of a server above the limit."""
        places = [self._link.place(each.key) for each in requests]
        self._look({place: each.key for place, each in zip(places, requests, strict=True)}, deadline)
        full = {place: self._used[place] for place in set(places) if self._used.get(place, 0) > self._limit}
        refusals = {
            place: ReadError("memory_guard", f"{place} uses {used} bytes, more than {self._limit}")
            for place, used in full.items()
        }
        wanted = [each for place, each in zip(places, requests, strict=True) if place not in full]
        if refusals and not wanted:
            raise next(iter(refusals.values()))
        with contextlib.closing(self._link.exchange(wanted, deadline)) as answers:
            if not refusals:
                yield from answers
                return
            for place in places:
                yield refusals[place] if place in full else next(answers)

    def place(self, key: bytes, /) -> str:
        """As PlacedLink."""
        return self._link.place(key)

    def close(self) -> None:
        """As RedisLink."""
        self._link.close()

    def _look(self, keys: Mapping[str, bytes], deadline: float) -> None:
        """Asks each server, by a key of its own, that was not asked lately."""
        with self._lock:
            due = [place for place in keys if self._now() >= self._next_look.get(place, 0.0)]
            self._next_look.update(dict.fromkeys(due, self._now() + _LOOK_SECONDS))
        if not due:
            return
        asked = [request(keys[place], [("INFO", "memory")]) for place in due]
        # One that does not answer leaves time to write to the others.
        until = (time.monotonic() + deadline) / 2
        with contextlib.suppress(ReadError):
            for place, answer in zip(due, self._link.exchange(asked, until), strict=True):
                if not isinstance(answer, ReadError) and isinstance(answer[0], bytes):
                    self._used[place] = _used_memory(answer[0])


def _used_memory(info: bytes) -> int:
    for line in info.splitlines():
        name, _, value = line.partition(b":")
        if name == b"used_memory" and value.isdigit():
            return int(value)
    return 0
