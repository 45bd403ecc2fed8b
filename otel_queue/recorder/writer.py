"""What a recorder needs of a writer."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

from otel_queue.lifecycle import Record


@runtime_checkable
class Writer(Protocol):
    """Takes records to a ledger; `otel_queue.ledger_writer` makes one.

    Whether a write may wait for the ledger is `waits`: the asynchronous recorder then writes beside the event loop.
    """

    @property
    def waits(self) -> bool:
        """Whether `write` may take as long as the ledger does."""
        ...

    def write(
        self, records: Sequence[Record], waiting_since: float | None = None, /
    ) -> Literal["written", "queued", "dropped"]:
        """Takes the records, and says what became of them. Never raises for what Redis does.

        A limit counts from `waiting_since` (time.monotonic seconds) for a caller that had to wait for its turn.
        """
        ...

    def errors(self) -> Mapping[str, int]:
        """How many writes failed so far, by reason; `dropped` are records that found no room."""
        ...

    def close(self, timeout_seconds: float) -> bool:
        """Writes what is queued; True if nothing is left."""
        ...
