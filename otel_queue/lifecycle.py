"""The lifecycle of events and deliveries: one record per thing that happened, as the hook that saw it knows it.

A label may be told (a text, or None where the row has NULL) or not told (`UNTOLD`), which is not the same: a label
that nobody told is unknown. Times are Unix microseconds, by the database where the hook has its `updated_at`.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class _Untold(Enum):
    UNTOLD = "untold"


UNTOLD: Final = _Untold.UNTOLD
"""The hook does not know this label."""

Label = str | None | _Untold

# Delivery statuses by rank: of two that were set at the same time the later one in this order stands.
STATUSES: Final = ("scheduled", "processing", "retry", "discarded", "failure", "success")


@dataclass(frozen=True, slots=True)
class EventCreated:
    """An event's row exists; duplicates by idempotency key are events of their own."""

    project: str
    event_id: str
    time_us: int
    source: Label = UNTOLD


@dataclass(frozen=True, slots=True)
class DeliveryCreated:
    """A delivery's row exists. `created_us` is the row's created_at, where it is known."""

    project: str
    delivery_id: str
    time_us: int
    endpoint: Label = UNTOLD
    event_type: Label = UNTOLD
    source: Label = UNTOLD
    status: str = "scheduled"
    created_us: int | None = None


@dataclass(frozen=True, slots=True)
class StatusSet:
    """A delivery's status was written."""

    project: str
    delivery_id: str
    status: str
    time_us: int
    endpoint: Label = UNTOLD
    event_type: Label = UNTOLD
    source: Label = UNTOLD
    created_us: int | None = None


@dataclass(frozen=True, slots=True)
class DeliveryRead:
    """A delivery's row was read at `time_us`: its status then, and labels and creation time that beat any hook's."""

    project: str
    delivery_id: str
    status: str
    time_us: int
    endpoint: Label = UNTOLD
    event_type: Label = UNTOLD
    source: Label = UNTOLD
    created_us: int | None = None


@dataclass(frozen=True, slots=True)
class AttemptMade:
    """One HTTP call was made for a delivery. `http_status` is the response's, None without a response."""

    project: str
    attempt_id: str
    time_us: int
    endpoint: Label
    succeeded: bool
    http_status: str | int | None = None


@dataclass(frozen=True, slots=True)
class ProjectDescribed:
    """A project has these names now; they are joined at export, so a rename moves no counts."""

    project: str
    time_us: int
    project_name: str = ""
    organisation_id: str = ""
    organisation_name: str = ""


@dataclass(frozen=True, slots=True)
class DayExpired:
    """The rows of a project created on this UTC day (YYYYMMDD) are gone, and those of all days before it.

    A day that is not over by Redis's clock is not closed, but counted among the clamped records.
    """

    project: str
    day: str


Record = EventCreated | DeliveryCreated | StatusSet | DeliveryRead | AttemptMade | ProjectDescribed | DayExpired
