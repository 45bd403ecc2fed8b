"""One of the two ledgers of a merge."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

from otel_queue.ledger.administration import Marks, pairs
from otel_queue.ledger.counts import CountsStore
from otel_queue.ledger.identity import UNDATED, Identity, day_of, identify, text_of
from otel_queue.ledger.keys import SETTLED
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.tracked import Kind, Place, Tracked
from otel_queue.ledger.upkeep import Upkeep
from otel_queue.lifecycle import Record
from otel_queue.redis_client import RedisLink, array, decimal, request, scored, taking_apart, text

AttemptLabels = tuple[str, str, str]
"""Endpoint, status and http_status_code."""

_WRITE_SECONDS: Final = 30.0
_IDS_AT_ONCE: Final = 2_000
_OPEN_NODES: Final = 256
_NODES_AT_ONCE: Final = 64
_DAY_US: Final = 86_400_000_000
_WHAT: Final = "what a ledger has to be merged"


class KnownId(NamedTuple):
    """An id that a ledger holds, and its state."""

    text: str
    identity: Identity
    state: bytes


class Side(Tracked):
    """A ledger, and what it is called in messages. Every method raises ReadError or WriteError."""

    def __init__(
        self, name: str, link: RedisLink, store: LedgerStore, whole_days: CountsStore, upkeep: Upkeep, *, namespace: str
    ) -> None:
        super().__init__(link, namespace=namespace)
        self.name = name
        self.whole_days = whole_days
        self.upkeep = upkeep
        self._store = store

    def close(self) -> None:
        """Ends the connections."""
        super().close()
        for part in (self._store, self.whole_days, self.upkeep):
            part.close()

    def write(self, records: Iterable[Record]) -> int:
        """Writes records; returns how many came too late."""
        return self._store.write(records, time.monotonic() + _WRITE_SECONDS).late

    @taking_apart(_WHAT)
    def swept_us(self) -> int:
        """When the last complete reading of all rows began that has ended (Unix microseconds); 0 if there is none."""
        told = text(self._one(self.keys.swept, "GET", self.keys.swept))
        return decimal(told) if told else 0

    def mark_swept(self, time_us: int) -> None:
        """Keeps when a complete reading of all rows began; to be called when it has ended."""
        self._one(self.keys.swept, "SET", self.keys.swept, time_us)

    def marks_of(self, project: str) -> Marks:
        """How far the project is closed."""
        return self.marks([project])[0]

    @taking_apart(_WHAT)
    def scores(self, project: str) -> dict[str, float]:
        """As `days`, with `settled`."""
        key = self.keys.project(project).days
        listed = {
            member.decode(): score for member, score in scored(self._one(key, "ZRANGE", key, 0, -1, "WITHSCORES"))
        }
        return {day: score for day, score in listed.items() if day == SETTLED or day.isdecimal()}

    def chunks(self, place: Place) -> Iterator[list[KnownId]]:
        """All ids of a place, some at a time."""
        held = self.ids(place)
        while chunk := list(islice(held, _IDS_AT_ONCE)):
            texts = [(text_of(place.day, stored), state) for stored, state in chunk]
            yield [KnownId(name, identify(name), state) for name, state in texts]

    def states(self, place: Place, ids: Sequence[KnownId]) -> tuple[bool, list[bytes | None]]:
        """Whether a place is closed, and what is held here of each id; None is nothing, or forgotten."""
        found = self.find({place: [each.identity for each in ids]})[place]
        return found.is_closed, [state or None for state in found.states]

    def group(self, project: str, number: int) -> str:
        """The labels of a group as `batches.delivery_group` has them; "" where they were not kept."""
        return self._told(project, [number]).get(number, b"").decode("utf-8", "surrogateescape")

    @taking_apart(_WHAT)
    def open(self, project: str) -> Iterator[tuple[bytes, bytes]]:
        """Stored ids and states of deliveries of settled days that are not final."""
        of = self.keys.project(project)
        for start in range(0, _OPEN_NODES, _NODES_AT_ONCE):
            commands = [("HGETALL", of.open(number)) for number in range(start, start + _NODES_AT_ONCE)]
            for reply in self._ask([request(of.meta, commands)])[0]:
                yield from pairs(reply)

    @taking_apart(_WHAT)
    def labels_of_attempts(self, place: Place, ids: Sequence[KnownId]) -> list[AttemptLabels | None]:
        """What each attempt counts under; None where that was lost."""
        key = self.keys.project(place.project).attempt_labels
        # An undated id has its day before its state.
        states = [each.state[2 if place.day == UNDATED else 0 :] for each in ids]
        ordered = sorted(set(states))
        told = array(self._one(key, "HMGET", key, *(f"#{int.from_bytes(state, 'big')}" for state in ordered)))
        labels = {state: _attempt_labels(field) for state, field in zip(ordered, map(text, told), strict=True) if field}
        return [labels.get(state) for state in states]

    @taking_apart(_WHAT)
    def attempts(self, project: str) -> Counter[AttemptLabels]:
        """All attempts that are counted."""
        key = self.keys.project(project).attempts
        counts: Counter[AttemptLabels] = Counter()
        for field, count in pairs(self._one(key, "HGETALL", key)):
            counts[_attempt_labels(field)] = decimal(count)
        return counts

    @taking_apart(_WHAT)
    def attempts_before(self, project: str) -> str:
        """The first day whose attempts are known by their ids; "" if none from before any id were put."""
        meta = self.keys.project(project).meta
        return (text(self._one(meta, "HGET", meta, "attempts_before")) or b"").decode()

    @taking_apart(_WHAT)
    def begin_attempts(self, project: str, before: str, counts: Mapping[AttemptLabels, int]) -> None:
        """Counts attempts made before a day that nobody tells by their ids; nothing if the project has such already."""
        of = self.keys.project(project)
        words = [word for labels, count in sorted(counts.items()) for word in ("\0".join(labels), count)]
        self._call("begin_attempts", (of.meta, of.attempts, of.days), (self.contract().text(), before, *words))
        self._announce(project)


def _attempt_labels(field: bytes) -> AttemptLabels:
    endpoint, status, code = field.decode("utf-8", "surrogateescape").split("\0")
    return endpoint, status, code


def tracked_days(first: Side, second: Side, project: str, kind: Kind, now_us: int, attempt_days: int) -> list[str]:
    """The days whose ids are to be compared, and `undated`; in order. Of attempts those that are still counted."""
    if kind == "attempt":
        return [*(day_of(now_us - back * _DAY_US) for back in range(attempt_days, -2, -1)), UNDATED]
    marks = [side.marks_of(project) for side in (first, second)]
    closed = max(max(each) for each in marks)
    listed = {day for side in (first, second) for day in side.days(project)}
    return [*sorted(day for day in listed if day > closed), UNDATED]
