"""A worker to be killed: tasks come pickled on its input, its answers are lines of its output.

    python -m tests.soak.writer_process URL WRITER

`written N`: the records of task N are in the ledger. `queued N`: its handler has returned and they are not. `failed N`:
it is to be delivered again. `flushed`: nothing is queued any more.
"""

import pickle
import sys
import threading
from typing import Final

from otel_queue.config import RedisConfig
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.writer import BufferedWriter, SyncWriter
from otel_queue.redis_client import connect

FLUSH_SECONDS: Final = 60.0
FLUSH_EVERY: Final = 40
PAUSE_SECONDS: Final = 0.05


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(url: str, kind: str) -> None:
    store, behind = (LedgerStore(connect(RedisConfig(url=url, connect_timeout_seconds=2.0))) for _ in range(2))
    buffer = BufferedWriter(behind, timeout_seconds=5.0)
    # A pause after a failure, so that tasks that are delivered again and again leave others the processor.
    pause = threading.Event()
    writer: SyncWriter | BufferedWriter = buffer
    if kind != "buffered":
        timeout, breaker = (5.0, 0.0) if kind == "committed" else (0.25, 0.5)
        writer = SyncWriter(store, buffer, write_timeout_seconds=timeout, breaker_seconds=breaker)
    queued = 0
    while True:
        try:
            task, records = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        answer: str = writer.write(records)
        if answer != "written" and kind == "committed":
            answer = "failed"
            pause.wait(PAUSE_SECONDS)
        queued += answer == "queued"
        say(f"{answer} {task}")
        if queued >= FLUSH_EVERY and buffer.flush(FLUSH_SECONDS):
            queued = 0
            say("flushed 0")
    if buffer.close(FLUSH_SECONDS):
        say("flushed 0")


if __name__ == "__main__":
    main(*sys.argv[1:])
