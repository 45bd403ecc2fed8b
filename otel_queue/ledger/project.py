"""One project of the ledger as last read."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from otel_queue.lifecycle import STATUSES

PROCESSING: Final = STATUSES.index("processing") + 1
_OF_IDS: Final = ("event", "delivery", "attempt")
# What is counted of records, and of which kinds of them.
TALLIED: Final = {"duplicate": _OF_IDS, "late": _OF_IDS, "clamped": (*_OF_IDS, "project", "day")}


class Labels(NamedTuple):
    """What a group of deliveries has in common; None is unknown."""

    endpoint: str | None
    event_type: str | None
    source: str | None


@dataclass(slots=True)
class Day:
    """The counts of one day: deliveries by (group, status rank), events by group, and the oldest in processing."""

    score: float
    deliveries: Mapping[tuple[int, int], int] = field(default_factory=dict)
    events: Mapping[int, int] = field(default_factory=dict)
    oldest_us: Mapping[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Project:
    """One project as last read. `deliveries` and `events` are the sums over its days.

    `history` is the replication id of the Redis that it was read from, b"" if that is not known. `approximate` is the
    last day whose counts were put and not tracked, "" if there is none. Within one `memory` attempts only grow, or end.
    """

    project: str
    sequence: int = -1
    names: tuple[str, str, str] = ("", "", "")
    approximate: str = ""
    days: dict[str, Day] = field(default_factory=dict)
    deliveries: Counter[tuple[int, int]] = field(default_factory=Counter)
    events: Counter[int] = field(default_factory=Counter)
    attempts: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    tallies: Mapping[str, int] = field(default_factory=dict)
    groups: dict[int, Labels] = field(default_factory=dict)
    sources: dict[int, str | None] = field(default_factory=dict)
    history: bytes = b""
    memory: object = field(default_factory=object, compare=False)

    def forget(self) -> None:
        """Forgets what changes are told apart from, so that all of it is read anew."""
        self.sequence = -1
        self.days, self.deliveries, self.events = {}, Counter(), Counter()
        self.attempts, self.groups, self.sources = {}, {}, {}
        self.memory = object()

    def oldest_us(self) -> dict[int, int]:
        """Group -> creation time (Unix microseconds) of its oldest delivery in processing."""
        oldest: dict[int, int] = {}
        for day in self.days.values():
            for group, created in day.oldest_us.items():
                oldest[group] = min(created, oldest.get(group, created))
        return oldest

    def put(self, name: str, day: Day | None) -> None:
        """Replaces a day (None takes it away), and keeps the sums."""
        old = self.days.pop(name, None)
        if old is not None:
            self.deliveries.subtract(old.deliveries)
            self.events.subtract(old.events)
        if day is not None:
            self.days[name] = day
            self.deliveries.update(day.deliveries)
            self.events.update(day.events)
        self.deliveries = +self.deliveries
        self.events = +self.events


def label_of(told: bytes) -> str | None:
    """A label as the ledger keeps it: "=" and its value; None for one that nobody told."""
    return told[1:].decode("utf-8", "replace") if told else None
