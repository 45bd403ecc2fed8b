"""A worker to be killed: one task a line of its input, one answer a line of its output.

    python -m tests.ledger.worker_process URL WRITER BASE_US

A task is a number, from which all its records follow. `ack N` says that its handler has returned, `fail N` that it
has not and the task is to be delivered again. `flush` waits for what is queued; the end of input closes the writer.
"""

import sys

from otel_queue.config import RedisConfig
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.writer import BufferedWriter, SyncWriter
from otel_queue.lifecycle import AttemptMade, DeliveryCreated, EventCreated, Record, StatusSet
from otel_queue.redis_client import connect
from tests.ledger.ledgers import ulid

FLUSH_SECONDS = 30.0
RECORDS_PER_TASK = 5


def records_of(task: int, base_us: int) -> list[Record]:
    project, at = f"p{task % 3}", base_us + task * 1_000
    id_ = ulid(at, task)
    return [
        EventCreated(project, id_, at, "S"),
        DeliveryCreated(project, id_, at, f"E{task % 5}", "t", "S", created_us=at),
        StatusSet(project, id_, "processing", at + 1),
        AttemptMade(project, id_, at + 2, f"E{task % 5}", task % 4 > 0, 200 if task % 4 else None),
        StatusSet(project, id_, "success" if task % 4 else "retry", at + 3),
    ]


class Handler:
    """Handles tasks with one of the writers, as docs/reliability.md names them."""

    def __init__(self, url: str, writer: str) -> None:
        self.buffer = BufferedWriter(_store(url), interval_seconds=0.01, timeout_seconds=2.0)
        self._writer = writer
        # Before an acknowledgement there is time to wait, and no sense in not trying.
        timeout, breaker = (2.0, 0.0) if writer == "committed" else (1.0, 1.0)
        self._sync = SyncWriter(_store(url), self.buffer, write_timeout_seconds=timeout, breaker_seconds=breaker)

    def handle(self, records: list[Record]) -> bool:
        """Whether the task is done and may be acknowledged."""
        if self._writer == "buffered":
            self.buffer.write(records)
            return True
        if self._writer == "committed":
            return self._sync.write(records) == "written"
        for record in records:
            self._sync.write((record,))
        return True


def _store(url: str) -> LedgerStore:
    return LedgerStore(connect(RedisConfig(url=url)))


def main(url: str, writer: str, base_us: str) -> None:
    handler = Handler(url, writer)
    for line in sys.stdin:
        if line == "flush\n":
            answer = f"flushed {handler.buffer.flush(FLUSH_SECONDS)}"
        else:
            done = handler.handle(records_of(int(line), int(base_us)))
            answer = f"{'ack' if done else 'fail'} {int(line)}"
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()
    handler.buffer.close(FLUSH_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
