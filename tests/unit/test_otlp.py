"""Push against collectors that answer, refuse, break and never answer."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource

from otel_queue.catalog import CATALOG
from otel_queue.export.instruments import meter_provider
from otel_queue.export.otlp import Collection, OtlpPush, ticks
from otel_queue.samples import Family
from otel_queue.status import LaneState, RecentError
from tests.unit.locks import WatchedLock, waits_for

LONG = 30.0
SIZE = Family("asynq_queue_size", [(("q",), 7.0)], 0.0, "test")


class Collector:
    """An OTLP/HTTP endpoint that keeps what it is sent; `status` is what it answers, `hold` makes it hang."""

    def __init__(self) -> None:
        self.received: list[ExportMetricsServiceRequest] = []
        self.arrived = threading.Event()
        self.status = 200
        self.hold = threading.Event()
        self.hold.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.received.append(ExportMetricsServiceRequest.FromString(body))
                collector.arrived.set()
                collector.hold.wait(LONG)
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/metrics"


@contextmanager
def collector() -> Iterator[Collector]:
    running = Collector()
    thread = threading.Thread(target=running.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield running
    finally:
        running.hold.set()
        running.server.shutdown()
        running.server.server_close()
        thread.join()


def push_to(exporter: MetricExporter, interval: float = LONG, collection: Collection = nullcontext) -> OtlpPush:
    push = OtlpPush(exporter, interval_seconds=interval, collection=collection, target="test")
    meter_provider([CATALOG[SIZE.name]], {SIZE.name: SIZE}.get, [push.reader], Resource({}), {})
    return push


def told_here(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What this thread logged of its pushes; one of an earlier test may still be ending."""
    here = threading.get_ident()
    return [each.getMessage() for each in caplog.records if each.name.startswith("otel_queue") and each.thread == here]


def test_a_push_carries_names_keys_and_values() -> None:
    with collector() as there:
        push = push_to(OTLPMetricExporter(endpoint=there.url))
        push.push()
        [metric] = there.received[0].resource_metrics[0].scope_metrics[0].metrics
        [point] = metric.gauge.data_points
        assert (metric.name, metric.unit, point.as_double) == ("asynq_queue_size", "{task}", 7.0)
        assert [(item.key, item.value.string_value) for item in point.attributes] == [("queue", "q")]
        assert push.state().up is True
        assert push.shutdown(LONG) is True


def test_the_first_push_comes_at_once_and_the_last_one_at_shutdown() -> None:
    with collector() as there:
        push = push_to(OTLPMetricExporter(endpoint=there.url))
        push.start()
        assert there.arrived.wait(LONG)
        assert push.shutdown(LONG) is True
        assert len(there.received) == 2


def test_before_the_first_push_nothing_is_known_but_where_it_goes() -> None:
    assert push_to(Broken()).state() == LaneState("otlp", None, None, None, None, {}, None, source="test")


def test_a_push_that_arrives_says_when_it_did_and_how_long_it_took(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with collector() as there:
        push = push_to(OTLPMetricExporter(endpoint=there.url))
        before, began = time.time(), time.monotonic()
        push.push()
        state, after, passed = push.state(), time.time(), time.monotonic() - began
        push.shutdown(LONG)
    assert (state.errors, state.last_error, state.recent) == ({}, None, ())
    assert before <= (state.last_success or 0.0) <= after
    assert state.duration_seconds
    assert state.age_seconds
    assert 0.0 < state.duration_seconds + state.age_seconds <= passed
    assert told_here(caplog) == ["lane otlp: pushing to test"]


def test_a_push_that_fails_is_among_the_recent_errors_with_its_words_and_times() -> None:
    push = push_to(Broken())
    before = time.time()
    push.push()
    push.push()
    [error] = push.state().recent
    assert error == RecentError("otlp", "export", "RuntimeError: a bug", error.first, error.last, 2)
    assert before <= error.first <= error.last <= time.time()
    assert push.state().last_success is None


def test_a_refused_push_is_an_error_that_shows_and_the_next_one_recovers(caplog: pytest.LogCaptureFixture) -> None:
    with collector() as there:
        push = push_to(OTLPMetricExporter(endpoint=there.url))
        there.status = 400
        push.push()
        push.push()
        assert (push.state().up, push.state().errors) == (False, {"export": 2})
        assert push.state().last_error == "test did not accept the export; the log says why"
        there.status = 200
        push.push()
        assert push.state().up is True
        push.shutdown(LONG)
    assert told_here(caplog) == ["lane otlp: failing: test did not accept the export; the log says why"]


class Broken(MetricExporter):
    """Raises at every export, as an exporter with a bug would."""

    def __init__(self) -> None:
        super().__init__()
        self.exported = threading.Semaphore(0)

    def export(self, *_: Any, **__: Any) -> Any:
        self.exported.release()
        raise RuntimeError("a bug")

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None: ...


def test_no_exception_ends_the_export_thread() -> None:
    exporter = Broken()
    push = push_to(exporter, interval=0.001)
    push.start()
    for _ in range(3):
        assert exporter.exported.acquire(timeout=LONG)
    push.shutdown(LONG)
    state = push.state()
    assert state.up is False
    assert state.last_error == "RuntimeError: a bug"


class Hanging(Broken):
    """Comes back neither from an export nor from its shutdown before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Event()

    def export(self, *_: Any, **__: Any) -> Any:
        self.exported.release()
        self.may_go_on.wait()

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        self.may_go_on.wait()


def test_hanging_threads_have_names_and_delay_neither_shutdown_nor_the_end_of_the_process() -> None:
    exporter, before = Hanging(), set(threading.enumerate())
    push = push_to(exporter)
    push.start()
    assert exporter.exported.acquire(timeout=LONG)
    assert push.shutdown(0.0) is False
    hanging = set(threading.enumerate()) - before
    exporter.may_go_on.set()
    for thread in hanging:
        thread.join(LONG)
    assert {thread.name: thread.daemon for thread in hanging} == {
        "otel-queue-otlp": True,
        "otel-queue-otlp-last": True,
        "otel-queue-otlp-close": True,
    }


def test_the_exporter_gets_the_timeouts_and_options_that_the_sdk_gives() -> None:
    told: list[Any] = []

    class Told(Broken):
        def export(self, metrics_data: MetricsData, timeout_millis: float = 0, **others: Any) -> MetricExportResult:
            told.append((timeout_millis, others))
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis: float = 0) -> bool:
            told.append(timeout_millis)
            return False

        def shutdown(self, timeout_millis: float = 0, **others: Any) -> None:
            told.append((timeout_millis, others))

    watched = push_to(Told())._exporter
    watched.export(MetricsData([]), 5.0, more=1)
    assert watched.force_flush(6.0) is False
    watched.shutdown(7.0, more=2)
    assert told == [(5.0, {"more": 1}), 6.0, (7.0, {"more": 2})]


def test_an_exception_out_of_a_collection_is_counted_and_ends_nothing() -> None:
    def no_collection(_: float | None) -> AbstractContextManager[None]:
        raise ValueError("no lanes")

    push = OtlpPush(Broken(), interval_seconds=LONG, collection=no_collection, target="test")
    push.push()
    assert push.state().errors == {"export": 1}


def test_a_push_that_sends_nothing_has_not_arrived() -> None:
    push = OtlpPush(Broken(), interval_seconds=LONG, collection=nullcontext, target="test")
    assert push.push() is False  # no provider has its reader
    assert push.state().last_error == "test did not accept the export; the log says why"


def test_shutdown_gives_up_on_a_collector_that_never_answers() -> None:
    with collector() as there:
        there.hold.clear()
        push = push_to(OTLPMetricExporter(endpoint=there.url))
        push.start()
        assert there.arrived.wait(LONG)
        # Were it not bounded, this would take the exporter's own ten seconds and the test would see an arrival.
        assert push.shutdown(0.5) is False


@pytest.mark.parametrize("last", [200, 400])
def test_shutdown_says_whether_the_last_push_arrived_whatever_became_of_those_before(last: int) -> None:
    with collector() as there:
        push = push_to(OTLPMetricExporter(endpoint=there.url))
        there.status = 600 - last
        push.push()
        there.status = last
        assert push.shutdown(LONG) is (last == 200)
        assert push.state().up is (last == 200)


def test_a_push_that_is_late_sends_nothing_after_the_last_one() -> None:
    with collector() as there:
        reading, go = threading.Event(), threading.Event()

        @contextmanager
        def collection(budget: float | None) -> Iterator[None]:
            if budget is None:  # the ticker's own: it waits for a lane that hangs
                reading.set()
                assert go.wait(LONG)
            yield

        push = push_to(OTLPMetricExporter(endpoint=there.url), collection=collection)
        push.start()
        assert reading.wait(LONG)
        assert push.shutdown(LONG) is True
        go.set()
        push._thread.join(LONG)
        assert len(there.received) == 1
        assert push.state().errors == {}


def test_the_last_push_reads_for_half_of_its_time() -> None:
    budgets: list[float | None] = []

    @contextmanager
    def collection(budget: float | None) -> Iterator[None]:
        budgets.append(budget)
        yield

    push = push_to(Broken(), collection=collection)
    push.push()
    push.shutdown(8.0)
    assert budgets == [None, 4.0]


def test_two_pushes_at_a_time_each_have_their_own_outcome() -> None:
    """The second goes wrong while the first is under way, and neither takes the other's outcome for its own."""
    first, second = threading.Event(), threading.Event()

    class Exporter(Broken):
        def export(self, *_: Any, **__: Any) -> Any:
            if threading.current_thread().name == "first":
                return MetricExportResult.SUCCESS
            raise RuntimeError("a bug")

    @contextmanager
    def collection(_: float | None) -> Iterator[None]:
        yield

    push = push_to(Exporter(), collection=collection)
    collect = push.reader.collect

    def collects(*arguments: Any) -> None:
        collect(*arguments)
        if threading.current_thread().name == "first":
            first.set()
            assert second.wait(LONG)

    push.reader.collect = collects  # type: ignore[misc, assignment]
    outcomes: dict[str, bool] = {}
    thread = threading.Thread(target=lambda: outcomes.update(first=push.push()), name="first")
    thread.start()
    assert first.wait(LONG)
    outcomes["second"] = push.push()
    second.set()
    thread.join(LONG)
    assert outcomes == {"first": True, "second": False}


def ticked(interval: float, took: list[float]) -> list[float]:
    """How long the ticker waits before each push, if these take so long; the last wait ends it."""
    clock, waits = [0.0], []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        clock[0] += seconds
        return len(waits) > len(took)

    for _, seconds in zip(ticks(interval, wait, lambda: clock[0]), took, strict=False):
        clock[0] += seconds
    return waits


def test_a_push_comes_at_once_and_then_every_interval_however_long_it_takes() -> None:
    assert ticked(10.0, [1.0, 3.0, 0.0]) == [0.0, 9.0, 7.0, 10.0]


def test_a_push_that_took_longer_than_its_interval_skips_the_ticks_it_missed() -> None:
    assert ticked(10.0, [35.0, 1.0, 1.0]) == [0.0, 0.0, 9.0, 9.0]


def test_the_state_is_not_looked_at_while_a_push_settles() -> None:
    push = push_to(Broken())
    for call in (push.state, push.push):
        lock = push._lock = WatchedLock()  # type: ignore[assignment]
        assert waits_for(lock, call)
