"""The standard output of a command, and what is said when it cannot be written."""

from typing import TextIO

from otel_queue.errors import OtelQueueError


class OutputError(OtelQueueError):
    """What a command has found could not be written to stdout."""


class Output:
    """stdout for print, whose failure is told apart from every other; a reader that has gone is BrokenPipeError."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes all of `text`; raises OutputError, also when stdout was closed from the beginning."""
        if self._stream is None:
            raise OutputError("the output cannot be written: stdout is closed")
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"the output cannot be written: {error.strerror}") from error

    def flush(self) -> None:
        """Writes what is left; raises OutputError."""
        if self._stream is None:
            return
        try:
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"the output cannot be written: {error.strerror}") from error
