"""The load of the whole run: tasks that are due are enqueued, again until they are confirmed; workers that may die."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

import redis

from otel_queue.asynq.message import TaskMessage
from otel_queue.demo.broker import Broker
from tests.soak.whole.tasks import LANES, TASK_TYPE, Lane, Schedule, Told
from tests.soak.whole.worker import END_SECONDS, sentinel_client

TICK_SECONDS: Final = 0.05
OUTBOX_SECONDS: Final = 30.0
RETRIES: Final = 1_000_000
MOST_AT_ONCE: Final = 200


class Book:
    """What is known of each task. `confirmed` are in the ledger as their worker says; times are time.monotonic."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.enqueued: dict[int, float] = {}
        self.told = 0
        self.enqueued_again = 0
        self.handled_again = 0
        self.again = 0
        self.confirmed: set[int] = set()
        self.may_be_lost: set[int] = set()
        self.without_rows: deque[int] = deque()
        self._exact_at: list[float] = []
        self._exact: list[int] = []

    def enqueue(self, number: int) -> None:
        with self._lock:
            self.enqueued[number] = time.monotonic()
            self.told = max(self.told, number + 1)

    def confirm(self, numbers: set[int]) -> None:
        with self._lock:
            new = numbers - self.confirmed
            self.handled_again += len(numbers) - len(new)
            self.without_rows.extend(new)
            self.may_be_lost -= numbers
            for number in numbers:
                self.enqueued.pop(number, None)
            self.confirmed |= numbers
            self._exact_at.append(time.monotonic())
            self._exact.append(sum(LANES[number % len(LANES)].is_exact for number in new))

    def lose(self, numbers: set[int]) -> None:
        """Acknowledged, and their worker died before it said that they are written."""
        with self._lock:
            self.may_be_lost |= numbers
            for number in numbers:
                self.enqueued.pop(number, None)

    def fail(self) -> None:
        with self._lock:
            self.again += 1

    def settle(self, number: int) -> None:
        """Acknowledged by a writer that buffers: not to be enqueued again."""
        with self._lock:
            self.enqueued.pop(number, None)

    def waiting_since(self, moment: float) -> list[int]:
        with self._lock:
            return [number for number, at in self.enqueued.items() if at < moment]

    @property
    def is_settled(self) -> bool:
        """Whether each task is in the ledger, or may be lost as its writer promises no more."""
        with self._lock:
            return len(self.confirmed | self.may_be_lost) == self.told

    def exact_confirmed_before(self, moment: float) -> int:
        """How many exact tasks, of which each has one event, were confirmed by then."""
        with self._lock:
            return sum(self._exact[: bisect_right(self._exact_at, moment)])


class LaneProcess:
    """The worker of a lane, and another one after it was killed."""

    def __init__(
        self, lane: Lane, queues: str, ledger: str, seed: int, otlp: Mapping[str, str], book: Book, log: Path
    ) -> None:
        self.lane = lane
        self.log = log
        self._where = (queues, ledger, str(seed))
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        self._environment = {**inherited, **otlp}
        self._book = book
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None
        self.starts = 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, skew_seconds: float = 0.0) -> None:
        command = [sys.executable, "-m", "tests.soak.whole.worker", self.lane.name, *self._where, str(skew_seconds)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None
        self._listener = threading.Thread(target=self._listen, args=(self._process.stdout,))
        self._listener.start()
        self.starts += 1

    def _listen(self, answers: IO[str]) -> None:
        queued: set[int] = set()
        for line in answers:
            if not line.endswith("\n"):
                break  # killed in the middle of it
            word, _, rest = line.strip().partition(" ")
            if word == "flushed":
                self._book.confirm(queued)
                queued = set()
            elif word == "done":
                self._book.confirm({int(rest)})
            elif word == "queued":
                queued.add(int(rest))
                self._book.settle(int(rest))
            else:
                assert word == "again", line
                self._book.fail()
        self._book.lose(queued)

    def kill(self) -> None:
        assert self._process is not None
        assert self._listener is not None
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def end(self) -> int:
        """Its input ends, it writes what is left; its exit code."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._listener is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS + 30)
        finally:
            self._process.kill()
            self._process.wait()
            self._listener.join()
        return self._process.returncode


class Producer:
    """Enqueues each task when it is due, and again those that nobody has confirmed for a while."""

    def __init__(self, queues: str, schedule: Schedule, book: Book) -> None:
        self._client = sentinel_client(queues)
        self._broker = Broker(self._client, time.time)
        self._schedule = schedule
        self._book = book
        self._next = 0
        self._end = threading.Event()
        self._until_us: int | None = None
        self.failures = 0
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def finish(self, until_us: int) -> None:
        """What is due by then is still enqueued, and nothing later."""
        self._until_us = until_us

    @property
    def is_done(self) -> bool:
        return self._until_us is not None and self._next >= self._schedule.due(self._until_us)

    def stop(self) -> None:
        self._end.set()
        self._thread.join()
        self._client.close()

    def send(self, told: Told) -> None:
        """Its task is there, or was there already."""
        self._broker.enqueue(
            TaskMessage(
                TASK_TYPE, str(told.created_us).encode(), id=str(told.number), queue=told.lane.queue, retry=RETRIES
            )
        )

    def left(self) -> dict[str, int]:
        """How many tasks each queue has in any state that is not an end."""
        found: dict[str, int] = {}
        for lane in LANES:
            prefix = f"asynq:{{{lane.queue}}}:"
            found[lane.queue] = sum(self._client.llen(prefix + state) for state in ("pending", "active")) + sum(
                self._client.zcard(prefix + state) for state in ("scheduled", "retry", "archived")
            )
        return found

    def _run(self) -> None:
        look = time.monotonic() + OUTBOX_SECONDS
        while not self._end.wait(TICK_SECONDS):
            try:
                self._enqueue_due()
                if time.monotonic() >= look:
                    look = time.monotonic() + OUTBOX_SECONDS / 6
                    self._enqueue_again()
            except redis.RedisError:
                self.failures += 1
                self._broker.forget_registered()
            except BaseException as error:
                self.error = error
                raise

    def _enqueue_due(self) -> None:
        now_us = time.time_ns() // 1000
        due = self._schedule.due(now_us if self._until_us is None else min(now_us, self._until_us))
        for number in range(self._next, min(due, self._next + MOST_AT_ONCE)):
            # In the book first: it may be handled before this returns.
            self._book.enqueue(number)
            self.send(self._schedule.task(number))
            self._next = number + 1

    def _enqueue_again(self) -> None:
        for number in self._book.waiting_since(time.monotonic() - OUTBOX_SECONDS):
            self._book.enqueue(number)
            self.send(self._schedule.task(number))
            self._book.enqueued_again += 1
