"""Payloads as Convoy writes them: those of the demo, and by hand what the demo does not send."""

import base64
import contextlib
import json
from typing import Any

import msgpack  # type: ignore[import-untyped]  # ships no types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_queue.asynq.payload import PayloadError, PayloadLabels, read_payload
from otel_queue.lifecycle import UNTOLD

SNAPSHOT = {"uid": "d", "project_id": "p", "event_id": "e", "endpoint_id": "E", "event_type": "t", "cli_metadata": None}
DELIVERY = {"EventDeliveryID": "d", "ProjectID": "p", "Snapshot": SNAPSHOT}
EVENT = {"uid": "e", "project_id": "p", "source_id": "S", "event_type": "t", "is_duplicate_event": False}
PARAMETERS = {"uid": "e", "project_id": "p", "source_id": "", "endpoint_id": "E", "event_type": "t", "data": "eyJ9"}

CASES = {
    "a delivery": (DELIVERY, PayloadLabels("p", UNTOLD, "E", "t", "e", "d")),
    "a delivery without Snapshot": (
        {**DELIVERY, "Snapshot": None},
        PayloadLabels("p", UNTOLD, UNTOLD, UNTOLD, "", "d"),
    ),
    "a delivery that never had a Snapshot": (
        {"EventDeliveryID": "d", "ProjectID": "p"},
        PayloadLabels("p", UNTOLD, UNTOLD, UNTOLD, "", "d"),
    ),
    "a delivery to the CLI": (
        {**DELIVERY, "Snapshot": {**SNAPSHOT, "endpoint_id": "", "cli_metadata": {"source_id": "S"}}},
        PayloadLabels("p", "S", None, "t", "e", "d"),
    ),
    "an event by its parameters": (
        {"jid": "single:p:e", "Params": PARAMETERS, "Event": None, "CreateSubscription": False},
        PayloadLabels("p", None, UNTOLD, "t", "e", ""),
    ),
    "an event as a row": (
        {"jid": "replay:p:e", "Params": {"uid": ""}, "Event": EVENT},
        PayloadLabels("p", "S", UNTOLD, "t", "e", ""),
    ),
    "an event to match": (
        {"Event": EVENT, "Config": {"Channel": "default"}},
        PayloadLabels("p", "S", UNTOLD, "t", "e", ""),
    ),
    "a broadcast": (
        {"jid": "broadcast:p:e", "event_id": "e", "event_type": "t", "project_id": "p", "source_id": "S"},
        PayloadLabels("p", "S", UNTOLD, "t", "e", ""),
    ),
    "a dynamic event": (
        {"jid": "dynamic:p:e", "event_id": "e", "url": "u", "project_id": "p", "event_type": "t"},
        PayloadLabels("p", UNTOLD, UNTOLD, "t", "e", ""),
    ),
    "a meta event": ({"MetaEventID": "m", "ProjectID": "p"}, PayloadLabels("p")),
}


def packed(fields: Any) -> bytes:
    data: bytes = msgpack.packb(fields)
    return data


def enveloped(payload: bytes) -> bytes:
    inside = {"tc": {"traceparent": "00-1-2-01"}, "p": base64.b64encode(payload).decode()}
    return b"\x01" + json.dumps(inside).encode()


@pytest.mark.parametrize("name", CASES)
def test_every_form_says_the_same_in_msgpack_and_json_and_in_the_envelope(name: str) -> None:
    fields, expected = CASES[name]
    for payload in (packed(fields), json.dumps(fields).encode()):
        assert read_payload(payload) == expected
        assert read_payload(enveloped(payload)) == expected


def test_times_binary_text_and_a_map_with_many_keys_are_read() -> None:
    fields: dict[str, Any] = {f"key{number}": number for number in range(20)}
    fields |= {"EventDeliveryID": b"d", "ProjectID": "p", "at": msgpack.Timestamp(1, 2), "ext": msgpack.ExtType(5, b"")}
    assert read_payload(packed(fields)) == PayloadLabels("p", delivery_id="d")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x01",
        b"\x01{}",
        b'\x01{"p": "%%%"}',
        b'\x01{"p": "%e30="}',
        b"\x01" + json.dumps({"p": base64.b64encode(b"\x01{}").decode()}).encode(),
        b"hello",
        b"[1]",
        b"7",
        packed([1, 2]),
        packed(DELIVERY)[:-3],
        packed(DELIVERY) + b"\x00",
        b"\x81" * 10_000,
        b"[" * 100_000,
        b'{"project_id": 5}',
    ],
)
def test_a_payload_of_another_form_is_an_error_of_one_kind(payload: bytes) -> None:
    with pytest.raises(PayloadError) as raised:
        read_payload(payload)
    assert raised.value.reason == "bad_payload"


def test_a_value_that_is_no_text_is_told_by_its_type() -> None:
    with pytest.raises(PayloadError, match="int where text was expected"):
        read_payload(b'{"project_id": 5}')


def test_a_huge_payload_is_not_read() -> None:
    with pytest.raises(PayloadError) as raised:
        read_payload(b"{" + b" " * (4 << 20) + b"}")
    assert raised.value.reason == "payload_too_large"


def test_without_msgpack_json_is_read_and_the_rest_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "msgpack", None)
    assert read_payload(json.dumps(DELIVERY).encode()).project == "p"
    with pytest.raises(PayloadError) as raised:
        read_payload(packed(DELIVERY))
    assert raised.value.reason == "no_msgpack"


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: b"\x01" + tail))
def test_no_bytes_raise_anything_else(payload: bytes) -> None:
    with contextlib.suppress(PayloadError):
        assert isinstance(read_payload(payload), PayloadLabels)
