"""Identifiers that come from a seed, so that a run can be repeated."""

from random import Random
from uuid import UUID

from otel_queue.ulid import CHANCE_BITS, ulid_of


def uuid(rng: Random) -> str:
    """A random UUID (version 4) as text."""
    return str(UUID(int=rng.getrandbits(128), version=4))


def ulid(now: float, rng: Random) -> str:
    """A ULID of `now` (Unix seconds)."""
    return ulid_of(int(now * 1000) << CHANCE_BITS | rng.getrandbits(CHANCE_BITS))
