"""Writers when Redis refuses, is silent, or holds something else than a ledger; at exit, and in forked children."""

import gc
import logging
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

from otel_queue.ledger.writer import BufferedWriter, SyncWriter
from otel_queue.lifecycle import DayExpired, EventCreated, StatusSet
from tests.ledger.ledgers import DAY_US, Ledger, assert_same, day_of, expected, ledger_server, ulid
from tests.ledger.oracle import EVENTS
from tests.ledger.writers import NOW_US, TIMEOUT_SECONDS, buffered, events, store
from tests.servers.process import free_port, wait_until
from tests.servers.proxy import slow_proxy
from tests.servers.redis import RedisServer


@pytest.fixture
def refusing_url() -> str:
    return f"redis://127.0.0.1:{free_port()}/0"


def test_a_buffered_writer_writes_in_the_background(ledger: Ledger, writer: BufferedWriter) -> None:
    assert writer.write(events(0, 5_000)) == "queued"
    assert writer.flush(TIMEOUT_SECONDS)
    assert writer.written == (5_000, 0, 0, 0)
    assert ledger.families()[EVENTS] == {("p", "S", "success"): 5_000.0}


def test_a_full_buffer_drops_the_newest_and_counts_them() -> None:
    with ledger_server() as server:
        ledger = Ledger(server.url)
        server.pause()
        writer = buffered(server.url, most_records=10, timeout_seconds=0.2)
        assert writer.write(events(0, 8)) == "queued"
        assert writer.write(events(8, 12)) == "dropped"
        assert writer.write(events(12, 15)) == "dropped"
        assert (len(writer), writer.dropped) == (10, 5)
        server.resume()
        assert writer.close(TIMEOUT_SECONDS)
        families, now = ledger.read()
        assert_same(families, expected(events(0, 10), now))
        ledger.close()


def test_what_redis_refuses_stays_queued_within_the_bound(refusing_url: str) -> None:
    # What failed waits apart and leaves its room: nothing is tried before all has been told.
    writer = buffered(refusing_url, most_records=1_000, interval_seconds=60.0)
    for number in range(100):
        assert writer.write(events(100 * number, 100 * (number + 1))) == ("queued" if number < 10 else "dropped")
    assert not writer.flush(0.0)
    wait_until(lambda: writer.failures["connection"], what="a write fails")
    assert (len(writer), writer.dropped) == (1_000, 9_000)
    assert not writer.close(0.0)


def test_a_writer_before_which_nothing_answers_only_queues(redis_server: RedisServer, ledger: Ledger) -> None:
    with slow_proxy(redis_server.port) as proxy:
        proxy.blackhole()
        writer = buffered(f"redis://127.0.0.1:{proxy.port}/0", most_records=50, timeout_seconds=0.1)
        assert {writer.write(events(number, number + 1)) for number in range(50)} == {"queued"}
        assert writer.write(events(50, 51)) == "dropped"
        wait_until(lambda: writer.failures["timeout"], what="a write fails")
        assert len(writer) == 50
        proxy.restore()
        assert writer.close(TIMEOUT_SECONDS)
    assert writer.written.changed == 50


def test_every_outage_is_told_once_and_so_is_its_end(
    redis_server: RedisServer, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "otel_queue.ledger.writer")
    with slow_proxy(redis_server.port) as proxy:
        writer = buffered(f"redis://127.0.0.1:{proxy.port}/0", timeout_seconds=0.1)
        for outage in range(2):
            writer.failures.clear()
            proxy.blackhole()
            writer.write(events(outage, outage + 1))
            wait_until(lambda: writer.failures.total() > 1, what="two tries fail")
            proxy.restore()
            assert writer.flush(TIMEOUT_SECONDS)
        writer.close(TIMEOUT_SECONDS)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"] * 2


def test_whoever_waits_for_the_buffer_does_not_wait_for_its_pauses(
    refusing_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otel_queue.ledger.lanes.LONGEST_PAUSE_SECONDS", 3_600.0)
    monkeypatch.setattr("otel_queue.ledger.lanes.FIRST_PAUSE_SECONDS", 3_600.0)
    writer = buffered(refusing_url)
    writer.write(events(0, 1))
    wait_until(lambda: writer.failures["connection"] == 1, what="a write fails")
    writer.flush(0.0)
    wait_until(lambda: writer.failures["connection"] == 2, what="it tries again", within=20)
    writer.close(0.0)


def test_a_cut_in_the_middle_of_the_replies_loses_nothing_and_counts_nothing_twice(
    redis_server: RedisServer, ledger: Ledger
) -> None:
    with slow_proxy(redis_server.port, delay_seconds=0.3) as proxy, redis_server.client() as client:
        writer = buffered(f"redis://127.0.0.1:{proxy.port}/0")
        writer.write(events(0, 100))
        wait_until(lambda: client.exists("oq:{p}:meta"), what="Redis has executed the script")
        proxy.cut()
        wait_until(lambda: writer.failures, what="the writer has not heard of it")
        assert writer.written.changed == 0
        proxy.delay = 0.0
        proxy.restore()
        assert writer.close(TIMEOUT_SECONDS)
    assert writer.written == (0, 100, 0, 0)
    families, now = ledger.read()
    assert_same(families, expected(events(0, 100), now))


def test_a_record_that_cannot_be_written_costs_no_other(
    redis_server: RedisServer, ledger: Ledger, writer: BufferedWriter, caplog: pytest.LogCaptureFixture
) -> None:
    bad = StatusSet("p", "d", "no such status", NOW_US)
    writer.write([*events(0, 20), bad, *events(20, 40), bad])
    assert writer.flush(TIMEOUT_SECONDS)
    assert (writer.dropped, writer.failures) == (2, {"internal": 2})
    assert "no such status" in caplog.text
    families, now = ledger.read()
    assert_same(families, expected(events(0, 40), now))


def test_a_thread_that_cannot_be_started_is_tried_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writer = buffered(ledger.url)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert writer.write(events(0, 1)) == "queued"
        assert writer.write(events(1, 2)) == "queued"
    assert writer.errors() == {"out_of_threads": 2}
    assert [record.getMessage() for record in caplog.records] == [
        "ledger: cannot write, 1 records are queued: can't start new thread"
    ]
    assert writer.close(TIMEOUT_SECONDS)
    assert ledger.families()[EVENTS] == {("p", "S", "success"): 2.0}


def test_a_record_that_is_late_is_written_since_the_ledger_has_answered_for_it(ledger: Ledger) -> None:
    """Delivered again it would be late again: `written` says that there is nothing to be done."""
    writer = SyncWriter(store(ledger.url), buffered(ledger.url))
    yesterday = NOW_US - DAY_US
    assert writer.write([DayExpired("p", day_of(yesterday))]) == "written"
    assert writer.write([EventCreated("p", ulid(yesterday, 1), NOW_US, "S")]) == "written"
    assert writer.close(TIMEOUT_SECONDS)
    [project] = ledger.snapshot().projects
    assert (project.tallies, project.events) == ({"late:event": 1}, {})


@pytest.mark.parametrize("flush_at_exit", [False, True])
def test_a_writer_that_is_closed_can_be_let_go_of(ledger: Ledger, flush_at_exit: bool) -> None:
    """Whether it was to be flushed at exit or not: neither that nor the hook at fork keeps it alive."""
    writer = BufferedWriter(store(ledger.url), interval_seconds=0.01, flush_at_exit=flush_at_exit)
    writer.write(events(0, 1))
    assert writer.close(TIMEOUT_SECONDS)
    reference = weakref.ref(writer)
    del writer
    wait_until(lambda: gc.collect() >= 0 and reference() is None, what="its thread has let go of it", within=20)


def test_a_writer_that_waits_tells_its_own_failures_and_its_buffers(refusing_url: str) -> None:
    writer = SyncWriter(store(refusing_url), buffered(refusing_url, most_records=1), breaker_seconds=3_600)
    assert writer.write(events(0, 3)) == "dropped"
    wait_until(lambda: writer.errors()["connection"] > 1, what="the buffer has tried too")
    assert writer.errors()["dropped"] == 2
    assert len(writer) == 1
    assert not writer.close(0.0)


def test_a_sync_writer_says_written_only_of_what_is_in_the_ledger(ledger: Ledger) -> None:
    writer = SyncWriter(store(ledger.url), buffered(ledger.url))
    assert writer.write(events(0, 10)) == "written"
    assert writer.close(TIMEOUT_SECONDS)  # readers know of the project
    assert ledger.families()[EVENTS] == {("p", "S", "success"): 10.0}


def test_a_sync_writer_queues_for_whom_the_limit_was_over_before_its_turn(ledger: Ledger) -> None:
    writer = SyncWriter(store(ledger.url), buffered(ledger.url), write_timeout_seconds=TIMEOUT_SECONDS)
    now = time.monotonic()
    assert writer.write(events(0, 1), now - TIMEOUT_SECONDS) == "queued"
    assert writer.write(events(1, 2), now) == "written"
    assert writer.errors() == {}
    assert writer.close(TIMEOUT_SECONDS)


def test_after_an_outage_a_sync_writer_queues_without_trying_until_its_breaker_closes(refusing_url: str) -> None:
    writer = SyncWriter(store(refusing_url), buffered(refusing_url), breaker_seconds=3_600)
    assert {writer.write(events(number, number + 1)) for number in range(20)} == {"queued"}
    assert writer.failures == {"connection": 1}
    assert not writer.close(0.0)


def test_what_a_sync_writer_queued_is_written_when_redis_is_back() -> None:
    with ledger_server() as server:
        ledger = Ledger(server.url)
        server.pause()
        writer = SyncWriter(store(server.url), buffered(server.url), write_timeout_seconds=0.05, breaker_seconds=0.0)
        assert writer.write(events(0, 3)) == "queued"
        server.resume()
        wait_until(lambda: writer.write(events(3, 6)) == "written", what="a write succeeds")
        assert writer.close(TIMEOUT_SECONDS)
        families, now = ledger.read()
        assert_same(families, expected(events(0, 6), now))
        ledger.close()


def test_one_projects_broken_keys_do_not_open_the_breaker_for_others(redis_server: RedisServer, ledger: Ledger) -> None:
    buffer = buffered(ledger.url)
    writer = SyncWriter(store(ledger.url), buffer, breaker_seconds=3_600)
    with redis_server.client() as client:
        client.set("oq:{broken}:meta", "some text", ex=60)
        assert writer.write(events(0, 1, "broken")) == "queued"
        assert writer.write(events(0, 1)) == "written"
        client.delete("oq:{broken}:meta")
    assert writer.close(TIMEOUT_SECONDS)


def test_many_threads_may_share_a_writer(ledger: Ledger, writer: BufferedWriter) -> None:
    def write(thread: int) -> None:
        for number in range(200):
            writer.write(events(number, number + 2, f"p{thread % 3}"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert writer.flush(TIMEOUT_SECONDS)
    assert ledger.families()[EVENTS] == {(f"p{number}", "S", "success"): 201.0 for number in range(3)}
    assert writer.written.changed + writer.written.unchanged == 6 * 200 * 2


# A program of its own: the fixture of this process would flush and fork more than it should.
PROGRAM = """
import os, sys, time
from otel_queue.config import RedisConfig
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.writer import BufferedWriter
from otel_queue.lifecycle import EventCreated
from otel_queue.redis_client import connect

url, now_us = sys.argv[1], int(sys.argv[2])
writer = BufferedWriter(LedgerStore(connect(RedisConfig(url=url))), interval_seconds={interval})

def write(first, last):
    writer.write([EventCreated("p", f"e{{number}}", now_us, "S") for number in range(first, last)])

"""


def run(program: str, url: str, interval: float) -> str:
    text = PROGRAM.format(interval=interval) + program
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text, url, str(NOW_US)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_a_program_that_ends_writes_what_is_queued(ledger: Ledger) -> None:
    run("write(0, 100)", ledger.url, interval=3_600)
    assert ledger.families()[EVENTS] == {("p", "S", "success"): 100.0}


def test_a_forked_child_writes_its_own_records_and_not_its_parents(ledger: Ledger) -> None:
    said = run(
        """
write(0, 10)
child = os.fork()
if not child:
    print(len(writer), flush=True)
    write(10, 30)
    os._exit(0 if writer.close(20) else 1)
_, status = os.waitpid(child, 0)
print(len(writer), os.waitstatus_to_exitcode(status), writer.close(20), writer.written.changed, flush=True)
""",
        ledger.url,
        interval=3_600,
    )
    assert said.split() == ["0", "10", "0", "True", "10"]
    assert ledger.families()[EVENTS] == {("p", "S", "success"): 30.0}


def test_a_child_forked_while_its_parent_waits_for_redis_writes_all_the_same() -> None:
    """The parent's thread holds the connection's lock at that moment, and no thread of the child gives it back."""
    with ledger_server() as server:
        ledger = Ledger(server.url)
        server.pause()
        said = run(
            f"""
write(0, 10)
while not writer._store._link._own.lock.locked():
    time.sleep(0.01)
child = os.fork()
if not child:
    write(10, 30)
    os.kill({server.pid}, 18)
    os._exit(0 if writer.close(20) else 1)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), writer.close(20), flush=True)
""",
            server.url,
            interval=0.01,
        )
        assert said.split() == ["0", "True"]
        assert ledger.families()[EVENTS] == {("p", "S", "success"): 30.0}
        ledger.close()


def test_forked_children_and_their_parent_write_side_by_side(ledger: Ledger) -> None:
    said = run(
        """
write(0, 10)
writer.flush(20)
children = []
for number in range(3):
    child = os.fork()
    if not child:
        for step in range(20):
            write(1_000 * number + step, 1_000 * number + step + 1)
            writer.flush(20)
        os._exit(0 if writer.close(20) else 1)
    children.append(child)
for step in range(20):
    write(5_000 + step, 5_001 + step)
    writer.flush(20)
print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children), writer.close(20), flush=True)
""",
        ledger.url,
        interval=0.01,
    )
    assert said.split() == ["0", "0", "0", "True"]
    # e0 to e9 of the parent are among the first child's.
    assert ledger.families()[EVENTS] == {("p", "S", "success"): 80.0}
