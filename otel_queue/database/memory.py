"""What the follower remembers between two looks, so that a look tells the ledger only what changed."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from otel_queue.database.rows import DeliveryRow, EventRow, Key, ProjectRow
from otel_queue.lifecycle import UNTOLD, Label

_SOURCES: Final = 200_000


class Sources:
    """The sources of the events that one reading met, and of as many of the readings before it as there is room for."""

    def __init__(self) -> None:
        self._newer: dict[Key, str | None] = {}
        self._older: dict[Key, str | None] = {}

    def begin(self) -> None:
        """Before a reading: nothing that is added from here on is forgotten until the next one begins."""
        if len(self._newer) > _SOURCES:
            self._older, self._newer = self._newer, {}

    def add(self, rows: Iterable[EventRow]) -> None:
        """Remembers them; an event that was replayed has the source that one of its rows has."""
        for row in rows:
            source = row.source or None  # a blank one is none
            held = self._newer.get(row.key)
            self._newer[row.key] = min(held, source) if held and source else held or source

    def of(self, key: Key) -> Label:
        """The event's source; UNTOLD if it is not remembered."""
        return self._newer.get(key, self._older.get(key, UNTOLD))

    def unknown(self, rows: Iterable[DeliveryRow]) -> set[Key]:
        """The events of these deliveries that are not remembered."""
        wanted = {(row.project, row.event) for row in rows}
        return {key for key in wanted if self.of(key) is UNTOLD}


@dataclass(slots=True)
class Memory:
    """Statuses by key, as they were told. `young` and `old` are what is in flight, by when it was created.

    `recent` are the deliveries, and `recent_events` and `recent_attempts` the others, that the last look read as new:
    the next one reads some of them again.
    """

    young: dict[Key, str] = field(default_factory=dict)
    old: dict[Key, str] = field(default_factory=dict)
    recent: dict[Key, str] = field(default_factory=dict)
    recent_events: set[Key] = field(default_factory=set)
    recent_attempts: set[Key] = field(default_factory=set)
    projects: dict[str, ProjectRow] = field(default_factory=dict)
    sources: Sources = field(default_factory=Sources)

    def status_of(self, key: Key) -> str | None:
        """The status that was told of a delivery; None if none is remembered."""
        return self.young.get(key) or self.old.get(key) or self.recent.get(key)
