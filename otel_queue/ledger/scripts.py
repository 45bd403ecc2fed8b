"""The ledger's Lua scripts, as they travel: loaded once per server, called by their hash."""

import hashlib
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

# What scripts share, which is put before their text: of those that look for ids or number groups, and close days.
_PRELUDE: Final = "prelude"
_CLOSING: Final = "closing"
_BEFORE: Final = {
    "record_deliveries": _PRELUDE,
    "record_events": _PRELUDE,
    "record_attempts": _PRELUDE,
    "find_ids": _PRELUDE,
    "forget_ids": _PRELUDE,
    "number_groups": _PRELUDE,
    "expire_day": _CLOSING,
    "fold_day": _CLOSING,
}


class Script(NamedTuple):
    """Text and SHA-1, as SCRIPT LOAD and EVALSHA want them."""

    text: bytes
    sha: bytes


@cache
def script(name: str) -> Script:
    """The script in NAME.lua beside this file."""
    folder = resources.files(__package__)
    text = (folder / f"{name}.lua").read_bytes()
    if name in _BEFORE:
        text = (folder / f"{_BEFORE[name]}.lua").read_bytes() + text
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())
