"""Bytes and replies that are almost right, or not at all."""

import random
from collections.abc import Callable
from typing import Any, Final

import hiredis

# What breaks parsers: limits of varints and lengths, UTF-8 cut in half, surrogates, number texts.
_TOKENS: Final = (
    b"\x00", b"\x7f", b"\x80", b"\xff", b"\xff" * 10, b"\x80" * 10 + b"\x01", b"\xff\xff\xff\xff\x0f",
    b"\xed\xa0\x80", b"\xc3", b"\xf4\x90\x80\x80", b"\x0b", b"\x0c", b"\x7a\x00", b"\x7a\x02\x0a\x00",
    b"9" * 19, b"9" * 20, b"-", b"nan", b"inf", b"1e400", b"0x10", b".5", b"\r\n", b"{", b"}",
)  # fmt: skip


def random_bytes(chance: random.Random, most: int = 64) -> bytes:
    return chance.randbytes(chance.randrange(most))


def mutate(data: bytes, chance: random.Random) -> bytes:
    """`data` after one to four small accidents."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(changed) + 1)
        accident = chance.randrange(7)
        if accident == 0 and place < len(changed):
            changed[place] ^= 1 << chance.randrange(8)
        elif accident == 1 and place < len(changed):
            changed[place] = chance.randrange(256)
        elif accident == 2:
            del changed[place : place + chance.randrange(1, 9)]
        elif accident == 3:
            changed[place:place] = random_bytes(chance, 8)
        elif accident == 4:
            changed[place:place] = chance.choice(_TOKENS)
        elif accident == 5:
            del changed[place:]
        else:
            start = chance.randrange(len(changed) + 1)
            changed[place:place] = changed[start : start + chance.randrange(1, 17)]
    return bytes(changed)


_ERRORS: Final = (
    "WRONGTYPE Operation against a key holding the wrong kind of value", "NOPERM this user has no permissions",
    "ERR unknown command", "LOADING", "MOVED 1 127.0.0.1:1", "ASK 1 127.0.0.1:1", "CLUSTERDOWN", "EXECABORT",
    "MASTERDOWN", "NOAUTH", "READONLY", "", " ", "�", "OOM command not allowed",
)  # fmt: skip
_SCALARS: Final[tuple[Callable[[random.Random], Any], ...]] = (
    lambda chance: None,
    lambda chance: chance.choice((0, 1, -1, 2, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**200)),
    lambda chance: chance.randrange(-3, 300),
    random_bytes,
    lambda chance: chance.choice(_TOKENS),
    lambda chance: b"%d" % chance.randrange(10**10),
    lambda chance: hiredis.ReplyError(chance.choice(_ERRORS)),
    lambda chance: [],
    # What a RESP3 server could say.
    lambda chance: chance.choice((True, False, 1.5, float("inf"), float("nan"), {}, {b"a": 1})),
)


def random_reply(chance: random.Random, depth: int = 3) -> Any:
    """Anything that a parser of RESP can return."""
    if depth and chance.random() < 0.3:
        return [random_reply(chance, depth - 1) for _ in range(chance.randrange(6))]
    return chance.choice(_SCALARS)(chance)


def mutate_reply(reply: Any, chance: random.Random) -> Any:
    """`reply` with one thing in it changed, at any depth."""
    if isinstance(reply, list) and reply and chance.random() < 0.7:
        changed = list(reply)
        place = chance.randrange(len(changed))
        accident = chance.randrange(6)
        if accident == 0:
            del changed[place:]
        elif accident == 1:
            changed.insert(place, chance.choice(changed))
        elif accident == 2:
            del changed[place]
        else:
            changed[place] = mutate_reply(changed[place], chance)
        return changed
    if isinstance(reply, bytes) and chance.random() < 0.6:
        return mutate(reply, chance)
    return random_reply(chance)
