"""Ways to write records to the ledger: waiting for it, in the background, or together before a task is acknowledged.

What each guarantees is a table in docs/reliability.md.
"""

import atexit
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from otel_queue.errors import WriteError
from otel_queue.fork import call_in_children
from otel_queue.ledger.store import LedgerStore, Written
from otel_queue.lifecycle import Record

_log: Final = logging.getLogger(__name__)

_BATCH: Final = 2_048
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 5.0
# Redis refused a script call, perhaps because of what a project's keys hold: that is no outage for the others.
OF_ONE_PROJECT: Final = frozenset({"wrong_type", "error_reply"})


class BufferedWriter:
    """Queues records, at most `most_records`, and writes them from a thread of its own.

    `write` costs an append, whatever Redis does. When the queue is full the newest records are dropped and counted:
    what is queued first was acknowledged first. After a fork the child begins with an empty queue, since the
    parent still writes its own. One that is not closed lives until the process ends.
    """

    waits: Final = False

    def __init__(
        self,
        store: LedgerStore,
        *,
        most_records: int = 100_000,
        interval_seconds: float = 0.2,
        timeout_seconds: float = 5.0,
        flush_at_exit: bool = True,
    ) -> None:
        self._store = store
        self._most = most_records
        self._interval = interval_seconds
        self._timeout = timeout_seconds
        self.failures: Counter[str] = Counter()
        self.written = Written()
        self.dropped = 0
        self._begin()
        call_in_children(self._begin)
        if flush_at_exit:
            atexit.register(self.close, timeout_seconds)

    def _begin(self) -> None:
        self._queue: deque[Record] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._hurry = threading.Event()  # somebody waits for the queue to be empty
        self._idle = threading.Condition(self._lock)
        self._closing = False
        self._is_failing = False
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def write(self, records: Sequence[Record]) -> Literal["queued", "dropped"]:
        """Queues the records; `dropped` if any had no room."""
        with self._lock:
            room = 0 if self._closing else self._most - len(self._queue)
            self._queue.extend(records[:room] if room < len(records) else records)
            self.dropped += max(0, len(records) - max(room, 0))
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="otel-queue-ledger", daemon=True)
                self._thread.start()
        if len(self._queue) >= _BATCH:
            self._wake.set()
        return "queued" if room >= len(records) else "dropped"

    def flush(self, timeout_seconds: float) -> bool:
        """Waits until the queue is empty; False if it is not by then."""
        self._wake.set()
        self._hurry.set()
        with self._idle:
            return self._idle.wait_for(lambda: not self._queue, timeout_seconds)

    def errors(self) -> Mapping[str, int]:
        """How many writes failed so far, by reason; `dropped` are records that found no room."""
        return self.failures + Counter(dropped=self.dropped)

    def close(self, timeout_seconds: float) -> bool:
        """Flushes and ends the thread; True if nothing is left."""
        atexit.unregister(self.close)
        flushed = self.flush(timeout_seconds) if self._queue else True
        self._closing = True
        self._wake.set()
        return flushed

    def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not (self._closing and not self._queue):
            if len(self._queue) < _BATCH and not self._closing:
                self._wake.wait(self._interval)
            self._wake.clear()
            if self._write_batch():
                pause = _FIRST_PAUSE_SECONDS
            else:
                if self._hurry.wait(pause):
                    self._hurry.clear()
                    pause = _FIRST_PAUSE_SECONDS
                else:
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                if self._closing:
                    return

    def _write_batch(self) -> bool:
        """Writes the oldest records; what is still to be written goes to the end of the queue, for others' sake."""
        batch = [self._queue[index] for index in range(min(_BATCH, len(self._queue)))]
        left = self._write_what_can_be(batch) if batch else []
        if batch and not left and self._is_failing:
            self._is_failing = False
            _log.info("ledger: written again")
        with self._idle:
            for _ in batch:
                self._queue.popleft()
            self._queue.extend(left)
            if not self._queue:
                self._idle.notify_all()
        return not left

    def _write_what_can_be(self, batch: list[Record]) -> list[Record]:
        """Writes the records, and returns those that are still to be written."""
        try:
            self.written = self.written.plus(self._store.write(batch, time.monotonic() + self._timeout))
        except WriteError as error:
            if not self._is_failing:  # one line when it turns, not one per try
                self._is_failing = True
                _log.warning("ledger: cannot write, %d records are queued: %s", len(self._queue), error)
            self.failures[error.reason] += 1
            parts = by_project(batch)
            if error.reason not in OF_ONE_PROJECT or len(parts) == 1:
                return batch
        except Exception:
            if len(batch) == 1:
                _log.exception("ledger: a record cannot be written and is dropped")
                self.failures["internal"] += 1
                self.dropped += 1
                return []
            middle = len(batch) // 2
            parts = [batch[:middle], batch[middle:]]
        else:
            return []
        return [record for part in parts for record in self._write_what_can_be(part)]


def by_project(records: Sequence[Record]) -> list[list[Record]]:
    """The records in parts, one for each project, in their order."""
    projects: dict[str, list[Record]] = {}
    for record in records:
        projects.setdefault(record.project, []).append(record)
    return list(projects.values())


class SyncWriter:
    """Waits for the ledger, at most `write_timeout_seconds`; then the records are queued and others do not wait.

    After an outage a breaker stays open for `breaker_seconds`, in which records are queued at once.
    """

    waits: Final = True

    def __init__(
        self,
        store: LedgerStore,
        buffer: BufferedWriter,
        *,
        write_timeout_seconds: float = 0.25,
        breaker_seconds: float = 5.0,
    ) -> None:
        self._store = store
        self._buffer = buffer
        self._timeout = write_timeout_seconds
        self._breaker = breaker_seconds
        self._open_until = 0.0
        self.failures: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._buffer)

    def write(self, records: Sequence[Record]) -> Literal["written", "queued", "dropped"]:
        """`written` is in the ledger; `queued` will be, unless this process dies before."""
        if time.monotonic() >= self._open_until:
            try:
                self._store.write(records, time.monotonic() + self._timeout)
            except WriteError as error:
                self.failures[error.reason] += 1
                if error.reason not in OF_ONE_PROJECT:
                    self._open_until = time.monotonic() + self._breaker
            else:
                return "written"
        return self._buffer.write(records)

    def errors(self) -> Mapping[str, int]:
        """As the buffer's, together with the writes that were waited for."""
        return self.failures + Counter(self._buffer.errors())

    def close(self, timeout_seconds: float) -> bool:
        """Writes what is queued; True if nothing is left."""
        return self._buffer.close(timeout_seconds)
