"""A bounded way into blocking work: so many at a time, so many waiting, the rest turned away."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class TurnstileFull(Exception):  # noqa: N818 - an answer to the client, not a fault
    """As many callers as allowed are waiting already."""


class ClientGone(Exception):  # noqa: N818 - an answer nobody waits for, not a fault
    """The client hung up before its result was there."""


class Turnstile:
    """Threads for blocking work that event loop code asks for; first come, first served."""

    def __init__(self, name: str, *, at_once: int, waiting: int) -> None:
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix=f"otel-queue-{name}")
        self._limit = at_once + waiting
        self._inside = 0

    async def run(self, work: Callable[[], T], client_gone: Callable[[], Coroutine[Any, Any, None]]) -> T:
        """What `work` returns or raises.

        Raises TurnstileFull at once when too many wait, and ClientGone when `client_gone` returns first:
        work that has not begun by then never begins.
        """
        if self._inside >= self._limit:
            raise TurnstileFull
        self._inside += 1
        gone = asyncio.create_task(client_gone())
        try:
            result = asyncio.get_running_loop().run_in_executor(self._threads, work)
            try:
                either: set[asyncio.Future[Any]] = {result, gone}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not result.done():
                    raise ClientGone
            finally:
                result.cancel()
            return result.result()
        finally:
            gone.cancel()
            self._inside -= 1

    def close(self) -> None:
        """Lets running work end, drops what waits; does not wait."""
        self._threads.shutdown(wait=False, cancel_futures=True)
