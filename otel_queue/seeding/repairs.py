"""What has to be recorded for the ledger to say what a row says. Records only, so each repair merges like any other."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from otel_queue import labels
from otel_queue.ledger.identity import identify
from otel_queue.ledger.project import Labels
from otel_queue.ledger.states import TOLD_BY_CREATED, DeliveryState, EventState
from otel_queue.lifecycle import STATUSES, DeliveryCreated, EventCreated, Record, StatusSet
from otel_queue.postgres.rows import DeliveryRow, EventRow

# In multiples of `max_skew`: the hooks of a row's last change told times up to one ahead of it, and those of a change
# that the reading did not see tell times from one before it on. Between the two there has to be room.
_QUIET: Final = 3
_UNTOLD: Final = Labels(None, None, None)


@dataclass(frozen=True, slots=True)
class Rest:
    """Which rows are at rest: what they say can be told from what the reading may have missed.

    `read_us` is before the reading, by the database's clock and by Redis's; `skew_us` is how far clocks may differ.
    """

    read_us: int
    skew_us: int

    def holds(self, changed_us: int) -> bool:
        """Whether what changed last at this time is at rest."""
        return changed_us < self.read_us - _QUIET * self.skew_us

    @property
    def limit_us(self) -> int:
        """The last moment for which a row at rest is known to be as it was read: any later change tells a later one."""
        return self.read_us - self.skew_us - 1


class Finding(NamedTuple):
    """What the ledger holds, and what the database says; None is nothing. `what` names the kind of repair."""

    project: str
    what: str
    id: str
    field: str
    held: str | None
    database: str | None


class Repair(NamedTuple):
    """Findings, and the records that repair them all.

    `is_newer`: the ledger was told something later than what was read, so nothing is to be repaired now. `is_anew`:
    no record would win over what is held, so that has to be forgotten first.
    """

    findings: list[Finding]
    records: list[Record]
    is_newer: bool = False
    is_anew: bool = False


def merged_as(row: DeliveryRow, status: str, time_us: int) -> list[Record]:
    """A row as records of that time: what was created and, unless it is as it was created, the status that was set."""
    created = _created(row, status, time_us)
    if status == STATUSES[0] and row.updated_us == row.created_us:
        return [created]
    return [created, StatusSet(row.project, row.id, status, time_us)]


def _created(row: DeliveryRow, status: str, time_us: int) -> DeliveryCreated:
    told = (row.endpoint, row.event_type, row.source)
    return DeliveryCreated(row.project, row.id, time_us, *told, status=status, created_us=row.created_us)


def repair_delivery(row: DeliveryRow, state: DeliveryState | None, told: Labels | None, rest: Rest) -> Repair:
    """What a delivery's row at rest says, and the ledger does not.

    `told` are the labels of the state's group, None where they were not kept. Raises ValueError for an unknown status.
    """
    status = labels.status(row.status)
    known_us = max(row.updated_us + rest.skew_us, state.status_us if state else 0) + 1
    anew = merged_as(row, status, known_us)
    if state is None:
        return Repair([Finding(row.project, "delivery missing", row.id, "status", None, status)], anew)
    findings, records = list(_label_findings(row, state, told)), list[Record]()
    is_anew = False
    if row.created_us is not None and row.created_us != state.created_us:
        held, database = str(state.created_us), str(row.created_us)
        findings.append(Finding(row.project, "delivery creation time", row.id, "created_us", held, database))
        # Of two created records the earlier one stands.
        is_anew = state.created_kind == TOLD_BY_CREATED and state.created_us < row.created_us
    if findings:
        # Earlier than what tells the labels now, so that it tells them, and never the status.
        born_us = row.created_us or identify(row.id).created_us or row.updated_us
        before_us = min(born_us - rest.skew_us, state.labels_us or born_us) - 1
        records.append(_created(row, status, max(before_us, 1)))
    held_status = STATUSES[state.rank - 1]
    if held_status != status:
        findings.append(Finding(row.project, "delivery status", row.id, "status", held_status, status))
        records.append(StatusSet(row.project, row.id, status, known_us))
    is_newer = bool(findings) and known_us > rest.limit_us
    return Repair(findings, anew if is_anew else records, is_newer, is_anew)


def _label_findings(row: DeliveryRow, state: DeliveryState, told: Labels | None) -> Iterator[Finding]:
    if state.group == 0:
        return  # beyond the hard cap on groups: no labels are kept
    said = Labels(labels.plain(row.endpoint), labels.plain(row.event_type), labels.source(row.source))
    for field, held, database in zip(Labels._fields, told or _UNTOLD, said, strict=True):
        # A row whose event is gone does not say its source.
        if database is not None and held != database:
            yield Finding(row.project, "delivery label", row.id, field, held, database)


def repair_event(row: EventRow, state: EventState | None, told: str | None) -> Repair:
    """What an event's row says, and the ledger does not; `told` is the source of the state's group."""
    source = labels.source(row.source)
    born_us = row.created_us or identify(row.id).created_us or 1
    if state is None:
        finding = Finding(row.project, "event missing", row.id, "source", None, source)
        return Repair([finding], [EventCreated(row.project, row.id, born_us, row.source)])
    if state.group == 0 or told == source:
        return Repair([], [])
    # The earliest record tells the source.
    before_us = max(min(born_us, state.time_us) - 1, 1)
    finding = Finding(row.project, "event source", row.id, "source", told, source)
    return Repair([finding], [EventCreated(row.project, row.id, before_us, row.source)])
