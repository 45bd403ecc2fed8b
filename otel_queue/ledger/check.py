"""The check of a day's counts against what is tracked of it, and its repair."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from otel_queue.errors import ReadError
from otel_queue.ledger.administration import Administration, counts_of
from otel_queue.ledger.identity import UNDATED, number_of_day
from otel_queue.ledger.keys import ProjectKeys
from otel_queue.ledger.project import PROCESSING
from otel_queue.ledger.states import delivery_state, event_state, in_processing
from otel_queue.redis_client import integer, names, request, taking_apart

_WHAT: Final = "what the ledger has of days"


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


class Check(Administration):
    """Compares counts with tracked ids, and counts anew. Each may be repeated; each raises ReadError or WriteError."""

    def check(self, project: str) -> list[Difference]:
        """Compares each day's counts and index with its tracked deliveries and events; reads every one of them.

        Settled counts cannot be checked, nor days whose tracking has ended: their deliveries are no longer held. A day
        that changes meanwhile is looked at again.
        """
        return [difference for day in self.days(project) for difference in self.check_day(project, day)]

    @taking_apart(_WHAT)
    def check_day(self, project: str, day: str) -> list[Difference]:
        """As `check`, of one day. Raises ReadError with reason `busy` for a day that changes all the time."""
        if day <= self.marks([project])[0].settled:
            return []
        held = self._stable(project, day)
        if not held.ids:
            return []  # no longer tracked, and not settled yet: nothing says that the counts are wrong
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
        if not held.ids or day <= self.marks([project])[0].settled:
            raise ReadError("untracked", f"{project} {day} has no tracked ids; its counts cannot be made from them")
        of = self.keys.project(project)
        words = [word for field, count in sorted(held.tracked.items()) for word in (field, count)]
        members = sorted(held.processing)
        arguments = ("", day, f"{held.score:.17g}", len(words) // 2, len(members), *words, *members)
        own = (of.meta, of.days, of.counts(day), of.processing(day))
        is_replaced = integer(self._call("replace_counts", own, arguments)) == 1
        if is_replaced:
            self._announce(project)
        return is_replaced

    def _stable(self, project: str, day: str) -> _Day:
        """The day as it was while nothing changed it."""
        of = self.keys.project(project)
        for _ in range(10):
            before = self.days(project).get(day)
            counts, index = self._ask(
                [request(of.meta, [("HGETALL", of.counts(day)), ("ZRANGE", of.processing(day), 0, -1)])]
            )[0]
            tracked, processing, ids = self._tally(of, day)
            if before is not None and self.days(project).get(day) == before:
                return _Day(counts_of(counts), set(names(index)), tracked, processing, ids, before)
        raise ReadError("busy", f"{project} {day} changes all the time; check it when it is at rest")

    def _tally(self, of: ProjectKeys, day: str) -> tuple[Counter[str], set[bytes], int]:
        tracked: Counter[str] = Counter()
        processing: set[bytes] = set()
        ids = 0
        for under, delivery, state in self._held(of, day, b"d", of.deliveries(day)):
            ids += 1
            if state:
                held = delivery_state(under, delivery, state)
                tracked[f"{held.group}:{held.rank}"] += 1
                if held.rank == PROCESSING:
                    processing.add(in_processing(held.group, held.created_us, delivery))
        for under, event, state in self._held(of, day, b"e", of.events(day)):
            ids += 1
            if state:
                tracked[f"{event_state(under, event, state).group}:e"] += 1
        return tracked, processing, ids

    def _held(self, of: ProjectKeys, day: str, kind: bytes, base: bytes) -> Iterator[tuple[str, bytes, bytes]]:
        """What counts under a day: the day that an id is kept under, its stored form and its state."""
        for id_, state in self._nodes(of.meta, base):
            yield day, id_, state
        number = number_of_day(day)
        for id_, state in self._undated(of, kind, number):
            yield UNDATED, id_, state


def _difference(project: str, day: str, field: str, counted: int, tracked: int) -> Difference:
    group, _, what = field.partition(":")
    return Difference(project, day, int(group), what, counted, tracked)
