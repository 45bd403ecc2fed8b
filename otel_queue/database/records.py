"""From a row to the record that says what it says."""

from typing import Final

from otel_queue import labels
from otel_queue.database.rows import AttemptRow, DeliveryRow, EventRow, ProjectRow
from otel_queue.ledger.identity import identify
from otel_queue.lifecycle import (
    STATUSES,
    AttemptMade,
    DeliveryCreated,
    EventCreated,
    Label,
    ProjectDescribed,
    StatusSet,
)

IN_FLIGHT: Final = frozenset(("Scheduled", "Processing", "Retry"))
"""The statuses that are not final, as the gateway writes them."""

FINAL: Final = frozenset(STATUSES) - {status.lower() for status in IN_FLIGHT}


def delivery_record(row: DeliveryRow, source: Label, time_us: int, *, is_new: bool) -> DeliveryCreated | StatusSet:
    """What a delivery's row said at `time_us`, in one record; raises ValueError for a status that is not known.

    A new row that was never updated was created; any other one was set, so that it stands above what was created.
    """
    status = labels.status(row.status)
    told = (row.endpoint, row.event_type, source)
    if is_new and row.updated_us in (None, row.created_us):
        return DeliveryCreated(row.project, row.id, time_us, *told, status=status, created_us=row.created_us)
    return StatusSet(row.project, row.id, status, time_us, *told, created_us=row.created_us)


def event_record(row: EventRow, time_us: int) -> EventCreated:
    """An event as its row has it. Its time is that of the row, which takes the least room; it decides nothing."""
    told_us = row.created_us or identify(row.id).created_us or time_us
    return EventCreated(row.project, row.id, min(told_us, time_us), row.source)


def attempt_record(row: AttemptRow, time_us: int) -> AttemptMade:
    """An attempt as its row has it; its time decides nothing."""
    return AttemptMade(row.project, row.id, time_us, row.endpoint, row.succeeded, row.http_status)


def project_record(row: ProjectRow, time_us: int) -> ProjectDescribed:
    """What a project was called at `time_us`."""
    return ProjectDescribed(row.id, time_us, row.name, row.organisation_id, row.organisation_name)
