"""A ledger on a test's Redis, and what is in it: as it is exported, and as its keys hold it."""

import re
import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import redis

from otel_queue.config import RedisConfig
from otel_queue.ledger.contract import Rule, parse_contract
from otel_queue.ledger.families import ledger_families
from otel_queue.ledger.reader import LedgerReader, LedgerSnapshot
from otel_queue.ledger.scripts import script
from otel_queue.ledger.store import LedgerStore, Written
from otel_queue.ledger.upkeep import Upkeep
from otel_queue.lifecycle import (
    UNTOLD,
    AttemptMade,
    DayExpired,
    DeliveryCreated,
    DeliveryRead,
    EventCreated,
    ProjectDescribed,
    Record,
    StatusSet,
)
from otel_queue.redis_client import connect
from tests.ledger.oracle import CROCKFORD, Families, Oracle, Plain
from tests.servers.redis import RedisServer
from tests.servers.redis import redis_server as new_redis_server

WRITE_SECONDS = 30.0
DAY_US = 86_400_000_000

KINDS = {
    EventCreated: "event_created",
    DeliveryCreated: "delivery_created",
    StatusSet: "status_set",
    DeliveryRead: "delivery_read",
    AttemptMade: "attempt_made",
    ProjectDescribed: "project_described",
    DayExpired: "day_expired",
}

# Every key that may be without a TTL, and its type, typed from docs/ledger-protocol.md and not from the code.
PERMANENT = {
    r"oq:contract": "string",
    r"oq:projects": "zset",
    r"oq:swept": "string",
    r"oq:\{[^{}]+\}:meta": "hash",
    r"oq:\{[^{}]+\}:groups": "hash",
    r"oq:\{[^{}]+\}:days": "zset",
    r"oq:\{[^{}]+\}:attempts": "hash",
    r"oq:\{[^{}]+\}:attempt-labels": "hash",
    r"oq:\{[^{}]+\}:counts:(\d{8}|settled)": "hash",
    r"oq:\{[^{}]+\}:processing:(\d{8}|settled)": "zset",
    r"oq:\{[^{}]+\}:(deliveries|events|attempt-ids):undated:\d{1,4}": "hash",
    r"oq:\{[^{}]+\}:undated": "zset",
    r"oq:\{[^{}]+\}:open:\d{1,3}": "hash",
}


def now_us() -> int:
    return time.time_ns() // 1000


def day_of(time_us: int) -> str:
    return time.strftime("%Y%m%d", time.gmtime(time_us / 1e6))


def ulid(time_us: int, number: int) -> str:
    """The ULID of that time with this number for its random part."""
    value = time_us // 1000 << 80 | number
    return "".join(CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def plain(record: Record) -> Plain:
    """A record as the oracle takes it."""
    told = {name: getattr(record, name) for name in record.__dataclass_fields__}
    if told.get("created_us", 0) is None:
        del told["created_us"]
    return {"kind": KINDS[type(record)], **{name: value for name, value in told.items() if value is not UNTOLD}}


def expected(records: Iterable[Record], now: float, *, track_days: int = 30, attempt_days: int = 7) -> Families:
    oracle = Oracle(now, track_days=track_days, attempt_days=attempt_days)
    for record in records:
        oracle.take(plain(record))
    return oracle.families()


class Ledger:
    """Reads anew each time, with nothing remembered; begun on construction, with this contract."""

    def __init__(self, url: str, rule: Rule | None = None, *, max_skew_us: int = 5_000_000) -> None:
        self.url = url
        self._link = connect(RedisConfig(url=url))
        self.store = LedgerStore(self._link)
        self.upkeep = Upkeep(self._link)
        self.upkeep.begin(rule, max_skew_us)

    def write(self, *records: Record) -> Written:
        return self.store.write(records, time.monotonic() + WRITE_SECONDS)

    def snapshot(self) -> LedgerSnapshot:
        return LedgerReader(self._link).snapshot()

    def families(self) -> Families:
        return self.read()[0]

    def read(self) -> tuple[Families, float]:
        """What would be exported, and the time it is true for."""
        snapshot = self.snapshot()
        assert not snapshot.failures, snapshot.failures
        return families_of(snapshot), snapshot.time

    def differences(self) -> list[Any]:
        return [difference for project in self.upkeep.projects() for difference in self.upkeep.check(project)]

    def close(self) -> None:
        self.store.close()


def agree_on(client: redis.Redis, **changed: Any) -> None:
    """Changes the contract of a ledger and of all its projects, as if it had always been that one."""
    held: Any = client.get("oq:contract")
    text = replace(parse_contract(held), **changed).text()
    client.set("oq:contract", text)
    metas: Any = client.keys("oq:{*}:meta")
    for meta in metas:
        client.hset(meta, "contract", text)


def fold(client: redis.Redis, project: str, through: str) -> None:
    """Settles and folds days of a project, as if they were old enough."""
    meta, days = (f"oq:{{{project}}}:{what}" for what in ("meta", "days"))
    client.hset(meta, "settled", through)
    listed: Any = client.zrange(days, 0, -1)
    for day in sorted(member.decode() for member in listed):
        if day <= through:
            client.eval(script("fold_day").text.decode(), 2, meta, days, "", day)


def families_of(snapshot: LedgerSnapshot) -> Families:
    found = ledger_families(snapshot).families
    return {family.name: dict(family.samples) for family in found}


def assert_same(ours: Families, oracles: Families) -> None:
    """Counts are equal; ages too, but for the rounding of seconds."""
    assert {name: samples for name, samples in ours.items() if not name.endswith("_seconds")} == {
        name: samples for name, samples in oracles.items() if not name.endswith("_seconds")
    }
    for name, samples in ours.items():
        assert samples.keys() == oracles[name].keys(), name
        for labels, value in samples.items():
            assert abs(value - oracles[name][labels]) < 0.001, (name, labels, value, oracles[name][labels])


@dataclass
class Contents:
    """What a project's keys hold, with labels where they hold numbers of groups."""

    counts: Counter[tuple[str, tuple[bytes, ...], str]] = field(default_factory=Counter)
    deliveries: dict[tuple[str, bytes], tuple[Any, ...]] = field(default_factory=dict)
    events: dict[tuple[str, bytes], tuple[Any, ...]] = field(default_factory=dict)
    processing: set[tuple[str, tuple[bytes, ...], int, bytes]] = field(default_factory=set)
    attempts: dict[bytes, int] = field(default_factory=dict)
    attempt_ids: dict[tuple[str, bytes], bytes] = field(default_factory=dict)

    def assert_adds_up(self) -> None:
        """Counts are what the tracked ids add up to, none is below one, and each id is held once."""
        assert all(count > 0 for count in self.counts.values()), self.counts
        tracked = Counter((day, held[-1], str(held[0])) for (day, _), held in self.deliveries.items())
        tracked.update((day, held[-1], "e") for (day, _), held in self.events.items())
        assert tracked == self.counts
        assert self.processing == {
            (day, held[-1], held[2], id_) for (day, id_), held in self.deliveries.items() if held[0] == PROCESSING
        }
        assert Counter(self.attempt_ids.values()) == self.attempts


PROCESSING = 2
FIRST_NUMBERED = datetime(2000, 3, 1, tzinfo=UTC)


def contents(client: redis.Redis) -> dict[bytes, Contents]:
    """All projects, straight from the keys, as docs/ledger-protocol.md describes them."""
    found: dict[bytes, Contents] = {}
    keys: Any = client.keys("oq:{*")
    for key in keys:
        prefix, _, rest = key.partition(b"}:")
        what, _, day_and_node = rest.decode().partition(":")
        day = day_and_node.partition(":")[0]
        project = found.setdefault(prefix.removeprefix(b"oq:{"), Contents())
        _collect(client, project, key, what, day, _groups(client, prefix))
    return found


def _groups(client: redis.Redis, prefix: bytes) -> dict[int, tuple[bytes, ...]]:
    pairs: Any = client.hgetall(prefix + b"}:groups")
    return {int(name[1:]): tuple(value.split(b"\0")) for name, value in pairs.items() if name.startswith(b"#")}


def _collect(
    client: redis.Redis, project: Contents, key: bytes, what: str, day: str, groups: dict[int, tuple[bytes, ...]]
) -> None:
    data: Any
    if what in ("meta", "groups", "days", "undated", "attempt-labels"):
        return
    if what == "processing":
        data = client.zrange(key, 0, -1)
        for member in data:
            number, created = struct.unpack(">I7s", member[:11])
            project.processing.add((day, groups[number], int.from_bytes(created), member[11:]))
        return
    data = client.hgetall(key)
    if what == "counts":
        for name, count in data.items():
            number, _, kind = name.partition(b":")
            project.counts[day, groups[int(number)], kind.decode()] += int(count)
    elif what == "attempts":
        project.attempts = {name: int(count) for name, count in data.items()}
    for id_, kept in data.items() if what in ("deliveries", "events", "attempt-ids") else ():
        if kept == b"" and what != "attempt-ids":
            continue  # forgotten
        # What is kept of an undated id begins with the day that it counts under.
        state, origin, counts_under = kept, int.from_bytes(id_[:6]) * 1000, day
        if day == "undated":
            under, state = FIRST_NUMBERED + timedelta(days=int.from_bytes(kept[:2])), kept[2:]
            origin, counts_under = int((under + timedelta(days=1)).timestamp() * 1e6), f"{under:%Y%m%d}"
        held: dict[tuple[str, bytes], tuple[Any, ...]]
        entry: tuple[Any, ...]
        if what == "attempt-ids":
            assert (day, id_) not in project.attempt_ids, "an id is held twice"
            labelled_by: Any = client.hget(key.partition(b"}:")[0] + b"}:attempt-labels", f"#{int.from_bytes(state)}")
            project.attempt_ids[day, id_] = labelled_by
        elif what == "events":
            start, end = place_of_group("event", state)
            held = project.events
            assert len(state) == end
            entry = (origin + signed(state[1:start]), groups[int.from_bytes(state[start:])])
        else:
            held = project.deliveries
            far = state[1] % 8 + 1
            start, end = place_of_group("delivery", state)
            at, labelled, created = (
                origin + signed(part)
                for part in (state[2 : 2 + far], state[2 + far : 2 + 2 * far], state[2 + 2 * far : start])
            )
            number = int.from_bytes(state[start:end])
            # Behind the status stand its time, the creation time, where all come from, and the labels' times.
            entry = (state[0] % 8, at, created, state[0], labelled, state[end:], groups[number])
        if what != "attempt-ids":
            assert (counts_under, id_) not in held, "an id is held twice"
            held[counts_under, id_] = entry


def place_of_group(kind: str, state: bytes) -> tuple[int, int]:
    """Where a state has the number of its group: from, and up to."""
    if kind == "event":
        start = 1 + state[0] % 8 + 1
        return start, start + state[0] // 8 + 1
    start = 2 + 2 * (state[1] % 8 + 1) + state[1] // 8 % 8 + 1
    return start, start + state[1] // 64 + 1


def signed(offset: bytes) -> int:
    return int.from_bytes(offset, signed=True)


def keys_without_a_life(client: redis.Redis) -> list[str]:
    """Keys of the ledger without a TTL that are not on the list of permanent keys, or not of its type."""
    keys: Any = client.keys("oq:*")
    return [key.decode() for key in keys if client.ttl(key) == -1 and not _may_stay(key.decode(), client.type(key))]


def _may_stay(key: str, kind: Any) -> bool:
    return any(re.fullmatch(pattern, key) and kind == told.encode() for pattern, told in PERMANENT.items())


def assert_every_key_has_a_life(server: RedisServer, databases: Sequence[int] = (0,)) -> None:
    for database in databases:
        with redis.Redis(port=server.port, db=database) as client:
            assert keys_without_a_life(client) == []


@contextmanager
def ledger_server(*args: str) -> Iterator[RedisServer]:
    """A Redis of the test's own, looked through for keys without a life when the test is over."""
    with new_redis_server(args=args) as server:
        yield server
        if server.process.is_running:
            assert_every_key_has_a_life(server)
