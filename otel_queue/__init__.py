"""Asynq queue state and webhook domain metrics through OpenTelemetry.

What workers use is loaded when it is first asked for: importing the package loads no client library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from otel_queue.version import __version__

if TYPE_CHECKING:
    from otel_queue.config import Config, load_config
    from otel_queue.errors import OtelQueueError, WriteError
    from otel_queue.lifecycle import UNTOLD
    from otel_queue.middleware import (
        Task,
        committed,
        compose,
        current_task,
        enqueue,
        enqueue_async,
        grouped,
        recorded,
    )
    from otel_queue.recorder import Recorder, Writer
    from otel_queue.worker import Worker, ledger_writer, views

_HOME: Final = {
    "Config": "config",
    "OtelQueueError": "errors",
    "Recorder": "recorder",
    "Task": "middleware",
    "UNTOLD": "lifecycle",
    "Worker": "worker",
    "WriteError": "errors",
    "Writer": "recorder",
    "committed": "middleware",
    "compose": "middleware",
    "current_task": "middleware",
    "enqueue": "middleware",
    "enqueue_async": "middleware",
    "grouped": "middleware",
    "ledger_writer": "worker",
    "load_config": "config",
    "recorded": "middleware",
    "views": "worker",
}

__all__ = [
    "UNTOLD",
    "Config",
    "OtelQueueError",
    "Recorder",
    "Task",
    "Worker",
    "WriteError",
    "Writer",
    "__version__",
    "committed",
    "compose",
    "current_task",
    "enqueue",
    "enqueue_async",
    "grouped",
    "ledger_writer",
    "load_config",
    "recorded",
    "views",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
