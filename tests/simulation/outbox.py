"""What hooks tell, on its way to Redis."""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from otel_queue.lifecycle import Record

SECOND_US: Final = 1_000_000


class Outbox:
    """Records on their way to Redis: mostly at once, some later than others, some twice."""

    _SOON_SECONDS: Final = 0.2
    _LATEST_SECONDS: Final = 4.0

    def __init__(self, sink: Callable[[Record], None], chance: random.Random, happened: Counter[str]) -> None:
        self._sink = sink
        self._chance = chance
        self._happened = happened
        self._numbers = itertools.count()
        self._waiting: list[tuple[int, int, Record]] = []

    def take(self, now_us: int, record: Record) -> None:
        for _ in range(2 if self._chance.random() < 0.05 else 1):
            longest = self._LATEST_SECONDS if self._chance.random() < 0.1 else self._SOON_SECONDS
            due = now_us + int(self._chance.uniform(0, longest) * SECOND_US)
            heapq.heappush(self._waiting, (due, next(self._numbers), record))

    def send(self, until_us: int | None) -> None:
        """What is due by then; None for everything."""
        batch: list[Record] = []
        while self._waiting and (until_us is None or self._waiting[0][0] <= until_us):
            batch.append(heapq.heappop(self._waiting)[2])
        self._send(batch)
        if batch and self._chance.random() < 0.05:
            self._happened["batch sent twice"] += 1
            self._send(batch)

    def _send(self, batch: Sequence[Record]) -> None:
        for record in batch:
            self._happened["told"] += 1
            self._sink(record)
