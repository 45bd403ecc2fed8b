"""How much is tried: a share that takes seconds, or with TESTS_FUZZ=full more than two million in all."""

import os
import random
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FULL: Final = os.environ.get("TESTS_FUZZ") == "full"
# Set to a printed seed to see a failure again.
SEED_VARIABLE: Final = "TESTS_FUZZ_SEED"

# Inputs of a full run; the normal run takes a fiftieth of each.
MESSAGES: Final = 400_000
FIELDS: Final = 200_000
REPLIES: Final = 380_000
WIRE: Final = 20_000
PAYLOADS: Final = 300_000
CONFIGS: Final = 60_000
STORED: Final = 150_000
LEDGER_REPLIES: Final = 40_000
RECORDS: Final = 2_500
ROWS: Final = 1_000
LEDGER_KEYS: Final = 5_000
REQUESTS: Final = 10_000
TEXTS: Final = 100_000
# What hypothesis draws, each example of many parts.
EXAMPLES: Final = 3_000
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


def fuzzed(full: int, **drawn: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test that hypothesis calls with as many examples as this run tries; fixtures are given once for all of them."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        count = 0

        @wraps(test)
        def example(*args: Any, **kwargs: Any) -> None:
            nonlocal count
            count += 1
            test(*args, **kwargs)

        limits = settings(max_examples=inputs(full), deadline=None, suppress_health_check=list(HealthCheck))
        whole = limits(given(**drawn)(example))

        @wraps(whole)
        def run(*args: Any, **kwargs: Any) -> None:
            whole(*args, **kwargs)
            tried(test.__name__, count)

        return run

    return decorate
