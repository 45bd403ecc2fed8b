"""Which history a Redis goes on from."""

import re
from typing import Final

from otel_queue.redis_client import Reply

# What a Redis was told is a history, and has an id: a master that lost the end of it, a replica that took over without
# it, and a Redis in the place of another go on under another id.
HISTORY: Final = ("INFO", "replication")
_HISTORY_ID: Final = re.compile(rb"^master_replid:(\w+)", re.MULTILINE)


def history_of(reply: Reply) -> bytes:
    """The replication id; b"" where it is not told: INFO is refused, or a proxy has none."""
    found = _HISTORY_ID.search(reply) if isinstance(reply, bytes) else None
    return found[1] if found else b""
