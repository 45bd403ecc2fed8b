"""Convoy's tasks: their names, their queues, and their msgpack payloads.

Names, queues and keys are those of Convoy 26.7 (Go field names where its structs carry no JSON tag). Convoy's
encoder also writes every empty field; here most are left out. The tasks of DefaultQueue and StreamQueue are
not modelled.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]  # ships no types

from otel_queue.demo.tenants import Delivery, Endpoint, Event

CREATE_EVENT_QUEUE: Final = "CreateEventQueue"
EVENT_WORKFLOW_QUEUE: Final = "EventWorkflowQueue"
EVENT_QUEUE: Final = "EventQueue"
RETRY_EVENT_QUEUE: Final = "RetryEventQueue"
BATCH_RETRY_QUEUE: Final = "BatchRetryQueue"
META_EVENT_QUEUE: Final = "MetaEventQueue"
SCHEDULE_QUEUE: Final = "ScheduleQueue"
DEFAULT_QUEUE: Final = "DefaultQueue"

CREATE_EVENT: Final = "CreateEventProcessor"
CREATE_BROADCAST_EVENT: Final = "CreateBroadcastEventProcessor"
MATCH_SUBSCRIPTIONS: Final = "MatchEventSubscriptionsProcessor"
DELIVER: Final = "EventProcessor"
RETRY_DELIVERY: Final = "RetryEventProcessor"
BATCH_RETRY: Final = "BatchRetryProcessor"
META_EVENT: Final = "MetaEventProcessor"
DELETE_ARCHIVED: Final = "DeleteArchivedTasksProcessor"

# The nightly cleanup leaves RetryEventQueue and BatchRetryQueue out, as Convoy's does.
CLEANED_QUEUES: Final = (
    EVENT_QUEUE,
    CREATE_EVENT_QUEUE,
    SCHEDULE_QUEUE,
    DEFAULT_QUEUE,
    META_EVENT_QUEUE,
    EVENT_WORKFLOW_QUEUE,
)


def decode(payload: bytes) -> dict[str, Any]:
    """The fields of a payload; times are `msgpack.Timestamp`."""
    fields: dict[str, Any] = msgpack.unpackb(payload)
    return fields


def create_event(event: Event) -> bytes:
    """CreateEventProcessor for one event from the API (by its parameters) or a source (as an event)."""
    fields: dict[str, Any] = {
        "jid": f"single:{event.project_id}:{event.id}",
        "Params": None,
        "Event": None,
        "CreateSubscription": False,
    }
    if event.source_id:
        fields["Event"] = _event(event)
    fields["Params"] = {
        "uid": event.id,
        "project_id": event.project_id,
        "owner_id": "",
        "app_id": "",
        "endpoint_id": "",
        "source_id": event.source_id,
        "data": _body(event),
        "event_type": event.type,
        "custom_headers": None,
        "idempotency_key": event.idempotency_key,
        "acknowledged_at": _time(event.acknowledged_at),
    }
    return _encode(fields)


def create_broadcast_event(event: Event) -> bytes:
    """CreateBroadcastEventProcessor: one event for every endpoint of its project."""
    return _encode(
        {
            "jid": f"broadcast:{event.project_id}:{event.id}",
            "event_id": event.id,
            "event_type": event.type,
            "project_id": event.project_id,
            "source_id": event.source_id,
            "data": _body(event),
            "custom_headers": None,
            "idempotency_key": event.idempotency_key,
            "acknowledged_at": _time(event.acknowledged_at),
        }
    )


def match_subscriptions(event: Event, channel: str) -> bytes:
    """MatchEventSubscriptionsProcessor: the event as stored, and the channel it came by."""
    return _encode({"Event": _event(event), "Config": {"Channel": channel, "DefaultDelay": 10 * 10**9}})


def deliver(delivery: Delivery, endpoint: Endpoint | None) -> bytes:
    """EventProcessor and RetryEventProcessor; a batch retry sends no snapshot, so it names no endpoint."""
    snapshot = None
    if endpoint is not None:
        snapshot = {
            "uid": delivery.id,
            "project_id": delivery.project_id,
            "event_id": delivery.event_id,
            "endpoint_id": delivery.endpoint_id,
            "subscription_id": endpoint.subscription_id,
            "headers": None,
            "target_url": endpoint.url,
            "event_type": delivery.event_type,
            "delivery_mode": endpoint.delivery_mode,
            "status": "Scheduled",
            "metadata": {
                "data": b"{}",
                "raw": "",
                "strategy": "linear",
                "num_trials": 0,
                "interval_seconds": delivery.interval_seconds,
                "retry_limit": delivery.retry_limit,
            },
            "cli_metadata": None,
            "acknowledged_at": _null_time(delivery.acknowledged_at),
        }
    return _encode({"EventDeliveryID": delivery.id, "ProjectID": delivery.project_id, "Snapshot": snapshot})


def batch_retry(batch_id: str, project_id: str, total: int, now: float) -> bytes:
    """BatchRetryProcessor: try the failed deliveries of a project again."""
    return _encode(
        {
            "uid": batch_id,
            "project_id": project_id,
            "status": "pending",
            "total_events": total,
            "processed_events": 0,
            "failed_events": 0,
            "error": "",
            "filter": {"ProjectID": project_id, "Status": ["Failure"]},
            "created_at": _time(now),
            "updated_at": _time(now),
            "completed_at": b"",
        }
    )


def meta_event(meta_event_id: str, project_id: str) -> bytes:
    """MetaEventProcessor: tell a project's owner what became of a delivery."""
    return _encode({"MetaEventID": meta_event_id, "ProjectID": project_id})


def _event(event: Event) -> dict[str, Any]:
    return {
        "uid": event.id,
        "event_type": event.type,
        "source_id": event.source_id,
        "project_id": event.project_id,
        "endpoints": None,
        "headers": {"X-Demo": ["otel-queue"]},
        "url_query_params": "",
        "url_path": "",
        "idempotency_key": event.idempotency_key,
        "is_duplicate_event": False,
        "data": _body(event),
        "raw": _body(event).decode(),
        "status": "Pending",
        "acknowledged_at": _null_time(event.acknowledged_at),
    }


def _body(event: Event) -> bytes:
    return json.dumps({"id": event.id, "type": event.type, "amount": event.amount}).encode()


def _encode(fields: Mapping[str, Any]) -> bytes:
    encoded: bytes = msgpack.packb(fields)
    return encoded


def _time(seconds: float) -> msgpack.Timestamp:
    """Go's time.Time, which its encoder writes as the timestamp extension."""
    return msgpack.Timestamp.from_unix_nano(int(seconds * 1e6) * 1000)


def _null_time(seconds: float) -> bytes:
    """A nullable time, which marshals itself to RFC 3339 text."""
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()
