"""Ids of our own for attempts that have none: ULIDs, whose time tells the day they belong to."""

import os
import time
from typing import Final

_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CHARACTERS: Final = 26


def new_ulid() -> str:
    """A ULID of now."""
    number = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join(_DIGITS[number >> 5 * place & 31] for place in reversed(range(_CHARACTERS)))
