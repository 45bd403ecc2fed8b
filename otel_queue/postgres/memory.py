"""What one exporter remembers by itself: enough to go on while the store of the generations is gone."""

import random
import time
from typing import Final

from otel_queue.errors import ReadError
from otel_queue.postgres.generation import Generation

# An exporter that is alone waits up to this many intervals, so that those that lost the store together drift apart.
_MOST_INTERVALS: Final = 1.5


class Memory:
    """The newest generation that this exporter has seen or made, and why it could not make a newer one.

    `is_shared` is false for a generation that was made while the store was gone: no other exporter has it.
    """

    def __init__(self, interval_seconds: float) -> None:
        self._interval = interval_seconds
        self._patience = 0.0
        self._began: float | None = None  # by the monotonic clock, as all times here
        self._failed: float | None = None
        self.generation: Generation | None = None
        self.failure: ReadError | None = None
        self.is_shared = True

    def put(self, generation: Generation, began: float, *, is_shared: bool = True) -> None:
        """Remembers a generation read at `began`, in `time.monotonic` seconds, unless a newer one is remembered."""
        if generation is self.generation or (self._began is not None and began < self._began):
            return
        self.generation, self._began, self.is_shared = generation, began, is_shared
        self.failure = self._failed = None
        self._patience = self._draw()

    def share(self, generation: Generation) -> None:
        """Puts what other exporters have now in the place of what was remembered: the same, by the store's clock."""
        self.generation, self.is_shared = generation, True

    def fail(self, error: ReadError) -> None:
        """Remembers why there is no newer generation, and that the database is not to be asked again at once."""
        self.failure, self._failed = error, time.monotonic()
        self._patience = self._draw()

    @property
    def age_seconds(self) -> float:
        """How long ago the generation was read; 0 without one."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    @property
    def is_due(self) -> bool:
        """Whether an exporter that is alone is to read: an interval after it last did, or tried, and some more."""
        tried = [each for each in (self._began, self._failed) if each is not None]
        return not tried or time.monotonic() - max(tried) >= self._patience

    def _draw(self) -> float:
        return self._interval * random.uniform(1.0, _MOST_INTERVALS)  # noqa: S311 - apart, not secret
