"""Payloads and headers of tasks: whatever is in them, the task runs, and what they do not tell is counted."""

import base64
import json
from typing import Any

import msgpack  # type: ignore[import-untyped]  # ships no types
import pytest
from hypothesis import strategies as st

from otel_queue import lifecycle
from otel_queue.asynq.payload import MOST_BYTES, PayloadError, PayloadLabels, read_payload
from otel_queue.ledger.batches import calls
from otel_queue.ledger.keys import Keys
from otel_queue.middleware import ENDPOINT, ENQUEUED_AT, EVENT_TYPE, PROJECT, SOURCE, Task, enqueue, recorded
from otel_queue.redis_client import pack
from tests.fuzz.budget import EXAMPLES, PAYLOADS, counted, fuzzed, seeded
from tests.fuzz.mutation import mutate, random_bytes
from tests.fuzz.odd import any_json, any_text, any_value
from tests.recorder.reading import ListWriter, Recording

pytestmark = pytest.mark.timeout(900)

EVENT = {"project_id": "P", "source_id": "S", "event_type": "t", "uid": "e1"}
FIELDS: list[dict[str, Any]] = [
    {"EventDeliveryID": "d1", "ProjectID": "P", "Snapshot": {"endpoint_id": "E", "cli_metadata": {"source_id": "S"}}},
    {"Event": EVENT},
    {"Params": EVENT},
    {"event_id": "e1", "ProjectID": "P", "source_id": None},
]


def enveloped(payload: bytes) -> bytes:
    return b"\x01" + json.dumps({"p": base64.b64encode(payload).decode()}).encode()


WHOLE = [
    *(msgpack.packb(fields) for fields in FIELDS),
    *(json.dumps(fields).encode() for fields in FIELDS),
    *(enveloped(json.dumps(fields).encode()) for fields in FIELDS),
]
NAMES = ("EventDeliveryID", "ProjectID", "Snapshot", "Event", "Params", "project_id", "source_id", "event_type", "uid")


def checked(payload: bytes) -> PayloadLabels | None:
    """What it tells, each part of it a text or not told; None if it is refused for a known reason."""
    told, reason = None, ""
    try:
        told = read_payload(payload)
    except PayloadError as error:
        reason = error.reason
    if told is None:
        assert reason in ("bad_payload", "payload_too_large")
        return None
    assert all(type(text) is str for text in (told.project, told.event_id, told.delivery_id))
    labels = (told.source, told.endpoint, told.event_type)
    assert all(label is None or label is lifecycle.UNTOLD or type(label) is str for label in labels)
    assert all(label != "" for label in labels), "a blank label is NULL"
    return told


def test_a_damaged_payload_is_read_or_refused() -> None:
    chance = seeded("payloads")
    assert None not in map(checked, WHOLE)
    refused = 0
    for _ in counted(PAYLOADS, "payloads"):
        payload = mutate(chance.choice(WHOLE), chance) if chance.random() < 0.9 else random_bytes(chance)
        refused += checked(payload) is None
    assert refused


@fuzzed(EXAMPLES, fields=st.dictionaries(st.sampled_from(NAMES), any_json, max_size=6))
def test_fields_of_any_type_are_read_or_refused(fields: dict[str, Any]) -> None:
    text = json.dumps(fields).encode()
    told = checked(text)
    assert told == checked(enveloped(text))


@pytest.mark.parametrize("nested", [b"[" * 100_000, b"\x81" * 100_000, b"\x91" * 100_000, b'{"a":' * 100_000])
def test_a_deep_payload_is_refused(nested: bytes) -> None:
    assert checked(nested) is None
    assert checked(b"\x81\xa1a" + nested) is None


def test_a_length_that_is_told_and_not_sent_costs_nothing() -> None:
    for head in (b"\xdf\xff\xff\xff\xff", b"\x81\xdb\xff\xff\xff\xff", b"\x81\xa1a\xdd\xff\xff\xff\xff"):
        assert checked(head) is None
    assert checked(b" " * (MOST_BYTES + 1)) is None


def packed_for_redis(records: list[lifecycle.Record]) -> int:
    """How many records the ledger is sent; raises for one that it cannot be sent."""
    found = list(calls(records, Keys()))
    for call in found:
        pack("EVALSHA", *call.keys, *call.arguments)
    return sum(call.records for call in found)


HEADER_NAMES = st.sampled_from([PROJECT, SOURCE, ENDPOINT, EVENT_TYPE, ENQUEUED_AT, "traceparent", "baggage", ""])


@fuzzed(
    EXAMPLES,
    headers=st.dictionaries(HEADER_NAMES, any_value, max_size=6),
    payload=st.one_of(st.sampled_from(WHOLE), st.binary(max_size=30)),
    status=any_value,
    id_=any_value,
    http_status=any_value,
    seconds=any_value,
)
def test_a_task_with_headers_of_any_type_runs_and_each_report_is_written_or_counted(
    headers: dict[str, Any], payload: bytes, status: Any, id_: Any, http_status: Any, seconds: Any
) -> None:
    writer = ListWriter()
    recording = Recording(writer=writer)
    kept: list[str] = []

    @recorded(recording.recorder)
    def handle(task: Task) -> str:
        kept.append(task.report_status(status, delivery_id=id_, time_us=None))
        kept.append(task.report_status("success"))
        kept.append(task.report_attempt(http_status, attempt_id=id_, duration_seconds=seconds))
        return "done"

    assert handle(Task("T", payload, queue="Q", headers=headers, id="d0")) == "done"
    assert set(kept) <= {"written", "missed"}
    assert packed_for_redis(writer.records) == kept.count("written")
    assert sum(recording.misses().values()) >= kept.count("missed")


@fuzzed(
    EXAMPLES // 2,
    headers=st.dictionaries(HEADER_NAMES, any_value, max_size=4),
    labels=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("project", "source", "endpoint", "event_type"), any_value)
    ),
)
def test_a_task_is_sent_once_with_labels_of_any_type(headers: dict[str, Any], labels: dict[str, Any]) -> None:
    recording = Recording()
    sent: list[Task] = []
    assert enqueue(recording.recorder, sent.append, Task("T", queue="Q", headers=headers), **labels) is None
    [task] = sent
    assert task.headers[ENQUEUED_AT].isdigit()
    for name, header in (("source", SOURCE), ("endpoint", ENDPOINT), ("event_type", EVENT_TYPE)):
        if isinstance(labels.get(name), str):
            assert len(task.headers[header]) <= 256
            task.headers[header].encode()


RECORDS = {
    "event_created": ("project", "event_id", "source", "time_us"),
    "delivery_created": ("project", "delivery_id", "endpoint", "event_type", "source", "status", "created_us"),
    "status_set": ("project", "delivery_id", "status", "endpoint", "time_us"),
    "attempt_made": ("project", "attempt_id", "succeeded", "endpoint", "http_status", "duration_seconds", "time_us"),
    "project_described": ("project", "project_name", "organisation_id", "time_us"),
    "day_expired": ("project", "day"),
}
MOST_LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "succeeded": st.booleans(), "status": st.just("success"), "day": st.just("20261124"), "http_status": st.just(200),
    "duration_seconds": st.just(0.5), "time_us": st.just(1_790_000_000_000_000),
    "created_us": st.just(1_790_000_000_000_000),
}  # fmt: skip


@fuzzed(
    EXAMPLES,
    told=st.sampled_from(sorted(RECORDS)).flatmap(
        lambda name: st.tuples(
            st.just(name),
            st.fixed_dictionaries(
                {each: st.one_of(MOST_LIKELY.get(each, any_text), MOST_LIKELY.get(each, any_text), any_value)
                 for each in RECORDS[name]}
            ),
        )
    ),
)  # fmt: skip
def test_a_hook_that_tells_anything_is_kept_or_counted_and_never_raises(told: tuple[str, dict[str, Any]]) -> None:
    writer = ListWriter()
    recording = Recording(writer=writer)
    name, fields = told
    kept = getattr(recording.recorder, name)(**fields)
    assert kept in ("written", "missed")
    assert packed_for_redis(writer.records) == (kept == "written")
    assert sum(recording.misses().values()) >= (kept == "missed")
