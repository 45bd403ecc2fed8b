"""Around a worker's handlers, and in front of its queue. In asynq these places are ServeMux.Use and Client.Enqueue.

    handle = compose(recorded(recorder), before_ack(recorder))(handler)
    handle(Task("EventProcessor", payload, queue="EventQueue", headers=headers, id=task_id))

A handler is a function of one task; one that is to be awaited is a coroutine function, or an object whose __call__
is one. Nothing here raises, but what the handler and the sender themselves raise.
"""

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from typing import Any, Final, TypeVar

from opentelemetry import context, propagate
from opentelemetry.context import Context

from otel_queue import labels
from otel_queue.asynq.payload import PayloadError, PayloadLabels, read_payload
from otel_queue.lifecycle import UNTOLD, Label
from otel_queue.recorder import Recorder
from otel_queue.recorder.group import Kept
from otel_queue.ulid import new_ulid

T = TypeVar("T")
Handler = Callable[["Task"], Any]
Middleware = Callable[[Handler], Handler]

PROJECT: Final = "oq-project"
SOURCE: Final = "oq-source"
ENDPOINT: Final = "oq-endpoint"
EVENT_TYPE: Final = "oq-event-type"
ENQUEUED_AT: Final = "oq-enqueued-at"

_FAILED: Final = ("retry", "failure")

_current: ContextVar["Task | None"] = ContextVar("otel_queue_task", default=None)


@dataclass
class Task:
    """A task as a handler gets it; fields as asynq's. Outside of `recorded` its reports go nowhere."""

    type: str
    payload: bytes = b""
    queue: str = "default"
    headers: dict[str, str] = field(default_factory=dict)
    id: str = ""
    retried: int = 0
    max_retry: int = 25
    _run: "_Run | None" = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.headers = dict(self.headers or {})

    def report_attempt(
        self,
        http_status: str | int | None = None,
        *,
        succeeded: bool | None = None,
        attempt_id: str | None = None,
        duration_seconds: float | None = None,
        time_us: int | None = None,
    ) -> Kept:
        """The handler made one HTTP call, whatever it returns or raises afterwards.

        `succeeded` follows from the status where it is not given: 2xx or not. Give `attempt_id` where the attempt
        has a row, so that it is counted once however often it is reported; without it every report is one.
        """
        run = self._run
        if run is None:
            return "unstored"
        code = labels.http_status_code(http_status) if isinstance(http_status, (str, int)) else labels.NO_RESPONSE
        success = code.startswith("2") if succeeded is None else succeeded
        run.outcome = labels.outcome(success)
        return run.recorder.attempt_made(
            project=run.labels.project,
            attempt_id=new_ulid() if attempt_id is None else attempt_id,
            succeeded=success,
            endpoint=run.labels.endpoint,
            http_status=http_status,
            duration_seconds=duration_seconds,
            time_us=time_us,
        )

    def report_status(
        self,
        status: str,
        *,
        delivery_id: str | None = None,
        created_us: int | None = None,
        time_us: int | None = None,
    ) -> Kept:
        """The handler wrote this status of the task's delivery: the payload's, else the one with the task's id."""
        run = self._run
        if run is None:
            return "unstored"
        if isinstance(status, str) and status.lower() in _FAILED:
            run.outcome = labels.outcome(False)
        told = run.labels
        return run.recorder.status_set(
            project=told.project,
            delivery_id=(told.delivery_id or self.id) if delivery_id is None else delivery_id,
            status=status,
            endpoint=told.endpoint,
            event_type=told.event_type,
            source=told.source,
            created_us=created_us,
            time_us=time_us,
        )


class _Run:
    """One run of a handler. `outcome` is what it reported last; a handler that raises has failed all the same."""

    def __init__(self, recorder: Recorder, task: Task) -> None:
        self.recorder = recorder
        self.outcome = labels.outcome(True)
        self._task = task

    @cached_property
    def labels(self) -> PayloadLabels:
        """From the headers if the enqueue hook wrote them, else from the payload, which is read once."""
        headers = self._task.headers
        if headers.get(PROJECT):
            source, endpoint, event_type = (_told(headers, name) for name in (SOURCE, ENDPOINT, EVENT_TYPE))
            return PayloadLabels(headers[PROJECT], source, endpoint, event_type)
        try:
            return read_payload(self._task.payload)
        except PayloadError as error:
            self.recorder.missed(error.reason)
            return PayloadLabels()


def current_task() -> Task | None:
    """The task whose handler runs here, in this thread or coroutine; None outside of `recorded`."""
    return _current.get()


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


def before_ack(recorder: Recorder) -> Middleware:
    """Writes a task's records together before its handler returns, so before the task is acknowledged."""

    def middleware(handler: Handler) -> Handler:
        if not _is_awaited(handler):
            return _inside(handler, lambda _: recorder.before_ack())

        @wraps(handler)
        async def handle(task: Task) -> Any:
            async with recorder.asynchronous.before_ack():
                return await handler(task)

        return handle

    return middleware


def enqueue(
    recorder: Recorder,
    send: Callable[[Task], T],
    task: Task,
    *,
    project: str | None = None,
    source: Label = UNTOLD,
    endpoint: Label = UNTOLD,
    event_type: Label = UNTOLD,
) -> T:
    """What `send` returns for the task with the labels, the time and the trace context in its headers.

    Labels that are not told keep the headers that the task has already. Counted when `send` returns; what it
    raises passes.
    """
    sent = send(_stamped(recorder, task, project, source, endpoint, event_type))
    recorder.task_sent(task.queue, task.type)
    return sent


async def enqueue_async(
    recorder: Recorder,
    send: Callable[[Task], Awaitable[T]],
    task: Task,
    *,
    project: str | None = None,
    source: Label = UNTOLD,
    endpoint: Label = UNTOLD,
    event_type: Label = UNTOLD,
) -> T:
    """As `enqueue`, for a `send` that is awaited."""
    sent = await send(_stamped(recorder, task, project, source, endpoint, event_type))
    recorder.task_sent(task.queue, task.type)
    return sent


def _stamped(
    recorder: Recorder, task: Task, project: str | None, source: Label, endpoint: Label, event_type: Label
) -> Task:
    headers = dict(task.headers)
    told: dict[str, object] = {
        PROJECT: UNTOLD if project is None else project,
        SOURCE: source,
        ENDPOINT: endpoint,
        EVENT_TYPE: event_type,
    }
    for name, label in told.items():
        if label is UNTOLD:
            continue
        if label is None or isinstance(label, str):
            # The project is an id, by which the hooks record too: it stays as it is.
            headers[name] = (label or "") if name == PROJECT else labels.clean(label or "")
        else:
            recorder.missed("bad_label")
    headers[ENQUEUED_AT] = str(_now_us())
    try:
        propagate.inject(headers)
    except Exception:
        recorder.missed("bad_header")  # a propagator of the application's
    return replace(task, headers=headers)


@contextmanager
def _recording(recorder: Recorder, task: Task) -> Iterator[None]:
    run = task._run = _Run(recorder, task)
    token = _current.set(task)
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
        _current.reset(token)
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


def _outcome(run: _Run, raised: BaseException | None) -> str:
    if raised is None:
        return run.outcome
    if isinstance(raised, asyncio.CancelledError) or not isinstance(raised, Exception):
        return "cancelled"
    return labels.outcome(False)


def _wait_seconds(recorder: Recorder, task: Task) -> float | None:
    told: object = task.headers.get(ENQUEUED_AT)
    if told is None or task.retried:
        return None
    if not (isinstance(told, str) and told.isascii() and told.isdigit() and len(told) == len(str(_now_us()))):
        recorder.missed("bad_header")
        return None
    return (_now_us() - int(told)) / 1e6


def _told(headers: dict[str, str], name: str) -> Label:
    return (headers[name] or None) if name in headers else UNTOLD


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


def _is_awaited(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)


def _now_us() -> int:
    return time.time_ns() // 1_000
