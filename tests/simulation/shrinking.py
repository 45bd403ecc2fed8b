"""Makes a failing schedule small: leaves out steps as long as it still fails for the same reason."""

from collections.abc import Callable, Sequence

from tests.simulation.schedule import Schedule, Step, without

Fails = Callable[[Schedule], str]
"""What a schedule fails with, "" if it does not."""


def shrink(schedule: Schedule, fails: Fails) -> Schedule:
    """A schedule that fails as this one does, and with none of its parts of any size left out any more."""
    reason = _kind(fails(schedule))
    size = max(len(schedule.steps) // 2, 1)
    while True:
        smaller = _smaller(schedule, size, lambda shorter: _kind(fails(shorter)) == reason)
        if len(smaller.steps) == len(schedule.steps):
            if size == 1:
                return schedule
            size = max(size // 2, 1)
        schedule = smaller


def _smaller(schedule: Schedule, size: int, still_fails: Callable[[Schedule], bool]) -> Schedule:
    """Without each part of so many steps that is not needed, from the last one on."""
    for start in reversed(range(0, len(schedule.steps), size)):
        part: Sequence[Step] = schedule.steps[start : start + size]
        shorter = without(schedule, part)
        if still_fails(shorter):
            schedule = shorter
    return schedule


def _kind(reason: str) -> str:
    """The words of a failure without its names and numbers."""
    words = reason.split()[:6]
    return " ".join(word for word in words if word.isalpha())
