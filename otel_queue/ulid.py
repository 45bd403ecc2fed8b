"""ULIDs: 48 bits of milliseconds and 80 of chance, in 26 digits, so that they sort by time and tell their day."""

import os
import time
from typing import Final

CHANCE_BITS: Final = 80

_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CHARACTERS: Final = 26
_TO_BASE32: Final = bytes.maketrans(_DIGITS.encode(), b"0123456789ABCDEFGHIJKLMNOPQRSTUV")


def new_ulid() -> str:
    """A ULID of now, for an attempt that has no id."""
    return ulid_of(time.time_ns() // 1_000_000 << CHANCE_BITS | int.from_bytes(os.urandom(CHANCE_BITS // 8), "big"))


def lowest_ulid(time_us: int) -> str:
    """The ULID that sorts first among those of this moment (Unix microseconds), or of a later one."""
    return ulid_of(-(-time_us // 1000) << CHANCE_BITS)


def ulid_of(number: int) -> str:
    """The ULID that a number of 128 bits is written as."""
    return "".join(_DIGITS[number >> 5 * place & 31] for place in reversed(range(_CHARACTERS)))


def number_of(ulid: str) -> int:
    """The number that a ULID writes; without `CHANCE_BITS` it is in Unix milliseconds. It must be one, in capitals."""
    return int(ulid.encode().translate(_TO_BASE32), 32)
