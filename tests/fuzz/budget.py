"""How much is tried: a share that takes seconds, or with TESTS_FUZZ=full a million inputs in all."""

import os
import random
from collections.abc import Iterator
from typing import Final

FULL: Final = os.environ.get("TESTS_FUZZ") == "full"
# Set to a printed seed to see a failure again.
SEED_VARIABLE: Final = "TESTS_FUZZ_SEED"

# Inputs of a full run, which are a million together; the normal run takes a fiftieth of each.
MESSAGES: Final = 400_000
FIELDS: Final = 200_000
REPLIES: Final = 380_000
WIRE: Final = 20_000
_SHARE: Final = 50


def inputs(full: int) -> int:
    """How many inputs this run tries."""
    return full if FULL else full // _SHARE


def seeded(what: str) -> random.Random:
    """Chance with a seed that pytest shows when the test fails (and always with -s)."""
    seed = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().randrange(2**32))
    print(f"{what}: {SEED_VARIABLE}={seed}")  # noqa: T201  # how to see it again
    return random.Random(seed)


def tried(what: str, count: int) -> None:
    """Tells how many inputs were tried."""
    print(f"{what}: {count} inputs tried")  # noqa: T201  # the result of a full run


def counted(full: int, what: str) -> Iterator[int]:
    """The numbers of the inputs; tells at the end how many there were."""
    yield from range(inputs(full))
    tried(what, inputs(full))
