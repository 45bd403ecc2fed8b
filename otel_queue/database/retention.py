"""Days whose partitions the gateway's retention has dropped: they expire in the ledger, and only they."""

import logging
from typing import Final

from otel_queue.database.partitions import Layout
from otel_queue.database.place import Place
from otel_queue.database.rows import statement
from otel_queue.database.target import Target
from otel_queue.database.wanted import moment
from otel_queue.ledger.identity import end_of
from otel_queue.lifecycle import DayExpired
from otel_queue.postgres.database import Database

_log: Final = logging.getLogger(__name__)


def expire_dropped_days(database: Database, target: Target, place: Place, layout: Layout) -> list[DayExpired]:
    """Expires the days of each project whose partitions were there and are not any more; what was expired.

    Expiring takes out all days before, too. So a day waits while an earlier one has a partition, or rows in the default
    partition. Missing rows say nothing: a table without partitions, and one that never had any, expires nothing. Raises
    ReadError and WriteError; then the place is as it was, or has less to expire.
    """
    if not layout.is_partitioned:
        return []
    expired: list[DayExpired] = []
    for project, known in place.days.items():
        kept = layout.days.get(project, set())
        gone = [day for day in known if day not in kept and day < min(kept, default="99999999")]
        if not gone:
            continue
        through = max(gone)
        if _has_rows(database, project, through):
            _log.info(
                "follow: %s of project %s has no partition any more, and rows of before it: kept", through, project
            )
            continue
        expired.append(DayExpired(project, through))
    target.write(expired)
    through_of = {record.project: record.day for record in expired}
    for project in {*place.days, *layout.days}:
        days = {*place.days.get(project, ()), *layout.days.get(project, ())}
        place.days[project] = sorted(day for day in days if day > through_of.get(project, ""))
    return expired


def _has_rows(database: Database, project: str, through: str) -> bool:
    left_over = statement("left_over", project=project, until=moment(end_of(through) * 1_000_000))
    with database.reading() as reading:
        [[has_rows]] = reading.fetch(left_over)
    return bool(has_rows)
