"""Single ids in the ledger: what is held of them, and how to forget them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from otel_queue.ledger.batches import MOST_RECORDS
from otel_queue.ledger.contract import Contract, read_contract
from otel_queue.ledger.counts import EVENTS, DayCounts
from otel_queue.ledger.exchange import Exchange, accepted, call_of
from otel_queue.ledger.identity import UNDATED, Identity
from otel_queue.ledger.keys import Keys
from otel_queue.ledger.project import Labels, label_of
from otel_queue.redis_client import (
    RedisLink,
    Reply,
    Request,
    array,
    decimal,
    names,
    request,
    taking_apart,
    text,
    time_us,
)

Kind = Literal["delivery", "event", "attempt"]

_WHAT: Final = "what the ledger has of ids"
_EVENT: Final = b"event"
OPEN_NODES: Final = 256
_NODES_AT_ONCE: Final = 64
_DESCRIPTION: Final = ("described_at", "project_name", "organisation_id", "organisation_name")


class Place(NamedTuple):
    """Where ids are kept: those of one kind, project and day (YYYYMMDD, or `undated`)."""

    kind: Kind
    project: str
    day: str


class Held(NamedTuple):
    """The states of ids, in their order: None is not held, and never was; empty is forgotten (or an attempt).

    `is_closed` says that the day takes no records: it is expired, folded, or no longer tracked.
    """

    is_closed: bool
    states: list[bytes | None]


class Marks(NamedTuple):
    """The last day that is expired, that is folded, and that is settled; "" for none.

    `attempts_before` is the first day whose attempts are known by their ids, "" if none from before it were put.
    """

    expired: str
    folded: str
    settled: str
    attempts_before: str


class Description(NamedTuple):
    """The names of a project, and the time of the record that told them (Unix microseconds)."""

    time_us: int
    names: tuple[str, str, str]


class Tracked:
    """Reads, and forgets, single ids. Every method may be repeated, and raises ReadError or WriteError."""

    def __init__(
        self,
        link: RedisLink,
        *,
        namespace: str = "oq",
        timeout_seconds: float = 10.0,
    ) -> None:
        self._exchange = Exchange(link, timeout_seconds)
        self._keys = Keys(namespace)
        self._contract: Contract | None = None
        # A group may be given back, but no number ever stands for two.
        self._groups: dict[tuple[str, int], bytes] = {}

    @taking_apart(_WHAT)
    def marks(self, projects: Sequence[str]) -> list[Marks]:
        """How far each project is closed."""
        metas = [self._keys.project(project).meta for project in projects]
        answers = self._exchange.ask([request(meta, [("HMGET", meta, *Marks._fields)]) for meta in metas])
        return [Marks(*((text(mark) or b"").decode() for mark in array(accepted(answer[0])))) for answer in answers]

    @taking_apart(_WHAT)
    def descriptions(self, projects: Sequence[str]) -> list[Description]:
        """What the ledger calls each project. A time too far ahead of Redis is 0: any description replaces that one."""
        metas = [self._keys.project(project).meta for project in projects]
        answers = self._exchange.ask([request(meta, [("HMGET", meta, *_DESCRIPTION), ("TIME",)]) for meta in metas])
        skew_us = self._held_contract().max_skew_us
        return [_description(array(accepted(held)), time_us(now) + skew_us) for held, now in answers]

    @taking_apart(_WHAT)
    def find(self, wanted: Mapping[Place, Sequence[Identity]]) -> dict[Place, Held]:
        """What is held of the ids of each place."""
        asked = [(place, ids[start : start + MOST_RECORDS]) for place, ids in wanted.items()
                 for start in range(0, len(ids), MOST_RECORDS)]  # fmt: skip
        found = {place: Held(False, []) for place in wanted}
        answers = self._exchange.ask([self._find(place, ids) for place, ids in asked])
        for (place, ids), answer in zip(asked, answers, strict=True):
            closed, *states = array(accepted(answer[0]))
            held = found[place]
            held.states.extend(text(state) for _, state in zip(ids, states, strict=True))
            found[place] = Held(held.is_closed or closed == 1, held.states)
        return found

    def _find(self, place: Place, ids: Sequence[Identity]) -> Request:
        of = self._keys.project(place.project)
        words = [word for id_ in ids for word in (id_.stored, id_.hash)]
        return call_of("find_ids", (of.meta, of.groups, self._base(place)), (*self._head(place), *words))

    @taking_apart(_WHAT)
    def forget(self, place: Place, held: Sequence[tuple[Identity, bytes]]) -> list[bool]:
        """Takes deliveries or events out that are still in the state given; for each of them whether it was."""
        of = self._keys.project(place.project)
        own = (of.meta, of.groups, of.days, self._base(place))
        forgotten: list[bool] = []
        for start in range(0, len(held), MOST_RECORDS):
            words = [word for id_, state in held[start : start + MOST_RECORDS] for word in (*id_[1:3], state)]
            answers = array(self._exchange.call("forget_ids", own, (*self._head(place), place.kind, *words)))
            forgotten += [answer == 1 for answer in answers]
        if any(forgotten):  # readers are told
            self._exchange.call("announce", (self._keys.projects,), (place.project,))
        return forgotten

    def ids(self, place: Place) -> Iterator[tuple[bytes, bytes]]:
        """Stored ids and states of all that is held in a place; an attempt's state is empty."""
        of = self._keys.project(place.project)
        held = self._exchange.nodes(of.meta, self._base(place))
        if place.day == UNDATED:
            held = self._exchange.undated(of, place.kind[:1].encode())
        for stored, state in held:
            if state or place.kind == "attempt":  # else it is forgotten
                yield stored, state

    @taking_apart(_WHAT)
    def counted(self, place: Place) -> int:
        """How many deliveries, or events, the day's counts add up to; or how many undated ids are held."""
        if place.day == UNDATED:
            return sum(1 for _ in self.ids(place))
        pairs = self._counts(place.project, place.day)
        return sum(count for (_, kind), count in pairs.items() if (kind == EVENTS) == (place.kind == "event"))

    @taking_apart(_WHAT)
    def counts(self, project: str, day: str) -> DayCounts:
        """All that a day has (or `settled`), by labels; what has lost its labels is under ""."""
        of = self._keys.project(project)
        pairs = self._counts(project, day)
        members = [
            (int.from_bytes(member[:4], "big"), int.from_bytes(member[4:11], "big"), member[11:])
            for member in names(self._exchange.one(request(of.meta, [("ZRANGE", of.processing(day), 0, -1)])))
        ]
        told = self._told(project, {number for number, _ in pairs} | {number for number, _, _ in members})
        labels = {number: value.decode("utf-8", "surrogateescape") for number, value in told.items()}
        found = DayCounts()
        for (number, kind), count in pairs.items():
            found.counts[labels.get(number, ""), kind] += count
        found.processing.update((labels.get(number, ""), created_us, id_) for number, created_us, id_ in members)
        return found

    def _counts(self, project: str, day: str) -> dict[tuple[int, str], int]:
        of = self._keys.project(project)
        flat = names(self._exchange.one(request(of.meta, [("HGETALL", of.counts(day))])))
        fields = (name.decode().partition(":") for name in flat[::2])
        return {
            (int(number), kind): decimal(count) for (number, _, kind), count in zip(fields, flat[1::2], strict=True)
        }

    @taking_apart(_WHAT)
    def labels(self, project: str, numbers: Iterable[int]) -> dict[int, Labels]:
        """What groups of deliveries have in common; a group whose labels were not kept is left out."""
        told = self._told(project, numbers)
        return {
            number: Labels(*(label_of(part) for part in parts))
            for number, value in told.items()
            if len(parts := value.split(b"\0")) == len(Labels._fields)
        }

    @taking_apart(_WHAT)
    def sources(self, project: str, numbers: Iterable[int]) -> dict[int, str | None]:
        """The sources of groups of events, None is unknown; a group whose source was not kept is left out."""
        told = self._told(project, numbers)
        return {
            number: label_of(value.removeprefix(_EVENT)) for number, value in told.items() if value.startswith(_EVENT)
        }

    @taking_apart(_WHAT)
    def attempt_labels(self, project: str, states: Iterable[bytes]) -> dict[bytes, tuple[str, str, str]]:
        """Endpoint, status and http_status_code of attempts by the states of their ids; what was lost is left out."""
        key, ordered = self._keys.project(project).attempt_labels, sorted(set(states))
        if not ordered:
            return {}
        fields = [f"#{int.from_bytes(state, 'big')}" for state in ordered]
        values = map(text, array(self._exchange.one(request(key, [("HMGET", key, *fields)]))))
        found = {
            state: tuple(value.decode().split("\0")) for state, value in zip(ordered, values, strict=True) if value
        }
        return {state: (parts[0], parts[1], parts[2]) for state, parts in found.items() if len(parts) == 3}

    @taking_apart(_WHAT)
    def attempts(self, project: str) -> Counter[tuple[str, str, str]]:
        """All attempts that are counted, by endpoint, status and http_status_code."""
        key = self._keys.project(project).attempts
        flat = names(self._exchange.one(request(key, [("HGETALL", key)])))
        pairs = zip(flat[::2], flat[1::2], strict=True)
        found: Counter[tuple[str, str, str]] = Counter()
        for name, count in pairs:
            endpoint, status, code = name.decode("utf-8", "surrogateescape").split("\0")
            found[endpoint, status, code] = decimal(count)
        return found

    @taking_apart(_WHAT)
    def begin_attempts(self, project: str, before: str, counts: Mapping[tuple[str, str, str], int]) -> bool:
        """Counts attempts made before a day that nobody tells by their ids; False if the project has such already."""
        of = self._keys.project(project)
        words = [word for labels, count in sorted(counts.items()) for word in ("\0".join(labels), count)]
        arguments = (self._held_contract().text(), before, *words)
        begun = bool(self._exchange.call("begin_attempts", (of.meta, of.attempts, of.days), arguments))
        if begun:
            self._exchange.call("announce", (self._keys.projects,), (project,))
        return begun

    @taking_apart(_WHAT)
    def open(self, project: str) -> Iterator[tuple[bytes, bytes]]:
        """Stored ids and states of deliveries of settled days that are not final."""
        of = self._keys.project(project)
        for start in range(0, OPEN_NODES, _NODES_AT_ONCE):
            commands = [("HGETALL", of.open(number)) for number in range(start, start + _NODES_AT_ONCE)]
            for reply in self._exchange.ask([request(of.meta, commands)])[0]:
                flat = names(reply)
                yield from zip(flat[::2], flat[1::2], strict=True)

    @taking_apart(_WHAT)
    def swept_us(self) -> int:
        """When the last complete reading of all rows began that has ended (Unix microseconds); 0 if there is none."""
        told = text(self._exchange.one(request(self._keys.swept, [("GET", self._keys.swept)])))
        return decimal(told) if told else 0

    def mark_swept(self, time_us: int) -> None:
        """Keeps when a complete reading of all rows began; to be called when it has ended."""
        self._exchange.one(request(self._keys.swept, [("SET", self._keys.swept, time_us)]))

    def group(self, project: str, number: int) -> str:
        """The labels of a group as `batches.delivery_group` has them; "" where they were not kept."""
        return self._told(project, [number]).get(number, b"").decode("utf-8", "surrogateescape")

    def _told(self, project: str, numbers: Iterable[int]) -> dict[int, bytes]:
        wanted = set(numbers) - {0}
        if unknown := sorted(number for number in wanted if (project, number) not in self._groups):
            groups = self._keys.project(project).groups
            asked = request(groups, [("HMGET", groups, *(f"#{number}" for number in unknown))])
            for number, value in zip(unknown, array(self._exchange.one(asked)), strict=True):
                if told := text(value):
                    self._groups[project, number] = told
        return {number: told for number in wanted if (told := self._groups.get((project, number)))}

    def close(self) -> None:
        """Ends the connections; a later question opens new ones."""
        self._exchange.close()

    def _base(self, place: Place) -> bytes:
        of = self._keys.project(place.project)
        bases = {"delivery": of.deliveries, "event": of.events, "attempt": of.attempt_ids}
        return bases[place.kind](place.day)

    def _head(self, place: Place) -> tuple[bytes, str]:
        return self._held_contract().text(), place.day

    def _held_contract(self) -> Contract:
        if self._contract is None:
            self._contract = self._exchange.run(read_contract(self._keys), self._keys.contract)
        return self._contract


def _description(told: list[Reply], latest_us: int) -> Description:
    at, name, organisation_id, organisation_name = ((text(value) or b"").decode("utf-8", "replace") for value in told)
    return Description(int(at) if at and int(at) <= latest_us else 0, (name, organisation_id, organisation_name))
