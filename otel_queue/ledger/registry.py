"""The list of projects, and which of them changed: by the numbers under which writers announce them."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from otel_queue.errors import ReadError
from otel_queue.ledger.replication import HISTORY, history_of
from otel_queue.redis_client import Reading, Reply, integer, names, request, scored, taking_apart

_NOTHING: Final = float("-inf")
# So many members are compared in each reading with those that are known.
_COMPARED: Final = 500


class Listing(NamedTuple):
    """The projects to look at, and all that are registered if the list was read whole, else None."""

    announced: list[str]
    registered: set[str] | None


class Registry:
    """What a reader knows of `oq:projects`: who is registered, and the highest number it has seen."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.forget()

    def forget(self) -> None:
        """The next reading lists all of it. Also after a reading that was broken off, or told what cannot be."""
        self._members: set[bytes] = set()
        self._compared = 0  # from the highest number down
        self._seen = _NOTHING
        self.history = b""

    def read(self) -> Reading[Listing]:
        """What was announced since the last reading. One round trip; a second one where the list has to be read whole.

        That is where a member went or another took its place, and where the numbers begin anew: after a failover or a
        lost tail nobody knows which announcements were lost, so that all projects are to be looked at. `_COMPARED`
        members are compared in each reading with those that are known, so that all of them are in turn.
        """
        try:
            with taking_apart(f"the list of projects in {self._key.decode()}"):
                return (yield from self._read_since())
        except ReadError:
            self.forget()
            raise

    def _read_since(self) -> Reading[Listing]:
        first = self._compared
        told_history, count, last, since, slice_ = yield request(
            self._key,
            [
                HISTORY,
                ("ZCARD", self._key),
                ("ZRANGE", self._key, -1, -1, "WITHSCORES"),
                ("ZRANGEBYSCORE", self._key, f"({self._seen:.17g}", "+inf", "WITHSCORES"),
                # What is announced goes to the top, and moves none that was not compared yet towards it.
                ("ZRANGE", self._key, -first - _COMPARED, -first - 1),
            ],
        )
        numbers = dict(scored(since))
        highest = max((number for _, number in scored(last)), default=_NOTHING)
        goes_on = self._is_same(told_history) and highest >= self._seen
        self._members |= numbers.keys()
        compared = names(slice_)
        if not goes_on or integer(count) != len(self._members) or not self._members.issuperset(compared):
            return (yield from self._read_whole())
        self._compared = first + len(compared) if len(compared) == _COMPARED else 0
        self._seen = max(numbers.values(), default=self._seen)
        return Listing(_names(numbers), None)

    def _read_whole(self) -> Reading[Listing]:
        told_history, listed = yield request(self._key, [HISTORY, ("ZRANGE", self._key, 0, -1, "WITHSCORES")])
        numbers = dict(scored(listed))
        highest = max(numbers.values(), default=_NOTHING)
        seen = self._seen if self._is_same(told_history) and highest >= self._seen else _NOTHING
        announced = [name for name, number in numbers.items() if number > seen or name not in self._members]
        self._members, self._seen = set(numbers), highest
        self.history = history_of(told_history) or self.history
        return Listing(_names(announced), set(_names(numbers)))

    def _is_same(self, told: Reply) -> bool:
        """Whether it is the history that the last reading was of; where that is not told, numbers tell it."""
        return history_of(told) in (b"", self.history)


def _names(members: Iterable[bytes]) -> list[str]:
    return [name.decode("utf-8", "replace") for name in members]
