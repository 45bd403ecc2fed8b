"""What the state of a tracked id says; the bytes are those of states.lua."""

import struct
from typing import Final, NamedTuple

from otel_queue.errors import ReadError
from otel_queue.ledger.identity import UNDATED, end_of_day_number

TOLD_BY_ID: Final = 1
"""The kind of a creation time that comes from the id, or from the time of a record."""
TOLD_BY_CREATED: Final = 3
"""The kind of a creation time that a created record told."""
TOLD_BY_ROW: Final = 4
"""The kind of a creation time that a row told."""

# Bits of a delivery's first byte.
_LABELS_BY_CREATED_OR_ROW: Final = 32
_SET: Final = 64


class DeliveryState(NamedTuple):
    """A delivery: its status by rank, times in Unix microseconds, the number of its labels.

    `is_set` says that the status was set or read from a row, and is not the one that a created record told.
    `created_kind` says where the creation time is from (4 a row, 3 a created record, 2 a status set, 1 the id).
    `labels_us` is the time of the first label that was told, or of the status where none was.
    """

    rank: int
    is_set: bool
    status_us: int
    created_us: int
    created_kind: int
    group: int
    labels_us: int


class EventState(NamedTuple):
    """An event: the number of its source, and the time of the record that told it, in Unix microseconds."""

    group: int
    time_us: int


def delivery_state(day: str, stored: bytes, state: bytes) -> DeliveryState:
    """The state of an id that is kept under a day; raises ReadError with reason `bad_value` for what is none."""
    origin, state = _origin(day, stored, state)
    if len(state) < 2:
        raise _bad(state, "delivery")
    first, widths = state[0], state[1]
    far, near = (widths & 7) + 1, (widths >> 3 & 7) + 1
    status_us, labels_us, created_us, group = _numbers(state, 2, "delivery", far, far, near, (widths >> 6) + 1)
    if not 0 <= origin + created_us < 1 << 56:
        raise _bad(state, "delivery")
    return DeliveryState(
        rank=first & 7,
        is_set=bool(first & _SET),
        status_us=origin + status_us,
        created_us=origin + created_us,
        created_kind=(first >> 3 & 3) + 1,
        group=group,
        labels_us=origin + labels_us,
    )


def event_state(day: str, stored: bytes, state: bytes) -> EventState:
    """The state of an id that is kept under a day; raises ReadError with reason `bad_value` for what is none."""
    origin, state = _origin(day, stored, state)
    if not state:
        raise _bad(state, "event")
    time_us, group = _numbers(state, 1, "event", (state[0] & 7) + 1, (state[0] >> 3) + 1)
    return EventState(group, origin + time_us)


def _numbers(state: bytes, position: int, what: str, *widths: int) -> list[int]:
    """Numbers of so many bytes from a position on: signed offsets, and behind them a group."""
    if len(state) < position + sum(widths):
        raise _bad(state, what)
    found: list[int] = []
    for number, width in enumerate(widths, start=1):
        found.append(int.from_bytes(state[position : position + width], "big", signed=number < len(widths)))
        position += width
    return found


def _origin(day: str, stored: bytes, state: bytes) -> tuple[int, bytes]:
    """The time from which a state counts (Unix microseconds), and the state without the day of an undated one."""
    if day == UNDATED:
        return end_of_day_number(int.from_bytes(state[:2], "big")) * 1_000_000, state[2:]
    return int.from_bytes(stored[:6], "big") * 1000, state


def _bad(state: bytes, what: str) -> ReadError:
    return ReadError("bad_value", f"{state[:60]!r} is no state of a{'n' if what == 'event' else ''} {what}")


def row_state(stored: bytes, rank: int, status_us: int, created_us: int, group: int) -> bytes:
    """The state of a dated delivery whose row told all that is known of it, in `status_us`."""
    origin = int.from_bytes(stored[:6], "big") * 1000
    far, near, digits = _width(status_us - origin), _width(created_us - origin), max((group.bit_length() + 7) // 8, 1)
    first = rank | (TOLD_BY_ROW - 1) << 3 | _LABELS_BY_CREATED_OR_ROW | _SET
    widths = far - 1 | (near - 1) << 3 | (digits - 1) << 6
    status = (status_us - origin).to_bytes(far, "big", signed=True)
    created = (created_us - origin).to_bytes(near, "big", signed=True)
    return bytes((first, widths)) + status + status + created + group.to_bytes(digits, "big")


def _width(number: int) -> int:
    return ((number if number >= 0 else -number - 1).bit_length() + 8) // 8


def in_processing(group: int, created_us: int, stored: bytes) -> bytes:
    """A delivery in the index of those in processing: number (4 bytes), creation time (7 bytes), stored id."""
    return struct.pack(">I", group) + created_us.to_bytes(7, "big") + stored
