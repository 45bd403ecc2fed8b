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
# How many nodes undated ids are kept in.
UNDATED_NODES: Final = 4096
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

    def undated(self, of: ProjectKeys, kind: bytes, day: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Undated ids of a kind (b"d", b"e", b"a") and their states as kept; those of the day of a number, or all.

        From where they are kept: the index of them serves only to end them, and may have been lost.
        """
        [has_any] = self.ask([request(of.meta, [("HGET", of.meta, "undated")])])[0]
        if text(accepted(has_any)) is None:
            return
        base = {b"d": of.deliveries, b"e": of.events, b"a": of.attempt_ids}[kind](UNDATED)
        wanted = b"" if day is None else (day % 65_536).to_bytes(2, "big")
        for start in range(0, UNDATED_NODES, _CHUNK):
            commands = [("HGETALL", base + b":%d" % number) for number in range(start, start + _CHUNK)]
            for reply in self.ask([request(of.meta, commands)])[0]:
                flat = names(reply)
                with taking_apart(f"{base!r}"):
                    pairs = list(zip(flat[::2], flat[1::2], strict=True))
                yield from ((id_, state) for id_, state in pairs if state.startswith(wanted))

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
