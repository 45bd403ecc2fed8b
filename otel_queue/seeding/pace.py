"""The pace of a long run: pauses, patience with a Redis that refuses, and an end when it is asked for."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from otel_queue.errors import OtelQueueError, ReadError, WriteError

WRITE_SECONDS: Final = 30.0
"""How long one write to the ledger may take: nobody waits for it as a task would."""

_log: Final = logging.getLogger(__name__)

# What a second try may cure; a ledger above its memory limit may shrink when its days end.
_PASSING: Final = frozenset(
    {
        "aborted",
        "busy_script",
        "cannot_save",
        "cluster_down",
        "connection",
        "loading",
        "master_down",
        "memory_guard",
        "moved",
        "no_replicas",
        "out_of_memory",
        "readonly",
        "timeout",
    }
)
_PAUSES_SECONDS: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)

_T = TypeVar("_T")


class StoppedError(OtelQueueError):
    """The run was asked to end, and did between two batches."""


class Pace:
    """Rests `pause_seconds` between batches; `stop` ends the run at the next rest."""

    def __init__(
        self, pause_seconds: float, stop: threading.Event, patience_seconds: Sequence[float] = _PAUSES_SECONDS
    ) -> None:
        self._pause = pause_seconds
        self._stop = stop
        self._patience = patience_seconds

    def rest(self) -> None:
        """Waits for the pause between two batches; raises StoppedError."""
        self.wait(self._pause)

    def wait(self, seconds: float) -> None:
        """Waits that long, or raises StoppedError as soon as the run is to end."""
        if self._stop.wait(seconds):
            raise StoppedError("stopped between two batches; running it again goes on safely")

    def patiently(self, act: Callable[[], _T]) -> _T:
        """What `act` returns, tried again while the ledger refuses for something that may pass.

        `act` must be fit to be repeated. Raises its last ReadError or WriteError.
        """
        for pause in self._patience:
            try:
                return act()
            except (ReadError, WriteError) as error:
                if error.reason not in _PASSING:
                    raise
                _log.warning("ledger: trying again in %g s: %s", pause, error)
            self.wait(pause)
        return act()
