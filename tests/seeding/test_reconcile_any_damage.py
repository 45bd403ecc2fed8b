"""Random rows and random damage: one run, and the ledger says what the database says."""

import random
from typing import Any

import pytest

from otel_queue.lifecycle import STATUSES, DeliveryCreated, EventCreated, Record, StatusSet
from tests.ledger.ledgers import Ledger, contents, now_us, ulid
from tests.postgres.gateway import Gateway
from tests.seeding.reconciles import reconcile
from tests.seeding.seeds import assert_agree, seed
from tests.seeding.tables import MINUTE_US, Tables, fill
from tests.servers.redis import RedisServer

SIZE = 60
LABELS = (None, "E1", "E7", "")


def damage_rows(gateway: Gateway, made: Tables, chance: random.Random) -> None:
    """What was changed, deleted or added and never recorded, and when is not always told."""
    # A marked row would still be a known group of the database's, and a row without its time has no age there.
    gateway.execute(
        "DELETE FROM convoy.event_deliveries WHERE deleted_at IS NOT NULL;"
        " UPDATE convoy.event_deliveries SET created_at = updated_at WHERE created_at IS NULL"
    )
    for id_, project, _ in chance.sample(made.deliveries, SIZE // 2):
        change = chance.choice(
            (
                "UPDATE convoy.event_deliveries SET status = 'Processing' WHERE id = %s AND project_id = %s",
                "UPDATE convoy.event_deliveries SET status = 'Retry', updated_at = now() - interval '1 minute'"
                " WHERE id = %s AND project_id = %s",
                "UPDATE convoy.event_deliveries SET endpoint_id = 'E9' WHERE id = %s AND project_id = %s",
                "UPDATE convoy.event_deliveries SET created_at = created_at + interval '1.000007 s'"
                " WHERE id = %s AND project_id = %s",
                "UPDATE convoy.event_deliveries SET created_at = created_at - interval '1.000007 s'"
                " WHERE id = %s AND project_id = %s",
                "DELETE FROM convoy.event_deliveries WHERE id = %s AND project_id = %s",
            )
        )
        gateway.execute(change, id_, project)
    gateway.execute(
        "UPDATE convoy.events SET source_id = 'S9' WHERE id = ANY(%s)",
        [id_ for id_, _ in chance.sample(made.events, 5)],
    )
    # No delivery may be left whose event is gone: the ledger knows its source, and the database does not.
    gateway.execute(
        "DELETE FROM convoy.events e WHERE NOT EXISTS (SELECT FROM convoy.event_deliveries d WHERE d.event_id = e.id)"
    )


def damage_ledger(ledger: Ledger, client: Any, made: Tables, chance: random.Random) -> None:
    """Keys, fields and ids that were lost, counts that are off, records of nobody knows what."""
    patterns = ("oq:{*}:*:2*", "oq:{*}:undated", "oq:{*}:*:undated:*")
    keys = sorted({key for pattern in patterns for key in client.keys(pattern)})
    for key in chance.sample(keys, min(len(keys), 12)):
        if b":processing:" in key or key.endswith(b"}:undated") or (b":counts:" in key and chance.random() < 0.3):
            client.delete(key)
        elif b":counts:" in key:
            client.hincrby(key, chance.choice(client.hkeys(key)), chance.choice((-1, 1, 5)))
        elif b":attempt-ids:" not in key:
            client.hdel(key, chance.choice(client.hkeys(key)))
    client.zrem("oq:projects", chance.choice(("P", "Q")))
    records: list[Record] = []
    for id_, project, created_us in chance.sample(made.deliveries, 15):
        at_us = created_us + chance.randrange(-5, 5) * MINUTE_US
        status, endpoint = chance.choice(STATUSES), chance.choice(LABELS)
        records.append(StatusSet(project, id_, status, at_us, endpoint, created_us=at_us))
        records.append(DeliveryCreated(project, id_, at_us, endpoint, chance.choice(LABELS), created_us=at_us))
    for number in range(5):
        at_us = now_us() - chance.randrange(20, 3_000) * MINUTE_US
        records.append(StatusSet("P", ulid(at_us, number), chance.choice(STATUSES), at_us, "E1", "t", "S1"))
        records.append(EventCreated("no events", ulid(at_us, number), at_us, "S1"))
    ledger.write(*records)


@pytest.mark.parametrize("number", range(8))
def test_a_ledger_with_any_damage_says_what_the_database_says(
    any_gateway: Gateway, ledger: Ledger, redis_server: RedisServer, number: int
) -> None:
    chance = random.Random(number)
    made = fill(any_gateway, number, SIZE, days=3)
    if chance.random() < 0.7:
        seed(any_gateway, ledger.url)
    else:
        any_gateway.execute("DELETE FROM convoy.delivery_attempts")
    damage_rows(any_gateway, made, chance)
    with redis_server.client() as client:
        damage_ledger(ledger, client, made, chance)
        report = reconcile(any_gateway, ledger.url)
        assert report.found
        assert report.is_clean
        assert not report.moving
        assert_agree(ledger, any_gateway)
        assert ledger.differences() == []
        for held in contents(client).values():
            held.assert_adds_up()
    assert not reconcile(any_gateway, ledger.url).found
