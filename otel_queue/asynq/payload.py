"""What Convoy's task payloads tell of an event or delivery: msgpack or JSON, with and without Snapshot.

Fields have Convoy's names, which are Go's where its structs have no JSON tag. In front of a payload may stand the
envelope that earlier releases put around it for the trace context: a byte 0x01, then JSON with the payload in
base64 under `p`.
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from otel_queue.errors import OtelQueueError
from otel_queue.lifecycle import UNTOLD, Label

MOST_BYTES: Final = 4 << 20

_ENVELOPE: Final = 0x01
_FIXED_MAP: Final = range(0x80, 0x90)
_LONGER_MAPS: Final = (0xDE, 0xDF)


class PayloadError(OtelQueueError):
    """The payload tells nothing. `reason`: bad_payload, payload_too_large, or no_msgpack where that is missing."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class PayloadLabels:
    """What a payload says; ids that it does not name are "", labels UNTOLD. Blank is NULL in the database."""

    project: str = ""
    source: Label = UNTOLD
    endpoint: Label = UNTOLD
    event_type: Label = UNTOLD
    event_id: str = ""
    delivery_id: str = ""


def read_payload(payload: bytes) -> PayloadLabels:
    """The labels in a task's payload; raises PayloadError when it is none of Convoy's forms."""
    if len(payload) > MOST_BYTES:
        raise PayloadError("payload_too_large", f"payload of {len(payload)} bytes, more than {MOST_BYTES}")
    try:
        return _labels(_decoded(_unwrapped(payload)))
    except PayloadError:
        raise
    # Decoders raise a good many things for bytes that are not theirs, RecursionError among them.
    except Exception as error:
        raise PayloadError("bad_payload", f"payload cannot be read: {type(error).__name__}: {error}") from error


def _unwrapped(payload: bytes) -> bytes:
    if payload[:1] != bytes((_ENVELOPE,)):
        return payload
    return base64.b64decode(json.loads(payload[1:])["p"], validate=True)


def _decoded(payload: bytes) -> Mapping[str, Any]:
    first = payload[0] if payload else None
    if first is not None and (first in _FIXED_MAP or first in _LONGER_MAPS):
        fields = _unpack()(payload, strict_map_key=False, unicode_errors="replace")
    else:
        fields = json.loads(payload)
    if not isinstance(fields, dict):
        raise PayloadError("bad_payload", f"payload is {type(fields).__name__}, not a map")
    return fields


def _unpack() -> Callable[..., Any]:
    try:
        import msgpack  # type: ignore[import-untyped]  # ships no types
    except ImportError as error:
        raise PayloadError("no_msgpack", "the payload is msgpack, and the package msgpack is missing") from error
    unpack: Callable[..., Any] = msgpack.unpackb
    return unpack


def _labels(fields: Mapping[str, Any]) -> PayloadLabels:
    if "EventDeliveryID" in fields:
        return _delivery(fields)
    event, parameters = _map(fields.get("Event")), _map(fields.get("Params"))
    if event or parameters:
        return _event(event, parameters)
    return PayloadLabels(
        project=_id(fields, "project_id") or _id(fields, "ProjectID"),
        source=_label(fields, "source_id"),
        event_type=_label(fields, "event_type"),
        event_id=_id(fields, "event_id"),
    )


def _delivery(fields: Mapping[str, Any]) -> PayloadLabels:
    """EventProcessor and RetryEventProcessor. The source is not in it, but for a delivery to the CLI."""
    snapshot = _map(fields.get("Snapshot"))
    return PayloadLabels(
        project=_id(fields, "ProjectID") or _id(snapshot, "project_id"),
        source=_label(_map(snapshot.get("cli_metadata")), "source_id"),
        endpoint=_label(snapshot, "endpoint_id"),
        event_type=_label(snapshot, "event_type"),
        event_id=_id(snapshot, "event_id"),
        delivery_id=_id(fields, "EventDeliveryID"),
    )


def _event(event: Mapping[str, Any], parameters: Mapping[str, Any]) -> PayloadLabels:
    """Creating an event, from its parameters or as a row, and matching one. Its endpoints are its deliveries'."""
    told = event or parameters
    return PayloadLabels(
        project=_id(told, "project_id"),
        source=_label(told, "source_id"),
        event_type=_label(told, "event_type"),
        event_id=_id(told, "uid"),
    )


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _id(fields: Mapping[str, Any], name: str) -> str:
    return _text(fields.get(name)) or ""


def _label(fields: Mapping[str, Any], name: str) -> Label:
    return (_text(fields[name]) or None) if name in fields else UNTOLD


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if value is None or isinstance(value, str):
        return value and value.strip()
    raise PayloadError("bad_payload", f"{type(value).__name__} where text was expected")
