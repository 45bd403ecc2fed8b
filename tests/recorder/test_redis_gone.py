"""Whatever Redis does, a handler gets its answer, and memory stays within its bound."""

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_queue.config import Config, RedisConfig
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.writer import BufferedWriter, SyncWriter
from otel_queue.lifecycle import EventCreated
from otel_queue.middleware import PROJECT, Task, compose, grouped, recorded
from otel_queue.redis_client import connect
from otel_queue.worker import Worker, ledger_writer
from tests.ledger.ledgers import Ledger
from tests.recorder.reading import of, sums
from tests.servers.process import free_port, wait_until
from tests.servers.proxy import slow_proxy
from tests.servers.redis import RedisServer, redis_server

MOST = 200


@contextlib.contextmanager
def refused() -> Iterator[str]:
    yield f"redis://127.0.0.1:{free_port()}/0"


@contextlib.contextmanager
def stopped() -> Iterator[str]:
    with redis_server() as server:
        server.pause()
        yield server.url


@contextlib.contextmanager
def black_holed() -> Iterator[str]:
    with slow_proxy(free_port()) as proxy:
        proxy.blackhole()
        yield f"redis://127.0.0.1:{proxy.port}/0"


GONE = pytest.mark.parametrize("gone", [refused, stopped, black_holed], ids=lambda gone: gone.__name__)


def small(url: str, *, waits: bool) -> BufferedWriter | SyncWriter:
    redis = RedisConfig(url=url, connect_timeout_seconds=0.05)
    buffer = BufferedWriter(LedgerStore(connect(redis)), most_records=MOST, timeout_seconds=0.1, flush_at_exit=False)
    if not waits:
        return buffer
    return SyncWriter(LedgerStore(connect(redis)), buffer, write_timeout_seconds=0.05)


def deliver(task: Task) -> str:
    task.report_status("Processing")
    task.report_attempt(200)
    task.report_status("Success")
    return "delivered"


@GONE
@pytest.mark.parametrize("waits", [False, True], ids=["buffered", "sync"])
def test_handlers_succeed_memory_is_bounded_and_what_is_lost_is_told(
    gone: Callable[[], contextlib.AbstractContextManager[str]], waits: bool
) -> None:
    with gone() as url:
        writer = small(url, waits=waits)
        worker = Worker(ledger=lambda: writer, readers=lambda: [InMemoryMetricReader()])
        handle = compose(recorded(worker.recorder), grouped(worker.recorder))(deliver)
        answers = {handle(Task("t", id=str(number), headers={PROJECT: "p"})) for number in range(MOST)}
        (reader,) = worker.readers
        assert isinstance(reader, InMemoryMetricReader)
        dropped = of(lane="ledger", reason="dropped")

        def failures() -> float:
            found = sums(reader, "otel_queue_errors_total")
            return sum(value for labels, value in found.items() if ("lane", "ledger") in labels and labels != dropped)

        wait_until(failures, what="a failed write is exported")
        assert answers == {"delivered"}
        assert len(writer) == MOST
        assert sums(reader, "otel_queue_errors_total")[dropped] == 2 * MOST
        assert worker.shutdown(0.1) is False


def test_what_was_queued_while_redis_was_away_arrives_when_it_is_back() -> None:
    with redis_server(args=["--appendonly", "yes", "--appendfsync", "always"]) as server:
        Ledger(server.url).close()
        config = Config(redis=RedisConfig(url=server.url))
        worker = Worker(config, ledger=lambda: ledger_writer(config))
        server.kill()
        for number in range(50):
            assert worker.recorder.attempt_made(project="p", attempt_id=str(number), succeeded=True) == "queued"
        server.start()
        assert worker.shutdown(20)
        assert attempts(server) == 50


def test_the_writer_that_waits_says_written_and_then_it_is(redis_server: RedisServer) -> None:
    config = Config(redis=RedisConfig(url=redis_server.url))
    worker = Worker(config, ledger=lambda: ledger_writer(config, waits=True))
    assert worker.recorder.attempt_made(project="p", attempt_id="1", succeeded=True) == "written"
    assert attempts(redis_server) == 1
    worker.shutdown(0)


def test_the_writer_that_waits_does_so_for_as_long_as_it_is_told(redis_server: RedisServer) -> None:
    with slow_proxy(redis_server.port, delay_seconds=0.3) as proxy:
        config = Config(redis=RedisConfig(url=f"redis://127.0.0.1:{proxy.port}/0"))
        record = EventCreated("p", "e", time.time_ns() // 1000, None)
        hasty, patient = (ledger_writer(config, waits=True, write_timeout_seconds=seconds) for seconds in (0.25, 60.0))
        assert (hasty.write([record]), patient.write([record])) == ("queued", "written")
        assert hasty.errors()["timeout"] == 1
        assert hasty.close(20)


def attempts(server: RedisServer) -> int:
    with server.client() as client:
        return sum(int(count) for count in client.hvals("oq:{p}:attempts"))
