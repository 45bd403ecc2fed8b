"""A ledger whose replies or keys are spoiled: readers and upkeep end with ReadError or WriteError, and say so."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pytest
import redis

from otel_queue.config import RedisConfig
from otel_queue.errors import OtelQueueError, ReadError, WriteError
from otel_queue.ledger.batches import delivery_group
from otel_queue.ledger.counts import CountsStore, DayCounts
from otel_queue.ledger.families import ledger_families
from otel_queue.ledger.identity import identify
from otel_queue.ledger.reader import LedgerReader, LedgerSnapshot
from otel_queue.ledger.states import delivery_state, event_state
from otel_queue.ledger.tracked import Place, Tracked
from otel_queue.ledger.upkeep import Upkeep
from otel_queue.lifecycle import AttemptMade, DeliveryCreated, EventCreated, ProjectDescribed, Record, StatusSet
from otel_queue.postgres.store import GenerationStore
from otel_queue.redis_client import Answers, ErrorReply, RedisLink, Request, connect
from otel_queue.shadow.journal import Journal
from tests.export.ways_out import CLASSIC, own_text, parsed
from tests.fuzz.budget import LEDGER_KEYS, LEDGER_REPLIES, STORED, counted, inputs, seeded, tried
from tests.fuzz.mutation import mutate, mutate_reply, random_bytes, random_reply
from tests.ledger.ledgers import DAY_US, WRITE_SECONDS, Ledger, assert_same, day_of, expected, families_of, now_us, ulid
from tests.postgres.exporters import example
from tests.servers.redis import RedisServer
from tests.shadow.test_journal import entry

pytestmark = pytest.mark.timeout(900)

NOW_US = now_us()
TODAY, OLD = day_of(NOW_US), day_of(NOW_US - 40 * DAY_US)
IDS = [ulid(NOW_US - number * DAY_US, number) for number in range(3)]
REASONS: Final = {
    "auth", "permission", "connection", "timeout", "loading", "readonly", "out_of_memory", "wrong_type", "aborted",
    "no_replicas", "cannot_save", "busy_script",
    "moved", "cluster_down", "master_down", "not_supported", "error_reply", "protocol", "bad_value", "no_birth",
    "contract", "project_lost", "day_lost", "day_unlisted", "group_lost", "busy", "untracked", "internal", "lease_lost",
    "broken_generation", "broken_journal",
}  # fmt: skip


def work(project: str) -> list[Record]:
    records: list[Record] = [ProjectDescribed(project, NOW_US, "Name", "O", "Org")]
    for id_ in (*IDS, "undated"):
        records += [
            EventCreated(project, id_, NOW_US, "S"),
            DeliveryCreated(project, id_, NOW_US, "E", "t", "S", "processing"),
            AttemptMade(project, id_, NOW_US, "E", True, 200),
        ]
    return [*records, StatusSet(project, IDS[0], "success", NOW_US + 1)]


RECORDS: Final = [*work("p"), *work("whole")]


class SpoiledLink:
    """A link to a real ledger whose replies `spoil` has had; counts those that it changed."""

    def __init__(self, link: RedisLink, spoil: Callable[[Any], Any]) -> None:
        self._link = link
        self._spoil = spoil
        self.changed = 0

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        for answer in self._link.exchange(requests, deadline):
            if isinstance(answer, ReadError):
                yield answer
                continue
            spoiled = [self._spoil(reply) for reply in answer]
            self.changed += sum(new is not old for new, old in zip(spoiled, answer, strict=True))
            yield spoiled

    def close(self) -> None:
        self._link.close()


def refusal(action: Callable[[], object]) -> ReadError | WriteError | None:
    """The ReadError or WriteError that it ends with, if it does; others pass, but that a day is not over."""
    try:
        action()
    except (ReadError, WriteError) as error:
        refused: ReadError | WriteError = error
    except OtelQueueError as error:
        # A spoiled clock may be of an earlier day, whole as it is: then no day may be closed.
        if "is not over by Redis's clock" not in str(error):
            raise
        return None
    else:
        return None
    assert refused.reason in REASONS
    return refused


def read(reader: LedgerReader) -> LedgerSnapshot | None:
    """A snapshot that can be exported, None if the ledger cannot be read at all."""
    found: list[LedgerSnapshot] = []
    if refusal(lambda: found.append(reader.snapshot())) is not None:
        return None
    [snapshot] = found
    assert set(snapshot.failures) <= REASONS
    families = ledger_families(snapshot).families
    assert len(parsed(own_text(CLASSIC, *families))) >= 2
    return snapshot


def actions(link: RedisLink) -> list[Callable[[], object]]:
    """What else asks the ledger's Redis, each once."""
    tracked, upkeep, counts = Tracked(link), Upkeep(link), CountsStore(link)
    places = [Place(kind, "p", TODAY) for kind in ("delivery", "event", "attempt")]
    identities = [identify(id_) for id_ in IDS]
    day = DayCounts()
    day.counts[delivery_group("E", "t", "S"), "6"] = 3
    store = GenerationStore(link, "corrected")
    journal = Journal(link)

    def judge() -> None:
        for place, held in tracked.find(dict.fromkeys(places, identities)).items():
            for identity, state in zip(identities, held.states, strict=True):
                if state and place.kind != "attempt":
                    parse = delivery_state if place.kind == "delivery" else event_state
                    parse(place.day, identity.stored, state)

    def refresh() -> None:
        seen = store.look()
        if seen.lease is not None:
            store.renew(seen.lease)
            store.keep(seen.lease, example())

    return [
        upkeep.projects, upkeep.begin, lambda: upkeep.days("p"), lambda: upkeep.check("p"),
        lambda: upkeep.unlisted("p"), lambda: upkeep.list_again("p"),
        lambda: upkeep.repair("p", TODAY), lambda: upkeep.expire("gone", OLD), lambda: upkeep.settle("p"),
        lambda: tracked.marks(["p"]), lambda: tracked.descriptions(["p"]), judge,
        lambda: list(tracked.ids(places[0])), lambda: tracked.counted(places[0]),
        lambda: tracked.counts("p", TODAY), lambda: tracked.labels("p", range(1, 5)),
        lambda: tracked.sources("p", range(1, 5)), lambda: tracked.forget(places[0], [(identities[2], b"x")]),
        counts.clock, lambda: counts.put("seeded", {OLD: day}, OLD), refresh,
        lambda: journal.keep([entry()], journal.read()),
    ]  # fmt: skip


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    ledger.write(*RECORDS)
    return ledger


@contextlib.contextmanager
def spoiled_link(ledger: Ledger, spoil: Callable[[Any], Any]) -> Iterator[SpoiledLink]:
    link = SpoiledLink(connect(RedisConfig(url=ledger.url)), spoil)
    yield link
    link.close()


@pytest.mark.parametrize("share", [0.03, 0.3, 1.0])
def test_spoiled_replies_of_a_ledger_are_read_or_refused(filled: Ledger, share: float) -> None:
    chance = seeded(f"ledger replies {share}")

    def spoil(reply: Any) -> Any:
        if chance.random() >= share:
            return reply
        return mutate_reply(reply, chance) if chance.random() < 0.7 else random_reply(chance)

    unknown = 0
    with spoiled_link(filled, spoil) as link:
        while link.changed < inputs(LEDGER_REPLIES) // 3 or not unknown:
            reader = LedgerReader(link)
            unknown += sum(read(reader) is None for _ in range(2))
            for action in actions(link):
                refusal(action)
    tried(f"ledger replies, {share:.0%} of them spoiled", link.changed)


def test_after_an_error_in_the_middle_of_a_reading_the_same_reader_reads_all_of_it(filled: Ledger) -> None:
    chance = seeded("ledger errors")
    share = 0.0

    def spoil(reply: Any) -> Any:
        refused = (ErrorReply("LOADING"), ErrorReply("WRONGTYPE x"), 7, [7], b"x")
        return chance.choice(refused) if chance.random() < share else reply

    costs = 0
    with spoiled_link(filled, spoil) as link:
        for _ in counted(LEDGER_KEYS, "ledger errors"):
            reader = LedgerReader(link)
            share = 0.0
            if chance.random() < 0.5:
                read(reader)
            share = 0.2
            spoiled = read(reader)
            costs += spoiled is None or bool(spoiled.failures)
            share = 0.0
            snapshot = read(reader)
            assert snapshot is not None
            assert not snapshot.failures
            assert {project.project for project in snapshot.projects} == {"p", "whole"}
            assert_same(families_of(snapshot), expected(RECORDS, snapshot.time))
    assert costs


def keys_of(client: redis.Redis, pattern: str = "*") -> list[bytes]:
    found: Any = client.keys(pattern)
    return sorted(found)


def damage(client: redis.Redis, chance: random.Random) -> None:
    """Spoils one key of the project p: its type, a field, a member, or all of it."""
    key = chance.choice(keys_of(client, "oq:{p}:*"))
    kind: Any = client.type(key)
    if chance.random() < 0.1:
        client.delete(key)
        client.set(key, random_bytes(chance))
    elif chance.random() < 0.1:
        client.delete(key)
    elif kind == b"hash":
        held: Any = client.hgetall(key)
        field = chance.choice(sorted(held))
        accident = chance.randrange(4)
        if accident == 0:
            client.hdel(key, field)
        elif accident == 1:
            client.hset(key, mutate(field, chance), held[field])
        else:
            client.hset(key, field, mutate(held[field], chance) if accident == 2 else random_bytes(chance))
    elif kind == b"zset":
        members: Any = client.zrange(key, 0, -1)
        client.zrem(key, chance.choice(members))
        client.zadd(key, {mutate(chance.choice(members), chance): chance.choice((0, -1, 1.5, float("inf"), 2**60))})


def test_damaged_keys_of_one_project_cost_no_other_and_whoever_asks_is_told(
    redis_server: RedisServer, filled: Ledger
) -> None:
    chance = seeded("ledger keys")
    with redis_server.client() as client, spoiled_link(filled, lambda reply: reply) as link:
        whole = [(key, client.dump(key), client.pttl(key)) for key in keys_of(client)]
        failed = 0
        for _ in counted(LEDGER_KEYS, "ledger keys"):
            damage(client, chance)
            snapshot = read(LedgerReader(link))
            assert snapshot is not None
            others = {project.project: project for project in snapshot.projects}
            assert "whole" in others
            assert ("p" in others) != bool(snapshot.failures)
            failed += "p" not in others
            only = {name: {labels: value for labels, value in samples.items() if labels[0] == "whole"}
                    for name, samples in families_of(snapshot).items()}  # fmt: skip
            assert_same(only, expected(work("whole"), snapshot.time))
            for action in chance.sample(actions(link), 4):
                refusal(action)
            refusal(lambda: filled.store.write(work("p"), time.monotonic() + WRITE_SECONDS))
            client.flushall()
            for key, data, life in whole:
                client.restore(key, max(life, 0), data)
    assert failed


def test_damaged_states_are_read_or_refused(redis_server: RedisServer, filled: Ledger) -> None:
    chance = seeded("states")
    with redis_server.client() as client:
        held: Any = client.hgetall(f"oq:{{p}}:deliveries:{TODAY}")
        told: Any = client.hgetall(f"oq:{{p}}:events:{TODAY}")
    delivery, held_state = next(iter(held.items()))
    event, told_state = next(iter(told.items()))
    refused = 0
    for _ in counted(STORED, "states"):
        refused += refusal(lambda: delivery_state(TODAY, delivery, mutate(held_state, chance))) is not None
        refused += refusal(lambda: event_state(TODAY, event, mutate(told_state, chance))) is not None
    assert refused
