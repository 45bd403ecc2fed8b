"""One of the two ledgers of a merge."""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from otel_queue.ledger.counts import CountsStore
from otel_queue.ledger.identity import UNDATED, Identity, day_of, identify, text_of
from otel_queue.ledger.keys import SETTLED
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.tracked import Kind, Marks, Place, Tracked
from otel_queue.ledger.upkeep import Upkeep
from otel_queue.lifecycle import Record

_WRITE_SECONDS: Final = 30.0
_CHUNK: Final = 2_000
_DAY_US: Final = 86_400_000_000


class Held(NamedTuple):
    """An id and its state; `state` is None if it is not held, or was forgotten."""

    text: str
    identity: Identity
    state: bytes | None


class Side:
    """A ledger, and what it is called in messages. Every method raises ReadError or WriteError."""

    def __init__(self, name: str, store: LedgerStore, tracked: Tracked, counts: CountsStore, upkeep: Upkeep) -> None:
        self.name = name
        self.tracked = tracked
        self.counts = counts
        self.upkeep = upkeep
        self._store = store

    def projects(self) -> list[str]:
        """The registered projects, sorted."""
        return self.upkeep.projects()

    def marks(self, project: str) -> Marks:
        """How far the project is closed."""
        return self.tracked.marks([project])[0]

    def days(self, project: str) -> dict[str, float]:
        """Days with counts, and the sequence of their last change; `settled` is one of them."""
        return self.upkeep.days(project, with_settled=True)

    def ids(self, place: Place) -> Iterator[list[Held]]:
        """All that is held in a place, so many ids at a time."""
        held = self.tracked.ids(place)
        while chunk := list(islice(held, _CHUNK)):
            texts = [(text_of(place.day, stored), state) for stored, state in chunk]
            yield [Held(text, identify(text), state) for text, state in texts]

    def find(self, place: Place, ids: Sequence[Identity]) -> tuple[bool, list[bytes | None]]:
        """Whether the place is closed, and the state of each id; None is not held, or forgotten."""
        found = self.tracked.find({place: ids})[place]
        return found.is_closed, [state or None for state in found.states]

    def write(self, records: Iterable[Record]) -> int:
        """Writes records; returns how many came too late."""
        return self._store.write(records, time.monotonic() + _WRITE_SECONDS).late

    def close(self) -> None:
        """Ends the connections."""
        for part in (self._store, self.tracked, self.counts, self.upkeep):
            part.close()


def tracked_days(first: Side, second: Side, project: str, kind: Kind, now_us: int, attempt_days: int) -> list[str]:
    """The days of which ids are to be compared, and `undated`; in order. Of attempts those that are still counted."""
    if kind == "attempt":
        return [*(day_of(now_us - back * _DAY_US) for back in range(attempt_days, -2, -1)), UNDATED]
    marks = [side.marks(project) for side in (first, second)]
    closed = max(max(each.expired, each.settled, each.folded) for each in marks)
    listed = {day for side in (first, second) for day in side.days(project) if day != SETTLED}
    return [*sorted(day for day in listed if day > closed), UNDATED]
