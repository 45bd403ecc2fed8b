"""The binary format of COPY, as far as the follower's columns need it."""

import struct
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, Final

from otel_queue.database.wanted import LAST_US
from otel_queue.errors import ReadError

# Where the times of the format begin.
_YEAR_2000_US: Final = 946_684_800_000_000
_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = b"\xff\xff"
_LENGTH: Final = struct.Struct(">i")
_TIME: Final = struct.Struct(">q")


class Type(Enum):
    """What a column is decoded to: a str; Unix microseconds; a bool. NULL is None."""

    TEXT = "text"
    TIME = "time"
    TRUTH = "truth"


def decoded(data: bytes, types: Sequence[Type]) -> Iterator[tuple[Any, ...]]:
    """The rows of a COPY. A time that no row can have, such as 0001-01-01, becomes the nearest that it can.

    Raises ReadError with reason `undecodable`.
    """
    try:
        yield from _rows(data, types)
    except (ValueError, IndexError, struct.error) as error:
        raise ReadError("undecodable", f"rows of the database cannot be decoded: {type(error).__name__}") from error


def _rows(data: bytes, types: Sequence[Type]) -> Iterator[tuple[Any, ...]]:
    if not data.startswith(_HEADER):
        raise ValueError("no header of COPY")
    position, length_of, time_of = len(_HEADER), _LENGTH.unpack_from, _TIME.unpack_from
    text, time = Type.TEXT, Type.TIME
    while data[position : position + 2] != _END:
        position += 2
        row: list[Any] = []
        for kind in types:
            [length] = length_of(data, position)
            position += 4
            if length < 0:
                row.append(None)
                continue
            end = position + length
            if kind is text:
                row.append(str(data[position:end], "utf-8"))
            elif kind is time:
                [time_us] = time_of(data, position)
                row.append(min(max(time_us + _YEAR_2000_US, 0), LAST_US))
            else:
                row.append(data[position] == 1)
            position = end
        yield tuple(row)
