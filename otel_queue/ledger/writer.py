"""Ways to write records to the ledger: waiting for it, in the background, or together before a task is acknowledged.

What each guarantees is a table in docs/reliability.md.
"""

import atexit
import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal

from otel_queue.errors import WriteError
from otel_queue.fork import call_in_children
from otel_queue.ledger.lanes import FailingLanes, Pause, Turned
from otel_queue.ledger.store import OF_ONE_PROJECT, LedgerStore, Written
from otel_queue.lifecycle import Record

_log: Final = logging.getLogger(__name__)

_BATCH: Final = 2_048


class BufferedWriter:
    """Queues records, at most `most_records`, and writes them from a thread of its own.

    `write` costs an append, whatever Redis does. When the queue is full the newest records are dropped and counted:
    what is queued first was acknowledged first. A project that cannot be written waits in a lane of its own, and all
    such lanes have room for `most_records` more; a second thread tries them again, so that they never hold up those
    that can be written. Readers are told of a project after its records were answered. After a fork the child begins
    with an empty queue, since the parent still writes its own. One that is not closed lives until the process ends.
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
        self._being_written = 0
        self._lanes = FailingLanes(self._most, self._store.place)
        self._unannounced: set[str] = set()
        self._being_announced = 0
        self._registry = Pause()
        self._next_announcement = 0.0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._retry = threading.Event()
        self._idle = threading.Condition(self._lock)
        self._closing = False
        self._lacks_threads = False
        self._writing: threading.Thread | None = None
        self._retrying: threading.Thread | None = None

    def __len__(self) -> int:
        with self._lock:
            return self._held()

    def _held(self) -> int:
        return len(self._queue) + self._being_written + len(self._lanes)

    def write(self, records: Sequence[Record], _waiting_since: float | None = None) -> Literal["queued", "dropped"]:
        """Queues the records; `dropped` if any had no room."""
        with self._lock:
            room = 0 if self._closing else self._most - len(self._queue) - self._being_written
            self._queue.extend(records[:room] if room < len(records) else records)
            self.dropped += max(0, len(records) - max(room, 0))
            if self._writing is None and not self._closing:
                self._writing = self._start(self._write_queue)
        if len(self._queue) >= _BATCH:
            self._wake.set()
        return "queued" if room >= len(records) else "dropped"

    def announce(self, projects: Iterable[str]) -> None:
        """Has the thread tell readers of projects whose records somebody else has written."""
        with self._lock:
            self._unannounced.update(projects)
            if self._writing is None and not self._closing:
                self._writing = self._start(self._write_queue)

    def flush(self, timeout_seconds: float) -> bool:
        """Waits until nothing is queued and readers know of it; False if something is left by then."""
        with self._idle:
            self._lanes.hurry()
            self._registry.hurry()
            self._next_announcement = 0.0
            self._wake.set()
            self._retry.set()
            if self._writing is None and not self._is_done():
                self._writing = self._start(self._write_queue)
            return self._idle.wait_for(self._is_done, timeout_seconds)

    def errors(self) -> Mapping[str, int]:
        """How many writes failed so far, by reason; `dropped` are records that found no room."""
        with self._lock:
            return self.failures + Counter(dropped=self.dropped)

    def close(self, timeout_seconds: float) -> bool:
        """Flushes and ends the threads; True if nothing is left."""
        atexit.unregister(self.close)
        flushed = self.flush(timeout_seconds)
        self._closing = True
        self._wake.set()
        self._retry.set()
        return flushed

    def _is_done(self) -> bool:
        return not (self._held() or self._unannounced or self._being_announced)

    def _start(self, run: Callable[[], None]) -> threading.Thread | None:
        """Starts a thread; where there is none to be had, the next record tries again."""
        thread = threading.Thread(target=run, name="otel-queue-ledger", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self.failures["out_of_threads"] += 1
            if not self._lacks_threads:
                _log.warning("ledger: cannot write, %d records are queued: %s", self._held(), error)
            self._lacks_threads = True
            return None
        self._lacks_threads = False
        return thread

    def _write_queue(self) -> None:
        """The thread that writes what is not known to fail."""
        while not self._closing or self._queue:
            if len(self._queue) < _BATCH and not self._closing:
                self._wake.wait(self._interval)
            self._wake.clear()
            self._write_oldest()
            self._announce()
            with self._lock:
                if self._retrying is None and (self._lanes or self._fails_to_announce()):
                    self._retrying = self._start(self._try_again)

    def _write_oldest(self) -> None:
        with self._lock:
            batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
            apart = self._lanes.among(batch)
            if apart:
                self.dropped += self._lanes.add(record for record in batch if record.project in apart)
                batch = [record for record in batch if record.project not in apart]
            self._being_written = len(batch)
        errors = self._write(batch)
        with self._idle:
            self._being_written = 0
            if errors:
                turned = self._lanes.fail(errors)
                self.dropped += self._lanes.add(record for record in batch if record.project in errors)
                self._tell(turned)
            if self._is_done():
                self._idle.notify_all()

    def _try_again(self) -> None:
        """The thread that tries what failed, for as long as there is some."""
        is_tried = False
        while True:
            with self._idle:
                due = min(self._lanes.next_due(), self._registry.due if self._fails_to_announce() else math.inf)
                left = due - time.monotonic()
                if due == math.inf or (self._closing and is_tried and left > 0):
                    self._retrying = None
                    return
            if left > 0 and not self._closing:
                self._retry.wait(left)
            self._retry.clear()
            is_tried = True
            self._write_failing()
            self._announce(is_retry=True)

    def _write_failing(self) -> None:
        with self._lock:
            taken = self._lanes.take(_BATCH)
        if not taken:
            return
        errors = self._write([record for records in taken.values() for record in records])
        with self._idle:
            self._tell(self._lanes.settle(taken, errors))
            if self._is_done():
                self._idle.notify_all()

    def _write(self, records: list[Record]) -> dict[str, WriteError]:
        """Writes the records; the projects that could not be written, and why."""
        errors: dict[str, WriteError] = {}
        parts = [records] if records else []
        while parts:
            part = parts.pop()
            try:
                outcomes = self._store.write_each(part, time.monotonic() + self._timeout)
            except Exception:
                if len(part) == 1:
                    _log.exception("ledger: a record cannot be written and is dropped")
                    with self._lock:
                        self.failures["internal"] += 1
                        self.dropped += 1
                else:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                continue
            failed = {project: error for project, error in outcomes.items() if isinstance(error, WriteError)}
            errors |= failed
            with self._lock:
                self.failures.update({error.reason for error in failed.values()})
                for outcome in outcomes.values():
                    if isinstance(outcome, Written):
                        self.written = self.written.plus(outcome)
                self._unannounced |= outcomes.keys() - failed.keys()
        return errors

    def _fails_to_announce(self) -> bool:
        """Whether there is something to announce, and the list of projects is known to fail."""
        if not self._unannounced:
            return False
        return bool(self._registry.seconds) or self._lanes.is_down(self._store.registry_place)

    def _announce(self, *, is_retry: bool = False) -> None:
        """Tells readers of what was written, at the end of a drain and now and then before it."""
        with self._lock:
            now = time.monotonic()
            if not self._unannounced or (self._queue and now < self._next_announcement):
                return
            if self._fails_to_announce() and (not is_retry or now < self._registry.due):
                return
            self._next_announcement = now + self._interval
            projects, self._unannounced = self._unannounced, set()
            self._being_announced += 1
        failure: WriteError | None = None
        try:
            self._store.announce(projects, time.monotonic() + self._timeout)
        except WriteError as error:
            failure = error
        with self._idle:
            self._being_announced -= 1
            if failure is None:
                if self._registry.seconds:
                    _log.info("ledger: projects are announced again")
                self._registry.end()
            else:
                if not self._registry.seconds:
                    _log.warning("ledger: projects cannot be announced, records are written: %s", str(failure))
                self._unannounced |= projects
                self.failures[failure.reason] += 1
                self._registry.lengthen()
            if self._is_done():
                self._idle.notify_all()

    def _tell(self, turned: Turned) -> None:
        """Logs what has changed: one line when it turns, not one per try or project."""
        # Their words alone: a log that keeps records would keep what the errors hold on to.
        for place, error in turned.down.items():
            _log.warning("ledger: cannot write to %s, %d records are queued: %s", place, self._held(), str(error))
        for error in list(turned.refused.values())[:1]:
            _log.warning("ledger: %s refused, and waits apart: %s", _named(turned.refused), str(error))
        for place in turned.up:
            _log.info("ledger: %s is written again", place)
        if turned.accepted:
            _log.info("ledger: %s written again", _named(turned.accepted))


def _named(projects: Iterable[str]) -> str:
    first, *others = projects
    return f"{len(others) + 1} projects, {first!r} among them, are" if others else f"project {first!r} is"


class SyncWriter:
    """Waits for the ledger, at most `write_timeout_seconds`; then the records are queued and others do not wait.

    A server that fails has a breaker, which stays open for `breaker_seconds`: its projects' records are queued at once
    then, and those of projects on other servers are written. The buffer's thread tells readers of what was written.
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
        self._open_until: dict[str, float] = {}
        self._lock = threading.Lock()
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
        if deadline <= now:
            return self._buffer.write(records)
        apart = {project for project in {record.project for record in records} if self._is_open(project)}
        tried = [record for record in records if record.project not in apart] if apart else records
        if tried:
            outcomes = self._store.write_each(tried, deadline)
            errors = {project: outcome for project, outcome in outcomes.items() if isinstance(outcome, WriteError)}
            if errors:
                self._fail(errors)
                apart |= errors.keys()
            if len(errors) < len(outcomes):
                self._buffer.announce(outcomes.keys() - errors.keys())
        if not apart:
            return "written"
        return self._buffer.write([record for record in records if record.project in apart])

    def _is_open(self, project: str) -> bool:
        until = self._open_until
        return bool(until) and time.monotonic() < until.get(self._store.place(project), 0.0)

    def _fail(self, errors: Mapping[str, WriteError]) -> None:
        with self._lock:
            self.failures.update({error.reason for error in errors.values()})
            now = time.monotonic()
            failing = {self._store.place(each) for each, error in errors.items() if error.reason not in OF_ONE_PROJECT}
            # Nodes come and go, so those of before are forgotten.
            held = {place: until for place, until in self._open_until.items() if until > now}
            self._open_until = held | dict.fromkeys(failing, now + self._breaker)

    def errors(self) -> Mapping[str, int]:
        """As the buffer's, together with the writes that were waited for."""
        with self._lock:
            return self.failures + Counter(self._buffer.errors())

    def close(self, timeout_seconds: float) -> bool:
        """Writes what is queued; True if nothing is left."""
        return self._buffer.close(timeout_seconds)
