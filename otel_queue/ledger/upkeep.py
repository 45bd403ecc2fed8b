"""Upkeep of the ledger: its birth, retention, and the check of its counts against what it tracks."""

import re
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from otel_queue.errors import OtelQueueError, ReadError, WriteError
from otel_queue.ledger.exchange import Exchange
from otel_queue.ledger.identity import UNDATED, day_of, days_up_to
from otel_queue.ledger.keys import ATTEMPTS, SETTLED, Keys, ProjectKeys
from otel_queue.ledger.project import PROCESSING
from otel_queue.redis_client import RedisLink, array, integer, names, request, scored, taking_apart, text, time_us

# A tracked delivery's state begins with status, its time, flags, creation time and group (record_deliveries.lua).
_STATE: Final = struct.Struct(">B7sB7sI")
_DAY_US: Final = 86_400_000_000
_WHAT: Final = "what the ledger has of days"
# How far back days are looked for that are not listed.
_DAYS_BACK: Final = 1_100
# Reasons for which the next project is not tried either: it would wait as long.
_UNANSWERED: Final = frozenset({"connection", "timeout"})


@dataclass(frozen=True, slots=True)
class Difference:
    """A count that is not what the tracked ids add up to. `what` is a delivery status rank, or `e` for events.

    Where the index of deliveries in processing is off, `counted` is how many it has of the group.
    """

    project: str
    day: str
    group: int
    what: str
    counted: int
    tracked: int


class _Day(NamedTuple):
    """A day's counts and index, what its tracked ids say they should be, and the score it was looked at with.

    `ids` is how many ids it has, the forgotten ones too: a day without any is not tracked (any more).
    """

    counted: Mapping[str, int]
    indexed: set[bytes]
    tracked: Counter[str]
    processing: set[bytes]
    ids: int
    score: float


class Upkeep:
    """Operations of an operator or a nightly job. Each may be repeated; each raises ReadError or WriteError."""

    def __init__(self, link: RedisLink, *, namespace: str = "oq", timeout_seconds: float = 10.0) -> None:
        self._exchange = Exchange(link, timeout_seconds)
        self.keys = Keys(namespace)

    def begin(self) -> bool:
        """Marks the ledger's birth, by Redis's clock; False if it has one. Without it its readers call it unknown."""
        key = self.keys.birth
        reply = self._exchange.one(request(key, [("SET", key, self._now_us(), "NX")]))
        return reply is not None

    def day_before(self, days: int) -> str:
        """The UTC day `days` before today, YYYYMMDD, by Redis's clock."""
        return day_of(self._now_us() - days * _DAY_US)

    def _now_us(self) -> int:
        return time_us(self._exchange.one(request(self.keys.birth, [("TIME",)])))

    def close(self) -> None:
        """Ends the connections; a later operation opens new ones."""
        self._exchange.close()

    def projects(self) -> list[str]:
        """The registered projects, sorted."""
        reply = self._exchange.one(request(self.keys.projects, [("ZRANGE", self.keys.projects, 0, -1)]))
        return sorted(name.decode("utf-8", "replace") for name in names(reply))

    @taking_apart(_WHAT)
    def days(self, project: str) -> dict[str, float]:
        """The dated days of a project with counts, in order, and the sequence number of their last change."""
        key = self.keys.project(project).days
        reply = self._exchange.one(request(key, [("ZRANGE", key, 0, -1, "WITHSCORES")]))
        found = {member.decode(): score for member, score in scored(reply)}
        return {day: found[day] for day in sorted(found) if day not in (SETTLED, ATTEMPTS)}

    @taking_apart(_WHAT)
    def unlisted(self, project: str) -> list[str]:
        """The days of the last years that have counts and are not among the project's days, so that nobody reads them.

        `settled` and `attempts` are such days too. An expired day is none: what is left of it counts for nothing.
        """
        of = self.keys.project(project)
        days = days_up_to(time.time(), _DAYS_BACK)
        commands: list[tuple[bytes | str | int, ...]] = [("EXISTS", of.stored(day)) for day in days]
        # In this order a day that begins or expires meanwhile is not mistaken for one.
        commands += [("ZRANGE", of.days, 0, -1), ("HGET", of.meta, "expired")]
        *found, members, expired = self._exchange.ask([request(of.meta, commands)])[0]
        listed, closed = {member.decode() for member in names(members)}, (text(expired) or b"").decode()
        held = [day for day, exists in zip(days, found, strict=True) if integer(exists)]
        return [day for day in held if day not in listed and day > closed]

    @taking_apart(_WHAT)
    def list_again(self, project: str) -> list[str]:
        """Lists the days that are unlisted, as they are; returns which."""
        of = self.keys.project(project)
        days = self.unlisted(project)
        answers = array(self._exchange.call("list_days", (of.meta, of.days, *map(of.stored, days)), days))
        listed = [day for day, was_listed in zip(days, answers, strict=True) if was_listed == 1]
        self._announce(project, bool(listed))
        return listed

    def expire(self, project: str, through: str) -> int:
        """Takes all days up to `through` (YYYYMMDD) out of the counts; returns how many had any.

        Closed for good: raises OtelQueueError, and closes nothing, unless `through` is over by Redis's clock.
        """
        days = self._up_to(project, through, closing=True)
        return self._announce(project, sum(self._close("expire_day", project, day) for day in days))

    def fold(self, project: str, through: str) -> int:
        """Adds all days up to `through` to the settled counts, as `expire`; for projects where nothing expires."""
        days = self._up_to(project, through, closing=False)
        return self._announce(project, sum(self._close("fold_day", project, day) for day in days))

    def _announce(self, project: str, changed: int) -> int:
        """Tells readers of a project that changed; returns `changed`."""
        if changed:
            self._exchange.call("announce", (self.keys.projects,), (project,))
        return changed

    def _up_to(self, project: str, through: str, *, closing: bool) -> list[str]:
        if not re.fullmatch(r"\d{8}", through, re.ASCII):
            raise OtelQueueError(f"the day must be YYYYMMDD, as in 20261124, not {through!r}")
        if through >= (today := self.day_before(0)):
            # Before anything is closed; the script looks too, but at one day at a time.
            raise OtelQueueError(
                f"{through} is not over by Redis's clock, where it is {today}: days are closed for good, so only those "
                "before today can be"
            )
        days = [day for day in self.days(project) if day != UNDATED and day <= through]
        # The last day is closed for late records even if it has no counts.
        return days if not closing or through in days else [*days, through]

    def _close(self, name: str, project: str, day: str) -> int:
        of = self.keys.project(project)
        own: tuple[bytes, ...] = (of.meta, of.days, of.counts(day), of.processing(day))
        if name == "expire_day":
            own = (*own, of.deliveries(day), of.events(day))
        else:
            own = (*own, of.counts(SETTLED), of.processing(SETTLED))
        return integer(self._exchange.call(name, own, (day,)))

    def check(self, project: str) -> list[Difference]:
        """Compares each day's counts and index with its tracked deliveries and events; reads every one of them.

        Settled counts cannot be checked, nor days whose tracking has ended: their deliveries are no longer held. A day
        that changes meanwhile is looked at again.
        """
        return [difference for day in self.days(project) for difference in self.check_day(project, day)]

    @taking_apart(_WHAT)
    def check_day(self, project: str, day: str) -> list[Difference]:
        """As `check`, of one day. Raises ReadError with reason `busy` for a day that changes all the time."""
        held = self._stable(project, day)
        if not held.ids:
            return []  # no longer tracked, and not folded yet: nothing says that the counts are wrong
        off = [(field, held.counted.get(field, 0), held.tracked[field]) for field in {*held.counted, *held.tracked}]
        found = [_difference(project, day, *each) for each in sorted(off) if each[1] != each[2]]
        for group in sorted({member[:4] for member in held.indexed ^ held.processing}):
            indexed, processing = (
                sum(member.startswith(group) for member in members) for members in (held.indexed, held.processing)
            )
            field = f"{int.from_bytes(group, 'big')}:{PROCESSING}"
            found.append(_difference(project, day, field, indexed, processing))
        return found

    @taking_apart(_WHAT)
    def repair(self, project: str, day: str) -> bool:
        """Counts a day anew from what is tracked; False if it changed meanwhile and is to be repaired again.

        Raises ReadError with reason `untracked` for a day of which nothing is tracked (any more): its counts would go.
        """
        held = self._stable(project, day)
        if not held.ids:
            raise ReadError("untracked", f"{project} {day} has no tracked ids; its counts cannot be made from them")
        of = self.keys.project(project)
        pairs = [word for field, count in sorted(held.tracked.items()) for word in (field, count)]
        arguments = (day, f"{held.score:.17g}", len(pairs) // 2, *pairs, *sorted(held.processing))
        own = (of.meta, of.days, of.counts(day), of.processing(day))
        return bool(self._announce(project, integer(self._exchange.call("replace_counts", own, arguments))))

    def _stable(self, project: str, day: str) -> _Day:
        """The day as it was while nothing changed it."""
        of = self.keys.project(project)
        for _ in range(10):
            before = self.days(project).get(day)
            counts, index = self._exchange.ask(
                [request(of.meta, [("HGETALL", of.counts(day)), ("ZRANGE", of.processing(day), 0, -1)])]
            )[0]
            tracked, processing, ids = self._tally(of, day)
            if before is not None and self.days(project).get(day) == before:
                flat = names(counts)
                counted = {name.decode(): int(count) for name, count in zip(flat[::2], flat[1::2], strict=True)}
                return _Day(counted, set(names(index)), tracked, processing, ids, before)
        raise ReadError("busy", f"{project} {day} changes all the time; check it when it is at rest")

    def _tally(self, of: ProjectKeys, day: str) -> tuple[Counter[str], set[bytes], int]:
        tracked: Counter[str] = Counter()
        processing: set[bytes] = set()
        ids = 0
        for delivery, state in self._exchange.nodes(of.meta, of.deliveries(day)):
            ids += 1
            if state:
                status, _, _, created, group = _STATE.unpack_from(state)
                tracked[f"{group}:{status}"] += 1
                if status == PROCESSING:
                    processing.add(struct.pack(">I", group) + created + delivery)
        for _, state in self._exchange.nodes(of.meta, of.events(day)):
            ids += 1
            if state:
                tracked[f"{int.from_bytes(state[:4], 'big')}:e"] += 1
        return tracked, processing, ids


def _difference(project: str, day: str, field: str, counted: int, tracked: int) -> Difference:
    group, _, what = field.partition(":")
    return Difference(project, day, int(group), what, counted, tracked)


def close_each(
    projects: Iterable[str], close: Callable[[str], int]
) -> Iterator[tuple[str, int | ReadError | WriteError]]:
    """Each project with what `close` returned for it, or the error where it was refused: others have their turn.

    Raises ReadError or WriteError where Redis does not answer, and what else `close` raises.
    """
    for project in projects:
        closed: int | ReadError | WriteError
        try:
            closed = close(project)
        except (ReadError, WriteError) as error:
            if error.reason in _UNANSWERED:
                raise
            closed = error
        yield project, closed
