"""The recorder for coroutines: a writer that waits does so beside the event loop."""

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from otel_queue.recorder.group import Group, Kept, current_group, open_group

if TYPE_CHECKING:
    from otel_queue.recorder.recorder import Recorder

P = ParamSpec("P")


class AsynchronousRecorder:
    """The lifecycle methods of a recorder, to be awaited. Its other methods never wait: call them directly."""

    def __init__(self, recorder: "Recorder") -> None:
        self._recorder = recorder
        self.event_created = self._awaitable(recorder.event_created)
        self.delivery_created = self._awaitable(recorder.delivery_created)
        self.status_set = self._awaitable(recorder.status_set)
        self.attempt_made = self._awaitable(recorder.attempt_made)
        self.project_described = self._awaitable(recorder.project_described)
        self.day_expired = self._awaitable(recorder.day_expired)

    def grouped(self) -> AbstractAsyncContextManager[Group]:
        """As `Recorder.grouped`."""
        return self._group(must_commit=False)

    def committed(self) -> AbstractAsyncContextManager[Group]:
        """As `Recorder.committed`."""
        self._recorder.check_commits()
        return self._group(must_commit=True)

    @asynccontextmanager
    async def _group(self, *, must_commit: bool) -> AsyncIterator[Group]:
        outer = open_group(self._recorder._write)
        if outer is not None:
            outer.must_commit |= must_commit
            yield outer
            return
        group = Group(self._recorder._write, must_commit=must_commit)
        token = current_group.set(group)
        try:
            yield group
        finally:
            current_group.reset(token)
            if self._recorder._waits:
                # Shielded: the records of a task that is cancelled now are written all the same.
                # A future, not a task: it is handed to its thread at once, and a loop that ends cancels tasks only.
                # Its turn may come late, when others wait for the same Redis: the limit counts from now.
                commit = partial(contextvars.copy_context().run, group.commit, time.monotonic())
                await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, commit))
            else:
                group.commit()
        group.confirm()

    def _awaitable(self, method: Callable[P, Kept]) -> Callable[P, Coroutine[Any, Any, Kept]]:
        @wraps(method)
        async def call(*args: P.args, **kwargs: P.kwargs) -> Kept:
            if not self._recorder._waits or open_group(self._recorder._write) is not None:
                return method(*args, **kwargs)
            async with self.grouped() as group:
                kept = method(*args, **kwargs)
            return group.kept if kept == "grouped" else kept

        return call
