"""What the reference holds of a project; days and rules as docs/ledger-protocol.md has them."""

import datetime
import functools
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

DAY_SECONDS: Final = 86_400
UNDATED: Final = "undated"
SETTLED: Final = "settled"
PROCESSING: Final = 2
# Kinds of records of a delivery, and of creation times.
SET, CREATED, ROW = 0, 1, 2
CREATED_BY_ROW: Final = 4
FIRST_FINAL: Final = 4
NODE_ENTRIES: Final = 3
_EPOCH: Final = datetime.datetime(1970, 1, 1)


def day_of(seconds: int) -> str:
    return f"{_EPOCH + datetime.timedelta(seconds=seconds):%Y%m%d}"


@functools.cache
def end_of(day: str) -> int:
    return int((datetime.datetime.strptime(day, "%Y%m%d") - _EPOCH).total_seconds()) + DAY_SECONDS


class Rule(NamedTuple):
    from_day: str
    track_days: int
    attempt_days: int
    most_groups: int


@functools.cache
def tracked_until(contract: str, day: str) -> int:
    """The Unix second until which a day is tracked, and with it no earlier day that a longer rule has."""
    begins = [rule.split(":")[0] for rule in contract.split(";")[4:-1]]
    # The last day of each rule is the one before the next rule begins.
    lasts = [day_of(end_of(begin) - DAY_SECONDS - 1) for begin in begins if begin <= day]
    return max(end_of(last) + rule_of(contract, last).track_days * DAY_SECONDS for last in [*lasts, day])


@functools.cache
def rule_of(contract: str, day: str) -> Rule:
    rules = [rule.split(":") for rule in contract.split(";")[3:-1]]
    return [Rule(each[0], *map(int, each[1:])) for each in rules if each[0] <= day][-1]


class Told(NamedTuple):
    """One label: the kind of the record that told it, the record's time, the value; an untold value is empty."""

    kind: int = 0
    at: int = 0
    value: bytes = b""


class Ahead(NamedTuple):
    """A status that was set back, as it was told."""

    is_set: bool
    at: int
    status: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery that is held. `told` is what is kept of where its labels come from; their values are its group's."""

    day: str
    status: int
    status_at: int
    is_set: bool
    created: int
    created_kind: int
    told: tuple[tuple[int, int], ...]
    group: int
    ahead: Ahead | None = None


@dataclass(frozen=True, slots=True)
class Event:
    day: str
    at: int
    group: int


class Attempt(NamedTuple):
    day: str
    number: int


@dataclass(slots=True)
class Project:
    """One project. An id is known under the day that it is kept under: `undated` for one that tells none."""

    contract: str = ""
    sequence: int | None = None
    described: tuple[int, tuple[bytes, bytes, bytes]] = (0, (b"", b"", b""))
    marks: dict[str, str] = field(default_factory=dict)
    tallies: Counter[str] = field(default_factory=Counter)
    groups: dict[bytes, int] = field(default_factory=dict)
    last_group: int = 0
    counts: dict[str, Counter[tuple[int, str]]] = field(default_factory=dict)
    index: dict[str, set[tuple[int, int, bytes]]] = field(default_factory=dict)
    attempts: Counter[bytes] = field(default_factory=Counter)
    deliveries: dict[tuple[str, bytes], Delivery] = field(default_factory=dict)
    events: dict[tuple[str, bytes], Event] = field(default_factory=dict)
    attempt_ids: dict[tuple[str, bytes], Attempt] = field(default_factory=dict)
    attempt_labels: dict[bytes, int] = field(default_factory=dict)
    open: dict[bytes, Delivery] = field(default_factory=dict)
    copied_whole: bool = False
    """Whether all of the day that is being settled was copied, or only its first node and what changed since."""
    changed_while_settling: set[bytes] = field(default_factory=set)
    open_undated: set[bytes] = field(default_factory=set)
    """Undated deliveries of days that were settled or ended, which are not final."""

    def is_expired(self, day: str) -> bool:
        return day <= self.marks.get("expired", "")

    def is_settled(self, day: str) -> bool:
        return day <= self.marks.get(SETTLED, "")

    def counted_as(self, day: str) -> str:
        return SETTLED if day <= self.marks.get("folded", "") else day

    def labels_of(self, group: int) -> bytes:
        return next((labels for labels, number in self.groups.items() if number == group), b"")

    def deliveries_by_group(self) -> Counter[tuple[int, int]]:
        """(group, status) -> deliveries, over all days."""
        found: Counter[tuple[int, int]] = Counter()
        for counts in self.counts.values():
            found.update({(group, int(kind)): count for (group, kind), count in counts.items() if kind != "e"})
        return found

    def events_by_group(self) -> Counter[int]:
        found: Counter[int] = Counter()
        for counts in self.counts.values():
            found.update({group: count for (group, kind), count in counts.items() if kind == "e"})
        return found

    def oldest(self) -> dict[int, int]:
        """Group -> creation time of its oldest delivery in processing."""
        found: dict[int, int] = {}
        for members in self.index.values():
            for group, created, _ in members:
                found[group] = min(created, found.get(group, created))
        return found
