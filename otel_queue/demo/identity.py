"""Identifiers that come from a seed, so that a run can be repeated."""

from random import Random
from typing import Final
from uuid import UUID

_ULID_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def uuid(rng: Random) -> str:
    """A random UUID (version 4) as text."""
    return str(UUID(int=rng.getrandbits(128), version=4))


def ulid(now: float, rng: Random) -> str:
    """26 characters that sort by time: 48 bits of milliseconds, 80 of chance."""
    value = int(now * 1000) << 80 | rng.getrandbits(80)
    return "".join(_ULID_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))
