"""Attempts out of their rows: which of them the ledger's counter has, and whether it knows them by these rows' ids."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

from otel_queue import labels
from otel_queue.errors import OtelQueueError
from otel_queue.ledger.identity import day_of, identify, text_of
from otel_queue.ledger.tracked import Place, Tracked
from otel_queue.lifecycle import AttemptMade
from otel_queue.postgres.rows import AttemptRow, Rows
from otel_queue.seeding.pace import Pace
from otel_queue.seeding.repairs import Finding, Repair, Rest

_log: Final = logging.getLogger(__name__)

UNTIMED: Final = "attempts without a time: created_at is NULL, and the id tells none"
"""Why an attempt's row counts nowhere: nobody can say whether it was made since the ledger's birth."""

_DAY_US: Final = 86_400_000_000
# Of so many projects, so many of the attempts that the ledger counted on each of the last two days.
_PROJECTS: Final = 50
_ASKED: Final = 100


class ByBirth(NamedTuple):
    """Attempts made since the ledger's birth; how many were before it, and those of which nobody can say."""

    since: list[AttemptRow]
    early: int
    untimed: list[AttemptRow]


def by_birth(rows: Iterable[AttemptRow], birth_us: int) -> ByBirth:
    """The attempts sorted by when they were made: as the row says, else as its id does."""
    since: list[AttemptRow] = []
    untimed: list[AttemptRow] = []
    early = 0
    for row in rows:
        made_us = made_at(row)
        if made_us is None:
            untimed.append(row)
        elif made_us < birth_us:
            early += 1
        else:
            since.append(row)
    return ByBirth(since, early, untimed)


def made_at(row: AttemptRow) -> int | None:
    """When the attempt was made, Unix microseconds; None if neither its row nor its id says."""
    return identify(row.id).created_us if row.created_us is None else row.created_us


def record_of(row: AttemptRow) -> AttemptMade:
    """The record by which a row that has a time is counted."""
    return AttemptMade(row.project, row.id, made_at(row) or 0, row.endpoint, row.succeeded, row.http_status)


def repair_attempt(row: AttemptRow) -> Repair:
    """What it takes to count an attempt that the ledger does not know."""
    outcome = f"{labels.outcome(row.succeeded)} {labels.http_status_code(row.http_status)}"
    return Repair([Finding(row.project, "attempt missing", row.id, "status", None, outcome)], [record_of(row)])


def refuse_ids_without_rows(rows: Rows, tracked: Tracked, projects: Sequence[str], rest: Rest, pace: Pace) -> None:
    """Looks whether the attempts that the ledger counted last have rows; raises OtelQueueError if most have none.

    Then workers report attempts under ids of their own, and each would count a second time under its row's id. Logs
    how many have no row where they are fewer. The database is asked after the ledger was read. Nothing is known
    of a ledger that holds no attempt at rest of today and yesterday.
    """
    held = [id_ for project in projects[:_PROJECTS] for id_ in _latest(tracked, project, rest, pace)]
    if not held:
        return
    without = len(set(held) - rows.existing_attempts(held))
    found = f"{without} of {len(held)} attempts that the ledger counted last have no row"
    if 2 * without > len(held):
        raise OtelQueueError(
            f"{found}: workers seem to report attempts under ids of their own, so that each would count twice; say "
            "--no-attempts, or have workers report the ids of the rows (attempt_id) and begin a new ledger"
        )
    if without:
        _log.warning("%s: each that a worker reported under another id than its row's counts twice", found)


def _latest(tracked: Tracked, project: str, rest: Rest, pace: Pace) -> list[str]:
    days = (day_of(rest.read_us - ago * _DAY_US) for ago in (0, 1))
    return [
        id_ for day in days for id_ in pace.patiently(partial(_at_rest, tracked, Place("attempt", project, day), rest))
    ]


def _at_rest(tracked: Tracked, place: Place, rest: Rest) -> list[str]:
    ids: Iterator[str] = (text_of(place.day, stored) for stored, _ in tracked.ids(place))
    return list(islice((id_ for id_ in ids if rest.holds(identify(id_).created_us or 0)), _ASKED))
