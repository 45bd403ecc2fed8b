"""Around a worker's handlers, and in front of its queue.

    handle = compose(recorded(recorder), committed(recorder))(handler)
    handle(Task("EventProcessor", payload, queue="EventQueue", headers=headers, id=task_id))

A handler is a function of one task; one that is to be awaited is a coroutine function, or an object whose __call__
is one. Nothing here raises, but what the handler and the sender themselves raise, and `committed`.
"""

from otel_queue.middleware.handlers import Handler, Middleware, committed, compose, grouped, recorded
from otel_queue.middleware.headers import ENDPOINT, ENQUEUED_AT, EVENT_TYPE, PROJECT, SOURCE
from otel_queue.middleware.sending import enqueue, enqueue_async
from otel_queue.middleware.task import Task, current_task

__all__ = [
    "ENDPOINT",
    "ENQUEUED_AT",
    "EVENT_TYPE",
    "PROJECT",
    "SOURCE",
    "Handler",
    "Middleware",
    "Task",
    "committed",
    "compose",
    "current_task",
    "enqueue",
    "enqueue_async",
    "grouped",
    "recorded",
]
