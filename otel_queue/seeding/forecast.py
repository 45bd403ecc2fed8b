"""What a seed would cost, from the planner's statistics and a first slice of real reading."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from otel_queue.postgres.rows import Batch, Estimate, Rows
from otel_queue.seeding.window import Window

# Redis's memory for a delivery with its event, measured at 20 deliveries a day in a project; it is 89.5 at 25,000.
BYTES_PER_DELIVERY: Final = 117.0
_SAMPLE_ROWS: Final = 50_000


@dataclass(frozen=True, slots=True)
class Forecast:
    """Expected rows; how fast a first slice could be read (None without any row), and how long all would take.

    `ledger_bytes` is what the tracked rows would need at most. On top of the time comes writing to the ledger, and
    going over all ids for those that are no ULIDs.
    """

    rows: Estimate
    rows_per_second: float | None
    seconds: float | None
    ledger_bytes: int


def forecast(rows: Rows, window: Window, *, pause_seconds: float, batch_rows: int) -> Forecast:
    """Reads the first deliveries and writes nothing; raises ReadError."""
    expected = rows.estimate(window.first_id, window.first_attempt_id)
    began, read = time.monotonic(), 0
    batches: Iterator[Batch[Any]] = chain(rows.deliveries(window.first_id), rows.events(window.first_id))
    for batch in batches:
        read += len(batch.rows)
        if read >= _SAMPLE_ROWS:
            break
    rate = read / (time.monotonic() - began) if read else None
    total = sum(expected)
    tracked = expected.deliveries + expected.events + expected.attempts
    seconds = total / rate + tracked / batch_rows * pause_seconds if rate else None
    return Forecast(expected, rate, seconds, round(max(expected.deliveries, expected.events) * BYTES_PER_DELIVERY))
