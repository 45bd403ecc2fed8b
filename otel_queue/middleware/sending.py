"""In front of a queue: in asynq this place is Client.Enqueue."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from opentelemetry import propagate

from otel_queue import labels
from otel_queue.lifecycle import UNTOLD, Label
from otel_queue.middleware.headers import ENDPOINT, ENQUEUED_AT, EVENT_TYPE, PROJECT, SOURCE, now_us
from otel_queue.middleware.task import Task
from otel_queue.recorder import Recorder

T = TypeVar("T")


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
    headers[ENQUEUED_AT] = str(now_us())
    try:
        propagate.inject(headers)
    except Exception:
        recorder.missed("bad_header")  # a propagator of the application's
    return replace(task, headers=headers)
