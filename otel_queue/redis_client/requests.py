"""Requests: packed commands that travel together, and what answers them."""

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple, Protocol

import hiredis

from otel_queue.errors import ReadError

# A reply as hiredis gives it: bytes, int, None, list of those, or an ErrorReply. Parsed where it is used.
Reply = Any
ErrorReply = hiredis.ReplyError

# A caller that stops early closes it, for the connection is its own until then.
Answers = Generator[list[Reply] | ReadError, None, None]

# hiredis takes any sequence of words; its type stubs are narrower.
_pack: Final[Callable[..., bytes]] = hiredis.pack_command


class Request(NamedTuple):
    """Packed commands of one hash slot, answered by `replies` replies. `key` routes it in a cluster."""

    key: bytes
    packed: bytes
    replies: int


class RedisLink(Protocol):
    """A way to Redis that answers many requests in one round trip (one per cluster node)."""

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        """The replies to each request, in order, each as soon as it has arrived.

        All requests are sent before the first answer is returned. `deadline` is in `time.monotonic` seconds. A
        ReadError stands in for the replies of a request whose node could not be read. Raises ReadError when
        nothing more can be read.
        """
        ...

    def close(self) -> None:
        """Ends all connections; a later exchange opens new ones."""
        ...


class PlacedLink(RedisLink, Protocol):
    """A link that knows which keys fail together."""

    def place(self, key: bytes, /) -> str:
        """The server that has the key, as far as is known without asking."""
        ...


def pack(*words: bytes | str | int) -> bytes:
    """One command in Redis's wire format."""
    return _pack(words)


def request(key: bytes, commands: Iterable[tuple[bytes | str | int, ...]]) -> Request:
    """The commands as one request. All their keys must share the slot of `key`."""
    packed = [_pack(words) for words in commands]
    return Request(key, b"".join(packed), len(packed))


def ask(link: RedisLink, requests: Sequence[Request], timeout_seconds: float) -> list[list[Reply]]:
    """The replies to each request, in one round trip; raises ReadError if one of them could not be read."""
    with closing(link.exchange(requests, time.monotonic() + timeout_seconds)) as stream:
        answers = list(stream)
    for answer in answers:
        if isinstance(answer, ReadError):
            raise answer
    return [answer for answer in answers if not isinstance(answer, ReadError)]
