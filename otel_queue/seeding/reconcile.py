"""Reconciling: the ledger is made to agree with the rows that are at rest."""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Final, NamedTuple

from otel_queue import labels
from otel_queue.errors import ReadError
from otel_queue.ledger.counts import CountsStore
from otel_queue.ledger.identity import UNDATED, day_of, text_of
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.tracked import Kind, Place, Tracked
from otel_queue.ledger.upkeep import Upkeep
from otel_queue.lifecycle import DayExpired, ProjectDescribed, Record
from otel_queue.postgres.rows import Batch, Item, Rows
from otel_queue.seeding.gone import without_row
from otel_queue.seeding.old_days import OldDays, count_old_days
from otel_queue.seeding.old_differences import differing_days
from otel_queue.seeding.pace import WRITE_SECONDS, Pace
from otel_queue.seeding.progress import Progress
from otel_queue.seeding.repairs import Finding, Rest
from otel_queue.seeding.report import Report
from otel_queue.seeding.row_repairs import RowRepairs
from otel_queue.seeding.window import Window, window_at

_DAY_US: Final = 86_400_000_000
# How often a day's counts are looked at that change all the time.
_TRIES: Final = 3
_KINDS: Final[tuple[Kind, ...]] = ("delivery", "event")


class LedgerParts(NamedTuple):
    """What a ledger is looked at and repaired with."""

    store: LedgerStore
    tracked: Tracked
    upkeep: Upkeep
    counts: CountsStore


class Reconcile:
    """Compares all rows, or those of one project, with a ledger that was begun, and repairs the ledger.

    What workers record meanwhile stands. It can be ended at any point and repeated. Raises ReadError, WriteError,
    and StoppedError.
    """

    def __init__(
        self,
        rows: Rows,
        ledger: LedgerParts,
        *,
        project: str | None = None,
        is_dry: bool = False,
        pace: Pace,
        progress: Progress,
    ) -> None:
        self._rows = rows
        self._ledger = ledger
        self._project = project
        self._pace = pace
        self._progress = progress
        self.report = Report(is_dry)

    def run(self) -> Report:
        """Reconciles; `report` says how far it got when it raises."""
        began = time.monotonic()
        clock = self._pace.patiently(self._ledger.counts.clock)
        window = window_at(clock)
        rest = Rest(min(clock.now_us, self._rows.clock()), clock.contract.max_skew_us)
        repairs = RowRepairs(
            self._ledger.store, self._ledger.tracked, rest, self.report, pace=self._pace, birth_us=window.birth_us
        )
        try:
            self._repair_rows(repairs, window)
            projects = self._register(repairs)
            self._describe(rest)
            # Behind the rows: where ids were lost and their counts were not, the rows have just been counted twice.
            doubtful = {place for project in projects for place in self._repair_counts(project, window)}
            old = count_old_days(self._rows, window, self._count)
            for status, total in old.unmergeable.items():
                self.report.left["", status] += total
            for project in projects:
                gone = self._expire(project, repairs, old, day_of(clock.now_us - _DAY_US))
                days = [day for day in self._days(project) if day not in gone]
                dated = [day for day in days if day > window.last_old_day]
                tracked = (Place(kind, project, day) for day in (*dated, UNDATED) for kind in _KINDS)
                for place in tracked:
                    if place in doubtful or self._ledger.tracked.counted(place) > repairs.held[place]:
                        self._forget(place, rest)
                self._put_old_days(project, old, set(days), window)
        finally:
            self.report.seconds = time.monotonic() - began
        return self.report

    def _repair_rows(self, repairs: RowRepairs, window: Window) -> None:
        rows = self._rows
        deliveries = chain(rows.deliveries(window.first_id), rows.undated_deliveries())
        self._each("deliveries", deliveries, repairs.take_deliveries)
        self._each("events", chain(rows.events(window.first_id), rows.undated_events()), repairs.take_events)
        attempts = chain(rows.attempts(window.first_attempt_id), rows.undated_attempts())
        self._each("attempts", attempts, repairs.take_attempts)

    def _each(self, kind: str, batches: Iterable[Batch[Item]], take: Callable[[Sequence[Item]], None]) -> None:
        for batch in batches:
            take(batch.rows)
            self._count(len(batch.rows), kind)

    def _count(self, rows: int, what: str) -> None:
        self.report.read[what] += rows
        self._progress.advance(rows, what)
        self._pace.rest()

    def _register(self, repairs: RowRepairs) -> list[str]:
        """The projects of the ledger; those that it holds and that are not registered (any more) are."""
        registered = self._pace.patiently(self._ledger.upkeep.projects)
        holding = {place.project for place in repairs.held}
        for project in sorted(holding - set(registered)):
            # Registers the project, as any record does, and tells nothing.
            self._write([ProjectDescribed(project, 0)])
            self.report.take([Finding(project, "project missing", project, "oq:projects", None, project)])
        return [project for project in sorted({*holding, *registered}) if self._project in (None, project)]

    def _describe(self, rest: Rest) -> None:
        rows = self._rows.projects()
        held = self._pace.patiently(partial(self._ledger.tracked.descriptions, [row.id for row in rows]))
        records: list[Record] = []
        for row, description in zip(rows, held, strict=True):
            said = (row.name, row.organisation_id, row.organisation_name)
            called = tuple(labels.clean(name) for name in said)
            if called == description.names:
                continue
            if description.time_us >= rest.limit_us:
                self.report.moving[row.id, "project"] += 1
                continue
            records.append(ProjectDescribed(row.id, rest.limit_us, *said))
            held_names, names = "/".join(description.names), "/".join(called)
            self.report.take([Finding(row.id, "project names", row.id, "names", held_names, names)])
        self._write(records)

    def _repair_counts(self, project: str, window: Window) -> set[Place]:
        """Counts days anew that do not add up; returns the places whose counts cannot be relied on all the same."""
        doubtful: set[Place] = set()
        for day in self._days(project):
            if day <= window.last_old_day:
                continue
            try:
                is_doubtful = self._repair_day(project, day)
            except ReadError as error:
                if error.reason != "busy":
                    raise
                self.report.moving[project, "counts of a day"] += 1
                is_doubtful = True
            if is_doubtful:
                doubtful |= {Place(kind, project, day) for kind in _KINDS}
            self._pace.rest()
        return doubtful

    def _repair_day(self, project: str, day: str) -> bool:
        upkeep = self._ledger.upkeep
        off = self._pace.patiently(partial(upkeep.check_day, project, day))
        findings = [
            Finding(project, "counts", day, f"{each.group}:{each.what}", str(each.counted), str(each.tracked))
            for each in off
        ]
        if self.report.is_dry or not findings:
            self.report.take(findings)
            return bool(findings)
        if any(self._pace.patiently(partial(upkeep.repair, project, day)) for _ in range(_TRIES)):
            self.report.take(findings)
            return False
        self.report.moving[project, "counts of a day"] += 1
        return True

    def _expire(self, project: str, repairs: RowRepairs, old: OldDays, yesterday: str) -> list[str]:
        """Takes out the days before the project's first row, and returns them.

        Not those of a project that has no row at all: they are forgotten one by one, which can be undone.
        """
        first = repairs.first_days.get(project)
        if first is None or old.days.get(project):
            return []
        gone = [day for day in self._days(project) if day != UNDATED and day < min(first, yesterday)]
        for day in gone:
            held = sum(self._ledger.tracked.counted(Place(kind, project, day)) for kind in _KINDS)
            self.report.take([Finding(project, "day gone", day, "rows", str(held), None)])
        if gone:
            self._write([DayExpired(project, gone[-1])])
        return gone

    def _forget(self, place: Place, rest: Rest) -> None:
        for gone in without_row(place, self._ledger.tracked, self._rows, rest):
            is_gone = [True] * len(gone)
            if not self.report.is_dry:
                is_gone = self._pace.patiently(partial(self._ledger.tracked.forget, place, gone))
            for (identity, _), done in zip(gone, is_gone, strict=True):
                if done:
                    text = text_of(identity.day, identity.stored)
                    self.report.take([Finding(place.project, f"{place.kind} gone", text, "row", "held", None)])
                else:
                    self.report.moving[place.project, place.kind] += 1
            self._pace.rest()

    def _put_old_days(self, project: str, old: OldDays, held_days: set[str], window: Window) -> None:
        tracked = self._ledger.tracked
        [marks] = self._pace.patiently(partial(tracked.marks, [project]))
        rows = old.days.get(project, {})
        put, findings = differing_days(project, rows, held_days, marks, tracked, window)
        if beyond := sum(counts.rows for day, counts in rows.items() if day <= marks.expired):
            self.report.beyond[project, "old rows"] += beyond
        if put and not self.report.is_dry:
            self._pace.patiently(partial(self._ledger.counts.put, project, put, window.last_old_day))
        self.report.take(findings)

    def _days(self, project: str) -> list[str]:
        return list(self._pace.patiently(partial(self._ledger.upkeep.days, project)))

    def _write(self, records: Sequence[Record]) -> None:
        if records and not self.report.is_dry:
            self._pace.patiently(lambda: self._ledger.store.write(records, time.monotonic() + WRITE_SECONDS))
