"""The ledger's Lua scripts, as they travel: loaded once per server, called by their hash."""

import hashlib
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

# Scripts that look for ids or number groups share the prelude, which is put before their text.
_WITH_PRELUDE: Final = frozenset(
    {"record_deliveries", "record_events", "record_attempts", "find_ids", "forget_ids", "number_groups"}
)


class Script(NamedTuple):
    """Text and SHA-1, as SCRIPT LOAD and EVALSHA want them."""

    text: bytes
    sha: bytes


@cache
def script(name: str) -> Script:
    """The script in NAME.lua beside this file."""
    folder = resources.files(__package__)
    text = (folder / f"{name}.lua").read_bytes()
    if name in _WITH_PRELUDE:
        text = (folder / "prelude.lua").read_bytes() + text
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())
