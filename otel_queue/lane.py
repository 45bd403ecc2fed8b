"""A lane: one source, read by all readers. One collection serves the scrape and the push of the same moment."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from otel_queue.errors import OtelQueueError, ReadError, WriteError
from otel_queue.recent_errors import RecentErrors
from otel_queue.samples import Family
from otel_queue.selection import Supply
from otel_queue.status import LaneState

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Collected:
    """What one collection found, and what it could not read (reason -> count).

    `age_seconds` is how old the values were already, where the source keeps them itself. It is not `whole` if a family
    lacks samples that could not be read. `folded` is how many series of a metric went into `other`.
    """

    families: list[Family]
    failures: Mapping[str, int] = field(default_factory=dict)
    age_seconds: float = 0.0
    whole: bool = True
    folded: Mapping[str, int] = field(default_factory=dict)


class Lane:
    """Collects at most once per `min_interval_seconds`, whoever asks, and never twice at a time.

    When collections fail, the last families stay for `max_staleness_seconds` and then disappear: absent beats
    stale. Safe for threads.
    """

    def __init__(
        self,
        name: str,
        collect: Callable[[], Collected],
        *,
        min_interval_seconds: float,
        max_staleness_seconds: float,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._collect = collect
        self._min_interval = min_interval_seconds
        self._max_staleness = max_staleness_seconds
        self._now = now
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._running: threading.Event | None = None
        self._attempted: float | None = None  # by the monotonic clock
        self._succeeded: float | None = None  # by the monotonic clock
        self._last_success: float | None = None  # Unix time
        self._duration: float | None = None
        self._up: bool | None = None
        self._whole = True
        self._folded: Mapping[str, int] = {}
        self._families: Mapping[str, Family] = {}
        self._errors: Counter[str] = Counter()
        self._last_error: str | None = None
        self._recent = RecentErrors(name)

    def refresh(self, budget_seconds: float) -> None:
        """Makes the families as fresh as `min_interval_seconds`, waiting at most `budget_seconds`.

        A collection that takes longer goes on in the background; its result serves the next reader. Raises
        nothing: a failure shows in `state`.
        """
        with self._lock:
            running, is_ours = self._running, False
            if running is None:
                if self._attempted is not None and self._monotonic() - self._attempted < self._min_interval:
                    return
                running, is_ours = threading.Event(), True
                self._running = running
        if is_ours:
            self._begin(running)
        running.wait(budget_seconds)

    def wait(self, budget_seconds: float) -> None:
        """Waits for a collection that runs, at most `budget_seconds`."""
        with self._lock:
            running = self._running
        if running is not None:
            running.wait(budget_seconds)

    def families(self) -> Mapping[str, Family]:
        """The current families by metric name; empty before the first success and past `max_staleness_seconds`."""
        return self.supply().families

    def supply(self) -> Supply:
        """The current families, and whether the last collection found them all: all of one collection."""
        with self._lock:
            age = self._age()
            families = self._families if age is not None and age <= self._max_staleness else {}
            return Supply(families, well=self._up is True and self._whole, folded=self._folded)

    def state(self) -> LaneState:
        """How the lane is doing now."""
        with self._lock:
            age = self._age()
            return LaneState(
                name=self.name,
                up=self._up,
                duration_seconds=self._duration,
                last_success=self._last_success,
                age_seconds=age,
                errors=dict(self._errors),
                last_error=self._last_error,
                stale=age is not None and age > self._max_staleness,
                recent=self._recent.newest_first(),
            )

    def _age(self) -> float | None:
        return None if self._succeeded is None else self._monotonic() - self._succeeded

    def _begin(self, running: threading.Event) -> None:
        """Collects in a thread of its own; that there is none to be had is a failure like another."""
        started = self._monotonic()
        try:
            name = f"otel-queue-{self.name}"
            threading.Thread(target=self._run, args=(running,), name=name, daemon=True).start()
        except RuntimeError as error:
            text = f"no thread to collect in: {error}; raise the limit on threads (pids.max, TasksMax, ulimit -u)"
            self._settle(None, ReadError("out_of_threads", text), started, running)

    def _run(self, running: threading.Event) -> None:
        started = self._monotonic()
        collected: Collected | None = None
        error: Exception | None = None
        try:
            collected = self._collect()
        except Exception as caught:  # whatever it is, the lane must go on and say so
            error = caught
            if not isinstance(caught, OtelQueueError):
                _log.exception("lane %s: collection failed in an unexpected way", self.name)
        finally:
            self._settle(collected, error, started, running)

    def _settle(
        self, collected: Collected | None, error: Exception | None, started: float, running: threading.Event
    ) -> None:
        with self._lock:
            ended = self._attempted = self._monotonic()
            self._duration = ended - started
            if collected is not None:
                self._families = {family.name: family for family in collected.families}
                self._errors.update(collected.failures)
                for reason, count in collected.failures.items():
                    self._recent.note(reason, "some of what was asked for could not be read", self._now(), count)
                self._whole, self._folded = collected.whole, collected.folded
                # The age counts from before the reading: the values are at least this old.
                self._succeeded = started - collected.age_seconds
                self._last_success = self._now() - (ended - self._succeeded)
                changed, self._up = self._up is not True, True
            else:
                reason = error.reason if isinstance(error, ReadError | WriteError) else "internal"
                self._errors[reason] += 1
                self._last_error = str(error) or type(error).__name__
                self._recent.note(reason, self._last_error, self._now())
                changed, self._up = self._up is not False, False
            self._running = None
        if changed:  # one line when it turns, not one per scrape
            if error is None:
                _log.info("lane %s: reading", self.name)
            else:
                _log.warning("lane %s: failing: %s", self.name, self._last_error)
        running.set()
