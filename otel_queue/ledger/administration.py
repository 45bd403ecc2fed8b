"""What everything that looks after a ledger begins with: its contract, clock, projects, days, counts and labels."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Final, NamedTuple

from otel_queue.errors import ReadError, WriteError
from otel_queue.ledger.contract import Contract, read_contract, refusal
from otel_queue.ledger.identity import UNDATED, day_of
from otel_queue.ledger.keys import ATTEMPTS, SETTLED, Keys, ProjectKeys
from otel_queue.ledger.scripts import Word, call_of, is_unknown, loading
from otel_queue.redis_client import (
    ErrorReply,
    RedisLink,
    Reply,
    Request,
    Rounds,
    array,
    ask,
    decimal,
    names,
    request,
    scored,
    taking_apart,
    text,
    time_us,
)

# The nodes of a day behind the first: how many a level has, and the number of its first; as in states.lua.
NODES_OF_A_LEVEL: Final = (16, 256, 4096)
# How many nodes undated ids are kept in.
UNDATED_NODES: Final = 4096
_FIRST: Final = {16: 1, 256: 17, 4096: 273, 0: 0}
_NODE_ENTRIES: Final = 128
_CHUNK: Final = 512
_DAY_US: Final = 86_400_000_000
_WHAT: Final = "what the ledger has of a project"


class Clock(NamedTuple):
    """The ledger's contract, and its time by Redis (Unix microseconds)."""

    contract: Contract
    now_us: int


class Marks(NamedTuple):
    """The last day that is expired, that is settled, and that is folded; "" for none."""

    expired: str
    settled: str
    folded: str


class Administration:
    """Questions to a ledger over one link, and script calls, each answered within `timeout_seconds`.

    Each method raises ReadError, or WriteError where Redis refuses.
    """

    def __init__(self, link: RedisLink, *, namespace: str = "oq", timeout_seconds: float = 10.0) -> None:
        self._link = link
        self._timeout = timeout_seconds
        self.keys = Keys(namespace)
        # A group may be given back, but no number ever stands for two.
        self._groups: dict[tuple[str, int], bytes] = {}

    def contract(self) -> Contract:
        """The ledger's contract; raises ReadError with reason `no_birth` where it has none."""
        rounds = Rounds(self._link, time.monotonic() + self._timeout, clock_key=self.keys.contract)
        return rounds.run([read_contract(self.keys)])[0]

    def clock(self) -> Clock:
        """The contract and the time now. Raises ReadError with reason `no_birth` for a ledger that was not begun."""
        return Clock(self.contract(), self.now_us())

    def now_us(self) -> int:
        """Redis's time, in Unix microseconds."""
        return time_us(self._one(self.keys.contract, "TIME"))

    def day_before(self, days: int) -> str:
        """The UTC day `days` before today, YYYYMMDD, by Redis's clock."""
        return day_of(self.now_us() - days * _DAY_US)

    def projects(self) -> list[str]:
        """The registered projects, sorted."""
        reply = self._one(self.keys.projects, "ZRANGE", self.keys.projects, 0, -1)
        return sorted(name.decode("utf-8", "replace") for name in names(reply))

    @taking_apart(_WHAT)
    def days(self, project: str) -> dict[str, float]:
        """The dated days of a project with counts, in order, and the sequence number of their last change."""
        key = self.keys.project(project).days
        return dated(self._one(key, "ZRANGE", key, 0, -1, "WITHSCORES"))

    @taking_apart(_WHAT)
    def marks(self, projects: Sequence[str]) -> list[Marks]:
        """How far each project is closed."""
        metas = [self.keys.project(project).meta for project in projects]
        answers = self._ask([request(meta, [("HMGET", meta, *Marks._fields)]) for meta in metas])
        return [marks_of(accepted(answer[0])) for answer in answers]

    def _counts(self, of: ProjectKeys, day: str) -> dict[str, int]:
        """Fields (group, colon, and rank or `e`) and counts of a day, or of `settled`."""
        return counts_of(self._one(of.meta, "HGETALL", of.counts(day)))

    def _told(self, project: str, numbers: Iterable[int]) -> dict[int, bytes]:
        """The labels of groups as they were told; a group whose labels were not kept is left out."""
        wanted = set(numbers) - {0}
        if unknown := sorted(number for number in wanted if (project, number) not in self._groups):
            groups = self.keys.project(project).groups
            replies = array(self._one(groups, "HMGET", groups, *(f"#{number}" for number in unknown)))
            for number, value in zip(unknown, replies, strict=True):
                if told := text(value):
                    self._groups[project, number] = told
        return {number: told for number in wanted if (told := self._groups.get((project, number)))}

    def _nodes(self, key: bytes, base: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Ids and states in all nodes of a day, an id once, as far as a search for it would get."""
        seen: set[bytes] = set()
        level = [base]
        for size in (*NODES_OF_A_LEVEL, 0):
            has_more = False
            for held in self._hashes(key, base, level):
                has_more = has_more or len(held) >= _NODE_ENTRIES
                for id_, state in held:
                    # Held twice where a full node was lost and filled again: a search finds the first.
                    if id_ not in seen:
                        seen.add(id_)
                        yield id_, state
            if not has_more:
                return
            level = [base + b":%d" % (_FIRST[size] + number) for number in range(size)]

    def _undated(self, of: ProjectKeys, kind: bytes, day: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Undated ids of a kind (b"d", b"e", b"a") and their states as kept; those of the day of a number, or all.

        From where they are kept: the index of them serves only to end them, and may have been lost.
        """
        if text(self._one(of.meta, "HGET", of.meta, "undated")) is None:
            return
        base = {b"d": of.deliveries, b"e": of.events, b"a": of.attempt_ids}[kind](UNDATED)
        wanted = b"" if day is None else (day % 65_536).to_bytes(2, "big")
        for held in self._hashes(of.meta, base, [base + b":%d" % number for number in range(UNDATED_NODES)]):
            yield from ((id_, state) for id_, state in held if state.startswith(wanted))

    def _hashes(self, key: bytes, base: bytes, hashes: Sequence[bytes]) -> Iterator[list[tuple[bytes, bytes]]]:
        for start in range(0, len(hashes), _CHUNK):
            commands = [("HGETALL", each) for each in hashes[start : start + _CHUNK]]
            for reply in self._ask([request(key, commands)])[0]:
                with taking_apart(f"{base!r}"):
                    yield pairs(reply)

    def _ask(self, wanted: Sequence[Request]) -> list[list[Reply]]:
        """The replies to each request."""
        return ask(self._link, wanted, self._timeout)

    def _each(self, wanted: Sequence[Request]) -> list[list[Reply] | ReadError]:
        """As `_ask`; an error stands for the replies of a node that could not be read."""
        with closing(self._link.exchange(wanted, time.monotonic() + self._timeout)) as answers:
            return list(answers)

    def _one(self, key: bytes, *command: Word) -> Reply:
        """The reply to one command."""
        return accepted(self._ask([request(key, [command])])[0][0])

    def _call(self, name: str, keys: Sequence[bytes], arguments: Iterable[Word]) -> Reply:
        """What the script in NAME.lua returns."""
        return self._calls(name, [(keys, arguments)])[0]

    def _calls(self, name: str, wanted: Iterable[tuple[Sequence[bytes], Iterable[Word]]]) -> list[Reply]:
        """What a script returns to each of these keys and arguments; the keys of one call are of one project."""
        requests = [call_of(name, keys, arguments) for keys, arguments in wanted]
        replies = [answer[-1] for answer in self._ask(requests)]
        if missing := [index for index, reply in enumerate(replies) if is_unknown(reply)]:
            again = self._ask([loading(name, requests[index]) for index in missing])
            for index, answer in zip(missing, again, strict=True):
                replies[index] = answer[-1]
        return [accepted(reply) for reply in replies]

    def _announce(self, project: str) -> None:
        """Tells readers of a project that changed."""
        # Where a full Redis refuses it, readers find the change when they next look at the project.
        with suppress(WriteError):
            self._call("announce", (self.keys.projects,), (project,))

    def close(self) -> None:
        """Ends the connections; a later question opens new ones."""
        self._link.close()


def accepted(reply: Reply) -> Reply:
    """The reply, unless it is an error, which is raised as WriteError."""
    if isinstance(reply, ErrorReply):
        raise refusal(reply)
    return reply


def marks_of(reply: Reply) -> Marks:
    """The marks that HMGET answers."""
    return Marks(*((text(mark) or b"").decode() for mark in array(reply)))


def dated(reply: Reply) -> dict[str, float]:
    """The dated days among a project's days, in order, each with its score."""
    found = {member.decode(): score for member, score in scored(reply)}
    return {day: found[day] for day in sorted(found) if day not in (SETTLED, ATTEMPTS)}


def counts_of(reply: Reply) -> dict[str, int]:
    """Fields and counts of a day."""
    return {name.decode(): decimal(count) for name, count in pairs(reply)}


def pairs(reply: Reply) -> list[tuple[bytes, bytes]]:
    """Fields and values of a hash."""
    flat = names(reply)
    return list(zip(flat[::2], flat[1::2], strict=True))


def by_group(counts: Mapping[str, int]) -> dict[tuple[int, str], int]:
    """The counts of a day by group and by rank, or `e`."""
    fields = ((name.partition(":"), count) for name, count in counts.items())
    return {(int(group), kind): count for (group, _, kind), count in fields}
