import datetime
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_queue.errors import OtelQueueError
from otel_queue.lifecycle import (
    UNTOLD,
    AttemptMade,
    DayExpired,
    DeliveryCreated,
    EventCreated,
    ProjectDescribed,
    StatusSet,
)
from otel_queue.recorder import Recorder
from otel_queue.recorder.recorder import _MOST_CODES
from otel_queue.worker import ledger_writer
from tests.recorder.reading import ListWriter, Recording, of, sums

AT = 1_700_000_000_000_000


def test_each_method_makes_its_record_and_says_what_became_of_it() -> None:
    recording = Recording()
    recorder = recording.recorder
    kept = [
        recorder.event_created(project="p", event_id="e", source=None, time_us=AT),
        recorder.delivery_created(project="p", delivery_id="d", endpoint="E", created_us=AT - 1, time_us=AT),
        recorder.status_set(project="p", delivery_id="d", status="Success", event_type="t", time_us=AT),
        recorder.attempt_made(
            project="p", attempt_id="a", succeeded=False, endpoint="E", http_status="503 Busy", time_us=AT
        ),
        recorder.project_described(project="p", project_name="Shop", organisation_id="o", time_us=AT),
        recorder.day_expired(project="p", day="20240229"),
    ]
    assert kept == ["written"] * 6
    assert recording.writer.records == [
        EventCreated("p", "e", AT, None),
        DeliveryCreated("p", "d", AT, "E", UNTOLD, UNTOLD, "scheduled", AT - 1),
        StatusSet("p", "d", "success", AT, UNTOLD, "t", UNTOLD, None),
        AttemptMade("p", "a", AT, "E", False, "503 Busy"),
        ProjectDescribed("p", AT, "Shop", "o", ""),
        DayExpired("p", "20240229"),
    ]


def test_a_record_without_a_time_is_of_now() -> None:
    writer = ListWriter()
    recorder = Recorder(MeterProvider(shutdown_on_exit=False), writer=writer, now_us=lambda: AT)
    recorder.event_created(project="p", event_id="e")
    recorder.attempt_made(project="p", attempt_id="a", succeeded=True)
    assert writer.records == [EventCreated("p", "e", AT, UNTOLD), AttemptMade("p", "a", AT, UNTOLD, True, None)]


@pytest.mark.parametrize(
    ("reason", "call"),
    [
        ("bad_project", lambda r: r.event_created(project="", event_id="e")),
        ("bad_project", lambda r: r.event_created(project=7, event_id="e")),
        ("bad_project", lambda r: r.ingest("\ud800")),
        ("bad_id", lambda r: r.delivery_created(project="p", delivery_id="x" * 513)),
        ("bad_id", lambda r: r.attempt_made(project="p", attempt_id=None, succeeded=True)),
        ("bad_status", lambda r: r.status_set(project="p", delivery_id="d", status="sent")),
        ("bad_status", lambda r: r.delivery_created(project="p", delivery_id="d", status=3)),
        ("bad_label", lambda r: r.event_created(project="p", event_id="e", source=5)),
        ("bad_label", lambda r: r.ingest("p", ["s"])),
        ("bad_label", lambda r: r.attempt_made(project="p", attempt_id="a", succeeded=True, endpoint=b"E")),
        ("bad_label", lambda r: r.project_described(project="p", project_name=None)),
        ("bad_time", lambda r: r.event_created(project="p", event_id="e", time_us=AT / 1e6)),
        ("bad_time", lambda r: r.event_created(project="p", event_id="e", time_us=AT // 1_000_000)),
        ("bad_time", lambda r: r.status_set(project="p", delivery_id="d", status="retry", time_us=AT * 1_000)),
        ("bad_time", lambda r: r.attempt_made(project="p", attempt_id="a", succeeded=True, time_us=0)),
        ("bad_time", lambda r: r.delivery_created(project="p", delivery_id="d", created_us=-1)),
        ("bad_time", lambda r: r.event_created(project="p", event_id="e", time_us=datetime.datetime.now())),
        ("bad_type", lambda r: r.attempt_made(project="p", attempt_id="a", succeeded="yes")),
        ("bad_type", lambda r: r.attempt_made(project="p", attempt_id="a", succeeded=True, http_status=2.0)),
        ("bad_day", lambda r: r.day_expired(project="p", day="20240230")),
        ("bad_day", lambda r: r.day_expired(project="p", day="2024-2-3")),
        ("bad_duration", lambda r: r.end_to_end("p", "E", float("nan"))),
        ("bad_duration", lambda r: r.end_to_end("p", "E", "1")),
    ],
)
def test_bad_input_is_a_counted_miss_and_records_nothing(reason: str, call: Callable[[Any], object]) -> None:
    recording = Recording()
    assert call(recording.recorder) in ("missed", None)
    assert recording.misses() == {reason: 1}
    assert recording.writer.records == []
    assert recording.sums("convoy_event_delivery_attempts_total") == {}


def test_a_bad_duration_costs_the_duration_and_not_the_attempt() -> None:
    recording = Recording()
    recording.recorder.attempt_made(project="p", attempt_id="a", succeeded=True, duration_seconds=float("inf"))
    assert recording.misses() == {"bad_duration": 1}
    assert len(recording.writer.records) == 1
    assert sum(recording.sums("convoy_event_delivery_attempts_total").values()) == 1


def test_a_negative_duration_is_the_clocks_fault_so_it_counts_as_zero_and_is_told() -> None:
    recording = Recording()
    recording.recorder.end_to_end("p", "E", -0.2)
    (point,) = recording.histograms("convoy_end_to_end_latency").values()
    assert (point.count, point.sum) == (1, 0.0)
    assert recording.misses() == {"negative_duration": 1}


def test_a_writer_that_raises_is_a_miss_and_not_the_tasks_failure() -> None:
    class Broken(ListWriter):
        def write(self, records: object, waiting_since: float | None = None) -> Any:
            raise ZeroDivisionError("broken")

    recording = Recording(writer=Broken())
    assert recording.recorder.event_created(project="p", event_id="e") == "missed"
    assert recording.misses() == {"internal": 1}


@pytest.mark.parametrize("thing", [ledger_writer, [], "redis://127.0.0.1:6379"], ids=["function", "list", "text"])
def test_what_is_no_writer_is_refused_at_once(thing: Any) -> None:
    provider = MeterProvider(shutdown_on_exit=False)
    with pytest.raises(
        OtelQueueError, match=f"writer is a {type(thing).__name__}, .* give what otel_queue.ledger_writer"
    ):
        Recorder(provider, writer=thing)
    Recorder(provider)  # which was not taken meanwhile


def test_what_the_writer_could_not_write_is_an_error_of_the_ledger_lane() -> None:
    recording = Recording()
    recording.writer.failures["timeout"] = 2
    errors = of(lane="ledger", reason="timeout")
    assert recording.sums("otel_queue_errors_total")[errors] == 2
    recording.writer.failures["timeout"] = 3
    assert recording.sums("otel_queue_errors_total")[errors] == 3


def test_what_the_writer_says_of_a_record_is_passed_on() -> None:
    recording = Recording(writer=ListWriter("dropped"))
    assert recording.recorder.event_created(project="p", event_id="e") == "dropped"


def test_without_a_ledger_the_instruments_still_count() -> None:
    reader = InMemoryMetricReader()
    recorder = Recorder(MeterProvider(metric_readers=[reader], shutdown_on_exit=False))
    assert recorder.attempt_made(project="p", attempt_id="a", succeeded=True, http_status=204) == "unstored"
    assert recorder.event_created(project="p", event_id="e") == "unstored"
    assert sums(reader, "convoy_event_delivery_attempts_total") == {
        of(project="p", endpoint="unknown", status="success", http_status_code="204"): 1
    }


def test_status_texts_are_remembered_within_a_bound_and_counted_beyond_it() -> None:
    recording = Recording()
    texts = [f"{100 + number % 500} text {number}" for number in range(2_000)]
    for number, text in enumerate(texts):
        recording.recorder.attempt_made(project="p", attempt_id=str(number), succeeded=True, http_status=text)
    assert sum(recording.sums("convoy_event_delivery_attempts_total").values()) == len(texts)
    # No response is one of them.
    assert list(recording.recorder._codes) == [None, *texts[: _MOST_CODES - 1]]


def test_a_second_recorder_on_one_provider_is_refused_since_it_would_count_nothing() -> None:
    recording = Recording()
    with pytest.raises(OtelQueueError, match="has a Recorder already"):
        Recorder(recording.provider)
