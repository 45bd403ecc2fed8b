"""The ledger's Lua scripts, as they travel: loaded once per server, called by their hash."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

from otel_queue.redis_client import ErrorReply, Reply, Request, pack

Word = bytes | str | int

# What scripts share, which is put before their text: the contract; states of ids; what those have that look for ids or
# number groups, and those that close days.
_RECORDING: Final = ("contract", "states", "prelude")
_CLOSING: Final = ("contract", "states", "closing")
_BEFORE: Final = {
    "record_deliveries": _RECORDING,
    "record_events": _RECORDING,
    "record_attempts": _RECORDING,
    "find_ids": _RECORDING,
    "forget_ids": _RECORDING,
    "number_groups": _RECORDING,
    "describe_project": ("contract",),
    "expire_day": _CLOSING,
    "settle_day": _CLOSING,
    "fold_day": _CLOSING,
    "keep_open": ("contract", "states"),
    "end_undated": ("contract", "states"),
    "free_groups": ("contract",),
    "replace_counts": ("contract", "states"),
    "begin_attempts": ("contract",),
}


class Script(NamedTuple):
    """Text and SHA-1, as SCRIPT LOAD and EVALSHA want them."""

    text: bytes
    sha: bytes


@cache
def script(name: str) -> Script:
    """The script in NAME.lua beside this file."""
    folder = resources.files(__package__)
    text = b"".join((folder / f"{part}.lua").read_bytes() for part in (*_BEFORE.get(name, ()), name))
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


def call_of(name: str, keys: Sequence[bytes], arguments: Iterable[Word]) -> Request:
    """A call of the script in NAME.lua by its hash; all keys are in one slot."""
    return Request(keys[0], pack("EVALSHA", script(name).sha, len(keys), *keys, *arguments), 1)


def loading(name: str, call: Request) -> Request:
    """The call again, for a server that does not know the script: its text first."""
    return Request(call.key, pack("SCRIPT", "LOAD", script(name).text) + call.packed, 2)


def is_unknown(reply: Reply) -> bool:
    """Whether a server did not know the script that was called."""
    return isinstance(reply, ErrorReply) and str(reply).startswith("NOSCRIPT")
