"""Records of one task, kept together until they are committed before the task is acknowledged."""

import os
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Literal

from otel_queue.errors import WriteError
from otel_queue.lifecycle import Record
from otel_queue.plural import number_of

Kept = Literal["written", "queued", "dropped", "grouped", "missed", "unstored"]
"""What became of a record.

`written` has reached the ledger, which counted it, knew it already, or found it late; `queued` will unless the process
dies before, `dropped` found no room, `grouped` waits for the end of its group, `missed` was refused and counted,
`unstored` has no ledger to go to.
"""


class Group:
    """The records since `before_ack` began; `kept` says what became of them once it has ended.

    `is_exact` once any block that it serves asked for that.
    """

    def __init__(self, write: Callable[[Sequence[Record]], Kept], *, exact: bool) -> None:
        self._write = write
        self.is_exact = exact
        self._records: list[Record] = []
        self._pid = os.getpid()
        self._is_open = True
        self.kept: Kept = "grouped"

    def is_open_for(self, write: Callable[[Sequence[Record]], Kept]) -> bool:
        """Whether a record of this writer belongs here: not after the end, and not in a forked child."""
        return self._is_open and self._write == write and self._pid == os.getpid()

    def add(self, record: Record) -> None:
        """Keeps the record until the group ends."""
        self._records.append(record)

    def commit(self) -> None:
        """Writes the records, as one batch."""
        self._is_open = False
        if self._pid != os.getpid():
            return  # the parent writes them
        self.kept = self._write(self._records) if self._records else "unstored"

    def confirm(self) -> None:
        """Raises WriteError if the group is exact and its records have not reached the ledger."""
        if self.is_exact and self.kept in ("queued", "dropped", "missed"):
            raise WriteError(
                self.kept,
                f"{number_of(len(self._records), 'record')} of this task: {self.kept}, not written to the ledger; "
                "its queue has to deliver it again",
            )


current_group: ContextVar[Group | None] = ContextVar("otel_queue_group", default=None)
