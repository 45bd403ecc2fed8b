"""What a task's payload tells beside its headers, and what it costs when it cannot be read."""

import json

import pytest

from otel_queue.asynq.payload import MOST_BYTES, PayloadLabels
from otel_queue.lifecycle import UNTOLD, AttemptMade, StatusSet
from otel_queue.middleware import (
    ENDPOINT,
    EVENT_TYPE,
    PROJECT,
    SOURCE,
    Task,
    enqueue,
    recorded,
)
from tests.recorder.reading import Recording
from tests.recorder.test_middleware import HEADERS, task


def test_without_headers_the_payload_tells_labels_and_delivery() -> None:
    recording = Recording()
    snapshot = {"event_id": "e", "endpoint_id": "E", "event_type": "t"}
    payload = json.dumps({"EventDeliveryID": "d", "ProjectID": "p", "Snapshot": snapshot}).encode()
    recorded(recording.recorder)(lambda task: task.report_status("Success"))(task(id="other", payload=payload))
    (record,) = recording.writer.records
    assert isinstance(record, StatusSet)
    assert (record.project, record.delivery_id, record.endpoint, record.event_type, record.source) == (
        "p",
        "d",
        "E",
        "t",
        UNTOLD,
    )


SNAPSHOT = {"event_id": "e", "endpoint_id": "other", "event_type": "t"}
PAYLOAD = json.dumps({"EventDeliveryID": "d", "ProjectID": "other", "Snapshot": SNAPSHOT}).encode()


def test_with_headers_the_payload_tells_the_delivery_and_what_no_header_does() -> None:
    recording = Recording()

    def deliver(task: Task) -> None:
        task.report_status("Success")
        task.report_attempt(200)

    recorded(recording.recorder)(deliver)(task(id="task", headers=HEADERS, payload=PAYLOAD))
    recorded(recording.recorder)(deliver)(task(id="task", headers={PROJECT: "p"}, payload=PAYLOAD))
    status, attempt, bare_status, bare_attempt = recording.writer.records
    assert isinstance(status, StatusSet)
    assert (status.project, status.delivery_id) == ("p", "d")
    assert (status.endpoint, status.event_type, status.source) == ("E", "t", None)
    assert isinstance(attempt, AttemptMade)
    assert (attempt.project, attempt.endpoint) == ("p", "E")
    assert isinstance(bare_status, StatusSet)
    assert (bare_status.project, bare_status.delivery_id, bare_status.endpoint) == ("p", "d", "other")
    assert isinstance(bare_attempt, AttemptMade)
    assert (bare_attempt.project, bare_attempt.endpoint) == ("p", "other")


def test_a_stamped_task_of_the_gateway_sets_the_status_of_its_delivery() -> None:
    recording = Recording()
    sent: list[Task] = []
    before = task(id="single:p:x", payload=PAYLOAD)
    enqueue(recording.recorder, sent.append, before, project="p", endpoint="E", source="s", event_type="t")
    recorded(recording.recorder)(lambda task: task.report_status("Success"))(sent[0])
    (record,) = recording.writer.records
    assert isinstance(record, StatusSet)
    assert record.delivery_id == "d"


@pytest.mark.parametrize("payload", [b"", b"\xff\xfe", b"[]", b'{"mine": 1}'])
def test_with_headers_a_payload_may_be_anybodys_and_the_task_is_the_delivery(payload: bytes) -> None:
    recording = Recording()
    handle = recorded(recording.recorder)(lambda task: task.report_status("Success"))
    handle(task(id="task", headers=HEADERS, payload=payload))
    (record,) = recording.writer.records
    assert isinstance(record, StatusSet)
    assert (record.project, record.delivery_id, record.endpoint) == ("p", "task", "E")
    assert recording.misses() == {}


def test_with_headers_a_payload_that_is_too_large_to_be_read_is_counted() -> None:
    recording = Recording()
    handle = recorded(recording.recorder)(lambda task: task.report_status("Success"))
    handle(task(id="task", headers=HEADERS, payload=bytes(MOST_BYTES + 1)))
    assert recording.misses() == {"payload_too_large": 1}


def test_what_headers_and_handler_tell_is_not_read_from_the_payload(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(payload: bytes) -> PayloadLabels:
        raise AssertionError(f"{payload!r} was read")

    monkeypatch.setattr("otel_queue.middleware.task.read_payload", refuse)
    recording = Recording()

    def deliver(task: Task) -> None:
        task.report_attempt(200)
        task.report_status("Success", delivery_id="d")

    headers = {PROJECT: "p", ENDPOINT: "E", SOURCE: "s", EVENT_TYPE: ""}
    recorded(recording.recorder)(deliver)(task(headers=headers, payload=PAYLOAD))
    assert len(recording.writer.records) == 2


def test_an_unreadable_payload_costs_one_counted_miss_and_never_the_task() -> None:
    recording = Recording()

    def deliver(task: Task) -> str:
        task.report_attempt(200)
        task.report_status("Success")
        return "done"

    assert recorded(recording.recorder)(deliver)(task(payload=b"\xff\xfe")) == "done"
    assert recording.misses() == {"bad_payload": 1, "bad_project": 2}
    assert recording.writer.records == []


def test_a_payload_that_nobody_asks_about_is_not_read() -> None:
    recording = Recording()
    recorded(recording.recorder)(lambda task: None)(task(payload=b"\xff\xfe"))
    assert recording.misses() == {}
