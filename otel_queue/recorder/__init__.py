"""What workers call when something has happened."""

from otel_queue.recorder.asynchronous import AsynchronousRecorder
from otel_queue.recorder.recorder import Recorder
from otel_queue.recorder.writer import Writer

__all__ = ["AsynchronousRecorder", "Recorder", "Writer"]
