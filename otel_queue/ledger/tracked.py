"""Single ids in the ledger: what is held of them, and how to forget them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from otel_queue.ledger.administration import Administration, accepted, by_group, counts_of
from otel_queue.ledger.batches import MOST_RECORDS
from otel_queue.ledger.contract import Contract
from otel_queue.ledger.counts import EVENTS, DayCounts
from otel_queue.ledger.identity import UNDATED, Identity
from otel_queue.ledger.project import Labels, label_of
from otel_queue.ledger.scripts import Word
from otel_queue.redis_client import Reply, array, names, request, taking_apart, text, time_us

Kind = Literal["delivery", "event", "attempt"]

_WHAT: Final = "what the ledger has of ids"
_EVENT: Final = b"event"
_DESCRIPTION: Final = ("described_at", "project_name", "organisation_id", "organisation_name")


class Place(NamedTuple):
    """Where ids are kept: those of one kind, project and day (YYYYMMDD, or `undated`)."""

    kind: Kind
    project: str
    day: str


class Held(NamedTuple):
    """The states of ids, in their order: None is not held, and never was; empty is forgotten.

    `is_closed` says that the day takes no records: it is expired, folded, or no longer tracked.
    """

    is_closed: bool
    states: list[bytes | None]


class Description(NamedTuple):
    """The names of a project, and the time of the record that told them (Unix microseconds)."""

    time_us: int
    names: tuple[str, str, str]


class Tracked(Administration):
    """Reads, and forgets, single ids. Every method may be repeated, and raises ReadError or WriteError."""

    _kept: Contract | None = None

    @taking_apart(_WHAT)
    def descriptions(self, projects: Sequence[str]) -> list[Description]:
        """What the ledger calls each project. A time too far ahead of Redis is 0: any description replaces that one."""
        metas = [self.keys.project(project).meta for project in projects]
        answers = self._ask([request(meta, [("HMGET", meta, *_DESCRIPTION), ("TIME",)]) for meta in metas])
        skew_us = self._held_contract().max_skew_us
        return [_description(array(accepted(held)), time_us(now) + skew_us) for held, now in answers]

    @taking_apart(_WHAT)
    def find(self, wanted: Mapping[Place, Sequence[Identity]]) -> dict[Place, Held]:
        """What is held of the ids of each place."""
        asked = [(place, ids[start : start + MOST_RECORDS]) for place, ids in wanted.items()
                 for start in range(0, len(ids), MOST_RECORDS)]  # fmt: skip
        found = {place: Held(False, []) for place in wanted}
        answers = self._calls("find_ids", (self._find(place, ids) for place, ids in asked))
        for (place, ids), answer in zip(asked, answers, strict=True):
            closed, *states = array(answer)
            held = found[place]
            held.states.extend(text(state) for _, state in zip(ids, states, strict=True))
            found[place] = Held(held.is_closed or closed == 1, held.states)
        return found

    def _find(self, place: Place, ids: Sequence[Identity]) -> tuple[Sequence[bytes], Iterable[Word]]:
        of = self.keys.project(place.project)
        words = [word for id_ in ids for word in (id_.stored, id_.hash)]
        return (of.meta, of.groups, self._base(place)), (*self._head(place), *words)

    @taking_apart(_WHAT)
    def forget(self, place: Place, held: Sequence[tuple[Identity, bytes]]) -> list[bool]:
        """Takes deliveries or events out that are still in the state given; for each of them whether it was."""
        of = self.keys.project(place.project)
        own = (of.meta, of.groups, of.days, self._base(place))
        forgotten: list[bool] = []
        for start in range(0, len(held), MOST_RECORDS):
            words = [word for id_, state in held[start : start + MOST_RECORDS] for word in (*id_[1:3], state)]
            answers = array(self._call("forget_ids", own, (*self._head(place), place.kind, *words)))
            forgotten += [answer == 1 for answer in answers]
        if any(forgotten):
            self._announce(place.project)
        return forgotten

    def ids(self, place: Place) -> Iterator[tuple[bytes, bytes]]:
        """Stored ids and states of all that is held in a place; forgotten ones are left out."""
        of = self.keys.project(place.project)
        held = self._nodes(of.meta, self._base(place))
        if place.day == UNDATED:
            held = self._undated(of, place.kind[:1].encode())
        for stored, state in held:
            if state:
                yield stored, state

    @taking_apart(_WHAT)
    def counted_days(self, project: str, days: Sequence[str]) -> dict[Place, int]:
        """How many deliveries, and events, the counts of each day add up to, in one round trip."""
        of = self.keys.project(project)
        replies = self._ask([request(of.meta, [("HGETALL", of.counts(day)) for day in days])])[0] if days else []
        found: dict[Place, int] = {}
        for day, reply in zip(days, replies, strict=True):
            counts = counts_of(accepted(reply))
            events = sum(count for field, count in counts.items() if field.endswith(f":{EVENTS}"))
            found[Place("event", project, day)] = events
            found[Place("delivery", project, day)] = sum(counts.values()) - events
        return found

    @taking_apart(_WHAT)
    def counted(self, place: Place) -> int:
        """How many deliveries, or events, the day's counts add up to; or how many undated ids are held."""
        if place.day == UNDATED:
            return sum(1 for _ in self.ids(place))
        counts = by_group(self._counts(self.keys.project(place.project), place.day))
        return sum(count for (_, kind), count in counts.items() if (kind == EVENTS) == (place.kind == "event"))

    @taking_apart(_WHAT)
    def counts(self, project: str, day: str) -> DayCounts:
        """All that a day has (or `settled`), by labels; what has lost its labels is under ""."""
        of = self.keys.project(project)
        counts = by_group(self._counts(of, day))
        members = [
            (int.from_bytes(member[:4], "big"), int.from_bytes(member[4:11], "big"), member[11:])
            for member in names(self._one(of.meta, "ZRANGE", of.processing(day), 0, -1))
        ]
        told = self._told(project, {number for number, _ in counts} | {number for number, _, _ in members})
        labels = {number: value.decode("utf-8", "surrogateescape") for number, value in told.items()}
        found = DayCounts()
        for (number, kind), count in counts.items():
            found.counts[labels.get(number, ""), kind] += count
        found.processing.update((labels.get(number, ""), created_us, id_) for number, created_us, id_ in members)
        return found

    @taking_apart(_WHAT)
    def labels(self, project: str, numbers: Iterable[int]) -> dict[int, Labels]:
        """What groups of deliveries have in common; a group whose labels were not kept is left out."""
        told = self._told(project, numbers)
        return {
            number: Labels(*(label_of(part) for part in parts))
            for number, value in told.items()
            if len(parts := value.split(b"\0")) == len(Labels._fields)
        }

    @taking_apart(_WHAT)
    def sources(self, project: str, numbers: Iterable[int]) -> dict[int, str | None]:
        """The sources of groups of events, None is unknown; a group whose source was not kept is left out."""
        told = self._told(project, numbers)
        return {
            number: label_of(value.removeprefix(_EVENT)) for number, value in told.items() if value.startswith(_EVENT)
        }

    def _base(self, place: Place) -> bytes:
        of = self.keys.project(place.project)
        bases = {"delivery": of.deliveries, "event": of.events, "attempt": of.attempt_ids}
        return bases[place.kind](place.day)

    def _head(self, place: Place) -> tuple[bytes, str]:
        return self._held_contract().text(), place.day

    def _held_contract(self) -> Contract:
        if self._kept is None:
            self._kept = self.contract()
        return self._kept


def _description(told: list[Reply], latest_us: int) -> Description:
    at, name, organisation_id, organisation_name = ((text(value) or b"").decode("utf-8", "replace") for value in told)
    return Description(int(at) if at and int(at) <= latest_us else 0, (name, organisation_id, organisation_name))
