"""Days that are not tracked any more: counted in the database, and put as counts."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from otel_queue.ledger.batches import delivery_group, event_group, rank_of
from otel_queue.ledger.counts import EVENTS, DayCounts
from otel_queue.ledger.identity import day_of, identify
from otel_queue.postgres.rows import DeliveryCount, DeliveryRow, EventCount, Rows
from otel_queue.seeding.window import Window

# As the gateway writes it, and as the index of the rows that are read one by one has it.
_PROCESSING: Final = "Processing"


@dataclass(slots=True)
class OldDays:
    """Counts by project and day. `unmergeable` are rows whose status is not known or not as it is written, by that."""

    days: dict[str, dict[str, DayCounts]] = field(default_factory=dict)
    deliveries: int = 0
    events: int = 0
    unmergeable: Counter[str] = field(default_factory=Counter)

    def of(self, project: str, day: str) -> DayCounts:
        """The counts of a day, to be added to."""
        return self.days.setdefault(project, {}).setdefault(day, DayCounts())


def count_old_days(rows: Rows, window: Window, between: Callable[[int, str], None]) -> OldDays:
    """All days up to `window.last_old_day`, as the database has them.

    `between` is called with how many rows came and what they are. Reads every older row; memory is by what there is
    to count. Deliveries in Processing are read apart, since each of them is to be known: so their count and the
    index always agree.
    """
    found = OldDays()
    for deliveries in rows.old_deliveries(window.first_id):
        between(sum(_add_deliveries(found, count) for count in deliveries.rows), "old deliveries")
    for processing in rows.old_processing(window.first_id):
        for row in processing.rows:
            _add_processing(found, row, window.last_old_day)
        between(len(processing.rows), "old deliveries")
    for events in rows.old_events(window.first_id):
        between(sum(_add_events(found, count) for count in events.rows), "old events")
    return found


def _add_deliveries(found: OldDays, count: DeliveryCount) -> int:
    try:
        rank = rank_of(count.status)
    except ValueError as error:
        found.unmergeable[str(error)] += count.total
        return count.total
    if count.status == _PROCESSING:
        return 0
    if rank == rank_of(_PROCESSING):
        # Counted and not in the index, it would be taken for a day that lost a part.
        found.unmergeable[f"status {count.status!r} of an old delivery, which the gateway writes {_PROCESSING!r}"] += (
            count.total
        )
        return count.total
    group = delivery_group(count.endpoint, count.event_type, count.source)
    found.of(count.project, count.day).counts[group, str(rank)] += count.total
    found.deliveries += count.total
    return count.total


def _add_processing(found: OldDays, row: DeliveryRow, last_old_day: str) -> None:
    identity = identify(row.id)
    created_us = row.created_us if row.created_us is not None else identity.created_us or 0
    day = found.of(row.project, min(day_of(created_us), last_old_day))
    group = delivery_group(row.endpoint, row.event_type, row.source)
    member = (group, created_us, identity.stored)
    if member in day.processing:
        return  # the slice was read again
    day.processing.add(member)
    day.counts[group, str(rank_of(row.status))] += 1
    found.deliveries += 1


def _add_events(found: OldDays, count: EventCount) -> int:
    found.of(count.project, count.day).counts[event_group(count.source), EVENTS] += count.total
    found.events += count.total
    return count.total
