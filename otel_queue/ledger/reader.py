"""Reading the ledger: costs by the projects and days that changed, not by what was ever tracked."""

import re
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from otel_queue.errors import ReadError
from otel_queue.ledger.identity import days_up_to
from otel_queue.ledger.keys import ATTEMPTS, Keys, ProjectKeys
from otel_queue.lifecycle import STATUSES
from otel_queue.redis_client import (
    Reading,
    RedisLink,
    Reply,
    Rounds,
    array,
    counter,
    decimal,
    names,
    request,
    scored,
    taking_apart,
    text,
)
from otel_queue.shard import WHOLE, Shard

PROCESSING: Final = STATUSES.index("processing") + 1
_OF_IDS: Final = ("event", "delivery", "attempt")
# What is counted of records, and of which kinds of them.
TALLIED: Final = {"duplicate": _OF_IDS, "late": _OF_IDS, "clamped": (*_OF_IDS, "project", "day")}
_TALLIES: Final = tuple(f"{what}:{kind}" for what, kinds in TALLIED.items() for kind in kinds)
# Texts about the project as a whole.
_NAMES: Final = ("project_name", "organisation_id", "organisation_name")
_TEXTS: Final = (*_NAMES, "approximate", "expired")
# What a Redis was told is a history, and has an id: a master that lost the end of it, a replica that took over without
# it, and a Redis in the place of another go on under another id.
_HISTORY: Final = ("INFO", "replication")
_HISTORY_ID: Final = re.compile(rb"^master_replid:(\w+)", re.MULTILINE)
# A reader that has nothing to remember looks so many days back for counts of days that are not listed.
_DAYS_BACK: Final = 31


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
    last day whose counts were put and not tracked, "" if there is none.
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

    def forget(self) -> None:
        """Forgets what changes are told apart from, so that all of it is read anew."""
        self.sequence = -1
        self.days, self.deliveries, self.events = {}, Counter(), Counter()
        self.attempts, self.groups, self.sources = {}, {}, {}

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


@dataclass(frozen=True, slots=True)
class LedgerSnapshot:
    """The ledger at `time` (Redis server time, Unix seconds). `birth_us` is when it began.

    `projects` are those that could be read; `failures` counts what could not be, by reason.
    """

    time: float
    birth_us: int
    projects: tuple[Project, ...]
    failures: Mapping[str, int]
    duration_seconds: float
    round_trips: int


class LedgerReader:
    """Reads the projects of its shard, and remembers what it read. Safe for threads: one read at a time.

    What it remembers is of one history: the same sequence numbers and numbers of groups mean other things in a Redis
    that lost the end of what was read from it, or another. So each project is asked for together with the replication
    id of who answers. Where INFO is refused, only numbers that went back tell.
    """

    def __init__(
        self, link: RedisLink, *, namespace: str = "oq", timeout_seconds: float = 5.0, shard: Shard = WHOLE
    ) -> None:
        self._link = link
        self._shard = shard
        self._keys = Keys(namespace)
        self._timeout = timeout_seconds
        self._projects: dict[str, Project] = {}
        self._birth_us: int | None = None
        self._lock = threading.Lock()

    def snapshot(self) -> LedgerSnapshot:
        """The ledger now. Two round trips when nothing changed, five when something did, and one more when a day of a
        project has gone, or a project is read for the first time.

        Raises ReadError when it cannot be read, and with reason `no_birth` when it has no birth marker: a ledger
        that was flushed is unknown, not empty.
        """
        with self._lock:
            return self._snapshot()

    def _snapshot(self) -> LedgerSnapshot:
        started = time.monotonic()
        rounds = Rounds(self._link, started + self._timeout, clock_key=self._keys.birth)
        births: list[int | None] = []
        listed: list[str] = []
        rounds.start(_read_birth(self._keys), births.append)
        rounds.start(_read_projects(self._keys), listed.extend)
        rounds.finish()
        listed = [project for project in listed if self._shard.owns(project)]
        [birth] = births
        if birth != self._birth_us:
            self._projects.clear()  # another ledger than the one we remember, or none
            self._birth_us = birth
        if birth is None:
            raise ReadError(
                "no_birth", f"{self._keys.birth.decode()} is missing: the ledger was never begun, or was lost"
            )
        failures: Counter[str] = Counter()

        def count(error: ReadError) -> None:
            failures[error.reason] += 1

        found: list[Project] = []
        for name in listed:
            project = self._projects.setdefault(name, Project(name))
            rounds.start(_read_project(project, self._keys.project(name)), found.append, count)
        rounds.finish()
        for name in set(self._projects) - set(listed):
            del self._projects[name]
        return LedgerSnapshot(
            time=rounds.time or time.time(),
            birth_us=birth,
            projects=tuple(sorted(found, key=lambda project: project.project)),
            failures=dict(failures),
            duration_seconds=time.monotonic() - started,
            round_trips=rounds.round_trips,
        )


def _read_birth(keys: Keys) -> Reading[int | None]:
    replies = yield request(keys.birth, [("GET", keys.birth)])
    return counter(replies[0])


def _read_projects(keys: Keys) -> Reading[list[str]]:
    replies = yield request(keys.projects, [("ZRANGE", keys.projects, 0, -1)])
    return [name.decode("utf-8", "replace") for name in names(replies[0])]


def _read_project(project: Project, keys: ProjectKeys) -> Reading[Project]:
    with taking_apart(f"what the ledger has of {project.project}"):
        return (yield from _read_changes(project, keys))


def _read_changes(project: Project, keys: ProjectKeys) -> Reading[Project]:
    # The id first: what is read after it is of that history, or of a later one that the next read will tell.
    told_history, meta = yield request(keys.meta, [_HISTORY, ("HMGET", keys.meta, "sequence", *_TEXTS, *_TALLIES)])
    history = _history(told_history) or project.history
    if history != project.history:
        project.forget()
        project.history = history
    told_sequence, *values = (text(value) for value in array(meta))
    if told_sequence is None:
        project.forget()
        raise ReadError("project_lost", f"{project.project} is registered and has no meta")
    described, tallies = values[: len(_TEXTS)], values[len(_TEXTS) :]
    *told, project.approximate, expired = ((value or b"").decode("utf-8", "replace") for value in described)
    project.names = told[0], told[1], told[2]
    project.tallies = {name: decimal(value) for name, value in zip(_TALLIES, tallies, strict=True) if value}
    sequence = decimal(told_sequence)
    if sequence == project.sequence:
        return project
    replies = yield request(keys.days, [_listed(keys)])
    scores = _scores(replies[0])
    went_back = any(scores.get(name, day.score) < day.score for name, day in project.days.items())
    if went_back or sequence < project.sequence:
        project.forget()  # within a history numbers only grow
    yield from _look_for_unlisted(project, keys, expired, scores)
    for gone in set(project.days) - set(scores):
        project.put(gone, None)
    changed = [day for day, score in scores.items() if day not in project.days or project.days[day].score != score]
    yield from _read_days(project, keys, {day: scores[day] for day in changed})
    project.sequence = sequence
    return project


def _history(reply: Reply) -> bytes:
    """The replication id; b"" where it is not told: INFO is refused, or a proxy has none."""
    found = _HISTORY_ID.search(reply) if isinstance(reply, bytes) else None
    return found[1] if found else b""


def _listed(keys: ProjectKeys) -> tuple[bytes | str | int, ...]:
    return ("ZRANGE", keys.days, 0, -1, "WITHSCORES")


def _scores(reply: Reply) -> dict[str, float]:
    return {member.decode(): score for member, score in scored(reply)}


def _look_for_unlisted(project: Project, keys: ProjectKeys, expired: str, listed: Mapping[str, float]) -> Reading[None]:
    """Raises ReadError where a day has counts and is not listed: without it they would read as nothing.

    Looks at the days that were there the last time, or at all of the last weeks for a project that was not read yet.
    """
    known = project.days if project.sequence >= 0 else days_up_to(time.time(), _DAYS_BACK)
    missing = [day for day in known if day not in listed and day > expired]
    if not missing:
        return
    replies = yield request(keys.days, [("HGETALL", keys.stored(day)) for day in missing])
    if not (missing := [day for day, reply in zip(missing, replies, strict=True) if names(reply)]):
        return
    # Once more, behind the list: a day may have begun or ended meanwhile.
    again, *replies = yield request(keys.days, [_listed(keys), *(("HGETALL", keys.stored(day)) for day in missing)])
    listed = _scores(again)
    if unlisted := [day for day, reply in zip(missing, replies, strict=True) if names(reply) and day not in listed]:
        raise ReadError("day_unlisted", f"{project.project} has counts of {', '.join(unlisted)}, which are not listed")


def _read_days(project: Project, keys: ProjectKeys, scores: Mapping[str, float]) -> Reading[None]:
    if not scores:
        return
    replies = yield request(keys.days, [("HGETALL", keys.stored(day)) for day in scores])
    days: dict[str, Day] = {}
    for (day, score), reply in zip(scores.items(), replies, strict=True):
        pairs = _pairs(reply)
        if not pairs:
            # The day may have expired since it was listed; if it is listed still, its counts were lost.
            again = yield request(keys.days, [_listed(keys)])
            if day in _scores(again[0]):
                raise ReadError("day_lost", f"{project.project} {day} is listed and has no counts")
        elif day == ATTEMPTS:
            project.attempts = {_attempt(field): decimal(count) for field, count in pairs.items()}
            days[day] = Day(score)
        else:
            days[day] = _day(score, pairs)
    yield from _read_labels(project, keys, days.values())
    yield from _read_oldest(project, keys, days)
    for name, day_read in days.items():
        project.put(name, day_read)


def _day(score: float, pairs: Mapping[bytes, bytes]) -> Day:
    deliveries: dict[tuple[int, int], int] = {}
    events: dict[int, int] = {}
    for name, count in pairs.items():
        group, _, kind = name.partition(b":")
        if kind == b"e":
            events[decimal(group)] = decimal(count)
        else:
            rank = decimal(kind)
            if not 1 <= rank <= len(STATUSES):
                raise ReadError("bad_value", f"{name[:40]!r} counts deliveries in no status")
            deliveries[decimal(group), rank] = decimal(count)
    return Day(score, deliveries, events)


def _read_labels(project: Project, keys: ProjectKeys, days: Iterable[Day]) -> Reading[None]:
    """Learns the labels of groups that were not met before."""
    of_deliveries = {group for day in days for group, _ in day.deliveries if group and group not in project.groups}
    of_events = {group for day in days for group in day.events if group and group not in project.sources}
    wanted = of_deliveries | of_events
    if not wanted:
        return
    ordered = sorted(wanted)
    replies = yield request(keys.groups, [("HMGET", keys.groups, *(f"#{group}" for group in ordered))])
    for group, value in zip(ordered, array(replies[0]), strict=True):
        told = text(value)
        if told is None:
            raise ReadError("group_lost", f"group {group} of {project.project} has no labels")
        if told.startswith(b"event"):
            project.sources[group] = label_of(told.removeprefix(b"event"))
        else:
            project.groups[group] = Labels(*(label_of(part) for part in told.split(b"\0")))
    if not (of_deliveries <= project.groups.keys() and of_events <= project.sources.keys()):
        raise ReadError("group_lost", f"groups of {project.project} have the labels of another kind")


def _read_oldest(project: Project, keys: ProjectKeys, days: Mapping[str, Day]) -> Reading[None]:
    """The oldest delivery in processing of each group that has one, without looking at the others."""
    wanted = [
        (name, group)
        for name, day in days.items()
        for (group, status), count in day.deliveries.items()
        if status == PROCESSING and count > 0
    ]
    if not wanted:
        return
    replies = yield request(keys.days, [_first(keys, *each) for each in wanted])
    found: dict[str, dict[int, int]] = {name: {} for name in days}
    missing = [each for each, reply in zip(wanted, replies, strict=True) if not _take_oldest(found, each, reply)]
    if missing:
        yield from _look_for_indexed(project, keys, missing, found)
    for name, oldest in found.items():
        days[name].oldest_us = oldest


def _look_for_indexed(
    project: Project, keys: ProjectKeys, missing: list[tuple[str, int]], found: dict[str, dict[int, int]]
) -> Reading[None]:
    """Looks once more for groups that had deliveries in processing when they were counted, and then none in the index.

    Raises ReadError where that is so still while the day did not change: an age without it would read as nothing.
    """
    counts = [("HMGET", keys.stored(name), f"{group}:{PROCESSING}") for name, group in missing]
    firsts = [_first(keys, *each) for each in missing]
    before, *replies, after = yield request(keys.days, [_listed(keys), *counts, *firsts, _listed(keys)])
    scores, later = _scores(before), _scores(after)
    for (name, group), counted, first in zip(missing, replies[: len(missing)], replies[len(missing) :], strict=True):
        if _take_oldest(found, (name, group), first) or scores.get(name) != later.get(name):
            continue
        if decimal(text(array(counted)[0]) or b"0") > 0:
            raise ReadError("day_lost", f"{project.project} {name} counts deliveries that its index lacks")


def _first(keys: ProjectKeys, name: str, group: int) -> tuple[bytes | str | int, ...]:
    low, high = struct.pack(">I", group), struct.pack(">I", group + 1)
    return ("ZRANGEBYLEX", keys.processing(name), b"[" + low, b"(" + high, "LIMIT", 0, 1)


def _take_oldest(found: dict[str, dict[int, int]], place: tuple[str, int], reply: Reply) -> bool:
    name, group = place
    for member in names(reply):
        found[name][group] = int.from_bytes(member[4:11], "big")
    return group in found[name]


def _pairs(reply: Reply) -> dict[bytes, bytes]:
    flat = names(reply)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _attempt(field: bytes) -> tuple[str, str, str]:
    endpoint, status, code = field.decode("utf-8", "replace").split("\0")
    return endpoint, status, code


def label_of(told: bytes) -> str | None:
    """A label as the ledger keeps it: "=" and its value; None for one that nobody told."""
    return told[1:].decode("utf-8", "replace") if told else None
