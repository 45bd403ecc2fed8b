"""Records of projects that could not be written: each project waits in a lane of its own, and holds up no other."""

import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

from otel_queue.errors import WriteError
from otel_queue.ledger.store import OF_ONE_PROJECT
from otel_queue.lifecycle import Record

FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 5.0
"""Pauses between tries double, from the first to the longest."""


@dataclass(slots=True, eq=False)
class Pause:
    """How long something waits for its next try, at `due` (time.monotonic); no seconds after a try that succeeded."""

    seconds: float = 0.0
    due: float = 0.0

    def lengthen(self) -> None:
        """After a try that failed."""
        self.seconds = min(max(2 * self.seconds, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        self.due = time.monotonic() + self.seconds

    def hurry(self) -> None:
        """Makes it due; the next pause is the first one again."""
        self.seconds, self.due = min(self.seconds, FIRST_PAUSE_SECONDS / 2), 0.0

    def end(self) -> None:
        """After a try that succeeded."""
        self.seconds = self.due = 0.0


@dataclass(slots=True)
class _Lane:
    """One project's records; `is_refused` if Redis refuses this project, and not the server all of its projects."""

    pause: Pause
    records: deque[Record] = field(default_factory=deque)
    is_refused: bool = False


class Turned(NamedTuple):
    """What a try changed, for the log: servers that fail from now on, projects that are refused, and their ends."""

    down: dict[str, WriteError]
    refused: dict[str, WriteError]
    up: list[str]
    accepted: list[str]


class FailingLanes:
    """A lane for each project that could not be written, until all its records are; `most_records` in all lanes.

    The projects of a server that fails share its pause, so that it is tried once and not once per project. `place`
    tells which server has a project. What is taken for a try stays counted until it is settled. Whoever calls holds a
    lock.
    """

    def __init__(self, most_records: int, place: Callable[[str], str]) -> None:
        self._most = most_records
        self._place = place
        self._lanes: dict[str, _Lane] = {}
        self._down: dict[str, Pause] = {}
        self._records = 0

    def __len__(self) -> int:
        return self._records

    def is_down(self, place: str) -> bool:
        """Whether the server fails."""
        return place in self._down

    def among(self, records: Sequence[Record]) -> frozenset[str]:
        """The projects of these records that are not to be tried with the others."""
        if not self._lanes and not self._down:
            return frozenset()
        projects = {record.project for record in records}
        return frozenset(each for each in projects if each in self._lanes or self._place(each) in self._down)

    def add(self, records: Iterable[Record]) -> int:
        """Queues each record in its project's lane; how many were dropped for want of room."""
        for record in records:
            lane = self._lanes.get(record.project)
            if lane is None:
                lane = self._lanes[record.project] = _Lane(self._down.get(self._place(record.project)) or Pause())
            lane.records.append(record)
            self._records += 1
        return self._drop_what_is_too_much()

    def fail(self, errors: Mapping[str, WriteError]) -> Turned:
        """Has the projects wait for as long as their errors call for."""
        turned = Turned({}, {}, [], [])
        pauses: set[Pause] = set()
        for project, error in errors.items():
            lane = self._lanes.setdefault(project, _Lane(Pause()))
            if error.reason in OF_ONE_PROJECT:
                if not lane.is_refused:
                    turned.refused[project] = error
                lane.is_refused = True
                if lane.pause in self._down.values():
                    lane.pause = Pause()
            else:
                place = self._place(project)
                if place not in self._down:
                    turned.down[place] = error
                lane.pause = self._down.setdefault(place, Pause())
            pauses.add(lane.pause)
        for pause in pauses:
            pause.lengthen()
        return turned

    def next_due(self) -> float:
        """When (time.monotonic) the next lane is to be tried; infinity if there is none."""
        return min((lane.pause.due for lane in self._lanes.values()), default=math.inf)

    def take(self, most: int) -> dict[str, list[Record]]:
        """The oldest records of the lanes that are due, by project, an even part of each; to be settled.

        Lanes whose last try succeeded do not wait for those whose last try failed.
        """
        for project in [project for project, lane in self._lanes.items() if not lane.records]:
            del self._lanes[project]  # dropped for want of room
        now = time.monotonic()
        due = [(project, lane) for project, lane in self._lanes.items() if lane.pause.due <= now]
        due = [item for item in due if not item[1].pause.seconds] or due
        part = max(1, most // max(1, len(due)))
        return {
            project: [lane.records.popleft() for _ in range(min(part, len(lane.records)))]
            for project, lane in islice(due, most)
        }

    def settle(self, taken: Mapping[str, Sequence[Record]], errors: Mapping[str, WriteError]) -> Turned:
        """Ends a try: `errors` are those of the projects that could not be written."""
        up: list[str] = []
        accepted: list[str] = []
        for project in taken.keys() - errors.keys():
            lane = self._lanes[project]
            self._records -= len(taken[project])
            lane.pause.end()
            for place in [place for place, pause in self._down.items() if pause is lane.pause]:
                del self._down[place]
                up.append(place)
            if not lane.records:
                del self._lanes[project]
                if lane.is_refused:
                    accepted.append(project)
        for project, error in errors.items():
            if error.reason in OF_ONE_PROJECT:
                # It may be a day that is refused: what stands behind it is tried next.
                self._lanes[project].records.extend(taken[project])
            else:
                self._lanes[project].records.extendleft(reversed(taken[project]))
        failed = self.fail(errors)
        # A server that takes some projects' records and not others' stays as it was told.
        changed = set(up) ^ failed.down.keys()
        down = {place: error for place, error in failed.down.items() if place in changed}
        return Turned(down, failed.refused, [place for place in up if place in changed], accepted)

    def hurry(self) -> None:
        """Makes every lane due."""
        for lane in self._lanes.values():
            lane.pause.hurry()

    def _drop_what_is_too_much(self) -> int:
        """Of the project that has the most, for it is not to cost the others their room: its newest."""
        much = self._records - self._most
        if much <= 0:
            return 0
        longest = [(-len(lane.records), -number, lane) for number, lane in enumerate(self._lanes.values())]
        heapq.heapify(longest)
        dropped = 0
        while dropped < much and longest[0][0]:
            _, number, lane = longest[0]
            some = min(much - dropped, (len(lane.records) + 1) // 2)
            for _ in range(some):
                lane.records.pop()
            heapq.heapreplace(longest, (-len(lane.records), number, lane))
            dropped += some
        self._records -= dropped
        return dropped
