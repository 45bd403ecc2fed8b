import asyncio
import functools
import os
import threading
import time
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from otel_queue.lifecycle import UNTOLD, AttemptMade, StatusSet
from otel_queue.middleware import (
    ENDPOINT,
    ENQUEUED_AT,
    PROJECT,
    SOURCE,
    Handler,
    Middleware,
    Task,
    compose,
    current_task,
    enqueue,
    enqueue_async,
    grouped,
    recorded,
)
from tests.recorder.reading import Recording, of

OUTCOMES = "asynq_task_outcomes_total"
IN_PROGRESS = "asynq_tasks_in_progress"
DURATION = "asynq_task_process_duration_seconds"
WAIT = "asynq_task_wait_seconds"
HEADERS = {PROJECT: "p", ENDPOINT: "E", SOURCE: ""}


def task(**fields: Any) -> Task:
    return Task("EventProcessor", queue="EventQueue", **fields)


def outcomes(recording: Recording) -> dict[str, float]:
    return {dict(labels)["outcome"]: value for labels, value in recording.sums(OUTCOMES).items()}


def test_the_first_middleware_is_outermost_and_the_result_passes_through() -> None:
    order: list[str] = []

    def noting(name: str) -> Middleware:
        def middleware(handler: Handler) -> Handler:
            def handle(task: Task) -> Any:
                order.append(f"{name} in")
                result = handler(task)
                order.append(f"{name} out")
                return result

            return handle

        return middleware

    assert compose(noting("a"), noting("b"))(lambda task: task.type)(Task("t")) == "t"
    assert order == ["a in", "b in", "b out", "a out"]
    assert compose()(len)([1]) == 1  # type: ignore[arg-type]


def test_a_run_is_counted_by_queue_type_and_outcome_with_its_duration() -> None:
    recording = Recording()
    handle = recorded(recording.recorder)(lambda task: None)
    handle(task())
    handle(task())
    labels = of(queue="EventQueue", task_type="EventProcessor", outcome="success")
    assert recording.sums(OUTCOMES) == {labels: 2}
    assert recording.histograms(DURATION)[labels].count == 2


def test_a_handler_that_raises_has_failed_and_its_exception_passes() -> None:
    recording = Recording()

    def fail(task: Task) -> None:
        raise ZeroDivisionError("oops")

    with pytest.raises(ZeroDivisionError, match="oops"):
        recorded(recording.recorder)(fail)(task())
    assert outcomes(recording) == {"failure": 1}


def test_a_handler_in_progress_is_seen_and_gone_when_it_ends() -> None:
    recording = Recording()
    seen = []
    recorded(recording.recorder)(lambda _: seen.append(recording.sums(IN_PROGRESS)))(task())
    labels = of(queue="EventQueue", task_type="EventProcessor")
    assert seen == [{labels: 1}]
    assert recording.sums(IN_PROGRESS) == {labels: 0}


async def plain(task: Task) -> str:
    await asyncio.sleep(0)
    current = current_task()
    assert current is task
    return task.type


class Awaited:
    async def __call__(self, task: Task) -> str:
        return await plain(task)


@pytest.mark.parametrize("handler", [plain, Awaited(), functools.partial(plain)], ids=["function", "object", "partial"])
def test_an_asynchronous_handler_is_recorded_until_it_has_ended(handler: Handler) -> None:
    recording = Recording()
    handle = compose(recorded(recording.recorder), grouped(recording.recorder))(handler)
    assert asyncio.run(handle(task())) == "EventProcessor"
    assert outcomes(recording) == {"success": 1}


def test_a_cancelled_handler_has_neither_succeeded_nor_failed() -> None:
    recording = Recording()

    async def wait(task: Task) -> None:
        await asyncio.Event().wait()

    async def run() -> None:
        running = asyncio.create_task(recorded(recording.recorder)(wait)(task()))
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())
    assert outcomes(recording) == {"cancelled": 1}
    assert list(recording.sums(IN_PROGRESS).values()) == [0]


def test_tasks_that_run_at_once_know_themselves() -> None:
    recording = Recording()

    async def report(task: Task) -> None:
        await asyncio.sleep(0)
        current = current_task()
        assert current is not None
        current.report_attempt(200, attempt_id=task.id)

    handle = recorded(recording.recorder)(report)

    async def run() -> None:
        await asyncio.gather(*(handle(task(id=name, headers={PROJECT: name})) for name in ("a", "b", "c")))

    asyncio.run(run())
    assert [(record.project, record.attempt_id) for record in recording.writer.records] == [  # type: ignore[union-attr]
        ("a", "a"),
        ("b", "b"),
        ("c", "c"),
    ]
    assert current_task() is None


def test_a_handler_that_swallows_its_error_reports_it() -> None:
    recording = Recording()

    def deliver(task: Task) -> None:
        task.report_status("Processing")
        task.report_attempt("503 Service Unavailable", attempt_id="a", duration_seconds=0.1)
        task.report_status("Retry", delivery_id="d")

    recorded(recording.recorder)(deliver)(task(id="task", headers=HEADERS))
    first, attempt, last = recording.writer.records
    assert isinstance(attempt, AttemptMade)
    assert (attempt.project, attempt.endpoint, attempt.succeeded, attempt.http_status) == (
        "p",
        "E",
        False,
        "503 Service Unavailable",
    )
    assert isinstance(first, StatusSet)
    assert isinstance(last, StatusSet)
    assert (first.delivery_id, first.status, last.delivery_id, last.status) == ("task", "processing", "d", "retry")
    assert (last.source, last.endpoint, last.event_type) == (None, "E", UNTOLD)
    assert outcomes(recording) == {"failure": 1}


@pytest.mark.parametrize(
    ("http_status", "succeeded"), [(200, True), ("204 No Content", True), (301, False), (None, False), ("x", False)]
)
def test_an_attempt_succeeds_by_2xx(http_status: str | int | None, succeeded: bool) -> None:
    recording = Recording()
    recorded(recording.recorder)(lambda task: task.report_attempt(http_status))(task(headers=HEADERS))
    (record,) = recording.writer.records
    assert isinstance(record, AttemptMade)
    assert record.succeeded is succeeded


def test_attempts_without_an_id_count_one_each() -> None:
    recording = Recording()

    def deliver(task: Task) -> None:
        task.report_attempt(500)
        task.report_attempt(200)

    recorded(recording.recorder)(deliver)(task(headers=HEADERS))
    assert len({record.attempt_id for record in recording.writer.records if isinstance(record, AttemptMade)}) == 2
    assert outcomes(recording) == {"success": 1}


def test_reports_outside_of_the_middleware_go_nowhere() -> None:
    assert task().report_attempt(200) == "unstored"
    assert task().report_status("Success") == "unstored"
    assert current_task() is None


def test_grouped_writes_a_tasks_records_together_before_the_handler_returns() -> None:
    recording = Recording()

    def deliver(task: Task) -> None:
        task.report_status("Processing")
        task.report_attempt(200)
        task.report_status("Success")

    def acknowledging(handler: Handler) -> Handler:
        def handle(task: Task) -> None:
            handler(task)
            acknowledged.append(len(recording.writer.records))

        return handle

    acknowledged: list[int] = []
    stack = compose(acknowledging, recorded(recording.recorder), grouped(recording.recorder))
    stack(deliver)(task(id="d", headers=HEADERS))
    assert [len(batch) for batch in recording.writer.batches] == [3]
    assert acknowledged == [3]


def test_the_wait_is_from_enqueueing_to_the_first_start() -> None:
    recording = Recording()
    handle = recorded(recording.recorder)(lambda task: None)
    headers = {ENQUEUED_AT: str(time.time_ns() // 1_000 - 3_000_000)}
    handle(task(headers=headers))
    handle(task(headers=headers, retried=1))
    (point,) = recording.histograms(WAIT).values()
    assert point.count == 1
    assert point.sum >= 3.0


@pytest.mark.parametrize("told", ["", "soon", "1700000000", "-1700000000000000", "\u0661" * 16, 1_700_000_000_000_000])
def test_a_bad_time_of_enqueueing_is_a_miss(told: Any) -> None:
    recording = Recording()
    recorded(recording.recorder)(lambda task: None)(task(headers={ENQUEUED_AT: told}))
    assert recording.misses() == {"bad_header": 1}
    assert recording.histograms(WAIT) == {}


def test_a_child_forked_by_a_handler_does_not_end_its_parents_run() -> None:
    recording = Recording()
    reading, writing = os.pipe()
    children = []

    def fork(task: Task) -> None:
        child = os.fork()
        if child:
            children.append(child)

    recorded(recording.recorder)(fork)(task())
    if not children:
        # Only what is pending is looked at: the SDK's own locks are the parent's here.
        pending = recording.recorder._in_progress._pending | recording.recorder._outcomes._pending
        os.write(writing, repr(pending).encode())
        os._exit(0)
    os.waitpid(children[0], 0)
    assert os.read(reading, 1000) == b"{}"
    assert list(recording.sums(IN_PROGRESS).values()) == [0]


def test_enqueue_writes_headers_that_the_middleware_reads() -> None:
    recording = Recording()
    sent: list[Task] = []
    before = task(id="d", headers={"mine": "kept"})
    enqueue(recording.recorder, sent.append, before, project="p", source=None, endpoint="E", event_type="line\nbreak")
    (after,) = sent
    assert before.headers == {"mine": "kept"}
    assert abs(int(after.headers.pop(ENQUEUED_AT)) - time.time_ns() // 1_000) < 60_000_000
    assert after.headers == {
        "mine": "kept",
        "oq-project": "p",
        "oq-source": "",
        "oq-endpoint": "E",
        "oq-event-type": "line?break",
    }
    recorded(recording.recorder)(lambda task: task.report_status("Scheduled"))(after)
    (record,) = recording.writer.records
    assert isinstance(record, StatusSet)
    assert (record.source, record.endpoint) == (None, "E")


def test_what_is_not_told_keeps_its_header_when_a_task_is_handed_on() -> None:
    recording = Recording()
    handed_on = enqueue(recording.recorder, lambda task: task, task(headers={**HEADERS, ENQUEUED_AT: "1"}))
    assert handed_on.headers[PROJECT] == "p"
    assert handed_on.headers[ENQUEUED_AT] != "1"


def test_enqueueing_is_counted_only_when_it_succeeds() -> None:
    recording = Recording()

    def refuse(task: Task) -> None:
        raise ConnectionError("refused")

    with pytest.raises(ConnectionError):
        enqueue(recording.recorder, refuse, task())
    assert recording.sums("asynq_tasks_sent_total") == {}

    async def send(task: Task) -> str:
        return "accepted"

    assert asyncio.run(enqueue_async(recording.recorder, send, task())) == "accepted"
    assert recording.sums("asynq_tasks_sent_total") == {of(queue="EventQueue", task_type="EventProcessor"): 1}


def test_a_label_that_is_none_is_a_miss_and_the_task_is_sent() -> None:
    recording = Recording()
    sent = enqueue(recording.recorder, lambda task: task, task(), project="p", endpoint=5)  # type: ignore[arg-type]
    assert PROJECT in sent.headers
    assert ENDPOINT not in sent.headers
    assert recording.misses() == {"bad_label": 1}


def test_the_senders_span_is_the_parent_of_the_handlers() -> None:
    recording = Recording()
    span = NonRecordingSpan(SpanContext(0xA1, 0xB2, is_remote=False, trace_flags=TraceFlags(1)))
    with trace.use_span(span):
        sent = enqueue(recording.recorder, lambda task: task, task())
    seen: list[int] = []
    recorded(recording.recorder)(lambda _: seen.append(trace.get_current_span().get_span_context().span_id))(sent)
    assert seen == [0xB2]
    assert trace.get_current_span(context.get_current()).get_span_context().span_id == 0


def test_handlers_in_threads_do_not_see_each_others_task() -> None:
    recording = Recording()
    seen: dict[str, str] = {}
    both = threading.Barrier(2, timeout=10)

    def note(task: Task) -> None:
        both.wait()
        current = current_task()
        assert current is not None
        seen[task.id] = current.id

    handle = recorded(recording.recorder)(note)
    threads = [threading.Thread(target=handle, args=(task(id=name),)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert seen == {"a": "a", "b": "b"}
