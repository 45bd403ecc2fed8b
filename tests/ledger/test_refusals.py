"""A Redis that refuses every write: nobody is locked out by it, it has a reason of its own, and it ends."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import redis

from otel_queue.config import RedisConfig
from otel_queue.errors import WriteError
from otel_queue.ledger.contract import Contract
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.writer import BufferedWriter, SyncWriter
from otel_queue.lifecycle import EventCreated, StatusSet
from otel_queue.redis_client import connect
from tests.ledger.ledgers import Ledger, ledger_server, now_us
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer

NOW_US = now_us()


def events(count: int, project: str = "p") -> list[EventCreated]:
    return [EventCreated(project, f"e{number}", NOW_US, "S") for number in range(count)]


@contextmanager
def stores(server: RedisServer) -> Iterator[LedgerStore]:
    with closing(LedgerStore(connect(RedisConfig(url=server.url)))) as store:
        with server.client() as client:
            client.set("oq:contract", Contract(now_us()).text())
        yield store


def write(store: LedgerStore, count: int = 1) -> None:
    store.write(events(count), time.monotonic() + 10)


@contextmanager
def without_replicas(server: RedisServer) -> Iterator[None]:
    with server.client() as client:
        client.config_set("min-replicas-to-write", 1)
        yield
        client.config_set("min-replicas-to-write", 0)


@contextmanager
def without_a_way_to_save(server: RedisServer) -> Iterator[None]:
    with server.client() as client:
        client.config_set("save", "3600 1")
        file = server._directory / "dump.rdb"
        file.mkdir()
        client.bgsave()
        wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", what="a snapshot fails")
        yield
        client.config_set("save", "")
        file.rmdir()


@contextmanager
def busy_with_a_script(server: RedisServer) -> Iterator[None]:
    def refuses() -> bool:
        try:
            client.ping()
        except redis.ResponseError as error:
            return "BUSY" in str(error)
        return False

    def run() -> None:
        with server.client() as other, pytest.raises(redis.ResponseError):
            other.eval("while true do end", 0)

    with server.client() as client:
        client.config_set("lua-time-limit", 10)
        script = threading.Thread(target=run)
        script.start()
        wait_until(refuses, what="the script runs for too long")
        yield
        client.execute_command("SCRIPT KILL")
        script.join()


def holds_another_type(server: RedisServer) -> Any:
    @contextmanager
    def held() -> Iterator[None]:
        with server.client() as client:
            client.set("oq:projects", "some text", ex=60)
            yield
            client.delete("oq:projects")

    return held()


@pytest.mark.parametrize(
    ("refuses", "reason"),
    [
        (without_replicas, "no_replicas"),
        (without_a_way_to_save, "cannot_save"),
        (busy_with_a_script, "busy_script"),
        (holds_another_type, "registry"),
    ],
)
def test_a_refused_write_locks_nobody_out_while_its_error_is_kept(
    refuses: Callable[[RedisServer], Any], reason: str
) -> None:
    """Handlers of logs and reporters of errors keep an error, and with it all that its frames held."""
    with ledger_server() as server, stores(server) as store:
        ledger = Ledger(server.url)
        with refuses(server):
            with pytest.raises(WriteError) as kept:
                write(store)
            assert kept.value.reason == reason
            with pytest.raises(WriteError) as again:
                write(store)
            assert again.value.reason == reason
        write(store, 3)
        assert sum(ledger.snapshot().projects[0].events.values()) == 3
        ledger.close()


def test_a_record_that_cannot_be_written_locks_nobody_out_when_others_were_sent_before_it() -> None:
    with ledger_server() as server, stores(server) as store:
        ledger = Ledger(server.url)
        with pytest.raises(ValueError, match="no such status") as kept:
            store.write([*events(600), StatusSet("q", "d", "no such status", NOW_US)], time.monotonic() + 10)
        write(store, 600)
        assert kept.tb  # all the while
        ledger.close()


def test_a_buffered_writer_goes_on_after_a_refusal_whatever_keeps_its_log(caplog: pytest.LogCaptureFixture) -> None:
    with ledger_server() as server:
        ledger = Ledger(server.url)
        writer = BufferedWriter(LedgerStore(connect(RedisConfig(url=server.url))), flush_at_exit=False)
        with without_replicas(server):
            writer.write([*events(1), *events(1, "q")])
            wait_until(lambda: writer.failures["no_replicas"] > 1, what="two tries were refused")
        assert writer.close(20.0)
        assert caplog.records
        ledger.close()


def test_what_redis_refuses_to_everybody_opens_the_breaker() -> None:
    with ledger_server() as server, stores(server) as store, without_replicas(server):
        writer = SyncWriter(store, BufferedWriter(store, flush_at_exit=False), breaker_seconds=3_600)
        assert {writer.write(events(1)) for _ in range(5)} == {"queued"}
        assert writer.failures == {"no_replicas": 1}
        assert not writer.close(0.0)
