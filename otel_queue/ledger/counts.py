"""Counts of whole days, put in the place of what is there: for days whose deliveries are not tracked one by one."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from otel_queue.errors import WriteError
from otel_queue.ledger.administration import Administration
from otel_queue.ledger.keys import SETTLED, ProjectKeys
from otel_queue.ledger.states import in_processing, row_state
from otel_queue.redis_client import array, integer, request, scored, taking_apart, text

EVENTS: Final = "e"
# Groups in a call, which holds everybody else up.
_MOST_GROUPS: Final = 256
_TRIES: Final = 10


class Opened(NamedTuple):
    """A delivery that is not final: its group, status by rank, and times in Unix microseconds."""

    group: str
    rank: int
    status_us: int
    created_us: int


@dataclass(slots=True)
class DayCounts:
    """What a day is to hold, by the labels of groups (`batches.delivery_group`, `event_group`).

    `counts` is by group and status rank, or `EVENTS`; `processing` are (group, creation time, stored id). Of a settled
    day `opened` are deliveries that are to be known singly, by stored ids, and `ended` those that are not any more.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    processing: set[tuple[str, int, bytes]] = field(default_factory=set)
    opened: dict[bytes, "Opened"] = field(default_factory=dict)
    ended: set[bytes] = field(default_factory=set)

    def add(self, other: "DayCounts") -> None:
        """Adds the counts of another day."""
        self.counts.update(other.counts)
        self.processing |= other.processing
        self.opened |= other.opened
        self.ended |= other.ended

    @property
    def rows(self) -> int:
        """How many deliveries and events it has."""
        return self.counts.total()


class Put(NamedTuple):
    """The days that were put, `settled` among them, and those that were left out since they are closed."""

    days: list[str]
    left_out: list[str]


class _Look(NamedTuple):
    """A project as it was when it was looked at: its marks ("" for none), and the score of each day."""

    expired: str
    folded: str
    approximate: str
    scores: Mapping[str, float]


class CountsStore(Administration):
    """Puts counts, each day at once. Putting the same again ends the same. Raises ReadError and WriteError."""

    @taking_apart("what the ledger has of old days")
    def put(self, project: str, days: Mapping[str, DayCounts], through: str) -> Put:
        """Puts the counts of days in the place of what the project has for them, and calls them approximate.

        `through` is the last day that is not tracked any more. Expired days are left out. Folded ones are put
        together as the settled counts; they are left out if a later day is among what was folded. Other days stay
        as they are. Raises WriteError with reason `busy` when the project changes all the time.
        """
        of = self.keys.project(project)
        numbers = self._number(of, {group for day in days.values() for group, _ in day.counts})
        for _ in range(_TRIES):
            look = self._look(of)
            wanted, left_out = _arrange(days, look, through)
            if not wanted:
                return Put([], left_out)
            self._mark(of, max(look.approximate, *(day for day in days if day not in left_out)))
            # All of it is put anew when a day is closed meanwhile, for then it belongs to another one.
            are_put = all(self._replace(of, day, counts, look, numbers) for day, counts in wanted.items())
            self._announce(project)
            if are_put:
                return Put(sorted(wanted), left_out)
        raise WriteError("busy", f"{project} changes all the time; its old days are to be put when it is at rest")

    @taking_apart("what the ledger has of old days")
    def replace(self, project: str, day: str, wanted: DayCounts, score: float | None) -> bool:
        """Puts the counts of a day, or of `settled`, in the place of those that it has, and calls them approximate.

        False, and nothing is replaced, unless the day's score is still that (None is no counts), or if it is closed.
        """
        of = self.keys.project(project)
        numbers = self._number(of, {group for group, _ in wanted.counts} - {""}) | {"": 0}
        look = self._look(of)
        self._mark(of, max(look.approximate, look.folded if day == SETTLED else day))
        scores = {} if score is None else {day: score}
        is_put = self._replace(of, day, wanted, look._replace(scores=scores), numbers)
        self._announce(project)
        return is_put

    def _number(self, of: ProjectKeys, groups: Iterable[str]) -> dict[str, int]:
        ordered = sorted(groups)
        numbers: dict[str, int] = {}
        contract = self.contract().text()
        for start in range(0, max(len(ordered), 1), _MOST_GROUPS):
            chunk = ordered[start : start + _MOST_GROUPS]
            found = self._call("number_groups", (of.meta, of.groups), (contract, "undated", *chunk))
            numbers.update(zip(chunk, (integer(number) for number in array(found)), strict=True))
        return numbers

    def _look(self, of: ProjectKeys) -> _Look:
        commands: list[tuple[bytes | str | int, ...]] = [
            ("HMGET", of.meta, "expired", "folded", "approximate"),
            ("ZRANGE", of.days, 0, -1, "WITHSCORES"),
        ]
        marks, scores = self._ask([request(of.meta, commands)])[0]
        expired, folded, approximate = ((text(mark) or b"").decode() for mark in array(marks))
        return _Look(expired, folded, approximate, {day.decode(): score for day, score in scored(scores)})

    def _mark(self, of: ProjectKeys, day: str) -> None:
        """Before the counts: they never look exact when they are not."""
        # Without a sequence the project's readers would call it lost.
        self._one(of.meta, "HSETNX", of.meta, "sequence", 0)
        self._one(of.meta, "HSET", of.meta, "approximate", day)

    def _replace(self, of: ProjectKeys, day: str, wanted: DayCounts, look: _Look, numbers: Mapping[str, int]) -> bool:
        fields: Counter[str] = Counter()
        for (group, kind), count in wanted.counts.items():
            fields[f"{numbers[group]}:{kind}"] += count
        members = [in_processing(numbers[group], created_us, id_) for group, created_us, id_ in wanted.processing]
        pairs = [word for name, count in sorted(fields.items()) for word in (name, count)]
        score = f"{look.scores[day]:.17g}" if day in look.scores else ""
        known: list[bytes] = []
        for id_, (group, rank, status_us, created_us) in wanted.opened.items():
            known += (id_, row_state(id_, rank, status_us, created_us, numbers[group]))
        for id_ in wanted.ended:
            known += (id_, b"")
        keys = (of.meta, of.days, of.counts(day), of.processing(day))
        sizes = (len(pairs) // 2, len(members))
        words = ("", day, score, *sizes, *pairs, *sorted(members), *known)
        return bool(self._call("replace_counts", keys, words))


def _arrange(days: Mapping[str, DayCounts], look: _Look, through: str) -> tuple[dict[str, DayCounts], list[str]]:
    wanted: dict[str, DayCounts] = {}
    left_out: list[str] = []
    for day, counts in sorted(days.items()):
        if day <= look.expired or (day <= look.folded and look.folded > through):
            left_out.append(day)
        elif day <= look.folded:
            wanted.setdefault(SETTLED, DayCounts()).add(counts)
        else:
            wanted[day] = counts
    return wanted, left_out
