"""Days that are not tracked any more: where their counts are not those of the rows."""

from collections.abc import Mapping

from otel_queue.ledger.administration import Marks
from otel_queue.ledger.counts import DayCounts
from otel_queue.ledger.keys import SETTLED
from otel_queue.ledger.tracked import Tracked
from otel_queue.seeding.repairs import Finding
from otel_queue.seeding.window import Window


def differing_days(
    project: str,
    rows: Mapping[str, DayCounts],
    held_days: set[str],
    marks: Marks,
    tracked: Tracked,
    window: Window,
) -> tuple[dict[str, DayCounts], list[Finding]]:
    """The days whose counts are to be put, and what is wrong with them.

    `rows` are the counts of the database, `held_days` the days that the ledger has. A day without rows is to be empty.
    Folded days are one: all of them are to be put if their sum is off.
    """
    old = {day for day in (*rows, *held_days) if day <= window.last_old_day}
    wanted = {day: rows.get(day, DayCounts()) for day in sorted(old) if day > marks.expired}
    put: dict[str, DayCounts] = {}
    findings: list[Finding] = []
    for day in [day for day in wanted if day > marks.folded]:
        if finding := _compare(project, day, wanted[day], tracked):
            findings.append(finding)
            put[day] = wanted[day]
    if marks.folded and marks.folded <= window.last_old_day:
        folded = {day: counts for day, counts in wanted.items() if day <= marks.folded}
        total = DayCounts()
        for counts in folded.values():
            total.add(counts)
        if finding := _compare(project, SETTLED, total, tracked):
            findings.append(finding)
            # Named, so that the sum of no days is put as well.
            put |= {marks.folded: DayCounts(), **folded}
    return put, findings


def _compare(project: str, day: str, wanted: DayCounts, tracked: Tracked) -> Finding | None:
    held = tracked.counts(project, day)
    if held.counts == wanted.counts and held.processing == wanted.processing:
        return None
    return Finding(project, "old day", day, "rows", str(held.rows), str(wanted.rows))
