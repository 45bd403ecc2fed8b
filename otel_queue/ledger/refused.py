"""Records of projects that Redis refuses: they wait apart, and hold up nobody else's."""

import math
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from otel_queue.lifecycle import Record

FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 5.0
"""Pauses between tries double, from the first to the longest."""


@dataclass(slots=True)
class _Project:
    """One project's records, and when (time.monotonic) it is to be tried again."""

    due: float
    pause_seconds: float = FIRST_PAUSE_SECONDS
    records: deque[Record] = field(default_factory=deque)


class RefusedProjects:
    """A queue for each refused project, with pauses of its own; together they hold at most `most_records`.

    One thread changes it; its length may be asked for by any.
    """

    def __init__(self, most_records: int) -> None:
        self._most = most_records
        self._projects: dict[str, _Project] = {}
        self._records = 0

    def __len__(self) -> int:
        return self._records

    def __contains__(self, project: str) -> bool:
        return project in self._projects

    def add(self, records: Iterable[Record]) -> int:
        """Queues each record with its project's; how many were dropped for it, for want of room."""
        due = time.monotonic() + FIRST_PAUSE_SECONDS
        for record in records:
            waiting = self._projects.get(record.project)
            if waiting is None:
                waiting = self._projects[record.project] = _Project(due)
            waiting.records.append(record)
            self._records += 1
        return self._drop_what_is_too_much()

    def next_due(self) -> float:
        """When (time.monotonic) the next project is to be tried; infinity if there is none."""
        return min((project.due for project in self._projects.values()), default=math.inf)

    def oldest_due(self, most: int) -> list[Record]:
        """Records of the one project that has been due for longest; empty if none is."""
        due = self.next_due()
        if due > time.monotonic():
            return []
        waiting = next(project for project in self._projects.values() if project.due == due)
        return list(islice(waiting.records, most))

    def settle(self, tried: Sequence[Record], refused: Sequence[Record]) -> bool:
        """Takes off what `oldest_due` gave; what was refused goes to its project's end. True if none is left of it."""
        name = tried[0].project
        waiting = self._projects[name]
        for _ in tried:
            waiting.records.popleft()
        waiting.records.extend(refused)
        self._records += len(refused) - len(tried)
        if refused:
            waiting.pause_seconds = min(2 * waiting.pause_seconds, LONGEST_PAUSE_SECONDS)
            waiting.due = time.monotonic() + waiting.pause_seconds
        else:
            waiting.pause_seconds, waiting.due = FIRST_PAUSE_SECONDS, time.monotonic()
        if not waiting.records:
            del self._projects[name]
        return not waiting.records

    def hurry(self) -> None:
        """Makes every project due."""
        for project in self._projects.values():
            project.due, project.pause_seconds = 0.0, FIRST_PAUSE_SECONDS

    def _drop_what_is_too_much(self) -> int:
        """Of the project that has the most, for it is not to cost the others their room: its newest."""
        dropped = 0
        while (much := self._records - self._most) > 0:
            name, waiting = max(reversed(self._projects.items()), key=lambda item: len(item[1].records))
            some = min(much, (len(waiting.records) + 1) // 2)
            for _ in range(some):
                waiting.records.pop()
            if not waiting.records:
                del self._projects[name]
            self._records -= some
            dropped += some
        return dropped
