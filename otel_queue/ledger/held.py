"""Counters of the ledger that never fall while this process lives, whatever Redis lost."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from otel_queue.ledger.project import Project

Attempts = Mapping[tuple[str, str, str], int]
_NONE: Final[Attempts] = {}


@dataclass(slots=True)
class _Shown:
    """A project's attempts: as the ledger told them, as they were shown, and which of these are above what it told."""

    told: Attempts
    memory: object
    attempts: Attempts
    held: Attempts = field(default_factory=dict)


class HeldCounters:
    """Holds a counter at the highest value that was shown, until the ledger's passes it or another ledger begins.

    One for each exporter, for whoever compares a ledger with something wants to see what it lost. Costs nothing for
    attempts that did not change. Not safe for threads.
    """

    def __init__(self) -> None:
        self._birth_us: int | None = None
        self._shown: dict[str, _Shown] = {}
        self._totals: dict[tuple[str, str], int] = {}

    def begin(self, birth_us: int) -> None:
        """Says of which ledger the next values are; those of another one are not held."""
        if birth_us != self._birth_us:
            self._birth_us = birth_us
            self._shown, self._totals = {}, {}

    def attempts(self, project: Project) -> Attempts:
        """What is to be shown of a project's attempts. Those that ended are not held, those that were lost are."""
        shown = self._shown.get(project.project)
        if shown is None or shown.told is not project.attempts or shown.memory is not project.memory:
            shown = self._shown[project.project] = _next(shown, project)
        return shown.attempts

    def held_attempts(self, project: str) -> int:
        """How many of the project's attempts were last shown above what the ledger tells."""
        shown = self._shown.get(project)
        return len(shown.held) if shown is not None else 0

    def total(self, what: str, kind: str, told: int) -> int:
        """What is to be shown of a sum over all projects."""
        total = self._totals[what, kind] = max(told, self._totals.get((what, kind), 0))
        return total


def _next(shown: _Shown | None, project: Project) -> _Shown:
    told = project.attempts
    if shown is None:
        return _Shown(told, project.memory, told)
    is_new = shown.memory is not project.memory
    held = {
        each: count
        for each, count in shown.attempts.items()
        if told.get(each, 0 if is_new or each in shown.held else count) < count
    }
    return _Shown(told, project.memory, {**told, **held} if held else told, held or _NONE)
