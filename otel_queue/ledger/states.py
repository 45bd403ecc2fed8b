"""What the state of a tracked id says; the bytes are those of record_deliveries.lua and record_events.lua."""

import struct
from typing import Final, NamedTuple

from otel_queue.errors import ReadError

_DELIVERY: Final = struct.Struct(">B7sB7sI7s")
_LABEL: Final = struct.Struct(">B7s")
_EVENT: Final = struct.Struct(">I7s")
_LABELS: Final = 3

_KIND: Final = 3
_MIXED: Final = 8
TOLD_BY_CREATED: Final = 3
"""The kind of a creation time that a created record told."""


class DeliveryState(NamedTuple):
    """A delivery: its status by rank, times in Unix microseconds, the number of its labels.

    `created_kind` says where the creation time is from (3 a created record, 2 another, 1 the id), `labels_us` is the
    earliest time of a record whose labels stand, 0 if there is none.
    """

    rank: int
    status_us: int
    created_us: int
    created_kind: int
    group: int
    labels_us: int


class EventState(NamedTuple):
    """An event: the number of its source, and the time of the record that told it, in Unix microseconds."""

    group: int
    time_us: int


def delivery_state(state: bytes) -> DeliveryState:
    """A tracked delivery's state; raises ReadError with reason `bad_value` for what is none."""
    try:
        return _delivery_state(state)
    except struct.error as error:
        raise ReadError("bad_value", f"{state[:60]!r} is no delivery's state") from error


def _delivery_state(state: bytes) -> DeliveryState:
    rank, status_at, flags, created, group, at = _DELIVERY.unpack_from(state)
    labels_us = int.from_bytes(at, "big")
    if flags & _MIXED:
        own = (_LABEL.unpack_from(state, _DELIVERY.size + index * _LABEL.size)[1] for index in range(_LABELS))
        # A label that nobody told has time 0.
        labels_us = min((moment for told in own if (moment := int.from_bytes(told, "big"))), default=0)
    return DeliveryState(
        rank, int.from_bytes(status_at, "big"), int.from_bytes(created, "big"), flags & _KIND, group, labels_us
    )


def event_state(state: bytes) -> EventState:
    """A tracked event's state; raises ReadError with reason `bad_value` for what is none."""
    try:
        group, at = _EVENT.unpack(state)
    except struct.error as error:
        raise ReadError("bad_value", f"{state[:60]!r} is no event's state") from error
    return EventState(group, int.from_bytes(at, "big"))
