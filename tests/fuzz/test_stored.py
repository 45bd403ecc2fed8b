"""What exporters leave each other in Redis: a generation, a lease, a journal. What is damaged is said to be."""

import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import redis
from hypothesis import strategies as st

from otel_queue.config import DOMAIN_METRICS, RedisConfig
from otel_queue.errors import ReadError
from otel_queue.postgres.generation import Generation, decode, encode
from otel_queue.postgres.store import GenerationStore
from otel_queue.redis_client import connect
from otel_queue.shadow import journal as journals
from otel_queue.shadow.entry import Entry
from otel_queue.shadow.families import shadow_families
from otel_queue.shadow.journal import Journal, Journaled
from otel_queue.shadow.tolerance import tolerance
from otel_queue.shadow.verdict import Gate, reasons_not_ready
from tests.export.ways_out import CLASSIC, own_text, parsed
from tests.fuzz.budget import EXAMPLES, STORED, counted, fuzzed, seeded
from tests.fuzz.mutation import mutate, random_bytes
from tests.fuzz.odd import any_json
from tests.postgres.exporters import example
from tests.servers.redis import RedisServer
from tests.shadow.sides import DELIVERIES, EVENTS
from tests.shadow.test_journal import entry

pytestmark = pytest.mark.timeout(900)

HEAD = b"oqg1\n"
WHOLE = encode(example())
ENTRY = journals.encode(entry())


def refusal(action: Callable[[], object]) -> ReadError | None:
    """The ReadError that it ends with, if it does; any other exception passes."""
    try:
        action()
    except ReadError as error:
        return error
    return None


def checked(packed: bytes) -> Generation | None:
    """A generation that can be exported, and kept again; None for one that is called broken."""
    found: list[Generation] = []
    refused = refusal(lambda: found.append(decode(packed)))
    if refused is not None:
        assert refused.reason == "broken_generation"
        return None
    [generation] = found
    assert decode(encode(generation)) == generation
    text = own_text(CLASSIC, *generation.families)
    assert text.count("\n") > 0
    text.encode()
    return generation


def test_damaged_json_in_a_generation_is_read_or_broken() -> None:
    chance = seeded("generations")
    text = zlib.decompress(WHOLE[len(HEAD) :])
    short = json.dumps({**json.loads(text), "families": [[EVENTS, 1.0, ["P"], ["S"], ["success"], [1]]]}).encode()
    outcomes = {"broken": 0, "read": 0}
    for _ in counted(STORED // 5, "generations"):
        changed = mutate(short, chance)
        outcomes["broken" if checked(HEAD + zlib.compress(changed)) is None else "read"] += 1
    assert all(outcomes.values()), outcomes


PATHS: list[list[Any]] = [
    ["time"], ["failures"], ["failures", "timeout"], ["families"], ["families", 0], ["families", 0, 0],
    ["families", 0, 1], ["families", 0, 2], ["families", 0, 2, 0], ["families", 0, 5], ["families", 0, 5, 0], [],
]  # fmt: skip


def replaced(document: Any, path: list[Any], value: Any) -> Any:
    """The document with something else at one place."""
    if not path:
        return value
    changed = dict(document) if isinstance(document, dict) else list(document)
    changed[path[0]] = replaced(changed[path[0]], path[1:], value)
    return changed


hard_json = st.one_of(any_json, st.sampled_from([10**400, -1, 2**63, "\ud800", "nan", True, "asynq_queue_size", 1e300]))


@fuzzed(EXAMPLES, path=st.sampled_from(PATHS), value=hard_json)
def test_a_generation_with_something_else_in_it_is_read_or_broken(path: list[Any], value: Any) -> None:
    document = json.loads(zlib.decompress(WHOLE[len(HEAD) :]))
    checked(HEAD + zlib.compress(json.dumps(replaced(document, path, value)).encode()))


def test_a_generation_of_numbers_without_end_is_broken() -> None:
    text = zlib.decompress(WHOLE[len(HEAD) :])
    for number in (b"1e400", b"-1e400", b"9" * 400, b"9" * 5_000, b"NaN", b'"nan"', b"true"):
        assert checked(HEAD + zlib.compress(text.replace(b"[0.0,", b"[" + number + b",", 1))) is None, number


def shown(found: Entry | None) -> None:
    """Everything that is made of an entry."""
    if found is None:
        return
    journaled = Journaled(1e9, {found.metric: found}, {}, {})
    families = shadow_families(journaled, DOMAIN_METRICS, max_age_seconds=1e18)
    parsed(own_text(CLASSIC, *families))
    rule = tolerance(found.metric)
    for text in reasons_not_ready(found, rule, Gate(86_400.0, 300, 1e18), 1e9 + 1):
        text.encode()
    assert journals.decode(found.metric, journals.encode(found)) == found


def entry_of(kept: bytes) -> Entry | None:
    found: list[Entry] = []
    refused = refusal(lambda: found.append(journals.decode(DELIVERIES, kept)))
    if refused is not None:
        assert refused.reason == "broken_journal"
        return None
    return found[0]


def test_a_damaged_entry_of_the_journal_is_read_or_broken() -> None:
    chance = seeded("journal")
    broken = 0
    for number in counted(STORED, "journal"):
        found = entry_of(mutate(ENTRY, chance) if chance.random() < 0.9 else random_bytes(chance))
        broken += found is None
        if number % 10 == 0:
            shown(found)
    assert broken


ENTRY_PATHS: list[list[Any]] = [
    *([name] for name in json.loads(ENTRY)), ["worst", 0], *(["worst", 0, place] for place in range(10)),
    ["worst", 0, 0, 0], ["missing", "ledger"], ["known", "k"],
]  # fmt: skip


@fuzzed(EXAMPLES, path=st.sampled_from(ENTRY_PATHS), value=hard_json)
def test_an_entry_with_something_else_in_it_is_read_or_broken(path: list[Any], value: Any) -> None:
    shown(entry_of(json.dumps(replaced(json.loads(ENTRY), path, value)).encode()))


REASONS = {"broken_generation", "error_reply", "protocol", "wrong_type", "bad_value", "lease_lost"}
LEASE_FIELDS = ("fence", "lease_until", "failed_at", "failure", "token", "time", "generation")


def test_a_lease_that_is_damaged_is_told_and_the_next_refresh_puts_it_right(redis_server: RedisServer) -> None:
    chance = seeded("lease")
    link = connect(RedisConfig(url=redis_server.url))
    healed = 0
    with redis_server.client() as client:
        for _ in counted(STORED // 30, "lease"):
            store = GenerationStore(link, "corrected", interval_seconds=60.0)
            client.delete(store.key)
            seen = store.look()
            assert seen.lease is not None
            store.keep(seen.lease, example())
            spoil(client, store.key, chance)
            if chance.random() < 0.5:
                store = GenerationStore(link, "corrected", interval_seconds=60.0)
            found: list[Any] = []
            refused = refusal(lambda found=found, store=store: found.append(store.look()))  # type: ignore[misc]
            assert refused is None or refused.reason in REASONS
            if not found:
                continue
            if found[0].failure is not None:
                assert found[0].failure.reason.isidentifier()
            if found[0].lease is not None:
                store.keep(found[0].lease, example())
                assert GenerationStore(link, "corrected").look().generation == example()
                healed += 1
    assert healed
    link.close()


def spoil(client: redis.Redis, key: bytes, chance: Any) -> None:
    if chance.random() < 0.05:
        client.delete(key)
        client.set(key, random_bytes(chance))
        return
    for field in chance.sample(LEASE_FIELDS, chance.randrange(1, 4)):
        held: Any = client.hget(key, field) or b"123"
        if chance.random() < 0.2:
            client.hdel(key, field)
        else:
            client.hset(key, field, mutate(held[:200], chance))


def test_a_damaged_journal_costs_its_own_entries_and_the_next_comparison_replaces_them(
    redis_server: RedisServer, journal: Journal
) -> None:
    chance = seeded("journal in redis")
    whole = [entry(), entry(EVENTS, worst=())]
    with redis_server.client() as client:
        for _ in counted(STORED // 60, "journal in redis"):
            client.delete(journal.key)
            journal.keep(whole, journal.read())
            client.hset(journal.key, DELIVERIES, mutate(ENTRY, chance))
            client.hset(journal.key, random_bytes(chance), random_bytes(chance))
            read = journal.read()
            assert read.entries[EVENTS] == whole[1]
            assert (DELIVERIES in read.entries) != bool(read.failures)
            assert journal.keep([whole[0]], read) == 0
            assert journal.read().entries == {each.metric: each for each in whole}
