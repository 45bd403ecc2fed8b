"""Locks that tell: who has to wait for one, and what happens between one holder and the next."""

import threading
from collections.abc import Callable
from types import TracebackType

LONG = 30.0


class WatchedLock:
    """A lock whose `contended` is set as soon as somebody has to wait for it; `released` runs after each release."""

    def __init__(self, released: Callable[[], None] = lambda: None) -> None:
        self._lock = threading.Lock()
        self._released = released
        self.contended = threading.Event()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.contended.set()
            self._lock.acquire()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._lock.release()
        self._released()


def waits_for(lock: WatchedLock, call: Callable[[], object]) -> bool:
    """Whether `call` waits while another thread holds the lock; it has returned when this does."""
    ended = threading.Event()

    def run() -> None:
        try:
            call()
        finally:
            ended.set()
            lock.contended.set()  # or nobody would see that it did not wait

    with lock:
        thread = threading.Thread(target=run)
        thread.start()
        assert lock.contended.wait(LONG)
        waited = not ended.is_set()
    thread.join(LONG)
    return waited
