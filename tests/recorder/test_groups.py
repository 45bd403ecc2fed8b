import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal

import pytest
from opentelemetry.sdk.metrics import MeterProvider

from otel_queue.config import Config
from otel_queue.errors import OtelQueueError, WriteError
from otel_queue.lifecycle import EventCreated, Record
from otel_queue.middleware import PROJECT, Task, committed, compose, grouped, recorded
from otel_queue.recorder import Recorder, Writer
from otel_queue.worker import ledger_writer
from tests.recorder.reading import ListWriter, Recording, of

LONG = 10.0


def ids(writer: ListWriter) -> list[list[str]]:
    return [[record.event_id for record in batch if isinstance(record, EventCreated)] for batch in writer.batches]


def created(recorder: Recorder, event_id: str) -> str:
    return recorder.event_created(project="p", event_id=event_id)


def test_records_of_a_block_are_written_as_one_batch_when_it_ends() -> None:
    recording = Recording()
    with recording.recorder.grouped() as group:
        assert created(recording.recorder, "1") == "grouped"
        assert created(recording.recorder, "2") == "grouped"
        assert recording.writer.batches == []
    assert ids(recording.writer) == [["1", "2"]]
    assert group.kept == "written"


def test_a_block_that_raises_writes_what_has_happened_before() -> None:
    recording = Recording()

    def handle() -> None:
        with recording.recorder.grouped():
            created(recording.recorder, "1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        handle()
    assert ids(recording.writer) == [["1"]]


def test_a_block_inside_another_joins_it() -> None:
    recording = Recording()
    with recording.recorder.grouped():
        created(recording.recorder, "1")
        with recording.recorder.grouped():
            created(recording.recorder, "2")
        created(recording.recorder, "3")
    assert ids(recording.writer) == [["1", "2", "3"]]


def test_an_empty_block_writes_nothing() -> None:
    recording = Recording()
    with recording.recorder.grouped() as group:
        pass
    assert recording.writer.batches == []
    assert group.kept == "unstored"


def test_a_thread_writes_for_itself_and_a_record_after_the_end_is_not_lost() -> None:
    recording = Recording()
    with recording.recorder.grouped():
        thread = threading.Thread(target=created, args=(recording.recorder, "thread"))
        thread.start()
        thread.join(LONG)
    assert created(recording.recorder, "after") == "written"
    assert ids(recording.writer) == [["thread"], ["after"]]


def test_two_recorders_do_not_take_each_others_records() -> None:
    one, other = Recording(), Recording()
    with one.recorder.grouped():
        created(other.recorder, "2")
        created(one.recorder, "1")
    assert (ids(one.writer), ids(other.writer)) == ([["1"]], [["2"]])


def test_a_child_forked_inside_a_block_leaves_the_parents_records_to_the_parent() -> None:
    recording = Recording()
    reading, writing = os.pipe()
    with recording.recorder.grouped() as group:
        created(recording.recorder, "parent")
        child = os.fork()
        if child == 0:
            said = created(recording.recorder, "child")
            group.commit()
            os.write(writing, f"{said} {ids(recording.writer)}".encode())
            os._exit(0)
        os.waitpid(child, 0)
    assert os.read(reading, 100).decode() == "written [['child']]"
    assert ids(recording.writer) == [["parent"]]


class SlowWriter(ListWriter):
    """Waits until it is let go, as a writer that waits for Redis."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.threads: set[str] = set()

    def write(
        self, records: Sequence[Record], waiting_since: float | None = None
    ) -> Literal["written", "queued", "dropped"]:
        self.threads.add(threading.current_thread().name)
        assert self.go.wait(LONG)
        return super().write(records)


def test_a_writer_that_waits_does_not_hold_up_the_event_loop() -> None:
    writer = SlowWriter()
    recorder = Recording(writer=writer).recorder

    async def run() -> str:
        recording = asyncio.create_task(recorder.asynchronous.event_created(project="p", event_id="1", source=None))
        await asyncio.sleep(0)
        writer.go.set()  # only reached if the loop still runs
        return await asyncio.wait_for(recording, LONG)

    assert asyncio.run(run()) == "written"
    assert threading.main_thread().name not in writer.threads


def test_coroutines_group_their_records_apart() -> None:
    recording = Recording()

    async def handle(name: str, both: asyncio.Barrier) -> None:
        async with recording.recorder.asynchronous.grouped():
            await recording.recorder.asynchronous.event_created(project="p", event_id=f"{name}1")
            await both.wait()
            created(recording.recorder, f"{name}2")

    async def run() -> None:
        both = asyncio.Barrier(2)
        await asyncio.gather(handle("a", both), handle("b", both))

    asyncio.run(run())
    assert sorted(ids(recording.writer)) == [["a1", "a2"], ["b1", "b2"]]


def test_the_records_of_a_task_that_is_cancelled_while_they_wait_to_be_written_are_written() -> None:
    recording = Recording()
    busy = threading.Event()

    async def handle() -> None:
        async with recording.recorder.asynchronous.grouped():
            created(recording.recorder, "1")

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        before = loop.run_in_executor(None, busy.wait, LONG)
        task = asyncio.create_task(handle())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        busy.set()
        await before

    asyncio.run(run())
    assert ids(recording.writer) == [["1"]]


# Committed -----------------------------------------------------------------------------------------------------------


class RaisingWriter(ListWriter):
    def write(self, records: Sequence[Record], waiting_since: float | None = None) -> Any:
        raise ZeroDivisionError


def tell_and_commit(recorder: Recorder) -> None:
    with recorder.committed():
        created(recorder, "1")


@pytest.mark.parametrize(
    ("writer", "kept"),
    [(ListWriter("queued"), "queued"), (ListWriter("dropped"), "dropped"), (RaisingWriter(), "missed")],
    ids=["queued", "dropped", "missed"],
)
def test_a_committed_block_raises_unless_its_records_have_reached_the_ledger(writer: ListWriter, kept: str) -> None:
    recorder = Recording(writer=writer).recorder
    with pytest.raises(WriteError, match=f"1 record of this task: {kept}, not written to the ledger") as raised:
        tell_and_commit(recorder)
    assert raised.value.reason == kept


def test_a_committed_block_whose_records_were_written_ends_as_any_other() -> None:
    recorder = Recording().recorder
    with recorder.committed() as group:
        created(recorder, "1")
    assert group.kept == "written"


def test_a_task_that_tells_nothing_is_not_delivered_again_for_it() -> None:
    recorder = Recording(writer=ListWriter("queued")).recorder
    with recorder.committed() as group:
        pass
    assert group.kept == "unstored"


@pytest.mark.parametrize("ledger", [None, ledger_writer], ids=["none", "buffered"])
def test_a_recorder_whose_writer_does_not_wait_refuses_to_commit_before_any_work_is_done(
    ledger: Callable[[Config], Writer] | None,
) -> None:
    recorder = Recorder(MeterProvider(shutdown_on_exit=False), writer=ledger(Config()) if ledger else None)
    reason = r"does not wait for the ledger.*; use ledger_writer\(config, waits=True\)"
    for commit in (partial(committed, recorder), recorder.committed, recorder.asynchronous.committed):
        with pytest.raises(OtelQueueError, match=reason):
            commit()


def test_a_handler_does_not_run_once_its_recorder_has_a_writer_that_does_not_wait() -> None:
    """As after a fork, when the child makes another one."""
    recording = Recording()
    handle = committed(recording.recorder)(lambda task: created(recording.recorder, "1"))
    recording.recorder.bind(MeterProvider(shutdown_on_exit=False), ledger_writer(Config()))
    with pytest.raises(OtelQueueError, match="BufferedWriter"):
        handle(Task("t"))
    assert recording.writer.batches == []


@pytest.mark.parametrize("answer", ["queued", "dropped"])
def test_a_grouped_task_is_acknowledged_wherever_its_records_are(answer: Literal["queued", "dropped"]) -> None:
    recorder = Recording(writer=ListWriter(answer)).recorder
    assert grouped(recorder)(lambda task: created(recorder, "1"))(Task("t")) == "grouped"


def test_the_handlers_own_error_is_the_one_that_is_raised() -> None:
    recorder = Recording(writer=ListWriter("queued")).recorder

    def handle() -> None:
        with recorder.committed():
            created(recorder, "1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        handle()


def test_a_committed_block_inside_another_makes_that_one_committed() -> None:
    recorder = Recording(writer=ListWriter("queued")).recorder

    def handle() -> None:
        with recorder.grouped():
            tell_and_commit(recorder)
            created(recorder, "2")

    with pytest.raises(WriteError, match="2 records"):
        handle()


def test_a_child_forked_inside_a_committed_block_does_not_answer_for_its_parents_records() -> None:
    recorder = Recording(writer=ListWriter("queued")).recorder
    child = -1

    def handle() -> None:
        nonlocal child
        with recorder.committed():
            created(recorder, "1")
            child = os.fork()

    raised: list[WriteError] = []
    try:
        handle()
    except WriteError as error:
        raised.append(error)
    if child == 0:
        os._exit(len(raised))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(raised) == 1


@pytest.mark.parametrize("is_awaited", [False, True], ids=["plain", "awaited"])
def test_a_task_whose_records_did_not_arrive_fails_and_is_measured_as_a_failure(is_awaited: bool) -> None:
    recording = Recording(writer=ListWriter("queued"))

    def deliver(task: Task) -> None:
        assert task.report_status("success") == "grouped"

    async def deliver_awaited(task: Task) -> None:
        deliver(task)

    around = compose(recorded(recording.recorder), committed(recording.recorder))
    task = Task("t", queue="q", id="d", headers={PROJECT: "p"})
    with pytest.raises(WriteError):
        asyncio.run(around(deliver_awaited)(task)) if is_awaited else around(deliver)(task)
    assert recording.sums("asynq_task_outcomes_total") == {of(queue="q", task_type="t", outcome="failure"): 1}
