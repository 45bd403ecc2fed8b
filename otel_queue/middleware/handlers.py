"""Around a worker's handlers: in asynq this place is ServeMux.Use."""

import asyncio
import inspect
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from contextvars import Token
from functools import wraps
from typing import Any

from opentelemetry import context, propagate
from opentelemetry.context import Context

from otel_queue import labels
from otel_queue.middleware.headers import ENQUEUED_AT, now_us
from otel_queue.middleware.task import Run, Task, current
from otel_queue.recorder import Recorder

Handler = Callable[[Task], Any]
Middleware = Callable[[Handler], Handler]


def compose(*middlewares: Middleware) -> Middleware:
    """One middleware of several; the first is outermost, as in asynq's ServeMux.Use."""

    def composed(handler: Handler) -> Handler:
        for middleware in reversed(middlewares):
            handler = middleware(handler)
        return handler

    return composed


def recorded(recorder: Recorder) -> Middleware:
    """Records how handlers run: in progress, wait, duration and outcome; and takes their tasks' reports.

    The outcome is `failure` if the handler raises or reports it, `cancelled` if what it raises is no Exception.
    The wait is recorded at the first run alone, since a retry waits on purpose.
    """

    def middleware(handler: Handler) -> Handler:
        return _inside(handler, lambda task: _recording(recorder, task))

    return middleware


def grouped(recorder: Recorder) -> Middleware:
    """Writes a task's records together when its handler ends.

    They are kept as well as the writer keeps them: the task is acknowledged also when they are only queued, or dropped.
    """

    def middleware(handler: Handler) -> Handler:
        if _is_awaited(handler):
            return _awaited_inside(handler, recorder.asynchronous.grouped)
        return _inside(handler, lambda _: recorder.grouped())

    return middleware


def committed(recorder: Recorder) -> Middleware:
    """As `grouped`; and fails a task with WriteError unless its records have reached the ledger.

    Its queue delivers it again then, and its work is done again. Raises OtelQueueError unless the recorder's writer
    waits for the ledger.
    """
    recorder.check_commits()

    def middleware(handler: Handler) -> Handler:
        if _is_awaited(handler):
            return _awaited_inside(handler, recorder.asynchronous.committed)
        return _inside(handler, lambda _: recorder.committed())

    return middleware


@contextmanager
def _recording(recorder: Recorder, task: Task) -> Iterator[None]:
    run = task._run = Run(recorder, task)
    token = current.set(task)
    trace = _attached(recorder, task.headers)
    pid = os.getpid()
    recorder.task_started(task.queue, task.type, _wait_seconds(recorder, task))
    started = time.perf_counter()
    raised: BaseException | None = None
    try:
        yield
    except BaseException as error:
        raised = error
        raise
    finally:
        if os.getpid() == pid:  # in a child forked by the handler nothing was started
            recorder.task_finished(task.queue, task.type, _outcome(run, raised), time.perf_counter() - started)
        if trace is not None:
            context.detach(trace)
        current.reset(token)
        task._run = None


def _attached(recorder: Recorder, headers: dict[str, str]) -> Token[Context] | None:
    """Makes the sender's span the parent of the handler's."""
    if "traceparent" not in headers:
        return None
    try:
        return context.attach(propagate.extract(headers))
    except Exception:
        recorder.missed("bad_header")
        return None


def _outcome(run: Run, raised: BaseException | None) -> str:
    if raised is None:
        return run.outcome
    if isinstance(raised, asyncio.CancelledError) or not isinstance(raised, Exception):
        return "cancelled"
    return labels.outcome(False)


def _wait_seconds(recorder: Recorder, task: Task) -> float | None:
    told: object = task.headers.get(ENQUEUED_AT)
    if told is None or task.retried:
        return None
    if not (isinstance(told, str) and told.isascii() and told.isdigit() and len(told) == len(str(now_us()))):
        recorder.missed("bad_header")
        return None
    return (now_us() - int(told)) / 1e6


def _inside(handler: Handler, around: Callable[[Task], AbstractContextManager[object]]) -> Handler:
    """The handler, run inside the context that `around` makes of its task."""
    if _is_awaited(handler):

        @wraps(handler)
        async def handle_awaited(task: Task) -> Any:
            with around(task):
                return await handler(task)

        return handle_awaited

    @wraps(handler)
    def handle(task: Task) -> Any:
        with around(task):
            return handler(task)

    return handle


def _awaited_inside(handler: Handler, around: Callable[[], AbstractAsyncContextManager[object]]) -> Handler:
    """The handler, awaited inside a context of its own."""

    @wraps(handler)
    async def handle(task: Task) -> Any:
        async with around():
            return await handler(task)

    return handle


def _is_awaited(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)
