"""Which rows are merged one by one, and which are counted: what the ledger tracks at a moment."""

from typing import Final, NamedTuple

from otel_queue.ledger.administration import Clock
from otel_queue.ledger.identity import day_of
from otel_queue.ulid import lowest_ulid

_DAY_US: Final = 86_400_000_000


class Window(NamedTuple):
    """Dated ids from `first_id` on are tracked; days up to `last_old_day` are not, and have counts alone.

    Attempts are merged from `first_attempt_id` on, if they were made since `birth_us` (Unix microseconds).
    """

    first_id: str
    last_old_day: str
    first_attempt_id: str
    birth_us: int


def window_at(clock: Clock) -> Window:
    """What is tracked now."""
    birth_us, rule = clock.contract.birth_us, clock.contract.rule_of(day_of(clock.now_us))
    today = clock.now_us - clock.now_us % _DAY_US
    first_day = today - rule.track_days * _DAY_US
    birth_day = birth_us - birth_us % _DAY_US
    first_attempt_day = max(today - rule.attempt_days * _DAY_US, birth_day)
    return Window(lowest_ulid(first_day), day_of(first_day - 1), lowest_ulid(first_attempt_day), birth_us)
