"""Where the generation is kept for all exporters, and the lease by which one of them makes it."""

import re
import time
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

from otel_queue.errors import ReadError
from otel_queue.postgres.generation import VERSION, Generation, decode, encode
from otel_queue.redis_client import (
    ErrorReply,
    RedisLink,
    Reply,
    Request,
    array,
    ask,
    integer,
    pack,
    reply_reason,
    taking_apart,
    text,
)

# The hash outlives the exporters by this much.
_LIFE_MS: Final = 7 * 86_400_000
_MOST_FAILURE_CHARACTERS: Final = 1000
_REASON: Final = re.compile("[a-z_]{1,40}")
# A store that failed is left alone for this many times what that took: one that does not answer costs little then.
_REST: Final = 4.0
# Why Redis is no store at the moment. Other reasons are faults of what is in it, or of ours.
GONE: Final = frozenset(
    {
        "connection", "timeout", "loading", "readonly", "no_replicas", "cannot_save", "busy_script", "out_of_memory",
        "moved", "cluster_down", "master_down", "auth", "permission",
    }
)  # fmt: skip


class Lease(NamedTuple):
    """The right to make the next generation. `token` is greater than that of any lease before it."""

    token: bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """What is kept. `now` is Redis server time, `lease` ours if we got it, `failure` why the last refresh failed.

    `broken` says what is wrong with a generation that is there and cannot be read.
    """

    now: float
    generation: Generation | None
    lease: Lease | None
    failure: ReadError | None
    broken: ReadError | None = None


class GenerationStore:
    """One hash in Redis. Every method is one round trip and raises ReadError.

    After one that failed slowly the next ones fail at once for a while, by the same reason.
    """

    def __init__(
        self,
        link: RedisLink,
        name: str,
        *,
        namespace: str = "oq",
        interval_seconds: float = 60.0,
        lease_seconds: float = 75.0,
        timeout_seconds: float = 5.0,
    ) -> None:
        self._link = link
        self.key = f"{namespace}:postgres:{VERSION}:{name}".encode()
        self._interval_us = _microseconds(interval_seconds)
        self._lease_us = _microseconds(lease_seconds)
        self._timeout = timeout_seconds
        self._most_rest = interval_seconds
        self._held: tuple[bytes, Generation] | None = None
        self._failure: ReadError | None = None
        self._rests_until = 0.0  # by the monotonic clock

    def look(self, *, take: bool = True) -> Seen:
        """What is kept; with `take` the lease too, if the generation is due or broken and no other has the lease.

        One round trip; a broken generation costs another one.
        """
        known = self._held[0] if self._held else b""
        lease_us = self._lease_us if take else 0
        now, lease, token, packed, failure = self._take(lease_us, known, b"")
        broken: ReadError | None = None
        if not token:
            self._held = None
        elif token != known:
            try:
                self._held = token, decode(packed or b"")
            except ReadError as error:
                broken, self._held = error, None
                now, second, _, _, failure = self._take(lease_us, b"", token)
                lease = lease or second
        return Seen(now, self._held[1] if self._held else None, Lease(lease) if lease else None, failure, broken)

    def renew(self, lease: Lease) -> None:
        """Prolongs the lease; raises ReadError with reason `lease_lost` if another has been given out since."""
        self._hold(self._eval("renew_lease", lease.token, self._lease_us), lease)

    def keep(self, lease: Lease, generation: Generation) -> None:
        """Replaces the generation and ends the lease; raises as `renew` does, and then nothing was kept."""
        packed = encode(generation)
        kept = self._eval("keep_generation", lease.token, _microseconds(generation.time), packed)
        self._hold(kept, lease)
        self._held = lease.token, generation

    def keep_failure(self, lease: Lease, error: ReadError) -> None:
        """Ends the lease, tells everybody why, and has nobody try again within the interval."""
        words = f"{error.reason}: {error}"[:_MOST_FAILURE_CHARACTERS]
        self._eval("keep_failure", lease.token, words.encode("utf-8", "replace"))

    def close(self) -> None:
        """Ends the connections; a later call opens new ones."""
        self._link.close()

    def _take(
        self, lease_us: int, known: bytes, unreadable: bytes
    ) -> tuple[float, bytes, bytes, bytes | None, ReadError | None]:
        reply = array(
            self._eval("take_lease", self._interval_us, lease_us, self._interval_us, known, unreadable, _LIFE_MS)
        )
        with taking_apart("the lease"):
            now, lease, token, packed, failure = reply
        return integer(now) / 1e6, text(lease) or b"", text(token) or b"", text(packed), _failure(text(failure))

    def _hold(self, reply: Reply, lease: Lease) -> None:
        if not integer(reply):
            raise ReadError(
                "lease_lost", f"the lease {lease.token.decode('utf-8', 'replace')} is no longer the latest one"
            )

    def _eval(self, script: str, *arguments: bytes | int) -> Reply:
        command = pack("EVAL", _script(script), 1, self.key, *arguments)
        began = time.monotonic()
        if self._failure is not None and began < self._rests_until:
            raise ReadError(self._failure.reason, str(self._failure))
        try:
            [[reply]] = ask(self._link, [Request(self.key, command, 1)], self._timeout)
        except ReadError as error:
            ended = time.monotonic()
            self._failure, self._rests_until = error, ended + min(_REST * (ended - began), self._most_rest)
            raise
        if isinstance(reply, ErrorReply):
            raise ReadError(reply_reason(reply), str(reply))
        return reply


@cache
def _script(name: str) -> bytes:
    return (resources.files(__package__) / f"{name}.lua").read_bytes()


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


def _failure(words: bytes | None) -> ReadError | None:
    if words is None:
        return None
    reason, _, message = words.decode("utf-8", "replace").partition(": ")
    # It becomes an attribute's value, of which there may not be any number.
    return ReadError(reason if _REASON.fullmatch(reason) else "undecodable", message)
