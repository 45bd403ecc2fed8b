"""Redis replies as values. What is not of the expected form raises a ReadError with its reason."""

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from otel_queue.errors import ReadError
from otel_queue.redis_client.reasons import reply_reason
from otel_queue.redis_client.requests import ErrorReply, Reply

_T = TypeVar("_T")


class Fields:
    """Reads one field at a time; one that cannot be read is None, and counted in `failures` by reason.

    The methods that every queue needs many times test the expected form first: they are what a collection of
    hundreds of queues spends its time in.
    """

    def __init__(self, failures: Counter[str]) -> None:
        self.failures = failures

    def __call__(self, parse: Callable[[Reply], _T], reply: Reply) -> _T | None:
        """The parsed reply, or None."""
        try:
            return parse(reply)
        except ReadError as error:
            self.failures[error.reason] += 1
        return None

    def integer(self, reply: Reply) -> int | None:
        """An integer reply."""
        return reply if type(reply) is int else self(integer, reply)

    def counter(self, reply: bytes) -> int | None:
        """A counter's decimal text."""
        return int(reply) if reply.isdigit() and len(reply) < 19 else self(decimal, reply)

    def first_score(self, reply: Reply, empty: float) -> float | None:
        """The score of the first member read WITHSCORES, or `empty`."""
        if type(reply) is list:
            if not reply:
                return empty
            if len(reply) == 2 and type(reply[1]) is bytes and reply[1].isdigit():
                return float(reply[1])
        found = self(scored, reply)
        return found[0][1] if found else None


@contextmanager
def taking_apart(what: str) -> Iterator[None]:
    """Around code that takes replies apart: what does not have the expected form is a ReadError, `bad_value`.

    A key may hold anything, whoever wrote it; also to be put on a function.
    """
    try:
        yield
    except (ValueError, TypeError, IndexError, struct.error) as error:
        raise ReadError("bad_value", f"{what} cannot be read: {type(error).__name__}: {error}"[:300]) from error


def unexpected(reply: Reply, wanted: str) -> ReadError:
    """The error for a reply that is not what was asked for."""
    if isinstance(reply, ErrorReply):
        return ReadError(reply_reason(reply), str(reply))
    return ReadError("protocol", f"expected {wanted}, got {type(reply).__name__}")


def integer(reply: Reply) -> int:
    """An integer reply."""
    if type(reply) is int:
        return reply
    raise unexpected(reply, "an integer")


def array(reply: Reply) -> list[Reply]:
    """An array reply."""
    if isinstance(reply, list):
        return reply
    raise unexpected(reply, "an array")


def names(reply: Reply) -> list[bytes]:
    """An array of byte strings."""
    found = array(reply)
    for item in found:
        if type(item) is not bytes:
            raise unexpected(item, "a byte string")
    return found


def text(reply: Reply) -> bytes | None:
    """A byte string, or None for a key or field that does not exist."""
    if reply is None or isinstance(reply, bytes):
        return reply
    raise unexpected(reply, "a byte string")


def counter(reply: Reply) -> int | None:
    """A counter's decimal text; None for a key that does not exist."""
    value = text(reply)
    return None if value is None else decimal(value)


def counted(reply: Reply) -> int:
    """A counter's decimal text; 0 for a key that does not exist."""
    return counter(reply) or 0


def time_us(reply: Reply) -> int:
    """Redis server time, as TIME answers, in Unix microseconds."""
    match reply:
        case [bytes(seconds), bytes(micros)] if seconds.isdigit() and micros.isdigit():
            if len(seconds) <= 11 and len(micros) <= 6:
                return int(seconds) * 1_000_000 + int(micros)
    raise unexpected(reply, "seconds and microseconds")


def decimal(value: bytes) -> int:
    """A non-negative or negative decimal integer, written plainly."""
    digits = value[1:] if value.startswith(b"-") else value
    if not digits.isdigit() or len(digits) > 19:
        raise ReadError("bad_value", f"{value[:40]!r} is not a decimal integer")
    return int(value)


def scored(reply: Reply) -> list[tuple[bytes, float]]:
    """Members and scores of a sorted set read WITHSCORES."""
    found = names(reply)
    if len(found) % 2:
        raise ReadError("protocol", "a member without a score")
    try:
        return [(found[index], float(found[index + 1])) for index in range(0, len(found), 2)]
    except ValueError as error:
        raise ReadError("protocol", str(error)) from error
