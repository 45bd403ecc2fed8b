"""Seeding: every row that the ledger tracks is merged as a record, and older days come as counts."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from otel_queue import labels
from otel_queue.errors import WriteError
from otel_queue.ledger.counts import CountsStore
from otel_queue.ledger.store import OF_ONE_PROJECT, LedgerStore, Written
from otel_queue.lifecycle import EventCreated, ProjectDescribed, Record
from otel_queue.postgres.rows import Batch, DeliveryRow, EventRow, Rows
from otel_queue.seeding.attempts import UNTIMED, by_birth, record_of
from otel_queue.seeding.old_days import OldDays, count_old_days
from otel_queue.seeding.pace import WRITE_SECONDS, Pace
from otel_queue.seeding.progress import Progress
from otel_queue.seeding.repairs import merged_as
from otel_queue.seeding.window import Window, window_at


@dataclass(slots=True)
class Seeded:
    """What a seed did. `rows` are those read, by kind; `written` is what became of the tracked ones.

    `early_attempts` are those of before the ledger's birth, where its counter starts. `old_days` counts the days that
    were put, `left_out` those of each project that were not, since they are closed. `unmergeable` are rows that could
    not be merged, by why.
    """

    rows: Counter[str] = field(default_factory=Counter)
    early_attempts: int = 0
    written: Written = field(default_factory=Written)
    old_days: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)
    unmergeable: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether every row that was read is in the ledger, if it is of the ledger's time."""
        return not (self.written.late or self.left_out or self.unmergeable)


class Seed:
    """Merges the rows into a ledger that has its birth. It can be repeated, and ended at any point.

    A row is told as a moment before it was written, so what workers record meanwhile, or have recorded, stands.
    Raises ReadError, WriteError and StoppedError.
    """

    def __init__(self, rows: Rows, store: LedgerStore, counts: CountsStore, *, pace: Pace, progress: Progress) -> None:
        self._rows = rows
        self._store = store
        self._counts = counts
        self._pace = pace
        self._progress = progress
        self._skew_us = 0
        self.seeded = Seeded()

    def run(self) -> Seeded:
        """Seeds; `seeded` says how far it got when it raises."""
        began = time.monotonic()
        clock = self._pace.patiently(self._counts.clock)
        window, self._skew_us = window_at(clock), clock.contract.max_skew_us
        try:
            self._describe_projects()
            self._merge_deliveries(self._rows.deliveries(window.first_id))
            self._merge_deliveries(self._rows.undated_deliveries())
            self._merge_events(self._rows.events(window.first_id))
            self._merge_events(self._rows.undated_events())
            self._merge_attempts(window)
            self._put_old_days(window)
        finally:
            self.seeded.seconds = time.monotonic() - began
        return self.seeded

    def _describe_projects(self) -> None:
        time_us = self._rows.clock() - self._skew_us
        found = self._rows.projects()
        self._merge(
            [ProjectDescribed(row.id, time_us, row.name, row.organisation_id, row.organisation_name) for row in found],
            len(found),
            "projects",
        )

    def _merge_deliveries(self, batches: Iterable[Batch[DeliveryRow]]) -> None:
        for batch in batches:
            self._merge(list(self._deliveries(batch.rows)), len(batch.rows), "deliveries")

    def _deliveries(self, rows: Sequence[DeliveryRow]) -> Iterator[Record]:
        for row in rows:
            try:
                status = labels.status(row.status)
            except ValueError as error:
                self.seeded.unmergeable[str(error)] += 1
                continue
            yield from merged_as(row, status, max(row.updated_us - self._skew_us, 0))

    def _merge_events(self, batches: Iterable[Batch[EventRow]]) -> None:
        for batch in batches:
            records = [EventCreated(row.project, row.id, row.created_us or 0, row.source) for row in batch.rows]
            self._merge(records, len(batch.rows), "events")

    def _merge_attempts(self, window: Window) -> None:
        for batch in chain(self._rows.attempts(window.first_attempt_id), self._rows.undated_attempts()):
            found = by_birth(batch.rows, window.birth_us)
            self.seeded.early_attempts += found.early
            if found.untimed:
                self.seeded.unmergeable[UNTIMED] += len(found.untimed)
            self._merge([record_of(row) for row in found.since], len(batch.rows), "attempts")

    def _put_old_days(self, window: Window) -> None:
        old = count_old_days(self._rows, window, self._count_old)
        self.seeded.unmergeable.update(old.unmergeable)
        put_old_days(old, self._counts, window, self._pace, self.seeded)

    def _count_old(self, rows: int, what: str) -> None:
        self.seeded.rows[what] += rows
        self._progress.advance(rows, what)
        self._pace.rest()

    def _merge(self, records: Sequence[Record], rows: int, what: str) -> None:
        if records:
            self._write(records)
        self.seeded.rows[what] += rows
        self._progress.advance(rows, what)
        self._pace.rest()

    def _write(self, records: Sequence[Record]) -> None:
        outcomes = self._pace.patiently(partial(self._try, records))
        for project, outcome in outcomes.items():
            if isinstance(outcome, Written):
                self.seeded.written = self.seeded.written.plus(outcome)
            else:
                refused = sum(record.project == project for record in records)
                self.seeded.unmergeable[f"project {project!r}: {outcome}"] += refused

    def _try(self, records: Sequence[Record]) -> dict[str, Written | WriteError]:
        """What became of each project; raises what is wrong with more than one project."""
        deadline = time.monotonic() + WRITE_SECONDS
        outcomes = self._store.write_each(records, deadline)
        for outcome in outcomes.values():
            if isinstance(outcome, WriteError) and outcome.reason not in OF_ONE_PROJECT:
                raise outcome
        self._store.announce((each for each, told in outcomes.items() if isinstance(told, Written)), deadline)
        return outcomes


def put_old_days(old: OldDays, counts: CountsStore, window: Window, pace: Pace, seeded: Seeded) -> None:
    """Puts what was counted, a project at a time, and adds to `seeded` what became of it."""
    for project, days in sorted(old.days.items()):
        try:
            put = pace.patiently(partial(counts.put, project, days, window.last_old_day))
        except WriteError as error:
            if error.reason not in OF_ONE_PROJECT:
                raise
            seeded.unmergeable[f"project {project!r}: {error}"] += sum(day.rows for day in days.values())
            continue
        seeded.old_days += len(put.days)
        if put.left_out:
            seeded.left_out[project] = put.left_out
        pace.rest()
