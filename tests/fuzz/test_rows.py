"""Rows with odd texts in a real PostgreSQL: they come as they are stored, and add up to what the rules say."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import strategies as st

from otel_queue.ledger.batches import calls
from otel_queue.ledger.keys import Keys
from otel_queue.lifecycle import DeliveryCreated, EventCreated, Record
from otel_queue.postgres.database import Database
from otel_queue.postgres.dsn import Dsn
from otel_queue.postgres.generation import Generation, decode, encode
from otel_queue.postgres.rows import Rows
from otel_queue.redis_client import pack
from tests.export.ways_out import CLASSIC, own_text, parsed
from tests.fuzz.budget import ROWS, fuzzed
from tests.fuzz.odd import unicode_text
from tests.ledger.oracle import printable, three_digits
from tests.postgres.gateway import ATTEMPTS, DELIVERIES, EVENTS, Gateway, samples

pytestmark = pytest.mark.timeout(900)

# All but NUL and halves of surrogate pairs, which the database refuses itself; an index has no room for the longest.
stored = unicode_text.map(lambda text: text.replace("\0", "")[:2_000])
maybe = st.one_of(st.none(), stored)
identifier = stored.filter(bool).map(lambda text: text[:500])
# What is in processing by another name has no age that anybody knows, which is counted and no fault of a text.
status = st.one_of(st.sampled_from(["Success", "Processing", "RETRY", "Unheard of"]), stored).filter(
    lambda text: text == "Processing" or printable(text).lower() != "processing"
)
event = st.tuples(identifier, stored, maybe)
delivery = st.tuples(identifier, identifier, status, maybe, maybe)
attempt = st.tuples(identifier, stored, maybe, st.booleans())
NAMES = ("Proj", "O", "Org")


def fill(gateway: Gateway, events: list[Any], deliveries: list[Any], attempts: list[Any]) -> None:
    for table in ("events", "event_deliveries", "delivery_attempts"):
        gateway.execute(f"DELETE FROM convoy.{table}")
    gateway.execute_many(
        "INSERT INTO convoy.events (id, event_type, source_id, project_id) VALUES (%s, %s, %s, 'P')", events
    )
    gateway.execute_many(
        "INSERT INTO convoy.event_deliveries (id, event_id, status, endpoint_id, event_type, project_id)"
        " VALUES (%s, %s, %s, %s, %s, 'P')",
        deliveries,
    )
    gateway.execute_many(
        "INSERT INTO convoy.delivery_attempts (id, endpoint_id, http_status, status, project_id, event_delivery_id)"
        " VALUES (%s, %s, %s, %s, 'P', 'd')",
        attempts,
    )


def source_of(source: str | None) -> str:
    return printable(source or "") or "http"


@fuzzed(
    ROWS,
    events=st.lists(event, max_size=4, unique_by=lambda row: row[0]),
    deliveries=st.lists(delivery, max_size=4, unique_by=lambda row: row[0]),
    attempts=st.lists(attempt, max_size=4, unique_by=lambda row: row[0]),
)
def test_odd_texts_in_rows_add_up_by_the_rules_and_can_be_exported(
    gateway: Gateway, events: list[Any], deliveries: list[Any], attempts: list[Any]
) -> None:
    fill(gateway, events, deliveries, attempts)
    families = gateway.families("corrected")
    by_source = Counter(("P", source_of(source), "success") for _, _, source in events)
    assert samples(families, EVENTS) == by_source
    sources = {id_: source_of(source) for id_, _, source in events}
    name, organisation, organisation_name = NAMES
    assert samples(families, DELIVERIES) == Counter(
        ("P", name, printable(endpoint or ""), printable(told).lower(), printable(event_type or ""),
         sources.get(event_id, "unknown"), organisation, organisation_name)
        for _, event_id, told, endpoint, event_type in deliveries
    )  # fmt: skip
    assert samples(families, ATTEMPTS) == Counter(
        ("P", printable(endpoint), "success" if succeeded else "failure", three_digits(http_status))
        for _, endpoint, http_status, succeeded in attempts
    )
    generation = Generation(1e9, tuple(families.values()))
    assert decode(encode(generation)) == generation
    for reckoning in ("corrected", "legacy"):
        found = gateway.read(reckoning).families
        series = parsed(own_text(CLASSIC, *found))
        for family in found:
            assert len(series.get(family.name, {})) == len(family.samples)


@fuzzed(
    ROWS // 2,
    events=st.lists(event, max_size=3, unique_by=lambda row: row[0]),
    deliveries=st.lists(delivery, max_size=3, unique_by=lambda row: row[0]),
)
def test_rows_with_odd_texts_come_as_they_are_stored_and_can_be_sent_to_the_ledger(
    gateway: Gateway, events: list[Any], deliveries: list[Any]
) -> None:
    fill(gateway, events, deliveries, [])
    rows = Rows(Database(Dsn(gateway.dsn), statement_timeout_seconds=30.0), slice_rows=2, batch_rows=2)
    found = [row for batch in rows.undated_events() for row in batch.rows]
    assert sorted((row.id, row.source or None) for row in found) == sorted(
        (id_, source or None) for id_, _, source in events
    )
    told = [row for batch in rows.undated_deliveries() for row in batch.rows]
    kept = sorted((row.id, row.status, str(row.endpoint), str(row.event_type)) for row in told)
    assert kept == sorted((id_, text, str(endpoint), str(kind)) for id_, _, text, endpoint, kind in deliveries)
    assert rows.existing_deliveries([row.id for row in told]) == {row.id for row in told}
    records: list[Record] = [EventCreated(row.project, row.id, row.created_us or 0, row.source) for row in found]
    records += [
        DeliveryCreated(row.project, row.id, row.updated_us, row.endpoint, row.event_type, row.source) for row in told
    ]
    sent = list(calls(records, Keys()))
    assert sum(call.records for call in sent) == len(events) + len(deliveries)
    for call in sent:
        pack("EVALSHA", *call.keys, *call.arguments)
