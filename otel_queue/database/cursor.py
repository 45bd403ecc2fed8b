"""From where on a look reads new rows, so that none is missed that was committed late."""

from typing import NamedTuple

from otel_queue.database.rows import statement
from otel_queue.postgres.database import APPLICATION_NAME, Reading


class Horizon(NamedTuple):
    """What may still be committed, asked for before the state was fixed that rows are read from; see horizon.sql."""

    now_us: int
    replayed_us: int | None
    is_standby: bool
    sees_all: bool
    oldest_us: int | None
    has_prepared: bool


def read_horizon(reading: Reading) -> Horizon:
    """Asks the database. Raises ReadError."""
    [row] = reading.fetch(statement("horizon", us=APPLICATION_NAME))
    return Horizon(*row)


def next_since(since_us: int, newest_us: int, horizon: Horizon, *, overlap_us: int, longest_us: int) -> int:
    """From which time of creation on the next look reads, all in Unix microseconds.

    `since_us` is from where this one read, `newest_us` the newest row that it saw, 0 for none. It is never now: a row's
    time is the start of its transaction, and rows become visible when that commits. Where open transactions cannot be
    seen it stays `overlap_us` behind the newest row. For none it stays behind more than `longest_us`: a sweep finds
    what was open for so long.
    """
    if not newest_us:
        return since_us
    if horizon.is_standby:
        # It says nothing of the transactions of its primary.
        safe_us = min(newest_us, horizon.replayed_us or newest_us) - overlap_us
    elif not horizon.sees_all:
        safe_us = newest_us - overlap_us
    elif horizon.has_prepared:
        # When a prepared transaction began is not told. It was open, and seen, before it was prepared, or it began
        # behind what the last look saw.
        safe_us = since_us
    else:
        open_us = horizon.now_us if horizon.oldest_us is None else horizon.oldest_us
        safe_us = min(newest_us, horizon.now_us, open_us)
    return max(since_us, safe_us, newest_us - longest_us)
