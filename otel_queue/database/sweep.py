"""A sweep: compares every tracked row with what the ledger holds of it, and sets right what differs."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from otel_queue import labels
from otel_queue.database.records import attempt_record, delivery_record, event_record
from otel_queue.database.rows import DeliveryRow, EventRow, Key
from otel_queue.database.slices import Slice, Slices, Window, window_at
from otel_queue.database.target import Target
from otel_queue.errors import ReadError, WriteError
from otel_queue.ledger.identity import UNDATED, Identity, identify, text_of
from otel_queue.ledger.project import Labels
from otel_queue.ledger.states import DeliveryState, delivery_state, event_state
from otel_queue.ledger.tracked import Kind, Place
from otel_queue.ledger.upkeep import close_each
from otel_queue.lifecycle import STATUSES, UNTOLD, Label, Record, StatusSet

_log: Final = logging.getLogger(__name__)

_UNKNOWN: Final = Labels(None, None, None)
# Ids that the database is asked about at once.
_ASKED: Final = 2_000
# A row is visible this long after its id was made, or it is looked for by its id.
_SLACK_US: Final = 60_000_000
_KINDS: Final[tuple[Kind, ...]] = ("delivery", "event")


@dataclass(slots=True)
class Swept:
    """What a sweep has done: rows by kind, and what it set right, by what was wrong."""

    rows: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)


class Sweep:
    """One passage over the tracked window. `step` compares the next slice; after the last one `is_over`.

    What is told by a look while the sweep goes on is left alone: it is newer.
    """

    def __init__(self, target: Target, slices: Slices, window: Window, until_us: int) -> None:
        self._target = target
        self._slices = slices
        self.window = window
        self.since_us = self.position_us = window.since_us
        self.until_us = until_us
        self.is_over = False
        self.swept = Swept()
        self._held: Counter[Place] = Counter()

    def step(self) -> None:
        """The next slice. Raises ReadError and WriteError, after which it can be made again."""
        found = self._slices.read(self.position_us, self.until_us, self.window)
        held: Counter[Place] = Counter()
        records: list[Record] = []
        repaired: Counter[str] = Counter()
        records += self._events(found, held, repaired)
        records += self._deliveries(found, held, repaired)
        records += self._attempts(found, repaired)
        told = self._target.write(records)
        self.swept.failures.update(error.reason for error in told.refused.values())
        swept = self.swept
        swept.rows.update(events=len(found.events), deliveries=len(found.deliveries), attempts=len(found.attempts))
        swept.repaired += repaired
        self._held += held
        self.position_us = found.span.until_us
        if self.position_us >= self.until_us:
            self._compare_days()
            self.is_over = True

    def _events(self, found: Slice, held: Counter[Place], repaired: Counter[str]) -> Iterator[Record]:
        rows: dict[Key, EventRow] = {}
        for row in found.events:
            rows.setdefault(row.key, row)
        looked = self._target.find("event", list(rows))
        states = [
            event_state(place.day, identity.stored, state) if state else None for place, identity, state, _ in looked
        ]
        told = _by_project(self._target.ids.sources, looked, states)
        again: list[tuple[Place, Identity, bytes]] = []
        for row, (place, identity, state, is_closed), parsed in zip(rows.values(), looked, states, strict=True):
            if is_closed:
                continue
            if parsed is None or state is None:
                repaired["event missing"] += 1
                yield event_record(row, found.time_us)
            elif row.created_us is not None and row.created_us > parsed.time_us + _SLACK_US:
                continue  # a replay: the event's first row is the one that counts
            else:
                source = labels.source(_label(self._slices.sources.of(row.key)))
                if parsed.group and told.get((place.project, parsed.group)) != source:
                    repaired["event source"] += 1
                    again.append((place, identity, state))
                    yield event_record(row, found.time_us)
            self._hold(held, place, identity)
        self._target.forget(again)

    def _deliveries(self, found: Slice, held: Counter[Place], repaired: Counter[str]) -> Iterator[Record]:
        rows = {row.key: row for row in found.deliveries}
        looked = self._target.find("delivery", list(rows))
        states = [
            delivery_state(place.day, identity.stored, state) if state else None for place, identity, state, _ in looked
        ]
        told = _by_project(self._target.ids.labels, looked, states)
        again: list[tuple[Place, Identity, bytes]] = []
        for row, (place, identity, state, is_closed), parsed in zip(rows.values(), looked, states, strict=True):
            if is_closed:
                continue
            if row.is_deleted:
                if state:
                    repaired["delivery deleted"] += 1
                    again.append((place, identity, state))
                continue
            self._hold(held, place, identity)
            if parsed is not None and parsed.status_us >= found.time_us:
                continue
            source = self._slices.sources.of((row.project, row.event))
            what = _difference(row, source, parsed, told.get((place.project, parsed.group)) if parsed else None)
            if what is None:
                continue
            try:
                record = delivery_record(row, source, found.time_us, is_new=parsed is None)
            except ValueError:
                self.swept.failures["unknown_status"] += 1
                continue
            repaired[what] += 1
            if what == "delivery status":
                yield StatusSet(row.project, row.id, record.status, found.time_us)
                continue
            if state:
                again.append((place, identity, state))
            yield record
        self._target.forget(again)

    def _attempts(self, found: Slice, repaired: Counter[str]) -> Iterator[Record]:
        rows = {(row.project, row.id): row for row in found.attempts}
        looked = self._target.find("attempt", list(rows))
        for row, (_, _, state, _) in zip(rows.values(), looked, strict=True):
            if state is None:
                repaired["attempt missing"] += 1
                yield attempt_record(row, found.time_us)

    def _hold(self, held: Counter[Place], place: Place, identity: Identity) -> None:
        """Counts a row that the ledger is to hold. Those whose ids are of the last minute are not waited for."""
        if identity.created_us is not None and identity.created_us < self._limit_us:
            held[place] += 1

    @property
    def _limit_us(self) -> int:
        return self.until_us - _SLACK_US

    def _compare_days(self) -> None:
        for project, error in close_each(self._target.upkeep.projects(), self._compare_project):
            if isinstance(error, ReadError | WriteError):
                _log.warning("follow: ids of project %s are not compared with its rows: %s", project, error)
                self.swept.failures[error.reason] += 1

    def _compare_project(self, project: str) -> None:
        """No tracked day is to have an id without a row."""
        days = [day for day in self._target.ids.days(project) if day >= self.window.first_day]
        for place, counted in self._target.ids.counted_days(project, days).items():
            # Counts have the newest ids as well, so those that are compared are counted one by one.
            if counted > self._held[place] and sum(1 for _ in self._ids(place)) > self._held[place]:
                self._forget_gone(place)
        for kind in _KINDS:
            self._forget_gone(Place(kind, project, UNDATED))

    def _ids(self, place: Place) -> Iterator[tuple[Identity, bytes]]:
        """What is held in a place, but for ids that are so new that their rows may not have been read."""
        for stored, state in self._target.held_ids(place):
            identity = identify(text_of(place.day, stored))
            if identity.created_us is None or identity.created_us < self._limit_us:
                yield identity, state

    def _forget_gone(self, place: Place) -> None:
        """The database is asked after the ledger was read, so what has just been created is not taken for gone."""
        ids = self._ids(place)
        while asked := list(islice(ids, _ASKED)):
            keys = [(place.project, text_of(place.day, identity.stored)) for identity, _ in asked]
            existing = self._slices.existing(place.kind, keys)
            gone = [(place, *each) for key, each in zip(keys, asked, strict=True) if key not in existing]
            self.swept.repaired[f"{place.kind} without a row"] += self._target.forget(gone)


def new_sweep(target: Target, slices: Slices) -> Sweep:
    """A sweep of what is tracked now."""
    clock = target.clock()
    return Sweep(target, slices, window_at(clock), clock.now_us)


def _difference(row: DeliveryRow, source: Label, state: DeliveryState | None, told: Labels | None) -> str | None:
    """What the ledger has wrong of a delivery; None if nothing."""
    if state is None:
        return "delivery missing"
    if row.created_us is not None and row.created_us != state.created_us:
        return "delivery creation time"
    if state.group:  # else it is beyond the cap on groups, and no labels are kept
        said = Labels(labels.plain(row.endpoint), labels.plain(row.event_type), labels.source(source))
        # A row whose event is gone does not say its source.
        if any(value is not None and value != held for value, held in zip(said, told or _UNKNOWN, strict=True)):
            return "delivery label"
    return None if STATUSES[state.rank - 1] == row.status.lower() else "delivery status"


def _by_project(read: Any, looked: list[Any], states: list[Any]) -> Mapping[tuple[str, int], Any]:
    """What groups stand for, by project and number."""
    wanted: dict[str, set[int]] = {}
    for (place, *_), state in zip(looked, states, strict=True):
        if state is not None:
            wanted.setdefault(place.project, set()).add(state.group)
    return {
        (project, number): told
        for project, numbers in wanted.items()
        for number, told in read(project, numbers).items()
    }


def _label(source: Label) -> Label:
    return None if source is UNTOLD else source
