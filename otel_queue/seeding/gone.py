"""What the ledger holds and the database has no row for (any more)."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from otel_queue.ledger.identity import Identity, identify, text_of
from otel_queue.ledger.states import delivery_state, event_state
from otel_queue.ledger.tracked import Place, Tracked
from otel_queue.postgres.rows import Rows
from otel_queue.seeding.repairs import Rest

# Ids that the database is asked about at once.
_ASKED: Final = 2_000


def without_row(place: Place, tracked: Tracked, rows: Rows, rest: Rest) -> Iterator[list[tuple[Identity, bytes]]]:
    """Ids of a place that are at rest and have no row, with the states that they were seen in.

    The database is asked after the ledger was read, so what has just been created is not taken for gone.
    """
    exist: Callable[[list[str]], set[str]]
    exist = rows.existing_events if place.kind == "event" else rows.existing_deliveries
    at_rest = (
        (text_of(place.day, stored), state)
        for stored, state in tracked.ids(place)
        if rest.holds(_told_us(place, stored, state))
    )
    while asked := list(islice(at_rest, _ASKED)):
        existing = exist([text for text, _ in asked])
        gone = [(identify(text), state) for text, state in asked if text not in existing]
        if gone:
            yield gone


def _told_us(place: Place, stored: bytes, state: bytes) -> int:
    if place.kind == "event":
        return event_state(place.day, stored, state).time_us
    return delivery_state(place.day, stored, state).status_us
