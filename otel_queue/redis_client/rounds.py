"""Many readings in lock step: what they all ask for at the same time travels in one round trip.

A reading is a generator. It yields the Request it needs next, is sent the replies, and returns its result; a
ReadError is raised at its `yield` when its part could not be read. So each reading is written as if it were
alone, and a hundred of them cost as many round trips as the longest one.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Any, NamedTuple, TypeVar

from otel_queue.errors import ReadError
from otel_queue.redis_client.replies import time_us
from otel_queue.redis_client.requests import RedisLink, Reply, Request, request

_T = TypeVar("_T")
Reading = Generator[Request, list[Reply], _T]


class _Waiting(NamedTuple):
    reading: Reading[Any]
    done: Callable[[Any], None]
    failed: Callable[[ReadError], None] | None
    request: Request


class Rounds:
    """Runs readings until all have returned.

    `time` is Redis server time (Unix seconds) at the beginning of the latest round, None before the first one
    or when Redis refuses TIME; in a cluster, that of the node which serves `clock_key`. Not safe for threads: one
    instance serves one collection.
    """

    def __init__(self, link: RedisLink, deadline: float, *, clock_key: bytes) -> None:
        self._link = link
        # Travels first in every round: what the round before has found was written before this time.
        self._clock = request(clock_key, [("TIME",)])
        self._deadline = deadline
        self._waiting: list[_Waiting] = []
        self.round_trips = 0
        self.time: float | None = None

    def start(
        self,
        reading: Reading[_T],
        done: Callable[[_T], None],
        failed: Callable[[ReadError], None] | None = None,
    ) -> None:
        """Adds a reading.

        `done` gets its result, and may start others, which join at the next round. `failed` gets the ReadError
        with which it ended; without it, the error is raised out of `finish`.
        """
        self._advance(reading, done, failed, None)

    def finish(self) -> None:
        """Runs rounds until no reading waits; raises ReadError when Redis cannot be read at all."""
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            requests = [self._clock, *(item.request for item in waiting)]
            with closing(self._link.exchange(requests, self._deadline)) as answers:
                self.time = _time(next(answers))
                self.round_trips += 1
                for (reading, done, failed, _), answer in zip(waiting, answers, strict=True):
                    self._advance(reading, done, failed, answer)

    def run(self, readings: Iterable[Reading[_T]]) -> list[_T]:
        """The results of the readings, in their order; raises the first ReadError among them."""
        results: dict[int, _T] = {}
        count = 0
        for count, reading in enumerate(readings, start=1):
            self.start(reading, _keeper(results, count))
        self.finish()
        return [results[index] for index in range(1, count + 1)]

    def _advance(
        self,
        reading: Reading[_T],
        done: Callable[[_T], None],
        failed: Callable[[ReadError], None] | None,
        answer: list[Reply] | ReadError | None,
    ) -> None:
        """Takes the reading to its next request or its end; `answer` is None to start it."""
        try:
            if answer is None:
                wanted = next(reading)
            elif isinstance(answer, ReadError):
                wanted = reading.throw(answer)
            else:
                wanted = reading.send(answer)
        except StopIteration as stop:
            done(stop.value)
        except ReadError as error:
            if failed is None:
                raise
            failed(error)
        else:
            self._waiting.append(_Waiting(reading, done, failed, wanted))


def _keeper(results: dict[int, _T], index: int) -> Callable[[_T], None]:
    return lambda result: results.__setitem__(index, result)


def _time(clock: list[Reply] | ReadError) -> float | None:
    try:
        return None if isinstance(clock, ReadError) else time_us(clock[0]) / 1e6
    except ReadError:
        return None
