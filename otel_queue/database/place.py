"""How far the follower is, and the lease by which one at a time goes on from there; both in its ledger's Redis."""

import json
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from typing import Final

from otel_queue.errors import ReadError
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

_VERSION: Final = 1
_TIMEOUT_SECONDS: Final = 5.0


@dataclass(slots=True)
class Place:
    """Times are Unix microseconds, by the database unless they say otherwise.

    `events_us`, `deliveries_us` and `attempts_us` are from where on the next look reads. `read_us` is the time of the
    last records, by Redis. `filled_us` is up to where the first fill has come, None when it is over; `first_day` is
    the first one that it tracked, "" before older days were counted, and `began_us` when it began, by Redis. `days` are
    the days of each project that had a partition.
    """

    events_us: int = 0
    deliveries_us: int = 0
    attempts_us: int = 0
    read_us: int = 0
    filled_us: int | None = 0
    first_day: str = ""
    began_us: int = 0
    days: dict[str, list[str]] = field(default_factory=dict)

    def text(self) -> bytes:
        """As it is kept."""
        return json.dumps({"version": _VERSION, **asdict(self)}, separators=(",", ":")).encode()


def read_place(told: bytes) -> Place:
    """The place; one of another version, or a damaged one, is the beginning."""
    try:
        found = json.loads(told)
        if found.pop("version") == _VERSION:
            return Place(**found)
    except (ValueError, TypeError, AttributeError, KeyError):
        pass
    return Place()


class Lease:
    """One follower's right to write its ledger. Every method is one round trip and raises ReadError.

    `token` is greater than that of any lease before it, and empty while the lease is not ours.
    """

    def __init__(self, link: RedisLink, namespace: str, seconds: float) -> None:
        self.key = f"{namespace}:follow".encode()
        self._link = link
        self._duration = round(seconds * 1e6)
        self.token = b""

    def take(self) -> Place | None:
        """Takes the lease, or prolongs ours; the place to go on from, None while another follower has the lease."""
        with taking_apart("the follower's lease"):
            token, place = array(self._eval("take_lease", self.token, self._duration))
        self.token = text(token) or b""
        if not self.token:
            return None
        kept = text(place)
        return Place() if kept is None else read_place(kept)

    def keep(self, place: Place | None = None) -> None:
        """Keeps the place and prolongs the lease; where it is lost nothing is kept, and the reason is `lease_lost`."""
        self._hold(self._duration, b"" if place is None else place.text())

    def end(self) -> None:
        """Lets another follower begin at once."""
        if self.token:
            self._hold(0, b"")
            self.token = b""

    def close(self) -> None:
        """Ends the connection; a later call opens a new one."""
        self._link.close()

    def _hold(self, duration_us: int, place: bytes) -> None:
        if not integer(self._eval("keep_place", self.token, duration_us, place)):
            token, self.token = self.token, b""
            raise ReadError("lease_lost", f"another follower took over from the lease {token.decode()}")

    def _eval(self, script: str, *arguments: bytes | int) -> Reply:
        command = pack("EVAL", _script(script), 1, self.key, *arguments)
        [[reply]] = ask(self._link, [Request(self.key, command, 1)], _TIMEOUT_SECONDS)
        if isinstance(reply, ErrorReply):
            raise ReadError(reply_reason(reply), str(reply))
        return reply


@cache
def _script(name: str) -> bytes:
    return (resources.files(__package__) / f"{name}.lua").read_bytes()
