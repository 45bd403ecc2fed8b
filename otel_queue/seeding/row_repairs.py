"""From the rows to the ledger: what is held of each row's id, and the records that set it right."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from otel_queue.ledger.administration import Marks
from otel_queue.ledger.identity import UNDATED, Identity, day_of, identify
from otel_queue.ledger.states import delivery_state, event_state
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.tracked import Kind, Place, Tracked
from otel_queue.lifecycle import Record
from otel_queue.postgres.rows import AttemptRow, DeliveryRow, EventRow
from otel_queue.seeding.attempts import UNTIMED, by_birth, made_at, repair_attempt
from otel_queue.seeding.pace import WRITE_SECONDS, Pace
from otel_queue.seeding.repairs import Repair, Rest, repair_delivery, repair_event
from otel_queue.seeding.report import Report

_Row = TypeVar("_Row", DeliveryRow, EventRow, AttemptRow)


class _Judged(NamedTuple):
    """A row of a place that needs a repair, and what was held of it."""

    place: Place
    identity: Identity
    state: bytes | None
    repair: Repair


class RowRepairs:
    """Repairs batches of rows, and remembers what it met.

    `held` counts the rows of each place that the ledger holds (now), `first_days` has each project's first dated day
    with a row.
    """

    def __init__(
        self, store: LedgerStore, tracked: Tracked, rest: Rest, report: Report, *, pace: Pace, birth_us: int
    ) -> None:
        self._store = store
        self._tracked = tracked
        self._rest = rest
        self._report = report
        self._pace = pace
        self._birth_us = birth_us
        self._marks: dict[str, Marks] = {}
        self._before: dict[str, set[tuple[str, str]]] = {}
        self.held: Counter[Place] = Counter()
        self.first_days: dict[str, str] = {}

    def take_deliveries(self, rows: Sequence[DeliveryRow]) -> None:
        """Repairs what is held of these deliveries."""
        self._take(
            "delivery", rows, _changed_us, delivery_state, self._tracked.labels,
            lambda row, state, told: repair_delivery(row, state, told, self._rest),
        )  # fmt: skip

    def take_events(self, rows: Sequence[EventRow]) -> None:
        """Repairs what is held of these events."""
        self._take("event", rows, _created_us, event_state, self._tracked.sources, repair_event)

    def take_attempts(self, rows: Sequence[AttemptRow]) -> None:
        """Counts those that were made since the ledger began and are not known."""
        found = by_birth(rows, self._birth_us)
        self._report.early_attempts += found.early
        for row in found.untimed:
            self._report.left[row.project, UNTIMED] += 1
        self._take(
            "attempt", found.since, lambda row: made_at(row) or 0, lambda *_: None, lambda *_: {},
            lambda row, *_: repair_attempt(row),
        )  # fmt: skip

    def _take(
        self,
        kind: Kind,
        rows: Sequence[_Row],
        changed_us: Callable[[_Row], int],
        parse: Callable[[str, bytes, bytes], Any],
        labels_of: Callable[[str, Iterable[int]], Mapping[int, Any]],
        repair: Callable[[_Row, Any, Any], Repair],
    ) -> None:
        places = self._placed(kind, rows)
        wanted = {place: [identity for _, identity in items] for place, items in places.items()}
        found = self._pace.patiently(partial(self._tracked.find, wanted))
        judged: list[_Judged] = []
        for place, items in places.items():
            held = found[place]
            if held.is_closed and kind != "attempt":
                self._report.beyond[place.project, kind] += len(items)
                continue
            states = [
                parse(place.day, identity.stored, state) if state else None
                for (_, identity), state in zip(items, held.states, strict=True)
            ]
            told = labels_of(place.project, {state.group for state in states if state is not None})
            for (row, identity), raw, state in zip(items, held.states, states, strict=True):
                if raw or (raw is not None and kind == "attempt"):
                    self.held[place] += 1
                    if kind == "attempt":
                        continue  # counted, with what was told first
                if not self._rest.holds(changed_us(row)):
                    self._report.moving[place.project, kind] += 1
                    continue
                try:
                    wrong = repair(row, state, told.get(state.group) if state is not None else None)
                except ValueError as error:  # a status that is not known
                    self._report.left[place.project, str(error)] += 1
                    continue
                if wrong.is_newer:
                    self._report.moving[place.project, kind] += 1
                elif wrong.findings:
                    judged.append(_Judged(place, identity, raw, wrong))
        self._apply(judged)

    def _placed(self, kind: Kind, rows: Sequence[_Row]) -> dict[Place, list[tuple[_Row, Identity]]]:
        """Rows by where the ledger has them; those that it cannot have any more are counted."""
        # A slice that is read again begins with rows that were taken already.
        before, self._before[kind] = self._before.get(kind, set()), {(row.project, row.id) for row in rows}
        rows = [row for row in rows if (row.project, row.id) not in before]
        new = sorted({row.project for row in rows} - set(self._marks))
        self._marks.update(zip(new, self._pace.patiently(partial(self._tracked.marks, new)), strict=True))
        places: dict[Place, list[tuple[_Row, Identity]]] = {}
        for row in rows:
            identity = identify(row.id)
            day = identity.day
            expired = self._marks[row.project].expired
            if kind != "attempt" and day != UNDATED and day <= expired:
                # An id of just before midnight, with a row of just after it: the row's day is what retention goes by.
                day = expired if row.created_us is None else day_of(row.created_us)
                if day <= expired:
                    self._report.beyond[row.project, kind] += 1
                    continue
            if kind != "attempt" and day != UNDATED:
                self.first_days[row.project] = min(day, self.first_days.get(row.project, day))
            places.setdefault(Place(kind, row.project, day), []).append((row, identity))
        return places

    def _apply(self, judged: Sequence[_Judged]) -> None:
        if not self._report.is_dry:
            judged = [each for each in judged if not each.repair.is_anew or self._is_forgotten(each)]
            records: dict[str | None, list[Record]] = {}
            for place, identity, _, repair in judged:
                under_day = None if place.day == identity.day else place.day
                records.setdefault(under_day, []).extend(repair.records)
            for under_day, told in records.items():
                self._write(told, under_day)
        for place, _, state, repair in judged:
            self._report.take(repair.findings)
            if not state and not self._report.is_dry:
                self.held[place] += 1

    def _is_forgotten(self, each: _Judged) -> bool:
        """Whether it could be: something else was told of it meanwhile, if not."""
        forget = partial(self._tracked.forget, each.place, [(each.identity, each.state or b"")])
        [is_forgotten] = self._pace.patiently(forget)
        if not is_forgotten:
            self._report.moving[each.place.project, each.place.kind] += 1
        return is_forgotten

    def _write(self, records: Sequence[Record], under_day: str | None) -> None:
        written = self._pace.patiently(
            lambda: self._store.write(records, time.monotonic() + WRITE_SECONDS, under_day=under_day)
        )
        if written.late:
            self._report.moving["", "records of days that were closed meanwhile"] += written.late


def _changed_us(row: DeliveryRow) -> int:
    return row.updated_us


def _created_us(row: EventRow) -> int:
    return row.created_us or 0
