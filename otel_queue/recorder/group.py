"""Records of one task, kept together until its handler ends."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

Write = Callable[[Sequence[Record], float | None], Kept]


class Group:
    """The records since the block began; `kept` says what became of them once it has ended.

    `must_commit` once any block that it serves is `committed`.
    """

    def __init__(self, write: Write, *, must_commit: bool) -> None:
        self._write = write
        self.must_commit = must_commit
        self._records: list[Record] = []
        self._pid = os.getpid()
        self._is_open = True
        self.kept: Kept = "grouped"

    def is_open_for(self, write: Write) -> bool:
        """Whether a record of this writer belongs here: not after the end, and not in a forked child."""
        return self._is_open and self._write == write and self._pid == os.getpid()

    def add(self, record: Record) -> None:
        """Keeps the record until the group ends."""
        self._records.append(record)

    def commit(self, waiting_since: float | None = None) -> None:
        """Writes the records, as one batch; `waiting_since` as for `Writer.write`."""
        self._is_open = False
        if self._pid != os.getpid():
            return  # the parent writes them
        self.kept = self._write(self._records, waiting_since) if self._records else "unstored"

    def confirm(self) -> None:
        """Raises WriteError if the records must be committed and have not reached the ledger."""
        if self.must_commit and self.kept in ("queued", "dropped", "missed"):
            raise WriteError(
                self.kept,
                f"{number_of(len(self._records), 'record')} of this task: {self.kept}, not written to the ledger; "
                "its queue has to deliver it again",
            )


current_group: ContextVar[Group | None] = ContextVar("otel_queue_group", default=None)


def open_group(write: Write) -> Group | None:
    """The group that a record of this writer belongs to here."""
    group = current_group.get()
    return group if group is not None and group.is_open_for(write) else None


@contextmanager
def group_of(write: Write, *, must_commit: bool) -> Iterator[Group]:
    """The group that is open here, else one that is written when the block ends."""
    outer = open_group(write)
    if outer is not None:
        outer.must_commit |= must_commit
        yield outer
        return
    group = Group(write, must_commit=must_commit)
    token = current_group.set(group)
    try:
        yield group
    finally:
        current_group.reset(token)
        group.commit()
    group.confirm()
