"""Ways to write records to the ledger: waiting for it, in the background, or together before a task is acknowledged.

What each guarantees is a table in docs/reliability.md.
"""

import atexit
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Final, Literal

from otel_queue.errors import WriteError
from otel_queue.fork import call_in_children
from otel_queue.ledger.refused import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, RefusedProjects
from otel_queue.ledger.store import LedgerStore, Written
from otel_queue.lifecycle import Record

_log: Final = logging.getLogger(__name__)

_BATCH: Final = 2_048
# Redis refused a script call, perhaps because of what a project's keys hold: that is no outage for the others.
OF_ONE_PROJECT: Final = frozenset({"wrong_type", "error_reply"})


class BufferedWriter:
    """Queues records, at most `most_records`, and writes them from a thread of its own.

    `write` costs an append, whatever Redis does. When the queue is full the newest records are dropped and counted:
    what is queued first was acknowledged first. Records of projects that Redis refuses wait apart, and have room for
    `most_records` of their own; they cost the others one try between two batches. After a fork the child begins with
    an empty queue, since the parent still writes its own. One that is not closed lives until the process ends.
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
        self._refused = RefusedProjects(self._most)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._hurry = threading.Event()  # somebody waits for the queue to be empty
        self._idle = threading.Condition(self._lock)
        self._closing = False
        self._is_failing = False
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._queue) + len(self._refused)

    def write(self, records: Sequence[Record], _waiting_since: float | None = None) -> Literal["queued", "dropped"]:
        """Queues the records; `dropped` if any had no room."""
        with self._lock:
            room = 0 if self._closing else self._most - len(self._queue)
            self._queue.extend(records[:room] if room < len(records) else records)
            self.dropped += max(0, len(records) - max(room, 0))
            if self._thread is None and not self._closing:
                self._start()
        if len(self._queue) >= _BATCH:
            self._wake.set()
        return "queued" if room >= len(records) else "dropped"

    def flush(self, timeout_seconds: float) -> bool:
        """Waits until nothing is queued; False if something is by then."""
        self._hurry.set()
        self._wake.set()
        with self._idle:
            if self._thread is None and self._queue:
                self._start()
            return self._idle.wait_for(lambda: not len(self), timeout_seconds)

    def errors(self) -> Mapping[str, int]:
        """How many writes failed so far, by reason; `dropped` are records that found no room."""
        return self.failures + Counter(dropped=self.dropped)

    def close(self, timeout_seconds: float) -> bool:
        """Flushes and ends the thread; True if nothing is left."""
        atexit.unregister(self.close)
        flushed = self.flush(timeout_seconds) if len(self) else True
        self._closing = True
        self._wake.set()
        return flushed

    def _start(self) -> None:
        """Starts the thread; where there is none to be had, the next record tries again."""
        # Known before it runs: what interrupts the start must not make it two.
        self._thread = threading.Thread(target=self._run, name="otel-queue-ledger", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._thread = None
            self._failed("out_of_threads", error)

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._closing or self._queue or self._refused.next_due() <= time.monotonic():
            if len(self._queue) < _BATCH and not self._closing:
                self._wake.wait(min(self._interval, max(0.0, self._refused.next_due() - time.monotonic())))
            self._wake.clear()
            if self._hurry.is_set():
                self._hurry.clear()
                self._refused.hurry()
                pause = FIRST_PAUSE_SECONDS
            # In an outage nobody is tried but those who were not refused before.
            if self._write_batch() and self._write_refused():
                pause = FIRST_PAUSE_SECONDS
                continue
            self._hurry.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            if self._closing:
                return

    def _write_batch(self) -> bool:
        """Writes the oldest records, and sets those of refused projects apart; False in an outage."""
        batch = [self._queue[index] for index in range(min(_BATCH, len(self._queue)))]
        if not batch:
            return True
        apart = [record for record in batch if record.project in self._refused] if self._refused else []
        others = [record for record in batch if record.project not in self._refused] if apart else batch
        waiting, refused = self._write_what_can_be(others)
        with self._idle:
            for _ in batch:
                self._queue.popleft()
            self._queue.extendleft(reversed(waiting))
            self.dropped += self._refused.add(chain(apart, refused))
            if not len(self):
                self._idle.notify_all()
        return not waiting

    def _write_refused(self) -> bool:
        """Tries the records of one refused project, if one is due; False in an outage."""
        batch = self._refused.oldest_due(_BATCH)
        if not batch:
            return True
        waiting, refused = self._write_what_can_be(batch)
        if waiting:
            return False
        with self._idle:
            if self._refused.settle(batch, refused):
                _log.info("ledger: project %r is written again", batch[0].project)
            if not len(self):
                self._idle.notify_all()
        return True

    def _write_what_can_be(self, records: list[Record]) -> tuple[list[Record], list[Record]]:
        """Writes the records, and returns those that wait for the end of an outage, and those of refused projects."""
        parts, refused = [records] if records else [], list[Record]()
        while parts:
            part = parts.pop()
            try:
                self.written = self.written.plus(self._store.write(part, time.monotonic() + self._timeout))
            except WriteError as error:
                if error.reason not in OF_ONE_PROJECT:
                    self._failed(error.reason, error)
                    return [*part, *_joined(parts)], refused
                self.failures[error.reason] += 1
                projects = by_project(part)
                if len(projects) == 1:
                    refused += part
                    if part[0].project not in self._refused:
                        _log.warning("ledger: project %r is refused and waits apart: %s", part[0].project, str(error))
                else:
                    middle = len(projects) // 2
                    parts += [_joined(projects[middle:]), _joined(projects[:middle])]
            except Exception:
                if len(part) == 1:
                    _log.exception("ledger: a record cannot be written and is dropped")
                    self.failures["internal"] += 1
                    self.dropped += 1
                else:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
        if records and self._is_failing:
            self._is_failing = False
            _log.info("ledger: written again")
        return [], refused

    def _failed(self, reason: str, error: Exception) -> None:
        self.failures[reason] += 1
        if not self._is_failing:  # one line when it turns, not one per try
            self._is_failing = True
            # Its words alone: a log that keeps records would keep what the error holds on to.
            _log.warning("ledger: cannot write, %d records are queued: %s", len(self), str(error))


def _joined(parts: Iterable[list[Record]]) -> list[Record]:
    return list(chain.from_iterable(parts))


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

    def write(
        self, records: Sequence[Record], waiting_since: float | None = None
    ) -> Literal["written", "queued", "dropped"]:
        """`written` is in the ledger; `queued` will be, unless this process dies or its project stays refused.

        The limit counts from `waiting_since` (time.monotonic seconds), else from now: it is not tried beyond that.
        """
        now = time.monotonic()
        deadline = (now if waiting_since is None else waiting_since) + self._timeout
        if self._open_until <= now < deadline:
            try:
                self._store.write(records, deadline)
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
