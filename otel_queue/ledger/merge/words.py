"""What has to be recorded for a ledger to say what a row says: which record, and with which time."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from otel_queue.ledger.project import Labels
from otel_queue.ledger.states import TOLD_BY_ID, TOLD_BY_ROW, DeliveryState, EventState
from otel_queue.lifecycle import STATUSES, UNTOLD, DeliveryCreated, DeliveryRead, EventCreated, Label, Record

REST_US: Final = 3_000_000
"""A row is at rest so long after the reading that first showed it as it is: its hooks have told by then."""

# A hook estimates the creation time just before the row gets its own.
_CREATED_WITHIN_US: Final = 1_000_000
_UNTOLD: Final = Labels(None, None, None)


@dataclass(frozen=True, slots=True)
class Rest:
    """How far what the follower has read can be trusted; times are Unix microseconds.

    `now_us` is when the merge began, by the Redis of the follower's ledger. `swept_us` is when the last complete
    reading of all rows began that has ended, 0 if there is none. `skew_us` is how far the clocks of hooks may be off.
    """

    now_us: int
    swept_us: int
    skew_us: int

    def holds(self, read_us: int) -> bool:
        """Whether a row that was first read so at this time is at rest."""
        return read_us <= self.now_us - REST_US

    def limit_us(self, read_us: int) -> int:
        """Up to when a row's word may be told: hooks tell a later time of whatever was not read of the row."""
        return max(read_us, self.swept_us) - self.skew_us - 1

    def status_us(self, read_us: int, held_us: int) -> int | None:
        """The time with which the row's status is told so that it beats what is held; None if that may be newer.

        If there is room it is also later than what hooks may still tell of what was read.
        """
        wanted_us = min(max(read_us + self.skew_us, held_us) + 1, self.limit_us(read_us))
        return wanted_us if wanted_us > held_us else None

    def is_settled(self, told_us: int) -> bool:
        """Whether every row that was there at this time, by a hook's clock, has been read since."""
        return told_us <= self.swept_us - self.skew_us - 1


class Word(NamedTuple):
    """What is to be recorded for one id, and why: `whats` name what differs; `is_moving` says that it may be newer."""

    whats: tuple[str, ...] = ()
    record: Record | None = None
    is_moving: bool = False


NOTHING: Final = Word()
MOVING: Final = Word(is_moving=True)
STATUS: Final = "delivery status"
AS_CREATED: Final = "delivery status: its row is as it was created"


def delivery_word(
    project: str,
    id_: str,
    row: DeliveryState,
    row_labels: Labels,
    held: DeliveryState | None,
    held_labels: Labels | None,
    rest: Rest,
) -> Word:
    """What a delivery's row says and the ledger does not; `held_labels` is None where they are not kept."""
    status = STATUSES[row.rank - 1]
    labels = (_told(row_labels.endpoint), _told(row_labels.event_type), _told(row_labels.source))
    created_us = row.created_us if row.created_kind != TOLD_BY_ID else None
    if held is None:
        return _missing(project, id_, row, labels, created_us, rest)
    whats = [f"delivery {field}" for field in _other_labels(row_labels, held, held_labels)]
    if created_us is not None and _is_other_creation(created_us, held):
        whats.append("delivery creation time")
    is_other_status = row.rank != held.rank
    if not whats and not is_other_status:
        return NOTHING
    told_us = rest.status_us(row.status_us, held.status_us if held.is_set else 0)
    if not rest.holds(row.status_us) or (is_other_status and told_us is None):
        return MOVING
    if is_other_status and (row.is_set or not held.is_set):
        whats.append(STATUS)
        return Word(tuple(whats), DeliveryRead(project, id_, status, told_us or 0, *labels, created_us=created_us))
    if is_other_status:
        # Created is first by definition: hooks that set a status know of more, or of what was undone.
        whats.append(AS_CREATED)
        if len(whats) == 1:
            return Word(tuple(whats))
    # The status that is held, at its time: labels are told, and it stays.
    stays_us = held.status_us if held.is_set else 0
    if held.created_kind == TOLD_BY_ROW:
        stays_us = max(stays_us, held.labels_us)  # of two rows the later tells the labels
    stays = STATUSES[held.rank - 1]
    return Word(tuple(whats), DeliveryRead(project, id_, stays, stays_us + 1, *labels, created_us=created_us))


def _told(label: str | None) -> Label:
    return UNTOLD if label is None else label


def _missing(
    project: str, id_: str, row: DeliveryState, labels: tuple[Label, Label, Label], created_us: int | None, rest: Rest
) -> Word:
    status, whats = STATUSES[row.rank - 1], ("delivery added",)
    if not row.is_set:
        # Whatever a hook sets beats it, so there is nothing to wait for.
        return Word(whats, DeliveryCreated(project, id_, row.created_us, *labels, status=status, created_us=created_us))
    if not rest.holds(row.status_us):
        return MOVING
    told_us = rest.status_us(row.status_us, 0) or 1
    return Word(whats, DeliveryRead(project, id_, status, told_us, *labels, created_us=created_us))


def _other_labels(row: Labels, held: DeliveryState, told: Labels | None) -> list[str]:
    """The labels that the row says and the ledger does not; none beyond the cap on groups, where none are kept."""
    if held.group == 0:
        return []
    return [
        field
        for field, said, kept in zip(Labels._fields, row, told or _UNTOLD, strict=True)
        if said is not None and said != kept
    ]


def _is_other_creation(created_us: int, held: DeliveryState) -> bool:
    if held.created_kind == TOLD_BY_ROW:
        return created_us < held.created_us  # of two rows the earlier stands
    return abs(created_us - held.created_us) > _CREATED_WITHIN_US


def event_word(
    project: str, id_: str, row: EventState, source: str | None, held: EventState | None, held_source: str | None
) -> Word:
    """What an event's row says and the ledger does not; the sources are None where they are not kept."""
    if held is None:
        return Word(("event added",), EventCreated(project, id_, row.time_us, _told(source)))
    if held.group == 0 or source is None or source == held_source:
        return NOTHING
    # The earliest record tells the source.
    return Word(("event source",), EventCreated(project, id_, max(min(row.time_us, held.time_us) - 1, 0), source))
