import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry.sdk.metrics import MeterProvider

from otel_queue.config import RedisConfig
from otel_queue.errors import WriteError
from otel_queue.ledger.store import LedgerStore, Written
from otel_queue.ledger.writer import BufferedWriter, SyncWriter
from otel_queue.lifecycle import Record
from otel_queue.recorder import Recorder
from otel_queue.redis_client import connect
from tests.servers.process import free_port

NOWHERE = RedisConfig(url=f"redis://127.0.0.1:{free_port()}/0")
LIMIT_SECONDS = 0.1
COMMITS = 10


class HangingStore(LedgerStore):
    """A Redis that takes what it is sent and says nothing: whoever writes waits until the deadline."""

    def __init__(self) -> None:
        super().__init__(connect(NOWHERE))
        self.deadlines: list[float] = []

    def write_each(
        self, records: Iterable[Record], deadline: float, *, under_day: str | None = None
    ) -> dict[str, Written | WriteError]:
        self.deadlines.append(deadline)
        time.sleep(max(0.0, deadline - time.monotonic()))
        return {record.project: WriteError("timeout", "no answer") for record in records}


async def grouped(recorder: Recorder, event_id: str) -> str:
    async with recorder.asynchronous.grouped() as group:
        await recorder.asynchronous.event_created(project="p", event_id=event_id)
    return group.kept


async def singly(recorder: Recorder, event_id: str) -> str:
    return await recorder.asynchronous.event_created(project="p", event_id=event_id)


@pytest.mark.parametrize("record", [grouped, singly])
def test_coroutines_that_wait_in_line_for_a_thread_wait_no_longer_than_the_writers_limit(
    record: Callable[[Recorder, str], Awaitable[str]],
) -> None:
    store = HangingStore()
    buffer = BufferedWriter(LedgerStore(connect(NOWHERE)), flush_at_exit=False)
    writer = SyncWriter(store, buffer, write_timeout_seconds=LIMIT_SECONDS, breaker_seconds=0.0)
    recorder = Recorder(MeterProvider(shutdown_on_exit=False), writer=writer)

    async def run() -> tuple[list[str], float]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        records = [asyncio.ensure_future(record(recorder, str(number))) for number in range(COMMITS)]
        await asyncio.sleep(0)
        asked = time.monotonic()
        return await asyncio.gather(*records), asked

    kept, asked = asyncio.run(run())
    assert kept == ["queued"] * COMMITS
    assert len(writer) == COMMITS
    assert max(store.deadlines) <= asked + LIMIT_SECONDS
    buffer.close(0)
