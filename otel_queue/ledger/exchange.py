"""Questions to the ledger's Redis that are answered at once, and script calls one at a time."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

from otel_queue.ledger.contract import refusal
from otel_queue.ledger.identity import UNDATED
from otel_queue.ledger.keys import ProjectKeys
from otel_queue.ledger.scripts import script
from otel_queue.redis_client import (
    ErrorReply,
    Reading,
    RedisLink,
    Reply,
    Request,
    Rounds,
    ask,
    names,
    pack,
    request,
    taking_apart,
    text,
)

# The nodes of a day behind the first: how many a level has, and the number of its first; as in states.lua.
NODES_OF_A_LEVEL: Final = (16, 256, 4096)
_FIRST: Final = {16: 1, 256: 17, 4096: 273, 0: 0}
_NODE_ENTRIES: Final = 128
_CHUNK: Final = 512

_T = TypeVar("_T")


class Exchange:
    """One link, and how long an answer may take. Each method raises ReadError, or WriteError where Redis refuses."""

    def __init__(self, link: RedisLink, timeout_seconds: float) -> None:
        self._link = link
        self._timeout = timeout_seconds

    def ask(self, wanted: Sequence[Request]) -> list[list[Reply]]:
        """The replies to each request."""
        return ask(self._link, wanted, self._timeout)

    def one(self, wanted: Request) -> Reply:
        """The last reply to one request."""
        return accepted(self.ask([wanted])[0][-1])

    def call(self, name: str, keys: Sequence[bytes], arguments: Iterable[bytes | str | int]) -> Reply:
        """What the script in NAME.lua returns."""
        return self.one(call_of(name, keys, arguments))

    def run(self, reading: Reading[_T], clock_key: bytes) -> _T:
        """The result of one reading."""
        rounds = Rounds(self._link, time.monotonic() + self._timeout, clock_key=clock_key)
        return rounds.run([reading])[0]

    def nodes(self, key: bytes, base: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Ids and states in all nodes of a day, an id once, as far as a search for it would get."""
        seen: set[bytes] = set()
        level = [base]
        for size in (*NODES_OF_A_LEVEL, 0):
            has_more = False
            for start in range(0, len(level), _CHUNK):
                commands = [("HGETALL", node) for node in level[start : start + _CHUNK]]
                for reply in self.ask([request(key, commands)])[0]:
                    flat = names(reply)
                    has_more = has_more or len(flat) >= 2 * _NODE_ENTRIES
                    with taking_apart(f"{base!r}"):
                        pairs = list(zip(flat[::2], flat[1::2], strict=True))
                    for id_, state in pairs:
                        # Held twice where a full node was lost and filled again: a search finds the first.
                        if id_ not in seen:
                            seen.add(id_)
                            yield id_, state
            if not has_more:
                return
            level = [base + b":%d" % (_FIRST[size] + number) for number in range(size)]

    def undated(self, of: ProjectKeys, kind: bytes, low: int | str, high: int | str) -> Iterator[tuple[bytes, bytes]]:
        """Undated ids of a kind (b"d", b"e", b"a"), first seen on days of these numbers, and their states as kept."""
        base = {b"d": of.deliveries, b"e": of.events, b"a": of.attempt_ids}[kind](UNDATED)
        members = names(self.one(request(of.undated, [("ZRANGEBYSCORE", of.undated, low, high)])))
        found = [member for member in members if member[:1] == kind]
        for start in range(0, len(found), _CHUNK):
            chunk = found[start : start + _CHUNK]
            commands = [("HGET", base + b":%d" % int.from_bytes(member[1:3], "big"), member[3:]) for member in chunk]
            for member, reply in zip(chunk, self.ask([request(of.undated, commands)])[0], strict=True):
                state = text(accepted(reply))
                if state is not None:
                    yield member[3:], state

    def close(self) -> None:
        """Ends the connections; a later question opens new ones."""
        self._link.close()


def call_of(name: str, keys: Sequence[bytes], arguments: Iterable[bytes | str | int]) -> Request:
    """A call of the script in NAME.lua; all keys are of one project."""
    return Request(keys[0], pack("EVAL", script(name).text, len(keys), *keys, *arguments), 1)


def accepted(reply: Reply) -> Reply:
    """The reply, unless it is an error, which is raised as WriteError."""
    if isinstance(reply, ErrorReply):
        raise refusal(reply)
    return reply
