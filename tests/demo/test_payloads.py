import msgpack  # type: ignore[import-untyped]  # ships no types
import pytest

from otel_queue.demo import payloads
from otel_queue.demo.tenants import Delivery, Endpoint, Event

EVENT = Event("E1", "P1", "S1", "invoice.paid", 42, acknowledged_at=1_700_000_000.5)
DELIVERY = Delivery("D1", "P1", "E1", "N1", "invoice.paid", 1_700_000_000.5, 4, 5)
ENDPOINT = Endpoint("N1", "B1", "https://a.example", ("invoice.paid",))


def test_untagged_structs_travel_under_their_go_names() -> None:
    assert payloads.meta_event("m1", "p1") == b"\x82\xabMetaEventID\xa2m1\xa9ProjectID\xa2p1"


def test_times_are_the_timestamp_extension_and_bodies_are_binary() -> None:
    fields = payloads.decode(payloads.create_event(EVENT))
    params = fields["Params"]
    assert fields["jid"] == "single:P1:E1"
    assert params["acknowledged_at"] == msgpack.Timestamp(1_700_000_000, 500_000_000)
    assert params["data"] == b'{"id": "E1", "type": "invoice.paid", "amount": 42}'
    assert (params["uid"], params["project_id"], params["source_id"]) == ("E1", "P1", "S1")


def test_a_first_delivery_carries_a_snapshot_without_source_and_creation_time() -> None:
    fields = payloads.decode(payloads.deliver(DELIVERY, ENDPOINT))
    snapshot = fields["Snapshot"]
    assert (fields["EventDeliveryID"], fields["ProjectID"]) == ("D1", "P1")
    assert (snapshot["endpoint_id"], snapshot["event_type"], snapshot["status"]) == (
        "N1",
        "invoice.paid",
        "Scheduled",
    )
    assert snapshot["acknowledged_at"] == b"2023-11-14T22:13:20.500000Z"
    assert not {"source_id", "created_at"} & set(snapshot)


def test_a_batch_retry_sends_no_snapshot() -> None:
    assert payloads.decode(payloads.deliver(DELIVERY, None))["Snapshot"] is None


@pytest.mark.parametrize("channel", ["default", "broadcast"])
def test_a_match_carries_the_stored_event_and_its_channel(channel: str) -> None:
    fields = payloads.decode(payloads.match_subscriptions(EVENT, channel))
    assert fields["Config"]["Channel"] == channel
    assert (fields["Event"]["uid"], fields["Event"]["source_id"]) == ("E1", "S1")
