"""The last minutes of every queue, and where endpoints' failures stood before them. In memory, and bounded."""

import math
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from otel_queue.catalog import by_key
from otel_queue.samples import Family
from otel_queue.status import Point

_PENDING, _PROCESSED, _FAILED = range(3)
_UNKNOWN: Final = math.nan
_RATE_SECONDS: Final = 60.0

Endpoint = tuple[str, str]


class History:
    """One point per snapshot of the queues, at most one every `step_seconds`, for `kept_seconds`.

    `most_queues` queues are remembered, 5 KB each when full; of more, those known longest. Not safe for threads.
    """

    def __init__(
        self,
        *,
        kept_seconds: float = 900.0,
        step_seconds: float = 5.0,
        most_queues: int = 500,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._kept = kept_seconds
        self._step = step_seconds
        self._most_queues = most_queues
        self._now = now
        self._times = array("d")  # by the clock of the snapshots, Redis's
        self._ahead = 0.0  # how far our clock is ahead of it
        self._series: dict[str, tuple[array[float], array[float], array[float]]] = {}

    def record(self, families: Mapping[str, Family]) -> None:
        """Takes a point from the queue families, if they are newer than the last one by `step_seconds`."""
        size = families.get("asynq_queue_size")
        if size is None or not self._is_due(size.time):
            return
        self._ahead = self._now() - size.time
        found: dict[str, list[float]] = {}
        for index, pairs in enumerate(_values(families)):
            for queue, value in pairs:
                found.setdefault(queue, [_UNKNOWN] * 3)[index] = value
        for queue, values in found.items():
            if queue not in self._series and len(self._series) < self._most_queues:
                blank = [_UNKNOWN] * len(self._times)
                self._series[queue] = (array("d", blank), array("d", blank), array("d", blank))
            for kept, value in zip(self._series.get(queue, ()), values, strict=False):
                kept.append(value)
        self._times.append(size.time)
        self._forget_the_old()

    def queues(self) -> list[str]:
        """The queues with a point that is kept, sorted."""
        return sorted(self._series)

    def points(self, queue: str) -> tuple[Point, ...]:
        """A queue's points, oldest first, at times of this process's clock; empty for a queue that is not known."""
        kept = self._series.get(queue)
        if kept is None:
            return ()
        rates = [[None, *(_rate(step) for step in self._steps(kept[index]))] for index in (_PROCESSED, _FAILED)]
        return tuple(
            Point(moment + self._ahead, _known(pending), processed, failed)
            for moment, pending, processed, failed in zip(self._times, kept[_PENDING], *rates, strict=True)
        )

    def rates(self, queue: str) -> tuple[float | None, float | None]:
        """Attempts finished and failed per second over the last minute, or over the last step if that is longer."""
        kept = self._series.get(queue)
        if kept is None:
            return None, None
        recent = _since(self._times)
        processed, failed = (_rate_of(self._steps(kept[index], recent)) for index in (_PROCESSED, _FAILED))
        return processed, failed

    def _is_due(self, moment: float) -> bool:
        if self._times and moment < self._times[-1] - self._kept:
            self._times, self._series = array("d"), {}  # another Redis with another clock: a new beginning
        return not self._times or moment >= self._times[-1] + self._step

    def _forget_the_old(self) -> None:
        count = len(self._times)
        horizon = self._times[-1] - self._kept
        old = next(index for index, moment in enumerate(self._times) if moment >= horizon)
        del self._times[:old]
        for queue, series in list(self._series.items()):
            for kept in series:
                if len(kept) < count:
                    kept.append(_UNKNOWN)  # not in this snapshot
                del kept[:old]
            if all(math.isnan(value) for kept in series for value in kept):
                del self._series[queue]

    def _steps(self, values: "array[float]", start: int = 0) -> Iterator[tuple[float, float]]:
        """Seconds and increase from one point to the next; the increase is nan where it is not known."""
        for index in range(start + 1, len(values)):
            increase = values[index] - values[index - 1]
            # A counter that went down has begun anew: nobody knows what it lost.
            yield self._times[index] - self._times[index - 1], increase if increase >= 0 else _UNKNOWN


class FailureMemory:
    """Where every endpoint's failed attempts stood some minutes ago, so that a page can say who fails now.

    Two standings are kept, a new one every `half_seconds`; each holds at most `most_endpoints`. Not safe for threads.
    """

    def __init__(
        self, *, half_seconds: float = 450.0, most_endpoints: int = 20_000, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._half = half_seconds
        self._most = most_endpoints
        self._now = now
        self._standings: list[tuple[float, Mapping[Endpoint, float], bool]] = []
        self._origin: tuple[str, float | None] | None = None

    def record(self, attempts: Family | None) -> None:
        """Takes a standing from the attempts counter if one is due. Cost: one pass over it, every `half_seconds`."""
        if attempts is None:
            return
        origin = (attempts.source, attempts.start)
        if origin != self._origin:  # another ledger, which counts from another beginning
            self._origin, self._standings = origin, []
        now = self._now()
        if self._standings and now - self._standings[-1][0] < self._half:
            return
        failed = failures(attempts)
        is_whole = len(failed) <= self._most
        kept = failed if is_whole else dict(sorted(failed.items(), key=lambda item: -item[1])[: self._most])
        self._standings = [*self._standings[-1:], (now, kept, is_whole)]

    def lately_seconds(self) -> float | None:
        """How far back the older standing lies; None before there is one that is not of this moment."""
        if not self._standings:
            return None
        age = self._now() - self._standings[0][0]
        return age if age >= 1.0 else None

    def increase(self, endpoint: Endpoint, failed: float) -> float | None:
        """By how much an endpoint's failures grew since, given where they stand now; None if that is not known."""
        if self.lately_seconds() is None:
            return None
        _, standing, is_whole = self._standings[0]
        before = standing.get(endpoint, 0.0 if is_whole else None)
        return None if before is None or failed < before else failed - before


def failures(attempts: Family) -> dict[Endpoint, float]:
    """The failed attempts by project and endpoint; endpoints without one are left out."""
    found: dict[Endpoint, float] = {}
    for (project, endpoint, status), value in by_key(attempts, "project", "endpoint", "status"):
        if status == "failure":
            found[project, endpoint] = found.get((project, endpoint), 0.0) + value
    return found


def _values(families: Mapping[str, Family]) -> Iterator[Iterable[tuple[str, float]]]:
    """The (queue, value) pairs of the three series, in their order."""
    states = by_key(families.get("asynq_tasks_enqueued_total"), "queue", "state")
    yield ((queue, value) for (queue, state), value in states if state == "pending")
    for name in ("asynq_tasks_processed_total", "asynq_tasks_failed_total"):
        yield ((queue, value) for (queue,), value in by_key(families.get(name), "queue"))


def _since(times: "array[float]") -> int:
    """The index of the newest point that lies a minute back, or of the one before the last."""
    for index in range(len(times) - 2, -1, -1):
        if times[-1] - times[index] >= _RATE_SECONDS:
            return index
    return 0


def _rate(step: tuple[float, float]) -> float | None:
    seconds, increase = step
    return _known(increase / seconds)


def _rate_of(steps: Iterable[tuple[float, float]]) -> float | None:
    known = [(seconds, increase) for seconds, increase in steps if not math.isnan(increase)]
    return sum(increase for _, increase in known) / sum(seconds for seconds, _ in known) if known else None


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
