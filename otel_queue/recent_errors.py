"""The last errors of a lane, each once."""

from typing import Final

from otel_queue.status import RecentError

_MOST: Final = 20
_MOST_CHARACTERS: Final = 2_000


class RecentErrors:
    """Remembers the 20 distinct errors that came last; the one unseen for longest makes room. Not safe for threads."""

    def __init__(self, lane: str) -> None:
        self._lane = lane
        self._found: dict[tuple[str, str], RecentError] = {}  # the newest last

    def note(self, reason: str, text: str, time: float, count: int = 1) -> None:
        """Counts an error at a Unix time; words longer than 2,000 characters are cut."""
        text = text[:_MOST_CHARACTERS]
        before = self._found.pop((reason, text), None)
        first, so_far = (before.first, before.count) if before else (time, 0)
        self._found[reason, text] = RecentError(self._lane, reason, text, first, time, so_far + count)
        if len(self._found) > _MOST:
            del self._found[next(iter(self._found))]

    def newest_first(self) -> tuple[RecentError, ...]:
        """What is remembered."""
        return tuple(reversed(self._found.values()))
